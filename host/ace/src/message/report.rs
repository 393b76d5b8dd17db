//! What has happened to a message: outcomes, and the report that holds them.

mod bounds;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ChannelType;
use super::answers::{Fault, PolicyResult, Receipt, RenderedFile};
use super::mail_record::RecipientRecord;

pub use bounds::{LINES_MAX, REPORT_BYTES_MAX};

/// Who said no or not yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The policy that decided.
    pub policy: String,
    /// Its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a message over one channel type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
#[non_exhaustive]
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

    /// Whether the message was never meant for the channel type: it has templates, and none for this one.
    pub fn is_absent(&self) -> bool {
        matches!(self, Outcome::TemplateError { absent: true, .. })
    }

    /// Whether the channel type was left aside: it counts only where no other type carried the message.
    pub fn is_passed_over(&self) -> bool {
        self.is_absent() || matches!(self, Outcome::Unsupported { .. } | Outcome::Excluded)
    }
}

/// What one policy said of one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// The name of the policy.
    pub policy: String,
    /// The plugin's revision (a short content hash); empty for a policy the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// What it said.
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
    /// Obeying it would have changed nothing.
    Agrees,
    /// Obeying it would have changed the outcome.
    Differs,
    /// It broke, and said nothing.
    Broken,
}

/// A policy's answer, or that it broke and what its `on-error` made of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
pub enum Verdict {
    /// It answered.
    Result(PolicyResult),
    /// It could not be asked.
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
    /// The type.
    pub channel_type: ChannelType,
    /// The channel that was chosen, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The plugin's revision; empty for a channel the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Why it was chosen.
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
    /// For each recipient of a mail that a relay did not accept for all of them at once: what became of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientRecord>,
    /// What became of it.
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
            recipients: Vec::new(),
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
    /// The channel.
    pub channel: String,
    /// The channel's revision; empty for a channel the application registered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// From 1, over this channel.
    pub number: u32,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What came of it.
    pub result: AttemptResult,
    /// The provider's answer, or the error in its words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// What one attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptResult {
    /// Delivered.
    Sent,
    /// It may have left: the channel was cut, or the host ended, in the middle of it.
    MaybeSent,
    /// There was nothing to deliver to.
    Skipped,
    /// A passing failure.
    Recoverable,
    /// The relay or origin was down, and nothing was handed over: no attempt was used up.
    Unreachable,
    /// Failed for good.
    Fatal,
}

/// What happened to one message: the answer edx-ace's `send` never gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The message.
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
    /// When the host noticed that it had ended in the midst of this message: an attempt that was under way then stands in no
    /// history, and the message may arrive twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<Timestamp>,
    /// What each policy said.
    pub policies: Vec<PolicyReport>,
    /// What became of each channel type.
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
        let failed = |o: &Outcome| !o.is_passed_over() && !carried(o);
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
            AttemptResult::Unreachable => "unreachable",
            AttemptResult::Fatal => "fatal",
        }
    }
}
