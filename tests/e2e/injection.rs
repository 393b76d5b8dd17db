//! Attempts to smuggle a header or a recipient into a mail.

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{assert_text, email, mail_home, message};

#[test]
fn a_line_break_in_a_subject_or_a_name_is_a_space() {
    let server = Smtpd::start(&[]);
    let context = json!({
        "subject": "Hi\r\nBcc: evil@example.com\r\n\r\nbody \u{2028}\u{85}\0end",
        "from_name": "Shop\nBcc: evil@example.com",
        "text": "first\n.\nMAIL FROM:<evil@example.com>\r\n.\r\nlast",
    });
    mail_home(&server.relay()).send(&[message("note", json!({"context": context}))]).ok();
    let mail = server.mail();
    assert_eq!(mail.subject(), "Hi Bcc: evil@example.com body end");
    assert_eq!(mail.sender().0.as_deref(), Some("Shop Bcc: evil@example.com"));
    assert!(!mail.header_names().contains(&"bcc".to_owned()), "{}", mail.raw);
    assert_eq!(mail.envelope["recipients"], json!(["zoe@learner.example"]));
    assert_eq!(mail.text().trim_end(), "first\n.\nMAIL FROM:<evil@example.com>\n.\nlast", "a dot ends nothing");
}

/// Fields of a message with such an attempt, and the path in the error.
fn attempts() -> Vec<(Value, &'static str)> {
    let options = |options: Value| json!({"options": options});
    let to = |address: &str| json!({"recipient": {"lms_user_id": 7, "email_address": address}});
    let headers = |name: &str, value: &str| json!({"headers": {name: value}});
    let attached =
        |name: &str, kind: &str| options(json!({"attachments": [{"name": name, "type": kind, "content": "SGk="}]}));
    vec![
        (options(json!({"from_address": "a@example.com\r\nBcc: evil@example.com"})), "from_address"),
        (options(json!({"from_address": "A\r\nBcc: evil@example.com <a@example.com>"})), "sender"),
        (options(json!({"from_address": "a@example.com, evil@example.com"})), "sender"),
        (options(json!({"reply_to": ["a@example.com\nBcc: evil@example.com"]})), "reply_to"),
        (options(json!({"cc": ["a@example.com\nX-Evil: 1"]})), "cc"),
        (options(json!({"bcc": "a@example.com>\r\nRCPT TO:<evil@example.com"})), "bcc"),
        (to("zoe@learner.example\r\nRCPT TO:<evil@example.com>"), "recipients"),
        (to("zoe@learner.example> X-EVIL"), "recipients"),
        (to("zoe@learner.example, evil@example.com"), "recipients"),
        (headers("X-Campaign", "a\r\nBcc: evil@example.com"), "X-Campaign"),
        (headers("X-Campaign\r\nX-Evil", "a"), "X-Evil"),
        (headers("X Evil", "a"), "X Evil"),
        (headers("Bcc", "evil@example.com"), "Bcc"),
        (headers("to", "evil@example.com"), "to"),
        (headers("From", "evil@example.com"), "From"),
        (headers("Content-Type", "text/html"), "Content-Type"),
        (headers("Message-ID", "<x@example.com>"), "Message-ID"),
        (attached("a.txt\r\nX-Evil: 1", "text/plain"), "attachment"),
        (attached("a.txt", "text/plain\r\nX-Evil: 1"), "attachment"),
    ]
}

#[test]
fn everywhere_else_it_is_rejected_by_name_and_nothing_is_sent() {
    let server = Smtpd::start(&[]);
    let attempts = attempts();
    let messages: Vec<Value> = attempts.iter().map(|(fields, _)| message("note", fields.clone())).collect();
    let done = mail_home(&server.relay()).send(&messages).code(1);
    for (line, (fields, named)) in done.lines().iter().zip(&attempts) {
        assert_eq!(email(line)["state"], "failed", "{fields}");
        assert_text(&email(line)["error"], named);
        let error = email(line)["error"].as_str().expect("text");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    assert_eq!(done.lines().len(), attempts.len());
    assert!(server.mails().is_empty(), "nothing was sent");
}

#[test]
fn texts_of_a_message_cannot_forge_a_line_of_the_log_or_the_table() {
    let server = Smtpd::start(&["--refuse", "zoe@learner.example=550"]);
    let home = mail_home(&server.relay());
    let fields = json!({"language": "en\nERROR forged", "context": {"subject": "x\nERROR forged"}});
    let note = message("note", fields).to_string();
    let done = home.ace(&["send", "--log", "debug", "-"]).input(note).run().code(1);
    for line in done.stdout.lines().chain(done.stderr.lines()) {
        assert!(!line.starts_with("ERROR forged"), "{line}");
    }
}

#[test]
fn values_of_a_context_add_no_header_or_recipient() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let anything = "([\r\n\t\u{0}\u{b}\u{1c}\u{85}\u{2028}]|[a-zA-Zé日 ]|[:<>@,;()\\\\\"=?&.-]|\r\nBcc: e@x.example|=\\?utf-8\\?q\\?=0A\\?=){0,24}";
    let mut value = || anything.new_tree(&mut runner).expect("a value").current();
    let mut messages = vec![message("note", json!({}))];
    for _ in 0..250 {
        let context =
            json!({"subject": format!("S{}", value()), "from_name": format!("F{}", value()), "text": value()});
        messages.push(message("note", json!({"context": context})));
    }
    let home = mail_home("[relays.main]\nkind = \"file\"\ndir = \"mails\"\n");
    let done = home.send(&messages).ok();
    let mut expected: Option<Vec<String>> = None;
    for line in done.lines() {
        let uuid = line["report"]["uuid"].as_str().expect("a uuid");
        let raw = home.read(&format!("mails/{uuid}.django_email.eml"));
        let mail = mail_parser::MessageParser::default().parse(&raw).expect("a mail");
        let names: Vec<String> = mail.headers().iter().map(|header| header.name().to_lowercase()).collect();
        assert_eq!(&names, expected.get_or_insert(names.clone()), "{raw}");
        let to: Vec<_> = mail.to().expect("a recipient").iter().filter_map(|a| a.address()).collect();
        let from: Vec<_> = mail.from().expect("a sender").iter().filter_map(|a| a.address()).collect();
        assert_eq!((to, from), (vec!["zoe@learner.example"], vec!["no-reply@campus.example"]), "{raw}");
    }
    assert_eq!(done.lines().len(), messages.len());
}
