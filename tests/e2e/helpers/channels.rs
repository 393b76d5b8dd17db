//! The helpers for channels, in every language: credentials, signatures, and the outcomes of addresses. Each channel passes the same
//! cases.

use serde_json::{Value, json};

use super::answers_of;
use crate::support::message;

const MANIFEST: &str = "
[requests]
http = ['https://sms.example.com/v1/']
credentials = ['api']
";

/// A signature that OpenSSL made.
const SIGNATURE: &str = "69effcc59576d45ca4b59a3647cc8c487fead327689e8449cda2e20e8705167d";

fn case(context: &Value, answer: &Value, expect: Value) -> Value {
    let mut all = json!({"data": "what the provider signed", "signature": SIGNATURE});
    let fields = context.as_object().into_iter().flatten();
    fields.for_each(|(key, value)| all[key] = value.clone());
    let request = json!({
        "method": "POST",
        "url": "https://sms.example.com/v1/send",
        "credential": "api",
        "body": {"data": "what the provider signed"},
    });
    let host = if answer.is_null() { json!([]) } else { json!([{"http": {"request": request, "answer": answer}}]) };
    json!({
        "message": message("note", json!({ "context": all })),
        "credentials": {"api": "the shared secret"},
        "host": host,
        "expect": expect,
    })
}

fn cases() -> Vec<Value> {
    let noted = json!({"kind": "phone", "address": "+1 \"ü\" \\ 😀", "outcome": "sent", "provider_id": "p-1"});
    let sent = json!({"sent": {"provider_id": "202"}, "outcomes": [noted]});
    let plain = |answer: Value, expect: Value| case(&json!({}), &answer, expect);
    let recoverable = |text: &str| json!({"recoverable": {"message": text}});
    let mut held = sent.clone();
    held["hold"] = json!({"until": "2026-01-01T13:00:00Z", "reason": "the quota is used up"});
    let mut unlimited = sent.clone();
    unlimited["hold"] = json!({"reason": "the quota is used up"});
    let mut again = case(&json!({}), &json!({"status": 202}), sent.clone());
    again["noted"] = json!([
        {"kind": "push-token", "address": "a\n\u{1f600}", "outcome": "retry", "provider_id": "p\"7", "code": "UNREGISTERED"},
        {"kind": "push-token", "address": "b", "outcome": "sent"},
    ]);
    again["expect"]["outcomes"] = json!([
        {"kind": "push-token", "address": "again a\n\u{1f600}", "outcome": "failed", "provider_id": "UNREGISTERED", "code": "retry p\"7"},
        {"kind": "push-token", "address": "again b", "outcome": "failed", "code": "sent -"},
        noted,
    ]);
    vec![
        plain(json!({"status": 202}), sent),
        case(&json!({"until": 1_767_272_400_000_u64}), &json!({"status": 202}), held),
        case(&json!({"until": 0}), &json!({"status": 202}), unlimited),
        again,
        plain(json!({"status": 503}), recoverable("https://sms.example.com/v1/send answered 503")),
        plain(json!({"status": 404}), json!({"fatal": "https://sms.example.com/v1/send answered 404"})),
        plain(json!({"error": "rejected"}), recoverable("the credential is rejected: the case says so")),
        plain(json!({"error": "unavailable"}), recoverable("no token: the case says so")),
        plain(json!({"error": "timed-out"}), recoverable("http: no answer in time")),
        case(&json!({"signature": SIGNATURE.replace("69", "68")}), &Value::Null, json!({"fatal": "forged"})),
    ]
}

#[test]
fn in_javascript_they_do_what_they_document() {
    answers_of("channel", "js", "mine.js", include_str!("channel.js"), MANIFEST, &cases());
}

#[test]
fn in_typescript_they_do_what_they_document() {
    answers_of("channel", "ts", "mine.ts", include_str!("channel.ts"), MANIFEST, &cases());
}

#[test]
fn in_python_they_do_what_they_document() {
    answers_of("channel", "python", "mine.py", include_str!("channel.py"), MANIFEST, &cases());
}

#[test]
fn in_c_they_do_what_they_document() {
    answers_of("channel", "c", "mine.c", include_str!("channel.c"), MANIFEST, &cases());
}

#[test]
fn in_go_they_do_what_they_document() {
    answers_of("channel", "go", "main.go", include_str!("channel.go"), MANIFEST, &cases());
}
