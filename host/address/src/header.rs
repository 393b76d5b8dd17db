//! The headers that a message adds to its mail: their names, and their values by kind of header.

use std::borrow::Cow;

use crate::mailbox::{Mailbox, Quoted};

const NAME_BYTES_MAX: usize = 76;

/// Headers that are made from the parts of a mail.
const OF_THE_MAIL: [&str; 9] =
    ["from", "to", "cc", "bcc", "date", "message-id", "subject", "mime-version", "return-path"];

/// A checked value, in the form in which it can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// ASCII, to be written as it is.
    Ascii(Cow<'a, str>),
    /// Free text with other characters, which need encoded words (RFC 2047).
    Text(&'a str),
    /// A list of mailboxes whose names need encoded words.
    Mailboxes(Vec<Mailbox>),
    /// A phrase that needs encoded words, and an ASCII id.
    ListId(String, &'a str),
}

/// Checks the name of a header and the characters of its value. `has_reply_to` says whether the mail has its own Reply-To.
///
/// # Errors
/// What is wrong, with the name of the header.
pub fn check(name: &str, value: &str, has_reply_to: bool) -> Result<(), String> {
    let is_ftext = |b: u8| (33..=126).contains(&b) && b != b':';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_ftext) {
        return Err(format!("headers: {} is not a header name (RFC 5322, section 3.6.8)", Quoted(name)));
    }
    let lower = name.to_ascii_lowercase();
    if OF_THE_MAIL.contains(&lower.as_str()) || lower.starts_with("content-") {
        return Err(format!("headers: {name} is made from the fields of the mail; use those"));
    }
    if lower == "reply-to" && has_reply_to {
        return Err("headers: duplicate Reply-To; omit the header or the field reply_to".into());
    }
    check_line(&format!("headers: {name}"), value)?;
    match value.chars().find(|&c| c.is_control() && c != '\t') {
        Some(c) => Err(format!("headers: {name}: control character {c:?}")),
        None => Ok(()),
    }
}

/// Rejects line breaks and NUL, which end a header in some programs.
///
/// # Errors
/// The field and its value, if it has such a character.
pub fn check_line(field: &str, value: &str) -> Result<(), String> {
    match value.chars().find(|c| matches!(c, '\r' | '\n' | '\0')) {
        Some(c) => Err(format!("{field}: {c:?} is not allowed: {}", Quoted(value))),
        None => Ok(()),
    }
}

/// The kind of content of a header.
enum Content {
    /// Free text (RFC 5322, section 2.2.1).
    Unstructured,
    /// A list of mailboxes.
    Mailboxes,
    /// `phrase <id>` (RFC 2919).
    ListId,
    /// `<URL>, <URL>` (RFC 2369).
    Urls,
    /// Names and numbers for programs.
    Structured,
}

impl Content {
    fn of(header: &str) -> Content {
        match header.to_ascii_lowercase().as_str() {
            "reply-to"
            | "sender"
            | "errors-to"
            | "return-receipt-to"
            | "disposition-notification-to"
            | "mail-followup-to"
            | "mail-reply-to"
            | "resent-from"
            | "resent-sender"
            | "resent-to"
            | "resent-cc" => Content::Mailboxes,
            "list-id" => Content::ListId,
            "list-unsubscribe" | "list-subscribe" | "list-help" | "list-post" | "list-owner" | "list-archive" => {
                Content::Urls
            }
            "references"
            | "in-reply-to"
            | "resent-message-id"
            | "resent-date"
            | "list-unsubscribe-post"
            | "precedence"
            | "auto-submitted"
            | "importance"
            | "priority"
            | "x-priority"
            | "feedback-id"
            | "dkim-signature"
            | "received"
            | "original-message-id" => Content::Structured,
            _ => Content::Unstructured,
        }
    }
}

/// The value of a header. ASCII is not changed. Other characters are only allowed in free text, in display names and in URLs, not in
/// addresses (RFC 2047, section 5).
///
/// # Errors
/// What is wrong, with the name of the header.
pub fn value<'a>(name: &str, value: &'a str) -> Result<Value<'a>, String> {
    let value = value.trim_matches([' ', '\t']);
    if value.is_ascii() {
        return Ok(Value::Ascii(Cow::Borrowed(value)));
    }
    let invalid = |why: String| format!("headers: {name}: {why}");
    match Content::of(name) {
        Content::Unstructured => Ok(Value::Text(value)),
        Content::Mailboxes => mailboxes(value).map(Value::Mailboxes).map_err(invalid),
        Content::ListId => {
            let parts = value.strip_suffix('>').and_then(|rest| rest.rsplit_once('<'));
            let (phrase, id) = parts.filter(|(_, id)| id.is_ascii()).ok_or_else(|| {
                invalid(format!("{}: expected an ASCII id between \"<\" and \">\" at the end", Quoted(value)))
            })?;
            Ok(Value::ListId(phrase.trim().trim_matches('"').to_owned(), id.trim()))
        }
        Content::Urls => ascii_urls(value).map(|urls| Value::Ascii(Cow::Owned(urls))).map_err(invalid),
        Content::Structured => Err(invalid(format!("{}: only ASCII is allowed", Quoted(value)))),
    }
}

/// The mailboxes of a list, which are separated by commas.
///
/// # Errors
/// What is wrong with one of them.
pub fn mailboxes(list: &str) -> Result<Vec<Mailbox>, String> {
    split_mailboxes(list).map(Mailbox::parse).collect()
}

/// The mailboxes of a list, split at commas outside quotes.
fn split_mailboxes(list: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |c| {
        let is_quote = c == '"' && !is_escaped;
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        is_quoted ^= is_quote;
        c == ',' && !is_quoted
    })
}

/// The URLs of `<URL>, <URL>` in ASCII according to the URL standard: hosts by IDNA, the rest percent-encoded.
fn ascii_urls(value: &str) -> Result<String, String> {
    let url = |part: &str| {
        let inner = part.trim().strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        let inner = inner.ok_or_else(|| format!("{}: expected a URL between \"<\" and \">\"", Quoted(part)))?;
        url::Url::parse(inner).map(|url| format!("<{url}>")).map_err(|e| format!("{}: {e}", Quoted(inner)))
    };
    Ok(value.split(',').map(url).collect::<Result<Vec<_>, _>>()?.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_and_not_one_of_the_mail() {
        assert_eq!(check("X-Campus", "7\t8", true), Ok(()));
        assert_eq!(check("Reply-To", "a@b.c", false), Ok(()));
        for (name, value) in [
            ("", "x"),
            ("X:Y", "x"),
            ("Zoë", "x"),
            ("BCC", "a@b.c"),
            ("Content-Type", "text/html"),
            ("reply-to", "a@b.c"),
            ("X-A", "a\r\nBcc: d@e.f"),
            ("X-A", "\u{7}"),
        ] {
            assert!(check(name, value, true).expect_err(name).starts_with("headers: "), "{name}: {value:?}");
        }
    }

    #[test]
    fn the_kind_of_a_header_decides_what_its_value_may_be() {
        assert_eq!(value("X-A", " plain\t"), Ok(Value::Ascii("plain".into())));
        assert_eq!(value("X-A", "Zoë"), Ok(Value::Text("Zoë")));
        assert_eq!(value("List-ID", "Zoë <a.b.c>"), Ok(Value::ListId("Zoë".to_owned(), "a.b.c")));
        let url = value("List-Unsubscribe", "<https://bücher.example/ü>, <mailto:a@b.c>");
        assert_eq!(url, Ok(Value::Ascii("<https://xn--bcher-kva.example/%C3%BC>, <mailto:a@b.c>".into())));
        let Ok(Value::Mailboxes(list)) = value("Sender", "\"Zoë, Kim\" <z@b.c>, k@b.c") else { panic!("two") };
        let names: Vec<_> = list.iter().map(|mailbox| (mailbox.name.as_deref(), mailbox.address.as_str())).collect();
        assert_eq!(names, [(Some("Zoë, Kim"), "z@b.c"), (None, "k@b.c")]);
        for (name, text) in [("Precedence", "ü"), ("List-Id", "ü"), ("List-Help", "ü"), ("Sender", "ü")] {
            assert!(value(name, text).expect_err(name).starts_with(&format!("headers: {name}: ")), "{name}");
        }
    }
}
