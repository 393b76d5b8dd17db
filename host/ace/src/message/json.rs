//! JSON as text, for numbers that a value cannot represent: integers of any length keep their digits. Other numbers are parsed to the
//! nearest double, as in Python.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Error, Value};

/// The deepest nesting of a value. Together with the message and its context, this is the limit of serde_json.
const DEPTH_MAX: usize = 125;

/// A text without a leading byte order mark.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The tokens of a valid JSON text.
pub struct Tokens<'a> {
    json: &'a str,
    at: usize,
}

/// A sign, a string with its quotes, a number or a word.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// The token as it is in the text.
    pub source: &'a str,
    is_escaped: bool,
}

/// The tokens of a valid JSON text. The result for an invalid text is unspecified.
pub fn tokens(json: &str) -> Tokens<'_> {
    Tokens { json, at: 0 }
}

impl Tokens<'_> {
    /// Skips a sign if it is next. Returns whether it was, or whether the text ended.
    pub fn skips(&mut self, sign: u8) -> bool {
        self.skip_space();
        let next = self.json.as_bytes().get(self.at).copied();
        self.at += usize::from(next == Some(sign));
        next.is_none_or(|next| next == sign)
    }

    fn skip_space(&mut self) {
        let bytes = self.json.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let rest = &self.json.as_bytes()[self.at..];
        let (length, is_escaped) = match rest.first()? {
            b'"' => string_length(rest),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => (1, false),
            _ => (word_length(rest), false),
        };
        let start = self.at;
        self.at += length;
        let source = self.json.get(start..self.at)?;
        Some(Token { source, is_escaped })
    }
}

impl<'a> Token<'a> {
    /// The unescaped text of a string.
    pub fn text(self) -> Cow<'a, str> {
        match self.source.get(1..self.source.len().saturating_sub(1)) {
            Some(plain) if !self.is_escaped => Cow::Borrowed(plain),
            _ => serde_json::from_str(self.source).unwrap_or_default(),
        }
    }

    /// Whether it is an integer of any length.
    pub fn is_integer(self) -> bool {
        is_integer(self.source)
    }
}

fn is_integer(number: &str) -> bool {
    number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-'))
}

/// The length of a number or a word.
fn word_length(bytes: &[u8]) -> usize {
    let is_over = |byte: &u8| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'+' | b'-' | b'E');
    bytes.iter().position(is_over).unwrap_or(bytes.len()).max(1)
}

/// The length of a string with its quotes, and whether it has escapes. Steps of more than eight bytes do not pay, because most strings
/// are short.
fn string_length(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut is_escaped) = (1, false);
    loop {
        while let Some(eight) = bytes[at.min(bytes.len())..].first_chunk() {
            let eight = u64::from_le_bytes(*eight);
            let found = equal_bytes(eight, b'"') | equal_bytes(eight, b'\\');
            if found != 0 {
                at += found.trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match bytes.get(at) {
            None => return (bytes.len(), is_escaped),
            Some(b'"') => return (at + 1, is_escaped),
            // An escaped quote does not end the string.
            Some(b'\\') => (at, is_escaped) = (at + 2, true),
            Some(_) => at += 1,
        }
    }
}

/// Sets the highest bit of each of eight bytes that equals `byte`. Bytes after the first match may have false positives.
fn equal_bytes(eight: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let zero_where_equal = eight ^ (ONES * u64::from(byte));
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & (ONES << 7)
}

/// Writes a valid text in compact, normalized form: as serde_json does, except that integers of more than 64 bits keep their
/// digits.
pub(super) fn compact(json: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    out.reserve(json.len());
    let mut depth = 0_usize;
    for token in tokens(json) {
        match token.source.as_bytes()[0] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' if token.is_escaped => {
                serde_json::to_writer(&mut *out, &serde_json::from_str::<Cow<str>>(token.source)?)?;
                continue;
            }
            b'-' | b'0'..=b'9' if !is_plain_number(token.source) => {
                write_number(token.source, out)?;
                continue;
            }
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Error::custom("recursion limit exceeded"));
        }
        out.extend_from_slice(token.source.as_bytes());
    }
    Ok(())
}

/// Whether a number is already in normalized form.
fn is_plain_number(number: &str) -> bool {
    is_integer(number) && number != "-0"
}

fn write_number(number: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    match number.parse::<f64>() {
        Ok(_) if number == "-0" => out.push(b'0'),
        Ok(number) if number.is_finite() => serde_json::to_writer(out, &number)?,
        _ => return Err(Error::custom("number out of range")),
    }
    Ok(())
}

/// The part of a valid text at an RFC 6901 pointer.
pub fn at<'a>(json: &'a str, pointer: &str) -> Option<&'a str> {
    let mut json = json;
    for key in pointer.split('/').skip(1) {
        let key = key.replace("~1", "/").replace("~0", "~");
        let found: &RawValue = match json.as_bytes().first()? {
            b'{' => serde_json::from_str::<HashMap<Cow<str>, &RawValue>>(json).ok()?.remove(key.as_str())?,
            b'[' if key == "0" || !key.starts_with(['0', '+']) => {
                serde_json::from_str::<Vec<&RawValue>>(json).ok()?.get(key.parse::<usize>().ok()?).copied()?
            }
            _ => return None,
        };
        json = found.get();
    }
    Some(json)
}

/// A valid text as a value that is only used for comparison. Integers that a value cannot represent become unambiguous strings.
pub(super) fn comparable(json: &str) -> Option<Value> {
    let fits = |token: &str| token.parse::<u64>().is_ok() || token.parse::<i64>().is_ok();
    let is_long =
        |token: &str| token.len() > 18 && token.starts_with(['-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let token = |token: &str| {
        if is_long(token) && is_integer(token) && !fits(token) {
            format!("\"\\u0000{token}\"")
        } else {
            token.to_owned()
        }
    };
    serde_json::from_str(&tokens(json).map(|one| token(one.source)).collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(json: &str) -> String {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        let mut out = Vec::new();
        compact(raw.get(), &mut out).expect("it is in range");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn numbers_keep_their_value_and_long_ones_their_digits() {
        let cases = [
            ("18446744073709551616", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775809"),
            (
                "123456789012345678901234567890123456789012345678901",
                "123456789012345678901234567890123456789012345678901",
            ),
            ("[ 1.50 , 0.30000000000000004 , 1e-07, 1E3, -0, -0.0 ]", "[1.5,0.30000000000000004,1e-7,1000.0,0,-0.0]"),
            (r#"{ "a\u00e9\n" : "\"\\" , "b" : [ true , null ] }"#, r#"{"aé\n":"\"\\","b":[true,null]}"#),
        ];
        for (json, expected) in cases {
            assert_eq!(compacted(json), expected);
        }
        assert!(compact("1e400", &mut Vec::new()).is_err());
        assert!(compact(r#""\ud800""#, &mut Vec::new()).is_err(), "a lone surrogate");
    }

    #[test]
    fn a_part_is_found_by_its_pointer() {
        let json = r#"{"a":{"b/c":[1,18446744073709551616]},"x":1.5}"#;
        assert_eq!(at(json, ""), Some(json));
        assert_eq!(at(json, "/a/b~1c/1"), Some("18446744073709551616"));
        assert_eq!((at(json, "/a/b~1c/01"), at(json, "/a/b~1c/2"), at(json, "/x/y")), (None, None, None));
    }

    #[test]
    fn a_byte_order_mark_is_removed() {
        assert_eq!((without_bom(b"\xEF\xBB\xBF{}"), without_bom(b"{}")), (&b"{}"[..], &b"{}"[..]));
    }
}
