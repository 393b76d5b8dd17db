//! `webhook` against receivers on loopback, which verify what they get as Standard Webhooks has it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use super::outcomes::{End, Subject};
use super::provider::{Answer, Provider, Seen};
use crate::support::{Home, channel, message};

const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A home with the channel, granted for these receivers.
fn home(receivers: &[&Provider], toml: &str) -> Home {
    home_granted(receivers, &[], toml)
}

/// The same, granted for further URLs.
pub fn home_granted(receivers: &[&Provider], others: &[&str], toml: &str) -> Home {
    let home = Home::empty();
    home.plugin("webhook");
    // Each receiver has a CA of its own.
    home.file("ca.pem", receivers.iter().map(|receiver| receiver.ca.as_str()).collect::<String>());
    home.file("key", KEY);
    let own = receivers.iter().map(|receiver| format!("{}/", receiver.url()));
    let urls: Vec<String> = own.chain(others.iter().map(|url| (*url).to_owned())).collect();
    home.config(&format!(
        "[http]\nca-file = 'ca.pem'\n\n\
         [credentials.webhooks]\nkind = 'hmac'\nurls = {urls:?}\nkey = {{ file = 'key' }}\nkey-encoding = 'base64'\n\
         header = 'webhook-signature'\nprefix = 'v1,'\nencoding = 'base64'\n\
         content = '{{header:webhook-id}}.{{header:webhook-timestamp}}.{{body}}'\nderive = 'url'\n\n\
         [plugins.webhook]\ngrants = {{ http = {urls:?} }}\ncredentials = {{ webhook = 'webhooks' }}\n\
         config = {{ timeout-seconds = 1 }}\n\n{toml}"
    ));
    let body = r#"{"type": "note", "data": {"who": {{ who | json_encode }}, "tags": {{ tags | json_encode }}}}"#;
    home.file("templates/app/edx_ace/note/webhook/body.json", body);
    home
}

pub fn note(urls: &[String]) -> Value {
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"webhook": urls}});
    message("note", json!({"recipient": recipient, "context": {"who": "Zoë \"Z\" <&>", "tags": [1, null, "a"]}}))
}

/// The verifier of Standard Webhooks with the key of this URL.
fn verifier(url: &str) -> standardwebhooks::Webhook {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).expect("Base64"));
    let own = BASE64_STANDARD.encode(hmac::sign(&key, url.as_bytes()));
    standardwebhooks::Webhook::new(&format!("whsec_{own}")).expect("a key")
}

fn is_signed(seen: &Seen, url: &str) -> bool {
    let headers = seen.headers.iter().map(|(name, value)| {
        (name.parse::<reqwest::header::HeaderName>().expect("a name"), value.parse().expect("a value"))
    });
    verifier(url).verify(seen.body.as_bytes(), &headers.collect::<reqwest::header::HeaderMap>()).is_ok()
}

#[test]
fn each_receiver_has_a_key_of_its_own_and_gets_the_message_once() {
    let busy = Answer::new(503, "").with("Retry-After", "1");
    let (first, second) = (Provider::start([busy, Answer::new(200, "")]), Provider::start([Answer::new(204, "")]));
    let gone = Provider::start([Answer::new(410, "")]);
    let receivers = [&first, &second, &gone];
    let urls = receivers.map(|receiver| format!("{}/hooks?a=b", receiver.url()));
    let home = home(&receivers, "");
    let done = home.ace(&["send", "--json", "-"]).input(note(&urls).to_string()).run().ok();
    let sent = channel(&done.lines()[0], "webhook").clone();
    assert_eq!((&sent["state"], &sent["attempts"]), (&json!("sent"), &json!(2)), "{sent:#}");
    let outcomes: Vec<&Value> = (0..3).map(|n| &sent["addresses"][n]["outcome"]).collect();
    assert_eq!(outcomes, ["sent", "sent", "dropped"], "{sent:#}");
    let seen = receivers.map(Provider::seen);
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1], "only the first is tried again");
    let expected = json!({"type": "note", "data": {"who": "Zoë \"Z\" <&>", "tags": [1, null, "a"]}});
    let id = seen[0][0].header("webhook-id").expect("an id");
    assert_eq!(sent["provider_id"], id);
    for (requests, url) in seen.iter().zip(&urls) {
        for request in requests {
            assert_eq!((request.line.as_str(), request.header("webhook-id")), ("POST /hooks?a=b HTTP/1.1", Some(id)));
            assert_eq!((request.header("content-type"), request.json()), (Some("application/json"), expected.clone()));
            for other in &urls {
                assert_eq!(is_signed(request, other), url == other, "{url} with the key of {other}");
            }
        }
    }
    let mut changed = seen[1][0].clone();
    changed.body = changed.body.replace("note", "nose");
    assert!(!is_signed(&changed, &urls[1]));
    assert!(!done.stdout.contains(KEY) && !done.stderr.contains(KEY));
}

#[test]
fn every_answer_of_a_receiver_has_the_right_outcome() {
    let subject = Subject {
        start: &|script| Provider::start(script),
        home: &|receiver| home(&[receiver], ""),
        channel_type: "webhook",
        message: &|receiver| {
            let mut note = note(&[format!("{}/hooks", receiver.url())]);
            note["uuid"] = json!(uuid::Uuid::from_u128(7));
            note
        },
        secrets: &[KEY],
    };
    const ID: Option<&str> = Some("msg_00000000-0000-0000-0000-000000000007");
    let busy = || Answer::new(429, "slow\n down");
    let date = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(80)).strftime("%a, %d %b %Y %H:%M:%S GMT");
    subject.check(vec![
        (Answer::new(200, "<html>ok</html>"), End::Sent(ID), ""),
        (Answer::new(202, ""), End::Sent(ID), ""),
        (Answer::new(204, ""), End::Sent(ID), ""),
        (Answer::new(410, "gone"), End::Skipped, "no webhook whose receiver wants messages"),
        (
            Answer::new(302, "").with("Location", "/other"),
            End::Failed,
            "a redirect to /other: redirects are not followed",
        ),
        (Answer::new(307, "").with("Location", "https://b.example/"), End::Failed, "a redirect to https://b.example/"),
        (Answer::new(400, "{\"error\":\"no\"}"), End::Retry(8, 12), "the receiver answered 400"),
        (Answer::new(404, "<html>no</html>"), End::Retry(8, 12), "the receiver answered 404: <html>no</html>"),
        (busy(), End::Retry(8, 12), "the receiver answered 429: slow down"),
        (busy().with("Retry-After", "70"), End::Retry(70, 70), "429"),
        (busy().with("Retry-After", date.to_string()), End::Retry(20, 80), "429"),
        (Answer::new(401, ""), End::Down, "HTTP 401"),
        (Answer::new(500, ""), End::Down, "the receiver answered 500"),
        (Answer::new(502, "<html>Bad gateway</html>"), End::Down, "the receiver answered 502"),
        (Answer::new(503, "").with("Retry-After", "70"), End::Retry(70, 70), "the receiver answered 503"),
        (Answer::Silence, End::RetryByTheHost, "http: "),
        (Answer::Cut, End::RetryByTheHost, "http: "),
        (Answer::CutMidway, End::RetryByTheHost, "http: "),
    ]);
}

#[test]
fn a_receiver_that_does_not_answer_may_have_got_it() {
    let receiver = Provider::start([Answer::Silence]);
    let home = home(&[&receiver], "[channels.webhook]\ndelivery = 'at-most-once'\n");
    let url = format!("{}/hooks", receiver.url());
    let done = home.ace(&["send", "--json", "-"]).input(note(&[url]).to_string()).run();
    assert_eq!(channel(&done.lines()[0], "webhook")["state"], "maybe_sent", "{done:?}");
    assert_eq!(receiver.seen().len(), 1);
}

#[test]
fn a_receiver_that_does_not_answer_keeps_the_message_from_no_other() {
    let silent = Provider::start(vec![Answer::Silence; 9]);
    let good = [Provider::start([Answer::new(200, "")]), Provider::start([Answer::new(200, "")])];
    let receivers = [&silent, &good[0], &good[1]];
    let home = home(&receivers, "");
    let urls = receivers.map(|receiver| format!("{}/hooks", receiver.url()));
    let done = home.ace(&["send", "--json", "--max-delay", "5", "-"]).input(note(&urls).to_string()).run();
    let sent = channel(&done.lines()[0], "webhook").clone();
    let outcomes: Vec<&Value> = (0..3).map(|n| &sent["addresses"][n]["outcome"]).collect();
    assert_eq!(outcomes, ["retry", "sent", "sent"], "{sent:#}");
    assert_eq!(good.map(|receiver| receiver.seen().len()), [1, 1]);
}

#[test]
fn one_url_that_is_refused_does_not_stop_the_others() {
    let receiver = Provider::start([Answer::new(200, "")]);
    let home = home(&[&receiver], "");
    let urls = ["http://plain.example/", "https://not-granted.example/", "https://10.0.0.1/hooks", &receiver.url()];
    let done = home.ace(&["send", "--json", "-"]).input(note(&urls.map(str::to_owned)).to_string()).run().ok();
    let sent = channel(&done.lines()[0], "webhook").clone();
    let of = |key: &str| {
        sent["addresses"].as_array().expect("outcomes").iter().map(|one| one[key].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (&sent["state"], of("outcome")),
        (&json!("sent"), ["failed", "failed", "failed", "sent"].map(Value::from).into())
    );
    assert_eq!(of("code")[..3], ["INVALID_URL", "DENIED", "DENIED"].map(Value::from), "{sent:#}");
}
