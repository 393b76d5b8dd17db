//! Harms that are possible in every language (tests/languages). The language's runtime is between the guest's code and the host:
//! whatever it does with a harm, the harm is contained.

use ace::internals::plugin::Runtime;
use ace::message::{FaultKind, PolicyResult};
use serde_json::json;

use super::{Engine, assert_fault, call, configure, note};
use crate::support::Home;

const LANGUAGES: [&str; 4] = ["c", "js", "starling", "python"];

/// Harms, and their results in C, in JavaScript on QuickJS and on StarlingMonkey, and in Python. A runtime can catch exceptions and
/// exhausted memory, and then returns an error of its own.
const HARMS: [(&str, [(FaultKind, &str); 4]); 5] = {
    use FaultKind::{Error, Memory, Time, Trap};
    const TIME: &str = "it computed for longer than 2s (time)";
    [
        ("error", [(Error, "the facts are out of reach"); 4]),
        ("trap", [(Trap, "unreachable"), (Error, "nothing the interface knows"), (Trap, ""), (Trap, "")]),
        ("spin", [(Time, TIME); 4]),
        ("hoard", [(Memory, "(memory)"), (Error, "out of memory"), (Error, "out of memory"), (Memory, "(memory)")]),
        ("recurse", [(Trap, "out of bounds"), (Trap, "call stack exhausted"), (Error, "out of memory"), (Trap, "")]),
    ]
};

/// Filling 64 MiB is slow on a busy machine.
const LIMITS: &str = "memory = '64MiB'\ntime = '2s'\npolicy-call-timeout = '20s'";

/// `lang_LANGUAGE` for each, and `fresh_LANGUAGE`, the same with an instance for each message.
async fn engine() -> Engine {
    let home = Home::new(&["stub_policy"], "");
    for language in LANGUAGES {
        let (guest, fresh) = (format!("lang_{language}"), format!("fresh_{language}"));
        home.guest(&guest, &guest);
        home.guest(&guest, &fresh);
        home.file(&format!("plugins/{fresh}.toml"), "[runtime]\nisolation = 'message'\n");
    }
    configure(&home, LIMITS, "");
    Engine::start(home).await
}

#[tokio::test]
async fn each_harm_in_each_language_is_a_fault_and_the_next_call_works() {
    let engine = engine().await;
    for (harm, faults) in HARMS {
        for (language, (kind, words)) in LANGUAGES.into_iter().zip(faults) {
            let runtime = engine.runtime(&format!("lang_{language}"));
            let fault = call(&runtime, "check", &note(json!({ "do": harm }))).await;
            let fault = fault.expect_err(&format!("{harm} in {language}"));
            assert_fault(&fault, kind, words);
            call(&runtime, "check", &note(json!({}))).await.unwrap_or_else(|e| panic!("{language} after {harm}: {e}"));
        }
        call(&engine.runtime("stub_policy"), "check", &note(json!({}))).await.expect("it is valid");
    }
}

/// The number of calls that the instance remembers, including this one.
async fn count(runtime: &Runtime) -> PolicyResult {
    runtime.check(&note(json!({ "do": "count" })), false).await.answer.unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn an_instance_remembers_in_every_language_and_a_fresh_one_does_not() {
    let engine = engine().await;
    for language in LANGUAGES {
        let (warm, fresh) = (engine.runtime(&format!("lang_{language}")), engine.runtime(&format!("fresh_{language}")));
        for calls in ["1", "2", "3"] {
            assert_eq!(count(&warm).await.deny[0].reason.as_deref(), Some(calls), "{language}");
            assert_eq!(count(&fresh).await.deny[0].reason.as_deref(), Some("1"), "{language}");
        }
    }
}
