//! Admission of requests: names of the server, pages of other sites, proxies, and types of bodies. Uses raw sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, home, note};
use crate::support::{Home, assert_text};

const TOKENS: &str = "[server]\nlisten = '127.0.0.1:0'\ntokens-file = 'tokens.json'\n";

/// Sends a request and reads to the end. Returns the status, the head and the body of the response.
pub fn speak(server: &Server, request: impl AsRef<[u8]>) -> (u16, String, String) {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(request.as_ref()).expect("written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// The status of a request without a body that closes its connection.
fn ask(server: &Server, line: &str, headers: &str) -> u16 {
    speak(server, format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")).0
}

fn with_token(toml: &str) -> (Home, String) {
    let home = home(toml);
    let token = home.ace(&["token", "create", "all", "--scope", "send,read,admin"]).run().ok().stdout.trim().to_owned();
    (home, token)
}

#[tokio::test]
async fn without_tokens_every_route_is_only_for_this_machine() {
    let home = home("");
    let server = Server::start(&home);
    let port = server.url.rsplit_once(':').expect("a port").1;
    for path in ["/healthz", "/readyz", "/v1/queue", "/v1/events", "/metrics", "/docs/", "/openapi.json", "/none"] {
        let is = |headers: &str| ask(&server, &format!("GET {path}"), headers);
        for host in ["evil.example".to_owned(), format!("rebound.evil.example:{port}"), "0.0.0.0".to_owned()] {
            assert_eq!(is(&format!("Host: {host}\r\n")), 403, "{path} for {host}");
        }
        assert_eq!(is(""), 400, "{path} for nobody");
        assert_eq!(is("Host: localhost\r\nHost: localhost\r\n"), 400, "{path} for two");
        assert_eq!(is("Host: localhost\r\nOrigin: null\r\n"), 403, "{path} from nowhere");
        assert_eq!(is("Host: localhost\r\nOrigin: http://localhost:1\r\n"), 403, "{path} from another port");
        assert_eq!(is("Host: localhost\r\nSec-Fetch-Site: same-site\r\n"), 403, "{path} from a neighbour");
        assert_eq!(is("Host: localhost\r\nX-Forwarded-For: 10.0.0.1\r\n"), 403, "{path} through a proxy");
    }
    for host in ["localhost", "LOCALHOST.", "127.0.0.1", "[::1]:9"] {
        assert_eq!(ask(&server, "GET /healthz", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    let own = format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(ask(&server, "GET /v1/queue", &own), 200);
    assert_eq!(ask(&server, "GET http://evil.example/healthz", "Host: localhost\r\n"), 403);
    assert_eq!(ask(&server, &format!("GET http://localhost:{port}/healthz"), &own), 200);
    for (line, status) in [
        ("CONNECT evil.example:443", 403),
        ("CONNECT localhost:443", 400),
        ("OPTIONS *", 404),
        ("OPTIONS /v1/messages", 405),
        ("TRACE /healthz", 405),
        ("HEAD /healthz", 200),
    ] {
        assert_eq!(ask(&server, line, "Host: localhost\r\n"), status, "{line}");
    }
    let upgrade = "Host: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\nOrigin: http://evil.example\r\n";
    assert_eq!(ask(&server, "GET /v1/events", upgrade), 403);
    let preflight = "Host: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: PUT\r\n";
    assert_eq!(ask(&server, "OPTIONS /v1/keyvalue/b/k", preflight), 403);
    assert_eq!(speak(&server, "GET /healthz HTTP/1.0\r\n\r\n").0, 400);
}

#[tokio::test]
async fn with_tokens_probes_and_proxies_work() {
    let (home, token) = with_token(TOKENS);
    let server = Server::start(&home);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for host in ["ace.example.org", "10.0.0.7:8025", "ace_default"] {
        assert_eq!(ask(&server, "GET /healthz", &format!("Host: {host}\r\n")), 200, "{host}");
        let proxied =
            format!("Host: {host}\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.1 p\r\nForwarded: for=x\r\n{bearer}");
        assert_eq!(ask(&server, "GET /v1/queue", &proxied), 200, "{host}");
    }
    assert_eq!(ask(&server, "GET /v1/queue", &format!("Host: a\r\nOrigin: http://evil.example\r\n{bearer}")), 403);

    let (home, token) = with_token(&format!("{TOKENS}hosts = ['ace.example.org', 'other.example:8443']\n"));
    let server = Server::start(&home);
    let get = |host: &str| ask(&server, "GET /v1/queue", &format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n"));
    let asked = ["Ace.Example.org", "other.example:8443", "localhost", "other.example", "10.0.0.7"].map(get);
    assert_eq!(asked, [200, 200, 200, 403, 403]);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let home = home("");
    let server = Server::start(&home);
    let message = note(1, json!({})).to_string();
    let post = |path: &str, headers: &str, body: &str| {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        speak(&server, format!("{head}{headers}\r\n{body}"))
    };
    // What a form or a script can send without a preflight request (https://fetch.spec.whatwg.org/#simple-header).
    for kind in [
        "Content-Type: text/plain\r\n",
        "Content-Type: text/plain; application/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "",
    ] {
        for path in
            ["/v1/messages", "/v1/batches", "/v1/keyvalue", "/v1/suppressions", "/v1/reload", "/v1/erase?user=7"]
        {
            let (status, head, body) = post(path, kind, &message);
            assert_eq!(status, 415, "{path} with {kind:?}: {body}");
            assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        }
    }
    let coded = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let (status, head, _) = post("/v1/messages", coded, &message);
    assert_eq!((status, head.contains("accept-encoding: identity")), (415, true), "{head}");
    let chunked =
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let chunked = format!("{chunked}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    assert_eq!(speak(&server, chunked).0, 501);
    assert_eq!(server.get("/v1/messages").await.1["messages"], json!([]), "none of them came in");

    let valid = "Content-Type: Application/JSON; charset=UTF-8\r\nContent-Encoding: identity\r\n";
    assert_eq!(post("/v1/messages?wait=60", valid, &message).0, 200);
    let put = |kind: &'static str| {
        let put = server.bare(Method::PUT, "/v1/keyvalue/b/k").header("content-type", kind).body("x");
        async { server.ask(put).await.0 }
    };
    assert_eq!(put("application/octet-stream").await, StatusCode::NO_CONTENT);
    assert_eq!(put("text/plain").await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(server.ask(server.bare(Method::POST, "/v1/reload")).await.0, StatusCode::OK, "no body needs no type");
    let (status, problem) = server.post("/v1/batches/00000000-0000-0000-0000-000000000001/cancel?limit=1", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_text(&problem["detail"], "unknown query parameter \"limit\"");
}

#[tokio::test]
async fn each_route_describes_the_bodies_that_it_accepts() {
    let home = home("");
    let server = Server::start(&home);
    let (_, described) = server.get("/openapi.json").await;
    let types = |path: &str, method: &str| {
        let content = described["paths"][path][method]["requestBody"]["content"].as_object();
        content.map(|content| content.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(types("/v1/messages", "post"), ["application/json"]);
    assert_eq!(types("/v1/batches", "post"), ["application/x-ndjson"]);
    assert_eq!(types("/v1/keyvalue", "post"), ["application/x-ndjson"]);
    assert_eq!(types("/v1/keyvalue/{bucket}/{key}", "put"), ["application/octet-stream"]);
    assert!(described["paths"]["/v1/messages"]["post"]["responses"]["415"].is_object());
}

#[tokio::test]
async fn responses_cannot_be_framed_or_sniffed() {
    let home = home("");
    let server = Server::start(&home);
    for path in
        ["/docs/", "/docs/swagger-ui-bundle.js", "/docs/none", "/openapi.json", "/healthz", "/v1/queue", "/none"]
    {
        let response = server.bare(Method::GET, path).send().await.expect("answered");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
        if response.status() == StatusCode::OK && path.starts_with("/docs") {
            let policy = response.headers()["content-security-policy"].to_str().expect("text");
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(response.headers()["x-frame-options"], "DENY", "{path}");
        }
    }
    let page = server.bare(Method::GET, "/docs/").send().await.expect("answered").text().await.expect("text");
    let scripts = page.matches("<script").count();
    assert!(scripts > 0 && page.matches("<script src=\"./").count() == scripts, "the policy allows no other: {page}");
    let events = server.bare(Method::GET, "/v1/events").send().await.expect("answered");
    assert_eq!(events.headers()["x-accel-buffering"], "no");
}

#[tokio::test]
async fn only_authorized_clients_see_details_of_plugins() {
    let (home, token) = with_token(TOKENS);
    let send = home.ace(&["token", "create", "sender", "--scope", "send"]).run().ok().stdout;
    home.file("plugins/secret_partner.wasm", "no component");
    let server = Server::start(&home);
    let ready = async |token: Option<&str>| {
        let request = server.bare(Method::GET, "/readyz");
        let request = match token {
            Some(token) => request.bearer_auth(token.trim()),
            None => request,
        };
        let (status, ready): (_, Value) = server.ask(request).await;
        assert_eq!((status, &ready["degraded"][0]["kind"]), (StatusCode::OK, &json!("plugin")), "{ready}");
        ready.to_string()
    };
    for token in [None, Some("ace_nonsense"), Some(send.as_str())] {
        let told = ready(token).await;
        assert!(!told.contains("secret_partner") && told.contains("`read`"), "{told}");
    }
    assert!(ready(Some(&token)).await.contains("secret_partner"));
}
