//! Channels that note the outcome for each address, and channels that are held.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LISTEN, Server, configure, home, note, settled};
use crate::http_channels::provider::{Answer, Provider};
use crate::support::{Home, assert_text, channel};

/// A home with the probe as the channel `probe` of the type push, with further tables.
fn probing(provider: &Provider, toml: &str) -> Home {
    let home = home("");
    home.guest("address_probe", "probe");
    home.file("ca.pem", &provider.ca);
    let url = provider.url();
    configure(
        &home,
        &format!(
            "{LISTEN}[http]\nca-file = 'ca.pem'\n[events]\nkeep = true\n[delivery]\nretry-delay = '2s'\n\
             [plugins.probe]\ngrants = {{ http = ['{url}/'] }}\nconfig = {{ type = 'push', url = '{url}' }}\n{toml}"
        ),
    );
    home
}

/// A message for these tokens alone.
fn push(number: u128, tokens: &[&str]) -> Value {
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"push-token": tokens}});
    note(number, json!({"recipient": recipient}))
}

/// The tokens of the requests, in order.
fn tokens(provider: &Provider) -> Vec<String> {
    let token = |line: &str| line.split([' ', '/']).nth(2).unwrap_or_default().to_owned();
    provider.seen().iter().map(|seen| token(&seen.line)).collect()
}

async fn submit(server: &Server, message: &Value) -> Value {
    let (status, taken) = server.post("/v1/messages?limit_to=push", message).await;
    assert!(status.is_success(), "{taken}");
    taken["uuid"].clone()
}

/// Waits until the message's report for push fulfils this.
async fn push_until(server: &Server, uuid: &Value, is: impl Fn(&Value) -> bool) -> Value {
    channel_until(server, uuid, "push", is).await
}

/// The same for any channel type.
pub(super) async fn channel_until(
    server: &Server,
    uuid: &Value,
    channel_type: &str,
    is: impl Fn(&Value) -> bool,
) -> Value {
    let path = format!("/v1/messages/{}", uuid.as_str().expect("a uuid"));
    for _ in 0..600 {
        let (_, message) = server.get(&path).await;
        if message["report"]["channels"].is_array() && is(channel(&message, channel_type)) {
            return channel(&message, channel_type).clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}", server.get(&path).await.1);
}

/// The outcomes by address, in the order of the report.
fn outcomes(push: &Value) -> Vec<String> {
    let list = push["addresses"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.iter().map(|one| format!("{} {}", text(&one["address"]), text(&one["outcome"]))).collect()
}

/// The events of a kind so far.
pub(super) async fn events(server: &Server, kind: &str) -> Vec<Value> {
    let stream = server.request(reqwest::Method::GET, "/v1/events").header("last-event-id", "0").send().await;
    let (mut stream, mut heard) = (stream.expect("a stream"), String::new());
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_millis(500), stream.chunk()).await {
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    let data = heard.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    data.filter(|event: &Value| event["type"] == kind).collect()
}

#[tokio::test]
async fn one_dead_token_of_five_is_reported_and_a_retry_after_a_crash_sends_to_no_token_twice() {
    let answers = [200, 200, 410, 200, 503, 200].map(|status| Answer::new(status, "id"));
    let provider = Provider::start(answers);
    let home = probing(&provider, "");
    let server = Server::start(&home);
    let uuid = submit(&server, &push(1, &["a", "b", "c", "d", "e"])).await;
    let waiting = push_until(&server, &uuid, |push| push["state"] == "retry" && push["attempts"] == 1).await;
    assert_eq!(outcomes(&waiting), ["a sent", "b sent", "c dropped", "d sent", "e retry"]);
    assert_text(&waiting["error"], "1 of 5 addresses are tried again: 503");
    server.kill();

    let server = Server::start(&home);
    let sent = settled(&server, &uuid, "sent").await;
    let sent = channel(&sent, "push");
    assert_eq!(outcomes(sent), ["a sent", "b sent", "c dropped", "d sent", "e sent"]);
    assert_eq!((&sent["provider_id"], &sent["attempts"]), (&json!("1 now, 5 before"), &json!(2)));
    assert_eq!(tokens(&provider), ["a", "b", "c", "d", "e", "e"]);
    let dropped = events(&server, "contact.dropped").await;
    let data = json!({"uuid": uuid, "user_id": 7, "channel": "probe", "kind": "push-token", "address": "c", "code": "UNREGISTERED"});
    assert_eq!(dropped.iter().map(|event| &event["data"]).collect::<Vec<_>>(), [&data], "once");
    assert_eq!(events(&server, "message.sent").await.len(), 1);
    server.stop();
}

#[tokio::test]
async fn an_outcome_is_on_the_disk_before_the_next_request_of_an_at_most_once_channel() {
    let provider = Provider::start([Answer::new(410, ""), Answer::new(200, "id"), Answer::Silence]);
    let home = probing(&provider, "[channels.probe]\ndelivery = 'at-most-once'\n");
    let server = Server::start(&home);
    let uuid = submit(&server, &push(1, &["a", "b", "c", "d"])).await;
    for _ in 0..600 {
        if provider.seen().len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.kill();

    let server = Server::start(&home);
    let unsure = settled(&server, &uuid, "maybe_sent").await;
    assert_eq!(outcomes(channel(&unsure, "push")), ["a dropped", "b sent"]);
    assert_eq!(tokens(&provider), ["a", "b", "c"], "nothing is sent again");
    assert_eq!(events(&server, "contact.dropped").await.len(), 1);
    server.stop();
}

#[tokio::test]
async fn a_held_channel_stops_its_other_messages_and_lets_them_go_afterwards() {
    let limited = Answer::new(429, "").with("retry-after", "2");
    let provider = Provider::start([vec![limited], vec![Answer::new(200, "id"); 4]].concat());
    let home = probing(&provider, "");
    let server = Server::start(&home);
    let mut uuids = vec![submit(&server, &push(1, &["a"])).await];
    let waits = push_until(&server, &uuids[0], |push| push["state"] == "retry").await;
    assert_eq!((&waits["attempts"], &waits["error"]), (&json!(0), &json!("channel probe: its quota is used up")));
    for number in 2..5 {
        uuids.push(submit(&server, &push(number, &["b"])).await);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(provider.seen().len(), 1, "the others are not even tried");
    let (_, queue) = server.get("/v1/queue").await;
    let held = &queue["destinations"][0];
    assert_eq!((&held["kind"], &held["name"], &held["waiting"]), (&json!("channel"), &json!("probe"), &json!(4)));
    assert_text(&server.get("/readyz").await.1["degraded"][0]["reason"], "it is held: its quota is used up");
    assert_text(&server.get("/metrics").await.1, "ace_destination_up{kind=\"channel\",name=\"probe\"} 0");
    for uuid in &uuids {
        let sent = settled(&server, uuid, "sent").await;
        assert_eq!(channel(&sent, "push")["attempts"], 1, "{sent}");
    }
    assert_eq!(provider.seen().len(), 5);
    assert_eq!(events(&server, "destination.down").await.len(), 1);
    let (_, log) = server.stop();
    assert_eq!(log.matches("channel probe is held: its quota is used up").count(), 1, "{log}");
    assert_eq!(log.matches("channel probe is no longer held").count(), 1, "{log}");
}

#[tokio::test]
async fn a_channel_without_a_time_is_probed_with_growing_pauses() {
    let provider = Provider::start([vec![Answer::new(403, ""); 2], vec![Answer::new(200, "id"); 2]].concat());
    let home = probing(&provider, "");
    let toml = home.read("ace.toml").replace("retry-delay = '2s'", "retry-delay = '200ms'\nmax-retry-delay = '1s'");
    home.file("ace.toml", toml);
    let server = Server::start(&home);
    let uuids = [submit(&server, &push(1, &["a"])).await, submit(&server, &push(2, &["b"])).await];
    for uuid in &uuids {
        let sent = settled(&server, uuid, "sent").await;
        assert_eq!(channel(&sent, "push")["attempts"], 1, "{sent}");
    }
    let (_, log) = server.stop();
    assert_eq!(log.matches("channel probe is held: its key was revoked").count(), 1, "{log}");
}

#[tokio::test]
async fn notes_that_are_malformed_or_too_many_change_nothing_and_are_logged() {
    let provider = Provider::start([Answer::new(200, "id")]);
    let server = Server::start(&probing(&provider, ""));
    let mut message = push(1, &["a"]);
    message["context"] = json!({"abuse": true});
    let uuid = submit(&server, &message).await;
    let sent = settled(&server, &uuid, "sent").await;
    assert_eq!(outcomes(channel(&sent, "push")).len(), 256, "{sent}");
    let (_, log) = server.stop();
    for problem in ["more than 256 addresses", "address must have 1 to 4096 bytes, not 0", "kind must have 1 to 64"] {
        assert!(log.contains(problem), "{problem}: {log}");
    }
    assert!(log.lines().filter(|line| line.contains("note-outcome")).count() < 20, "aggregated: {log}");
}

/// A home whose message `note` can be sent by push, sms and email, in this order.
fn with_fallback(provider: &Provider, toml: &str) -> Home {
    let home = home("");
    home.file("ca.pem", &provider.ca);
    let url = provider.url();
    let probe = |channel_type: &str, kind: &str| {
        home.guest("address_probe", &format!("{channel_type}_probe"));
        format!(
            "[plugins.{channel_type}_probe]\ngrants = {{ http = ['{url}/'] }}\n\
             config = {{ type = '{channel_type}', kind = '{kind}', url = '{url}' }}\n"
        )
    };
    let plugins = probe("push", "push-token") + &probe("sms", "phone");
    configure(
        &home,
        &format!("[http]\nca-file = 'ca.pem'\n[routing]\nfallback = {{ push = ['sms', 'email'] }}\n{plugins}{toml}"),
    );
    home
}

fn states(report: &Value) -> Vec<&Value> {
    ["push", "sms", "email"].map(|kind| &channel(report, kind)["state"]).to_vec()
}

#[tokio::test]
async fn a_dead_token_falls_back_to_sms_and_that_to_email() {
    let answers = [410, 200, 410, 400, 200].map(|status| Answer::new(status, "id"));
    let provider = Provider::start(answers);
    let server = Server::start(&with_fallback(&provider, ""));
    let to = |number, tokens: &[&str]| {
        let contacts = json!({"push-token": tokens, "phone": ["1555"]});
        let recipient = json!({"lms_user_id": 7, "email_address": "zoe@example.com", "contacts": contacts});
        note(number, json!({"recipient": recipient}))
    };
    let sms = server.send(&to(1, &["dead"])).await;
    assert_eq!(states(&sms), ["skipped", "sent", "standby"], "{sms}");
    assert_eq!(channel(&sms, "sms")["fallback_for"], json!(["push"]));
    let email = server.send(&to(2, &["dead"])).await;
    assert_eq!(states(&email), ["skipped", "failed", "sent"], "{email}");
    assert_eq!(channel(&email, "email")["fallback_for"], json!(["push", "sms"]));
    let push = server.send(&to(3, &["live"])).await;
    assert_eq!(states(&push), ["sent", "standby", "standby"], "{push}");
    assert_eq!(push["state"], "sent");
    assert_eq!(tokens(&provider), ["dead", "1555", "dead", "1555", "live"]);
    server.stop();
}

#[test]
fn explain_and_check_know_fallbacks() {
    let provider = Provider::start([]);
    let home = with_fallback(&provider, "");
    let contacts = json!({"push-token": ["a"], "phone": ["1555"]});
    let recipient = json!({"lms_user_id": 7, "email_address": "zoe@example.com", "contacts": contacts});
    let message = note(1, json!({"recipient": recipient}));
    let explained = home.ace(&["explain", "-"]).input(message.to_string()).run().ok();
    for line in ["push: ready", "sms: standby used only if the message is not sent by push"] {
        assert!(explained.stdout.contains(line), "{line}: {}", explained.stdout);
    }
    let wrong = home.read("ace.toml").replace("'sms', 'email'", "'smss', 'email'");
    home.file("ace.toml", wrong);
    let checked = home.ace(&["check"]).run().code(1);
    let problem = "routing.fallback.push[0]: there is no channel type \"smss\"; did you mean \"sms\"?";
    assert!(checked.stdout.contains(problem), "{}", checked.stdout);
}
