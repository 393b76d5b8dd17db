//! Django's dates: its format letters, the filters `date` and `time`, and the function `now`.
//!
//! Names of months and days come from the message's catalogue, with the message ids of Django, otherwise from Django, otherwise
//! from the CLDR, whose abbreviations differ in part.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::python;
use crate::config;
use crate::presentation::i18n::formats::{self, Name};
use crate::presentation::rendering;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The abbreviations of the Associated Press.
const MONTHS_AP: [&str; 12] =
    ["Jan.", "Feb.", "March", "April", "May", "June", "July", "Aug.", "Sept.", "Oct.", "Nov.", "Dec."];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Django's named formats, and the equivalents of the CLDR.
const NAMED: [(&str, &[Name]); 7] = [
    ("DATE_FORMAT", &[Name::Date]),
    ("DATETIME_FORMAT", &[Name::Date, Name::Time]),
    ("TIME_FORMAT", &[Name::Time]),
    ("SHORT_DATE_FORMAT", &[Name::ShortDate]),
    ("SHORT_DATETIME_FORMAT", &[Name::ShortDate, Name::Time]),
    ("YEAR_MONTH_FORMAT", &[Name::YearMonth]),
    ("MONTH_DAY_FORMAT", &[Name::MonthDay]),
];

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation) {
    for (name, default) in [("date", "DATE_FORMAT"), ("time", "TIME_FORMAT")] {
        let zone = settings.time_zone.clone();
        tera.register_filter(name, move |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<String> {
            let format = kwargs.get::<&Value>("format")?.map_or_else(|| default.to_owned(), python::text);
            Ok(Moment::read(value, &rendering::zone(&zone))
                .map_or_else(String::new, |moment| moment.formatted(&format)))
        });
    }
    let zone = settings.time_zone.clone();
    tera.register_function("now", move |kwargs: Kwargs, _: &State| -> TeraResult<String> {
        let format = python::text(kwargs.must_get("format")?);
        Ok(Moment::aware(Timestamp::now(), &rendering::zone(&zone)).formatted(&format))
    });
}

/// The day of a date or date-time in a time zone.
pub(super) fn day(value: &Value, zone: &TimeZone) -> Option<jiff::civil::Date> {
    Moment::read(value, zone).map(|moment| moment.at.date())
}

/// The result of the filter `date`.
pub(super) fn date_text(value: &Value, zone: &TimeZone, format: &str) -> String {
    Moment::read(value, zone).map_or_else(String::new, |moment| moment.formatted(format))
}

/// A date, optionally with a time and a zone.
struct Moment {
    at: DateTime,
    /// The zone of a naive date.
    zone: TimeZone,
    /// The instant, if the date has an offset.
    zoned: Option<ZonedDateTime>,
    has_time: bool,
}

impl Moment {
    /// Parses ISO 8601, the format of dates in JSON. A date with an offset is converted to `zone`; another one is not changed.
    fn read(value: &Value, zone: &TimeZone) -> Option<Moment> {
        let text = value.as_str()?.trim();
        // Jiff accepts shorter forms too, which are more often numbers than dates.
        if !text.contains(['-', ':', 'T']) {
            return None;
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(Moment::aware(at, zone));
        }
        let has_time = text.contains([':', 'T', 't', ' ']);
        let on_a_day = |time| jiff::civil::date(1900, 1, 1).to_datetime(time);
        let time = || text.parse::<jiff::civil::Time>().ok().filter(|_| !text.contains('-'));
        let at = text.parse::<DateTime>().ok().or_else(|| time().map(on_a_day))?;
        Some(Moment { at, zone: zone.clone(), zoned: None, has_time })
    }

    fn aware(at: Timestamp, zone: &TimeZone) -> Moment {
        let at = at.to_zoned_datetime(zone.clone());
        Moment { at: at.datetime(), zone: zone.clone(), zoned: Some(at), has_time: true }
    }

    fn formatted(&self, format: &str) -> String {
        let named = NAMED.iter().find(|(name, _)| *name == format);
        let Some((name, parts)) = named else { return self.with_letters(format) };
        // Outside a render, and without other data, the formats are Django's English ones.
        let conventions = rendering::current(|rendering| Ok(rendering.language.conventions)).unwrap_or_default();
        let by_cldr = || parts.iter().map(|part| self.by_cldr(*part)).collect::<Option<Vec<_>>>();
        match by_cldr().filter(|_| !conventions.is_known()) {
            Some(parts) => parts.join(" "),
            None => self.with_letters(conventions.format(name).unwrap_or_default()),
        }
    }

    /// Replaces format letters. A character after a backslash is literal, and so is a letter after an escaped backslash.
    fn with_letters(&self, format: &str) -> String {
        let mut out = String::new();
        let (mut previous, mut is_escaped) = (' ', false);
        for c in format.chars() {
            match self.letter(c).filter(|_| previous != '\\') {
                Some(text) => out.push_str(&text),
                None if c == '\\' && !is_escaped => {
                    (previous, is_escaped) = (c, true);
                    continue;
                }
                None => out.push(c),
            }
            (previous, is_escaped) = (c, false);
        }
        if is_escaped {
            out.push('\\');
        }
        out
    }

    /// The CLDR's text, for a language that Django does not have.
    fn by_cldr(&self, name: Name) -> Option<String> {
        rendering::current(|rendering| Ok(formats::named(self.at, name, &rendering.language.locale))).ok().flatten()
    }

    /// The name in the message's language: from its catalogue, otherwise Django, otherwise the CLDR, otherwise in English.
    fn name(&self, context: Option<&str>, id: &str, name: Name) -> String {
        let known = rendering::current(|rendering| Ok(rendering.language.word(context, id).map(str::to_owned)));
        let known = known.ok().flatten().or_else(|| Some(self.by_cldr(name)?.trim_end_matches('.').to_owned()));
        known.unwrap_or_else(|| id.to_owned())
    }

    /// The instant. Of an ambiguous naive time, the first one.
    fn zoned(&self) -> Option<ZonedDateTime> {
        let found = || self.at.to_zoned_datetime(self.zone.clone()).ok();
        self.zoned.clone().or_else(found)
    }

    /// The text for a format letter of Django; `None` for a literal character.
    fn letter(&self, letter: char) -> Option<String> {
        let at = self.at;
        let hour12 = if at.hour() % 12 == 0 { 12 } else { at.hour() % 12 };
        let (day, week) =
            (DAYS[usize::from(at.weekday().to_monday_zero_offset().unsigned_abs())], at.date().iso_week_date());
        let month = usize::from(at.month().unsigned_abs()) - 1;
        Some(match letter {
            'a' => translated(if at.hour() > 11 { "p.m." } else { "a.m." }),
            'A' => translated(if at.hour() > 11 { "PM" } else { "AM" }),
            'b' => self.name(None, &MONTHS[month][..3].to_lowercase(), Name::ShortMonth),
            'c' => self.iso(),
            'd' => format!("{:02}", at.day()),
            'D' => self.name(None, &day[..3], Name::ShortWeekday),
            'e' => self.zoned.as_ref().map_or_else(String::new, |_| self.abbreviation()),
            'E' => self.name(Some("alt. month"), MONTHS[month], Name::MonthOfDay),
            'f' => self.short_time(hour12),
            'F' => self.name(None, MONTHS[month], Name::Month),
            'g' => hour12.to_string(),
            'G' => at.hour().to_string(),
            'h' => format!("{hour12:02}"),
            'H' => format!("{:02}", at.hour()),
            'i' => format!("{:02}", at.minute()),
            'I' => {
                self.if_zoned(|zoned| u8::from(self.zone.to_offset_info(zoned.timestamp()).dst().is_dst()).to_string())
            }
            'j' => at.day().to_string(),
            'l' => self.name(None, day, Name::Weekday),
            'L' => if at.date().in_leap_year() { "True" } else { "False" }.to_owned(),
            'm' => format!("{:02}", at.month()),
            'M' => python::title(&self.name(None, &MONTHS[month][..3].to_lowercase(), Name::ShortMonth)),
            'n' => at.month().to_string(),
            'N' => self.name(Some("abbrev. month"), MONTHS_AP[month], Name::ShortMonth),
            'o' => week.year().to_string(),
            'O' => self.if_zoned(|zoned| offset(zoned.offset())),
            'P' => self.spoken_time(hour12),
            'r' => self.if_dated(|zoned| {
                format!(
                    "{}, {:02} {} {} {} {}",
                    &day[..3],
                    at.day(),
                    &MONTHS[month][..3],
                    at.year(),
                    at.strftime("%H:%M:%S"),
                    offset(zoned.offset())
                )
            }),
            's' => format!("{:02}", at.second()),
            'S' => ordinal(at.day()).to_owned(),
            't' => at.date().days_in_month().to_string(),
            'T' => self.if_zoned(|_| self.abbreviation()),
            'u' => format!("{:06}", at.subsec_nanosecond() / 1000),
            'U' => self.if_dated(|zoned| zoned.timestamp().as_second().to_string()),
            'w' => at.weekday().to_sunday_zero_offset().to_string(),
            'W' => week.week().to_string(),
            'y' => format!("{:02}", at.year() % 100),
            'Y' => format!("{:04}", at.year()),
            'z' => at.date().day_of_year().to_string(),
            'Z' => self.if_zoned(|zoned| zoned.offset().seconds().to_string()),
            _ => return None,
        })
    }

    /// Empty for a date without a time, and for an ambiguous or skipped local time, even with an offset.
    fn if_zoned(&self, format: impl Fn(&ZonedDateTime) -> String) -> String {
        let has_zone = self.has_time && !self.zone.to_ambiguous_zoned_datetime(self.at).is_ambiguous();
        self.zoned().filter(|_| has_zone).map_or_else(String::new, |zoned| format(&zoned))
    }

    fn if_dated(&self, format: impl Fn(&ZonedDateTime) -> String) -> String {
        self.zoned().map_or_else(String::new, |zoned| format(&zoned))
    }

    fn abbreviation(&self) -> String {
        self.if_zoned(|zoned| self.zone.to_offset_info(zoned.timestamp()).abbreviation().to_owned())
    }

    /// Python's `isoformat`.
    fn iso(&self) -> String {
        if !self.has_time {
            return self.at.date().to_string();
        }
        let fraction = if self.at.subsec_nanosecond() == 0 { "" } else { ".%6f" };
        let zone = self.zoned.as_ref().map_or_else(String::new, |zoned| {
            let offset = offset(zoned.offset());
            format!("{}:{}", &offset[..3], &offset[3..])
        });
        format!("{}{zone}", self.at.strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}")))
    }

    fn short_time(&self, hour12: i8) -> String {
        match self.at.minute() {
            0 => hour12.to_string(),
            minute => format!("{hour12}:{minute:02}"),
        }
    }

    fn spoken_time(&self, hour12: i8) -> String {
        match (self.at.hour(), self.at.minute()) {
            (0, 0) => translated("midnight"),
            (12, 0) => translated("noon"),
            (hour, _) => format!("{} {}", self.short_time(hour12), translated(if hour > 11 { "p.m." } else { "a.m." })),
        }
    }
}

/// `+0200`.
fn offset(offset: Offset) -> String {
    let seconds = offset.seconds();
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    format!("{sign}{:02}{:02}", seconds / 3600, seconds / 60 % 60)
}

fn ordinal(day: i8) -> &'static str {
    match (day, day % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    }
}

/// A word in the message's language; in English outside a render and without a translation.
fn translated(word: &str) -> String {
    rendering::current(|rendering| Ok(rendering.language.word(None, word).unwrap_or(word).to_owned()))
        .unwrap_or_else(|_| word.to_owned())
}
