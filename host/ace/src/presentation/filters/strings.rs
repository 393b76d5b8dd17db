//! Django's filters for strings. Each converts its value to a string first.

use std::fmt::Write;

use icu_normalizer::DecomposingNormalizerBorrowed;
use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::{caught, check_bytes, marked_as, python};

/// The largest width of padded and wrapped texts.
const WIDTH_MAX: i128 = 10_000;
/// Replaces removed text.
pub(super) const ELLIPSIS: char = '…';
/// The characters that Python's `quote` does not encode, besides letters and digits.
const UNQUOTED: &str = "_.-~";

pub(super) fn register(tera: &mut Tera) {
    keeping_safety(tera, "addslashes", |text| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'"));
    keeping_safety(tera, "capfirst", |text| {
        let mut chars = text.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
    });
    keeping_safety(tera, "django_lower", |text| text.to_lowercase());
    keeping_safety(tera, "django_title", title);
    keeping_safety(tera, "slugify", slug);
    losing_safety(tera, "django_upper", |text| Value::from(text.to_uppercase()));
    losing_safety(tera, "django_wordcount", |text| Value::from(text.split_whitespace().count() as u64));
    losing_safety(tera, "make_list", |text| {
        text.chars().map(|c| Value::from(c.to_string())).collect::<Vec<_>>().into()
    });
    losing_safety(tera, "escapejs", |text| Value::safe_string(&escaped_for_js(text)));
    tera.register_filter("cut", cut);
    tera.register_filter("urlencode", |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<String> {
        Ok(url_encoded(&python::text(value), kwargs.get("safe")?.unwrap_or("/")))
    });
    tera.register_filter("iriencode", |value: &Value, _: Kwargs, _: &State| {
        url_encoded(&python::text(value), "/#%[]=:;$&()+,!?*@'~")
    });
    tera.register_filter("phone2numeric", |value: &Value, _: Kwargs, _: &State| {
        python::text(value).to_lowercase().chars().map(digit_of_letter).collect::<String>()
    });
    tera.register_filter("truncatechars", |value: &Value, kwargs: Kwargs, _: &State| {
        shortened(value, &kwargs, |text, length| truncated(text, length, ELLIPSIS))
    });
    tera.register_filter("truncatewords", |value: &Value, kwargs: Kwargs, _: &State| shortened(value, &kwargs, words));
    tera.register_filter("wordwrap", |value: &Value, kwargs: Kwargs, _: &State| {
        caught(&kwargs, || match width(&kwargs)? {
            0 => Err(tera::Error::message("`width` of `wordwrap` must be at least 1")),
            width => Ok(marked_as(value, wrapped(&python::text(value), width))),
        })
    });
    for (name, left, right) in [("ljust", 0, 1), ("rjust", 1, 0), ("center", 1, 1)] {
        tera.register_filter(name, move |value: &Value, kwargs: Kwargs, _: &State| {
            caught(&kwargs, || padded(value, width(&kwargs)?, left + right, left))
        });
    }
}

/// Registers a filter whose result is safe if its input is.
fn keeping_safety(tera: &mut Tera, name: &'static str, change: fn(&str) -> String) {
    tera.register_filter(name, move |value: &Value, _: Kwargs, _: &State| {
        marked_as(value, change(&python::text(value)))
    });
}

/// Registers a filter whose result does not depend on the safety of its input.
fn losing_safety(tera: &mut Tera, name: &'static str, change: fn(&str) -> Value) {
    tera.register_filter(name, move |value: &Value, _: Kwargs, _: &State| change(&python::text(value)));
}

/// Python's `title`, with Django's corrections: no capital after an apostrophe or a digit.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    // The previous two characters of the result.
    let mut previous = [' '; 2];
    for c in text.chars() {
        let after_apostrophe = previous[1] == '\'' && previous[0].is_ascii_lowercase();
        let starts = !previous[1].is_alphabetic() && !previous[1].is_ascii_digit() && !after_apostrophe;
        if starts {
            python::extend_titlecase(&mut titled, c)
        } else {
            titled.extend(c.to_lowercase())
        }
        previous = [previous[1], titled.chars().next_back().unwrap_or(c)];
    }
    titled
}

/// Django's `slugify`: removes accents, then all characters outside ASCII.
fn slug(text: &str) -> String {
    let plain = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
    let mut slug = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '_' => slug.push(c.to_ascii_lowercase()),
            '-' | ' ' | '\t'..='\r' | '\x1c'..='\x1f' if !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_matches(['-', '_']).to_owned()
}

fn escaped_for_js(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' | '>' | '<' | '&' | '=' | '-' | ';' | '`' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                escaped.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

fn cut(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let unwanted = python::text(kwargs.must_get::<&Value>("value")?);
    let text = python::text(value).replace(&unwanted, "");
    Ok(if unwanted == ";" { Value::from(text) } else { marked_as(value, text) })
}

/// The digit of a letter on a telephone's keypad.
fn digit_of_letter(c: char) -> char {
    const KEYS: [&str; 8] = ["abc", "def", "ghi", "jkl", "mno", "pqrs", "tuv", "wxyz"];
    ('2'..='9').zip(KEYS).find(|(_, letters)| letters.contains(c)).map_or(c, |(digit, _)| digit)
}

/// Python's `quote`.
pub(in super::super) fn url_encoded(text: &str, safe: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || UNQUOTED.contains(c) || (c.is_ascii() && safe.contains(c)) {
            encoded.push(c);
        } else {
            // Writing to a string cannot fail.
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    encoded
}

/// The text shortened to `length`; unchanged if `length` is not a number.
pub(super) fn shortened(value: &Value, kwargs: &Kwargs, shorten: impl Fn(&str, usize) -> String) -> TeraResult<Value> {
    let text = python::text(value);
    let Some(length) = python::int(kwargs.must_get("length")?) else { return Ok(marked_as(value, text)) };
    let shortened =
        if length <= 0 { String::new() } else { shorten(&text, usize::try_from(length).unwrap_or(usize::MAX)) };
    Ok(marked_as(value, shortened))
}

/// At most `length` characters, including the ellipsis.
fn truncated(text: &str, length: usize, ellipsis: char) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(length - 1).collect();
    if !kept.ends_with(ellipsis) {
        kept.push(ellipsis);
    }
    kept
}

fn words(text: &str, length: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() > length { format!("{} {ELLIPSIS}", words[..length].join(" ")) } else { words.join(" ") }
}

fn width(kwargs: &Kwargs) -> TeraResult<usize> {
    let width = python::int(kwargs.must_get("width")?).filter(|width| *width <= WIDTH_MAX);
    let width = width.ok_or_else(|| tera::Error::message(format!("`width` must be a number up to {WIDTH_MAX}")))?;
    Ok(usize::try_from(width).unwrap_or_default())
}

fn padded(value: &Value, width: usize, sides: usize, left: usize) -> TeraResult<Value> {
    let text = python::text(value);
    let missing = width.saturating_sub(text.chars().count());
    // Python's `center` puts the odd space on the left if the width is odd, otherwise on the right.
    let before = match (left, sides) {
        (0, _) => 0,
        (_, 1) => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(marked_as(value, format!("{}{text}{}", " ".repeat(before), " ".repeat(missing - before))))
}

/// Wraps each line as Python's `textwrap` does: breaks at whitespace, which is dropped there; keeps long words whole; expands
/// tabs.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in python::lines(text) {
        let before = lines.len();
        let mut current = String::new();
        let mut length = 0;
        for chunk in chunks(&with_spaces(line)) {
            let (is_space, chars) = (chunk.trim().is_empty(), chunk.chars().count());
            if length + chars > width && !current.is_empty() {
                push_line(&mut lines, &mut current);
                length = 0;
            }
            // Only the first line may start with whitespace.
            if !(is_space && current.is_empty() && lines.len() > before) {
                current.push_str(chunk);
                length += chars;
            }
        }
        push_line(&mut lines, &mut current);
        if lines.len() == before {
            lines.push(line.to_owned());
        }
    }
    if text.ends_with('\n') {
        lines.push(String::new());
    }
    lines.join("\n")
}

/// Adds the line without trailing whitespace, unless it is empty.
fn push_line(lines: &mut Vec<String>, current: &mut String) {
    let line = std::mem::take(current);
    let kept = line.trim_end();
    if !kept.is_empty() {
        lines.push(kept.to_owned());
    }
}

/// Expands tabs to the next multiple of eight columns.
fn with_spaces(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut column = 0;
    for c in line.chars() {
        if c == '\t' {
            let spaces = 8 - column % 8;
            out.extend(std::iter::repeat_n(' ', spaces));
            column += spaces;
        } else {
            out.push(c);
            column += 1;
        }
    }
    out
}

/// The words of a line and the whitespace between them.
fn chunks(line: &str) -> impl Iterator<Item = &str> {
    let is_space = |c: char| matches!(c, ' ' | '\t'..='\r');
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = is_space(rest.chars().next()?);
        let end = rest.find(|c| is_space(c) != first).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some(chunk)
    })
}

/// Django's `add`: the sum of integers, otherwise the concatenation of strings or lists, otherwise an empty string.
pub(super) fn add(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let other: &Value = kwargs.must_get("value")?;
    if let (Some(a), Some(b)) = (python::int(value), python::int(other)) {
        return Ok(a.checked_add(b).map_or_else(|| Value::from(""), Value::from));
    }
    if let (Some(a), Some(b)) = (value.as_array(), other.as_array()) {
        return Ok(Value::from(a.iter().chain(b).cloned().collect::<Vec<_>>()));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned).or(value.is_undefined().then(String::new));
    let (Some(a), Some(b)) = (text(value), text(other)) else {
        return Ok(match (value.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => Value::from(a + b),
            _ => Value::from(""),
        });
    };
    check_bytes(a.len() + b.len())?;
    let is_safe = value.is_string() && value.is_safe() && other.is_string() && other.is_safe();
    let joined = a + &b;
    Ok(if is_safe { Value::safe_string(&joined) } else { Value::from(joined) })
}
