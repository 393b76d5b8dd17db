//! Django's `humanize`: numbers as words, and relative times.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::since::{self, Moment};
use super::{dates, numbers, python};
use crate::config;
use crate::presentation::i18n::plural::Count;
use crate::presentation::rendering;

const WORDS: [&str; 9] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
/// Powers of ten, and their names.
const LARGE: [(u32, &str); 10] = [
    (6, "million"),
    (9, "billion"),
    (12, "trillion"),
    (15, "quadrillion"),
    (18, "quintillion"),
    (21, "sextillion"),
    (24, "septillion"),
    (27, "octillion"),
    (30, "nonillion"),
    (33, "decillion"),
];
const DAY: i64 = 86_400;

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation) {
    tera.register_filter("intcomma", |value: &Value, kwargs: Kwargs, _: &State| {
        int_comma(value, kwargs.get::<&Value>("use_l10n")?.is_none_or(Value::is_truthy))
    });
    tera.register_filter("intword", |value: &Value, _: Kwargs, _: &State| int_word(value));
    tera.register_filter("ordinal", |value: &Value, _: Kwargs, _: &State| ordinal(value));
    tera.register_filter("apnumber", |value: &Value, _: Kwargs, _: &State| {
        let word = python::int(value).and_then(|n| WORDS.get(usize::try_from(n).ok()?.checked_sub(1)?));
        Ok::<_, tera::Error>(match (word, python::int(value)) {
            (Some(word), _) => Value::from(translated(None, word)?),
            (None, Some(number)) => Value::from(number),
            (None, None) => value.clone(),
        })
    });
    let zone = settings.time_zone.clone();
    tera.register_filter("naturalday", move |value: &Value, kwargs: Kwargs, _: &State| {
        let format = kwargs.get::<&Value>("format")?.map_or_else(|| "DATE_FORMAT".to_owned(), python::text);
        natural_day(value, &rendering::zone(&zone), &format)
    });
    let zone = settings.time_zone.clone();
    tera.register_filter("naturaltime", move |value: &Value, _: Kwargs, _: &State| match Moment::read(value) {
        Some(moment) => natural_time(&moment, moment.now(&rendering::zone(&zone))).map(Value::from),
        None => Ok(value.clone()),
    });
}

fn translated(context: Option<&str>, id: &str) -> TeraResult<String> {
    rendering::current(|rendering| Ok(rendering.language.text(context, id).to_owned()))
}

fn plural(one: &str, many: &str, n: i64) -> TeraResult<String> {
    rendering::current(|rendering| Ok(rendering.language.plural(None, one, many, Count::Whole(n.into())).to_owned()))
}

/// A number with the language's thousands separators. Other texts that start with digits get commas.
fn int_comma(value: &Value, is_localized: bool) -> TeraResult<Value> {
    let number =
        if value.is_f64() { Some(python::repr(value)) } else { python::int(value).map(|number| number.to_string()) };
    if let Some(grouped) =
        number.filter(|_| is_localized).map(|number| numbers::grouped(&number)).transpose()?.flatten()
    {
        return Ok(Value::from(grouped));
    }
    let text = python::text(value);
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let mut grouped = text[..text.len() - digits.len()].to_owned();
    for (at, digit) in digits[..length].chars().enumerate() {
        if at > 0 && (length - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    Ok(Value::from(grouped + &digits[length..]))
}

/// `1.2 million`: numbers from a million on, rounded to one decimal.
fn int_word(value: &Value) -> TeraResult<Value> {
    let Some(number) = python::int(value) else { return Ok(value.clone()) };
    let size = number.unsigned_abs();
    let power = LARGE.iter().find(|(power, _)| 10_u128.checked_pow(power + 3).is_none_or(|end| size < end));
    let Some((power, name)) = power.filter(|_| size >= 1_000_000) else { return Ok(Value::from(number)) };
    let scaled = number as f64 / 10_f64.powi(i32::try_from(*power).unwrap_or_default());
    // Django uses the plural for every number above 1.
    let count = if scaled.abs() > 1.0 { scaled.abs().ceil() } else { scaled.abs().floor() };
    let id = format!("%(value)s {name}");
    let text = plural(&id, &id, count as i64)?;
    Ok(Value::from(text.replace("%(value)s", &numbers::with_digits(scaled, 1)?)))
}

fn ordinal(value: &Value) -> TeraResult<Value> {
    let Some(number) = python::int(value) else { return Ok(value.clone()) };
    if number < 0 {
        return Ok(Value::from(number.to_string()));
    }
    let (context, id) = match (number % 100, number % 10) {
        (11..=13, _) => ("ordinal 11, 12, 13".to_owned(), "{}th"),
        (_, digit) => {
            let id = match digit {
                1 => "{}st",
                2 => "{}nd",
                3 => "{}rd",
                _ => "{}th",
            };
            (format!("ordinal {digit}"), id)
        }
    };
    Ok(Value::safe_string(&translated(Some(&context), id)?.replace("{}", &number.to_string())))
}

fn natural_day(value: &Value, zone: &TimeZone, format: &str) -> TeraResult<Value> {
    let Some(day) = dates::day(value, zone) else { return Ok(value.clone()) };
    let today = zone.to_datetime(Timestamp::now()).date();
    let word = match (day - today).get_days() {
        0 => "today",
        1 => "tomorrow",
        -1 => "yesterday",
        _ => return Ok(Value::from(dates::date_text(value, zone, format))),
    };
    translated(None, word).map(Value::from)
}

fn natural_time(at: &Moment, now: Moment) -> TeraResult<String> {
    let is_past = at.at < now.at;
    let seconds = if is_past { now.seconds_since(at) } else { at.seconds_since(&now) };
    let (ending, context) = if is_past { ("ago", "naturaltime-past") } else { ("from now", "naturaltime-future") };
    if seconds >= DAY {
        let (from, to) = if is_past { (at, &now) } else { (&now, at) };
        let delta = since::between(from, to, Some(context))?;
        return Ok(translated(None, &format!("%(delta)s {ending}"))?.replace("%(delta)s", &delta));
    }
    let (count, unit, one) = match seconds {
        0 => return translated(None, "now"),
        1..=59 => (seconds, "second", "a"),
        60..=3599 => (seconds / 60, "minute", "a"),
        _ => (seconds / 3600, "hour", "an"),
    };
    let text = plural(&format!("{one} {unit} {ending}"), &format!("%(count)s\u{a0}{unit}s {ending}"), count)?;
    Ok(text.replace("%(count)s", &count.to_string()))
}
