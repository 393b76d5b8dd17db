//! Circuit breakers; and what an instance remembers between calls.

use std::time::Duration;

use ace::internals::plugin::Runtime;
use ace::message::FaultKind;
use serde_json::json;

use super::{Engine, asking, assert_fault, call, fault, home, note};
use crate::support::{assert_text, email, message};

const QUICK: &str = "circuit-faults = 3\ncircuit-window = '60s'\ncircuit-pause = '150ms'";

#[tokio::test]
async fn a_circuit_opens_after_a_number_of_faults_and_a_successful_test_closes_it() {
    let engine = Engine::start(home(QUICK, "")).await;
    let runtime = engine.runtime("hostile");
    let valid = note(json!({}));
    let pause = || tokio::time::sleep(Duration::from_millis(170));
    for _ in 0..3 {
        call(&runtime, "check", &valid).await.expect("closed");
        assert_fault(&fault(&runtime, "check", "trap").await, FaultKind::Trap, "");
    }
    for asked in [&valid, &asking("check", "trap")] {
        let open = call(&runtime, "check", asked).await.expect_err("open");
        assert_fault(&open, FaultKind::Unavailable, "it failed too often; its circuit breaker is open for another");
    }
    let shown = runtime.circuit_breaker.view();
    assert!(shown.open && shown.faults == 3, "nothing reached the guest: {shown:?}");

    pause().await;
    assert_fault(&fault(&runtime, "check", "trap").await, FaultKind::Trap, "");
    assert_fault(&fault(&runtime, "check", "trap").await, FaultKind::Unavailable, "its circuit breaker is open");
    pause().await;
    call(&runtime, "check", &valid).await.expect("the trial");
    assert!(!runtime.circuit_breaker.view().open);
    fault(&runtime, "check", "trap").await;
    call(&runtime, "check", &valid).await.expect("one fault does not open it again");
}

#[tokio::test]
async fn while_one_call_tests_the_plugin_no_other_is_allowed() {
    let engine = Engine::start(home(&format!("{QUICK}\nchannel-call-timeout = '100ms'"), "")).await;
    let runtime = engine.runtime("hostile");
    for _ in 0..3 {
        fault(&runtime, "check", "trap").await;
    }
    tokio::time::sleep(Duration::from_millis(170)).await;
    let trial = runtime.clone();
    let trial = tokio::spawn(async move { fault(&trial, "check", "sleep").await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let other = call(&runtime, "check", &note(json!({}))).await.expect_err("a trial is under way");
    assert_fault(&other, FaultKind::Unavailable, "its circuit breaker is open");
    assert_fault(&trial.await.expect("no panic"), FaultKind::CallTimeout, "");
}

#[test]
fn with_an_open_circuit_on_error_applies_and_it_is_logged_once() {
    for (on_error, state) in [("retry", "retry"), ("deny", "denied"), ("allow", "sent")] {
        let limits = "circuit-faults = 3\ncircuit-pause = '1h'";
        let home = home(limits, &format!("[plugins.hostile]\non-error = '{on_error}'"));
        let ask = |harm: &str| message("note", json!({"context": {"in": "check", "do": harm}})).to_string();
        let asks: Vec<String> = ["trap", "trap", "trap", "", "trap", ""].map(ask).into();
        let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
        let done = home.ace(&arguments).input(asks.join("\n")).run();
        let lines = done.lines();
        for (at, line) in lines.iter().enumerate() {
            // `hostile` is a channel, too: an open circuit applies to the whole plugin.
            let of_channel = on_error == "allow" && at >= 2;
            assert_eq!(email(line)["state"], if of_channel { "retry" } else { state }, "{on_error}, message {at}");
            let kind = if at < 3 { "trap" } else { "unavailable" };
            let policies = line["report"]["policies"].as_array().expect("policies");
            let broken = &policies.iter().find(|p| p["policy"] == "hostile").expect("it was asked")["broken"];
            assert_eq!(broken["fault"]["kind"], kind, "message {at}");
        }
        assert_text(
            &lines[3]["report"]["policies"][0]["broken"]["fault"]["message"],
            "its circuit breaker is open for another 3",
        );
        assert_eq!(done.stderr.matches("The plugin failed too often and is not called for 3600s").count(), 1);
    }
}

/// How often this instance has been called, including now.
async fn count(runtime: &Runtime) -> u32 {
    let verdict = runtime.check(&asking("check", "count"), false).await.answer.expect("it is valid");
    verdict.deny[0].reason.as_deref().and_then(|n| n.parse().ok()).expect("a number")
}

#[tokio::test]
async fn an_instance_for_each_message_remembers_nothing() {
    let engine = Engine::start(home("", "[plugins.hostile]\nisolation = 'message'")).await;
    let runtime = engine.runtime("hostile");
    for _ in 0..50 {
        assert_eq!(count(&runtime).await, 1);
        // Lets the spare instances be created.
        tokio::task::yield_now().await;
    }
    assert!(runtime.idle_instances() <= 4, "{} spares", runtime.idle_instances());
    fault(&runtime, "check", "trap").await;
    assert_eq!(count(&runtime).await, 1);
}

#[tokio::test]
async fn a_pooled_instance_is_called_a_limited_number_of_times_and_never_after_a_fault() {
    let engine = Engine::start(home("calls-per-instance = 5", "")).await;
    let runtime = engine.runtime("hostile");
    let mut lives = Vec::new();
    let mut last = count(&runtime).await;
    for _ in 0..500 {
        let now = count(&runtime).await;
        if now == 1 {
            lives.push(last);
        } else {
            assert_eq!(now, last + 1, "a warm instance remembers");
        }
        last = now;
    }
    // The first instance has answered a call when it was loaded.
    lives.remove(0);
    assert!(lives.iter().all(|calls| (5..10).contains(calls)), "{lives:?}");
    lives.sort_unstable();
    lives.dedup();
    assert!(lives.len() > 1, "the number of calls is drawn by lot: {lives:?}");

    assert_eq!((count(&runtime).await > 0, count(&runtime).await > 0), (true, true));
    fault(&runtime, "check", "trap").await;
    assert_eq!(count(&runtime).await, 1);
}
