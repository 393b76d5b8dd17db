//! Which hosts, origins and proxies are accepted.

use ace::config::ServerTls;
use axum::body::Body;
use axum::http::StatusCode;

use super::*;

/// The result of `GET path` with these headers: the status if it is rejected.
fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> Result<(), StatusCode> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let admission = Admission::new(Operations::of(&utoipa::openapi::OpenApi::default()), server);
    admission.check(&request).map_err(|error| axum::response::IntoResponse::into_response(error).status())
}

fn hosts(names: &[&str]) -> Vec<Authority> {
    names.iter().map(|name| Authority::parse(name).expect("a host")).collect()
}

fn open(names: &[&str]) -> Server {
    Server { hosts: hosts(names), ..Server::default() }
}

fn guarded(names: &[&str]) -> Server {
    Server { tokens_file: Some("tokens.json".into()), ..open(names) }
}

const FORBIDDEN: Result<(), StatusCode> = Err(StatusCode::FORBIDDEN);
const BAD: Result<(), StatusCode> = Err(StatusCode::BAD_REQUEST);

#[test]
fn without_tokens_a_request_is_for_this_machine() {
    let host = |value: &str| ask(&open(&[]), "/", &[("host", value)]);
    for value in ["localhost", "LOCALHOST:8025", "localhost.", "127.0.0.1:9000", "[::1]:8025", "[::ffff:127.0.0.1]"] {
        assert_eq!(host(value), Ok(()), "{value}");
    }
    for value in ["evil.example", "127.0.0.1.nip.io:8025", "localhost.evil.example", "0.0.0.0:8025", "[::]:8025"] {
        assert_eq!(host(value), FORBIDDEN, "{value}");
    }
    for value in
        ["", "user@localhost", "127.1", "2130706433", "local%68ost", "localhost:port", "localhost, evil.example"]
    {
        assert_eq!(host(value), BAD, "{value}");
    }
    assert_eq!(ask(&open(&[]), "/", &[]), BAD, "no Host");
    assert_eq!(ask(&open(&[]), "/", &[("host", "localhost"), ("host", "localhost")]), BAD, "two of them");
    assert_eq!(ask(&guarded(&[]), "/", &[("host", "a"), ("host", "b")]), BAD, "two of them");
}

#[test]
fn the_request_target_and_host_must_be_the_same() {
    let whole = |address: &str, host: &[(&str, &str)]| ask(&open(&["ace.lan"]), address, host);
    assert_eq!(whole("http://localhost:8025/healthz", &[]), Ok(()));
    assert_eq!(whole("http://localhost:8025/healthz", &[("host", "LOCALHOST:8025")]), Ok(()));
    assert_eq!(whole("http://localhost/", &[("host", "localhost:80")]), Ok(()));
    assert_eq!(whole("http://localhost:8025/", &[("host", "localhost")]), BAD);
    assert_eq!(whole("http://localhost:8025/", &[("host", "ace.lan:8025")]), BAD);
    assert_eq!(whole("http://localhost:8025/", &[("host", "evil.example")]), FORBIDDEN);
    assert_eq!(whole("http://evil.example/", &[("host", "localhost")]), FORBIDDEN);
    assert_eq!(whole("http://user:secret@localhost/", &[]), BAD);
}

#[test]
fn listed_hosts_are_answered_and_others_only_with_tokens() {
    let listed = ["ace.example.org", "other.example:8443", "[2001:db8::1]"];
    for server in [open(&listed), guarded(&listed)] {
        let host = |value: &str| ask(&server, "/", &[("host", value)]);
        for value in
            ["ace.example.org", "ACE.example.org.:8025", "other.example:8443", "[2001:DB8:0::1]:1", "localhost"]
        {
            assert_eq!(host(value), Ok(()), "{value}");
        }
        for value in ["a.ace.example.org", "other.example", "other.example:443", "[2001:db8::2]", "10.0.0.7:8025"] {
            assert_eq!(host(value), FORBIDDEN, "{value}");
        }
    }
    for value in ["10.0.0.7:8025", "ace.namespace.svc.cluster.local", "_", ""] {
        assert_eq!(ask(&guarded(&[]), "/", &[("host", value)]), Ok(()), "{value}");
    }
    let proxied = [("host", "ace"), ("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("via", "1.1 p")];
    assert_eq!(ask(&guarded(&[]), "/", &proxied), Ok(()));
    assert_eq!(ask(&guarded(&[]), "/", &[]), Ok(()), "a probe of HTTP/1.0");
}

#[test]
fn without_tokens_proxied_requests_are_rejected() {
    for (name, value) in [
        ("forwarded", "for=10.0.0.1"),
        ("via", "1.1 proxy"),
        ("x-forwarded-for", ""),
        ("X-Forwarded-Proto", "https"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-anything", "1"),
        ("x-forwarded", "1"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(ask(&open(&["ace.lan"]), "/", &[("host", "localhost"), (name, value)]), FORBIDDEN, "{name}");
    }
}

#[test]
fn requests_from_other_sites_are_rejected() {
    let servers = [open(&[]), guarded(&[]), guarded(&["ace.example.org"])];
    for server in &servers {
        let from = |name: &str, value: &str| ask(server, "/", &[("host", "localhost:8025"), (name, value)]);
        for origin in ["http://localhost:8025", "http://LOCALHOST:8025"] {
            assert_eq!(from("origin", origin), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:8025",
            "http://localhost:8025/",
            "http://localhost:8025@evil.example",
            "http://localhost:8025 http://evil.example",
            "localhost:8025",
            "chrome-extension://abcdef",
            "file://",
        ] {
            assert_eq!(from("origin", origin), FORBIDDEN, "{origin}");
        }
        for site in ["cross-site", "same-site", "SAME-ORIGIN", "", "other", "same-origin, cross-site"] {
            assert_eq!(from("sec-fetch-site", site), FORBIDDEN, "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(from("sec-fetch-site", site), Ok(()), "{site}");
        }
        let two = [("host", "localhost:8025"), ("origin", "http://localhost:8025"), ("origin", "http://evil.example")];
        assert_eq!(ask(server, "/", &two), FORBIDDEN);
    }
}

#[test]
fn behind_a_proxy_the_servers_own_page_works() {
    let behind = [("host", "10.0.0.7:8025"), ("origin", "https://ace.example.org"), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(&guarded(&[]), "/", &behind), Ok(()), "the browser vouches for it");
    let behind = [("host", "127.0.0.1:8025"), ("origin", "https://ace.example.org")];
    assert_eq!(ask(&guarded(&["ace.example.org"]), "/", &behind), Ok(()), "a listed name");
    assert_eq!(ask(&guarded(&["ace.example.org:8443"]), "/", &behind), FORBIDDEN, "on another port");
    assert_eq!(ask(&open(&["ace.example.org"]), "/", &behind), FORBIDDEN, "without tokens there is no proxy");
    let through_tls = [("host", "ace.example.org"), ("origin", "https://ace.example.org")];
    assert_eq!(ask(&guarded(&[]), "/", &through_tls), Ok(()));
    assert_eq!(ask(&open(&["ace.example.org"]), "/", &through_tls), FORBIDDEN, "another scheme is another origin");
    let tls = ServerTls { certificate: "cert.pem".into(), key: "key.pem".into() };
    let server = Server { tls: Some(tls), ..open(&["ace.example.org"]) };
    assert_eq!(ask(&server, "/", &through_tls), Ok(()));
    let contradictory = [("host", "localhost"), ("origin", "null"), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(&open(&[]), "/", &contradictory), FORBIDDEN);
}
