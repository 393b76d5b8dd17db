//! Malicious names of functions, which are in every stack trace of the guest.

use ace::message::{FaultKind, REPORT_BYTES_MAX};
use serde_json::{Value, json};

use super::bombs::engine;
use super::{Engine, assert_fault, call, note};
use crate::support::{Home, mail_home, message};

/// The maximum size of a fault's stack trace in bytes.
const STACK_BYTES_MAX: usize = 8 << 10;

/// The mangled name of a C++ function of `parameters` parameters, each a template of twice the previous one: demangled, it has
/// 2^`parameters` names.
pub fn mangled(parameters: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let seen = |n: usize| match n {
        0 => "S_".to_owned(),
        n if n <= 36 => format!("S{}_", char::from(DIGITS[n - 1])),
        n => format!("S{}{}_", char::from(DIGITS[(n - 1) / 36]), char::from(DIGITS[(n - 1) % 36])),
    };
    let doubled = (1..parameters).map(|n| format!("S_I{0}{0}E", seen(n)));
    format!("_Z1f1pIiiE{}", doubled.collect::<String>())
}

/// hostile/policy.wat, whose `check` calls a function of this name that traps, `depth` calls deep.
fn trapping(name: &str, depth: usize) -> Vec<u8> {
    let quoted: String = name.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let function = format!(
        "(func $named (@name \"{quoted}\") (param i32)
           (if (i32.eqz (local.get 0)) (then unreachable))
           (call $named (i32.sub (local.get 0) (i32.const 1))))"
    );
    let text = include_str!("policy.wat")
        .replace("(;module;)", &function)
        .replace("(;check;)", &format!("(call $named (i32.const {depth}))"));
    wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_generator_makes_names_that_a_demangler_would_expand() {
    assert_eq!(mangled(3), "_Z1f1pIiiES_IS0_S0_ES_IS1_S1_E");
    assert!(trapping(&mangled(60), 1).len() < 3_000);
}

#[tokio::test]
async fn names_in_a_stack_are_not_demangled_and_truncated() {
    let long = "n".repeat(60_000);
    let controls = "\u{1b}[2J\r\nforged\u{202e}\u{200b}line";
    let engine = engine([
        ("bomb", trapping(&mangled(90), 1)),
        ("mild", trapping(&mangled(20), 19)),
        ("rust", trapping(&format!("_RNvC1a{}", "1b".repeat(500)), 1)),
        ("long", trapping(&long, 10_000)),
        ("controls", trapping(controls, 3)),
        ("deep", trapping("deep", i32::MAX as usize)),
    ])
    .await;
    for name in ["bomb", "mild", "rust", "long", "controls", "deep"] {
        let fault = call(&engine.runtime(name), "check", &note(json!({}))).await.expect_err("it traps");
        assert_fault(&fault, FaultKind::Trap, if name == "deep" { "call stack exhausted" } else { "unreachable" });
        let stack = fault.backtrace.expect("it was running");
        assert!(stack.len() < STACK_BYTES_MAX, "{name}: {} bytes", stack.len());
        assert!(stack.lines().count() <= 20, "{name}: {stack}");
        assert!(!stack.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{name}: {stack:?}");
    }
    let stack = |name: &'static str| {
        let runtime = engine.runtime(name);
        async move { call(&runtime, "check", &note(json!({}))).await.expect_err("it traps").backtrace.expect("a stack") }
    };
    assert!(stack("mild").await.contains("!_Z1f1pIiiES_IS0_S0_E"), "raw: {}", stack("mild").await);
    assert!(stack("controls").await.contains("! [2J  forgedline"), "{}", stack("controls").await);
}

#[tokio::test]
async fn a_function_with_an_endless_name_is_rejected_when_loaded() {
    let engine = engine([("endless", trapping(&"n".repeat(70_000), 1))]).await;
    let reason = engine.reason("endless");
    assert!(reason.contains("70000 bytes") && reason.contains("wasm-tools strip"), "{reason}");
}

#[tokio::test]
async fn names_of_imports_are_truncated_in_every_error() {
    let long = "x".repeat(90_000);
    let many = |what: fn(usize) -> String| {
        let parts: String = (0..500).map(what).collect();
        wat::parse_str(format!("(component {parts})")).expect("WAT")
    };
    let engine: Engine = engine([
        ("import", wat::parse_str(format!("(component (import \"acme:a/{long}\" (instance)))")).expect("WAT")),
        ("imports", many(|n| format!("(import \"f{n}\" (func))"))),
        ("some", {
            let parts: String = (0..90).map(|n| format!("(import \"acme:a/i{n}\" (instance))")).collect();
            wat::parse_str(format!("(component {parts})")).expect("WAT")
        }),
    ])
    .await;
    for (name, words) in
        [("import", "the name of an import has 9"), ("imports", "it has more than 300 imports"), ("some", "acme:a/i89")]
    {
        let reason = engine.reason(name);
        assert!(reason.contains(words) && reason.len() <= 4_100, "{name}: {reason}");
    }
    let registry = engine.ace.registry();
    let shown = serde_json::to_string(&registry.plugins["import"].view()).expect("JSON");
    assert!(shown.len() < 5_000, "{} bytes", shown.len());
}

/// The name in the real program: the message is held or passes as ace.toml says, and its report is short.
#[test]
fn a_crafted_name_neither_kills_the_program_nor_fills_its_report() {
    let home: Home = mail_home("[routing.default]\nemail = 'django_email'\n[plugins.bomb]\non-error = 'deny'\n");
    home.file("plugins/bomb.wasm", trapping(&mangled(90), 19));
    home.file("plugins/mild.wasm", trapping(&mangled(20), 19));
    let line: Value = home.send(&[message("note", json!({}))]).lines().remove(0);
    let report = line["report"].to_string();
    assert!(report.len() < REPORT_BYTES_MAX && report.len() < 20_000, "{} bytes", report.len());
    let fault = &line["report"]["policies"][0]["broken"]["fault"];
    assert_eq!(fault["kind"], "trap", "{line}");
}

/// Names of exports and of interfaces, in a component of its own for each.
#[tokio::test]
async fn names_of_exports_are_truncated_in_every_error() {
    let long = "x".repeat(90_000);
    let wasm = |text: &str| wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"));
    let engine: Engine = engine([
        ("export", wasm(&format!("(component (instance $i) (export \"acme:a/{long}\" (instance $i)))"))),
        ("exports", {
            let parts: String = (0..500).map(|n| format!("(export \"acme:a/i{n}\" (instance $i))")).collect();
            wasm(&format!("(component (instance $i) {parts})"))
        }),
        ("interface", wasm(&format!("(component (import \"acme:a/b@1.0.0-{long}\" (instance)))"))),
    ])
    .await;
    for name in ["export", "exports", "interface"] {
        let reason = engine.reason(name);
        assert!(reason.len() <= 4_100 && !reason.contains(&"x".repeat(4_100)), "{name}: {reason}");
        let shown = serde_json::to_string(&engine.ace.registry().plugins[name].view()).expect("JSON");
        assert!(shown.len() < 5_000, "{name}: {} bytes", shown.len());
    }
}

/// Texts of manifests and messages are shown without control characters.
#[test]
fn foreign_texts_are_sanitized_before_they_reach_a_terminal() {
    let home: Home = mail_home("[routing.default]\nemail = 'django_email'\n");
    home.plugin("stub_policy");
    home.file("plugins/stub_policy.toml", "description = \"nice\\u001b[2J\\u009b31m\\u202etxt\"\n");
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for arguments in [&["plugins"][..], &["plugins", "stub_policy"], &["plugins", "--json"], &["check"]] {
        let done = home.ace(arguments).run();
        assert!(!done.stdout.contains(steers) && !done.stderr.contains(steers), "{arguments:?}: {done:?}");
    }
    let line = json!({"name": "note\u{1b}[2J\u{9b}31m", "app_label": "a", "recipient": {"lms_user_id": "\u{202e}1"}});
    home.file("message.json", line.to_string());
    for arguments in [&["explain", "message.json"][..], &["send", "message.json"], &["send", "--json", "message.json"]]
    {
        let done = home.ace(arguments).run();
        assert!(!done.stdout.contains(steers) && !done.stderr.contains(steers), "{arguments:?}: {done:?}");
    }
}
