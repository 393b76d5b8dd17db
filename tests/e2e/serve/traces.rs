//! Traces: from a request, through the queue, to the requests of plugins, and to a collector.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, home, note};
use crate::support::Home;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Received requests and exports.
#[derive(Default)]
struct Seen {
    /// Headers of requests to `/asked/…`, by path.
    asked: Vec<(String, HeaderMap)>,
    /// Bodies and `authorization` of exports.
    exports: Vec<(Vec<u8>, Option<String>)>,
}

/// External services: one that plugins call, and a collector.
struct Outside {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Outside {
    async fn start() -> Outside {
        let seen = Arc::<Mutex<Seen>>::default();
        let router = Router::new().fallback(take).with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Outside { url, seen }
    }

    fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The `traceparent` that came with the requests to this path.
    fn parents(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("no thread broke");
        let asked = seen.asked.iter().filter(|(asked, _)| asked == path);
        asked.map(|(_, headers)| headers["traceparent"].to_str().expect("ASCII").to_owned()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().expect("no thread broke");
        let exports = seen.exports.iter().map(|(body, _)| ExportTraceServiceRequest::decode(&body[..]).expect("OTLP"));
        let scopes = exports.flat_map(|export| export.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

async fn take(State(seen): State<Arc<Mutex<Seen>>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 10 << 20).await.expect("a body").to_vec();
    let mut seen = seen.lock().expect("no thread broke");
    if head.uri.path() == "/v1/traces" {
        let key = head.headers.get("authorization").map(|value| value.to_str().expect("ASCII").to_owned());
        seen.exports.push((body, key));
    } else {
        seen.asked.push((head.uri.path().to_owned(), head.headers));
    }
    StatusCode::OK
}

/// A home with two policies that call the external service, one by `http.fetch`, one by wasi:http.
fn asking(outside: &Outside, toml: &str) -> Home {
    let grants = format!("grants = {{ http = ['{}/asked'] }}\n", outside.url);
    let home = home(&format!("[plugins.http_probe]\n{grants}[plugins.wasi_http_probe]\n{grants}{toml}"));
    home.guest("http_probe", "http_probe");
    home.guest("wasi_http_probe", "wasi_http_probe");
    home
}

fn fetching(outside: &Outside, number: u128) -> Value {
    let fetch = json!({
        "url": format!("{}/asked/fetch", outside.url),
        "scheme": "http", "authority": outside.authority(), "path": "/asked/wasi",
    });
    note(number, json!({"context": {"fetch": fetch, "text": "a secret text"}}))
}

async fn send_traced(server: &Server, message: &Value) {
    let request = server.request(Method::POST, "/v1/messages?wait=60").body(message.to_string());
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).header("tracestate", "shop=7");
    let (status, taken) = server.ask(request).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
}

#[tokio::test]
async fn without_a_collector_the_callers_context_passes_through() {
    let outside = Outside::start().await;
    let server = Server::start(&asking(&outside, ""));
    send_traced(&server, &fetching(&outside, 1)).await;
    for path in ["/asked/fetch", "/asked/wasi"] {
        assert_eq!(outside.parents(path), [format!("00-{TRACE}-{CALLER}-01")], "{path}");
    }
    let states: Vec<HeaderMap> =
        outside.seen.lock().unwrap().asked.iter().map(|(_, headers)| headers.clone()).collect();
    assert!(states.iter().all(|headers| headers["tracestate"] == "shop=7"), "{states:?}");
    // Without a trace context, none is sent.
    server.send(&fetching(&outside, 2)).await;
    let seen = outside.seen.lock().unwrap();
    assert_eq!(seen.asked.len(), 4);
    assert!(seen.asked[2..].iter().all(|(_, headers)| !headers.contains_key("traceparent")), "{:?}", seen.asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_as_one_trace() {
    let outside = Outside::start().await;
    let otlp = format!("[otlp]\nendpoint = '{}'\nheaders = {{ authorization = {{ env = 'KEY' }} }}\n", outside.url);
    let server = Server::of(asking(&outside, &otlp).ace(&["--log", "info", "serve"]).env("KEY", "Bearer hunter2"));
    send_traced(&server, &fetching(&outside, 1)).await;
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("hunter2"), "{log}");

    let spans = outside.spans();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let one = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    let parent = |span: &Span| hex(&span.parent_span_id);
    let request = one("POST /v1/messages");
    assert_eq!((hex(&request.trace_id), parent(request)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(attribute(request, "http.response.status_code"), Some(Attribute::IntValue(200)));
    let message = one("message");
    assert_eq!((&message.trace_id, &message.parent_span_id), (&request.trace_id, &request.span_id));
    let policies: Vec<&Span> = spans.iter().filter(|span| span.name == "policy").collect();
    assert!(policies.len() == 2 && policies.iter().all(|policy| policy.parent_span_id == message.span_id), "{names:?}");
    // The request of a plugin is below the call it belongs to, and carries the id of its own span.
    let asked: Vec<&Span> = spans.iter().filter(|span| span.name == "GET").collect();
    let told = ["/asked/fetch", "/asked/wasi"].map(|path| outside.parents(path).concat());
    assert_eq!(asked.len(), 2, "{names:?}");
    for span in asked {
        assert!(policies.iter().any(|policy| policy.span_id == span.parent_span_id), "{span:?}");
        assert!(told.contains(&format!("00-{TRACE}-{}-01", hex(&span.span_id))), "{told:?}");
    }
    let seen = outside.seen.lock().unwrap();
    for (body, key) in &seen.exports {
        assert_eq!(key.as_deref(), Some("Bearer hunter2"));
        let text = String::from_utf8_lossy(body);
        assert!(!text.contains("zoe@") && !text.contains("a secret text") && !text.contains("/asked"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_collector_stops_no_message() {
    let otlp = "[otlp]\nendpoint = 'http://127.0.0.1:1'\ntimeout = '500ms'\nservice-name = 'mail'\nsample = 1\n";
    let home = home(otlp);
    let server = Server::start(&home);
    for number in 1..=20 {
        let taken = server.send(&note(number, json!({}))).await;
        assert_eq!(taken["state"], "sent", "{taken}");
    }
    let (code, log) = tokio::time::timeout(Duration::from_secs(60), async { server.stop() }).await.expect("it ends");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("telemetry data will be lost"), "{log}");
}

fn attribute(span: &Span, key: &str) -> Option<Attribute> {
    span.attributes.iter().find(|one| one.key == key)?.value.clone()?.value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
