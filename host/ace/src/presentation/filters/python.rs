//! Python's `str`, `repr`, `int` and `float` of values, as Django's templates use them.

use tera::Value;
use tera::value::ValueKind;

/// `str(value)`; an undefined value is empty.
pub(crate) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_truthy() { "True" } else { "False" }),
        ValueKind::F64 => out.push_str(&float(value.as_f64().unwrap_or_default())),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Array => {
            out.push('[');
            for (at, item) in value.as_array().unwrap_or_default().iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, (key, item)) in value.as_map().into_iter().flatten().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                match key.as_str() {
                    Some(key) => quoted(key, out),
                    None => out.push_str(&key.to_string()),
                }
                out.push_str(": ");
                write(item, out);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{a0}' => out.push_str("\\xa0"),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// `repr(number)`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or_default() {
        e if (-4..16).contains(&e) => format!("{number:?}"),
        e => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
    }
}

/// `text.splitlines()`.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        lines.push(&rest[..end]);
        let ending =
            if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(1, char::len_utf8) };
        rest = &rest[end + ending..];
    }
    lines
}

/// `text.title()`: capitalizes each letter that does not follow another letter.
pub(crate) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut is_within = false;
    for c in text.chars() {
        if is_within {
            titled.extend(c.to_lowercase())
        } else {
            extend_titlecase(&mut titled, c)
        }
        is_within = c.is_uppercase() || c.is_lowercase();
    }
    titled
}

/// Appends the titlecase form of a character, which may differ from its uppercase form.
pub(crate) fn extend_titlecase(text: &mut String, c: char) {
    match c {
        // Georgian capitals are only used for whole words.
        '\u{10d0}'..='\u{10ff}' => text.push(c),
        // Digraphs with a separate titlecase form.
        '\u{1c4}'..='\u{1c6}' => text.push('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => text.push('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => text.push('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => text.push('\u{1f2}'),
        // Ligatures: only the first letter is capitalized.
        'ß' | '\u{fb00}'..='\u{fb17}' => {
            let mut letters = c.to_uppercase();
            text.extend(letters.next());
            letters.for_each(|letter| text.extend(letter.to_lowercase()));
        }
        c => text.extend(c.to_uppercase()),
    }
}

/// `int(value)`.
pub(crate) fn int(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_truthy())),
        ValueKind::F64 => value.as_f64().filter(|n| n.is_finite() && n.abs() < 1e38).map(|n| n.trunc() as i128),
        ValueKind::String => int_text(value.as_str()?),
        _ => value.as_i128(),
    }
}

fn int_text(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number =
        digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('_') && !digits.contains("__");
    is_number.then(|| text.replace('_', "").parse().ok()).flatten()
}

/// `float(value)`. `Err` if Python raises a `TypeError`, `Ok(None)` if it raises a `ValueError`.
pub(crate) fn as_float(value: &Value) -> Result<Option<f64>, ()> {
    match value.kind() {
        ValueKind::Bool => Ok(Some(f64::from(u8::from(value.is_truthy())))),
        ValueKind::String => Ok(value.as_str().and_then(|text| text.trim().parse().ok())),
        _ if value.is_number() => Ok(value.as_f64().or_else(|| value.as_i128().map(|n| n as f64))),
        // An undefined value is an empty string in a template.
        ValueKind::Undefined => Ok(None),
        _ => Err(()),
    }
}
