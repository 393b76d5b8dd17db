//! `web_push` against a push service on loopback.

use std::process::Command;

use serde_json::{Value, json};

use super::notification_home;
use super::outcomes::{End, Subject};
use super::provider::{Answer, Provider};
use crate::support::{Home, assert_text, channel, message, repository};

const LOCATION: &str = "https://push.example/m/1";

fn home(provider: &Provider) -> Home {
    notification_home(provider, "web_push", plugin)
}

/// Adds the plugin to a home, and returns its tables.
fn plugin(home: &Home, provider: &Provider) -> String {
    let url = provider.url();
    home.plugin("web_push");
    let key = std::fs::read(repository("host/ace/src/credentials/tests/ec.pem")).expect("a file");
    home.file("vapid.pem", key);
    format!(
        "[credentials.web]\nkind = 'vapid'\nurls = ['{url}/']\nkey = {{ file = 'vapid.pem' }}\nsubject = 'mailto:push@campus.example'\n\n\
         [plugins.web_push]\ngrants = {{ http = ['{url}/'] }}\ncredentials = {{ vapid = 'web' }}\n\
         config = {{ timeout-seconds = 1 }}\n"
    )
}

/// The recorded browser, with another endpoint.
fn subscription(endpoint: &str) -> String {
    let text = std::fs::read_to_string(repository("tests/fixtures/vendors/web_push.json")).expect("a file");
    let mut subscription = serde_json::from_str::<Value>(&text).expect("JSON")["subscription"].take();
    subscription["endpoint"] = endpoint.into();
    subscription.to_string()
}

fn note(endpoints: &[String], fields: Value) -> Value {
    let subscriptions: Vec<String> = endpoints.iter().map(|endpoint| subscription(endpoint)).collect();
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"web-push": subscriptions}});
    let mut note = message("note", json!({"recipient": recipient, "context": {"who": "Zoë"}}));
    note.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    note
}

fn accepted() -> Answer {
    Answer::new(201, "").with("Location", LOCATION)
}

/// What the browser reads, by http-ece.
fn decrypted(home: &Home, body: &[u8]) -> Value {
    let file = home.file("body", body);
    let mut python = Command::new(repository("target/venv").join("bin/python"));
    let output = python.arg(repository("tests/e2e/web_push_decrypt.py")).arg(file).output().expect("Python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

#[test]
fn browsers_read_what_was_encrypted_for_them() {
    let busy = Answer::new(503, "<html>busy</html>").with("Retry-After", "1");
    let provider = Provider::start([accepted(), Answer::new(410, "gone"), busy, accepted()]);
    let home = home(&provider);
    let endpoints = [1, 2, 3].map(|n| format!("{}/send/{n}", provider.url()));
    let fields = json!({"options": {"replace": "thread 7", "transactional": true}});
    let done = home.ace(&["send", "--json", "-"]).input(note(&endpoints, fields).to_string()).run().ok();
    let push = channel(&done.lines()[0], "web_push").clone();
    assert_eq!((&push["state"], &push["provider_id"]), (&json!("sent"), &json!(LOCATION)), "{push:#}");
    let outcomes: Vec<&Value> = (0..3).map(|n| &push["addresses"][n]["outcome"]).collect();
    assert_eq!(outcomes, ["sent", "dropped", "sent"], "{push:#}");

    let seen = provider.seen();
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(lines, ["1", "2", "3", "3"].map(|n| format!("POST /send/{n} HTTP/1.1")), "the retry is for one alone");
    let expected = json!({"title": "A reply", "body": "Zoë answered", "tag": "thread 7"});
    for request in &seen {
        assert_eq!(decrypted(&home, &request.bytes), expected);
        assert_eq!((request.header("content-encoding"), request.header("urgency")), (Some("aes128gcm"), Some("high")));
        assert_eq!(request.header("topic"), Some("UQ7EKfDlL_ohi35qZ5cYo5Jfxenbg7aA"));
    }
    assert_ne!(seen[2].bytes, seen[3].bytes, "other keys each time");
    let token = seen[0].header("authorization").and_then(|value| value.strip_prefix("vapid t=")).expect("a token");
    assert!(!done.stdout.contains(token) && !done.stderr.contains(token));
}

/// Three silent ones would take up the time of a call.
#[test]
fn subscriptions_that_do_not_answer_keep_the_message_from_no_other() {
    let silence = || Answer::Silence;
    let first = [accepted(), silence(), silence(), silence(), accepted()];
    let provider = Provider::start(first.into_iter().chain((0..9).map(|_| silence())));
    let home = home(&provider);
    let endpoints = [1, 2, 3, 4, 5].map(|n| format!("{}/send/{n}", provider.url()));
    let note = note(&endpoints, json!({})).to_string();
    let done = home.ace(&["send", "--json", "--max-delay", "5", "-"]).input(note).run();
    let push = channel(&done.lines()[0], "web_push").clone();
    let outcomes: Vec<&Value> = (0..5).map(|n| &push["addresses"][n]["outcome"]).collect();
    assert_eq!(outcomes, ["sent", "retry", "retry", "retry", "sent"], "{push:#}");
}

#[test]
fn every_response_of_a_push_service_has_the_right_outcome() {
    // The messages are the same for each provider, whose port is another each time.
    let subject = |provider: &Provider| note(&[format!("{}/send/1", provider.url())], json!({}));
    let subject = Subject {
        start: &|script| Provider::start(script),
        home: &home,
        channel_type: "web_push",
        message: &subject,
        secrets: &["vapid t=ey"],
    };
    subject.check(vec![
        (accepted(), End::Sent(Some(LOCATION)), ""),
        (Answer::new(202, "<html>ok</html>"), End::Sent(None), ""),
        (Answer::new(404, ""), End::Skipped, "1 dropped"),
        (Answer::new(410, "{\"errno\": 106}"), End::Skipped, "1 dropped"),
        (Answer::new(400, "{\"code\": 400}"), End::Failed, "the push service answered 400: {\\\"code\\\": 400}"),
        (Answer::new(400, "<html>\nBad"), End::Failed, "the push service answered 400: <html> Bad"),
        (Answer::new(403, "no"), End::Failed, "made with another public key"),
        (Answer::new(413, ""), End::Failed, "the push service answered 413"),
        (Answer::new(307, "").with("Location", "/other"), End::Failed, "the push service answered 307"),
        (Answer::new(429, "slow"), End::Retry(58, 62), "the push service answered 429: slow"),
        (Answer::new(429, "").with("Retry-After", "70"), End::Retry(70, 70), "429"),
        (Answer::new(503, "").with("Retry-After", "70"), End::Retry(70, 70), "503"),
        (Answer::new(401, ""), End::Down, "the push service answered 401"),
        (Answer::new(500, ""), End::Down, "the push service answered 500"),
        (Answer::new(502, "<html>Bad Gateway</html>"), End::Down, "502: <html>Bad Gateway</html>"),
        (Answer::Silence, End::Retry(8, 12), "http: "),
        (Answer::Cut, End::Retry(8, 12), "http: "),
        (Answer::CutMidway, End::Retry(8, 12), "http: "),
    ]);
}

#[test]
fn an_endpoint_without_a_grant_does_not_concern_the_others() {
    let provider = Provider::start([accepted()]);
    let endpoints = ["https://elsewhere.example/send/1".to_owned(), format!("{}/send/2", provider.url())];
    let home = home(&provider);
    let done = home.ace(&["send", "--json", "-"]).input(note(&endpoints, json!({})).to_string()).run().ok();
    let push = channel(&done.lines()[0], "web_push").clone();
    assert_eq!(push["state"], "sent", "{push:#}");
    assert_text(&push["addresses"][0]["address"], "elsewhere.example");
    assert_eq!(
        (&push["addresses"][0]["outcome"], &push["addresses"][0]["code"]),
        (&json!("failed"), &json!("NOT_SENT"))
    );
    assert_eq!((&push["addresses"][1]["outcome"], provider.seen().len()), (&json!("sent"), 1));
}
