//! Batches: streaming, idempotency, pause and cancel; and transactional messages beside them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, home, note};
use crate::support::assert_text;

pub fn head(uuid: u128) -> String {
    let kind = json!({"app_label": "app", "name": "note", "uuid": Uuid::from_u128(9), "context": {"text": "Hi all"}});
    format!("{}\n", json!({"uuid": Uuid::from_u128(uuid), "message_type": kind}))
}

pub fn members(numbers: std::ops::Range<u64>) -> String {
    numbers.fold(String::new(), |mut lines, n| {
        let member = json!({"key": n.to_string(), "recipient": {"lms_user_id": n, "email_address": format!("u{n}@example.com")}});
        writeln!(lines, "{member}").expect("written");
        lines
    })
}

pub async fn until(server: &Server, uuid: u128, state: &str) -> Value {
    let path = format!("/v1/batches/{}", Uuid::from_u128(uuid));
    for _ in 0..2_400 + large() / 10 {
        let (_, batch) = server.get(&path).await;
        if batch["state"] == state {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the batch never was {state}: {}", server.get(&path).await.1);
}

#[tokio::test]
async fn an_interrupted_batch_is_sent_again_and_each_message_once() {
    let home = home("");
    let server = Server::start(&home);
    let cut = format!("{}{}{{\"recipient\": ", head(1), members(0..300));
    let (status, problem) = server.post("/v1/batches", cut).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_text(&problem["detail"], "line 302");
    let (_, cut) = server.get(&format!("/v1/batches/{}", Uuid::from_u128(1))).await;
    assert_eq!(cut["messages"], 300, "the lines before it were taken");
    let (status, batch) = server.post("/v1/batches", head(1) + &members(0..500)).await;
    assert_eq!((status, &batch["messages"]), (StatusCode::ACCEPTED, &json!(500)), "{batch}");
    let batch = until(&server, 1, "done").await;
    assert_eq!(batch["by_state"], json!({"sent": 500}));
    let one = Uuid::new_v5(&Uuid::from_u128(1), b"7");
    let (_, message) = server.get(&format!("/v1/messages/{one}")).await;
    assert_eq!((&message["batch"], &message["recipient"]["lms_user_id"]), (&json!(Uuid::from_u128(1)), &json!(7)));
    let metrics = server.get("/metrics").await.1;
    assert_text(&metrics, "ace_settled_total{channel_type=\"email\",channel=\"django_email\",state=\"sent\"} 500");

    let other = head(1).replace("Hi all", "Hello");
    assert_eq!(server.post("/v1/batches", other).await.0, StatusCode::CONFLICT);
    let changed = members(0..1).replace("u0@", "other@");
    assert_eq!(server.post("/v1/batches", head(1) + &changed).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_batch_is_paused_and_cancelled() {
    let home = home("[channels.django_email]\nrate = '20/s'\n");
    let server = Server::start(&home);
    server.post("/v1/batches", head(1) + &members(0..2_000)).await;
    let path = format!("/v1/batches/{}", Uuid::from_u128(1));
    let (_, paused) = server.post(&format!("{path}/pause"), "").await;
    assert_eq!(paused["state"], "paused");
    let (_, cancelled) = server.post(&format!("{path}/cancel"), "").await;
    assert_eq!(cancelled["state"], "cancelled");
    let n = |state: &str| cancelled["by_state"][state].as_u64().unwrap_or_default();
    assert!(n("cancelled") > 1_500 && n("cancelled") + n("sent") + n("queued") == 2_000, "{cancelled}");
    assert_eq!(server.get("/v1/batches").await.1[0]["uuid"], json!(Uuid::from_u128(1)));
    server.post("/v1/batches", head(2) + &members(0..1)).await;
    let listed = [("", 2), ("?limit=1", 1), ("?limit=0", 0), ("?limit=18446744073709551615", 2)];
    for (query, count) in listed {
        let (status, batches) = server.get(&format!("/v1/batches{query}")).await;
        let uuids: Vec<&Value> = batches.as_array().expect("a list").iter().map(|batch| &batch["uuid"]).collect();
        assert_eq!((status, uuids.len()), (StatusCode::OK, count), "{query}");
        assert!(uuids.first().is_none_or(|first| **first == json!(Uuid::from_u128(2))), "the latest first: {uuids:?}");
    }
    for query in ["?limit=-1", "?limit=x", "?last=1"] {
        assert_eq!(server.get(&format!("/v1/batches{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
    let one = home.ace(&["batches", "--limit", "1", "--json", "--server", &server.url]).run().ok().lines();
    assert_eq!((one.len(), &one[0]["uuid"]), (1, &json!(Uuid::from_u128(2))));
    // Messages in flight are sent, or not retried.
    for _ in 0..600 {
        if server.get(&path).await.1["by_state"].get("queued").is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, batch) = server.get(&path).await;
    assert!(batch["by_state"].get("queued").is_none(), "{batch}");
    assert_eq!(server.post("/v1/batches", head(1) + &members(0..1)).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn what_messages_share_is_stored_once_and_earlier_messages_stay_complete() {
    let home = home("[relays.main]\nkind = 'file'\ndir = 'mails'\n");
    let server = Server::start(&home);
    let later = head(1)
        .replace("\"message_type\":{", "\"message_type\":{\"options\":{\"not_before\":\"2199-01-01T00:00:00Z\"},");
    let (_, batch) = server.post("/v1/batches", later + &members(0..2)).await;
    assert_eq!(batch["by_state"], json!({"queued": 2}));
    assert_eq!(server.stop().0, Some(0));

    let db = rusqlite::Connection::open(home.path("ace.db")).expect("it is there");
    let ask = |sql| db.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0)).expect("a message waits");
    let stored = ask("SELECT body FROM messages WHERE id = 1");
    assert!(!String::from_utf8_lossy(&stored).contains("Hi all"), "{}", String::from_utf8_lossy(&stored));
    // As earlier versions of ACE stored the messages of a batch.
    let uuid = Uuid::new_v5(&Uuid::from_u128(1), b"1");
    let mut whole = note(uuid.as_u128(), json!({"context": {"text": "All of it"}}));
    whole["send_uuid"] = json!(Uuid::from_u128(9));
    db.execute("UPDATE messages SET body = ?1 WHERE id = 2", [whole.to_string().into_bytes()]).expect("written");
    db.execute("UPDATE queue SET due = 0", []).expect("written");
    drop(db);

    let server = Server::start(&home);
    assert_eq!(until(&server, 1, "done").await["by_state"], json!({"sent": 2}));
    let mails: Vec<String> = home.list("mails").iter().map(|mail| home.read(&format!("mails/{mail}"))).collect();
    for text in ["Hi all", "All of it"] {
        assert_eq!(mails.iter().filter(|mail| mail.contains(text)).count(), 1, "{text}: {mails:?}");
    }
}

#[tokio::test]
async fn the_command_line_sends_a_csv_file() {
    let home = home("");
    let server = Server::start(&home);
    home.file("type.json", json!({"app_label": "app", "name": "note"}).to_string());
    home.file("users.csv", "lms_user_id,email_address,text\n1,a@example.com,\"Hello, you\"\n2,b@example.com,Bye\n");
    let done = home.ace(&[
        "batch",
        "--type",
        "type.json",
        "--recipients",
        "users.csv",
        "--wait",
        "--json",
        "--server",
        &server.url,
    ]);
    let batch = done.run().ok().lines().remove(0);
    assert_eq!((&batch["state"], &batch["by_state"]), (&json!("done"), &json!({"sent": 2})));

    let later = json!({"app_label": "app", "name": "note", "options": {"not_before": "2199-01-01T00:00:00Z"}});
    home.file("later.json", later.to_string());
    let ask = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--server", &server.url]).collect();
        home.ace(&all).run()
    };
    let uuid = Uuid::from_u128(5).to_string();
    ask(&["batch", "--type", "later.json", "--recipients", "users.csv", "--uuid", &uuid]).ok();
    for (change, state) in [("--pause", "paused"), ("--resume", "sending"), ("--cancel", "cancelled")] {
        assert_eq!(ask(&["batches", "--json", &uuid, change]).ok().lines()[0]["state"], state);
    }
    let shown = ask(&["batches"]).ok().stdout;
    assert!(shown.contains("2 cancelled") && shown.contains("2 sent"), "{shown}");
    ask(&["batches", "--pause"]).code(2);
}

/// The number of messages of the large batch; `ACE_SOAK_BATCH` sets more.
fn large() -> u64 {
    std::env::var("ACE_SOAK_BATCH").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// A body that is generated while it is sent.
fn streamed(uuid: u128, count: u64) -> reqwest::Body {
    const CHUNK: u64 = 1_000;
    let chunks = (0..count.div_ceil(CHUNK)).map(move |at| members(at * CHUNK..count.min((at + 1) * CHUNK)));
    let chunks = std::iter::once(head(uuid)).chain(chunks).map(Ok::<_, std::io::Error>);
    reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
}

/// Many messages, with a transactional message in between from time to time.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_delays_no_transactional_message_and_memory_stays_flat() {
    let home = home("");
    let server = Server::start(&home);
    let patience = Duration::from_secs(300 + large() / 500);
    let request = server.request(reqwest::Method::POST, "/v1/batches").timeout(patience).body(streamed(1, large()));
    let intake = tokio::spawn(async move { request.send().await.expect("taken").status() });
    let mut waits = Vec::new();
    let mut number = 10_000_000_u128;
    let started = Instant::now();
    while !intake.is_finished() || waits.len() < 60 {
        number += 1;
        let at = Instant::now();
        let sent = server.send(&note(number, json!({"options": {"transactional": true}}))).await;
        assert_eq!(sent["state"], "sent");
        waits.push(at.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(started.elapsed() < patience, "accepting them takes too long");
    }
    assert_eq!(intake.await.expect("it ends"), StatusCode::ACCEPTED);
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 < Duration::from_secs(1), "p99 of {} transactional messages: {p99:?}", waits.len());
    let batch = until(&server, 1, "done").await;
    assert_eq!(batch["by_state"], json!({"sent": large()}));
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 300 * 1024, "{kib} KiB at most for {} messages", large());
}
