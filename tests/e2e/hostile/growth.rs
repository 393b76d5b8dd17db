//! After any number of faults, the host has released all memory and all slots of the instance pool.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::sync::Arc;

use serde_json::json;

use super::{Engine, asking, call, fault, home, note};
use crate::support::{Done, message};

/// More than the pool has slots.
const FAULTS: usize = 1_100;

#[tokio::test]
async fn a_slot_of_the_pool_is_released_after_each_fault() {
    let engine = Engine::start(home("", "")).await;
    let runtime = engine.runtime("hostile");
    for n in 0..FAULTS {
        let fault = fault(&runtime, "check", "trap").await;
        assert!(fault.message.contains("unreachable"), "{n}: {fault}");
    }
    call(&runtime, "check", &note(json!({}))).await.expect("there is room");
}

#[tokio::test]
async fn a_slot_of_the_pool_is_released_after_a_cancelled_call() {
    let engine = Engine::start(home("instances = 8", "")).await;
    let runtime = engine.runtime("hostile");
    for _ in 0..150 {
        let calls: [_; 8] = std::array::from_fn(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { call(&runtime, "check", &asking("check", "sleep")).await })
        });
        tokio::task::yield_now().await;
        for call in calls {
            call.abort();
            assert!(call.await.is_err_and(|e| e.is_cancelled()));
        }
    }
    call(&runtime, "check", &note(json!({}))).await.expect("there is room");
}

/// Every harm of `check` that ends with the call.
const HARMS: [&str; 31] = [
    "trap",
    "spin",
    "hoard",
    "recurse",
    "sleep",
    "exit",
    "handles",
    "random",
    "forge",
    "stdin",
    "log",
    "forge-log",
    "refusals",
    "loot",
    "long-keys",
    "host-calls",
    "stale",
    "drop-twice",
    "spy",
    "effects",
    "count",
    "huge-text",
    "long-text",
    "huge-list",
    "long-list",
    "control",
    "type",
    "long-type",
    "past",
    "never",
    "",
];
/// How much memory the host may keep after the first rounds, in bytes: the allocator's slack. One leaked instance per round would be
/// six times as much.
const SLACK: u64 = 48 << 20;

/// The resident memory of a process, in bytes.
fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn memory_does_not_grow_over_many_rounds() {
    let plugin =
        "[plugins.hostile]\non-error = 'allow'\ngrants = { keyvalue = ['loot'] }\n[keyvalue]\nmax-entries = 100";
    let home = home("memory = '16MiB'\ntime = '10ms'\nchannel-call-timeout = '30ms'", plugin);
    let mut child = home.ace(&["send", "--json", "--concurrency", "2", "-"]).start_open();
    let mut input = child.stdin.take().expect("its input");
    let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
    let stderr = child.stderr.take().expect("its log");
    std::thread::spawn(move || BufReader::new(stderr).lines().for_each(drop));
    let mut rounds = |count: usize| {
        for _ in 0..count {
            for harm in HARMS {
                let note = message("note", json!({"context": {"in": "check", "do": harm}}));
                writeln!(input, "{note}").expect("it reads");
            }
            for _ in HARMS {
                let line = output.next().expect("an outcome for each message").expect("text");
                assert!(line.contains("\"sent\""), "{line}");
            }
        }
    };
    rounds(5);
    let before = resident(&child);
    rounds(20);
    let after = resident(&child);
    drop(input);
    assert!(after < before + SLACK, "{before} bytes, then {after}");
    Done::of(child).ok();
}

/// A running call finishes in the revision it started with. When it ends, the code and instances of that revision are freed.
#[tokio::test]
async fn an_old_revision_is_freed_when_its_last_call_ends() {
    let engine = Engine::start(home("channel-call-timeout = '300ms'", "")).await;
    let old = engine.runtime("hostile");
    let gone = Arc::downgrade(&old);
    let last = tokio::spawn(async move { call(&old, "check", &asking("check", "sleep")).await });
    tokio::task::yield_now().await;
    engine.home.file("plugins/hostile.toml", "version = '9.9.9'\n");
    engine.ace.reload().await.expect("it reads the new manifest");
    let new = engine.runtime("hostile");
    assert_ne!(gone.upgrade().expect("its last call is under way").settings.revision, new.settings.revision);
    call(&new, "check", &note(json!({}))).await.expect("the new one serves beside it");
    let fault = last.await.expect("no panic").expect_err("it slept too long");
    assert!(fault.message.contains("call-timeout"), "{fault}");
    assert!(gone.upgrade().is_none(), "something keeps the old revision");
}
