//! A policy that denies push to a learner whose `plan` in the context is "free". It reads that value by a getter or, if
//! its config has `whole = true`, parses the whole message. The benchmarks compare the two.

use std::sync::LazyLock;

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Error, Message, Settings};
use serde_json::Value;

static WHOLE: LazyLock<Result<bool, Error>> = LazyLock::new(|| Ok(Settings.get("whole")?.unwrap_or_default()));

struct ContextReader;

ace_plugin::export_policy!(ContextReader);

impl Policy for ContextReader {
    fn check(message: &Message) -> Result<PolicyResult, String> {
        let is_free = if *WHOLE.as_ref().map_err(Clone::clone)? {
            let whole: Value = serde_json::from_str(&message.to_json()).map_err(|e| e.to_string())?;
            whole["context"]["plan"] == "free"
        } else {
            message.context::<String>("/plan")?.is_some_and(|plan| plan == "free")
        };
        Ok(if is_free { PolicyResult::pass().deny("push", "not in the plan") } else { PolicyResult::pass() })
    }
}
