//! Events to webhooks and to listeners.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{LISTEN, Server, home, note};
use crate::http_channels::provider::{Answer, Provider};
use crate::support::wait_for;

#[tokio::test]
async fn a_webhook_is_called_signed_and_again_until_it_answers() {
    let provider = Provider::start(vec![Answer::new(500, ""), Answer::Cut, Answer::new(204, "")]);
    let toml = format!(
        "{LISTEN}[webhooks.audit]\nurl = '{}/hook'\nca-file = 'ca.pem'\nsecret = {{ env = 'HOOK_SECRET' }}\nevents = ['message.sent']\n",
        provider.url(),
    );
    let home = home(&toml);
    home.file("ca.pem", &provider.ca);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let server = Server::of(home.ace(&["--log", "info", "serve"]).env("HOOK_SECRET", secret));
    let context = json!({"context": {"text": "secret-link"}});
    server.send(&note(1, context)).await;
    let first = wait_for("the first call", || provider.seen().first().cloned());
    let event: Value = first.json();
    assert_eq!((&event["type"], &event["data"]["name"]), (&json!("message.sent"), &json!("note")));
    assert_eq!(event["data"]["recipient"], json!({"user_id": 7, "email": "zoe@learner.example"}));
    assert_eq!(event["data"]["channels"][0]["channel"], "django_email");
    assert!(!event.to_string().contains("secret-link"), "{event}");
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, first.header(name).expect("it is there").parse().expect("a value"));
    }
    let verifier = Webhook::new(secret).expect("a secret");
    verifier.verify(first.body.as_bytes(), &headers).expect("the signature holds");
    assert!(verifier.verify(b"{}", &headers).is_err());
    let calls = wait_for("the third call", || Some(provider.seen()).filter(|seen| seen.len() >= 3));
    let ids: Vec<_> = calls.iter().map(|call| call.header("webhook-id").map(str::to_owned)).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one id, however often: {ids:?}");
    let (_, log) = server.stop();
    assert!(!log.contains(secret) && !log.contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "{log}");
}

#[tokio::test]
async fn a_listener_hears_of_every_message() {
    let server = Server::start(&home(""));
    let stream = server.request(Method::GET, "/v1/events").send().await.expect("answered");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut chunks = stream.bytes_stream();
    server.send(&note(1, json!({}))).await;
    let mut heard = String::new();
    while !heard.contains("\n\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), chunks.next()).await.expect("in time");
        heard.push_str(&String::from_utf8_lossy(&chunk.expect("more").expect("sound")));
    }
    assert!(heard.contains("event: message.sent\n"), "{heard}");
    let data = heard.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let event: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(event["data"]["uuid"], json!(uuid::Uuid::from_u128(1)));
}
