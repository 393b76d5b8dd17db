//! Damaged files of the queue; and people whose address is written differently in a request than in the queue.

use reqwest::{Method, StatusCode};
use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use super::{Server, home, note, settled};
use crate::support::Home;

fn spoil(home: &Home, sql: &str) {
    let db = Connection::open(home.path("ace.db")).expect("opened");
    db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
}

#[tokio::test]
async fn one_damaged_row_stops_neither_the_start_nor_other_messages() {
    let home = home("");
    let server = Server::start(&home);
    for number in 1..=6 {
        let later = json!({"options": {"not_before": "2199-01-01T00:00:00Z"}});
        assert_eq!(server.post("/v1/messages", note(number, later)).await.0, StatusCode::ACCEPTED);
    }
    server.kill();
    spoil(
        &home,
        "UPDATE messages SET email = CAST(x'ff40' AS TEXT) WHERE id = 2;
        UPDATE messages SET progress = x'7b', report = NULL WHERE id = 3;
        INSERT INTO queue (lane, due, id, n) VALUES (0, 0, 700, 1), (1, 0, 701, 5);
        INSERT INTO claims (id, lane) VALUES (800, 1);
        DELETE FROM messages WHERE id = 4;
        UPDATE queue SET due = 0;",
    );
    let server = Server::start(&home);
    let uuid = |number: u128| json!(Uuid::from_u128(number));
    for number in [1, 5, 6] {
        settled(&server, &uuid(number), "sent").await;
    }
    let damaged = settled(&server, &uuid(2), "corrupt").await;
    assert_eq!(damaged["report"]["error"], "email is not UTF-8");
    settled(&server, &uuid(3), "corrupt").await;
    assert_eq!(server.send(&note(7, json!({}))).await["state"], "sent");
    let (status, ready) = server.get("/readyz").await;
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)), "{ready}");
    assert!(ready["queue"]["last_write_s"].is_u64() && ready["queue"]["last_claim_s"].is_u64(), "{ready}");
    let (_, listed) = server.get("/v1/messages?state=corrupt").await;
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(2), "{listed}");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    for named in
        [&Uuid::from_u128(2).to_string(), &Uuid::from_u128(3).to_string(), "ids 700, 701", "ids 4.", "claims", "800"]
    {
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(named)), "{named}: {log}");
    }
    let told = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(told("email is not UTF-8"), 1, "{log}");
    assert!(log.contains("ace messages ") && log.contains("sqlite3 "), "and how to look at it: {log}");
}

#[tokio::test]
async fn a_store_that_cannot_be_written_makes_the_server_unready_until_it_can() {
    let home = home("");
    let server = Server::start(&home);
    let db = Connection::open(home.path("ace.db")).expect("opened");
    db.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert_eq!(server.post("/v1/messages", note(1, json!({}))).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{ready}");
    assert!(ready["reasons"][0].as_str().is_some_and(|why| why.contains("lock")), "{ready}");
    assert!(ready["queue"]["writes_failing_s"].is_u64(), "{ready}");
    db.execute_batch("ROLLBACK").expect("let go");
    drop(db);
    // No message is submitted to a server that is not ready, so it must notice by itself.
    for _ in 0..600 {
        if server.get("/readyz").await.0 == StatusCode::OK {
            let (_, log) = server.stop();
            let told = log.lines().filter(|line| line.contains("The queue cannot be written")).count();
            assert_eq!(told, 1, "once: {log}");
            assert!(log.contains("The queue can be written again"), "{log}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never is ready again: {}", server.get("/readyz").await.1);
}

#[tokio::test]
async fn people_are_found_however_their_address_is_written_and_a_plus_that_became_a_space_is_named() {
    let home = home("");
    let server = Server::start(&home);
    let later = |email: &str| json!({"recipient": {"lms_user_id": 7, "email_address": email}, "options": {"not_before": "2199-01-01T00:00:00Z"}});
    for (number, email) in [(1, "éva@example.com"), (2, "a@bücher.example"), (3, "a+tag@example.com")] {
        assert_eq!(server.post("/v1/messages", note(number, later(email))).await.0, StatusCode::ACCEPTED);
    }
    for path in ["/v1/messages", "/v1/erase", "/v1/dead-letters/retry", "/v1/dead-letters/discard"] {
        let method = if path == "/v1/messages" { Method::GET } else { Method::POST };
        for email in ["a+tag@example.com", "a%20tag@example.com", "%20tag@example.com", ""] {
            let (status, problem) = server.ask(server.request(method.clone(), &format!("{path}?email={email}"))).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {email}: {problem}");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("%2B") || email.is_empty(), "{path} {email}: {detail}");
        }
    }
    let asked = ["%C3%89VA@example.com", "A@xn--bcher-kva.example", "a%2Btag@example.com%C2%A0"];
    for email in asked {
        let (_, listed) = server.get(&format!("/v1/messages?email={email}")).await;
        assert_eq!(listed["messages"].as_array().map(Vec::len), Some(1), "{email}: {listed}");
        let (status, erased) = server.post(&format!("/v1/erase?email={email}"), "").await;
        assert_eq!((status, &erased["waiting"]), (StatusCode::OK, &json!(1)), "{email}");
    }
    let refused = home.ace(&["erase", "--email", "a tag@example.com", "--server", &server.url]).run().code(2);
    refused.says("contains a space");
    // A path is decoded differently from a query, so a key keeps its plus.
    let put = server.request(Method::PUT, "/v1/keyvalue/optouts/a+tag@example.com").body("1");
    assert_eq!(server.ask(put).await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.get("/v1/keyvalue/optouts/a%2Btag@example.com").await.0, StatusCode::OK);
}
