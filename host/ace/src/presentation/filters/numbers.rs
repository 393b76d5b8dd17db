//! Django's filters for numbers.

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::{caught, python};
use crate::presentation::i18n::conventions::Separators;
use crate::presentation::i18n::formats;
use crate::presentation::i18n::languages::Language;
use crate::presentation::i18n::plural::Count;
use crate::presentation::rendering;

/// Longer numbers are not formatted, as in Django.
const DIGITS_MAX: usize = 200;
const SIZES: [(&str, i128); 5] = [("KB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40), ("PB", 1 << 50)];

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("floatformat", floatformat);
    tera.register_filter("filesizeformat", |value: &Value, _: Kwargs, _: &State| file_size(value));
    tera.register_filter("django_pluralize", pluralize);
    tera.register_filter("divisibleby", |value: &Value, kwargs: Kwargs, _: &State| {
        caught(&kwargs, || match (python::int(value), python::int(kwargs.must_get("value")?)) {
            (Some(a), Some(b)) if b != 0 => Ok(Value::from(a % b == 0)),
            _ => Err(tera::Error::message("`divisibleby` needs two integers, and the second must not be 0")),
        })
    });
    tera.register_filter("get_digit", get_digit);
}

/// A number in the format of the language, without thousands separators.
pub(super) fn localized(value: &Value) -> TeraResult<String> {
    if !value.is_f64() {
        return Ok(value.to_string());
    }
    let text = python::repr(value);
    let plain = if text.contains('e') { Number::parse(&text).map(|n| n.plain()) } else { None }.unwrap_or(text);
    if plain.contains('.') { Ok(plain.replace('.', &separators()?.decimal)) } else { Ok(plain) }
}

/// The separators of the language: Django's, or the CLDR's if Django does not have the language.
fn separators() -> TeraResult<Separators> {
    rendering::current(|rendering| {
        let Language { locale, conventions, .. } = &*rendering.language;
        let by_cldr = if conventions.is_known() { None } else { formats::separators(locale) };
        Ok(by_cldr.unwrap_or_else(|| conventions.separators()))
    })
}

/// A number with all separators of the language. `None` if it is not a number.
pub(super) fn grouped(text: &str) -> TeraResult<Option<String>> {
    Number::parse(text).filter(|number| !number.is_long()).map(|number| number.formatted(true, true)).transpose()
}

/// A number in the format of the language, with a number of decimals.
pub(super) fn with_digits(number: f64, digits: usize) -> TeraResult<String> {
    match Number::parse(&python::float(number)) {
        Some(number) => number.rounded(digits).formatted(true, false),
        None => Ok(python::float(number)),
    }
}

/// A decimal number: its digits without leading zeros, and the number of decimals.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    is_negative: bool,
    digits: Vec<u8>,
    places: i64,
}

impl Number {
    /// Parses what Python's `Decimal` accepts, except infinities.
    fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let places = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        Some(Number { is_negative: text.starts_with('-'), digits, places })
    }

    fn is_long(&self) -> bool {
        self.digits.len().saturating_add(usize::try_from(self.places.unsigned_abs()).unwrap_or(usize::MAX)) > DIGITS_MAX
    }

    /// Digits before and after the point.
    fn parts(&self) -> (String, String) {
        let mut digits: String = self.digits.iter().map(|b| char::from(*b)).collect();
        let places = usize::try_from(self.places).unwrap_or(0);
        if self.places < 0 {
            digits.push_str(&"0".repeat(usize::try_from(-self.places).unwrap_or(0)));
        }
        if digits.len() <= places {
            digits.insert_str(0, &"0".repeat(places + 1 - digits.len()));
        }
        let fraction = digits.split_off(digits.len() - places);
        let whole = digits.trim_start_matches('0');
        (if whole.is_empty() { "0".to_owned() } else { whole.to_owned() }, fraction)
    }

    fn plain(&self) -> String {
        let (whole, fraction) = self.parts();
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{whole}{point}{fraction}", if self.is_negative { "-" } else { "" })
    }

    fn is_whole(&self) -> bool {
        self.parts().1.bytes().all(|b| b == b'0')
    }

    /// Rounds to a number of decimals, halves away from zero.
    fn rounded(&self, places: usize) -> Number {
        let (whole, mut fraction) = self.parts();
        let rounds_up = fraction.as_bytes().get(places).is_some_and(|digit| *digit >= b'5');
        fraction.truncate(places);
        fraction.push_str(&"0".repeat(places - fraction.len()));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if rounds_up {
            let mut at = digits.len();
            loop {
                match at.checked_sub(1) {
                    None => {
                        digits.insert(0, b'1');
                        break;
                    }
                    Some(before) if digits[before] == b'9' => {
                        digits[before] = b'0';
                        at = before;
                    }
                    Some(before) => {
                        digits[before] += 1;
                        break;
                    }
                }
            }
        }
        let is_zero = digits.iter().all(|digit| *digit == b'0');
        let places = i64::try_from(places).unwrap_or(0);
        Number { is_negative: self.is_negative && !is_zero, digits, places }
    }

    fn formatted(&self, localizes: bool, groups: bool) -> TeraResult<String> {
        let (whole, fraction) = self.parts();
        let unlocalized = || Separators { decimal: ".".into(), thousand: "".into(), grouping: 0 };
        let Separators { decimal, thousand, grouping } = if localizes { separators()? } else { unlocalized() };
        let grouping = if groups { grouping } else { 0 };
        let mut out = String::from(if self.is_negative { "-" } else { "" });
        for (at, digit) in whole.chars().enumerate() {
            if grouping > 0 && at > 0 && (whole.len() - at).is_multiple_of(grouping) {
                out.push_str(&thousand);
            }
            out.push(digit);
        }
        if !fraction.is_empty() {
            out.push_str(&decimal);
            out.push_str(&fraction);
        }
        Ok(out)
    }
}

fn floatformat(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let argument = kwargs.get::<&Value>("digits")?.map_or_else(|| "-1".to_owned(), python::text);
    let bare = argument.trim_end_matches(['g', 'u']);
    let suffix = &argument[bare.len()..];
    let (groups, localizes) = (suffix.contains('g'), !suffix.contains('u'));
    let text = python::text(value);
    let Some(number) = Number::parse(&text).or_else(|| match python::as_float(value) {
        Ok(Some(n)) if !value.is_string() => Number::parse(&python::float(n)),
        _ => None,
    }) else {
        let is_special = value.as_f64().is_some_and(|n| !n.is_finite());
        return Ok(Value::from(if is_special { text } else { String::new() }));
    };
    let places = if bare.is_empty() { Some(-1) } else { python::int(&Value::from(bare)) };
    let Some(places) = places.filter(|places| places.unsigned_abs() <= DIGITS_MAX as u128 && !number.is_long()) else {
        return Ok(Value::from(text));
    };
    let digits = usize::try_from(places.unsigned_abs()).unwrap_or(0);
    let number = if places <= 0 && number.is_whole() { number.rounded(0) } else { number.rounded(digits) };
    Ok(Value::safe_string(&number.formatted(localizes, groups)?))
}

fn file_size(value: &Value) -> TeraResult<String> {
    let bytes = python::int(value).unwrap_or(0);
    let size = bytes.unsigned_abs();
    let sign = if bytes < 0 { "-" } else { "" };
    let unit = SIZES.iter().rev().find(|(_, unit)| size >= unit.unsigned_abs());
    // The message ids are Django's.
    let text = match unit {
        None => rendering::current(|rendering| {
            let count = Count::Whole(i128::try_from(size).unwrap_or(i128::MAX));
            let text = rendering.language.plural_word("%(size)d byte", "%(size)d bytes", count);
            Ok(text.replace("%(size)d", &size.to_string()))
        })?,
        Some((name, unit)) => {
            let number = format!("{:.1}", size as f64 / *unit as f64).replace('.', &separators()?.decimal);
            rendering::current(|rendering| {
                let word = format!("%s {name}");
                Ok(rendering.language.word(None, &word).unwrap_or(&word).replace("%s", &number))
            })?
        }
    };
    Ok(format!("{sign}{}", text.replace(' ', "\u{a0}")))
}

fn pluralize(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let suffix = kwargs.get::<&Value>("suffix")?.map_or_else(|| "s".to_owned(), python::text);
    let (one, many) = suffix.split_once(',').unwrap_or(("", &suffix));
    let is_one = match python::as_float(value) {
        Ok(number) => number.map(|number| number == 1.0),
        Err(()) => value.len().map(|length| length == 1),
    };
    Ok(Value::from(match is_one.filter(|_| !many.contains(',')) {
        Some(true) => one,
        Some(false) => many,
        None => "",
    }))
}

fn get_digit(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let place = python::int(kwargs.must_get("value")?);
    let (Some(number), Some(place)) = (python::int(value), place.filter(|place| *place > 0)) else {
        return Ok(value.clone());
    };
    let digits = number.to_string();
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let digit = digits.len().checked_sub(place).and_then(|at| digits[at..].chars().next());
    Ok(Value::from(digit.and_then(|c| c.to_digit(10)).unwrap_or(0)))
}
