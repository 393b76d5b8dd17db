//! HTTP requests of plugins, by `http.fetch` and by wasi:http: the same grants, the same client, the same limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Done, Home, assert_text, channel, message};

/// A web server that answers by path.
pub struct Web {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    heads: Arc<Mutex<Vec<Head>>>,
    /// The maximum number of connections that were open at once.
    peak: Arc<AtomicUsize>,
}

impl Web {
    pub fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let web = Web {
            address: listener.local_addr().expect("bound"),
            requests: Arc::default(),
            heads: Arc::default(),
            peak: Arc::default(),
        };
        let (requests, peak, open) = (web.requests.clone(), web.peak.clone(), Arc::new(AtomicUsize::new(0)));
        let heads = web.heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                peak.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (requests, heads, open) = (requests.clone(), heads.clone(), open.clone());
                std::thread::spawn(move || {
                    while answer(&stream, &requests, &heads).is_some() {}
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        web
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The lines and bodies of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no thread broke").clone()
    }

    /// The headers `Authorization` of the requests so far.
    pub fn authorizations(&self) -> Vec<String> {
        self.heads().iter().filter_map(|head| head.header("authorization")).map(str::to_owned).collect()
    }

    /// The requests so far, without their bodies.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().expect("no thread broke").clone()
    }
}

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Head {
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// Answers one request; `None` at the end of the connection.
fn answer(stream: &TcpStream, requests: &Mutex<Vec<String>>, heads: &Mutex<Vec<Head>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut head = Head { target: target.clone(), headers: Vec::new() };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        head.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = head.header("content-length").map_or(Ok(0), str::parse).ok()?;
    let authorization = head.header("authorization").map(str::to_owned);
    heads.lock().expect("no thread broke").push(head);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = format!("{} {}", line.trim_end().trim_end_matches(" HTTP/1.1"), String::from_utf8_lossy(&body));
    requests.lock().expect("no thread broke").push(request.trim_end().to_owned());
    let send = |head: &str, body: &str| {
        let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        (&*stream).write_all(text.as_bytes()).ok()
    };
    if let Some((_, to)) = target.split_once("?to=") {
        // A credential may have added a parameter.
        let to = to.split('&').next().unwrap_or_default();
        return send(&format!("307 Temporary Redirect\r\nLocation: {to}"), "");
    }
    match target.as_str() {
        "/token" => {
            let tokens =
                requests.lock().expect("no thread broke").iter().filter(|r| r.starts_with("POST /token")).count();
            let body = json!({"access_token": format!("token-{tokens}"), "token_type": "Bearer", "expires_in": 3600});
            send("200 OK\r\nContent-Type: application/json", &body.to_string())
        }
        "/revoked" => send("400 Bad Request\r\nContent-Type: application/json", r#"{"error":"invalid_client"}"#),
        "/expects/token-2" if authorization.as_deref() != Some("Bearer token-2") => send("401 Unauthorized", "old"),
        "/refused" => send("401 Unauthorized", "who are you?"),
        "/away" => send("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        "/long" => send("200 OK", &"x".repeat(5000)),
        "/big" => send("200 OK", &"x".repeat(1000)),
        "/busy" => send("503 Busy", "later"),
        "/cut" => None,
        "/slow" => {
            std::thread::sleep(Duration::from_secs(60));
            None
        }
        "/late" => {
            std::thread::sleep(Duration::from_millis(100));
            send("200 OK", "at last")
        }
        _ => send("202 Accepted", "taken"),
    }
}

/// A home with one of the probes and these grants.
fn home(probe: &str, grants: &str, toml: &str) -> Home {
    let home = Home::empty();
    home.guest(probe, probe);
    home.config(&format!(
        "[http]\nmax-response-bytes = 2000\n[plugins.{probe}]\ngrants = {{ http = [{grants}] }}\n{toml}"
    ));
    home
}

pub fn send(home: &Home, contexts: &[Value]) -> Done {
    let one = |context: &Value| message("note", json!({"context": context})).to_string();
    let lines: Vec<String> = contexts.iter().map(one).collect();
    let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
    home.ace(&arguments).env("ACE_LOG", "warn").input(lines.join("\n")).run()
}

/// The result of the probe, which is a policy.
pub fn found(line: &Value) -> &Value {
    let reason = &line["report"]["policies"][0]["result"]["deny"][0]["reason"];
    assert!(reason.is_string(), "{line:#}");
    reason
}

#[test]
fn only_a_granted_url_is_fetched() {
    let web = Web::start();
    let home = home("http_probe", &format!("'{}', 'http://localhost:{}/x'", web.url("/in"), web.address.port()), "");
    let cases = [
        (json!({"url": web.url("/in/a?b=c")}), "202 taken"),
        (json!({"url": web.url("/in"), "method": "POST", "body": "hi"}), "202 taken"),
        (json!({"url": format!("http://localhost:{}/x", web.address.port())}), "202 taken"),
        (json!({"url": web.url("/in/..%2fout")}), "invalid: the URL's path contains a dot segment"),
        (json!({"url": web.url("/inner?key=hunter2")}), "denied: not granted; the operator can write"),
        (
            json!({"url": "http://169.254.169.254/latest/meta-data/"}),
            "http = [\"http://169.254.169.254/latest/meta-data/\"]",
        ),
        (json!({"url": web.url("/in"), "method": "get"}), "invalid: this method cannot be sent"),
        (
            json!({"url": web.url("/in"), "headers": [["Host", "evil.example"]]}),
            "invalid: the header host is set by the host",
        ),
        (
            json!({"url": web.url("/in"), "headers": [["X", "a\r\nY: b"]]}),
            "invalid: the header x contains a line break",
        ),
    ];
    let contexts: Vec<Value> = cases.iter().map(|(fetch, _)| json!({"fetch": fetch})).collect();
    let done = send(&home, &contexts);
    for ((fetch, expected), line) in cases.iter().zip(done.lines()) {
        assert!(found(&line).as_str().is_some_and(|text| text.contains(expected)), "{fetch}: {}", found(&line));
    }
    assert!(!format!("{done:?}").contains("hunter2"), "{done:?}");
    assert_eq!(web.requests(), ["GET /in/a?b=c", "POST /in hi", "GET /x"]);
    done.says("A host call was denied: http: not granted");
}

#[test]
fn the_behaviour_of_the_server_is_reported() {
    let web = Web::start();
    let home = home("http_probe", &format!("'{}'", web.url("/")), "limits = { call-timeout = '900ms' }");
    let cases = [
        (json!({"url": web.url("/away")}), "302 "),
        (json!({"url": web.url("/long")}), "longer than 2000"),
        (json!({"url": web.url("/busy")}), "503 later"),
        (json!({"url": web.url("/cut")}), "connection: the connection broke: "),
        (json!({"url": web.url("/slow"), "timeout_ms": 50}), "timed out"),
    ];
    let contexts: Vec<Value> = cases.iter().map(|(fetch, _)| json!({"fetch": fetch})).collect();
    for ((fetch, expected), line) in cases.iter().zip(send(&home, &contexts).lines()) {
        assert!(found(&line).as_str().is_some_and(|text| text.contains(expected)), "{fetch}: {}", found(&line));
    }
    assert_eq!(web.requests().len(), cases.len(), "nothing is repeated or followed");
    // The limit of the whole call applies, whatever the guest requests.
    let line = &send(&home, &[json!({"fetch": {"url": web.url("/slow")}})]).lines()[0];
    assert_eq!(line["report"]["policies"][0]["broken"]["fault"]["kind"], "call_timeout", "{line:#}");
}

#[test]
fn a_dry_call_only_reads() {
    let web = Web::start();
    let home = home("http_probe", &format!("'{}'", web.url("/")), "");
    for (method, expected) in
        [("GET", "202 taken"), ("HEAD", "202 "), ("POST", "only GET and HEAD"), ("DELETE", "only GET and HEAD")]
    {
        let note = message("note", json!({"context": {"fetch": {"url": web.url("/"), "method": method}}}));
        let done = home.ace(&["explain", "--json", "-"]).input(note.to_string()).run();
        assert!(done.stdout.contains(expected), "{method}: {done:?}");
    }
    assert_eq!(web.requests(), ["GET /", "HEAD /"]);
}

/// The probe as a channel that fails after its request.
fn deliver(home: &Home, fetch: Value) -> Value {
    let done = send(home, &[json!({"deliver": true, "then": "trap", "fetch": fetch})]);
    channel(&done.lines()[0], "probe").clone()
}

#[test]
fn a_fault_after_a_request_is_maybe_sent() {
    let web = Web::start();
    let home = home("http_probe", &format!("'{}'", web.url("/")), "limits = { call-timeout = '500ms' }");
    let sent = deliver(&home, json!({"url": web.url("/"), "method": "POST"}));
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_text(&sent["provider_id"], "HTTP 202 from 127.0.0.1");
    assert_eq!(sent["fault"]["kind"], "trap");

    for path in ["/cut", "/slow"] {
        let unknown = deliver(&home, json!({"url": web.url(path), "method": "POST"}));
        assert_eq!(unknown["state"], "maybe_sent", "{path}: {unknown}");
        assert!(
            unknown.to_string().contains(&format!("POST {} was sent and not answered", web.url(path))),
            "{unknown}"
        );
    }
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}/", listener.local_addr().expect("bound"))
    };
    let home = self::home("http_probe", &format!("'{}', '{nobody}'", web.url("/")), "");
    let looks = json!({"url": web.url("/"), "method": "GET"});
    let busy = json!({"url": web.url("/busy"), "method": "POST"});
    for fetch in [json!({"url": nobody, "method": "POST"}), looks, busy] {
        let failed = deliver(&home, fetch.clone());
        assert_eq!(failed["state"], "retry", "{fetch}: {failed}");
    }
}

#[test]
fn waiting_does_not_count_as_computing() {
    let web = Web::start();
    let limits = "limits = { time = '40ms' }";
    let http = home("http_probe", &format!("'{}'", web.url("/")), limits);
    let wasi = home("wasi_http_probe", &format!("'{}'", web.url("/")), limits);
    let fetched = send(&http, &[json!({"fetch": {"url": web.url("/late")}})]);
    assert_eq!(found(&fetched.lines()[0]), "200 at last");
    let fetched = send(&wasi, &[json!({"fetch": parts(&web, "/late")})]);
    assert_eq!(found(&fetched.lines()[0]), "200 7 bytes: at last");
}

/// The parts of a URL as wasi:http takes them.
fn parts(web: &Web, path: &str) -> Value {
    json!({"scheme": "http", "authority": web.address.to_string(), "path": path})
}

fn merged(mut parts: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        parts[key] = value.clone();
    }
    parts
}

#[test]
fn wasi_http_has_the_same_rules() {
    let web = Web::start();
    let home = home("wasi_http_probe", &format!("'{}'", web.url("/in")), "");
    let cases = [
        (parts(&web, "/in?a=b"), "202 5 bytes: taken"),
        (merged(parts(&web, "/in"), json!({"method": "POST", "body": "x".repeat(10_000)})), "202 5 bytes: taken"),
        (
            merged(parts(&web, "/in"), json!({"method": "POST", "body": "hi", "headers": [["content-length", "2"]]})),
            "202 5",
        ),
        (parts(&web, "/inner"), "HttpRequestDenied"),
        (parts(&web, "/in/%2e%2e/x"), "HttpRequestUriInvalid"),
        (merged(parts(&web, "/in"), json!({"scheme": "https"})), "HttpRequestDenied"),
        (merged(parts(&web, "/in"), json!({"method": "CONNECT"})), "HttpRequestMethodInvalid"),
    ];
    let contexts: Vec<Value> = cases.iter().map(|(fetch, _)| json!({"fetch": fetch})).collect();
    let done = send(&home, &contexts);
    for ((fetch, expected), line) in cases.iter().zip(done.lines()) {
        assert!(found(&line).as_str().is_some_and(|text| text.contains(expected)), "{fetch}: {}", found(&line));
    }
    let requests = web.requests();
    assert_eq!((requests.len(), requests[0].as_str(), requests[1].len()), (3, "GET /in?a=b", 10_009));
    assert_eq!(requests[2], "POST /in hi");
    done.says("A host call was denied: http: not granted");
}

/// A policy in shadow mode is called dry, and its verdict has no effect.
#[test]
fn a_policy_in_shadow_mode_only_reads() {
    // The first is a channel, too, and delivers a message that its policy would deny.
    for (probe, deliveries) in [("http_probe", 5), ("wasi_http_probe", 0)] {
        let web = Web::start();
        let home = home(probe, &format!("'{}'", web.url("/")), "mode = 'shadow'");
        let fetches = ["GET", "HEAD", "POST", "PUT", "DELETE"].map(|method| match probe {
            "http_probe" => json!({"fetch": {"url": web.url("/"), "method": method}}),
            _ => json!({"fetch": merged(parts(&web, "/"), json!({"method": method}))}),
        });
        for (at, line) in send(&home, &fetches).lines().iter().enumerate() {
            let told = found(line).as_str().expect("text");
            assert_eq!(told.contains("enied"), at >= 2, "{probe}: {told}");
            assert!(line["report"]["policies"][0]["shadow"].is_string(), "{line}");
        }
        assert_eq!(web.requests().len(), 2 + deliveries, "{:?}", web.requests());
    }
}

/// Many messages at once, whose policy calls a slow server: the host limits the connections.
#[test]
fn a_plugin_cannot_use_up_the_hosts_connections() {
    let web = Web::start();
    let toml = "[limits]\npolicy-call-timeout = '20s'\n";
    let home = home("http_probe", &format!("'{}'", web.url("/")), toml);
    let config = home.read("ace.toml").replace("max-response-bytes = 2000", "requests-per-plugin = 2");
    home.file("ace.toml", config);
    let note = message("note", json!({"context": {"fetch": {"url": web.url("/late"), "times": 2}}})).to_string();
    let arguments = ["send", "--json", "--concurrency", "16", "--max-delay", "0", "-"];
    let done = home.ace(&arguments).input(vec![note; 16].join("\n")).run();
    for line in done.lines() {
        assert_eq!(found(&line), "200 at last");
    }
    assert_eq!((web.requests().len(), web.peak.load(Ordering::SeqCst)), (32, 2));
}

#[test]
fn wasi_http_has_the_same_limits() {
    let web = Web::start();
    let home = home("wasi_http_probe", &format!("'{}'", web.url("/")), "limits = { call-timeout = '900ms' }");
    let big = "x".repeat(100);
    let cases = [
        (json!({"fetch": parts(&web, "/big")}), format!("200 1000 bytes: {big}")),
        (json!({"fetch": parts(&web, "/long")}), "HttpResponseBodySize(Some(2000))".to_owned()),
        (json!({"fetch": parts(&web, "/cut")}), "ConnectionTerminated".to_owned()),
        (json!({"fetch": parts(&web, "/slow"), "then": "leave"}), "left".to_owned()),
        (json!({"fetch": merged(parts(&web, "/big"), json!({"times": 8})), "then": "leak"}), "leaked".to_owned()),
        (
            json!({"fetch": merged(parts(&web, "/big"), json!({"times": 9})), "then": "leak"}),
            "ConnectionLimitReached".to_owned(),
        ),
        (json!({"fetch": parts(&web, "/big")}), format!("200 1000 bytes: {big}")),
    ];
    let contexts: Vec<Value> = cases.iter().map(|(context, _)| context.clone()).collect();
    let hoards = &send(&home, &[json!({"fetch": {}, "then": "hoard"})]).lines()[0];
    let fault = &hoards["report"]["policies"][0]["broken"]["fault"];
    assert_eq!(fault["kind"], "trap", "{hoards}");
    assert_text(&fault["message"], "store handle limit exceeded");
    for ((context, expected), line) in cases.iter().zip(send(&home, &contexts).lines()) {
        assert!(found(&line).as_str().is_some_and(|text| text.contains(expected)), "{context}: {}", found(&line));
    }
}
