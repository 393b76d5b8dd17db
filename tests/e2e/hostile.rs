//! Malicious plugins (tests/guests/hostile, and the hand-written hostile/policy.wat): whatever they do is contained and reported, and
//! affects neither the next call nor another plugin.
//!
//! A component has no way to call its own exports through the host, since no import takes a function, and the host calls none
//! while a call of the same instance is running. What it can try from within is in `bombs`.

mod answers;
mod bombs;
mod circuit;
mod functions;
mod growth;
mod languages;
pub mod names;
mod reach;

use std::sync::Arc;

use ace::internals::plugin::{PluginState, Runtime};
use ace::message::{Attempt, Fault, FaultKind};
use ace::{Ace, Config, Message};
use serde_json::{Value, json};

use crate::support::{Home, message};

/// A home in which `hostile` is the channel for e-mail, and a policy unless `toml` disables that.
fn home(limits: &str, toml: &str) -> Home {
    let home = Home::new(&["stub_policy"], "");
    home.guest("hostile", "hostile");
    configure(&home, limits, toml);
    home
}

/// Limits that are reached quickly, but not by a normal call. The circuit breaker stays closed unless `limits` changes that.
fn configure(home: &Home, limits: &str, toml: &str) {
    let circuit =
        if limits.contains("circuit-faults") { "" } else { "circuit-faults = 1000\ncircuit-window = '1ms'\n" };
    home.config(&format!("[limits]\n{circuit}{limits}\n\n{toml}\n"));
    home.file("templates/app/edx_ace/note/email/body.txt", "Hi");
}

/// An engine in this process.
struct Engine {
    ace: Ace,
    home: Home,
}

impl Engine {
    async fn start(home: Home) -> Engine {
        let config = Config::load(&home.path("ace.toml")).unwrap_or_else(|e| panic!("{e}"));
        let ace = Ace::builder(config).start().await.unwrap_or_else(|e| panic!("{e}"));
        Engine { ace, home }
    }

    #[track_caller]
    fn runtime(&self, plugin: &str) -> Arc<Runtime> {
        let registry = self.ace.registry();
        let plugin = &registry.plugins[plugin];
        plugin.runtime.clone().unwrap_or_else(|| panic!("{} does not serve: {:?}", plugin.name, plugin.state))
    }

    /// Why a plugin is not active.
    #[track_caller]
    fn reason(&self, plugin: &str) -> String {
        match &self.ace.registry().plugins[plugin].state {
            PluginState::Broken(reason) => reason.clone(),
            state => panic!("{plugin} is not broken: {state:?}"),
        }
    }
}

/// The message `note` with this context.
fn note(context: Value) -> Arc<Message> {
    let json = message("note", json!({ "context": context })).to_string();
    Arc::new(Message::from_json(json.as_bytes()).unwrap_or_else(|e| panic!("{e}")))
}

/// A message that causes `harm` in `function`.
fn asking(function: &str, harm: &str) -> Arc<Message> {
    note(json!({ "in": function, "do": harm }))
}

/// Calls one of the functions. Only its fault is of interest.
async fn call(runtime: &Runtime, function: &str, message: &Arc<Message>) -> Result<(), Fault> {
    let attempt = Attempt { number: 1, idempotency_key: "key".to_owned() };
    match function {
        "check" => runtime.check(message, false).await.answer.map(drop),
        "overrides" => runtime.overrides_delivery(message).await.answer.map(drop),
        "action-links" => runtime.action_links(message).await.answer.map(drop),
        "trackers" => runtime.tracker_image_sources(message).await.answer.map(drop),
        "deliver" => runtime.deliver(message, &[], &attempt).await.answer.map(drop),
        other => panic!("there is no {other}"),
    }
}

/// The fault of a call that causes `harm`.
async fn fault(runtime: &Runtime, function: &str, harm: &str) -> Fault {
    match call(runtime, function, &asking(function, harm)).await {
        Err(fault) => fault,
        Ok(()) => panic!("{harm} in {function} went through"),
    }
}

#[track_caller]
fn assert_fault(fault: &Fault, kind: FaultKind, words: &str) {
    assert!(fault.kind == kind && fault.message.contains(words), "not {kind:?} {words:?}: {fault:?}");
}
