//! Invalid input: each invalid line has a clear error, and the other lines are sent.

use std::io::Write;

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{Done, Home, assert_text, email, mail_home, message, wait_for};

const DISCARD: &str = "[relays.main]\nkind = 'discard'\n";

fn send_lines(home: &Home, lines: &[String]) -> Done {
    home.ace(&["send", "--json", "-"]).input(lines.join("\n")).run()
}

/// Errors of a refused line as `path: message`.
fn refusals(line: &Value) -> Vec<String> {
    let errors = line["refused"].as_array().unwrap_or_else(|| panic!("{line} was to be refused"));
    errors
        .iter()
        .map(|e| format!("{}: {}", e["path"].as_str().expect("a path"), e["message"].as_str().expect("text")))
        .collect()
}

#[test]
fn each_invalid_line_is_rejected_with_its_number_and_the_others_are_sent() {
    let good = || message("note", json!({})).to_string();
    let nan = good().replace("\"name\":\"note\"", "\"name\":\"note\",\"context\":{\"scores\":[1,{\"mean\":NaN}]}");
    let lines = [
        good(),
        r#"{"app_label": "app", "name": "#.to_owned(),
        nan,
        good().replace("\"recipient\"", "\"recipent\""),
        String::new(),
        r#"{"app_label": "../x", "name": 7, "recipient": {"email_address": "a@b.c"}, "uuid": "no"}"#.to_owned(),
        "[1, 2]".to_owned(),
        good(),
    ];
    let done = send_lines(&mail_home(DISCARD), &lines).code(1);
    let told = done.lines();
    let numbers: Vec<_> = told.iter().map(|line| line["line"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 6, 7, 8], "line 5 is empty");

    assert_eq!((&email(&told[0])["state"], &email(&told[6])["state"]), (&json!("sent"), &json!("sent")));
    assert!(refusals(&told[1])[0].contains("not JSON: EOF"), "{told:?}");
    assert_eq!(refusals(&told[2]), ["/context/scores/1/mean: NaN is not JSON; leave the value out or write null"]);
    assert!(
        refusals(&told[3]).contains(&"/recipent: unknown field; did you mean \"recipient\"?".to_owned()),
        "{told:?}"
    );
    let all = refusals(&told[4]);
    for path in ["/app_label: ", "/name: ", "/recipient/lms_user_id: is required", "/uuid: \"no\" is not a uuid"] {
        assert!(all.iter().any(|e| e.starts_with(path)), "{path} is not among {all:?}");
    }
    assert_eq!(refusals(&told[5]), [": must be a JSON object, not an array"]);
    done.says("7 messages in").says("5 failed");
}

#[test]
fn an_invalid_first_line_does_not_affect_the_others() {
    let good = message("note", json!({})).to_string();
    let lines = [r#"{"app_label": "app", "name": "#.to_owned(), good.clone(), good];
    let told = send_lines(&mail_home(DISCARD), &lines).code(1).lines();
    assert_eq!(told.len(), 3);
    assert_eq!((&told[0]["line"], &told[0]["failed"]), (&json!(1), &json!(true)));
    assert_eq!((&email(&told[1])["state"], &email(&told[2])["state"]), (&json!("sent"), &json!("sent")));
}

#[test]
fn one_message_may_be_written_over_many_lines() {
    let home = mail_home(DISCARD);
    let text = serde_json::to_string_pretty(&message("note", json!({"context": {"a": {"b": 1}}}))).expect("JSON");
    home.file("message.json", &text);
    assert_eq!(home.ace(&["send", "--json", "message.json"]).run().ok().email()["state"], "sent");
    home.file("bad.json", text.replace("\"b\": 1", "\"b\": 1,,"));
    let told = home.ace(&["send", "--json", "bad.json"]).run().code(1).lines();
    let line = text.lines().position(|line| line.contains("\"b\"")).expect("it is there") + 1;
    assert!(refusals(&told[0])[0].contains(&format!("line {line} ")), "the line within the document: {told:?}");
}

#[test]
fn a_message_of_twenty_megabytes_is_rejected_and_not_buffered() {
    let server = Smtpd::start(&[]);
    let home = mail_home(&server.relay());
    let mut ace = home.ace(&["send", "--json", "-"]).start_open();
    let mut input = ace.stdin.take().expect("its input");
    let long = message("note", json!({"context": {"text": "x".repeat(20 << 20)}}));
    // Written from another thread, because one line would fill the pipe.
    writeln!(input, "{long}\n{}", message("note", json!({}))).expect("it reads on");
    wait_for("the mail after the long line", || (!server.mails().is_empty()).then_some(()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", ace.id())).expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 200 * 1024, "{peak_kib} KiB");
    drop(input);

    let told = Done::of(ace).code(1).lines();
    assert!(refusals(&told[0])[0].contains("longer than 1048576 bytes (delivery.max-message-bytes)"), "{told:?}");
    assert_eq!(email(&told[1])["state"], "sent");
}

#[test]
fn missing_templates_are_named_with_every_folder_searched() {
    let home = mail_home(DISCARD);
    home.email_templates("half", "s", "h", "t");
    std::fs::remove_file(home.path("templates/app/edx_ace/half/email/head.html")).expect("removed");
    let done =
        home.send(&[message("nothing", json!({})), message("half", json!({})), message("note", json!({}))]).code(1);
    let lines = done.lines();
    let nothing = email(&lines[0]);
    assert_eq!(
        (&nothing["state"], &nothing["absent"]),
        (&json!("template_error"), &json!(false)),
        "the name is unknown"
    );
    assert_text(&nothing["message"], "from_name.txt, subject.txt, body.html, head.html, body.txt are missing");
    let own = home.path("templates/app/edx_ace/nothing/email").canonicalize();
    assert!(own.is_err(), "there is no such folder");
    assert_text(&nothing["message"], "templates/app/edx_ace/nothing/email, ");
    let shared = crate::support::repository("templates").join("app/edx_ace/nothing/email");
    assert_text(&nothing["message"], &shared.display().to_string());
    let half = email(&lines[1]);
    assert_eq!((&half["state"], &half["absent"]), (&json!("template_error"), &json!(false)));
    assert_text(&half["message"], "app/edx_ace/half/email/head.html is missing");
    assert_eq!(email(&lines[2])["state"], "sent");
}

#[test]
fn a_template_that_fails_is_named_with_its_line() {
    let home = mail_home(DISCARD);
    home.email_templates("fails", "s", "<p>\n{{ name }}\n{{ user.address.street }}\n</p>", "t");
    home.email_templates("broken", "s", "h", "Hello\n{% if %}\n");
    let done =
        home.send(&[message("fails", json!({})), message("broken", json!({})), message("note", json!({}))]).code(1);
    let lines = done.lines();
    assert_eq!(email(&lines[0])["state"], "template_error");
    assert_text(&email(&lines[0])["message"], "app/edx_ace/fails/email/body.html:2: ");
    assert_eq!(email(&lines[1])["state"], "template_error");
    assert_text(&email(&lines[1])["message"], "app/edx_ace/broken/email/body.txt:2");
    assert_eq!(email(&lines[2])["state"], "sent");
}

#[test]
fn a_message_without_an_address_is_skipped() {
    let home = mail_home(DISCARD);
    let recipients = [json!({"lms_user_id": 7}), json!({"lms_user_id": "x", "email_address": " "}), Value::Null];
    let messages = recipients.map(|recipient| message("note", json!({"recipient": recipient})));
    for line in home.send(&messages).ok().lines() {
        assert_eq!(email(&line)["state"], "skipped");
        assert_eq!(email(&line)["reason"], "the recipient has no e-mail address");
    }
}

#[test]
fn an_expired_message_is_not_attempted() {
    let home = mail_home(DISCARD);
    // Without an offset, as in edx-ace's own tests: UTC.
    let done = home.send(&[message("note", json!({"expiration_time": "2020-01-02T03:04:05"}))]).code(1);
    assert_eq!((&done.email()["state"], &done.email()["attempts"]), (&json!("expired"), &json!(0)));
}

#[test]
fn a_send_can_be_limited_to_types_or_channels() {
    let home = mail_home(&format!("{DISCARD}\n[plugins.file_email]\ngrants = {{ outbox = 'out' }}\n"));
    home.plugin("file_email");
    std::fs::create_dir(home.path("out")).expect("made");
    let send = |limit: &str| {
        let run = home.ace(&["send", "--json", "--limit-to", limit, "-"]);
        run.input(message("note", json!({})).to_string()).run()
    };
    assert_eq!(send("email").ok().email()["channel"], "django_email");
    assert_eq!(send("file_email").ok().email()["channel"], "file_email");
    assert_eq!(home.list("out").len(), 1);
    let push = send("push");
    assert_eq!(push.email()["state"], "excluded");
    let unknown = send("emial").code(2);
    unknown.says("--limit-to: \"emial\" is neither a channel type nor a channel; did you mean \"email\"?");
    assert_eq!(unknown.stdout, "");
}

#[test]
fn a_missing_file_is_named() {
    mail_home(DISCARD).ace(&["send", "nowhere.json"]).run().code(2).says("nowhere.json");
}

/// A mail server sends a mail back with 2, and keeps it with 75.
#[test]
fn a_wrong_call_from_a_mail_server_loses_no_mail() {
    let home = Home::empty();
    let url = "http://127.0.0.1:9";
    home.ace(&["feedback", "import", "--sever", url, "-"]).run().code(75).says("--server");
    home.ace(&["--log", "ace=much", "feedback", "import", "--server", url, "-"]).run().code(75).says("ace=much");
    home.ace(&["feedback", "import", "--sever", url, "bounce.eml"]).run().code(2).says("--server");
    home.ace(&["feedback", "import", "--help", "-"]).run().ok();
}
