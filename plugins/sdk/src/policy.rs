//! What a policy implements, and its verdict.

use crate::bindings::policy::exports::openedx::ace::policy as wit;
use crate::{Message, Timestamp};

pub use wit::{Delay, Denial, PolicyResult};

/// A policy: may this message go, over which channel types, and when? It only ever takes away or delays.
pub trait Policy {
    /// Asked once a load, before any message: are my settings usable? An error refuses the plugin; it is what the operator
    /// reads, so name the setting and how to mend it.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// Judge one message. An error is a fault, never a "no": the operator's `on-error` decides what becomes of the message.
    fn check(message: &Message) -> Result<PolicyResult, String>;
}

impl PolicyResult {
    /// The verdict that lets the message pass; the start of any other.
    pub fn pass() -> Self {
        PolicyResult::default()
    }

    /// This verdict, and a channel type that must not carry the message; `"*"` is every one. The reason is one line for the
    /// operator.
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

    /// This verdict, and a channel type that must not carry the message before a moment.
    #[must_use]
    pub fn delay(mut self, channel_type: impl Into<String>, not_before: Timestamp, reason: impl Into<String>) -> Self {
        self.delay.push(Delay { channel_type: channel_type.into(), not_before, reason: Some(reason.into()) });
        self
    }
}
