//! `apns` against APNs on loopback, which speaks HTTP/2 alone.

use serde_json::{Value, json};

use super::notification_home;
use super::outcomes::{End, Subject};
use super::provider::{Answer, Provider, Seen};
use crate::support::{Home, channel, message, repository};

const DEVICES: [&str; 5] = ["d1", "d2", "d3", "d4", "d5"];

fn home(provider: &Provider) -> Home {
    notification_home(provider, "push", plugin)
}

/// Adds the plugin to a home, and returns its tables.
pub fn plugin(home: &Home, provider: &Provider) -> String {
    let url = provider.url();
    home.plugin("apns");
    let key = std::fs::read(repository("host/ace/src/credentials/tests/ec.pem")).expect("a file");
    home.file("AuthKey.p8", key);
    format!(
        "[credentials.ios]\nkind = 'apns'\nurls = ['{url}/3/device/']\nkey = {{ file = 'AuthKey.p8' }}\n\
         key-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'\n\n\
         [plugins.apns]\ngrants = {{ http = ['{url}/3/device/'] }}\ncredentials = {{ apns = 'ios' }}\n\
         config = {{ topic = 'org.example.campus', base-url = '{url}', timeout-seconds = 1 }}\n\n"
    )
}

pub fn accepted(n: u32) -> Answer {
    Answer::new(200, "").with("apns-id", format!("id-{n}"))
}

fn refused(status: u16, reason: &str) -> Answer {
    Answer::new(status, json!({ "reason": reason }).to_string())
}

fn note(devices: &[&str], fields: Value) -> Value {
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"apns-token": devices}});
    let mut note = message("note", json!({"recipient": recipient, "context": {"who": "Zoë"}}));
    note.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    note
}

#[test]
fn four_of_five_devices_get_it_over_one_connection() {
    let busy = Answer::new(503, r#"{"reason":"ServiceUnavailable"}"#).with("Retry-After", "1");
    let gone = Answer::new(410, r#"{"reason":"Unregistered","timestamp":1772366300000}"#);
    let provider = Provider::start_http2([accepted(1), gone, accepted(3), busy, accepted(5), accepted(4)]);
    let home = home(&provider);
    let uuid = "0b7f0a52-6f4c-4c0c-9f59-6a1f3f0a3a01";
    let fields = json!({"uuid": uuid, "options": {"replace": true, "transactional": true}});
    let done = home.ace(&["send", "--json", "-"]).input(note(&DEVICES, fields).to_string()).run().ok();
    let push = channel(&done.lines()[0], "push").clone();
    assert_eq!((&push["state"], &push["provider_id"]), (&json!("sent"), &json!("id-4")), "{push:#}");
    for (n, outcome) in ["sent", "dropped", "sent", "sent", "sent"].iter().enumerate() {
        let address = &push["addresses"][n];
        assert_eq!((&address["address"], &address["outcome"]), (&json!(DEVICES[n]), &json!(outcome)), "{push:#}");
    }
    assert_eq!(push["addresses"][1]["code"], "Unregistered");

    let seen = provider.seen();
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    let expected = ["d1", "d2", "d3", "d4", "d5", "d4"].map(|device| format!("POST /3/device/{device} HTTP/2"));
    assert_eq!(lines, expected, "the retry is for one alone");
    assert_eq!(provider.connections(), 1);
    assert_eq!(
        seen[0].json(),
        json!({"aps": {"alert": {"title": "A reply", "body": "Zoë answered"}, "sound": "default"}})
    );
    for (name, value) in [
        ("apns-topic", "org.example.campus"),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-collapse-id", uuid),
    ] {
        assert_eq!(seen[0].header(name), Some(value), "{name}");
    }
    assert!(seen.iter().all(|request| request.header("authorization") == seen[0].header("authorization")), "one token");
    let token = token(&seen[0]);
    assert!(!done.stdout.contains(token) && !done.stderr.contains(token), "the token shows");
}

/// The provider token of a request. Its claims and its signature are tested where tokens are made.
pub fn token(seen: &Seen) -> &str {
    let authorization = seen.header("authorization").expect("a token");
    let token = authorization.strip_prefix("bearer ").expect("in lower case, as Apple has it");
    assert!(token.starts_with("eyJ") && token.split('.').count() == 3, "a JWT");
    token
}

#[test]
fn every_response_of_apns_has_the_right_outcome() {
    let subject = Subject {
        start: &|script| Provider::start_http2(script),
        home: &home,
        channel_type: "push",
        message: &|_| note(&["d1"], json!({})),
        secrets: &["bearer ey"],
    };
    let mut cases = vec![
        (accepted(1), End::Sent(Some("id-1")), ""),
        (Answer::new(200, "<html>ok</html>"), End::Sent(None), ""),
        (refused(400, "BadDeviceToken"), End::Skipped, "1 dropped"),
        (refused(400, "DeviceTokenNotForTopic"), End::Skipped, "1 dropped"),
        (refused(410, "Unregistered"), End::Skipped, "1 dropped"),
        (refused(410, "ExpiredToken"), End::Skipped, "1 dropped"),
        (refused(400, "BadPriority"), End::Failed, "APNs answered 400 BadPriority"),
        (refused(404, "BadPath"), End::Failed, "APNs answered 404 BadPath"),
        (refused(405, "MethodNotAllowed"), End::Failed, "APNs answered 405 MethodNotAllowed"),
        (refused(413, "PayloadTooLarge"), End::Failed, "APNs answered 413 PayloadTooLarge"),
        (Answer::new(400, "<html>\nBad"), End::Failed, "APNs answered 400: <html> Bad"),
        (refused(400, "IdleTimeout"), End::Retry(8, 12), "APNs answered 400 IdleTimeout"),
        (refused(429, "TooManyRequests"), End::Retry(58, 62), "APNs answered 429 TooManyRequests"),
        (refused(429, "TooManyRequests").with("Retry-After", "70"), End::Retry(70, 70), "429"),
        (refused(503, "Shutdown").with("Retry-After", "70"), End::Retry(70, 70), "503 Shutdown"),
        (Answer::Silence, End::Retry(8, 12), "http: "),
        (Answer::Cut, End::Retry(8, 12), "http: "),
        (Answer::CutMidway, End::Retry(8, 12), "http: "),
    ];
    for (status, reason) in [
        (400, "BadTopic"),
        (403, "BadCertificateEnvironment"),
        (403, "ExpiredProviderToken"),
        (403, "InvalidProviderToken"),
        (429, "TooManyProviderTokenUpdates"),
    ] {
        cases.push((refused(status, reason), End::Held(None), reason));
    }
    cases.push((Answer::new(302, "").with("Location", "/3/other"), End::Held(None), "a redirect to /3/other"));
    cases.push((refused(500, "InternalServerError"), End::Down, "500 InternalServerError"));
    cases.push((refused(503, "ServiceUnavailable"), End::Down, "503 ServiceUnavailable"));
    cases.push((Answer::new(502, "<html>Bad Gateway</html>"), End::Down, "502: <html>Bad Gateway</html>"));
    subject.check(cases);
    // Before APNs has accepted a token.
    subject.check(vec![
        (refused(400, "BadDeviceToken"), End::Failed, "api.sandbox.push.apple.com"),
        (refused(400, "DeviceTokenNotForTopic"), End::Failed, "is the bundle id of the app"),
    ]);
}

#[test]
fn a_recipient_gets_it_over_the_channel_of_the_devices() {
    let (apple, google) = (Provider::start_http2([accepted(1)]), Provider::start([]));
    let home = home(&apple);
    home.plugin("push_notification");
    let toml = home.read("ace.toml");
    let routing = "[routing]\nlisted = { push = ['push_notification', 'apns'] }\n\n";
    let config =
        format!("[plugins.push_notification]\nconfig = {{ project-id = 'p', base-url = '{}' }}\n", google.url());
    home.file("ace.toml", format!("{}{config}", toml.replacen("[http]", &format!("{routing}[http]"), 1)));
    let done = home.ace(&["send", "--json", "-"]).input(note(&["d1"], json!({})).to_string()).run().ok();
    let push = channel(&done.lines()[0], "push").clone();
    assert_eq!((&push["channel"], &push["rule"]), (&json!("apns"), &json!("overrides_delivery")), "{push:#}");
    assert_eq!((&push["state"], google.seen().len()), (&json!("sent"), 0));
}
