//! Django's `timesince` and `timeuntil`: the two largest units of the time between two dates.

use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use tera::{Kwargs, State, Tera, TeraResult, Value};

use crate::config;
use crate::presentation::i18n::plural::Count;
use crate::presentation::rendering;

/// The days of months. Django ignores leap years here.
const MONTH_DAYS: [i8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const UNITS: [&str; 6] = ["year", "month", "week", "day", "hour", "minute"];
/// The seconds of the last four units.
const SECONDS: [i64; 4] = [604_800, 86_400, 3_600, 60];
const UNITS_MAX: usize = 2;

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation) {
    for (name, is_until) in [("timesince", false), ("timeuntil", true)] {
        let zone = settings.time_zone.clone();
        tera.register_filter(name, move |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<String> {
            let Some(at) = Moment::read(value) else { return Ok(String::new()) };
            let given = kwargs.get::<&Value>("from")?.filter(|value| value.is_truthy());
            let other = match given {
                None => Some(at.now(&rendering::zone(&zone))),
                Some(value) => Moment::read(value).and_then(|other| other.in_offset_of(&at)),
            };
            let Some(other) = other else { return Ok(String::new()) };
            if is_until { between(&other, &at, None) } else { between(&at, &other, None) }
        });
    }
}

/// A date and time, with its offset from UTC if it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub at: DateTime,
    offset: Option<Offset>,
}

impl Moment {
    /// Parses ISO 8601, the format of dates in JSON.
    pub(super) fn read(value: &Value) -> Option<Moment> {
        let text = value.as_str()?.trim();
        if !text.contains(['-', 'T']) {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let at = pieces.date().to_datetime(pieces.time().unwrap_or_default());
        Some(Moment { at, offset: pieces.to_numeric_offset() })
    }

    /// The current time in the offset of `self`, or in `zone`.
    pub(super) fn now(&self, zone: &TimeZone) -> Moment {
        let now = Timestamp::now();
        let at = match self.offset {
            Some(offset) => offset.to_datetime(now),
            None => zone.to_datetime(now),
        };
        Moment { at, offset: self.offset }
    }

    /// `None` if only one of them has an offset.
    fn in_offset_of(&self, other: &Moment) -> Option<Moment> {
        match (self.offset, other.offset) {
            (Some(own), Some(offset)) => {
                let at = offset.to_datetime(own.to_timestamp(self.at).ok()?);
                Some(Moment { at, offset: Some(offset) })
            }
            (None, None) => Some(*self),
            _ => None,
        }
    }

    /// Whole seconds.
    pub(super) fn seconds_since(&self, earlier: &Moment) -> i64 {
        duration(earlier.at, self.at).as_secs()
    }
}

fn duration(from: DateTime, to: DateTime) -> SignedDuration {
    to.duration_since(from)
}

/// The time between two dates of the same offset, with the translations of a context.
pub(super) fn between(from: &Moment, to: &Moment, context: Option<&str>) -> TeraResult<String> {
    if duration(from.at, to.at).as_secs() <= 0 {
        return unit(context, "minute", 0);
    }
    let counts = counts(from.at, to.at);
    let Some(first) = counts.iter().position(|count| *count != 0) else { return unit(context, "minute", 0) };
    let largest = counts.iter().zip(UNITS).skip(first).take(UNITS_MAX).take_while(|(count, _)| **count != 0);
    let parts = largest.map(|(count, name)| unit(context, name, *count)).collect::<TeraResult<Vec<_>>>()?;
    let comma = rendering::current(|rendering| Ok(rendering.language.text(None, ", ").to_owned()))?;
    Ok(parts.join(&comma))
}

/// The number of each unit.
fn counts(from: DateTime, to: DateTime) -> [i64; 6] {
    let year_month = |at: DateTime| i64::from(at.year()) * 12 + i64::from(at.month());
    let is_short = (to.day(), to.time()) < (from.day(), from.time());
    let months = year_month(to) - year_month(from) - i64::from(is_short);
    let pivot = if months > 0 { pivot(from, months).unwrap_or(from) } else { from };
    let mut rest = duration(pivot, to).as_secs();
    let mut counts = [months / 12, months % 12, 0, 0, 0, 0];
    for (count, seconds) in counts[2..].iter_mut().zip(SECONDS) {
        *count = rest.div_euclid(seconds);
        rest -= *count * seconds;
    }
    counts
}

/// The date a number of months later, without a fraction of a second.
fn pivot(from: DateTime, months: i64) -> Option<DateTime> {
    let months = i64::from(from.month()) - 1 + months;
    let (year, month) = (i64::from(from.year()) + months / 12, usize::try_from(months % 12).ok()?);
    let year = i16::try_from(year).ok().filter(|year| (1..=9999).contains(year))?;
    let day = date(year, i8::try_from(month + 1).ok()?, from.day().min(MONTH_DAYS[month]));
    Some(day.at(from.hour(), from.minute(), from.second(), 0))
}

/// `2 weeks`, with a no-break space.
fn unit(context: Option<&str>, name: &str, count: i64) -> TeraResult<String> {
    let (one, many) = (format!("%(num)d {name}"), format!("%(num)d {name}s"));
    rendering::current(|rendering| {
        let text = rendering.language.plural(context, &one, &many, Count::Whole(count.into()));
        Ok(text.replace("%(num)d", &count.to_string()).replace(' ', "\u{a0}"))
    })
}
