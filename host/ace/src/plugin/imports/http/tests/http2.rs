//! Servers that speak HTTP/2, over TLS on loopback.

use bytes::Bytes;
use h2::server::SendResponse;

use super::*;

/// What came to a server.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<http::Request<Vec<u8>>>>,
}

/// A server for HTTP/2 alone; `answer` is told the number of the connection, from 1, and the request's path.
async fn start(acceptor: TlsAcceptor, answer: fn(usize, &str) -> Reply) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (seen, acceptor) = (shared.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                serve_connection(socket, number, seen, answer).await;
            });
        }
    });
    (address, seen)
}

/// What a server does with a request.
enum Reply {
    /// 200, and the path as the body.
    Path,
    /// The connection is shut down first: the request was not processed.
    GoAway,
    /// More headers than anybody needs.
    ManyHeaders,
}

async fn serve_connection(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    number: usize,
    seen: Arc<Seen>,
    answer: fn(usize, &str) -> Reply,
) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        match answer(number, &path) {
            Reply::GoAway => {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
            }
            reply => {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let request = whole(request).await;
                    seen.requests.lock().unwrap().push(request);
                    // Long enough for all requests to be there at once.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    send_reply(&mut respond, &reply, path);
                });
            }
        }
    }
}

async fn whole(request: http::Request<h2::RecvStream>) -> http::Request<Vec<u8>> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = stream.data().await {
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        body.extend_from_slice(&chunk);
    }
    http::Request::from_parts(head, body)
}

fn send_reply(respond: &mut SendResponse<Bytes>, reply: &Reply, path: String) {
    let mut response = http::Response::builder().header("apns-id", "x");
    if matches!(reply, Reply::ManyHeaders) {
        for n in 0..=HEADERS_MAX {
            response = response.header(format!("x-{n}"), "1");
        }
    }
    let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
    stream.send_data(path.into(), true).unwrap();
}

/// A client that trusts the server's certificate, and that server for HTTP/2 alone.
async fn pair(answer: fn(usize, &str) -> Reply) -> (Arc<Client>, String, Arc<Seen>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, acceptor) = certificate_for(dir.path(), &[b"h2"]);
    let (address, seen) = start(acceptor, answer).await;
    let settings = Http { ca_file: Some(ca_file), requests_per_plugin: 64, ..settings() };
    (Arc::new(Client::new(&settings).unwrap()), format!("https://127.0.0.1:{}", address.port()), seen, dir)
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let (client, base, seen, _dir) = pair(|_, _| Reply::Path).await;
    let requests: Vec<_> = (0..64)
        .map(|n| {
            let (client, outgoing) = (client.clone(), post(&format!("{base}/{n}"), &format!("body {n}")));
            tokio::spawn(async move { send(&client, outgoing).await })
        })
        .collect();
    for (n, request) in requests.into_iter().enumerate() {
        let response = request.await.unwrap().unwrap();
        assert_eq!((response.status, response.body), (StatusCode::OK, format!("/{n}").into_bytes()));
        assert_eq!(response.headers["apns-id"], "x");
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    let mut bodies: Vec<_> = seen.requests.lock().unwrap().iter().map(|r| r.body().clone()).collect();
    bodies.sort();
    let mut expected: Vec<_> = (0..64).map(|n| format!("body {n}").into_bytes()).collect();
    expected.sort();
    assert_eq!(bodies, expected, "each came once");
}

#[tokio::test]
async fn a_request_over_http2_has_the_headers_of_the_guest_alone() {
    let (client, base, seen, _dir) = pair(|_, _| Reply::Path).await;
    let mut outgoing = Outgoing { method: Method::POST, ..get(&format!("{base}/3/device/x?y=z")) };
    outgoing.headers.append(HeaderName::from_static("apns-topic"), HeaderValue::from_static("t"));
    send(&client, outgoing).await.unwrap();
    let requests = seen.requests.lock().unwrap();
    assert_eq!(requests[0].uri().to_string(), format!("{base}/3/device/x?y=z"));
    let headers: Vec<_> = requests[0].headers().iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(headers, [("apns-topic", &b"t"[..]), ("content-length", b"0"), ("accept", b"*/*")]);
}

#[tokio::test]
async fn a_server_that_shuts_down_is_asked_again_over_a_new_connection() {
    let (client, base, seen, _dir) =
        pair(|number, path| if number == 1 && path == "/second" { Reply::GoAway } else { Reply::Path }).await;
    assert_eq!(send(&client, post(&format!("{base}/first"), "a")).await.unwrap().body, b"/first");
    assert_eq!(send(&client, post(&format!("{base}/second"), "b")).await.unwrap().body, b"/second");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    let bodies: Vec<_> = seen.requests.lock().unwrap().iter().map(|r| r.body().clone()).collect();
    assert_eq!(bodies, [b"a", b"b"], "the request was processed once");
}

#[tokio::test]
async fn a_request_that_was_never_processed_was_not_sent() {
    let (client, base, seen, _dir) = pair(|_, _| Reply::GoAway).await;
    let (kind, effect) = failed(send(&client, post(&format!("{base}/"), "a")).await);
    assert!(matches!(&kind, FailureKind::Unconnected(why) if why.contains("did not process")), "{kind:?}");
    assert_eq!(effect, Effect::None);
    assert!(seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn too_many_headers_are_refused_over_http2_too() {
    let (client, base, _seen, _dir) = pair(|_, _| Reply::ManyHeaders).await;
    let (kind, _) = failed(send(&client, get(&format!("{base}/"))).await);
    assert!(matches!(&kind, FailureKind::Broken(why) if why.contains("headers")), "{kind:?}");
}

/// A server that takes a connection and then answers nothing, not even a PING.
#[tokio::test]
async fn a_dead_connection_is_noticed_by_ping() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, acceptor) = certificate_for(dir.path(), &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = acceptor.accept(socket).await.unwrap();
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        socket.write_all(&SETTINGS).await.unwrap();
        socket.flush().await.unwrap();
        let mut ignored = [0; 1024];
        while socket.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
    });
    let settings = Http { ca_file: Some(ca_file), timeout: Duration::from_secs(30), ..settings() };
    let ping = Ping { interval: Duration::from_millis(50), timeout: Duration::from_millis(100) };
    let client = Client::build(&settings, Resolver::system(), ping).unwrap();
    let began = std::time::Instant::now();
    let (kind, effect) = failed(send(&client, post(&format!("{base}/"), "a")).await);
    assert!(matches!(kind, FailureKind::Broken(_)), "{kind:?}");
    assert_eq!(effect, Effect::Unknown);
    assert!(began.elapsed() < Duration::from_secs(10), "not only when the request's own time is over");
}
