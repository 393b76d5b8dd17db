//! What policies, channels and resolvers answer, and how they break.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ChannelType, Context, MailRecord, Recipient, Unreached};

/// A channel type that must not carry a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    /// One line for the operator.
    pub reason: Option<String>,
}

/// A channel type that must not carry a message yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    /// Nothing is sent before.
    pub not_before: Timestamp,
    /// One line for the operator.
    pub reason: Option<String>,
}

/// A policy's verdict. The empty one lets the message pass; a policy only ever takes away or delays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyResult {
    /// Channel types that it denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Denial>,
    /// Channel types that it delays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delay: Vec<Delay>,
}

impl PolicyResult {
    /// Whether both take the same channel types away and delay the same ones; reasons and moments may differ.
    pub fn takes_away_as(&self, other: &PolicyResult) -> bool {
        fn types<'a, T>(list: &'a [T], name: fn(&'a T) -> &'a str) -> BTreeSet<&'a str> {
            list.iter().map(name).collect()
        }
        types(&self.deny, |d| &d.channel_type) == types(&other.deny, |d| &d.channel_type)
            && types(&self.delay, |d| &d.channel_type) == types(&other.delay, |d| &d.channel_type)
    }
}

/// How a plugin broke. Never a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// It is not there to be asked: not loaded, refused, or refused by its own `enabled`.
    Unavailable,
    /// It returned an error from a function whose errors are not answers.
    Error,
    /// It trapped.
    Trap,
    /// It computed longer than its `time`.
    Time,
    /// The whole call, host calls included, took longer than its `call-timeout`.
    CallTimeout,
    /// It wanted more memory than its limit.
    Memory,
    /// Its answer is too long or makes no sense.
    Answer,
}

impl FaultKind {
    /// As it is written in JSON.
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

/// A plugin that broke instead of answering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{plugin}: {message}")]
pub struct Fault {
    /// The name of the plugin, native policy or channel.
    pub plugin: String,
    /// What sort of fault.
    pub kind: FaultKind,
    /// What happened, for people.
    pub message: String,
    /// The guest's own stack, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

/// A template file a channel wants rendered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TemplateFile {
    /// `subject.txt`, `body.html`. Files whose name ends in `.html` are escaped, others are not.
    pub name: String,
    /// One that is not required is left out where no template stands.
    pub required: bool,
}

impl TemplateFile {
    /// A file without which the channel cannot deliver.
    pub fn required(name: impl Into<String>) -> Self {
        TemplateFile { name: name.into(), required: true }
    }
}

/// A link for the templates, from the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLink {
    /// Where it leads.
    pub url: String,
    /// What it reads.
    pub text: String,
    /// Left out where the message says `omit_unsubscribe_link`.
    pub unsubscribe: bool,
}

/// One rendered template file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedFile {
    /// As the channel named it: `subject.txt`.
    pub name: String,
    /// The file it was rendered from.
    pub source: String,
    /// The content.
    pub text: String,
}

/// The template files of one message, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// In the order of the channel.
    pub files: Vec<RenderedFile>,
    /// The language they are in.
    pub language: String,
    /// Why it is not the message's own.
    pub note: Option<String>,
}

/// Which try a delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// The same for every attempt of one message over one channel.
    pub idempotency_key: String,
}

/// What the provider answered when it took a message over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// The provider's own identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Anything else worth keeping, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// Why nothing was delivered, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
pub enum DeliveryError {
    /// Worth another try, at that time or on the host's own schedule.
    #[error("{message}")]
    Recoverable { message: String, next_attempt_time: Option<Timestamp> },
    /// Never going to work.
    #[error("{0}")]
    Fatal(String),
    /// Nothing to do: no address of this kind, no device.
    #[error("{0}")]
    Skipped(String),
    /// It was not even asked: its circuit is open. No attempt was made, and none is used up.
    #[error("{0}")]
    Unavailable(String),
    /// It may have left: the channel broke, or was cut, while or after it handed the message over.
    #[error("{reason}")]
    MaybeSent { reason: String },
    /// It has left, and the channel broke afterwards.
    #[error("{fault}")]
    SentWithFault { answer: String, fault: Fault },
}

/// One answer of a recipient resolver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// The recipients of this page.
    pub items: Vec<Resolved>,
    /// Where the next page begins. `None`: this was the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One recipient of a batch, and what is theirs alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// The same key again is the same message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whom to send to.
    pub recipient: Recipient,
    /// Their language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Laid over the message type's context, key by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_context: Option<Context>,
}

/// Why a resolver has no page, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
pub enum ResolveError {
    #[error("{message}")]
    Recoverable { message: String, next_attempt_time: Option<Timestamp> },
    #[error("{0}")]
    Fatal(String),
}

/// What the host noted while it asked a policy or a channel: the calls it refused, whether the provider wants to be left
/// alone, and what could not be reached. Whoever asks hands it in, and reads it afterwards.
#[derive(Debug, Default)]
pub struct Notes {
    refused: Mutex<Vec<String>>,
    throttled: Mutex<Option<Duration>>,
    unreached: Mutex<Option<Unreached>>,
    mails: Mutex<Vec<MailRecord>>,
    uncertain: Mutex<Option<String>>,
}

impl Notes {
    /// For a delivery that is tried again: what is known of its mails.
    pub fn with_mails(mails: Vec<MailRecord>) -> Notes {
        Notes { mails: Mutex::new(mails), ..Notes::default() }
    }

    /// What is known of the delivery's mails.
    pub fn mails(&self) -> Vec<MailRecord> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what became of mails, over what was known of the same ones before.
    pub fn mailed(&self, mails: Vec<MailRecord>) {
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

    /// Notes that something was handed over without an answer that tells what became of it.
    pub fn uncertain(&self, what: String) {
        *self.uncertain.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// What was handed over without an answer, if anything was.
    pub fn take_uncertain(&self) -> Option<String> {
        self.uncertain.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is known of the delivery's mails by now.
    pub fn take_mails(&self) -> Vec<MailRecord> {
        std::mem::take(&mut *self.mails.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes calls that were refused, each in one line.
    pub fn refused(&self, calls: Vec<String>) {
        if !calls.is_empty() {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(calls);
        }
    }

    /// Notes that the provider answers nobody for so long (429 or 503 with Retry-After): no message is to go over the channel
    /// until then.
    pub fn throttled(&self, pause: Duration) {
        let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
        *throttled = (*throttled).max(Some(pause));
    }

    /// For how long the provider wants to be left alone, where it said so.
    pub fn pause(&self) -> Option<Duration> {
        *self.throttled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a relay or an origin could not be used and nothing was handed over: whatever the channel answers, that was no
    /// attempt.
    pub fn unreached(&self, unreached: Unreached) {
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(unreached);
    }

    /// What could not be used, where nothing was handed over.
    pub fn take_unreached(&self) -> Option<Unreached> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was noted.
    pub fn into_refused(self) -> Vec<String> {
        self.refused.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
