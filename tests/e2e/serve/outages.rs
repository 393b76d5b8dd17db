//! Relays and providers that go down and recover.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::batches::{head, members};
use super::{LISTEN, Server, home, note, settled};
use crate::http_channels::provider::{Answer, Provider};
use crate::http_channels::webhook;
use crate::servers::{MailServer, free_port, relay};
use crate::support::{Home, assert_text, channel, wait_for};

/// A home whose relay is at this port, with a window much shorter than the outages.
fn home_at(port: u16, toml: &str) -> Home {
    home(&format!("{}expiration-delay = '300ms'\n{LISTEN}{toml}", relay(port, "tls = 'none'")))
}

/// Polls /v1/queue until it matches.
async fn queue_until(server: &Server, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, queue) = server.get("/v1/queue").await;
        if is(&queue) {
            return queue;
        }
        assert!(Instant::now() < end, "timed out waiting for {what}: {queue}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn submit(server: &Server, numbers: std::ops::Range<u128>, fields: &Value) -> Vec<Value> {
    let mut uuids = Vec::new();
    for number in numbers {
        let message = note(number, fields.clone());
        assert_eq!(server.post("/v1/messages", &message).await.0, StatusCode::ACCEPTED);
        uuids.push(message["uuid"].clone());
    }
    uuids
}

#[tokio::test]
async fn no_message_fails_while_a_relay_is_down_and_it_is_logged_once() {
    let port = free_port();
    let home = home_at(port, "[events]\nkeep = true\n");
    let server = Server::of(home.ace(&["serve"]));
    let mut uuids = submit(&server, 1..4, &json!({})).await;
    uuids.extend(submit(&server, 4..5, &json!({"options": {"transactional": true}})).await);
    let queue =
        queue_until(&server, "them to wait", |queue| queue["destinations"][0]["waiting"].as_u64() > Some(2)).await;
    let down = &queue["destinations"][0];
    assert_eq!((&down["kind"], &down["name"], &down["state"]), (&json!("relay"), &json!("main"), &json!("down")));
    assert_text(&down["reason"], "onnection refused");
    let (status, ready) = server.get("/readyz").await;
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)));
    let degraded = ready["degraded"].as_array().expect("a list").iter().find(|one| one["kind"] == "relay");
    assert_text(&degraded.expect("it is named")["reason"], "it is down: ");
    let shown = home.ace(&["queue", "--server", &server.url]).run().ok();
    assert!(shown.stdout.contains("relay main") && shown.stdout.contains("down"), "{}", shown.stdout);
    assert_text(&server.get("/metrics").await.1, "ace_destination_up{kind=\"relay\",name=\"main\"} 0");
    // Longer than the window of each message.
    tokio::time::sleep(Duration::from_millis(700)).await;

    let mails = MailServer::start(port);
    for uuid in &uuids {
        let sent = settled(&server, uuid, "sent").await;
        let channel = &sent["report"]["channels"][0];
        assert_eq!((&channel["attempts"], &channel["state"]), (&json!(1), &json!("sent")), "{sent}");
    }
    assert_eq!(mails.mails().len(), 4, "each once");
    assert_text(&server.get("/metrics").await.1, "ace_destination_outages_total{kind=\"relay\",name=\"main\"} 1");
    let events = server.request(reqwest::Method::GET, "/v1/events").header("last-event-id", "0").send().await;
    let mut events = events.expect("a stream");
    let mut heard = String::new();
    while !heard.contains("destination.up") {
        let chunk = events.chunk().await.expect("the stream continues").expect("the stream continues");
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(heard.matches("event: destination.down").count(), 1, "{heard}");
    let (_, log) = server.stop();
    assert_eq!(log.matches("relay main is down: ").count(), 1, "{log}");
    assert_eq!(log.matches("relay main is reachable again").count(), 1, "{log}");
    assert!(!log.contains("INFO") || !log.contains("zoe@"), "nothing of a message: {log}");
}

#[tokio::test]
async fn a_server_that_refuses_before_a_recipient_is_named_is_down() {
    for (greeting, to_mail) in [
        ("421 too busy", (|_| Some("250 ok")) as fn(&str) -> Option<&'static str>),
        ("554 go away", |_| Some("250 ok")),
        ("220 ready", |_| Some("451 later")),
        ("220 ready", |_| Some("550 not from you")),
        ("220 ready", |_| None),
    ] {
        let port = free_port();
        let refusing = MailServer::answering(port, greeting, to_mail);
        let server = Server::of(home_at(port, "").ace(&["serve"]));
        let uuids = submit(&server, 1..4, &json!({})).await;
        queue_until(&server, "them to wait", |queue| queue["destinations"][0]["waiting"].as_u64() > Some(1)).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        drop(refusing);
        let taking = MailServer::start(port);
        for uuid in &uuids {
            settled(&server, uuid, "sent").await;
        }
        assert_eq!(taking.mails().len(), 3);
    }
}

#[tokio::test]
async fn one_message_that_makes_the_server_disconnect_stops_no_other() {
    let port = free_port();
    let mails =
        MailServer::answering(port, "220 ready", |line| if line.contains("poison@") { None } else { Some("250 ok") });
    let server = Server::of(home_at(port, "").ace(&["serve"]));
    let poison = json!({"options": {"from_address": "poison@campus.example"}});
    let poison = submit(&server, 1..2, &poison).await;
    for number in 2..12 {
        server.send(&note(number, json!({}))).await;
    }
    assert_eq!(mails.mails().len(), 10);
    let given_up = settled(&server, &poison[0], "expired").await;
    assert_text(&given_up["report"]["channels"][0]["error"], "MAIL");
    let (_, log) = server.stop();
    assert!(log.matches("is down: ").count() <= 1, "{log}");
}

#[tokio::test]
async fn no_message_fails_while_a_provider_is_down() {
    let bad = [Answer::new(503, ""), Answer::new(401, ""), Answer::new(502, ""), Answer::new(500, "")];
    let good = Answer::new(201, "{\"message\": \"success\"}");
    let provider = Provider::start(bad.into_iter().chain([good]).collect::<Vec<_>>());
    let home = crate::http_channels::braze(
        &provider,
        &format!("{LISTEN}[delivery]\nretry-delay = '150ms'\nmax-retry-delay = '200ms'\nexpiration-delay = '100ms'\n"),
    );
    let server = Server::of(home.ace(&["serve"]));
    let uuids = submit(&server, 1..2, &json!({})).await;
    let queue = queue_until(&server, "it to wait", |queue| queue["destinations"][0]["kind"] == "origin").await;
    assert_eq!(queue["destinations"][0]["name"], json!(provider.url()));
    let sent = settled(&server, &uuids[0], "sent").await;
    assert_eq!(sent["report"]["channels"][0]["attempts"], 1, "{sent}");
}

#[tokio::test]
async fn a_relay_that_never_answers_is_down_and_nothing_counts_as_sent() {
    // The system accepts connections, but no server greets.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let limits = "[limits]\nchannel-call-timeout = '200ms'\ncircuit-pause = '100ms'\n";
    let server = Server::of(home_at(port, limits).ace(&["serve"]));
    let uuids = submit(&server, 1..3, &json!({})).await;
    let queue = queue_until(&server, "them to wait", |queue| queue["destinations"][0]["waiting"] == 2).await;
    assert_text(&queue["destinations"][0]["reason"], "call-timeout");
    drop(silent);
    let mails = MailServer::start(port);
    for uuid in &uuids {
        settled(&server, uuid, "sent").await;
    }
    assert_eq!(mails.mails().len(), 2);
}

/// 100,000 messages wait for a relay that is down, without attempts, log lines or slots.
#[tokio::test]
async fn a_batch_that_waits_for_a_relay_does_not_delay_others() {
    let n = if std::env::var_os("ACE_TEST_LARGE").is_some() { 1_000_000 } else { 100_000 };
    let toml = "[delivery]\nmax-retry-delay = '60s'\n[plugins.file_email]\ngrants = { outbox = 'out' }\n[routing]\n\
                default = { email = 'django_email' }\n";
    let dead =
        relay(free_port(), "tls = 'none'").replace("[delivery]\nretry-delay = '10ms'\nmax-retry-delay = '50ms'\n", "");
    let home = home(&format!("{dead}{LISTEN}{toml}"));
    home.plugin("file_email");
    std::fs::create_dir(home.path("out")).expect("made");
    let server = Server::of(home.ace(&["serve"]));
    let (status, batch) = server.post("/v1/batches", head(1) + &members(0..n)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{batch}");
    queue_until(&server, "the batch to be held", |queue| {
        queue["destinations"][0]["waiting"].as_u64() > Some(0) && queue["in_flight"] == 0
    })
    .await;
    let started = Instant::now();
    let around = json!({"options": {"override_default_channel": "file_email"}});
    for number in 1..6 {
        server.send(&note(number, around.clone())).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "other channels continue: {:?}", started.elapsed());
    let (_, queue) = server.get("/v1/queue").await;
    assert_eq!((&queue["waiting_batches"], &queue["in_flight"]), (&json!(n), &json!(0)), "{queue}");
    assert!(queue["destinations"][0]["waiting"].as_u64() < Some(1_000), "the rest was not even claimed: {queue}");
    let attempts = server.get("/metrics").await.1;
    let attempts = attempts.as_str().expect("text").lines().find(|line| {
        line.starts_with("ace_delivery_attempts_total{channel=\"django_email\"") && line.contains("unreachable")
    });
    let attempts: f64 = attempts.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a number");
    assert!(attempts < 100.0, "{attempts}");
    let (_, log) = server.stop();
    let lines = log.lines().filter(|line| !line.starts_with("ace serves")).count();
    assert!(lines <= 12, "{lines} lines:\n{log}");
}

#[test]
fn a_failover_channel_is_used_at_once_and_the_relay_that_is_down_is_not_tried() {
    let port = free_port();
    let closing = MailServer::answering(port, "421 not now", |_| None);
    let toml = format!(
        "{}[routing]\ndefault = {{ email = 'django_email' }}\nfailover = {{ email = ['django_email', 'file_email'] }}\n\
         [plugins.file_email]\ngrants = {{ outbox = 'out' }}\n",
        relay(port, "tls = 'none'").replace("'10ms'", "'50s'").replace("'50ms'", "'50s'")
    );
    let home = crate::support::mail_home(&toml);
    home.plugin("file_email");
    std::fs::create_dir(home.path("out")).expect("made");
    let messages: Vec<Value> = (1..20).map(|n| note(n, json!({}))).collect();
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    let done = home.ace(&["send", "--json", "--concurrency", "1", "-"]).input(lines.join("\n")).run().ok();
    assert!(done.lines().iter().all(|line| line["report"]["channels"][0]["channel"] == "file_email"));
    wait_for("the files", || (home.list("out").len() == 19).then_some(()));
    assert_eq!(closing.connections(), 1, "one fact, not nineteen");
}

/// Submits messages to two receivers in turns, waits until those to the good one are sent, and returns those to the other one.
async fn good_beside(server: &Server, good: &Provider, other: &str) -> Vec<Value> {
    let urls = [format!("{}/hooks", good.url()), other.to_owned()];
    let mut uuids = [Vec::new(), Vec::new()];
    for number in 0..20 {
        let mut note = webhook::note(&[urls[number % 2].clone()]);
        note["uuid"] = json!(uuid::Uuid::from_u128(number as u128 + 1));
        assert_eq!(server.post("/v1/messages", &note).await.0, StatusCode::ACCEPTED);
        uuids[number % 2].push(note["uuid"].clone());
    }
    let [to_good, to_other] = uuids;
    for uuid in &to_good {
        let sent = settled(server, uuid, "sent").await;
        assert_eq!(channel(&sent, "webhook")["attempts"], 1, "{sent}");
    }
    assert_eq!(good.seen().len(), 10);
    to_other
}

#[tokio::test]
async fn a_dead_host_keeps_no_message_to_another_host_waiting_and_is_logged_once() {
    let good = Provider::start(vec![Answer::new(204, ""); 10]);
    let dead = format!("https://localhost:{}", free_port());
    let toml = format!("{LISTEN}[delivery]\nexpiration-delay = '300ms'\n");
    let home = webhook::home_granted(&[&good], &["https://*/", &format!("{dead}/")], &toml);
    let server = Server::of(home.ace(&["serve"]));
    let waiting = good_beside(&server, &good, &format!("{dead}/hooks")).await;
    let queue = queue_until(&server, "them to wait", |queue| queue["destinations"][0]["waiting"] == 10).await;
    assert_eq!(
        (&queue["destinations"][0]["name"], queue["destinations"].as_array().map(Vec::len)),
        (&json!(dead), Some(1))
    );
    assert_text(&queue["destinations"][0]["reason"], "onnection refused");
    // Longer than the window of each message.
    tokio::time::sleep(Duration::from_millis(700)).await;
    for uuid in &waiting {
        let (_, message) = server.get(&format!("/v1/messages/{}", uuid.as_str().expect("a uuid"))).await;
        assert_eq!(message["state"], "queued", "{message}");
    }
    let (_, log) = server.stop();
    assert_eq!(log.matches("is down: ").count(), 1, "{log}");
    assert!(!log.contains("was not delivered"), "{log}");
}

/// Only a pattern covers the dead host: it is one recipient's, and its messages are retried as they would be for any other reason.
#[tokio::test]
async fn a_dead_host_that_a_recipient_chose_keeps_no_other_message_waiting() {
    let good = Provider::start(vec![Answer::new(204, ""); 10]);
    let home = webhook::home_granted(&[&good], &["https://*/"], LISTEN);
    let server = Server::of(home.ace(&["serve"]));
    // No name below `invalid` has an address (RFC 6761).
    for uuid in good_beside(&server, &good, "https://dead.invalid/hooks").await {
        let path = format!("/v1/messages/{}", uuid.as_str().expect("a uuid"));
        let message = loop {
            let (_, message) = server.get(&path).await;
            if message["report"].is_object() && channel(&message, "webhook")["attempts"] == 1 {
                break message;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(message["state"], "queued", "{message}");
    }
    let (_, queue) = server.get("/v1/queue").await;
    assert_eq!(queue["destinations"], json!([]), "nobody else waits for it");
    let (_, log) = server.stop();
    assert!(!log.contains("is down: ") && !log.contains("was not delivered"), "{log}");
}
