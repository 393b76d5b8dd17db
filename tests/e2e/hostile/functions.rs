//! Every harm in every function: which fault it causes, and that the next call works.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ace::message::{Attempt, DeliveryError, FaultKind};
use serde_json::json;

use super::{Engine, asking, assert_fault, call, configure, fault, home, note};
use crate::servers::relay;
use crate::support::{Home, assert_text, email};

const FUNCTIONS: [&str; 5] = ["check", "overrides", "action-links", "trackers", "deliver"];

/// Harms, and the host's message for each.
const HARMS: [(&str, FaultKind, &str); 10] = [
    ("trap", FaultKind::Trap, "unreachable"),
    ("spin", FaultKind::Time, "it computed for longer than 30ms (time)"),
    ("hoard", FaultKind::Memory, "it wanted more than 8388608 bytes of memory (memory)"),
    ("recurse", FaultKind::Trap, ""),
    ("sleep", FaultKind::CallTimeout, "the call took longer than 120ms (call-timeout)"),
    ("exit", FaultKind::Trap, "Exited with i32 exit status 0"),
    ("handles", FaultKind::Trap, "store handle limit exceeded"),
    ("random", FaultKind::Trap, "exceeds limit 1048576"),
    ("forge", FaultKind::Trap, "handle index 1 used with the wrong type"),
    ("host-calls", FaultKind::Trap, "more than 500 times in one call (limits.host-calls)"),
];

const LIMITS: &str = "memory = '8MiB'\ntime = '30ms'\nchannel-call-timeout = '120ms'\n\
                      host-calls = 500";

#[tokio::test]
async fn each_harm_in_each_function_is_a_fault_and_the_next_call_works() {
    let engine = Engine::start(home(LIMITS, "")).await;
    let runtime = engine.runtime("hostile");
    for function in FUNCTIONS {
        for (harm, kind, words) in HARMS {
            let fault = fault(&runtime, function, harm).await;
            assert_fault(&fault, kind, words);
            let has_stack = !matches!(kind, FaultKind::CallTimeout);
            assert_eq!(fault.backtrace.is_some(), has_stack, "{harm} in {function}: {fault:?}");
            assert_eq!(runtime.idle_instances(), 0, "{harm} in {function}: its instance is thrown away");
            call(&runtime, function, &note(json!({}))).await.unwrap_or_else(|e| panic!("after {harm}: {e}"));
            assert_eq!(runtime.idle_instances(), 1);
        }
    }
    assert_eq!(runtime.circuit_breaker.view().faults, (FUNCTIONS.len() * HARMS.len()) as u64, "each is counted");
}

#[tokio::test]
async fn harm_while_loading_rejects_only_that_plugin() {
    let home = home(LIMITS, "");
    let cases = [("trap", "unreachable"), ("spin", "(time)"), ("hoard", "(memory)"), ("recurse", ""), ("exit", "exit")];
    for function in ["enabled", "describe"] {
        for (harm, _) in cases {
            let name = format!("{function}_{harm}");
            home.guest("hostile", &name);
            home.file(&format!("plugins/{name}.toml"), format!("[defaults]\nin = '{function}'\ndo = '{harm}'\n"));
        }
    }
    let engine = Engine::start(home).await;
    for function in ["enabled", "describe"] {
        for (harm, words) in cases {
            let reason = engine.reason(&format!("{function}_{harm}"));
            assert!(reason.starts_with(&format!("{function}: ")) && reason.contains(words), "{harm}: {reason}");
        }
    }
    call(&engine.runtime("hostile"), "check", &note(json!({}))).await.expect("it is valid");
    engine.runtime("stub_policy");
}

/// On one thread: a guest that spins must not block others, and the time that others compute does not count for it.
#[tokio::test]
async fn while_some_guests_spin_and_one_sleeps_another_answers() {
    let engine = Engine::start(home("time = '100ms'\nchannel-call-timeout = '5s'", "")).await;
    let (hostile, valid) = (engine.runtime("hostile"), engine.runtime("stub_policy"));
    let started = Instant::now();
    let spinning = std::iter::repeat_with(|| {
        let hostile = hostile.clone();
        tokio::spawn(async move { fault(&hostile, "check", "spin").await })
    });
    let spinning: Vec<_> = spinning.take(4).collect();
    let sleeper = hostile.clone();
    let sleeping = tokio::spawn(async move { call(&sleeper, "check", &asking("check", "sleep")).await });
    let answering = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            valid.check(&note(json!({})), false).await.answer.expect("it is valid");
            tokio::task::yield_now().await;
            slowest = slowest.max(started.elapsed());
        }
        slowest
    });
    let slowest = answering.await.expect("no panic");
    let spun = !spinning.iter().all(|task| task.is_finished());
    for task in spinning {
        assert_fault(&task.await.expect("no panic"), FaultKind::Time, "it computed for longer than 100ms (time)");
    }
    // A tick for each of the four, and some time for a loaded machine.
    assert!(spun && slowest < Duration::from_millis(250), "{slowest:?}");
    // Each computed for 100 ms, give or take a tick.
    assert!(started.elapsed() >= Duration::from_millis(4 * 90), "{:?}", started.elapsed());
    assert!(!sleeping.is_finished());
    sleeping.abort();
}

#[tokio::test]
async fn a_handle_is_valid_for_one_call_and_can_be_dropped_once() {
    let engine = Engine::start(home("", "")).await;
    let runtime = engine.runtime("hostile");
    call(&runtime, "check", &asking("check", "stale")).await.expect("it keeps the handle");
    let stale = fault(&runtime, "check", "stale").await;
    assert_fault(&stale, FaultKind::Trap, "this message belongs to a call that has ended");
    call(&runtime, "check", &asking("check", "stale")).await.expect("another instance, which keeps its own");
    let twice = fault(&runtime, "check", "drop-twice").await;
    assert_fault(&twice, FaultKind::Trap, "unknown handle index");
}

/// A mail server that reads the mail, and then never replies.
fn silent_after_the_mail() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || speak(stream));
        }
    });
    port
}

fn speak(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 here\r\n")?;
    let (lines, mut is_content) = (BufReader::new(stream.try_clone()?).lines(), false);
    for line in lines {
        let line = line?;
        match line.as_str() {
            "." if is_content => std::thread::sleep(Duration::from_secs(60)),
            _ if is_content => {}
            "DATA" => {
                is_content = true;
                stream.write_all(b"354 go on\r\n")?;
            }
            _ => stream.write_all(b"250 well\r\n")?,
        }
    }
    Ok(())
}

#[test]
fn a_delivery_that_is_cut_while_it_sends_a_mail_is_maybe_sent() {
    let port = silent_after_the_mail();
    let home = Home::empty();
    home.guest("hostile", "hostile");
    let plugin = "[plugins.hostile]\ngrants = { mailer = true }\nlimits = { call-timeout = '2s' }";
    configure(&home, "", &format!("{}\n{plugin}", relay(port, "tls = 'none'")));
    let notes = ["mail", ""].map(|harm| super::message("note", json!({"context": {"in": "deliver", "do": harm}})));
    let lines = home.send(&notes).code(1).lines();
    assert_eq!(email(&lines[0])["state"], "maybe_sent");
    assert_text(
        &email(&lines[0])["reason"],
        "mail was handed to the relay; then hostile: the call took longer than 2s",
    );
    assert_eq!(email(&lines[1])["state"], "sent", "the next message");
}

#[tokio::test]
async fn a_fault_before_anything_was_sent_is_a_plain_failure() {
    let engine = Engine::start(home("", "")).await;
    let attempt = Attempt { number: 1, idempotency_key: "key".to_owned() };
    let runtime = engine.runtime("hostile");
    let called = runtime.deliver(&asking("deliver", "trap"), &[], &attempt).await;
    assert!(called.handover.is_none_or(|handover| handover.pending.is_none() && handover.accepted.is_none()));
    assert!(called.answer.is_err_and(|fault| fault.kind == FaultKind::Trap));
    let refused = runtime.deliver(&asking("deliver", "mail"), &[], &attempt).await;
    assert!(
        !matches!(refused.answer, Ok(Err(DeliveryError::MaybeSent { .. }))),
        "nothing was started without the grant"
    );
    assert_eq!(refused.denied.len(), 1, "and the timeline says so");
}
