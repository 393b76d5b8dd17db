//! Feedback: signed requests of a provider, from the route to the timeline, the event stream and the suppressed addresses.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::rejected::install;
use super::webhooks::Listener;
use super::{LISTEN, Server, home, note, settled};
use crate::support::{Home, wait_for};

const KEY: &str = "signing-key-of-the-provider";
const REPORTER: &str =
    "[plugins.reporter]\ngrants = { feedback = ['django_email'] }\nsecrets = { key = { env = 'REPORTER_KEY' } }\n";

/// A home with the plugin `reporter`, which may report about `django_email`.
fn reporting(toml: &str) -> Home {
    let home = home(&format!("{REPORTER}{toml}"));
    home.guest("reporter", "reporter");
    home
}

fn start(home: &Home) -> Server {
    Server::of(home.ace(&["--log", "trace", "serve"]).env("REPORTER_KEY", KEY))
}

fn now() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

/// A request as the provider signs it at a time.
fn signed_at(server: &Server, path: &str, body: &Value, seconds: u64) -> RequestBuilder {
    let body = body.to_string();
    let hash = Sha256::digest(format!("{KEY}.{seconds}.{body}"));
    let signature = hash.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    });
    let request = server.bare(Method::POST, &format!("/v1/feedback/reporter{path}"));
    request.header("x-time", seconds).header("x-signature", signature).body(body)
}

fn signed(server: &Server, body: &Value) -> RequestBuilder {
    signed_at(server, "", body, now())
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("answered").status()
}

async fn report(server: &Server, events: Value) -> StatusCode {
    status(signed(server, &json!({"events": events}))).await
}

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// The feedback in the timeline of a message.
async fn timeline(server: &Server, number: u128) -> Vec<Value> {
    let (_, message) = server.get(&format!("/v1/messages/{}", uuid(number))).await;
    message["feedback"].as_array().cloned().unwrap_or_default()
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn signed_events_reach_the_timeline_and_the_stream_once() {
    let home = reporting("[events]\nkeep = true\n");
    let server = start(&home);
    server.send(&note(1, json!({}))).await;
    let mut listener = Listener::connect(&server, None).await;
    let clicked = json!({"id": "2", "kind": "clicked", "uuid": uuid(1)});
    let delivered =
        json!({"id": "1", "kind": "delivered", "message_id": format!("<{}.django_email@campus.example>", uuid(1))});
    // Out of order, in one request and in several, and repeated.
    assert_eq!(report(&server, json!([clicked, delivered, clicked])).await, StatusCode::NO_CONTENT);
    assert_eq!(report(&server, json!([clicked])).await, StatusCode::NO_CONTENT);
    let stray = json!({"id": "3", "kind": "delivered", "uuid": uuid(2), "email": "who@example.com"});
    assert_eq!(report(&server, json!([stray])).await, StatusCode::NO_CONTENT);
    let shown = timeline(&server, 1).await;
    assert_eq!(ids(&shown), ["2", "1"], "{shown:?}");
    assert_eq!(
        (&shown[0]["plugin"], &shown[0]["kind"], &shown[0]["vouched"]),
        (&json!("reporter"), &json!("clicked"), &json!(true))
    );
    let heard = [listener.next().await, listener.next().await];
    for (heard, kind) in heard.iter().zip(["clicked", "delivered"]) {
        assert_eq!((heard.kind.as_str(), &heard.data["data"]["kind"]), ("message.feedback", &json!(kind)), "{heard:?}");
        assert_eq!(heard.data["data"]["uuid"], json!(uuid(1)));
    }
}

#[tokio::test]
async fn requests_that_are_not_the_providers_are_refused_and_logged_once() {
    let home = reporting("");
    let server = start(&home);
    server.send(&note(1, json!({}))).await;
    let body = json!({"events": [{"id": "1", "kind": "bounced", "uuid": uuid(1)}]});
    let forged = || {
        let request = server.bare(Method::POST, "/v1/feedback/reporter").header("x-time", now());
        request.header("x-signature", "00").body(body.to_string())
    };
    for _ in 0..12 {
        let (code, problem) = server.ask(forged()).await;
        assert_eq!((code, &problem["type"]), (StatusCode::UNAUTHORIZED, &json!("feedback-refused")), "{problem}");
    }
    let replayed = status(signed_at(&server, "", &body, now() - 3_600)).await;
    assert_eq!(replayed, StatusCode::UNAUTHORIZED, "an old request is replayed");
    assert!(timeline(&server, 1).await.is_empty());
    assert_eq!(status(signed(&server, &json!("no object"))).await, StatusCode::NO_CONTENT);
    let malformed = signed(&server, &json!({})).body("{");
    assert_eq!(status(malformed).await, StatusCode::UNAUTHORIZED, "another body is not what was signed");
    assert_eq!(status(signed(&server, &json!({"do": "later"}))).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(signed(&server, &json!({"do": "panic"}))).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(report(&server, json!([{"id": "", "kind": ""}])).await, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/v1/feedback/nobody", "/v1/feedback/django_email", "/v1/feedback/", "/v1/feedback"] {
        assert_eq!(status(server.bare(Method::POST, path)).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(status(server.bare(Method::PUT, "/v1/feedback/reporter")).await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(status(server.bare(Method::HEAD, "/v1/feedback/reporter")).await, StatusCode::METHOD_NOT_ALLOWED);
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap_or_default();
    assert!(metrics.contains("ace_feedback_requests_total{plugin=\"reporter\",result=\"refused\"} 14"), "{metrics}");
    let (_, log) = server.stop();
    assert_eq!(log.matches("refused 10 requests in a row").count(), 1, "{log}");
}

#[tokio::test]
async fn a_request_is_handed_over_as_it_came_and_secrets_in_its_url_are_not_logged() {
    let public = "[server]\nlisten = '127.0.0.1:0'\npublic-url = 'https://mail.campus.example/ace/'\n";
    let home = reporting(public);
    let server = start(&home);
    let secret = "/tenant-7/hush%2Fpath?token=hush-query";
    let body = json!({"echo": true, "events": []});
    let request = signed_at(&server, secret, &body, now());
    let request = request.header("content-type", "message/rfc822").header("content-encoding", "x-unknown");
    let answer = request.send().await.expect("answered");
    assert_eq!(
        (answer.status(), answer.headers()["content-type"].as_bytes()),
        (StatusCode::ACCEPTED, &b"text/plain"[..])
    );
    assert_eq!(answer.headers()["content-security-policy"], "sandbox; default-src 'none'; frame-ancestors 'none'");
    let echo = answer.text().await.expect("a body");
    let path = "/tenant-7/hush%2Fpath";
    assert_eq!(echo, format!("https://mail.campus.example/ace/v1/feedback/reporter{path} {path} x-unknown"));
    let challenge = server.bare(Method::GET, "/v1/feedback/reporter/?hush-challenge").send().await.expect("answered");
    assert_eq!(
        (challenge.status(), challenge.text().await.expect("a body").as_str()),
        (StatusCode::OK, "hush-challenge")
    );
    for header in ["content-length", "set-cookie", "no header", "x-bad\r\nx"] {
        assert_eq!(
            status(signed(&server, &json!({"header": header}))).await,
            StatusCode::SERVICE_UNAVAILABLE,
            "{header}"
        );
    }
    assert_eq!(status(signed(&server, &json!({"header": "x-fine"}))).await, StatusCode::OK);
    assert_eq!(status(signed_at(&server, secret, &body, 7)).await, StatusCode::UNAUTHORIZED);
    let (_, metrics) = server.get("/metrics").await;
    let (_, log) = server.stop();
    assert!(!log.contains("hush") && !log.contains("tenant-7") && !metrics.to_string().contains("hush"), "{log}");
    assert!(!log.contains(KEY));
}

#[tokio::test]
async fn an_event_that_comes_before_its_message_is_settled_waits_for_it() {
    let home = reporting("");
    let server = start(&home);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let (code, _) = server.post("/v1/messages", note(1, json!({"options": {"not_before": soon.to_string()}}))).await;
    assert_eq!(code, StatusCode::ACCEPTED);
    assert_eq!(
        report(&server, json!([{"id": "1", "kind": "delivered", "uuid": uuid(1)}])).await,
        StatusCode::NO_CONTENT
    );
    assert!(timeline(&server, 1).await.is_empty());
    // It is on the disk meanwhile.
    server.kill();
    let server = start(&home);
    settled(&server, &json!(uuid(1)), "sent").await;
    assert_eq!(ids(&timeline(&server, 1).await), ["1"]);
}

#[tokio::test]
async fn only_events_that_are_vouched_for_suppress_an_address() {
    let home = reporting("[feedback]\nsuppress = ['hard-bounce', 'complaint']\n");
    let server = start(&home);
    let bounce = |id: &str, email: &str| json!({"id": id, "kind": "bounced", "permanent": true, "email": email, "reason": "5.1.1 unknown"});
    let mut forged = bounce("1", "forged@example.com");
    forged["vouched"] = json!(false);
    let mut soft = bounce("2", "soft@example.com");
    soft["permanent"] = json!(false);
    let unsubscribed = json!({"id": "3", "kind": "unsubscribed", "email": "left@example.com"});
    let complained = json!({"id": "4", "kind": "complained", "email": "Loud@EXAMPLE.com"});
    let hard = bounce("5", "Zoë <Dead@Example.com>");
    assert_eq!(report(&server, json!([forged, soft, unsubscribed, complained, hard])).await, StatusCode::NO_CONTENT);
    let entry = async |address: &str| server.get(&format!("/v1/keyvalue/suppressions/email:{address}")).await;
    for address in ["forged@example.com", "soft@example.com", "left@example.com"] {
        assert_eq!(entry(address).await.0, StatusCode::NOT_FOUND, "{address}");
    }
    let (_, dead) = entry("dead@example.com").await;
    assert_eq!(
        (&dead["reason"], &dead["scope"], &dead["source"]),
        (&json!("hard-bounce"), &json!("all"), &json!("reporter"))
    );
    assert_eq!(dead["detail"], "5.1.1 unknown");
    assert!(dead["time"].as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{dead}");
    let (_, loud) = entry("loud@example.com").await;
    assert_eq!((&loud["reason"], &loud["scope"]), (&json!("complaint"), &json!("bulk")));
    // A later complaint does not weaken the entry, and a repeated event does not undo what the operator did.
    let weaker = json!({"id": "6", "kind": "complained", "email": "dead@example.com"});
    assert_eq!(report(&server, json!([weaker])).await, StatusCode::NO_CONTENT);
    assert_eq!(entry("dead@example.com").await.1, dead);
    let delete = server.request(Method::DELETE, "/v1/keyvalue/suppressions/email:dead@example.com");
    assert!(server.ask(delete).await.0.is_success());
    assert_eq!(report(&server, json!([hard])).await, StatusCode::NO_CONTENT);
    assert_eq!(entry("dead@example.com").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn feedback_beyond_a_limit_is_rejected_and_can_be_repeated() {
    let home = reporting("[feedback]\nmax-events = 3\nmax-body = '1KiB'\nrequests-per-second = 5\n");
    let server = start(&home);
    let event = |id: usize| json!({"id": id.to_string(), "kind": "opened"});
    assert_eq!(
        report(&server, (0..4).map(event).collect()).await,
        StatusCode::SERVICE_UNAVAILABLE,
        "nothing is stored"
    );
    assert_eq!(report(&server, (0..3).map(event).collect()).await, StatusCode::NO_CONTENT);
    let full = signed(&server, &json!({"events": [event(9)]})).send().await.expect("answered");
    assert_eq!((full.status(), full.headers()["retry-after"].as_bytes()), (StatusCode::SERVICE_UNAVAILABLE, &b"5"[..]));
    let long = json!({"text": "x".repeat(2_000)});
    assert_eq!(status(signed(&server, &long)).await, StatusCode::PAYLOAD_TOO_LARGE);
    let mut all = BTreeSet::new();
    for _ in 0..10 {
        all.insert(report(&server, json!([])).await);
    }
    assert!(all.contains(&StatusCode::TOO_MANY_REQUESTS) && all.contains(&StatusCode::NO_CONTENT), "{all:?}");
}

/// No event that was answered with 2xx is lost when the process is killed.
#[tokio::test]
async fn accepted_events_survive_the_process() {
    let home = reporting("[feedback]\nrequests-per-second = 1000000\n");
    let server = start(&home);
    let messages = 1..=10;
    for number in messages.clone() {
        server.send(&note(number, json!({}))).await;
    }
    let mut accepted = BTreeSet::new();
    let end = tokio::time::Instant::now() + Duration::from_millis(700);
    for id in 0_u128.. {
        let event = json!({"id": format!("e{id}"), "kind": "opened", "uuid": uuid(id % 10 + 1)});
        match tokio::time::timeout_at(end, report(&server, json!([event]))).await {
            Ok(StatusCode::NO_CONTENT) => drop(accepted.insert(format!("e{id}"))),
            Ok(other) => panic!("{other}"),
            Err(_) => break,
        }
        if accepted.len() >= 1_500 {
            break;
        }
    }
    assert!(accepted.len() > 10, "{}", accepted.len());
    server.kill();
    let server = start(&home);
    let mut found = BTreeSet::new();
    for number in messages {
        found.extend(ids(&timeline(&server, number).await).into_iter().map(str::to_owned));
    }
    let lost: Vec<_> = accepted.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", accepted.len());
}

/// The events of the test of many; `ACE_SOAK_EVENTS` sets more.
fn events() -> u64 {
    std::env::var("ACE_SOAK_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000)
}

/// One of many mixed events: about messages that were sent and that nobody knows, every fifth for the second time.
fn mixed(number: u64) -> Value {
    let id = if number % 5 == 4 { number - 4 } else { number };
    let kind = ["delivered", "opened", "bounced", "complained", "unsubscribed"][(id % 7 % 5) as usize];
    let mut event = json!({"id": format!("e{id}"), "kind": kind, "permanent": id % 2 == 0, "vouched": id % 3 != 0});
    match id % 3 {
        0 => event["uuid"] = json!(uuid(u128::from(id) % 10 + 1)),
        1 => event["email"] = format!("learner{id}@example.com").into(),
        _ => event["message_id"] = format!("<{id}@elsewhere.example>").into(),
    }
    event
}

/// Sends the events one after the other, and returns the ids of those that were answered with 2xx; all others with 503.
async fn report_mixed(server: &Server, numbers: impl Iterator<Item = u64>) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    for number in numbers {
        let event = mixed(number);
        match report(server, json!([event])).await {
            StatusCode::NO_CONTENT => drop(accepted.insert(event["id"].as_str().expect("an id").to_owned())),
            other => assert_eq!(other, StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    accepted
}

#[tokio::test]
async fn of_many_mixed_events_none_that_was_accepted_is_lost_and_no_more_than_the_limit_are_kept() {
    const CLIENTS: u64 = 32;
    let (count, limit) = (events(), events() / 2);
    let home = reporting(&format!("[feedback]\nrequests-per-second = 1000000\nmax-events = {limit}\n"));
    let server = start(&home);
    for number in 1..=10 {
        server.send(&note(number, json!({}))).await;
    }
    let all = (0..CLIENTS).map(|client| report_mixed(&server, (client..count).step_by(CLIENTS as usize)));
    let accepted: BTreeSet<String> = futures_util::future::join_all(all).await.into_iter().flatten().collect();
    server.kill();
    let db = rusqlite::Connection::open(home.path("ace.db")).expect("opened");
    let mut rows = db.prepare("SELECT body ->> 'id' FROM feedback").expect("prepared");
    let kept: Vec<String> = rows.query_map([], |row| row.get(0)).expect("read").map(|id| id.expect("text")).collect();
    let unique: BTreeSet<String> = kept.iter().cloned().collect();
    assert_eq!(kept.len(), unique.len(), "each is kept once");
    assert_eq!(accepted, unique, "what is kept is what was accepted");
    let over = u64::try_from(kept.len()).expect("few").checked_sub(limit);
    assert!(over.is_some_and(|over| over <= CLIENTS), "{} of at most {limit}", kept.len());
}

#[tokio::test]
async fn a_channel_works_while_its_feedback_is_refused() {
    let tied = "[plugins.two_way]\ngrants = { feedback = ['two_way'] }\n[routing]\ndefault = { email = 'two_way' }\n";
    let home = home(tied);
    home.guest("two_way", "two_way");
    let server = Server::start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let (_, plugin) = server.get("/v1/plugins/two_way").await;
    assert_eq!(plugin["state"]["state"], "active", "{plugin}");
    assert!(plugin["feedback_refused"].as_str().is_some_and(|why| why.contains("set server.public-url")), "{plugin}");
    let path = |number| format!("/v1/feedback/two_way?provider-{}", uuid(number));
    assert_eq!(server.get(&path(1)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (_, log) = server.stop();
    assert!(log.contains("The plugin reads no feedback"), "{log}");

    super::configure(&home, &format!("{LISTEN}public-url = 'https://mail.campus.example'\n{tied}"));
    let server = Server::start(&home);
    assert_eq!(server.get(&path(1)).await.0, StatusCode::NO_CONTENT);
    server.send(&note(2, json!({}))).await;
    assert_eq!(server.get(&path(2)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ids(&timeline(&server, 1).await), [format!("read-provider-{}", uuid(1))], "it was indexed all the time");
    assert_eq!(ids(&timeline(&server, 2).await), [format!("read-provider-{}", uuid(2))]);
}

/// A reload replaces the channel and the reader of feedback of a component together, or neither.
#[tokio::test]
async fn a_component_that_is_both_keeps_both_over_a_reload() {
    let tied = "[plugins.two_way]\ngrants = { feedback = ['two_way'] }\n[routing]\ndefault = { email = 'two_way' }\n";
    let home = home(&format!("{LISTEN}public-url = 'https://mail.campus.example'\n{tied}"));
    home.guest("two_way", "two_way");
    let server = Server::start(&home);
    let reloaded = async || {
        assert_eq!(server.post("/v1/reload", "").await.0, StatusCode::OK);
        server.get("/v1/plugins/two_way").await.1
    };
    let first = reloaded().await;
    let component = home.read_bytes("plugins/two_way.wasm");
    home.file("plugins/two_way.toml", "description = 'The next revision.'\n");
    install(&home, "two_way", &component);
    let second = reloaded().await;
    assert_ne!(first["revision"], second["revision"]);
    install(&home, "two_way", b"no component");
    let third = reloaded().await;
    assert_eq!(third["revision"], second["revision"], "the previous revision stays: {third}");
    assert!(third["rejected"]["reason"].is_string(), "{third}");
    for number in 1..=2 {
        assert_eq!(server.send(&note(number, json!({}))).await["state"], "sent");
        let path = format!("/v1/feedback/two_way?provider-{}", uuid(number));
        assert_eq!(server.get(&path).await.0, StatusCode::NO_CONTENT);
        assert_eq!(ids(&timeline(&server, number).await), [format!("read-provider-{}", uuid(number))]);
    }
}

#[tokio::test]
async fn erasing_a_person_erases_the_feedback_about_them() {
    let home = reporting("[events]\nkeep = true\n");
    let server = start(&home);
    server.send(&note(1, json!({}))).await;
    let about = json!({"id": "1", "kind": "opened", "uuid": uuid(1)});
    let alone = json!({"id": "2", "kind": "bounced", "email": "Zoe@Learner.example"});
    let other = json!({"id": "3", "kind": "bounced", "email": "other@learner.example"});
    assert_eq!(report(&server, json!([about, alone, other])).await, StatusCode::NO_CONTENT);
    let rows = |table: &str| {
        let db = rusqlite::Connection::open(home.path("ace.db")).expect("opened");
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).expect("counted")
    };
    let of_feedback = "events WHERE kind = 'message.feedback'";
    wait_for("the events", || (rows(of_feedback) == 3).then_some(()));
    let (code, _) = server.post("/v1/erase?email=zoe@learner.example", "").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!((rows("feedback"), rows("deliveries"), rows(of_feedback)), (1, 0, 1), "only the other one is left");
}
