//! The filters `format_date`, `format_time`, `format_datetime` and `format_decimal`, named as in Babel. They use the data of the
//! Unicode CLDR for the message's language, through ICU4X.

use icu_calendar::{Date, Gregorian, RangeError};
use icu_datetime::fieldsets::{self, T};
use icu_datetime::input::{DateTime as IcuDateTime, Time};
use icu_datetime::options::Length;
use icu_datetime::{DateTimeFormatterLoadError, FixedCalendarDateTimeFormatter, NoCalendarFormatter};
use icu_decimal::DecimalFormatter;
use icu_decimal::input::Decimal;
use icu_locale_core::Locale;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::conventions::Separators;
use crate::config;
use crate::presentation::rendering;

/// Digits after the decimal separator.
const DIGITS_MAX: i16 = 20;

pub(crate) fn register(tera: &mut Tera, settings: &config::Presentation) {
    let time_zone = settings.time_zone.clone();
    for (name, parts) in [("format_date", Parts::Date), ("format_time", Parts::Time), ("format_datetime", Parts::Both)]
    {
        let zone = time_zone.clone();
        tera.register_filter(name, move |value: &Value, kwargs: Kwargs, _: &State| {
            let at = moment(value, kwargs.get("time_zone")?, &zone)?;
            let length = kwargs.get("length")?.map_or(Ok(Style::Medium), style)?;
            rendering::current(|rendering| formatted(at, parts, length, &rendering.language.locale))
        });
    }
    tera.register_filter("format_decimal", format_decimal);
}

#[derive(Debug, Clone, Copy)]
enum Parts {
    Date,
    Time,
    Both,
}

/// The four lengths of Babel and the CLDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// With the day of the week.
    Full,
    Long,
    Medium,
    Short,
}

fn style(name: &str) -> TeraResult<Style> {
    match name {
        "full" => Ok(Style::Full),
        "long" => Ok(Style::Long),
        "medium" => Ok(Style::Medium),
        "short" => Ok(Style::Short),
        other => Err(tera::Error::message(format!("unknown `length` `{other}`; use full, long, medium or short"))),
    }
}

/// The time zone with this name in the IANA database.
pub(in crate::presentation) fn time_zone(name: &str) -> TeraResult<TimeZone> {
    TimeZone::get(name)
        .map_err(|_| tera::Error::message(format!("unknown time zone `{name}`; write it as in Europe/Berlin")))
}

/// Parses ISO 8601, or seconds since the Unix epoch. A date and time without an offset is not converted.
fn moment(value: &Value, zone: Option<&str>, default: &TimeZone) -> TeraResult<DateTime> {
    let zone = match zone {
        None => default.clone(),
        Some(name) => time_zone(name)?,
    };
    let invalid = || tera::Error::message(format!("`{value}` is not a date: write it in ISO 8601, or as Unix seconds"));
    if let Some(seconds) = value.as_i64() {
        return Ok(zone.to_datetime(Timestamp::from_second(seconds).map_err(|_| invalid())?));
    }
    let text = value.as_str().map(str::trim).ok_or_else(invalid)?;
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(zone.to_datetime(at));
    }
    text.parse::<DateTime>().map_err(|_| invalid())
}

fn formatted(at: DateTime, parts: Parts, style: Style, locale: &Locale) -> TeraResult<String> {
    let whole = icu_date_time(at).map_err(|_| tera::Error::message(format!("`{at}` cannot be formatted as a date")))?;
    icu(&whole, parts, style, locale)
        .map_err(|e| tera::Error::message(format!("cannot format dates for {locale}: {e}")))
}

fn icu_date_time(at: DateTime) -> Result<IcuDateTime<Gregorian>, RangeError> {
    Ok(IcuDateTime {
        date: Date::try_new_gregorian(i32::from(at.year()), at.month() as u8, at.day() as u8)?,
        time: Time::try_new(at.hour() as u8, at.minute() as u8, at.second() as u8, 0)?,
    })
}

fn icu(
    whole: &IcuDateTime<Gregorian>,
    parts: Parts,
    style: Style,
    locale: &Locale,
) -> Result<String, DateTimeFormatterLoadError> {
    let prefs = locale.into();
    let length = match style {
        Style::Full | Style::Long => Length::Long,
        Style::Medium => Length::Medium,
        Style::Short => Length::Short,
    };
    Ok(match (parts, style) {
        (Parts::Time, _) => {
            NoCalendarFormatter::try_new(prefs, T::hm().with_length(length))?.format(&whole.time).to_string()
        }
        (Parts::Date, Style::Full) => {
            let fields = fieldsets::YMDE::long();
            FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(prefs, fields)?.format(&whole.date).to_string()
        }
        (Parts::Date, _) => {
            let fields = fieldsets::YMD::for_length(length);
            FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(prefs, fields)?.format(&whole.date).to_string()
        }
        (Parts::Both, Style::Full) => {
            let fields = fieldsets::YMDE::long().with_time_hm();
            FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(prefs, fields)?.format(whole).to_string()
        }
        (Parts::Both, _) => {
            let fields = fieldsets::YMD::for_length(length).with_time_hm();
            FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(prefs, fields)?.format(whole).to_string()
        }
    })
}

/// A part of a date, or a whole format, that depends on the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Month,
    ShortMonth,
    /// The form beside a day.
    MonthOfDay,
    Weekday,
    ShortWeekday,
    Date,
    ShortDate,
    Time,
    YearMonth,
    MonthDay,
}

/// The text in the language, if the CLDR has it.
pub(crate) fn named(at: DateTime, name: Name, locale: &Locale) -> Option<String> {
    let whole = icu_date_time(at).ok()?;
    let prefs = locale.into();
    macro_rules! as_fields {
        ($fields:expr) => {
            FixedCalendarDateTimeFormatter::<Gregorian, _>::try_new(prefs, $fields)
                .ok()?
                .format(&whole.date)
                .to_string()
        };
    }
    Some(match name {
        Name::Month => as_fields!(fieldsets::M::long()),
        Name::ShortMonth => as_fields!(fieldsets::M::medium()),
        Name::MonthOfDay => {
            let both = as_fields!(fieldsets::MD::long());
            let mut words = both.split_whitespace().filter(|word| !word.contains(char::is_numeric));
            match (words.next(), words.next()) {
                (Some(month), None) => month.to_owned(),
                _ => as_fields!(fieldsets::M::long()),
            }
        }
        Name::Weekday => as_fields!(fieldsets::E::long()),
        Name::ShortWeekday => as_fields!(fieldsets::E::short()),
        Name::Date => as_fields!(fieldsets::YMD::long()),
        Name::ShortDate => as_fields!(fieldsets::YMD::short()),
        Name::YearMonth => as_fields!(fieldsets::YM::long()),
        Name::MonthDay => as_fields!(fieldsets::MD::long()),
        Name::Time => NoCalendarFormatter::try_new(prefs, T::hm().with_length(Length::Short))
            .ok()?
            .format(&whole.time)
            .to_string(),
    })
}

/// The separators of numbers, if the CLDR has them.
pub(crate) fn separators(locale: &Locale) -> Option<Separators> {
    let formatter = DecimalFormatter::try_new(locale.into(), Default::default()).ok()?;
    let sample = formatter.format(&Decimal::try_from_str("1111111.1").ok()?).to_string();
    let mut signs = sample.chars().filter(|c| !c.is_numeric()).map(String::from);
    let (thousand, decimal) = (signs.next()?, signs.next_back()?);
    Some(Separators { decimal: decimal.into(), thousand: thousand.into(), grouping: 3 })
}

/// Formats a number with the language's separators and `digits` decimals.
fn format_decimal(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<String> {
    let invalid = || tera::Error::message(format!("`{value}` is not a finite number"));
    let mut number = match (value.as_i64(), value.as_f64()) {
        (Some(whole), _) => Decimal::from(whole),
        (None, Some(n)) if n.is_finite() => Decimal::try_from_str(&n.to_string()).map_err(|_| invalid())?,
        _ => return Err(invalid()),
    };
    if let Some(digits) = kwargs.get::<i64>("digits")? {
        let digits = i16::try_from(digits).ok().filter(|digits| (0..=DIGITS_MAX).contains(digits));
        let digits = digits.ok_or_else(|| tera::Error::message(format!("`digits` must be from 0 to {DIGITS_MAX}")))?;
        number.round(-digits);
        number.absolute.pad_end(-digits);
    }
    rendering::current(|rendering| {
        let formatter = DecimalFormatter::try_new((&rendering.language.locale).into(), Default::default());
        let formatter = formatter.map_err(|e| tera::Error::message(format!("cannot format numbers: {e}")))?;
        Ok(formatter.format(&number).to_string())
    })
}
