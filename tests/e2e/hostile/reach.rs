//! Attempts to reach out of the sandbox, and to fill the host's storage.

use ace::Message;
use ace::message::{FaultKind, Verdict};
use serde_json::json;

use super::{Engine, asking, assert_fault, call, fault, home, note};
use crate::support::{Done, Home, assert_text, message};

/// The output of `ace` for messages that cause these harms in `check`, one after the other.
fn send(home: &Home, harms: &[&str]) -> Done {
    let asks = harms.iter().map(|harm| message("note", json!({"context": {"in": "check", "do": harm}})).to_string());
    let asks: Vec<String> = asks.collect();
    home.ace(&["--log", "info", "send", "--json", "--concurrency", "1", "--max-delay", "0", "-"])
        .input(asks.join("\n"))
        .run()
}

#[tokio::test]
async fn nothing_of_the_machine_is_visible() {
    let engine = Engine::start(home("", "")).await;
    let verdict = engine.runtime("hostile").check(&asking("check", "spy"), false).await.answer.expect("a verdict");
    let seen = verdict.deny[0].reason.as_deref().expect("what it saw");
    let words: Vec<&str> = seen.split(", ").collect();
    let nothing =
        ["arguments 0", "environment 0", "directory None", "folders 0", "tcp access-denied", "udp access-denied"];
    assert_eq!((&words[..6], &words[6..]), (&nothing[..], &["names permanent-resolver-failure"][..]));
}

/// The host's standard streams carry messages and outcomes.
#[test]
fn the_hosts_own_streams_are_out_of_reach() {
    let done = send(&home("", ""), &["stdout", "stdin", ""]).ok();
    assert!(!done.stdout.contains("forged"), "{}", done.stdout);
    assert_eq!(done.lines().len(), 3);
}

#[test]
fn a_log_is_truncated_and_cannot_forge_a_line() {
    let done = send(&home("log-bytes = '8KiB'", ""), &["log", "forge-log"]);
    let own: Vec<&str> = done.stderr.lines().filter(|line| line.contains("plugin=\"hostile\"")).collect();
    assert!(done.stderr.len() < 40_000, "{} bytes", done.stderr.len());
    assert_eq!(own.iter().filter(|line| line.contains("0000000")).count(), 8, "8 lines of 1,000 bytes");
    done.says("The plugin logs more than 8192 bytes in one call; the rest is dropped.");
    done.says("one ERROR forged line [31m");
    assert!(!done.stderr.lines().any(|line| line.starts_with("ERROR")), "{}", done.stderr);
}

#[test]
fn refused_calls_neither_flood_the_log_nor_forge_a_line() {
    let done = send(&home("", ""), &["refusals"]).ok();
    let refused = done.stderr.lines().filter(|line| line.contains("A host call was denied")).count();
    assert!((1..=16).contains(&refused), "the same reason is told once a minute: {refused}");
    assert!(done.stderr.len() < 40_000, "{} bytes", done.stderr.len());
    assert!(!done.stderr.lines().any(|line| line.starts_with("ERROR")), "{}", done.stderr);
    let told = &done.lines()[0]["report"]["policies"][0];
    let refused = told["refused"].as_array().expect("they stand in the timeline");
    assert_eq!(refused.len(), 16, "{told}");
    assert_text(&refused[0], "not granted; the operator can write");
}

const LOOT: &str = "[plugins.hostile]\ngrants = { keyvalue = ['loot'] }\n[keyvalue]\nmax-entries = 50\n";

#[tokio::test]
async fn the_store_and_every_key_have_a_quota() {
    let engine = Engine::start(home("time = '5s'\nchannel-call-timeout = '10s'", LOOT)).await;
    let runtime = engine.runtime("hostile");
    for harm in ["loot", "long-keys"] {
        assert_fault(&fault(&runtime, "check", harm).await, FaultKind::Trap, "unreachable");
        call(&runtime, "check", &note(json!({}))).await.expect("the next call");
    }
}

#[test]
fn the_guest_learns_which_quota_it_exceeded() {
    let done = send(&home("time = '5s'\nchannel-call-timeout = '10s'", LOOT), &["long-keys", "loot", "long-keys"]);
    done.says("0 keys, then ");
    done.says("a key or token of 2097153 bytes, the limit is 512");
    done.says("12 entries, then ");
    done.says("(keyvalue.max-bucket-entries)");
}

/// The writes of a dry call are in the host's memory until it ends, so they have a limit of their own.
#[tokio::test]
async fn writes_of_a_dry_call_are_limited_and_discarded() {
    let shadow = "[plugins.hostile]\nmode = 'shadow'\ngrants = { keyvalue = ['loot'] }\n";
    let engine = Engine::start(home("time = '5s'\nchannel-call-timeout = '10s'", shadow)).await;
    let message = Message::clone(&asking("check", "loot"));
    let report = engine.ace.explain(message, &[]).await.expect("no limit");
    let verdict = &report.policies.iter().find(|p| p.policy == "hostile").expect("it was asked").verdict;
    let Verdict::Broken { fault, .. } = verdict else { panic!("{verdict:?}") };
    assert_fault(fault, FaultKind::Trap, "unreachable");
    let runtime = engine.runtime("hostile");
    let dry = runtime.check(&note(json!({})), true).await.answer;
    dry.expect("the overlay of the call before is gone");
}
