//! Outcomes of messages, and the report that contains them.

mod bounds;
mod sentences;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ChannelType;
use super::addresses::AddressRecord;
use super::answers::{Fault, PolicyResult, Receipt, RenderedFile};
use super::mail_record::RecipientRecord;

pub use bounds::{LINES_MAX, REPORT_BYTES_MAX};

/// A policy that denied or delayed a message, and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The policy that decided.
    pub policy: String,
    /// The policy's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome of a message for one channel type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants describe their fields")]
#[non_exhaustive]
pub enum Outcome {
    /// The provider accepted it. `fault` is set if the channel failed afterwards.
    Sent {
        #[serde(flatten)]
        receipt: Receipt,
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// It may have been sent. It is not retried, so that it does not arrive twice.
    MaybeSent { reason: String },
    /// Policies denied this channel type.
    Denied { reasons: Vec<Reason> },
    /// Policies delayed it. They are evaluated again at that time.
    Delayed { not_before: Timestamp, reasons: Vec<Reason> },
    /// It is retried at that time.
    Retry { at: Timestamp, error: String },
    /// It failed permanently.
    Failed { error: String },
    /// The recipient has no address of this kind.
    Skipped { reason: String },
    /// The sender restricted the message to other channels.
    Excluded,
    /// It is a fallback for these types, and is used only if they are skipped or fail.
    Standby { after: Vec<ChannelType> },
    /// There is no channel of this type.
    Unsupported { reason: String },
    /// A template is missing or failed.
    TemplateError {
        message: String,
        /// None of the required files exists: the message is not meant for this channel type.
        absent: bool,
    },
    /// The delivery window closed before it could be delivered.
    Expired {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Everything except the delivery is done. This is the last state of `explain`.
    Ready,
}

impl Outcome {
    /// The name of the state in JSON.
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
            Outcome::Standby { .. } => "standby",
            Outcome::Unsupported { .. } => "unsupported",
            Outcome::TemplateError { .. } => "template_error",
            Outcome::Expired { .. } => "expired",
            Outcome::Ready => "ready",
        }
    }

    /// Whether the outcome is final.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Outcome::Delayed { .. } | Outcome::Retry { .. })
    }

    /// Whether the message is not meant for the channel type: it has templates, but none for this type.
    pub fn is_absent(&self) -> bool {
        matches!(self, Outcome::TemplateError { absent: true, .. })
    }

    /// Whether the channel type was not used. It counts only if no other type was either.
    pub fn is_passed_over(&self) -> bool {
        self.is_absent() || matches!(self, Outcome::Unsupported { .. } | Outcome::Excluded | Outcome::Standby { .. })
    }

    /// Whether the channel type gives way to the next one of `routing.fallback`: it did not carry the message and never will.
    pub fn gives_way(&self) -> bool {
        matches!(
            self,
            Outcome::Skipped { .. }
                | Outcome::Failed { .. }
                | Outcome::Expired { .. }
                | Outcome::TemplateError { absent: false, .. }
        )
    }
}

/// The verdict of one policy on one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// The name of the policy.
    pub policy: String,
    /// The plugin's revision (a short content hash); empty for a policy of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The duration of the call in microseconds.
    pub took_us: u64,
    /// Set for a policy in shadow mode, whose verdict had no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Agreement>,
    /// Calls of the host that were refused because a grant is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// How the verdict of a policy in shadow mode compares with the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Agreement {
    /// It would not have changed the outcome.
    Agrees,
    /// It would have changed the outcome.
    Differs,
    /// The policy failed.
    Broken,
}

/// The result of a policy, or its fault with its `on-error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants describe their fields")]
#[non_exhaustive]
pub enum Verdict {
    /// The policy's result.
    Result(PolicyResult),
    /// The policy failed.
    Broken { fault: Fault, on_error: OnError },
}

/// What happens to a message if a policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnError {
    /// The message waits, and the policies are evaluated again.
    #[default]
    Retry,
    /// All channel types are denied.
    Deny,
    /// The policy is ignored.
    Allow,
}

/// The rule by which a channel was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    /// There are no candidates: the first channel of the type in the configured order.
    FirstOfType,
    /// The channels before it in the order failed.
    Failover,
}

impl Rule {
    /// The rule in words.
    pub fn describe(self) -> &'static str {
        match self {
            Rule::OverrideDefaultChannel => "options.override_default_channel names it",
            Rule::Transactional => "the transactional channel of its type",
            Rule::Default => "the default channel of its type",
            Rule::Listed => "the first of the type's listed channels that exists",
            Rule::OverridesDelivery => "it claims this message",
            Rule::FirstOfType => "no configured candidate exists: the first of its type",
            Rule::Failover => "the channels before it failed",
        }
    }
}

/// The report on one channel type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// The channel type.
    pub channel_type: ChannelType,
    /// The chosen channel, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The plugin's revision; empty for a channel of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The rule by which it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// The types that were skipped or failed and gave way to this one (`routing.fallback`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback_for: Vec<ChannelType>,
    /// Candidates that were not chosen, with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// The rendered template files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// The language of the rendered files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Why it differs from the language of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_note: Option<String>,
    /// The rendered files; only in `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered: Option<Vec<RenderedFile>>,
    /// Calls of the host by its channels that were refused because a grant is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// The number of delivery attempts.
    pub attempts: u32,
    /// The latest attempts, at most [`HISTORY_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptReport>,
    /// The state of each recipient, if a relay did not accept a mail for all recipients at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientRecord>,
    /// The outcome for each address, as far as the channels noted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressRecord>,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl ChannelReport {
    /// A report without any attempt.
    pub fn new(channel_type: ChannelType, outcome: Outcome) -> Self {
        ChannelReport {
            channel_type,
            channel: None,
            revision: String::new(),
            rule: None,
            fallback_for: Vec::new(),
            passed_over: Vec::new(),
            templates: Vec::new(),
            language: None,
            language_note: None,
            rendered: None,
            refused: Vec::new(),
            attempts: 0,
            history: Vec::new(),
            recipients: Vec::new(),
            addresses: Vec::new(),
            outcome,
        }
    }
}

/// The most attempts of one channel type in a report.
pub const HISTORY_MAX: usize = 50;

/// One delivery attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// The start time.
    pub at: Timestamp,
    /// The channel.
    pub channel: String,
    /// The channel's revision; empty for a channel of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The number of the attempt over this channel, starting at 1.
    pub number: u32,
    /// The duration in microseconds.
    pub took_us: u64,
    /// The result.
    pub result: AttemptResult,
    /// The provider's response, or the error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// The result of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptResult {
    /// Delivered.
    Sent,
    /// It may have been sent: the channel was stopped, or the host ended, during the attempt.
    MaybeSent,
    /// The recipient has no address of this kind.
    Skipped,
    /// A temporary failure.
    Recoverable,
    /// The relay or origin was down, or the channel is held. No attempt was used up.
    Unreachable,
    /// A permanent failure.
    Fatal,
}

/// The report on one message. (edx-ace's `send` returns nothing.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The message.
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
    /// When the host found that it had ended while it processed this message. An attempt in progress at that time is missing in the
    /// history, and the message may arrive twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<Timestamp>,
    /// The verdicts of the policies.
    pub policies: Vec<PolicyReport>,
    /// The outcomes of the channel types.
    pub channels: Vec<ChannelReport>,
}

impl Report {
    /// Whether all outcomes are final.
    pub fn is_settled(&self) -> bool {
        self.channels.iter().all(|c| c.outcome.is_settled())
    }

    /// Whether the message failed: a channel failed, or no channel could send it. A message that policies denied did not fail.
    ///
    /// A channel type without a channel or without templates counts only if no other type succeeded, because most messages are
    /// written for one type. One that failed and gave way to a type that succeeded does not count either.
    pub fn is_failure(&self) -> bool {
        let succeeded = |o: &Outcome| {
            matches!(o, Outcome::Sent { .. } | Outcome::Denied { .. } | Outcome::Skipped { .. } | Outcome::Ready)
        };
        let carried = |o: &Outcome| matches!(o, Outcome::Sent { .. } | Outcome::Ready);
        let is_replaced = |c: &ChannelReport| {
            self.channels.iter().any(|other| carried(&other.outcome) && other.fallback_for.contains(&c.channel_type))
        };
        let failed = |c: &ChannelReport| !c.outcome.is_passed_over() && !succeeded(&c.outcome) && !is_replaced(c);
        self.channels.iter().any(failed) || !self.channels.iter().any(|c| succeeded(&c.outcome))
    }
}

impl AttemptResult {
    /// The name in JSON.
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
