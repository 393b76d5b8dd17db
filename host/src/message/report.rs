//! What happens to a message: verdicts, faults, attempts, outcomes, and the report that holds them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{ChannelType, Object, Recipient};

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
    pub not_before: Timestamp,
    /// One line for the operator.
    pub reason: Option<String>,
}

/// A policy's verdict. The empty one lets the message pass; a policy only ever takes away or delays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyResult {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Denial>,
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
    pub plugin: String,
    pub kind: FaultKind,
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
    pub url: String,
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
    pub text: String,
}

/// The template files of one message, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// Why nothing was delivered, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    pub recipient: Recipient,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Laid over the message type's context, key by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_context: Option<Object>,
}

/// Why a resolver has no page, by what happens next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("{message}")]
    Recoverable { message: String, next_attempt_time: Option<Timestamp> },
    #[error("{0}")]
    Fatal(String),
}

/// Who said no or not yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a message over one channel type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// The provider took it over. `fault`: the channel broke afterwards.
    Sent {
        #[serde(flatten)]
        receipt: Receipt,
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// It may have left; not tried again, lest it arrive twice.
    MaybeSent { reason: String },
    /// Policies forbade this channel type.
    Denied { reasons: Vec<Reason> },
    /// Policies said not yet. They are asked again at that time.
    Delayed { not_before: Timestamp, reasons: Vec<Reason> },
    /// To be tried again at that time.
    Retry { at: Timestamp, error: String },
    /// Never going to work.
    Failed { error: String },
    /// There was nothing to do.
    Skipped { reason: String },
    /// The sender limited the send to other channels.
    Excluded,
    /// No channel carries this type.
    Unsupported { reason: String },
    /// A template is missing or failed.
    TemplateError {
        message: String,
        /// Not one of the channel type's required files exists: the message was never meant for it.
        absent: bool,
    },
    /// The window for delivery closed before it could be delivered.
    Expired {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Everything was done but the delivery: `explain` ends here.
    Ready,
}

impl Outcome {
    /// The state's name as it is written in JSON.
    pub fn state(&self) -> &'static str {
        match self {
            Outcome::Sent { .. } => "sent",
            Outcome::MaybeSent { .. } => "maybe_sent",
            Outcome::Denied { .. } => "denied",
            Outcome::Delayed { .. } => "delayed",
            Outcome::Retry { .. } => "retry",
            Outcome::Failed { .. } => "failed",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Excluded => "excluded",
            Outcome::Unsupported { .. } => "unsupported",
            Outcome::TemplateError { .. } => "template_error",
            Outcome::Expired { .. } => "expired",
            Outcome::Ready => "ready",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Outcome::Delayed { .. } | Outcome::Retry { .. })
    }
}

/// What one policy said of one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    pub policy: String,
    /// The plugin's revision (a short content hash); empty for a policy the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long the call took.
    pub took_us: u64,
    /// Set for a policy in shadow, whose verdict was not obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Agreement>,
    /// Calls into the host that it was refused for want of a grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// How the verdict of a policy in shadow compares with what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    Agrees,
    Differs,
    /// It broke, and said nothing.
    Broken,
}

/// A policy's answer, or that it broke and what its `on-error` made of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Result(PolicyResult),
    Broken { fault: Fault, on_error: OnError },
}

/// What a broken policy means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The message waits and the policies are asked again.
    #[default]
    Retry,
    /// As if it had denied every channel type.
    Deny,
    /// As if it had passed the message.
    Allow,
}

/// By which rule a channel was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `options.override_default_channel` names it.
    OverrideDefaultChannel,
    /// The message is transactional, and this is the transactional channel of its type.
    Transactional,
    /// The default channel of its type.
    Default,
    /// One of the type's listed channels.
    Listed,
    /// A candidate that claimed the message (`overrides-delivery-for-message`).
    OverridesDelivery,
    /// No candidate is there: the first of the type in the configured order.
    FirstOfType,
    /// The channels before it failed.
    Failover,
}

/// What happened over one channel type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelReport {
    pub channel_type: ChannelType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The plugin's revision; empty for a channel the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Candidates that were passed over, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// The template files that were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// The language they were rendered in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Why it is another one than the message asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_note: Option<String>,
    /// What was rendered; kept by `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered: Option<Vec<RenderedFile>>,
    /// Calls into the host that its channels were refused for want of a grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Delivery attempts made.
    pub attempts: u32,
    /// The latest of them, at most [`HISTORY_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptReport>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl ChannelReport {
    /// Of a channel type with which nothing has happened yet.
    pub fn new(channel_type: ChannelType, outcome: Outcome) -> Self {
        ChannelReport {
            channel_type,
            channel: None,
            revision: String::new(),
            rule: None,
            passed_over: Vec::new(),
            templates: Vec::new(),
            language: None,
            language_note: None,
            rendered: None,
            refused: Vec::new(),
            attempts: 0,
            history: Vec::new(),
            outcome,
        }
    }
}

/// Attempts of one channel type that a report keeps.
pub const HISTORY_MAX: usize = 50;

/// One attempt to hand a message over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// When it began.
    pub at: Timestamp,
    pub channel: String,
    /// The channel's revision; empty for a channel the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// From 1, over this channel.
    pub number: u32,
    /// How long it took, in microseconds.
    pub took_us: u64,
    pub result: AttemptResult,
    /// The provider's answer, or the error in its words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    Sent,
    /// It may have left: the channel was cut, or the host ended, in the middle of it.
    MaybeSent,
    Skipped,
    /// A passing failure.
    Recoverable,
    Fatal,
}

/// What happened to one message: the answer edx-ace's `send` never gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
    /// When the host noticed that it had ended in the midst of this message: an attempt that was under way then stands in no
    /// history, and the message may arrive twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<Timestamp>,
    pub policies: Vec<PolicyReport>,
    pub channels: Vec<ChannelReport>,
}

impl Report {
    /// Whether any channel type needs to be taken up again.
    pub fn is_settled(&self) -> bool {
        self.channels.iter().all(|c| c.outcome.is_settled())
    }

    /// Whether the message reached nobody although nobody decided so: a channel failed, or none could carry it.
    ///
    /// A type that has no channel, or for which the message has no templates, counts only when no other type carried the
    /// message: most messages are written for one type.
    pub fn is_failure(&self) -> bool {
        let carried = |o: &Outcome| {
            matches!(o, Outcome::Sent { .. } | Outcome::Denied { .. } | Outcome::Skipped { .. } | Outcome::Ready)
        };
        let failed = |o: &Outcome| match o {
            Outcome::Unsupported { .. } | Outcome::Excluded | Outcome::TemplateError { absent: true, .. } => false,
            other => !carried(other),
        };
        self.channels.iter().any(|c| failed(&c.outcome)) || !self.channels.iter().any(|c| carried(&c.outcome))
    }
}

impl AttemptResult {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptResult::Sent => "sent",
            AttemptResult::MaybeSent => "maybe_sent",
            AttemptResult::Skipped => "skipped",
            AttemptResult::Recoverable => "recoverable",
            AttemptResult::Fatal => "fatal",
        }
    }
}

/// What the host noted while it asked a policy or a channel: the calls it refused, and whether the provider wants to be left
/// alone. Whoever asks hands it in, and reads it afterwards.
#[derive(Debug, Default)]
pub struct Notes {
    refused: Mutex<Vec<String>>,
    throttled: Mutex<Option<Duration>>,
}

impl Notes {
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

    /// What was noted.
    pub fn into_refused(self) -> Vec<String> {
        self.refused.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
