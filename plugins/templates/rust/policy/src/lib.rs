//! Holds back what is not transactional.

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Message, Settings};

struct __TYPE__;

ace_plugin::export_policy!(__TYPE__);

impl Policy for __TYPE__ {
    fn enabled() -> Result<(), String> {
        channel_types().map(|_| ())
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        if message.is_transactional() {
            return Ok(PolicyResult::pass());
        }
        let verdict = PolicyResult::pass();
        Ok(channel_types()?.into_iter().fold(verdict, |verdict, of| verdict.deny(of, "it is not transactional")))
    }
}

fn channel_types() -> Result<Vec<String>, String> {
    let types = Settings.get("channel-types").ok().flatten();
    types.ok_or_else(|| "config key \"channel-types\": a list such as [\"push\"] is expected".to_owned())
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(policy super::__TYPE__);
}
