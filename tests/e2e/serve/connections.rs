//! Clients that are slow or do nothing, on raw sockets: they cannot hold connections forever, and a shutdown does not wait for them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::batches::{head, members};
use super::{LISTEN, Server, configure, home, note, settled};
use crate::servers::certificates;
use crate::support::{Home, wait_for};

const BUNDLE: &str = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// A drain that is longer than any test, and timeouts that suit a slow machine.
pub const IMPATIENT: &str =
    "[server]\nlisten = '127.0.0.1:0'\ndrain = '60s'\nread-timeout = '1s'\nwrite-timeout = '1s'\n";

fn connect(server: &Server) -> TcpStream {
    let address = server.url.rsplit('/').next().expect("an address");
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream
}

fn say(server: &Server, text: &str) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(text.as_bytes()).expect("written");
    stream
}

/// A client that requests several megabytes, more than the system buffers, and reads nothing.
fn deaf(server: &Server) -> TcpStream {
    say(server, &BUNDLE.repeat(8))
}

/// Reads to the end of the connection, however it ends. Returns what was read.
fn rest(mut stream: TcpStream) -> (String, bool) {
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).err().map(|error| error.kind());
    let is_open = matches!(error, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
    (String::from_utf8_lossy(&answer).into_owned(), is_open)
}

#[tokio::test]
async fn an_invalid_request_gets_a_400_before_the_connection_is_closed() {
    let home = home("");
    let server = Server::start(&home);
    let good = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for bad in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /healthz\r\n\r\n".to_owned(),
        "GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(),
        "G\u{1}T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\n folded: x\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n".to_owned(),
        "GET http://[::bad/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned() + &"a".repeat(200),
        format!("{post}Content-Length: x\r\n\r\n{{}}"),
        format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n{{}}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}"),
    ] {
        let (answer, is_open) = rest(say(&server, &bad));
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && !is_open, "{bad:?}: {answer}");
        let (answers, is_open) = rest(say(&server, &format!("{good}{bad}")));
        assert!(answers.starts_with("HTTP/1.1 200 OK\r\n") && !is_open, "{bad:?}: {answers}");
        assert!(answers.contains("HTTP/1.1 400 Bad Request\r\n"), "after another request: {bad:?}: {answers}");
    }
}

/// Asserts that a server stops soon although `held` has connections to it.
fn stops_soon<T>(server: Server, held: T) {
    let started = Instant::now();
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}\n{log}", started.elapsed());
    drop(held);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected_and_others_are_served() {
    let home = home(&format!("{IMPATIENT}connections = 4\nspare-connections = 2\n"));
    let server = Server::start(&home);
    let deaf: Vec<TcpStream> = (0..4).map(|_| deaf(&server)).collect();
    wait_for("a slot", || {
        let (answer, _) = rest(say(&server, "GET /v1/queue HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    for stream in deaf {
        let (answer, is_open) = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 200") && !is_open, "it was cut in the midst of its answers");
    }
    assert_eq!(server.stop().0, Some(0));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients() {
    let home = home(
        "[server]\nlisten = '127.0.0.1:0'\ndrain = '60s'\nread-timeout = '60s'\nwrite-timeout = '60s'\nconnections = 9\n",
    );
    let server = Server::start(&home);
    assert_eq!(server.get("/healthz").await.0, 200, "this client keeps its connection");
    let later = note(1, json!({"options": {"not_before": "2199-01-01T00:00:00Z"}})).to_string();
    let post = |path: &str, kind: &str, length: usize, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let silent = connect(&server);
    let head_half = say(&server, "GET /healthz HTTP/1.1\r\nHost: local");
    let second_head = say(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal");
    let body = say(&server, &post("/v1/messages", "application/json", 100, "{"));
    let batch = say(&server, &post("/v1/batches", "application/x-ndjson", 9_999, &(head(1) + &members(0..3))));
    let waiting = say(&server, &post("/v1/messages?wait=120", "application/json", later.len(), &later));
    let events = say(&server, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let deaf = deaf(&server);
    // All connections are in use, and one more is on a spare slot.
    let beyond = connect(&server);
    settled(&server, &json!(Uuid::from_u128(1)), "queued").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}\n{log}", started.elapsed());
    for (stream, status) in [(body, "503"), (batch, "503"), (waiting, "202"), (events, "200")] {
        let (answer, is_open) = rest(stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && !is_open, "{answer}");
    }
    drop((silent, head_half, second_head, deaf, beyond));
    let server = Server::start(&home);
    let (_, batch) = server.get(&format!("/v1/batches/{}", Uuid::from_u128(1))).await;
    assert_eq!((&batch["state"], &batch["messages"]), (&json!("receiving"), &json!(3)), "what came in is kept");
}

#[tokio::test]
async fn a_client_below_the_minimum_rate_is_disconnected_and_one_at_the_rate_is_not() {
    let home = home(&format!("{IMPATIENT}min-rate = '100B'\n"));
    let server = Server::start(&home);
    let dribble = |path: &str, kind: &str, lines: &[u8], step: usize, pause: u64| {
        let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n");
        let head = if path == "/v1/keyvalue/b/k" { head } else { head.replace("PUT", "POST") };
        let mut stream = say(&server, &format!("{head}Content-Length: {}\r\n\r\n", lines.len()));
        for piece in lines.chunks(step) {
            if stream.write_all(piece).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        rest(stream).0
    };
    let batch = head(1) + &members(0..40);
    let fact = "{\"bucket\": \"b\", \"key\": \"k\", \"value\": 1}\n".repeat(8);
    let (octets, ndjson) = ("application/octet-stream", "application/x-ndjson");
    std::thread::scope(|scope| {
        // A byte every 60 ms is less than 100 per second, although no single pause is too long.
        let slow = [
            scope.spawn(|| dribble("/v1/batches", ndjson, batch.as_bytes(), 1, 60)),
            scope.spawn(|| dribble("/v1/keyvalue", ndjson, fact.as_bytes(), 1, 60)),
            scope.spawn(|| dribble("/v1/keyvalue/b/k", octets, &[b'x'; 200], 1, 60)),
        ];
        // 100 bytes every 300 ms, for longer than the budget of a second.
        let steady = scope.spawn(|| dribble("/v1/keyvalue/b/k", octets, &[b'x'; 1_000], 100, 300));
        for answer in slow.map(|slow| slow.join().expect("answered")) {
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
        let answer = steady.join().expect("answered");
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    });
}

#[tokio::test]
async fn a_slow_reader_gets_the_whole_response() {
    let home = home(&format!("{IMPATIENT}min-rate = '10KiB'\n"));
    let server = Server::start(&home);
    let whole = server.bare(Method::GET, "/docs/swagger-ui-bundle.js").send().await.expect("answered");
    let length = whole.bytes().await.expect("a body").len();
    // Pipelined, so that the last of several responses takes as long as possible.
    let asked = format!("{}{}", BUNDLE.repeat(3), BUNDLE.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let mut stream = say(&server, &asked);
    let (mut taken, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        match stream.read(&mut buffer).expect("it is not cut") {
            0 => break,
            n => taken += n,
        }
        // Some seconds in total, which is longer than any of the timeouts.
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(taken > 4 * length, "{taken} of {length} four times");
}

#[tokio::test]
async fn probes_and_clients_with_a_token_have_connections_of_their_own() {
    let toml = "[server]\nlisten = '127.0.0.1:0'\ntokens-file = 'tokens.json'\nread-timeout = '60s'\nconnections = 2\nspare-connections = 2\n";
    let home = home(toml);
    let token = home.ace(&["token", "create", "lms", "--scope", "read"]).run().ok().stdout.trim().to_owned();
    let server = Server::start(&home);
    let taken: Vec<TcpStream> = (0..2).map(|_| deaf(&server)).collect();
    let ask = |path: &str, header: &str| {
        rest(say(&server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n"))).0.to_ascii_lowercase()
    };
    let bearer = format!("Authorization: Bearer {token}\r\nConnection: close\r\n");
    wait_for("the connections to be taken", || ask("/docs/", "").starts_with("http/1.1 503").then_some(()));
    for _ in 0..3 {
        let health = ask("/healthz", "");
        assert!(health.starts_with("http/1.1 200") && health.contains("connection: close"), "{health}");
        assert!(ask("/v1/queue", &bearer).starts_with("http/1.1 200"));
        let other = ask("/openapi.json", "");
        assert!(other.starts_with("http/1.1 503") && other.contains("retry-after: 5"), "{other}");
        assert!(ask("/v1/queue", "Authorization: Bearer ace_nonsense\r\n").starts_with("http/1.1 503"));
    }
    // Clients that send no head are disconnected, however many there are.
    let silent: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
    assert!(ask("/healthz", "").starts_with("http/1.1 200"));
    let stream = say(&server, &format!("GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    assert!(ask("/readyz", "").starts_with("http/1.1 200"));
    drop(taken);
    wait_for("a slot", || ask("/docs/", "Connection: close\r\n").starts_with("http/1.1 200").then_some(()));
    let (_, log) = server.stop();
    assert_eq!(log.matches("All connections of server.connections are in use").count(), 1, "logged once: {log}");
    drop((silent, stream));
}

/// A server with TLS, and a connector that offers HTTP/2.
pub fn secure(toml: &str) -> (Home, Server, TlsConnector) {
    let home = home("");
    certificates(&home.path(""));
    configure(&home, &format!("{toml}tls-certificate = 'cert.pem'\ntls-key = 'key.pem'\n"));
    let server = Server::start(&home);
    let mut tls = ace::internals::tls::client_config(Some(&home.path("ca.pem"))).expect("valid");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    (home, server, TlsConnector::from(Arc::new(tls)))
}

type H2 = h2::client::SendRequest<Bytes>;

/// A connection with this initial window of its streams.
async fn http2(server: &Server, tls: &TlsConnector, window: u32) -> (H2, tokio::task::JoinHandle<()>) {
    let address = server.url.rsplit('/').next().expect("an address");
    let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let name = "127.0.0.1".try_into().expect("an address");
    let stream = tls.connect(name, tcp).await.expect("it is trusted");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(16 << 20);
    let (client, connection) = builder.handshake(stream).await.expect("HTTP/2");
    (client, tokio::spawn(async move { drop(connection.await) }))
}

fn request(server: &Server, path: &str, host: &str) -> http::Request<()> {
    let request = http::Request::get(format!("{}{path}", server.url));
    let request = if host.is_empty() { request } else { request.header("host", host) };
    request.body(()).expect("a request")
}

/// Sends a request and reads the whole response.
async fn whole(client: &mut H2, request: http::Request<()>) -> (u16, usize) {
    let mut client = client.clone().ready().await.expect("it is open");
    let (response, _) = client.send_request(request, true).expect("sent");
    let response = response.await.expect("answered");
    let status = response.status().as_u16();
    let (mut body, mut length) = (response.into_body(), 0);
    while let Some(data) = body.data().await {
        let data = data.expect("whole");
        length += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    (status, length)
}

#[tokio::test]
async fn an_http2_stream_whose_window_never_opens_is_reset_and_others_continue() {
    let (_home, server, tls) = secure(IMPATIENT);
    let (mut client, _connection) = http2(&server, &tls, 1_000).await;
    let (stalled, _) = client.send_request(request(&server, "/docs/swagger-ui-bundle.js", ""), true).expect("sent");
    let mut stalled = stalled.await.expect("its head needs no window").into_body();
    let started = Instant::now();
    let mut reset = None;
    while started.elapsed() < Duration::from_secs(60) && reset.is_none() {
        let (status, _) = whole(&mut client, request(&server, "/healthz", "")).await;
        assert_eq!(status, 200, "another stream of the same connection");
        // The received data is not released, so that the window stays closed.
        let next = tokio::time::timeout(Duration::from_millis(100), stalled.data()).await;
        reset = next.ok().flatten().and_then(Result::err);
    }
    assert!(reset.expect("it is reset").is_reset());
    let (status, length) = whole(&mut client, request(&server, "/docs/swagger-ui-bundle.js", "")).await;
    assert!(status == 200 && length > 1 << 20, "{length} bytes for who reads");
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_and_so_is_one_at_shutdown() {
    let (_home, server, tls) = secure(IMPATIENT);
    let (mut idle, ended) = http2(&server, &tls, 1 << 20).await;
    assert_eq!(whole(&mut idle, request(&server, "/healthz", "")).await.0, 200);
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    ended.expect("it ends by itself").expect("joined");
    let (mut client, _connection) = http2(&server, &tls, 0).await;
    let (stalled, _) = client.send_request(request(&server, "/healthz", ""), true).expect("sent");
    let stalled = stalled.await.expect("its head needs no window");
    let shaking = say(&server, "\u{16}\u{3}\u{1}");
    stops_soon(server, (stalled, shaking));
}

#[tokio::test]
async fn in_http2_the_authority_is_the_host() {
    let (_home, server, tls) = secure(LISTEN);
    let (mut client, _connection) = http2(&server, &tls, 1 << 20).await;
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    for (address, host, status) in [
        (server.url.clone(), String::new(), 200),
        (server.url.clone(), format!("127.0.0.1:{port}"), 200),
        (server.url.clone(), "evil.example".to_owned(), 403),
        (server.url.clone(), "localhost:1".to_owned(), 400),
        ("https://evil.example".to_owned(), String::new(), 403),
        ("https://evil.example".to_owned(), "localhost".to_owned(), 403),
        ("https://localhost:1".to_owned(), String::new(), 200),
    ] {
        let mut asked = request(&server, "/healthz", &host);
        *asked.uri_mut() = format!("{address}/healthz").parse().expect("an address");
        assert_eq!(whole(&mut client, asked).await.0, status, "{address} and {host:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out() {
    let (_home, server, _) = secure(IMPATIENT);
    let (answer, is_open) = rest(say(&server, "\u{16}\u{3}\u{1}"));
    assert!(answer.is_empty() && !is_open);
}
