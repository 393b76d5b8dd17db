//! JSON text as it stands, for what a value cannot hold: whole numbers of any length keep their digits, and other numbers are read as
//! Python reads them, to the nearest double.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Error, Value};

/// Objects and lists inside one another; with the message and its context around them as many as serde_json reads.
const DEPTH_MAX: usize = 125;

/// A text without the byte order mark that some programs write before it.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The tokens of a sound JSON text: signs, strings with their quotes, numbers and words.
pub struct Tokens<'a> {
    json: &'a str,
    at: usize,
}

/// The tokens of a JSON text that was read before: of another text they are anything.
pub fn tokens(json: &str) -> Tokens<'_> {
    Tokens { json, at: 0 }
}

impl Tokens<'_> {
    /// Whether this sign is next, which is then passed; also true at the end of the text.
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
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.skip_space();
        let (bytes, begin) = (self.json.as_bytes(), self.at);
        let length = match bytes.get(begin)? {
            b'"' => string_length(&bytes[begin..]),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            _ => {
                let is_over = |byte: &u8| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'+' | b'-' | b'E');
                bytes[begin..].iter().position(is_over).unwrap_or(bytes.len() - begin).max(1)
            }
        };
        self.at = begin + length;
        self.json.get(begin..self.at)
    }
}

/// Bytes of a string that are looked at one by one, before it is worth while to look for its end in larger steps.
const SHORT_STRING: usize = 16;

/// Of a string with both its quotes.
fn string_length(bytes: &[u8]) -> usize {
    let short = bytes.iter().take(SHORT_STRING).skip(1).position(|byte| matches!(byte, b'"' | b'\\'));
    if let Some(found) = short.filter(|found| bytes[found + 1] == b'"') {
        return found + 2;
    }
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // What is escaped ends nothing.
        at = (at + 1).min(bytes.len());
    }
    bytes.len()
}

fn has_escapes(string: &str) -> bool {
    memchr::memchr(b'\\', string.as_bytes()).is_some()
}

/// What a string token says.
pub fn text(token: &str) -> Cow<'_, str> {
    match token.get(1..token.len().saturating_sub(1)) {
        Some(plain) if !has_escapes(plain) => Cow::Borrowed(plain),
        _ => serde_json::from_str(token).unwrap_or_default(),
    }
}

/// Whether a number token is a whole number, whatever its length.
pub fn is_integer(token: &str) -> bool {
    token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-'))
}

/// Whether a sound text certainly is as [`compact`] writes it: no escapes in its strings, and between them no space and no number
/// that is not whole. Quick to ask, and true of most texts.
fn is_compact(json: &[u8]) -> bool {
    if memchr::memchr(b'\\', json).is_some() {
        return false;
    }
    let (mut outside, mut depth) = (0, 0);
    for (quote, at) in memchr::memchr_iter(b'"', json).enumerate() {
        if quote % 2 == 0 && !are_plain_tokens(&json[outside..at], &mut depth) {
            return false;
        }
        outside = at + 1;
    }
    are_plain_tokens(&json[outside..], &mut depth)
}

/// Of a part without strings. `depth`: of objects and lists inside one another, where it begins and where it ends.
fn are_plain_tokens(part: &[u8], depth: &mut usize) -> bool {
    let mut before = b',';
    for &byte in part {
        match byte {
            b'{' | b'[' if *depth < DEPTH_MAX => *depth += 1,
            b'}' | b']' => *depth = depth.saturating_sub(1),
            b',' | b':' | b'1'..=b'9' => {}
            b'0' if before != b'-' => {}
            b'-' if !before.is_ascii_alphanumeric() => {}
            // Of `true`, `false` and `null`, not of a number.
            b'a'..=b'z' if !before.is_ascii_digit() => {}
            _ => return false,
        }
        before = byte;
    }
    true
}

/// Writes a sound text compactly and in one form: as serde_json writes it, except that whole numbers of more than 64 bits keep
/// their digits.
pub(super) fn compact(json: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if is_compact(json.as_bytes()) {
        out.extend_from_slice(json.as_bytes());
        return Ok(());
    }
    let (mut tokens, bytes) = (tokens(json), json.as_bytes());
    // What stands between these two is the same in both forms, and is written at once.
    let (mut kept, mut end) = (0, 0);
    let mut depth = 0;
    while let Some(token) = tokens.next() {
        let begin = tokens.at - token.len();
        if begin > end {
            out.extend_from_slice(&bytes[kept..end]);
            kept = begin;
        }
        end = tokens.at;
        match token.as_bytes()[0] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            first => {
                if write_otherwise(first, token, &bytes[kept..begin], out)? {
                    kept = end;
                }
            }
        }
        if depth > DEPTH_MAX {
            return Err(Error::custom("recursion limit exceeded"));
        }
    }
    out.extend_from_slice(&bytes[kept..end]);
    Ok(())
}

/// Writes a token that has another form, behind what comes before it. Whether it has one.
fn write_otherwise(first: u8, token: &str, before: &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
    match first {
        b'"' if has_escapes(token) => {
            out.extend_from_slice(before);
            serde_json::to_writer(out, &serde_json::from_str::<Cow<str>>(token)?)?;
        }
        b'-' if token == "-0" => {
            out.extend_from_slice(before);
            out.push(b'0');
        }
        b'-' | b'0'..=b'9' if !is_integer(token) => match token.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                out.extend_from_slice(before);
                serde_json::to_writer(out, &number)?;
            }
            _ => return Err(Error::custom("number out of range")),
        },
        _ => return Ok(false),
    }
    Ok(true)
}

/// The part of a sound text that an RFC 6901 pointer names.
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

/// A sound text as a value to compare with others alone: a whole number that a value cannot hold is a string that no text is.
pub(super) fn comparable(json: &str) -> Option<Value> {
    let fits = |token: &str| token.parse::<u64>().is_ok() || token.parse::<i64>().is_ok();
    let is_long =
        |token: &str| token.len() > 18 && token.starts_with(['-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let token = |token: &str| match is_long(token) && is_integer(token) && !fits(token) {
        true => format!("\"\\u0000{token}\""),
        false => token.to_owned(),
    };
    serde_json::from_str(&tokens(json).map(token).collect::<String>()).ok()
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
        assert!(compact(r#""\ud800""#, &mut Vec::new()).is_err(), "half a character");
    }

    #[test]
    fn a_part_is_the_text_it_is() {
        let json = r#"{"a":{"b/c":[1,18446744073709551616]},"x":1.5}"#;
        assert_eq!(at(json, ""), Some(json));
        assert_eq!(at(json, "/a/b~1c/1"), Some("18446744073709551616"));
        assert_eq!((at(json, "/a/b~1c/01"), at(json, "/a/b~1c/2"), at(json, "/x/y")), (None, None, None));
    }

    #[test]
    fn a_mark_before_a_text_is_none_of_it() {
        assert_eq!((without_bom(b"\xEF\xBB\xBF{}"), without_bom(b"{}")), (&b"{}"[..], &b"{}"[..]));
    }
}
