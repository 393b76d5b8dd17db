//! The trait of policies, and their verdicts.

use crate::bindings::policy::exports::openedx::ace::policy as wit;
use crate::{Message, Timestamp};

pub use wit::{Delay, Denial, PolicyResult};

/// A policy: it decides whether, when, and over which channel types a message may be sent. It can only deny and delay.
pub trait Policy {
    /// Checks the settings, once per load, before any message. An error rejects the plugin and is shown to the operator: name the
    /// setting and how to fix it.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// Evaluates one message. An error is a fault, not a denial: the operator's `on-error` decides what happens to the message.
    fn check(message: &Message) -> Result<PolicyResult, String>;
}

impl PolicyResult {
    /// The verdict that allows the message. Other verdicts start with it.
    pub fn pass() -> Self {
        PolicyResult::default()
    }

    /// Adds a denied channel type; `"*"` stands for all types. The reason is one line for operators.
    ///
    /// ```
    /// use ace_plugin::policy::PolicyResult;
    ///
    /// let verdict = PolicyResult::pass().deny("email", "opted out").delay("push", 1_767_225_600_000, "quiet hours");
    /// assert_eq!(verdict.deny[0].channel_type, "email");
    /// ```
    #[must_use]
    pub fn deny(mut self, channel_type: impl Into<String>, reason: impl Into<String>) -> Self {
        self.deny.push(Denial { channel_type: channel_type.into(), reason: Some(reason.into()) });
        self
    }

    /// Adds a channel type over which the message must not be sent before a time.
    #[must_use]
    pub fn delay(mut self, channel_type: impl Into<String>, not_before: Timestamp, reason: impl Into<String>) -> Self {
        self.delay.push(Delay { channel_type: channel_type.into(), not_before, reason: Some(reason.into()) });
        self
    }
}
