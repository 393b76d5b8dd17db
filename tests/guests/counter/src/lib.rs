//! A policy that counts the messages of each learner per day, each message once, and denies push with the count as the reason.

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Message, keyvalue};

const DAY_MS: u64 = 86_400_000;

struct Counter;

ace_plugin::export_policy!(Counter);

impl Policy for Counter {
    fn check(message: &Message) -> Result<PolicyResult, String> {
        let learner = message.recipient().and_then(|r| r.lms_user_id).ok_or("the message has no learner")?;
        let once = message.uuid();
        let count = keyvalue::increment("counters", &learner.to_string(), 1, Some(DAY_MS), Some(&once))?;
        Ok(PolicyResult::pass().deny("push", count.to_string()))
    }
}
