//! Hand-written components that no compiler produces: with harmfully many or large parts, and with false positions of their answers.

use ace::message::FaultKind;
use serde_json::json;

use super::{Engine, assert_fault, call, configure, note};
use crate::support::Home;

/// hostile/policy.wat with a text instead of one of its placeholders.
fn component(mark: &str, part: &str) -> Vec<u8> {
    let mark = format!("(;{mark};)");
    let text = include_str!("policy.wat");
    assert_eq!(text.matches(&mark).count(), 1, "{mark}");
    wat::parse_str(text.replace(&mark, part)).unwrap_or_else(|e| panic!("{e}"))
}

/// Instances of core modules with this content.
fn instances(count: usize, of: &str) -> Vec<u8> {
    let one = "(core instance (instantiate $part))\n";
    component("component", &format!("(core module $part {of})\n{}", one.repeat(count)))
}

/// Components inside components.
fn nested(depth: usize) -> Vec<u8> {
    const HEADER: [u8; 8] = *b"\0asm\x0d\0\x01\0";
    const COMPONENT_SECTION: u8 = 4;
    let mut bytes = HEADER.to_vec();
    for _ in 0..depth {
        let mut outer = HEADER.to_vec();
        outer.push(COMPONENT_SECTION);
        let mut length = bytes.len();
        while length > 0x7f {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

/// A type of 2^`depth` parts.
fn wide_type(depth: usize) -> Vec<u8> {
    let mut text = "(type $t0 (tuple u8 u8))\n".to_owned();
    for n in 1..=depth {
        text += &format!("(type $t{n} (tuple $t{} $t{}))\n", n - 1, n - 1);
    }
    component("component", &text)
}

/// An engine with these policies, and a normal one.
pub(super) async fn engine(components: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Engine {
    let home = Home::new(&["stub_policy"], "");
    for (name, bytes) in components {
        home.file(&format!("plugins/{name}.wasm"), bytes);
    }
    configure(&home, "memory = '8MiB'\ntime = '50ms'", "");
    Engine::start(home).await
}

#[tokio::test]
async fn bombs_are_rejected_when_loaded_and_the_others_are_active() {
    let spin = "(func $start (loop $again (br $again))) (start $start)";
    let trap = "(func $start unreachable) (start $start)";
    let grow = "(func $start (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) \
                unreachable) (start $start)";
    let cases = [
        ("instances", instances(150, ""), "instance count too high at 101"),
        ("memories", instances(5, "(memory 1)"), "memory count too high at 5"),
        ("tables", instances(21, "(table 1 funcref)"), "table count too high at 21"),
        ("much_memory", instances(3, "(memory 64)"), "it wanted more than 8388608 bytes of memory (memory)"),
        (
            "huge_memory",
            instances(1, "(memory 65536)"),
            "its initial memory is 4294967296 bytes, more than the 8388608",
        ),
        ("huge_table", instances(1, "(table 200000 funcref)"), "it does not compile: "),
        ("starts_to_spin", component("module", spin), "it computed for longer than 50ms (time)"),
        ("starts_to_trap", component("module", trap), "unreachable"),
        ("starts_to_grow", component("module", grow), "it wanted more than 8388608 bytes of memory (memory)"),
        ("wide_type", wide_type(40), "it does not compile: "),
        ("nested", nested(50), "exports none of openedx:ace/policy"),
        ("deeply_nested", nested(5_000), ""),
    ];
    let engine = engine(cases.iter().map(|(name, bytes, _)| (*name, bytes.clone()))).await;
    for (name, _, words) in cases {
        let reason = engine.reason(name);
        assert!(reason.contains(words), "{name}: {reason}");
    }
    call(&engine.runtime("stub_policy"), "check", &note(json!({}))).await.expect("it is valid");
}

#[tokio::test]
async fn a_table_grows_only_up_to_its_limit() {
    let module = "(table $table 1 funcref) (global $grown (mut i32) (i32.const 1))";
    let grow = "(block $full (loop $again
                    (br_if $full (i32.eq (table.grow $table (ref.null func) (i32.const 999)) (i32.const -1)))
                    (br $again)))
                (if (i32.gt_u (table.size $table) (i32.const 100000)) (then unreachable))
                (if (i32.lt_u (table.size $table) (i32.const 90000)) (then unreachable))";
    let text = include_str!("policy.wat").replace("(;module;)", module).replace("(;check;)", grow);
    let engine = engine([("table", wat::parse_str(text).expect("it is valid"))]).await;
    let runtime = engine.runtime("table");
    for _ in 0..3 {
        call(&runtime, "check", &note(json!({}))).await.expect("the guest is told that it cannot grow");
    }
}

/// The answer of `check` is at 0: a byte for ok, then address and length of the denials, address and length of the delays.
#[tokio::test]
async fn false_positions_of_an_answer_are_faults() {
    let one_denial = "(i32.store (i32.const 4) (i32.const 256)) (i32.store (i32.const 8) (i32.const 1))
                      (i32.store (i32.const 256) (i32.const 512)) (i32.store (i32.const 260) (i32.const 4))";
    let cases = [
        ("outside", "(return (i32.const 65528))".to_owned(), "out of bounds"),
        ("negative", "(return (i32.const -8))".to_owned(), "out of bounds"),
        ("misaligned", "(return (i32.const 1))".to_owned(), "not aligned"),
        ("no_such_case", "(i32.store8 (i32.const 0) (i32.const 7))".to_owned(), "discriminant"),
        ("endless_list", "(i32.store (i32.const 8) (i32.const -1))".to_owned(), ""),
        ("list_outside", format!("{one_denial} (i32.store (i32.const 4) (i32.const 65532))"), "out of bounds"),
        ("text_outside", format!("{one_denial} (i32.store (i32.const 256) (i32.const 65534))"), "out of bounds"),
        ("no_text", format!("{one_denial} (i32.store (i32.const 512) (i32.const -1))"), "utf-8"),
    ];
    let engine = engine(cases.iter().map(|(name, body, _)| (*name, component("check", body)))).await;
    for (name, _, words) in cases {
        let fault = call(&engine.runtime(name), "check", &note(json!({}))).await.expect_err(name);
        assert!(matches!(fault.kind, FaultKind::Trap | FaultKind::Answer), "{name}: {fault:?}");
        assert_fault(&fault, fault.kind, words);
    }
    call(&engine.runtime("stub_policy"), "check", &note(json!({}))).await.expect("it is valid");
}

/// No import takes a function, so a guest can only try to reenter itself from within: it passes its core code one of its own
/// component's functions, through a table that is filled after the code is instantiated.
#[tokio::test]
async fn a_guest_that_reenters_itself_is_cut() {
    let module = "(table (export \"table\") 1 funcref) (type $entered (func))
                  (func (export \"entered\"))";
    let linked = "(func $entered (canon lift (core func $core \"entered\")))
                  (core func $lowered (canon lower (func $entered)))
                  (core module $link
                    (import \"core\" \"table\" (table 1 funcref))
                    (import \"core\" \"entered\" (func $entered))
                    (elem (i32.const 0) $entered))
                  (core instance (instantiate $link (with \"core\" (instance
                    (export \"table\" (table $core \"table\"))
                    (export \"entered\" (func $lowered))))))";
    let check = "(call_indirect (type $entered) (i32.const 0))";
    let text = include_str!("policy.wat").replace("(;module;)", module).replace("(;after;)", linked);
    let text = text.replace("(;check;)", check);
    let engine = engine([("reenters", wat::parse_str(text).unwrap_or_else(|e| panic!("{e}")))]).await;
    let runtime = engine.runtime("reenters");
    for _ in 0..3 {
        let fault = call(&runtime, "check", &note(json!({}))).await.expect_err("it enters itself");
        assert_fault(&fault, FaultKind::Trap, "cannot enter component instance");
    }
    call(&engine.runtime("stub_policy"), "check", &note(json!({}))).await.expect("it is valid");
}
