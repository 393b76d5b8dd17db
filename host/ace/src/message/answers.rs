//! The results of policies, channels and resolvers, and their faults.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::addresses::{AddressRecord, Hold, RecordAddresses, add_record};
use super::{ChannelType, Context, MailRecord, Recipient, Unreached};

/// A channel type that must not carry a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    /// One line for operators.
    pub reason: Option<String>,
}

/// A channel type that must not carry a message yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    /// The earliest time of sending.
    pub not_before: Timestamp,
    /// One line for operators.
    pub reason: Option<String>,
}

/// A policy's verdict. An empty one allows the message; a policy can only deny or delay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyResult {
    /// The denied channel types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Denial>,
    /// The delayed channel types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delay: Vec<Delay>,
}

impl PolicyResult {
    /// Whether both deny the same channel types and delay the same ones. Reasons and times may differ.
    pub fn has_same_effect(&self, other: &PolicyResult) -> bool {
        fn types<'a, T>(list: &'a [T], name: fn(&'a T) -> &'a str) -> BTreeSet<&'a str> {
            list.iter().map(name).collect()
        }
        types(&self.deny, |d| &d.channel_type) == types(&other.deny, |d| &d.channel_type)
            && types(&self.delay, |d| &d.channel_type) == types(&other.delay, |d| &d.channel_type)
    }
}

/// The kind of a plugin's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// The plugin is not active: not loaded, rejected, or disabled by its `enabled`.
    Unavailable,
    /// A function returned an error that is not part of its interface.
    Error,
    /// It trapped.
    Trap,
    /// It exceeded its CPU time, `time`.
    Time,
    /// The call, including calls of the host, exceeded `call-timeout`.
    CallTimeout,
    /// It exceeded its memory limit.
    Memory,
    /// Its result is too long or invalid.
    Answer,
}

impl FaultKind {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Unavailable => "unavailable",
            FaultKind::Error => "error",
            FaultKind::Trap => "trap",
            FaultKind::Time => "time",
            FaultKind::CallTimeout => "call_timeout",
            FaultKind::Memory => "memory",
            FaultKind::Answer => "answer",
        }
    }
}

/// A fault of a plugin instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{plugin}: {message}")]
pub struct Fault {
    /// The name of the plugin, native policy or channel.
    pub plugin: String,
    /// The kind of fault.
    pub kind: FaultKind,
    /// What happened, for people.
    pub message: String,
    /// The stack of the guest, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

/// A template file that a channel requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TemplateFile {
    /// `subject.txt`, `body.html`. Files whose name ends in `.html` are escaped, others are not.
    pub name: String,
    /// Optional files are omitted if there is no template.
    pub required: bool,
}

impl TemplateFile {
    /// A file without which the channel cannot deliver.
    pub fn required(name: impl Into<String>) -> Self {
        TemplateFile { name: name.into(), required: true }
    }
}

/// A link that the channel provides for templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLink {
    /// The URL.
    pub url: String,
    /// The text of the link.
    pub text: String,
    /// Whether it is omitted if the message sets `omit_unsubscribe_link`.
    pub unsubscribe: bool,
}

/// One rendered template file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedFile {
    /// The name that the channel requested: `subject.txt`.
    pub name: String,
    /// The file it was rendered from.
    pub source: String,
    /// The content.
    pub text: String,
}

/// The rendered template files of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// In the order of the channel's request.
    pub files: Vec<RenderedFile>,
    /// The language of the files.
    pub language: String,
    /// Why it is not the language of the message.
    pub note: Option<String>,
}

/// The number and the key of a delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Starts at 1.
    pub number: u32,
    /// The same for every attempt of one message over one channel.
    pub idempotency_key: String,
}

/// The provider's response when it accepts a message.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// The provider's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Further details, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// Why a delivery failed, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the variants describe their fields")]
#[non_exhaustive]
pub enum DeliveryError {
    /// Retry, at the given time or on the host's schedule.
    #[error("{message}")]
    Recoverable { message: String, next_attempt_time: Option<Timestamp> },
    /// Do not retry.
    #[error("{0}")]
    Fatal(String),
    /// The recipient has no address or device of this kind.
    #[error("{0}")]
    Skipped(String),
    /// The channel was not called because its circuit breaker is open. This uses up no attempt.
    #[error("{0}")]
    Unavailable(String),
    /// The message may have been sent: the channel failed or was stopped during or after the handover.
    #[error("{reason}")]
    MaybeSent { reason: String },
    /// The message was sent, and the channel failed afterwards.
    #[error("{fault}")]
    SentWithFault { answer: String, fault: Fault },
}

/// One page of a recipient resolver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// The recipients of this page.
    pub items: Vec<Resolved>,
    /// The cursor of the next page; `None` after the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One recipient of a batch, with its own data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// Identifies the message: a repeated key is the same message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The recipient.
    pub recipient: Recipient,
    /// The language of the recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Overrides the message type's context, key by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_context: Option<Context>,
}

/// Why a resolver returned no page, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the variants describe their fields")]
#[non_exhaustive]
pub enum ResolveError {
    #[error("{message}")]
    Recoverable { message: String, next_attempt_time: Option<Timestamp> },
    #[error("{0}")]
    Fatal(String),
}

/// What is known of a delivery before an attempt.
#[derive(Clone, Default)]
pub struct Earlier {
    /// The mails that earlier attempts sent.
    pub mails: Vec<MailRecord>,
    /// What earlier attempts noted of the message's addresses.
    pub addresses: Vec<AddressRecord>,
    /// Stores what this attempt notes before it sends more. `None`: it is stored with the result.
    pub recorder: Option<Arc<dyn RecordAddresses>>,
}

impl fmt::Debug for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Earlier").field("mails", &self.mails).field("addresses", &self.addresses).finish()
    }
}

/// Collects facts about a call of a policy or channel that are not part of its result: refused host calls, the provider's
/// `Retry-After`, unreachable destinations, the state of mails and addresses, a hold. The caller creates it and reads it afterwards.
#[derive(Debug, Default)]
pub struct CallContext {
    refused: Mutex<Vec<String>>,
    retry_after: Mutex<Option<Duration>>,
    unreached: Mutex<Option<Unreached>>,
    mails: Mutex<Vec<MailRecord>>,
    uncertain: Mutex<Option<String>>,
    earlier: Earlier,
    addresses: Mutex<Vec<AddressRecord>>,
    hold: Mutex<Option<Hold>>,
}

impl CallContext {
    /// For an attempt of a delivery of which this is known.
    pub fn after(mut earlier: Earlier) -> CallContext {
        let mails = Mutex::new(std::mem::take(&mut earlier.mails));
        CallContext { mails, earlier, ..CallContext::default() }
    }

    /// What is known of the delivery.
    pub fn earlier(&self) -> Earlier {
        Earlier { mails: self.mails(), ..self.earlier.clone() }
    }

    /// Records the outcome for an address. It replaces an earlier record on the same address.
    pub fn record_address(&self, record: AddressRecord) {
        add_record(&mut self.addresses.lock().unwrap_or_else(PoisonError::into_inner), record);
    }

    /// Takes what this call recorded of the message's addresses.
    pub fn take_addresses(&self) -> Vec<AddressRecord> {
        std::mem::take(&mut *self.addresses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops the channel for all of its messages. It replaces an earlier hold of this call.
    pub fn hold_channel(&self, hold: Hold) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
    }

    /// Takes the hold, if the channel asked for one.
    pub fn take_hold(&self) -> Option<Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The known state of the delivery's mails.
    pub fn mails(&self) -> Vec<MailRecord> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the state of mails, which replaces the previous state of the same mails.
    pub fn record_mails(&self, mails: Vec<MailRecord>) {
        if mails.is_empty() {
            return;
        }
        let mut known = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        for mail in mails {
            match known.iter_mut().find(|other| other.key == mail.key) {
                Some(other) => *other = mail,
                None => known.push(mail),
            }
        }
    }

    /// Records that something was sent without a reply that says whether it was accepted.
    pub fn record_uncertain(&self, what: String) {
        *self.uncertain.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// What was sent without a reply, if anything.
    pub fn take_uncertain(&self) -> Option<String> {
        self.uncertain.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the state of the delivery's mails.
    pub fn take_mails(&self) -> Vec<MailRecord> {
        std::mem::take(&mut *self.mails.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records refused host calls, one line each.
    pub fn record_refused(&self, calls: Vec<String>) {
        if !calls.is_empty() {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(calls);
        }
    }

    /// Records the delay of a response 429 or 503 with Retry-After. No message is sent over the channel until then.
    pub fn record_retry_after(&self, delay: Duration) {
        let mut longest = self.retry_after.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = (*longest).max(Some(delay));
    }

    /// The longest recorded delay of a Retry-After.
    pub fn retry_after(&self) -> Option<Duration> {
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a relay or an origin could not be used and nothing was sent. The call does not count as an attempt, whatever
    /// its result is.
    pub fn record_unreached(&self, unreached: Unreached) {
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(unreached);
    }

    /// Takes the destination that could not be used, if nothing was sent.
    pub fn take_unreached(&self) -> Option<Unreached> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The refused host calls.
    pub fn into_refused(self) -> Vec<String> {
        self.refused.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
