//! Texts that somebody else chose (a plugin, its file, a provider), as they may be kept and shown. The one place that cuts and
//! cleans them.

use std::borrow::Cow;
use std::fmt::{self, Write};

pub use ace_store::person::is_hidden;

/// Bytes that are kept of one such text: a reason, an error, an answer.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// What stands for a part that was cut off.
const ELLIPSIS: char = '…';

/// A text as one line: control characters and line breaks become spaces, hidden characters ([`is_hidden`]) are left out, and what is
/// longer than `bytes_max` is cut and ends in an ellipsis. No more is copied than is kept.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    cleaned_text(text, bytes_max, false)
}

/// The same, with its line breaks.
pub fn lines(text: &str, bytes_max: usize) -> String {
    cleaned_text(text, bytes_max, true)
}

/// Whether a text certainly stays as it is, by [`one_line`] and [`lines`]: short, and printable ASCII alone. Quick to ask.
pub fn is_plain(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && plain_bytes(text) == text.len()
}

/// How much at the beginning of a text is printable ASCII, which most texts are.
fn plain_bytes(text: &str) -> usize {
    text.bytes().take_while(|byte| matches!(byte, b' '..=b'~')).count()
}

fn cleaned_text(text: &str, bytes_max: usize, keeps_lines: bool) -> String {
    if is_plain(text, bytes_max) { text.to_owned() } else { cleaned(text, bytes_max, keeps_lines) }
}

fn cleaned(text: impl fmt::Display, bytes_max: usize, keeps_lines: bool) -> String {
    let mut kept = Kept { text: String::new(), bytes_max, keeps_lines };
    // An error says that there was enough of it.
    if write!(kept, "{text}").is_err() {
        kept.text.push(ELLIPSIS);
    }
    kept.text
}

/// What a value writes of itself, as [`one_line`]. Its writing ends as soon as there is enough.
pub fn shown(value: impl fmt::Display, bytes_max: usize) -> String {
    cleaned(value, bytes_max, false)
}

struct Kept {
    text: String,
    bytes_max: usize,
    keeps_lines: bool,
}

impl Write for Kept {
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

/// A text as it may go to a terminal: what would steer one (control and escape characters, but for line breaks and tabs) or turn the
/// direction of its neighbours is written as `\u001b`. That is how JSON writes it, so that a JSON text stays the same JSON.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let plain = |c: u8| matches!(c, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(plain) || !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match steers(c) && !(c == '\r' && rest.peek() == Some(&'\n')) {
            // Writing into a text cannot fail.
            true => drop(write!(kept, "\\u{:04x}", u32::from(c))),
            false => kept.push(c),
        }
    }
    Cow::Owned(kept)
}

fn steers(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without these secrets. Nothing is copied where none of them is in it.
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
    fn a_text_is_cut_between_characters_and_what_fits_is_whole() {
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
    fn what_goes_to_a_terminal_does_not_steer_it_and_stays_the_same_json() {
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
    fn what_writes_without_end_is_stopped() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("again and ")?;
                }
            }
        }
        assert_eq!(shown(Endless, 10), "again and …");
    }
}
