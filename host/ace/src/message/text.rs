//! Truncates and sanitizes untrusted texts: those of plugins, their files, and providers.

use std::borrow::Cow;
use std::fmt::{self, Write};

pub use ace_store::person::is_hidden;

/// The most bytes of one such text: a reason, an error, a response.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// Replaces a truncated part.
const ELLIPSIS: char = '…';

/// A text as one line of at most `bytes_max`: control characters and line breaks become spaces, hidden characters ([`is_hidden`])
/// are removed, and a truncated text ends with an ellipsis. Copies only what it keeps.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    sanitized_text(text, bytes_max, false)
}

/// Like [`one_line`], but keeps line breaks.
pub fn lines(text: &str, bytes_max: usize) -> String {
    sanitized_text(text, bytes_max, true)
}

/// A quick check whether [`one_line`] and [`lines`] do not change a text: it is short and only has printable ASCII.
pub fn is_plain(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && plain_bytes(text) == text.len()
}

/// The number of printable ASCII bytes at the start of a text.
fn plain_bytes(text: &str) -> usize {
    text.bytes().take_while(|byte| matches!(byte, b' '..=b'~')).count()
}

fn sanitized_text(text: &str, bytes_max: usize, keeps_lines: bool) -> String {
    if is_plain(text, bytes_max) { text.to_owned() } else { sanitized(text, bytes_max, keeps_lines) }
}

fn sanitized(text: impl fmt::Display, bytes_max: usize, keeps_lines: bool) -> String {
    let mut sanitizer = Sanitizer { text: String::new(), bytes_max, keeps_lines };
    // An error means that the limit was reached.
    if write!(sanitizer, "{text}").is_err() {
        sanitizer.text.push(ELLIPSIS);
    }
    sanitizer.text
}

/// A displayed value as [`one_line`]. Stops formatting it when the limit is reached.
pub fn display(value: impl fmt::Display, bytes_max: usize) -> String {
    sanitized(value, bytes_max, false)
}

struct Sanitizer {
    text: String,
    bytes_max: usize,
    keeps_lines: bool,
}

impl Write for Sanitizer {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        loop {
            let plain = plain_bytes(text);
            let kept = plain.min(self.bytes_max.saturating_sub(self.text.len()));
            self.text.push_str(&text[..kept]);
            if kept < plain {
                return Err(fmt::Error);
            }
            let mut rest = text[plain..].chars();
            let Some(c) = rest.next() else { return Ok(()) };
            text = rest.as_str();
            let c = match c {
                c if is_hidden(c) => continue,
                '\n' if self.keeps_lines => c,
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => ' ',
                c => c,
            };
            if self.text.len() + c.len_utf8() > self.bytes_max {
                return Err(fmt::Error);
            }
            self.text.push(c);
        }
    }
}

/// A text that is safe to print to a terminal: control and escape characters (except line breaks and tabs) and characters that
/// change the text direction are escaped as in JSON (`\u001b`), so that JSON stays equivalent.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |c: u8| matches!(c, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(plain) || !text.contains(is_terminal_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if is_terminal_control(c) && !(c == '\r' && rest.peek() == Some(&'\n')) {
            // Writing to a string cannot fail.
            write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_terminal_control(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with secrets replaced. Copies only if it contains one.
pub fn redact<'a>(text: &'a str, secrets: impl Iterator<Item = &'a str>) -> Cow<'a, str> {
    secrets.filter(|secret| !secret.is_empty()).fold(Cow::Borrowed(text), |text, secret| {
        if text.contains(secret) { Cow::Owned(text.replace(secret, "[secret]")) } else { text }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_without_hidden_characters() {
        let text = "a\r\nb\u{1b}[2Jc\u{202e}d\u{200b}e\u{feff}f\u{2066}g\u{ad}h\u{e0041}i\u{2028}j\u{85}k";
        assert_eq!(one_line(text, 100), "a  b [2Jcdefghi j k");
        assert_eq!(lines("a\nb\tc", 100), "a\nb c");
        assert_eq!(one_line("Zoë 日本語 🎓 مرحبا", 100), "Zoë 日本語 🎓 مرحبا");
    }

    #[test]
    fn a_text_is_truncated_between_characters_only_if_it_is_too_long() {
        assert_eq!(one_line("abc", 3), "abc");
        assert_eq!(one_line("abcd", 3), "abc…");
        assert_eq!(one_line("日本", 5), "日…");
        assert_eq!(one_line("", 0), "");
        assert_eq!(one_line("\u{200b}\u{200b}", 0), "");
        for (text, is_plain) in [("abc", true), ("abcd", false), ("a\tb", false), ("ä", false), ("", true)] {
            assert_eq!(super::is_plain(text, 3), is_plain, "{text:?}");
        }
    }

    #[test]
    fn escaped_text_does_not_control_a_terminal_and_stays_equivalent_json() {
        let table = [
            ("a\tb\nc\r\nd é 日本 👩\u{200d}🎓 مرحبا\u{200f}", None),
            ("\u{1b}[2J\u{7}\rforged", Some("\\u001b[2J\\u0007\\u000dforged")),
            (
                "a\u{7f}b\u{9b}31mc\u{202e}d\u{2066}e\u{2028}f\0",
                Some("a\\u007fb\\u009b31mc\\u202ed\\u2066e\\u2028f\\u0000"),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(escaped(text), expected.unwrap_or(text));
            let json = serde_json::to_string(text).expect("JSON");
            let again: String = serde_json::from_str(&escaped(&json)).expect("JSON still");
            assert_eq!(again, text);
        }
    }

    #[test]
    fn endless_output_is_stopped() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("again and ")?;
                }
            }
        }
        assert_eq!(display(Endless, 10), "again and …");
    }
}
