//! Answers that are invalid, too long, or would forge a log line.

use ace::message::{Attempt, DeliveryError, FaultKind};
use serde_json::json;

use super::{Engine, asking, assert_fault, call, fault, home, note};

const TOO_MUCH: &str = "it passed more than 2097152 bytes at once (limits.output-bytes)";

#[tokio::test]
async fn answers_that_are_too_long_or_invalid_are_faults() {
    let engine = Engine::start(home("output-bytes = '2MiB'", "")).await;
    let runtime = engine.runtime("hostile");
    let cases = [
        ("check", "huge-text", FaultKind::Answer, TOO_MUCH),
        ("check", "huge-list", FaultKind::Answer, TOO_MUCH),
        ("check", "long-list", FaultKind::Answer, "it returned 257 denials or delays, the limit is 256"),
        ("check", "long-type", FaultKind::Answer, "cannot be a channel type"),
        ("check", "never", FaultKind::Answer, "18446744073709551615 milliseconds is too large for a time"),
        ("action-links", "long-list", FaultKind::Answer, "it returned 257 action links"),
        ("action-links", "huge-text", FaultKind::Answer, TOO_MUCH),
        ("trackers", "long-list", FaultKind::Answer, "it returned 257 tracker images"),
        ("trackers", "huge-text", FaultKind::Answer, TOO_MUCH),
        ("deliver", "huge-text", FaultKind::Answer, TOO_MUCH),
        ("deliver", "no-json", FaultKind::Answer, "the receipt's detail is not JSON"),
        ("deliver", "deep-json", FaultKind::Answer, "the receipt's detail is not JSON: recursion limit exceeded"),
        ("deliver", "long-json", FaultKind::Answer, "bytes of receipt detail, the limit is 16384"),
        ("deliver", "never", FaultKind::Answer, "is too large for a time"),
    ];
    for (function, harm, kind, words) in cases {
        assert_fault(&fault(&runtime, function, harm).await, kind, words);
        call(&runtime, function, &note(json!({}))).await.unwrap_or_else(|e| panic!("after {harm}: {e}"));
    }
}

#[tokio::test]
async fn an_invalid_channel_type_is_a_fault_that_shows_it_on_one_line() {
    let engine = Engine::start(home("", "")).await;
    let runtime = engine.runtime("hostile");
    for wrong in ["", "Email", "e mail", "email,push", "é", "a.b", "**", "../email", "email\\n"] {
        let asked = note(json!({"in": "check", "do": "type", "type": wrong}));
        let fault = call(&runtime, "check", &asked).await.expect_err(wrong);
        assert_fault(&fault, FaultKind::Answer, "cannot be a channel type");
        assert!(!fault.message.contains('\n'), "{fault:?}");
    }
    // A channel type without a channel is not a fault, and has no effect.
    let asked = note(json!({"in": "check", "do": "type", "type": "carrier-pigeon"}));
    call(&runtime, "check", &asked).await.expect("any sound type may be named");
}

#[tokio::test]
async fn texts_are_truncated_and_on_one_line() {
    let engine = Engine::start(home("", "")).await;
    let runtime = engine.runtime("hostile");
    let reason = async |harm| {
        let result = runtime.check(&asking("check", harm), false).await.answer.expect("a verdict");
        result.deny[0].reason.clone().expect("a reason")
    };
    assert_eq!(reason("control").await, "one  Bcc: all@campus.example [31m  two");
    assert_eq!(reason("long-text").await.chars().count(), 1_001, "1,000 and an ellipsis");
    let attempt = Attempt { number: 1, idempotency_key: "key".to_owned() };
    let receipt = async |harm| {
        let answer = runtime.deliver(&asking("deliver", harm), &[], &attempt).await.answer.expect("no fault");
        answer.expect("delivered").provider_id.expect("an id")
    };
    assert_eq!(receipt("control").await, "id  forged: yes [31m");
    assert_eq!(receipt("long-text").await.chars().count(), 1_001);
}

#[tokio::test]
async fn times_far_in_the_past_and_future_are_accepted() {
    let engine = Engine::start(home("", "")).await;
    let runtime = engine.runtime("hostile");
    let attempt = Attempt { number: 1, idempotency_key: "key".to_owned() };
    for (harm, year) in [("past", "1970"), ("far", "9999")] {
        let verdict = runtime.check(&asking("check", harm), false).await.answer.expect("a verdict");
        assert!(verdict.delay[0].not_before.to_string().starts_with(year));
        let answer = runtime.deliver(&asking("deliver", harm), &[], &attempt).await.answer.expect("no fault");
        let Err(DeliveryError::Recoverable { next_attempt_time: Some(at), .. }) = answer else { panic!("{answer:?}") };
        assert!(at.to_string().starts_with(year));
    }
}

/// A time in the past delays nothing, and no time keeps a message beyond its window.
#[test]
fn a_message_does_not_wait_beyond_its_window() {
    let home = home("", "");
    let asks = [("check", "past"), ("check", "far"), ("deliver", "past"), ("deliver", "far")];
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(20);
    let asks = asks.map(|(function, harm)| {
        let fields = json!({"context": {"in": function, "do": harm}, "expiration_time": soon.to_string()});
        super::message("note", fields).to_string()
    });
    let run = home.ace(&["send", "--json", "--max-delay", "0", "-"]).input(asks.join("\n")).run();
    let states: Vec<_> = run.lines().iter().map(|line| crate::support::email(line)["state"].clone()).collect();
    assert_eq!(states[0], "sent");
    assert_eq!(states[1], "expired");
    assert!(["retry", "expired"].map(|s| json!(s)).contains(&states[2]), "{states:?}");
    assert_eq!(states[3], "expired");
}

#[tokio::test]
async fn an_invalid_description_rejects_the_channel() {
    let home = home("", "");
    let cases = [
        ("every-type", "a channel has one type"),
        ("no-type", "\"\" cannot be a channel type"),
        ("upper-type", "\"E-Mail\" cannot be a channel type"),
        ("file-outside", "\"../../../etc/passwd\" cannot be a template file's name"),
        ("file-hidden", "\".netrc\" cannot be a template file's name"),
        ("many-files", "257 template files, the limit is 256"),
    ];
    for (harm, _) in cases {
        home.guest("hostile", harm);
        home.file(&format!("plugins/{harm}.toml"), format!("[defaults]\nin = 'describe'\ndo = '{harm}'\n"));
    }
    let engine = Engine::start(home).await;
    for (harm, words) in cases {
        let reason = engine.reason(harm);
        assert!(reason.starts_with("describe: ") && reason.contains(words), "{harm}: {reason}");
    }
}
