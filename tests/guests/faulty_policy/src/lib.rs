//! A policy that fails as `context.policy_fault` of a message says, and when it is loaded as its config says. With `count`, it works and
//! denies push with the number of messages that it has counted.

#[path = "../../hostile/src/exhaustion.rs"]
mod exhaustion;

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Message, Settings, keyvalue};

struct FaultyPolicy;

ace_plugin::export_policy!(FaultyPolicy);

impl Policy for FaultyPolicy {
    fn enabled() -> Result<(), String> {
        match Settings.text("enabled").as_deref() {
            Some("refuse") => Err("config key \"enabled\": it says refuse".to_owned()),
            Some("trap") => panic!("config key \"enabled\" says trap"),
            _ => Ok(()),
        }
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        let fault: String = message.context("/policy_fault")?.unwrap_or_default();
        match fault.as_str() {
            "count" => {
                let count = keyvalue::increment("counters", "messages", 1, None, None)?;
                Ok(PolicyResult::pass().deny("push", count.to_string()))
            }
            "trap" => panic!("the message asks for a trap"),
            "spin" => exhaustion::spin(),
            "hoard" => exhaustion::hoard(),
            "error" => Err("the facts are\nout of reach".to_owned()),
            "nonsense" => Ok(PolicyResult::pass().deny("No Such Type!", "it cannot be one")),
            "flood" => Ok((0..10_000).fold(PolicyResult::pass(), |all, n| all.deny("push", n.to_string()))),
            _ => Ok(PolicyResult::pass()),
        }
    }
}
