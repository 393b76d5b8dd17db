//! Built mails, compared with the result of a mail parser.

use mail_parser::{Address as ParsedAddress, Message, MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;

const DATE: i64 = 1_795_500_000;

fn email() -> Email {
    Email {
        recipients: vec!["ann@example.com".into()],
        subject: "Hello".into(),
        text: "Hi Ann\n".into(),
        ..Email::default()
    }
}

fn try_build(mail: &Email) -> Result<String, String> {
    let sender = Mailbox::parse(mail.sender.as_deref().unwrap_or("Campus <no-reply@campus.example>"))?;
    build(mail, &Mailboxes::new(mail, sender)?, "id-1@campus.example", DATE)
}

/// Builds a mail and checks its invariants.
fn built(mail: &Email) -> String {
    let bytes = try_build(mail).unwrap();
    for line in bytes.split("\r\n") {
        assert!(line.len() <= 998, "a line of {} bytes", line.len());
        assert!(!line.contains(['\r', '\n', '\0']), "bare control character in {line:?}");
    }
    bytes
}

fn parsed(bytes: &str) -> Message<'_> {
    MessageParser::default().parse(bytes.as_bytes()).unwrap()
}

fn header_lines(bytes: &str) -> Vec<&str> {
    let head = bytes.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).collect()
}

fn names_and_addresses(address: Option<&ParsedAddress>) -> Vec<(Option<String>, String)> {
    let list = address.map(|address| address.clone().into_list()).unwrap_or_default();
    list.into_iter().map(|a| (a.name.map(Into::into), a.address.unwrap_or_default().into())).collect()
}

#[test]
fn a_plain_mail_is_one_text_part() {
    let bytes = built(&email());
    let expected = "From: \"Campus\" <no-reply@campus.example>\r\nSubject: Hello\r\n\
        Message-ID: <id-1@campus.example>\r\nDate: Tue, 24 Nov 2026 06:00:00 +0000\r\nTo: <ann@example.com>\r\n\
        MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
        Hi Ann\r\n";
    assert_eq!(bytes, expected);
}

#[test]
fn unicode_is_preserved() {
    let mail = Email {
        sender: Some("Zoë 🎓 Ærø <zoe@bücher.example>".into()),
        recipients: vec!["日本 太郎 <taro@example.jp>".into(), "\"Quote \\\" , <x>\" <q@example.com>".into()],
        cc: vec!["cc@example.com".into()],
        bcc: vec!["hidden@example.com".into()],
        reply_to: vec!["Team <team@example.com>".into(), "b@example.com".into()],
        subject: "Grüße 🎉 ".repeat(40).trim().into(),
        text: "Zoë\nنص عربي\n.dot\n..dots\n".into(),
        html: Some(format!("<p>{}</p>\n.\n", "ü".repeat(5000))),
        headers: vec![("Comments".into(), "Élan vital ".repeat(20).trim().into())],
        ..Email::default()
    };
    let bytes = built(&mail);
    let message = parsed(&bytes);
    assert_eq!(message.subject().unwrap(), mail.subject);
    assert_eq!(names_and_addresses(message.from()), [(Some("Zoë 🎓 Ærø".into()), "zoe@xn--bcher-kva.example".into())]);
    let to = names_and_addresses(message.to());
    assert_eq!(to[0], (Some("日本 太郎".into()), "taro@example.jp".into()));
    assert_eq!(to[1], (Some("Quote \" , <x>".into()), "q@example.com".into()));
    assert_eq!(names_and_addresses(message.reply_to()).len(), 2);
    assert_eq!(message.header("Comments").unwrap().as_text().unwrap(), mail.headers[0].1);
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), mail.text);
    assert_eq!(message.body_html(0).unwrap().replace("\r\n", "\n"), mail.html.clone().unwrap());
    assert!(!bytes.contains("hidden@example.com"));
    assert!(bytes.is_ascii());
}

#[test]
fn long_lines_and_every_line_end_keep_their_text() {
    let line = "x".repeat(5000);
    for (text, expected) in [
        (format!("{line}\n{line}"), format!("{line}\n{line}")),
        ("a\r\nb\rc\nd".into(), "a\nb\nc\nd".into()),
        (".\r.\r\nMAIL FROM:<x@y>".into(), ".\n.\nMAIL FROM:<x@y>".into()),
        ("bell \u{7} and nul \0 é".into(), "bell \u{7} and nul \0 é".into()),
        ("bell \u{7} alone".into(), "bell \u{7} alone".into()),
        ("trailing \t \nspace ".into(), "trailing \t \nspace ".into()),
        (String::new(), String::new()),
    ] {
        let bytes = built(&Email { text, ..email() });
        let back = parsed(&bytes).body_text(0).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(back, expected);
    }
}

#[test]
fn parts_nest_as_mail_clients_expect() {
    let attachment = |content_type: &str, id: Option<&str>| Attachment {
        file_name: "Übersicht \"1\".bin".into(),
        content_type: content_type.into(),
        content: (0..=255).collect(),
        content_id: id.map(Into::into),
    };
    let mail = Email {
        html: Some("<img src=\"cid:logo@campus\">".into()),
        attachments: vec![attachment("image/png", Some("logo@campus")), attachment("application/pdf", None)],
        ..email()
    };
    let bytes = built(&mail);
    let types: Vec<&str> = bytes.lines().filter_map(|line| line.strip_prefix("Content-Type: ")).collect();
    let types: Vec<&str> = types.iter().map(|line| line.split(';').next().unwrap()).collect();
    let expected = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ];
    assert_eq!(types, expected);
    let message = parsed(&bytes);
    assert_eq!(message.attachment_count(), 2);
    for part in message.attachments() {
        assert_eq!(part.attachment_name().unwrap(), "Übersicht \"1\".bin");
        assert_eq!(part.contents(), (0..=255).collect::<Vec<u8>>());
    }
    let image = message.parts.iter().find(|part| part.content_id().is_some()).unwrap();
    assert_eq!(image.content_id().unwrap(), "logo@campus");
}

#[test]
fn a_text_attachment_keeps_every_byte() {
    for content in ["a,b\r\nc,d\r\n", "a\nb\n", "bare\rreturn", "é\n", "--=_mixed_\r\n", "nul\0"] {
        let attachment = Attachment {
            file_name: "data.csv".into(),
            content_type: "text/csv; charset=utf-8; header=present".into(),
            content: content.into(),
            content_id: None,
        };
        let bytes = built(&Email { attachments: vec![attachment], ..email() });
        let message = parsed(&bytes);
        let part = message.attachment(0).unwrap();
        assert_eq!(String::from_utf8_lossy(part.contents()), content);
        assert_eq!(part.content_type().unwrap().attribute("header"), Some("present"));
    }
}

#[test]
fn the_same_mail_has_the_same_bytes_and_no_text_can_end_its_part() {
    let mail = Email { html: Some("<p>x</p>".into()), ..email() };
    let bytes = built(&mail);
    assert_eq!(bytes, built(&mail));
    let boundary = bytes.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
    let evil = format!("x\n--{boundary}\nContent-Type: text/html\n\n<b>evil</b>\n--{boundary}--\n");
    let bytes = built(&Email { text: evil.clone(), ..mail });
    let message = parsed(&bytes);
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), evil);
    assert_eq!(message.parts.iter().filter(|part| matches!(part.body, PartType::Html(_))).count(), 1);
}

#[test]
fn long_headers_are_folded_and_structured_ones_are_not_changed() {
    let url = format!("<https://campus.example/unsubscribe/{}>, <mailto:u@campus.example>", "a".repeat(300));
    let mail = Email {
        subject: "A subject of many short words ".repeat(30).trim().into(),
        headers: vec![("List-Unsubscribe".into(), url.clone()), ("X-Empty".into(), String::new())],
        ..email()
    };
    let bytes = built(&mail);
    assert!(!bytes.contains("=?"), "{bytes}");
    let message = parsed(&bytes);
    assert_eq!(message.subject().unwrap(), mail.subject);
    assert_eq!(message.header_raw("List-Unsubscribe").unwrap().replace("\r\n", "").trim(), url);
    assert_eq!(parsed(&built(&Email { subject: "y".repeat(3000), ..email() })).subject().unwrap(), "y".repeat(3000));
}

#[test]
fn an_error_names_the_invalid_field() {
    let header = |name: &str, value: &str| Email { headers: vec![(name.into(), value.into())], ..email() };
    let attachment = |name: &str, content_type: &str, id: Option<&str>| Email {
        attachments: vec![Attachment {
            file_name: name.into(),
            content_type: content_type.into(),
            content: Vec::new(),
            content_id: id.map(Into::into),
        }],
        ..email()
    };
    let many = |count: usize| Email { recipients: vec!["a@example.com".into(); count], ..email() };
    let table = [
        (Email { subject: "a\r\nBcc: b@x.org".into(), ..email() }, "subject"),
        (Email { subject: "a\0".into(), ..email() }, "subject"),
        (Email { recipients: vec!["a@x.org\r\nBcc: b@x.org".into()], ..email() }, "recipients"),
        (Email { cc: vec!["a".into()], ..email() }, "cc"),
        (Email { bcc: vec!["a@b@c".into()], ..email() }, "bcc"),
        (Email { reply_to: vec!["A\n <a@x.org>".into()], ..email() }, "reply_to"),
        (many(0), "recipients"),
        (many(101), "101"),
        (header("bcc", "b@x.org"), "bcc"),
        (header("Content-Type", "text/html"), "Content-Type"),
        (header("MESSAGE-ID", "x"), "MESSAGE-ID"),
        (header("X A", "x"), "X A"),
        (header("X:", "x"), "X:"),
        (header("", "x"), "headers"),
        (header("X-É", "x"), "X-É"),
        (header("X-A", "x\nBcc: b@x.org"), "X-A"),
        (header("X-A", "\u{1b}[0m"), "X-A"),
        (header("X-Long", &"x".repeat(998)), "X-Long"),
        (header("X-Long", &format!("x{}y", " ".repeat(998))), "X-Long"),
        (Email { headers: vec![("X-A".into(), "x".into()); 101], ..email() }, "headers"),
        (Email { reply_to: vec!["a@x.org".into()], ..header("reply-to", "b@x.org") }, "reply_to"),
        (attachment("a\r\nX: y", "text/plain", None), "file_name"),
        (attachment("a", "text/plain\r\nX: y", None), "content_type"),
        (attachment("a", "multipart/mixed; boundary=x", None), "content_type"),
        (attachment("a", "png", None), "content_type"),
        (attachment("a", "image/png; a", None), "content_type"),
        (attachment("a", "image/png", Some("x> y")), "content_id"),
        (Email { text: "x".repeat(MAIL_BYTES_MAX + 1), ..email() }, "bytes"),
    ];
    for (mail, named) in table {
        let error = try_build(&mail).expect_err(named);
        assert!(error.contains(named), "{named}: {error}");
        assert!(error.len() < 500 && !error.contains(['\r', '\n', '\0']), "{error:?}");
    }
}

#[test]
fn safe_message_ids_stay_unique() {
    assert_eq!(safe_message_id("d244d674-95de.django_email"), "d244d674-95de.django_email");
    let unsafe_ids = ["a/b", "a\\b", "a b", "a>b", "../a", ".a", "", "a\r\nb", "zoë"];
    let long = ["x".repeat(200), "x".repeat(201)];
    let made: Vec<String> =
        unsafe_ids.iter().copied().chain(long.iter().map(String::as_str)).map(safe_message_id).collect();
    for (i, id) in made.iter().enumerate() {
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{id}");
        assert!(!id.starts_with('.') && id.len() <= 140, "{id}");
        assert!(!made[..i].contains(id), "{id}");
    }
}

/// Any text with pieces that have broken mail software before.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just("\n ".to_owned()),
        Just("\0".to_owned()),
        Just("\u{2028}\u{85}".to_owned()),
        Just("\r\nBcc: evil@example.org".to_owned()),
        Just("\r\n\r\n<b>body</b>".to_owned()),
        Just("=?utf-8?Q?=0D=0ABcc:_evil@example.org?=".to_owned()),
        Just("\" <evil@example.org>, \"".to_owned()),
        Just(">,<evil@example.org".to_owned()),
        Just(", evil@example.org".to_owned()),
        Just("(comment".to_owned()),
        Just("\\\"".to_owned()),
        Just(" ".repeat(300)),
        Just("w".repeat(700)),
        Just("é🎓".to_owned()),
        ".{0,40}",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_adds_a_header_or_a_recipient(
        subject in hostile(), name in hostile(), address in hostile(), header in hostile(), value in hostile(),
        field in 0..6,
    ) {
        let mut mail = email();
        match field {
            0 => mail.subject = subject,
            1 => mail.recipients = vec![format!("{name} <ann@example.com>")],
            2 => mail.recipients = vec![address],
            3 => mail.headers = vec![(header, "x".into())],
            4 => mail.headers = vec![("X-Value".into(), value)],
            _ => mail.sender = Some(format!("{name} <no-reply@campus.example>")),
        }
        let Ok(bytes) = try_build(&mail) else { return Ok(()) };
        built(&mail);
        let lines = header_lines(&bytes);
        prop_assert_eq!(lines.len(), 8 + mail.headers.len(), "{}", bytes);
        prop_assert!(!lines.iter().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{}", bytes);
        let message = parsed(&bytes);
        prop_assert_eq!(names_and_addresses(message.to()).len(), 1, "{}", bytes);
        prop_assert_eq!(names_and_addresses(message.from()).len(), 1, "{}", bytes);
        prop_assert_eq!(message.body_text(0).unwrap(), "Hi Ann\r\n");
    }

    #[test]
    fn any_text_comes_back(text in "(.|\r|\n|\\.|=){0,300}", html in "(.|\r|\n|\\.|=){0,300}") {
        let mail = Email { text: text.clone(), html: Some(html.clone()), ..email() };
        let bytes = built(&mail);
        let message = parsed(&bytes);
        let plain = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(plain(&message.body_html(0).unwrap()), plain(&html));
        if !text.is_empty() {
            prop_assert_eq!(plain(&message.body_text(0).unwrap()), plain(&text));
        }
    }
}

fn with_header(name: &str, value: &str) -> Email {
    Email { headers: vec![(name.to_owned(), value.to_owned())], ..email() }
}

#[test]
fn only_free_text_of_a_structured_header_is_encoded() {
    for (name, value) in [
        ("Reply-To", "Zoë <z@example.com>, \"Bob, B.\" <b@example.com>"),
        ("Sender", "Zoë <z@example.com>"),
        ("Errors-To", "Zoë <z@bücher.example>"),
    ] {
        let bytes = built(&with_header(name, value));
        let line =
            header_lines(&bytes).into_iter().find(|line| line.starts_with(name)).expect("it is there").to_owned();
        assert!(
            line.is_ascii() && line.contains("=?utf-8?") && line.contains('<') && line.contains("example"),
            "{line}"
        );
    }
    let bytes = built(&with_header("Reply-To", "Zoë <z@example.com>, \"Bob, B.\" <b@example.com>"));
    let expected = [
        (Some("Zoë".to_owned()), "z@example.com".to_owned()),
        (Some("Bob, B.".to_owned()), "b@example.com".to_owned()),
    ];
    assert_eq!(names_and_addresses(parsed(&bytes).reply_to()), expected);
    let bytes = built(&with_header("List-ID", "Kurs für Anfänger <kurs.example.com>"));
    assert!(bytes.contains(" <kurs.example.com>\r\n") && !bytes.contains("für"), "{bytes}");
    let bytes = built(&with_header("List-Unsubscribe", "<https://bücher.example/é?a=b>, <mailto:u@example.com>"));
    let expected = "List-Unsubscribe: <https://xn--bcher-kva.example/%C3%A9?a=b>,\r\n <mailto:u@example.com>\r\n";
    assert!(bytes.replace(">, <", ">,\r\n <").contains(expected), "{bytes}");
    let bytes = built(&with_header("X-Course", "Kurs für Anfänger"));
    assert!(bytes.contains("X-Course: =?utf-8?"), "{bytes}");
}

#[test]
fn an_error_names_the_structured_header_with_invalid_content() {
    for (name, value) in [
        ("Reply-To", "Zoë"),
        ("Sender", "Zoë <z@example.com"),
        ("List-ID", "Kurs für Anfänger"),
        ("List-ID", "Kurs <für.example.com>"),
        ("List-Unsubscribe", "https://é.example/"),
        ("References", "<é@example.com>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=Eins-Klick-ü"),
    ] {
        let refused = try_build(&with_header(name, value)).expect_err(value);
        assert!(refused.starts_with(&format!("headers: {name}: ")), "{refused}");
    }
}

#[test]
fn a_url_of_800_characters_fits_and_one_that_is_too_long_is_an_error() {
    let url = |bytes: usize| format!("<https://campus.example/{}>", "x".repeat(bytes - 25));
    let fits = 998 - "List-Unsubscribe: ".len();
    for bytes in [800, fits] {
        assert!(built(&with_header("List-Unsubscribe", &url(bytes))).contains(&url(bytes)));
    }
    let refused = try_build(&with_header("List-Unsubscribe", &url(fits + 1))).expect_err("too long");
    assert!(refused.contains("List-Unsubscribe: a line of 999 bytes"), "{refused}");
    let second = format!("<mailto:u@example.com>, {}", url(997));
    assert!(built(&with_header("List-Unsubscribe", &second)).contains(&url(997)));
}

#[test]
fn two_addresses_in_one_string_are_rejected_in_every_field() {
    let both = || vec!["Ann <a@x.example>, Bob <b@x.example>".to_owned()];
    for (field, mail) in [
        ("recipients", Email { recipients: both(), ..email() }),
        ("cc", Email { cc: both(), ..email() }),
        ("bcc", Email { bcc: both(), ..email() }),
        ("reply_to", Email { reply_to: both(), ..email() }),
        ("", Email { sender: both().pop(), ..email() }),
    ] {
        let refused = try_build(&mail).expect_err(field);
        assert!(refused.starts_with(field) && refused.contains("more than one address"), "{refused}");
    }
}
