//! `push_notification` against FCM on loopback.

use serde_json::{Value, json};

use super::notification_home;
use super::provider::{Answer, Provider};
use crate::support::{Home, assert_text, channel, message, repository};

const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";

/// A home with the channel against this provider, whose script begins with a token.
fn home(provider: &Provider) -> Home {
    notification_home(provider, "push", plugin)
}

/// Adds the plugin to a home, and returns its tables.
pub fn plugin(home: &Home, provider: &Provider) -> String {
    let url = provider.url();
    home.plugin("push_notification");
    let account = std::fs::read_to_string(repository("host/ace/src/credentials/tests/service_account.json"));
    let mut account: Value = serde_json::from_str(&account.expect("a file")).expect("JSON");
    account["token_uri"] = format!("{url}/token").into();
    home.file("account.json", account.to_string());
    format!(
        "[credentials.firebase]\nkind = 'google-service-account'\nurls = ['{url}/v1/']\nkey = {{ file = 'account.json' }}\n\n\
         [plugins.push_notification]\ngrants = {{ http = ['{url}/v1/'] }}\ncredentials = {{ fcm = 'firebase' }}\n\
         config = {{ project-id = 'campus-1', base-url = '{url}' }}\n\n"
    )
}

pub fn token(n: u32) -> Answer {
    Answer::new(
        200,
        json!({"access_token": format!("ya29.{n}"), "expires_in": 3599, "token_type": "Bearer"}).to_string(),
    )
}

pub fn accepted(n: u32) -> Answer {
    Answer::new(200, json!({"name": format!("projects/campus-1/messages/{n}")}).to_string())
}

pub fn refused(status: u16, text: &str, code: &str) -> Answer {
    let details = json!([{"@type": FCM_ERROR, "errorCode": code}]);
    let body = json!({"error": {"code": status, "message": "no", "status": text, "details": details}});
    Answer::new(status, body.to_string())
}

fn note(devices: &[&str]) -> Value {
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"push-token": devices}});
    message("note", json!({"recipient": recipient, "context": {"who": "Zoë"}}))
}

#[test]
fn four_of_five_devices_get_it_and_the_dead_one_is_reported() {
    let busy = Answer::new(503, "<html>busy</html>").with("Retry-After", "1");
    let script =
        [token(1), accepted(1), refused(404, "NOT_FOUND", "UNREGISTERED"), accepted(3), busy, accepted(5), accepted(4)];
    let provider = Provider::start(script);
    let home = home(&provider);
    let done = home.ace(&["send", "--json", "-"]).input(note(&["d1", "d2", "d3", "d4", "d5"]).to_string()).run().ok();
    let push = channel(&done.lines()[0], "push").clone();
    assert_eq!(push["state"], "sent", "{push:#}");
    let outcome = |n: usize| (push["addresses"][n]["address"].clone(), push["addresses"][n]["outcome"].clone());
    for (n, expected) in ["sent", "dropped", "sent", "sent", "sent"].iter().enumerate() {
        assert_eq!(outcome(n), (json!(format!("d{}", n + 1)), json!(expected)), "{push:#}");
    }
    let seen = provider.seen();
    let devices: Vec<String> = seen[1..].iter().map(|seen| seen.json()["message"]["token"].to_string()).collect();
    assert_eq!(devices, ["\"d1\"", "\"d2\"", "\"d3\"", "\"d4\"", "\"d5\"", "\"d4\""], "the retry is for one alone");
    assert!(seen[0].body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="));
    assert_eq!(seen[1].line, "POST /v1/projects/campus-1/messages:send HTTP/1.1");
    assert_eq!(seen[1].header("authorization"), Some("Bearer ya29.1"));
    assert_eq!(
        seen[1].json()["message"]["android"]["notification"],
        json!({"title": "A reply", "body": "Zoë answered"})
    );
    assert!(!done.stdout.contains("ya29") && !done.stderr.contains("ya29"));
}

#[test]
fn a_fault_of_the_project_holds_the_channel() {
    let provider = Provider::start([token(1), refused(403, "PERMISSION_DENIED", "PERMISSION_DENIED")]);
    let home = home(&provider);
    let lines = [note(&["d1", "d2"]), note(&["d3"])].map(|note| note.to_string());
    let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
    let done = home.ace(&arguments).input(lines.join("\n")).run();
    for line in done.lines() {
        let push = channel(&line, "push");
        assert_eq!((&push["state"], &push["attempts"]), (&json!("retry"), &json!(0)), "no attempt is used up");
        assert_text(&push["error"], "FCM answered 403 PERMISSION_DENIED");
    }
    assert_eq!(provider.seen().len(), 2, "a token, and one request");
}
