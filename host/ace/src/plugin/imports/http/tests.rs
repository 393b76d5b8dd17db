//! The client against servers on loopback: real sockets, real TLS.

mod authorization;
mod connections;
mod http2;
mod pauses;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::address::Resolver;
use super::client::{
    Client, ClientError, Effect, Failure, FailureKind, HEADERS_MAX, Outgoing, Ping, Response, Timeouts, effect,
};
use super::target;
use super::{read_headers, read_method};
use crate::config::Http;
use crate::plugin::grants::Grants;

/// What a server does with a request.
enum Answer {
    /// Answers and waits for the next request.
    Keep(String),
    /// Answers, perhaps in part, and closes.
    Cut(String),
    /// Answers, perhaps in part, and keeps silent.
    Hang(String),
}

fn with_length(head: &str, body: &str) -> Answer {
    Answer::Keep(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `answer` is told the request's path.
    async fn start(tls: Option<TlsAcceptor>, answer: fn(&str) -> Answer) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Server { address: listener.local_addr().unwrap(), requests: Arc::default(), connections: Arc::default() };
        let (requests, connections) = (server.requests.clone(), server.connections.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, tls) = (requests.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, requests, answer).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, requests, answer).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    requests: Arc<Mutex<Vec<String>>>,
    answer: fn(&str) -> Answer,
) {
    while let Some(request) = read_request(&mut socket).await {
        let path = request.split(' ').nth(1).unwrap().to_owned();
        requests.lock().unwrap().push(request);
        let (text, then) = match answer(&path) {
            Answer::Keep(text) => (text, 0),
            Answer::Cut(text) => (text, 1),
            Answer::Hang(text) => (text, 2),
        };
        let written = socket.write_all(text.as_bytes()).await;
        if written.is_err() || socket.flush().await.is_err() {
            return;
        }
        match then {
            0 => {}
            1 => return drop(socket.shutdown().await),
            _ => std::future::pending().await,
        }
    }
}

async fn read_request(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(char::from(socket.read_u8().await.ok()?));
    }
    let length = text.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    socket.read_exact(&mut body).await.ok()?;
    Some(text + &String::from_utf8(body).unwrap())
}

/// A certificate for localhost and 127.0.0.1 in a file, and a server that shows it.
fn certificate(dir: &Path) -> (PathBuf, TlsAcceptor) {
    certificate_for(dir, &[])
}

/// The same for a server that speaks these protocols.
fn certificate_for(dir: &Path, protocols: &[&[u8]]) -> (PathBuf, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let file = dir.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (file, TlsAcceptor::from(Arc::new(config)))
}

fn settings() -> Http {
    Http { timeout: Duration::from_secs(5), max_response_bytes: 1000, ..Http::default() }
}

fn client() -> Client {
    Client::new(&settings()).unwrap()
}

fn get(url: &str) -> Outgoing {
    Outgoing {
        method: Method::GET,
        url: target::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: None,
        credential: None,
        is_named_host: true,
        span: tracing::Span::none(),
    }
}

fn post(url: &str, body: &str) -> Outgoing {
    Outgoing { method: Method::POST, body: Some(body.to_owned().into()), ..get(url) }
}

async fn send(client: &Client, outgoing: Outgoing) -> Result<Response, Failure> {
    send_within(client, outgoing, Timeouts::default()).await
}

async fn send_within(client: &Client, outgoing: Outgoing, timeouts: Timeouts) -> Result<Response, Failure> {
    let permit = client.acquire("p", timeouts, None).await?;
    client.send(permit, outgoing).await
}

/// How an exchange failed: the kind and its effect.
fn failed(outcome: Result<Response, Failure>) -> (FailureKind, Effect) {
    let effect = effect(&outcome);
    (outcome.unwrap_err().kind, effect)
}

#[tokio::test]
async fn requests_and_responses_pass_unchanged() {
    let server = Server::start(None, |path| match path {
        "/chunked" => Answer::Keep(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n".into(),
        ),
        "/zip" => with_length("200 OK\r\nContent-Encoding: gzip", "not unpacked"),
        _ => with_length("404 Not Found\r\nX-A: 1\r\nX-a: 2\r\nX-B: ", "gone"),
    })
    .await;
    let client = client();
    let mut outgoing = post(&server.url("/a?b=c"), "{}");
    outgoing.headers.append(HeaderName::from_static("x-key"), HeaderValue::from_static("v"));
    let response = send(&client, outgoing).await.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (StatusCode::NOT_FOUND, &b"gone"[..]));
    let headers: Vec<_> = response.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(headers, [("x-a", &b"1"[..]), ("x-a", b"2"), ("x-b", b""), ("content-length", b"4")]);

    assert_eq!(send(&client, get(&server.url("/chunked"))).await.unwrap().body, b"abcdefg");
    assert_eq!(send(&client, get(&server.url("/zip"))).await.unwrap().body, b"not unpacked");
    send(&client, Outgoing { method: Method::POST, ..get(&server.url("/")) }).await.unwrap();
    send(&client, post(&server.url("/"), "")).await.unwrap();
    let host = server.address;
    let expected = [
        format!("POST /a?b=c HTTP/1.1\r\nx-key: v\r\naccept: */*\r\nhost: {host}\r\ncontent-length: 2\r\n\r\n{{}}"),
        format!("GET /chunked HTTP/1.1\r\naccept: */*\r\nhost: {host}\r\n\r\n"),
        format!("GET /zip HTTP/1.1\r\naccept: */*\r\nhost: {host}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\ncontent-length: 0\r\naccept: */*\r\nhost: {host}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\ncontent-length: 0\r\naccept: */*\r\nhost: {host}\r\n\r\n"),
    ];
    assert_eq!(server.requests(), expected);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "connections are kept");
}

#[tokio::test]
async fn a_redirect_is_a_response() {
    let elsewhere = Server::start(None, |_| with_length("200 OK", "")).await;
    let server =
        Server::start(None, |path| with_length(&format!("302 Found\r\nLocation: http://{}/", &path[1..]), "")).await;
    let response = send(&client(), get(&server.url(&format!("/{}", elsewhere.address)))).await.unwrap();
    assert_eq!(response.status, StatusCode::FOUND);
    assert_eq!(response.headers["location"], format!("http://{}/", elsewhere.address));
    assert_eq!((server.requests().len(), elsewhere.connections.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_long_body_is_an_error_with_and_without_its_length() {
    let server = Server::start(None, |path| match path {
        "/promised" => Answer::Hang("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n".into()),
        "/chunked" => {
            let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
            Answer::Hang(format!("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}1\r\nx\r\n"))
        }
        "/endless" => Answer::Cut(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000))),
        _ => with_length("200 OK", &"x".repeat(1000)),
    })
    .await;
    let client = client();
    for (path, expected) in [
        ("/promised", Effect::Accepted(StatusCode::OK)),
        ("/chunked", Effect::None),
        ("/endless", Effect::Accepted(StatusCode::OK)),
    ] {
        let failure = failed(send(&client, get(&server.url(path))).await);
        assert_eq!(failure, (FailureKind::TooLarge(1000), expected), "{path}");
    }
    assert_eq!(send(&client, get(&server.url("/"))).await.unwrap().body.len(), 1000);
    let head = Outgoing { method: Method::HEAD, ..get(&server.url("/promised")) };
    assert_eq!(send(&client, head).await.unwrap().body, b"", "a HEAD promises what it does not send");
}

#[tokio::test]
async fn long_headers_are_refused() {
    let server = Server::start(None, |path| match path {
        "/many" => with_length(&format!("200 OK{}", "\r\nA: b".repeat(100)), ""),
        "/long" => with_length(&format!("200 OK\r\nA: {}", "b".repeat(70_000)), ""),
        _ => Answer::Hang(format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(1_000_000))),
    })
    .await;
    for path in ["/many", "/long", "/endless"] {
        let (kind, _) = failed(send(&client(), get(&server.url(path))).await);
        assert!(matches!(kind, FailureKind::Broken(_)), "{path}: {kind:?}");
    }
}

#[tokio::test]
async fn a_slow_server_times_out() {
    let server = Server::start(None, |path| match path {
        "/silent" => Answer::Hang(String::new()),
        _ => Answer::Hang("HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nabc".into()),
    })
    .await;
    let short = Some(Duration::from_millis(50));
    let (whole, first_byte) =
        (Timeouts { total: short, ..Timeouts::default() }, Timeouts { first_byte: short, total: None });
    for (path, timeouts, expected) in [
        ("/silent", whole, Effect::Unknown),
        ("/silent", first_byte, Effect::Unknown),
        ("/stalled", whole, Effect::Accepted(StatusCode::ACCEPTED)),
    ] {
        let failure = failed(send_within(&client(), post(&server.url(path), ""), timeouts).await);
        assert_eq!(failure, (FailureKind::TimedOut, expected), "{path}");
    }
    let settings = Http { timeout: Duration::from_millis(50), ..settings() };
    let timeouts = Timeouts { total: Some(Duration::from_secs(60)), first_byte: None };
    let failure = failed(send_within(&Client::new(&settings).unwrap(), get(&server.url("/silent")), timeouts).await);
    assert_eq!(failure.0, FailureKind::TimedOut, "the host's limit binds");
}

#[tokio::test]
async fn a_broken_connection_tells_whether_the_request_was_sent() {
    let server = Server::start(None, |path| match path {
        "/cut" => Answer::Cut(String::new()),
        "/nonsense" => Answer::Cut("SMTP ready\r\n\r\n".into()),
        _ => Answer::Cut("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nabc".into()),
    })
    .await;
    for (path, expected) in
        [("/cut", Effect::Unknown), ("/nonsense", Effect::Unknown), ("/short", Effect::Accepted(StatusCode::CREATED))]
    {
        let (kind, effect) = failed(send(&client(), post(&server.url(path), "x")).await);
        assert!(matches!(&kind, FailureKind::Broken(text) if text.starts_with("the connection broke: ")), "{kind:?}");
        assert_eq!(effect, expected, "{path}");
    }
    assert_eq!(server.requests().len(), 3, "nothing is repeated");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?key=hunter2", listener.local_addr().unwrap());
    drop(listener);
    let (kind, effect) = failed(send(&client(), post(&url, "")).await);
    assert!(matches!(&kind, FailureKind::Unconnected(text) if text.contains("refused")), "{kind:?}");
    assert!(!format!("{kind:?}").contains("hunter2"));
    assert_eq!(effect, Effect::None);
}

#[tokio::test]
async fn only_trusted_certificates_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, acceptor) = certificate(dir.path());
    let server = Server::start(Some(acceptor), |_| with_length("200 OK", "safe")).await;
    let port = server.address.port();
    let trusting = Client::new(&Http { ca_file: Some(ca_file), ..settings() }).unwrap();
    for host in ["localhost", "127.0.0.1"] {
        let response = send(&trusting, get(&format!("https://{host}:{port}/"))).await.unwrap();
        assert_eq!(response.body, b"safe");
    }
    let (kind, effect) = failed(send(&client(), post(&format!("https://localhost:{port}/"), "x")).await);
    assert!(matches!(&kind, FailureKind::Unconnected(text) if text.contains("certificate")), "{kind:?}");
    assert_eq!(effect, Effect::None);
    let to = server.address;
    let wrong_name = Resolver::new(move |_| Ok(vec![to]));
    let trusting = Client::with_resolver(&settings(), wrong_name).unwrap();
    assert!(send(&trusting, get(&format!("https://localhost.:{port}/"))).await.is_err());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, expected) in [("", "it has no certificate"), (nonsense, "http: ca-file ")] {
        std::fs::write(&file, content).unwrap();
        let error = Client::new(&Http { ca_file: Some(file.clone()), ..settings() }).err().unwrap();
        assert!(matches!(error, ClientError::Trust(_)));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn names_of_private_addresses_are_rejected_when_connecting() {
    let server = Server::start(None, |_| with_length("200 OK", "")).await;
    let lookups = Arc::new(AtomicUsize::new(0));
    let (to, count) = (server.address, lookups.clone());
    let resolver = Resolver::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(vec![to])
    });
    let client = Client::with_resolver(&settings(), resolver).unwrap();
    let url = |host: &str| format!("http://{host}:{}/?key=hunter2", to.port());
    for host in ["api.example.com", "x.localhost", "localhost.", "metadata.google.internal"] {
        let (kind, effect) = failed(send(&client, post(&url(host), "")).await);
        let expected = format!(
            "the address of {host} is 127.0.0.1, a loopback address; a plugin can use it only if a grant contains the address itself"
        );
        assert_eq!((kind, effect), (FailureKind::Denied(expected), Effect::None));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    // The checked address is the one that is connected to: one look-up per connection.
    lookups.store(0, Ordering::SeqCst);
    for _ in 0..2 {
        send(&client, get(&url("localhost"))).await.unwrap();
    }
    assert_eq!((server.connections.load(Ordering::SeqCst), lookups.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn an_unknown_name_is_a_connection_error() {
    let resolver = Resolver::new(|_| Err(std::io::Error::other("no such host")));
    let client = Client::with_resolver(&settings(), resolver).unwrap();
    let (kind, _) = failed(send(&client, get("https://nowhere.example/")).await);
    assert_eq!(kind, FailureKind::Unconnected("connecting failed: no such host".into()));
    let client = Client::with_resolver(&settings(), Resolver::new(|_| Ok(Vec::new()))).unwrap();
    let (kind, _) = failed(send(&client, get("https://nowhere.example/")).await);
    assert!(matches!(kind, FailureKind::Unconnected(_)), "{kind:?}");
}

#[test]
fn methods_are_upper_case_tokens() {
    for name in ["GET", "POST", "M-SEARCH", "PROPFIND"] {
        assert_eq!(read_method(name).unwrap().as_str(), name);
    }
    for name in ["", "get", "Post", "GET /x", "GET\r\nX:", "CONNECT", "TRACE", "GET1", &"A".repeat(33)] {
        assert!(read_method(name).is_err(), "{name:?}");
    }
}

fn headers(list: &[(&str, &str)]) -> Result<HeaderMap, String> {
    read_headers(list.iter().map(|(name, value)| (*name, value.as_bytes())))
}

#[test]
fn headers_are_sent_as_given_or_not_at_all() {
    let read = headers(&[("X-Key", "a\tb"), ("x-key", "grüße"), ("Authorization", "Bearer k")]).unwrap();
    let pairs: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let expected = [("x-key", &b"a\tb"[..]), ("x-key", "grüße".as_bytes()), ("authorization", b"Bearer k")];
    assert_eq!(pairs, expected);

    for name in ["Host", "content-length", "CONNECTION", "Transfer-Encoding", "Upgrade", "TE", "Expect", "Keep-Alive"] {
        assert_eq!(
            headers(&[(name, "1")]).unwrap_err(),
            format!("the header {} is set by the host", name.to_lowercase())
        );
    }
    for name in ["", "a b", "a:", "a\r\nb", "ä"] {
        assert!(headers(&[(name, "1")]).unwrap_err().contains("cannot be a header's name"), "{name:?}");
    }
    for value in ["hunter2\r\nHost: x", "hunter2\n", "hunter2\0", "hunter2\u{7f}"] {
        let refused = headers(&[("x", value)]).unwrap_err();
        assert!(refused.contains("line break") && !refused.contains("hunter2"), "{refused}");
    }
    assert!(headers(&[("x", "1"); 101]).unwrap_err().contains("more than 100"));
    assert!(headers(&[("x", &"1".repeat(70_000))]).unwrap_err().contains("longer than 65536"));
}

/// Whether these grants, as ace.toml writes them, let a guest have a URL.
fn is_granted(grants: &[&str], url: &str) -> bool {
    let list = grants.iter().map(|grant| format!("{grant:?}")).collect::<Vec<_>>().join(", ");
    let config =
        crate::config::Config::read(&format!("[plugins.p]\ngrants = {{ http = [{list}] }}"), None, []).unwrap();
    target::parse(url).is_ok_and(|url| Grants::open(&config.plugins["p"]).unwrap().http(&url).is_ok())
}

#[test]
fn no_trick_leads_out_of_a_grant() {
    let grants = ["https://API.example.com:443/v1/", "https://bücher.example/", "http://127.0.0.1:8080/hook"];
    let allowed = [
        "https://api.example.com/v1/",
        "https://API.EXAMPLE.COM:443/v1/send?to=a@b/../c",
        "https://api.example.com/v1",
        "https://api.example.com/v1/a%20b;x=1",
        "https://xn--bcher-kva.example/any",
        "https://BÜCHER.example/any",
        "http://127.0.0.1:8080/hook/1",
        "http://0x7f000001:8080/hook",
        "http://2130706433:8080/hook",
        "http://0177.1:8080/hook",
    ];
    for url in allowed {
        assert!(is_granted(&grants, url), "{url}");
    }
    let refused = [
        "http://api.example.com/v1/",
        "https://api.example.com/v2",
        "https://api.example.com/v1x",
        "https://api.example.com/v1/../v2",
        "https://api.example.com/v1/%2e%2e/v2",
        "https://api.example.com/v1/%252e%252e/v2",
        "https://api.example.com/v1/..;/v2",
        "https://api.example.com/v1%2f..%2fv2",
        "https://api.example.com/v1/..%5cv2",
        "https://api.example.com/v1\\..\\v2",
        "https://api.example.com\\@evil.example/v1/",
        "https://api.example.com:8443/v1/",
        "https://api.example.com@evil.example/v1/",
        "https://evil.example/v1/https://api.example.com/v1/",
        "https://evil.example#@api.example.com/v1/",
        "https://evil.example?@api.example.com/v1/",
        "https://api.example.com.evil.example/v1/",
        "https://api.example.com./v1/",
        "https://xapi.example.com/v1/",
        "https://buecher.example/",
        "http://127.0.0.1/hook",
        "http://127.0.0.2:8080/hook",
        "http://localhost:8080/hook",
        "http://[::1]:8080/hook",
        "http://[::ffff:127.0.0.1]:8080/hook",
        "http://169.254.169.254/latest/meta-data/",
        "https://",
        "",
    ];
    for url in refused {
        assert!(!is_granted(&grants, url), "{url}");
    }
    assert!(!is_granted(&[], "https://api.example.com/"));
}
