//! Addresses and header values in ASCII, which is all that SES accepts there.

use ace_address::header::{self, Value};
use ace_address::mailbox::{Address, Mailbox};
use ace_plugin::email::display_name;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// An encoded word has at most 75 characters (RFC 2047, section 2), of which 12 are its frame.
const WORD_BYTES_MAX: usize = 45;

/// Parses mailboxes and writes them in ASCII. The error names the field.
pub fn mailboxes(field: &str, texts: &[String]) -> Result<Vec<String>, String> {
    let parse = |text: &String| Mailbox::parse(text).and_then(|mailbox| ascii(&mailbox));
    texts.iter().map(|text| parse(text).map_err(|why| format!("{field}: {why}"))).collect()
}

/// A mailbox whose display name is encoded if necessary.
pub fn ascii(mailbox: &Mailbox) -> Result<String, String> {
    let address = ascii_address(&mailbox.address)?;
    Ok(match &mailbox.name {
        None => address.to_owned(),
        Some(name) if name.is_ascii() => format!("{} <{address}>", display_name(name)),
        Some(name) => format!("{} <{address}>", encoded(name)),
    })
}

fn ascii_address(address: &Address) -> Result<&str, String> {
    let text = address.as_str();
    let why = || format!("{text:?}: SES does not support letters beyond ASCII before the \"@\"");
    address.is_ascii().then_some(text).ok_or_else(why)
}

/// The value of a header: one line.
pub fn header_value(name: &str, value: &str) -> Result<String, String> {
    Ok(match header::value(name, value)? {
        Value::Ascii(text) => text.replace('\t', " "),
        Value::Text(text) => encoded(text),
        Value::Mailboxes(list) => {
            let all: Result<Vec<String>, String> = list.iter().map(ascii).collect();
            all.map_err(|why| format!("headers: {name}: {why}"))?.join(", ")
        }
        Value::ListId(phrase, id) => format!("{} <{id}>", encoded(&phrase)),
    })
}

/// Encoded words (RFC 2047), none of which splits a character.
fn encoded(text: &str) -> String {
    let mut words = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_BYTES_MAX));
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str("=?utf-8?B?");
        BASE64_STANDARD.encode_string(word, &mut words);
        words.push_str("?=");
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<String, String> {
        mailboxes("cc", &[text.to_owned()]).map(|all| all.concat())
    }

    #[test]
    fn mailboxes_are_ascii() {
        for (text, expected) in [
            ("a@b.example", "a@b.example"),
            ("Ann Lee <a@b.example>", "Ann Lee <a@b.example>"),
            ("\"Lee, Ann\" <a@b.example>", "\"Lee, Ann\" <a@b.example>"),
            ("Zoë <z@bücher.example>", "=?utf-8?B?Wm/Dqw==?= <z@xn--bcher-kva.example>"),
        ] {
            assert_eq!(one(text).as_deref(), Ok(expected));
        }
        let error = one("zoë@b.example").expect_err("SES has no SMTPUTF8");
        assert!(error.starts_with("cc: \"zoë@b.example\": SES does not support"), "{error}");
        assert!(one("a@b.example, c@d.example").expect_err("two").starts_with("cc: "));
    }

    #[test]
    fn encoded_words_are_short_and_whole() {
        let text = "日本語のとても長い件名です。これは二つ目の文です。";
        let words = encoded(text);
        let decoded: Vec<u8> = words
            .split(' ')
            .flat_map(|word| {
                assert!(word.len() <= 75, "{word}");
                let inner = word.strip_prefix("=?utf-8?B?").and_then(|word| word.strip_suffix("?=")).expect("a word");
                let bytes = BASE64_STANDARD.decode(inner).expect("base64");
                assert!(std::str::from_utf8(&bytes).is_ok());
                bytes
            })
            .collect();
        assert_eq!(String::from_utf8(decoded).as_deref(), Ok(text));
    }

    #[test]
    fn header_values_are_ascii_by_their_kind() {
        assert_eq!(header_value("X-A", "a\tb").as_deref(), Ok("a b"));
        assert_eq!(header_value("X-A", "é").as_deref(), Ok("=?utf-8?B?w6k=?="));
        assert_eq!(header_value("List-Id", "é <a.b>").as_deref(), Ok("=?utf-8?B?w6k=?= <a.b>"));
        assert_eq!(header_value("Sender", "é <a@b.c>, d@e.f").as_deref(), Ok("=?utf-8?B?w6k=?= <a@b.c>, d@e.f"));
        assert!(header_value("Sender", "é@b.c").expect_err("no ASCII").starts_with("headers: Sender: "));
    }
}
