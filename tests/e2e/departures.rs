//! Intentional differences from edx-ace that other tests do not show.

use mail_parser::MimeHeaders;
use serde_json::{Value, json};

use crate::servers::{Mail, Smtpd};
use crate::support::{GRANTED, Home, channel, email, mail_home, message};

/// The mail of one message.
fn mail_of(fields: Value) -> Mail {
    let server = Smtpd::start(&[]);
    mail_home(&server.relay()).send(&[message("note", fields)]).ok();
    server.mail()
}

#[test]
fn every_run_of_whitespace_in_a_subject_is_one_space() {
    let subject = "word \n\t".repeat(50);
    assert_eq!(mail_of(json!({"context": {"subject": subject}})).subject(), vec!["word"; 50].join(" "));
}

#[test]
fn a_long_subject_in_any_script_is_decoded_unchanged() {
    let subject = "Überraschung 日本語 🎓 ".repeat(20).trim().to_owned();
    let mail = mail_of(json!({"context": {"subject": subject}}));
    assert_eq!(mail.subject(), subject);
    assert!(mail.raw.is_ascii() && mail.raw.lines().all(|line| line.len() <= 998));
}

#[test]
fn text_is_not_escaped_and_html_is() {
    let mail =
        mail_of(json!({"context": {"subject": "Tom & \"Jerry\"", "text": "a < b && c", "from_name": "Tom & Jerry"}}));
    assert_eq!(mail.subject(), "Tom & \"Jerry\"");
    assert_eq!(mail.sender().0.as_deref(), Some("Tom & Jerry"));
    assert_eq!(mail.text().trim_end(), "a < b && c");
    assert!(mail.html().contains("<p>a &lt; b &amp;&amp; c</p>"), "{}", mail.html());
}

#[test]
fn from_name_is_the_display_name_unless_the_address_has_one() {
    let from = |options: Value| mail_of(json!({"context": {"from_name": "Doe, Jane"}, "options": options})).sender();
    let named = |name: &str, address: &str| (Some(name.to_owned()), address.to_owned());
    assert_eq!(from(json!({})), named("Doe, Jane", "no-reply@campus.example"));
    assert_eq!(from(json!({"from_address": "a@example.com"})), named("Doe, Jane", "a@example.com"));
    assert_eq!(from(json!({"from_address": "Shop <a@example.com>"})), named("Shop", "a@example.com"));
}

#[test]
fn copies_are_sent_and_blind_copies_are_not_shown() {
    let options = json!({"cc": ["Bob <bob@example.com>"], "bcc": "eve@example.com", "reply_to": ["a@example.com", "b@example.com"]});
    let mail = mail_of(json!({"options": options}));
    assert_eq!(mail.envelope["recipients"], json!(["zoe@learner.example", "bob@example.com", "eve@example.com"]));
    assert!(!mail.raw.contains("eve@example.com"), "{}", mail.raw);
    assert!(mail.header("Cc").is_some_and(|cc| cc.contains("Bob") && cc.contains("bob@example.com")));
    let replies = mail
        .parsed(|m| m.reply_to().expect("Reply-To").iter().map(|a| a.address().map(str::to_owned)).collect::<Vec<_>>());
    assert_eq!(replies, [Some("a@example.com".to_owned()), Some("b@example.com".to_owned())]);
}

#[test]
fn attachments_arrive_byte_for_byte() {
    // "\0\r\n.\r\nÿ" and a name beyond ASCII.
    let attachments = json!([
        {"name": "Grüße 日本.bin", "content": "AA0KLg0K/w=="},
        {"name": "a.csv", "type": "text/csv", "content": "YSxiCjEsMg=="},
    ]);
    let mail = mail_of(json!({"options": {"attachments": attachments}}));
    assert_eq!(mail.part_types()[0], "multipart/mixed");
    let found: Vec<_> = mail.parsed(|m| {
        let attached = m.attachments();
        attached.map(|part| (part.attachment_name().map(str::to_owned), part.contents().to_vec())).collect()
    });
    let expected = [
        (Some("Grüße 日本.bin".to_owned()), b"\0\r\n.\r\n\xff".to_vec()),
        (Some("a.csv".to_owned()), b"a,b\n1,2".to_vec()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn headers_of_the_message_are_in_the_mail() {
    let headers = json!({"X-Campaign": "Grüße", "List-Id": "<news.example.com>", "List-Unsubscribe": "<https://example.com/u>", "List-Unsubscribe-Post": "<https://example.com/u>"});
    let mail = mail_of(json!({"headers": headers}));
    assert_eq!(mail.header("List-Id").as_deref(), Some("<news.example.com>"));
    assert_eq!(mail.header("X-Campaign").as_deref(), Some("=?utf-8?B?R3LDvMOfZQ==?="), "RFC 2047");
    assert_eq!(mail.header("List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"), "RFC 8058");
}

#[test]
fn one_click_unsubscribe_headers_are_made_from_an_https_url() {
    let unsubscribe = |fields: Value| mail_of(fields).header("List-Unsubscribe");
    let url = json!({"unsubscribe_url": "https://example.com/u?k=1"});
    assert_eq!(unsubscribe(json!({"context": url})).as_deref(), Some("<https://example.com/u?k=1>"));
    assert_eq!(unsubscribe(json!({"context": url, "options": {"transactional": true}})), None);
    assert_eq!(unsubscribe(json!({"context": {"unsubscribe_url": "http://example.com/u"}})), None);
}

#[test]
fn the_context_is_not_changed() {
    let home = mail_home("[relays.main]\nkind = 'file'\ndir = 'out'\n");
    let text = "{{ uuid }} {{ recipient.x }} {{ expiration_time }} {{ send_uuid }}";
    home.email_templates("keys", "s", "h", text);
    let context = json!({"uuid": "no uuid", "recipient": {"x": 1}, "expiration_time": "soon", "send_uuid": 7});
    let note = message("keys", json!({"context": context})).to_string();
    let line = home.ace(&["explain", "--json", "-"]).input(note).run().ok().lines().remove(0);
    assert_eq!(email(&line)["rendered"][4]["text"], "no uuid 1 soon 7");
}

#[test]
fn learners_can_have_ids_of_any_kind_and_messages_no_uuid() {
    let home = mail_home("[relays.main]\nkind = 'discard'\n");
    let ids = [json!(7), json!(0), json!("7"), json!("anonymous"), Value::Null];
    let to = |id| message("note", json!({"recipient": {"lms_user_id": id, "email_address": "a@example.com"}}));
    let lines = home.send(&ids.map(to)).ok().lines();
    let mut uuids: Vec<_> = lines.iter().map(|line| line["report"]["uuid"].as_str().expect("generated")).collect();
    uuids.sort_unstable();
    uuids.dedup();
    assert_eq!(uuids.len(), 5);
}

#[test]
fn types_come_in_a_fixed_order_and_each_has_an_outcome() {
    let home =
        mail_home("[relays.main]\nkind = 'discard'\n[plugins.stub_policy]\nconfig = { deny = ['sms', 'push'] }\n");
    home.plugin("stub_policy");
    for _ in 0..3 {
        let line = home.send(&[message("note", json!({}))]).ok().lines().remove(0);
        let channels = line["report"]["channels"].as_array().expect("channels");
        let order: Vec<_> = channels.iter().map(|c| &c["channel_type"]).collect();
        assert_eq!(order, ["email", "push"]);
        assert_eq!(channel(&line, "push")["state"], "denied");
        // A denial of a type without a channel is kept, and has no effect.
        assert_eq!(line["report"]["policies"][0]["result"]["deny"][0]["channel_type"], "sms");
    }
}

#[test]
fn a_delay_is_not_a_denial_and_names_its_end() {
    let stub = "[plugins.stub_policy]\nconfig = { delay = [{ channel-type = 'email', seconds = 3600 }], reason = 'quiet hours' }\n";
    let home = mail_home(&format!("[relays.main]\nkind = 'discard'\n{stub}"));
    home.plugin("stub_policy");
    let done = home.send(&[message("note", json!({}))]).code(1);
    let outcome = done.email();
    assert_eq!((&outcome["state"], &outcome["reasons"][0]["reason"]), (&json!("delayed"), &json!("quiet hours")));
    let until: jiff::Timestamp = outcome["not_before"].as_str().and_then(|t| t.parse().ok()).expect("a moment");
    assert!(until > jiff::Timestamp::now());
    let soon = json!({"expiration_time": (jiff::Timestamp::now() + std::time::Duration::from_secs(600)).to_string()});
    assert_eq!(home.send(&[message("note", soon)]).code(1).email()["state"], "expired", "never past its expiration");
}

#[test]
fn a_missing_channel_is_replaced_by_the_next_candidate() {
    let home = Home::new(&["django_email", "file_email"], "");
    home.email_templates("note", "s", "h", "t");
    std::fs::create_dir(home.path("out")).expect("made");
    let files = "[plugins.file_email]\ngrants = { outbox = 'out' }\n[routing]\ndefault = { email = 'file_email' }\n";
    home.config(&format!("[relays.main]\nkind = 'discard'\n{GRANTED}{files}"));
    let send = |options: Value| home.send(&[message("note", json!({"options": options}))]).ok().email();
    let unknown = send(json!({"override_default_channel": "braze_email"}));
    assert_eq!((&unknown["channel"], &unknown["rule"]), (&json!("file_email"), &json!("default")));
    assert!(unknown["passed_over"][0].as_str().is_some_and(|text| text.starts_with("braze_email: ")), "{unknown}");
    let named = send(json!({"override_default_channel": "django_email"}));
    assert_eq!((&named["channel"], &named["rule"]), (&json!("django_email"), &json!("override_default_channel")));
}

#[test]
fn a_closed_stdout_ends_the_program_quietly() {
    let home = mail_home("[relays.main]\nkind = 'discard'\n");
    let input = format!("{}\n", message("note", json!({}))).repeat(3_000);
    let mut ace = home.ace(&["send", "--json", "-"]).input(input).start();
    drop(ace.stdout.take());
    let done = crate::support::Done::of(ace).ok();
    assert!(!done.stderr.contains("panicked") && !done.stderr.contains("error:"), "{}", done.stderr);
}
