//! Finds the report in a mail, and what its events have in common.

use std::fmt::Write;

use ace_plugin::Timestamp;
use ace_plugin::feedback::Event;
use mail_parser::DateTime;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::mail::{Fields, Part};
use crate::{complaint, delivery};

/// How deep a report may be nested: mailing lists and virus scanners wrap mail.
const DEPTH_MAX: usize = 4;
/// Bytes of an address and of an id.
const ADDRESS_BYTES_MAX: usize = 320;
const ID_BYTES_MAX: usize = 900;
/// Characters of a text for people.
const TEXT_CHARS_MAX: usize = 500;
/// The shortest token of a return path, which is of letters and digits up to `v`.
const TOKEN_BYTES_MIN: usize = 42;
/// The fields in which mail servers write which address a mail came to.
const DESTINATIONS: [&str; 5] = ["x-original-to", "delivered-to", "envelope-to", "x-envelope-to", "to"];

/// A report in a mail, with what its events have in common.
pub(crate) struct Report<'a> {
    /// The part for machines.
    pub(crate) part: Part<'a>,
    /// The signed return path that it was sent to.
    destination: Option<String>,
    /// The signed return path of the mail that was reported, and its Message-ID.
    return_path: Option<String>,
    message_id: Option<String>,
    /// The start of the ids: a hash of the mail's own Message-ID and date.
    hash: Sha256,
    at: Option<Timestamp>,
}

/// The events of a mail; `None` if it is no report.
pub(crate) fn events(mail: &[u8], now: Timestamp) -> Option<Vec<Event>> {
    let mail = Part::read(mail.trim_ascii_start());
    let (part, original) = find(mail.parts(), DEPTH_MAX)?;
    let report = Report::new(&mail.fields, part, &original, now);
    let is_complaint = report.part.media_type == complaint::MEDIA_TYPE;
    Some(if is_complaint { vec![complaint::event(&report)] } else { delivery::events(&report) })
}

/// The first report among parts, and the fields of the mail that it is about.
fn find(parts: Vec<Part<'_>>, depth: usize) -> Option<(Part<'_>, Fields)> {
    let is_report = |part: &Part<'_>| {
        delivery::MEDIA_TYPES.contains(&&*part.media_type) || part.media_type == complaint::MEDIA_TYPE
    };
    let mut parts = parts.into_iter();
    let mut before = Vec::new();
    while let Some(part) = parts.next() {
        if is_report(&part) {
            return Some((part, parts.find_map(|part| original(&part)).unwrap_or_default()));
        }
        before.push(part);
    }
    let depth = depth.checked_sub(1)?;
    before.iter().find_map(|part| find(part.parts(), depth))
}

/// The fields of the mail in a part.
fn original(part: &Part<'_>) -> Option<Fields> {
    let is_mail = part.media_type.starts_with("message/") || part.media_type == "text/rfc822-headers";
    is_mail.then(|| Part::read(&part.content()).fields)
}

fn time(date: &str) -> Option<Timestamp> {
    let date = DateTime::parse_rfc822(date).filter(DateTime::is_valid)?;
    Timestamp::try_from(date.to_timestamp()).ok()?.checked_mul(1_000)
}

impl<'a> Report<'a> {
    /// The report in this part of a mail. `original` are the fields of the mail that was reported, if they came with it.
    fn new(mail: &Fields, part: Part<'a>, original: &Fields, now: Timestamp) -> Self {
        let mut hash = Sha256::new();
        ["message-id", "date"].iter().for_each(|name| update(&mut hash, mail.first(name).unwrap_or_default()));
        Report {
            part,
            destination: DESTINATIONS.iter().flat_map(|name| mail.all(name)).find_map(signed).map(str::to_owned),
            return_path: original.first("return-path").and_then(signed).map(str::to_owned),
            message_id: original.first("message-id").and_then(message_id).map(str::to_owned),
            hash,
            at: mail.first("date").and_then(time).filter(|at| *at <= now),
        }
    }

    /// An event with everything except what it is about. `parts` tell it from the other events of the report.
    pub(crate) fn event(&self, kind: &str, return_path: Option<&str>, parts: &[&str]) -> Event {
        let mut event = Event::new(self.id(return_path, parts), kind);
        if let Some(path) = return_path {
            event = event.returned_to(path);
        }
        event.message_id.clone_from(&self.message_id);
        event.at = self.at;
        event
    }

    /// The signed return path that the report came back to: the address that it was sent to, or the sender that it names. Mail servers
    /// may have changed its case.
    pub(crate) fn return_path<'b>(&'b self, named: Option<&'b str>) -> Option<&'b str> {
        self.destination.as_deref().or_else(|| named.and_then(signed)).or(self.return_path.as_deref())
    }

    /// The same for every copy of a report.
    fn id(&self, return_path: Option<&str>, parts: &[&str]) -> String {
        let about = [return_path, self.message_id.as_deref()].map(Option::unwrap_or_default);
        let mut hash = self.hash.clone();
        about.iter().chain(parts).for_each(|part| update(&mut hash, part));
        hash.finalize().iter().take(16).fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

/// Adds a text with its length.
fn update(hash: &mut Sha256, part: &str) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// The first address in a text that may be a signed return path.
fn signed(text: &str) -> Option<&str> {
    let is_around = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | ',' | ';' | ':' | '"');
    let is_token = |byte: &u8| matches!(byte.to_ascii_lowercase(), b'0'..=b'9' | b'a'..=b'v');
    let has_token = |address: &&str| {
        let local = address.rsplit_once('@').map_or("", |(local, _)| local);
        local.as_bytes().split(|byte| !is_token(byte)).any(|run| run.len() >= TOKEN_BYTES_MIN)
    };
    text.split(is_around).filter(|word| word.len() <= ADDRESS_BYTES_MAX).find(has_token)
}

/// The Message-ID in a field.
fn message_id(value: &str) -> Option<&str> {
    let inner = value.split_once('<').map_or(value, |(_, rest)| rest);
    let id = inner.split(['>', ' ']).next().unwrap_or_default();
    (!id.is_empty() && id.len() <= ID_BYTES_MAX).then_some(id)
}

/// The address in a field such as `rfc822; <zoe@learner.example> (comment)`.
pub(crate) fn address(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';').filter(|(kind, _)| !kind.contains('@')).unwrap_or(("", value));
    let address = address.split(" (").next().unwrap_or_default();
    let address = address.split_once('<').map_or(address, |(_, inner)| inner.split('>').next().unwrap_or_default());
    let address = if kind.trim().eq_ignore_ascii_case("utf-8") { decoded(address) } else { address.to_owned() };
    let address = address.trim();
    let (local, domain) = address.rsplit_once('@')?;
    let is_address = !local.is_empty() && !domain.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
    is_address.then(|| address.to_owned())
}

/// An address of the type `utf-8`, whose letters may be written as `\x{EB}` (RFC 6533, section 3).
fn decoded(address: &str) -> String {
    let mut parts = address.split("\\x{");
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let letter = part.split_once('}').and_then(|(hex, rest)| Some((u32::from_str_radix(hex, 16).ok()?, rest)));
        match letter.and_then(|(code, rest)| Some((char::from_u32(code)?, rest))) {
            Some((letter, rest)) => {
                decoded.push(letter);
                decoded.push_str(rest);
            }
            None => return address.to_owned(),
        }
    }
    decoded
}

/// A text for people, cut.
pub(crate) fn text(value: &str) -> String {
    value.chars().take(TEXT_CHARS_MAX).collect()
}

/// An object of those texts that are there.
pub(crate) fn details<'a>(texts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Value {
    let present = texts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), text(value?).into())));
    Value::Object(present.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdefghijklmnopqrstuv0123456789";

    #[test]
    fn a_signed_return_path_is_recognized_by_its_token() {
        let path = format!("bounce+{TOKEN}@b.example");
        for text in [&path, &format!("<{path}>"), &format!("rfc822;{path} (x)"), &format!("a@x.example, B <{path}>")] {
            assert_eq!(signed(text), Some(path.as_str()), "{text}");
        }
        let upper = path.to_uppercase();
        assert_eq!(signed(&upper), Some(upper.as_str()));
        let short = format!("bounce+{}@b.example", &TOKEN[1..]);
        let other = format!("bounce+w{}w@b.example", &TOKEN[1..]);
        for text in ["", "@", TOKEN, &short, &other, &format!("a@{TOKEN}"), &format!("{}{path}", "a".repeat(320))] {
            assert_eq!(signed(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_in_the_forms_of_mail_servers() {
        let table = [
            ("rfc822; zoe@learner.example", Some("zoe@learner.example")),
            ("RFC822;<zoe@learner.example>", Some("zoe@learner.example")),
            ("zoe@learner.example", Some("zoe@learner.example")),
            ("rfc822; zoe@learner.example (expanded from <root>)", Some("zoe@learner.example")),
            ("rfc822; zoe@learner.example (gone)", Some("zoe@learner.example")),
            ("rfc822; \"john doe\"@learner.example", Some("\"john doe\"@learner.example")),
            ("utf-8; zo\\x{EB}@learner.example", Some("zoë@learner.example")),
            ("utf-8; zoë@learner.example", Some("zoë@learner.example")),
            ("utf-8; zo\\x{D800}@learner.example", Some("zo\\x{D800}@learner.example")),
            ("x-unknown; /dev/null", None),
            ("rfc822; @", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(address(value).as_deref(), expected, "{value}");
        }
        assert_eq!(address(&format!("{}@x.example", "a".repeat(320))), None);
    }

    #[test]
    fn message_ids_and_dates_are_read_or_left_out() {
        assert_eq!(message_id("<7@b.example> (x)"), Some("7@b.example"));
        assert_eq!(message_id("7@b.example"), Some("7@b.example"));
        assert_eq!(message_id("<>"), None);
        assert_eq!(message_id(&"x".repeat(1_000)), None);
        assert_eq!(time("Mon, 30 Nov 2026 07:41:02 +0100 (CET)"), Some(1_796_020_862_000));
        for invalid in ["", "tomorrow", "Mon, 99 Nov 2026 07:41:02 +0100", "Mon, 30 Nov 1900 07:41:02 +0000"] {
            assert_eq!(time(invalid), None, "{invalid}");
        }
    }

    /// A report with a status for each of some recipients.
    fn delivery_report(blocks: &str) -> String {
        format!(
            "Date: Mon, 30 Nov 2026 07:41:02 +0000\nTo: <bounce+{TOKEN}@b.example>\n\
             Content-Type: multipart/report; boundary=x\n\n--x\n\nSorry.\n--x\nContent-Type: message/delivery-status\n\n\
             Reporting-MTA: dns; mx.example\n\n{blocks}\n--x\nContent-Type: message/rfc822\n\n\
             Message-ID: <7@b.example>\n\nHi\n--x--\n"
        )
    }

    #[test]
    fn copies_of_a_report_have_the_same_events() {
        let block = "Final-Recipient: rfc822; zoe@learner.example\nAction: failed\nStatus: 5.1.1\n\n";
        let report = delivery_report(&block.repeat(2));
        let first = events(report.as_bytes(), Timestamp::MAX).expect("a report");
        let copy = format!("\nReceived: by mx2\n{report}");
        let copy = events(copy.as_bytes(), Timestamp::MAX).expect("a report");
        let ids = |events: &[Event]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&copy));
        assert_eq!(first[0].id, first[1].id, "it is one recipient");
        let other = events(report.replace("5.1.1", "5.1.2").as_bytes(), Timestamp::MAX).expect("a report");
        assert_ne!(ids(&first), ids(&other));
        assert_eq!(first[0].at, Some(1_796_024_462_000));
        assert_eq!(events(report.as_bytes(), 0).expect("a report")[0].at, None, "it is in the future");
    }

    #[test]
    fn hostile_mail_is_read_in_little_time() {
        let started = std::time::Instant::now();
        let nested = |start: &str| start.repeat(1_000_000 / start.len());
        for start in [
            "Content-Type: multipart/mixed; boundary=x\n\n--x\n",
            "Content-Type: multipart/mixed; boundary=y\n\n",
            "Content-Type: message/rfc822\n\n",
            "--x\n",
            "A: b\n",
            " \n",
            "a:",
            "\n",
            "\"",
            "Content-Type: multipart/mixed; boundary=\"",
        ] {
            assert!(events(nested(start).as_bytes(), 0).is_none(), "{start}");
            let inside = delivery_report(&nested(start));
            assert!(events(inside.as_bytes(), 0).is_some(), "{start}");
        }
        let recipients = "Final-Recipient: rfc822; zoe@learner.example\nAction: failed\n\n".repeat(3_000);
        assert_eq!(events(delivery_report(&recipients).as_bytes(), 0).map(|events| events.len()), Some(1_000));
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn header_fields_are_searched_once_for_all_recipients() {
        let (to, other) = ("To: a\n".repeat(13_000), "A: b\n".repeat(13_000));
        let report = delivery_report(&"Action: failed\n\n".repeat(3_000))
            .replace(&format!("bounce+{TOKEN}@"), "x@")
            .replace("boundary=x\n", &format!("boundary=x\n{to}"))
            .replace("Message-ID: ", &format!("{other}Message-ID: "));
        let started = std::time::Instant::now();
        assert_eq!(events(report.as_bytes(), 0).map(|events| events.len()), Some(1_000));
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
    }

    #[test]
    fn no_damage_makes_a_report_panic() {
        let block =
            "Final-Recipient: utf-8; <zo\\x{EB}@learner.example>\nAction: failed\nDiagnostic-Code: smtp; 550 5.1.1 x\n";
        let report = delivery_report(block).into_bytes();
        for at in 0..report.len() {
            let _ = events(&report[..at], 0);
            for byte in [0, b'\n', b':', b';', b'"', b'<', b'\\', b'=', 0xff] {
                let mut damaged = report.clone();
                damaged[at] = byte;
                for event in events(&damaged, 0).unwrap_or_default() {
                    assert!(!event.id.is_empty() && !event.kind.is_empty() && event.kind.len() <= 64);
                }
            }
        }
    }
}
