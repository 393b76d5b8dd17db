//! Denies or delays the channel types in its config, like edx-ace's `StubPolicy`. For tests.

use std::sync::LazyLock;

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Error, Message, Settings, Timestamp, time};
use serde::Deserialize;

const DEFAULT_REASON: &str = "stub_policy says so";

static STUB: LazyLock<Result<Stub, Error>> = LazyLock::new(Stub::read);

struct StubPolicy;

ace_plugin::export_policy!(StubPolicy);

impl Policy for StubPolicy {
    fn enabled() -> Result<(), String> {
        Ok(stub().map(|_| ())?)
    }

    fn check(_: &Message) -> Result<PolicyResult, String> {
        let stub = stub()?;
        let now = if stub.delay.is_empty() { 0 } else { time::now() };
        Ok(stub.verdict(now))
    }
}

fn stub() -> Result<&'static Stub, Error> {
    STUB.as_ref().map_err(Clone::clone)
}

/// The config, which is the same for every message.
struct Stub {
    deny: Vec<String>,
    delay: Vec<Wait>,
    reason: String,
}

/// One entry of the config key `delay`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Wait {
    channel_type: String,
    /// The delay from the evaluation of the policy.
    seconds: u64,
}

impl Stub {
    fn read() -> Result<Self, Error> {
        let stub = Stub {
            deny: Settings.get("deny")?.unwrap_or_default(),
            delay: Settings.get("delay")?.unwrap_or_default(),
            reason: Settings.text("reason").unwrap_or_else(|| DEFAULT_REASON.to_owned()),
        };
        stub.validated()
    }

    fn validated(self) -> Result<Self, Error> {
        if self.deny.iter().any(|t| !is_channel_type(t)) {
            return Err(Error::new("config key \"deny\"", TYPES));
        }
        if self.delay.iter().any(|d| !is_channel_type(&d.channel_type)) {
            return Err(Error::new("config key \"delay\"", TYPES));
        }
        Ok(self)
    }

    fn verdict(&self, now: Timestamp) -> PolicyResult {
        let denied = self.deny.iter().fold(PolicyResult::pass(), |all, t| all.deny(t, &self.reason));
        self.delay.iter().fold(denied, |all, wait| {
            let not_before = now.saturating_add(wait.seconds.saturating_mul(1000));
            all.delay(&wait.channel_type, not_before, &self.reason)
        })
    }
}

const TYPES: &str = "a channel type is lower case without spaces (\"email\", \"push\"), or \"*\" for all types";

fn is_channel_type(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_uppercase() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stub(deny: &[&str], delay: &[(&str, u64)]) -> Stub {
        Stub {
            deny: deny.iter().map(|&t| t.to_owned()).collect(),
            delay: delay.iter().map(|&(t, seconds)| Wait { channel_type: t.to_owned(), seconds }).collect(),
            reason: "because".to_owned(),
        }
    }

    #[test]
    fn types_outside_the_config_are_allowed() {
        assert_eq!(stub(&[], &[]).verdict(1_000), PolicyResult::pass());
    }

    #[test]
    fn types_in_the_config_are_denied_and_delayed() {
        let expected = PolicyResult::pass().deny("*", "because").delay("push", 61_000, "because").delay(
            "email",
            u64::MAX,
            "because",
        );
        assert_eq!(stub(&["*"], &[("push", 60), ("email", u64::MAX)]).verdict(1_000), expected);
    }

    #[test]
    fn an_error_names_the_key_of_an_invalid_type() {
        assert!(stub(&["email", "*"], &[("sms", 1)]).validated().is_ok());
        let error = stub(&["Email"], &[]).validated().err().expect("upper case");
        assert!(error.to_string().starts_with("config key \"deny\": "), "{error}");
        let error = stub(&[], &[("", 1)]).validated().err().expect("empty");
        assert!(error.to_string().starts_with("config key \"delay\": "), "{error}");
    }
}
