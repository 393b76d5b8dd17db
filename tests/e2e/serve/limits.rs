//! Clients that send too much, too often or too slowly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Server, home};
use crate::support::message;

fn connect(server: &Server) -> TcpStream {
    let address = server.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_slow_sender_is_disconnected_and_others_are_served() {
    let home = home("[server]\nlisten = '127.0.0.1:0'\nread-timeout = '300ms'\nconnections = 4\n");
    let server = Server::start(&home);
    let started = Instant::now();
    let mut head = connect(&server);
    head.write_all(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nX-Slow").expect("written");
    let mut body = connect(&server);
    body.write_all(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").expect("written");
    let answer = rest(body);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    rest(head);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // More idle connections than slots: a request is served as soon as they time out.
    let idle: Vec<TcpStream> = (0..8).map(|_| connect(&server)).collect();
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);
    drop(idle);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_rejected() {
    let home = home("[delivery]\nmax-message-bytes = '4KiB'\n");
    let server = Server::start(&home);
    let large = message("note", json!({"context": {"text": "x".repeat(5_000)}}));
    let (status, problem) = server.post("/v1/messages", large).await;
    assert_eq!((status, &problem["type"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too-large")));
    let put = server.request(Method::PUT, "/v1/keyvalue/b/k").body(vec![b'x'; 5_000]);
    assert_eq!(server.ask(put).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let line = format!("{{\"message_type\": {{\"app_label\": \"app\", \"name\": \"{}\"}}}}", "x".repeat(5_000));
    assert_eq!(server.post("/v1/batches", line).await.0, StatusCode::BAD_REQUEST);
    let mut stream = connect(&server);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(400_000));
    let _ = stream.write_all(head.as_bytes());
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn too_many_requests_are_rejected() {
    let home = home("[server]\nlisten = '127.0.0.1:0'\nrequests-per-second = 5\n");
    let server = Server::start(&home);
    let mut refused = 0;
    for _ in 0..20 {
        let response = server.request(Method::GET, "/v1/queue").send().await.expect("answered");
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(response.headers()["retry-after"], "1");
            refused += 1;
        }
    }
    assert!((5..=15).contains(&refused), "{refused} of 20");
}

#[tokio::test]
async fn a_full_queue_is_answered_with_503() {
    let home = home("[queue]\nmax-messages = 2\n[channels.django_email]\nrate = '1/h'\n");
    let server = Server::start(&home);
    let mut last = None;
    for _ in 0..6 {
        last = Some(
            server
                .request(Method::POST, "/v1/messages")
                .body(message("note", json!({})).to_string())
                .send()
                .await
                .expect("answered"),
        );
    }
    let last = last.expect("asked");
    assert_eq!(last.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(last.headers()["retry-after"], "5");
    let problem: serde_json::Value = last.json().await.expect("JSON");
    assert!(problem["detail"].as_str().expect("text").contains("queue.max-messages"), "{problem}");
}
