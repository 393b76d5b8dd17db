//! Django's `stringformat`: Python's `%` format for one value. The result is empty if Python raises.

use tera::value::ValueKind;
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::{marked_as, python};

/// The largest width and precision.
const LENGTH_MAX: usize = 200;
const DIGITS_USUAL: usize = 6;

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("stringformat", |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<Value> {
        let format = python::text(kwargs.must_get("format")?);
        Ok(formatted(value, &format).map_or_else(|| Value::from(""), |text| marked_as(value, text)))
    });
}

/// The part between the percent sign and the letter.
struct Spec<'a> {
    flags: &'a str,
    width: usize,
    precision: Option<usize>,
}

/// `format` starts after the percent sign; text may follow its letter.
fn formatted(value: &Value, format: &str) -> Option<String> {
    let (spec, rest) = Spec::parse(format)?;
    let letter = rest.chars().next()?;
    let (sign, prefix, body) = match letter {
        's' => ("", "", spec.cut(python::text(value))),
        'r' | 'a' if value.is_undefined() => ("", "", spec.cut("''".to_owned())),
        'r' => ("", "", spec.cut(python::repr(value))),
        'a' => ("", "", spec.cut(in_ascii(&python::repr(value)))),
        'c' => ("", "", character(value)?),
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            // Floats are truncated, and only in decimal formats.
            let number =
                python::int(value).filter(|_| is_number(value) && (!value.is_f64() || "diu".contains(letter)))?;
            let (prefix, digits) = match letter {
                'o' => ("0o", format!("{:o}", number.unsigned_abs())),
                'x' => ("0x", format!("{:x}", number.unsigned_abs())),
                'X' => ("0X", format!("{:X}", number.unsigned_abs())),
                _ => ("", number.unsigned_abs().to_string()),
            };
            let missing = spec.precision.unwrap_or(0).saturating_sub(digits.len());
            let prefix = if spec.has('#') { prefix } else { "" };
            (spec.sign(number < 0), prefix, "0".repeat(missing) + &digits)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = python::as_float(value).ok().flatten().filter(|_| is_number(value))?;
            let body = fraction(number.abs(), letter, &spec);
            let body = if letter.is_ascii_uppercase() { body.to_uppercase() } else { body };
            (spec.sign(number.is_sign_negative() && !number.is_nan()), "", body)
        }
        _ => return None,
    };
    let after = literal(&rest[letter.len_utf8()..])?;
    let is_number = !matches!(letter, 's' | 'r' | 'a' | 'c');
    let missing = spec.width.saturating_sub(sign.len() + prefix.len() + body.chars().count());
    let (spaces, zeros) = (" ".repeat(missing), "0".repeat(missing));
    Some(if spec.has('-') {
        format!("{sign}{prefix}{body}{spaces}{after}")
    } else if is_number && spec.has('0') {
        format!("{sign}{prefix}{zeros}{body}{after}")
    } else {
        format!("{spaces}{sign}{prefix}{body}{after}")
    })
}

impl Spec<'_> {
    fn parse(format: &str) -> Option<(Spec<'_>, &str)> {
        let bare = format.trim_start_matches(['-', '+', '0', ' ', '#']);
        let flags = &format[..format.len() - bare.len()];
        let number = |text: &str| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let number = if digits == 0 { 0 } else { text[..digits].parse().ok().filter(|n| *n <= LENGTH_MAX)? };
            Some((number, digits))
        };
        let (width, digits) = number(bare)?;
        let mut rest = &bare[digits..];
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let (number, digits) = number(after)?;
            (precision, rest) = (Some(number), &after[digits..]);
        }
        // Python ignores the length modifiers of C.
        let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        Some((Spec { flags, width, precision }, rest))
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn sign(&self, is_negative: bool) -> &'static str {
        if is_negative {
            "-"
        } else if self.has('+') {
            "+"
        } else if self.has(' ') {
            " "
        } else {
            ""
        }
    }

    fn cut(&self, text: String) -> String {
        self.precision.map_or(text.clone(), |length| text.chars().take(length).collect())
    }
}

/// Booleans are numbers, as in Python. Strings of digits are not.
fn is_number(value: &Value) -> bool {
    value.is_number() || value.kind() == ValueKind::Bool
}

fn fraction(number: f64, letter: char, spec: &Spec) -> String {
    let digits = spec.precision.unwrap_or(DIGITS_USUAL);
    if !number.is_finite() {
        return if number.is_nan() { "nan" } else { "inf" }.to_owned();
    }
    match letter.to_ascii_lowercase() {
        'f' => format!("{number:.digits$}"),
        'e' => scientific(number, digits),
        _ => {
            let digits = digits.max(1);
            let text = scientific(number, digits - 1);
            let exponent: i64 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
            let places = i64::try_from(digits).unwrap_or(0) - 1 - exponent;
            let is_plain = exponent >= -4 && places >= 0;
            let text = match usize::try_from(places).ok().filter(|_| is_plain) {
                Some(places) => format!("{number:.places$}"),
                None => text,
            };
            if spec.has('#') { text } else { without_zeros(&text) }
        }
    }
}

/// `1.50e+03`
fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn without_zeros(text: &str) -> String {
    let (digits, exponent) = text.split_at(text.find('e').unwrap_or(text.len()));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}{exponent}")
}

fn character(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned()).filter(|text| text.chars().count() == 1);
    }
    let code = value.as_i128().and_then(|code| u32::try_from(code).ok());
    code.and_then(char::from_u32).map(String::from)
}

/// Escapes characters outside ASCII as Python does.
fn in_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            0..=0x7f => out.push(c),
            code @ 0x80..=0xff => out.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

/// The text after the letter. `None` if it has a single percent sign, which requires another value.
fn literal(text: &str) -> Option<String> {
    let halved = text.replace("%%", "\0");
    (!halved.contains('%')).then(|| halved.replace('\0', "%"))
}
