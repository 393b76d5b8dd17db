//! Events: webhooks and the event stream.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{LISTEN, Server, home, note};
use crate::http_channels::provider::{Answer, Provider};
use crate::support::wait_for;

#[tokio::test]
async fn a_delivery_is_signed_and_retried_until_the_webhook_accepts_it() {
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
async fn a_delivery_is_retried_after_a_second_or_as_retry_after_says() {
    let busy = Answer::new(429, "").with("Retry-After", "3");
    let provider = Provider::start(vec![Answer::new(500, ""), busy, Answer::new(204, ""), Answer::new(204, "")]);
    let toml = format!(
        "{LISTEN}[webhooks.audit]\nurl = '{}/hook'\nca-file = 'ca.pem'\nsecret = {{ env = 'HOOK_SECRET' }}\nevents = ['message.sent']\n",
        provider.url(),
    );
    let home = home(&toml);
    home.file("ca.pem", &provider.ca);
    let server = Server::of(home.ace(&["--log", "info", "serve"]).env("HOOK_SECRET", "not-so-secret"));
    server.send(&note(1, json!({}))).await;
    let arrivals = async |count: usize| {
        let from = std::time::Instant::now();
        wait_for("the calls", || Some(provider.seen()).filter(|seen| seen.len() >= count));
        from.elapsed().as_secs_f64()
    };
    arrivals(1).await;
    let first = arrivals(2).await;
    assert!((0.5..3.0).contains(&first), "1 s after the first: {first}");
    // No other event is delivered before.
    server.send(&note(2, json!({}))).await;
    let second = arrivals(3).await;
    assert!((2.0..6.0).contains(&second), "3 s, as it asked: {second}");
    arrivals(4).await;
    let ids: std::collections::BTreeSet<_> =
        provider.seen().iter().filter_map(|call| call.header("webhook-id").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 2, "both events are delivered");
}

/// A client of the event stream.
pub(super) struct Listener {
    chunks: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    heard: String,
}

/// A received event: id, kind and data.
#[derive(Debug)]
pub(super) struct Heard {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

impl Listener {
    /// Connects. `last` is the id of the last event it received.
    pub async fn connect(server: &Server, last: Option<&str>) -> Listener {
        let mut request = server.request(Method::GET, "/v1/events");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.send().await.expect("answered");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Listener { chunks: answer.bytes_stream().boxed(), heard: String::new() }
    }

    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some((event, rest)) = self.heard.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let data = serde_json::from_str(&field("data")).unwrap_or_default();
                let heard = Heard { id: field("id"), kind: field("event"), data };
                self.heard = rest.to_owned();
                if !heard.kind.is_empty() {
                    return heard;
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.chunks.next()).await.expect("in time");
            self.heard.push_str(&String::from_utf8_lossy(&chunk.expect("more").expect("valid")));
        }
    }

    /// The message of the next event.
    async fn number(&mut self) -> (u128, String) {
        let heard = self.next().await;
        let uuid: uuid::Uuid = heard.data["data"]["uuid"].as_str().unwrap_or_default().parse().expect("of a message");
        (uuid.as_u128(), heard.id)
    }
}

#[tokio::test]
async fn a_listener_receives_an_event_for_every_message() {
    let home = home("");
    let server = Server::start(&home);
    let mut listener = Listener::connect(&server, None).await;
    server.send(&note(1, json!({}))).await;
    let heard = listener.next().await;
    assert_eq!((heard.kind.as_str(), heard.id.as_str()), ("message.sent", "live"));
    assert_eq!(heard.data["data"]["uuid"], json!(uuid::Uuid::from_u128(1)));
    // A client reconnects although events are not kept: the missed events are reported as a gap.
    drop(listener);
    server.send(&note(2, json!({}))).await;
    let mut listener = Listener::connect(&server, Some("live")).await;
    let heard = listener.next().await;
    assert_eq!(heard.kind, "gap", "{heard:?}");
    server.send(&note(3, json!({}))).await;
    assert_eq!(listener.number().await.0, 3);
}

#[tokio::test]
async fn a_listener_that_reconnects_receives_missed_events() {
    let home = home("[events]\nkeep = true\n");
    let server = Server::start(&home);
    let mut listener = Listener::connect(&server, None).await;
    server.send(&note(1, json!({}))).await;
    let (number, last) = listener.number().await;
    assert_eq!(number, 1);
    drop(listener);
    for number in 2..=150 {
        server.post("/v1/messages", note(number, json!({}))).await;
    }
    super::settled(&server, &json!(uuid::Uuid::from_u128(150)), "sent").await;
    let mut listener = Listener::connect(&server, Some(&last)).await;
    let mut missed = Vec::new();
    let mut last = 0;
    for _ in 2..=150 {
        let (number, id) = listener.number().await;
        let id: i64 = id.parse().expect("a number");
        assert!(id > last, "in order");
        last = id;
        missed.push(number);
    }
    missed.sort_unstable();
    assert_eq!(missed, (2..=150).collect::<Vec<_>>(), "each once, over more than one page");
    server.send(&note(151, json!({}))).await;
    let (number, last) = listener.number().await;
    assert_eq!(number, 151, "and what happens from now on");

    // This time the server was restarted.
    drop(listener);
    server.send(&note(152, json!({}))).await;
    server.kill();
    let server = Server::start(&home);
    let mut listener = Listener::connect(&server, Some(&last)).await;
    assert_eq!(listener.number().await.0, 152);
    let heard = Listener::connect(&server, Some("99999999")).await.next().await;
    assert_eq!((heard.kind.as_str(), &heard.data["after"]), ("gap", &json!("99999999")), "from another server");
}

#[tokio::test]
async fn events_that_are_no_longer_kept_are_a_gap() {
    let home = home("[events]\nkeep = true\n[queue]\nevent-retention = '0s'\n");
    let server = Server::start(&home);
    server.send(&note(1, json!({}))).await;
    for _ in 0..100 {
        let heard = Listener::connect(&server, Some("0")).await.next().await;
        if heard.kind == "gap" {
            assert_eq!((&heard.data["after"], &heard.data["through"]), (&json!("0"), &json!(1)), "{heard:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it is kept for ever");
}
