//! kill -9 of the real process under load, with a real SMTP sink that counts by Message-ID.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::batches::{head, members};
use super::{LISTEN, Server, home, note};
use crate::servers::Smtpd;

/// The number of rounds; `ACE_SOAK_ROUNDS` sets more.
fn rounds() -> u64 {
    std::env::var("ACE_SOAK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

/// Submits messages until the server is killed. Returns those that were accepted.
async fn load(server: &Server, numbers: std::ops::Range<u128>, kill_after: Duration) -> BTreeSet<u128> {
    let mut accepted = BTreeSet::new();
    let end = tokio::time::Instant::now() + kill_after;
    for number in numbers {
        let body = note(number, json!({"options": {"transactional": number % 3 == 0}})).to_string();
        let request = server.request(reqwest::Method::POST, "/v1/messages").body(body);
        if let Ok(Ok(response)) = tokio::time::timeout_at(end, request.send()).await
            && response.status().is_success()
        {
            accepted.insert(number);
        }
        if tokio::time::Instant::now() >= end {
            break;
        }
    }
    accepted
}

/// How often each message arrived.
fn arrived(smtp: &Smtpd) -> BTreeMap<u128, usize> {
    let mut arrived = BTreeMap::new();
    for mail in smtp.mails() {
        let id = mail.header("Message-ID").expect("a Message-ID");
        let uuid: Uuid =
            id.trim_start_matches('<').split('.').next().unwrap_or_default().parse().expect("made of the uuid");
        *arrived.entry(uuid.as_u128()).or_default() += 1;
    }
    arrived
}

async fn wait_until_all_are_settled(server: &Server) {
    for _ in 0..1_200 {
        let (_, stats) = server.get("/v1/queue").await;
        let left =
            ["waiting_transactional", "waiting_ordinary", "in_flight"].map(|key| stats[key].as_u64().unwrap_or(1));
        if left == [0, 0, 0] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not all is settled: {}", server.get("/v1/queue").await.1);
}

async fn timeline(server: &Server, number: u128) -> Value {
    server.get(&format!("/v1/messages/{}", Uuid::from_u128(number))).await.1
}

async fn story(guarantee: &str) {
    let smtp = Smtpd::start(&[]);
    let home = home(&format!("{LISTEN}{}[channels.django_email]\ndelivery = '{guarantee}'\n", smtp.relay()));
    let mut accepted = BTreeSet::new();
    for round in 0..rounds() {
        let server = Server::start(&home);
        let base = u128::from(round + 1) << 32;
        let pause = Duration::from_millis(40 + round * 97 % 400);
        accepted.extend(load(&server, base..base + 10_000, pause).await);
        server.kill();
    }
    assert!(accepted.len() as u64 > rounds() * 5, "{} messages are no load", accepted.len());
    let server = Server::start(&home);
    wait_until_all_are_settled(&server).await;
    let arrived = arrived(&smtp);
    let mut doubled = 0;
    for number in &accepted {
        let times = arrived.get(number).copied().unwrap_or_default();
        if guarantee == "at-most-once" {
            assert!(times <= 1, "{number} arrived {times} times");
            let told = timeline(&server, *number).await;
            let state = told["state"].as_str().unwrap_or_default();
            assert!(times == 1 || state == "maybe_sent", "lost without a word: {told}");
        } else {
            assert!(times >= 1, "accepted and lost: {}", timeline(&server, *number).await);
        }
        if times > 1 {
            doubled += 1;
            let told = timeline(&server, *number).await;
            let named = told["report"]["interruptions"].as_array().is_some_and(|list| !list.is_empty());
            assert!(named, "arrived {times} times, and its timeline does not say why: {told}");
        }
    }
    let window = rounds() * 8;
    assert!(doubled <= window, "{doubled} arrived twice, more than were in flight");
    server.stop();
}

#[tokio::test]
async fn no_accepted_message_is_lost_and_duplicates_are_reported() {
    story("at-least-once").await;
}

#[tokio::test]
async fn at_most_once_never_sends_twice_and_every_message_has_an_outcome() {
    story("at-most-once").await;
}

#[tokio::test]
async fn a_batch_that_was_killed_is_sent_again_and_each_message_is_found_once() {
    // More than the queue keeps in memory before it writes its indexes.
    const MEMBERS: u64 = 40_000;
    let later = "\"options\":{\"not_before\":\"2199-01-01T00:00:00Z\"},\"app_label\"";
    let body = head(1).replacen("\"app_label\"", later, 1) + &members(0..MEMBERS);
    let home = home("");
    for pause in [100, 250, 400] {
        let server = Server::start(&home);
        let post = server.request(reqwest::Method::POST, "/v1/batches").body(body.clone());
        let _ = tokio::time::timeout(Duration::from_millis(pause), post.send()).await;
        server.kill();
    }
    let server = Server::start(&home);
    let (status, batch) = server.post("/v1/batches", body).await;
    assert_eq!((status.as_u16(), &batch["by_state"]), (202, &json!({"queued": MEMBERS})));
    for number in (0..MEMBERS).step_by(1_009) {
        let uuid = json!(Uuid::new_v5(&Uuid::from_u128(1), number.to_string().as_bytes()));
        let (_, one) = server.get(&format!("/v1/messages/{}", uuid.as_str().expect("a text"))).await;
        assert_eq!(one["recipient"]["lms_user_id"], number);
        for who in [format!("user={number}"), format!("email=u{number}@example.com")] {
            let (_, found) = server.get(&format!("/v1/messages?{who}")).await;
            let found: Vec<&Value> = found["messages"].as_array().into_iter().flatten().map(|m| &m["uuid"]).collect();
            assert_eq!(found, [&uuid], "{who}");
        }
    }
    server.stop();
}

#[tokio::test]
async fn a_second_server_on_the_same_queue_is_refused_with_the_reason() {
    let home = home("");
    let server = Server::start(&home);
    let refused = home.ace(&["serve"]).run().code(2);
    refused.says("another ace (process ").says(&server.child.id().to_string());
    server.kill();
    Server::start(&home).stop();
}
