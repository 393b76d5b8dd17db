//! Every value that crosses modules: messages and their parts, verdicts, rendered files, outcomes, reports.
//!
//! The JSON form is edx-ace's (`str(message)` there), both ways. Where edx-ace's decoder is at fault, ours departs on
//! purpose: a missing `uuid` is generated, times without an offset are read as UTC and written back as they came, and the
//! context is left exactly as it is, whatever its keys are called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

/// A JSON object whose keys keep their order.
pub type Object = Map<String, Value>;

/// A channel type: `email`, `push`, `sms`, …; an open set, lower case.
pub type ChannelType = String;

/// edx-ace's `ChannelType.EMAIL`.
pub const EMAIL: &str = "email";
/// edx-ace's `ChannelType.PUSH`.
pub const PUSH: &str = "push";
/// In a verdict: every channel type.
pub const EVERY_TYPE: &str = "*";

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: an RFC 6901 pointer, `""` for the whole document.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { path: path.into(), message: message.into() }
    }
}

/// Everything wrong with a document, in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct FieldErrors(pub Vec<FieldError>);

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            match e.path.as_str() {
                "" => f.write_str(&e.message)?,
                path => write!(f, "{path}: {}", e.message)?,
            }
        }
        Ok(())
    }
}

/// A moment as the sender wrote it. Equal by text, compared in time by [`DateTime::timestamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateTime {
    text: String,
    at: Timestamp,
}

impl DateTime {
    /// Reads ISO 8601 (`2026-01-02T03:04:05.678900+00:00`, a space for the `T`, `Z`, a date alone). Without an offset it is UTC.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let at = trimmed.parse::<Timestamp>().ok().or_else(|| {
            // Without an offset, or past either end of what a timestamp holds (Python's datetime.max is).
            let naive: jiff::civil::DateTime = trimmed.trim_end_matches(['Z', 'z']).parse().ok()?;
            let end = if naive.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
            Some(jiff::tz::TimeZone::UTC.to_timestamp(naive).unwrap_or(end))
        });
        at.map(|at| DateTime { text: text.to_owned(), at }).ok_or_else(|| {
            format!("{text:?} is not a date and time; write it in ISO 8601, as in \"2026-01-02T03:04:05+00:00\"")
        })
    }

    /// The moment itself.
    pub fn timestamp(&self) -> Timestamp {
        self.at
    }

    /// The text it came as.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<Timestamp> for DateTime {
    fn from(at: Timestamp) -> Self {
        DateTime { text: at.to_string(), at }
    }
}

impl Serialize for DateTime {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

/// edx-ace's `lms_user_id`, which is untyped there: a number, a string, 0 and None are all in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(untagged)]
pub enum UserId {
    #[default]
    None,
    Number(i64),
    Text(String),
}

impl UserId {
    /// The id as text; `None` where there is none.
    pub fn as_text(&self) -> Option<String> {
        match self {
            UserId::None => None,
            UserId::Number(n) => Some(n.to_string()),
            UserId::Text(t) => Some(t.clone()),
        }
    }

    /// The id as a number, where it is one (written as a number or as decimal digits).
    pub fn as_number(&self) -> Option<i64> {
        match self {
            UserId::None => None,
            UserId::Number(n) => Some(*n),
            UserId::Text(t) => t.parse().ok(),
        }
    }
}

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipient {
    pub lms_user_id: UserId,
    pub email_address: Option<String>,
    /// Further addresses by kind: `("push-token", "…")`, `("phone", "+15550100")`. Ours; written only when there are any.
    pub contacts: Vec<(String, String)>,
}

impl Recipient {
    /// A recipient with a numeric user id and an e-mail address.
    pub fn new(lms_user_id: i64, email_address: impl Into<String>) -> Self {
        Recipient {
            lms_user_id: UserId::Number(lms_user_id),
            email_address: Some(email_address.into()),
            contacts: Vec::new(),
        }
    }

    fn decode(fields: &mut Fields) -> Self {
        Recipient {
            lms_user_id: fields.required("lms_user_id", user_id).unwrap_or_default(),
            email_address: fields.optional("email_address", string),
            contacts: fields.optional("contacts", contacts).unwrap_or_default(),
        }
    }
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("lms_user_id", &self.lms_user_id)?;
        map.serialize_entry("email_address", &self.email_address)?;
        if !self.contacts.is_empty() {
            let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (kind, address) in &self.contacts {
                by_kind.entry(kind).or_default().push(address);
            }
            map.serialize_entry("contacts", &by_kind)?;
        }
        map.end()
    }
}

/// One message to one recipient. Fields and their order are edx-ace's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    pub app_label: String,
    pub name: String,
    pub recipient: Option<Recipient>,
    pub expiration_time: Option<DateTime>,
    pub context: Object,
    pub uuid: Uuid,
    pub send_uuid: Option<Uuid>,
    pub options: Object,
    pub headers: Headers,
    pub language: Option<String>,
    pub log_level: Option<i64>,
}

impl Message {
    const FIELDS: [&str; 11] = [
        "app_label",
        "name",
        "recipient",
        "expiration_time",
        "context",
        "uuid",
        "send_uuid",
        "options",
        "headers",
        "language",
        "log_level",
    ];

    /// A message with a fresh random uuid and nothing optional set.
    pub fn new(app_label: impl Into<String>, name: impl Into<String>, recipient: Option<Recipient>) -> Self {
        Message {
            app_label: app_label.into(),
            name: name.into(),
            recipient,
            expiration_time: None,
            context: Object::new(),
            uuid: Uuid::new_v4(),
            send_uuid: None,
            options: Object::new(),
            headers: Headers::default(),
            language: None,
            log_level: None,
        }
    }

    /// Reads edx-ace's JSON form. Reports every field's error at once.
    pub fn from_json(json: &[u8]) -> Result<Self, FieldErrors> {
        Self::from_value(parse(json)?)
    }

    /// As [`Message::from_json`], from a JSON value.
    pub fn from_value(value: Value) -> Result<Self, FieldErrors> {
        decode(value, &Self::FIELDS, |f| Message {
            app_label: f.required("app_label", label).unwrap_or_default(),
            name: f.required("name", label).unwrap_or_default(),
            recipient: f.required_nullable("recipient", Recipient::decode),
            expiration_time: f.optional("expiration_time", date_time),
            context: f.optional("context", object).unwrap_or_default(),
            uuid: f.optional("uuid", uuid).unwrap_or_else(Uuid::new_v4),
            send_uuid: f.optional("send_uuid", uuid),
            options: f.optional("options", object).unwrap_or_default(),
            headers: f.optional("headers", headers).unwrap_or_default(),
            language: f.optional("language", string),
            log_level: f.optional("log_level", integer),
        })
    }

    /// edx-ace's JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a message has only string keys and finite numbers")
    }

    /// `app_label.name`.
    pub fn unique_name(&self) -> String {
        format!("{}.{}", self.app_label, self.name)
    }

    /// `app_label.name.send_uuid.uuid`, with `no_send_uuid` where it is part of no bulk send.
    pub fn log_id(&self) -> String {
        match self.send_uuid {
            Some(send) => format!("{}.{}.{send}.{}", self.app_label, self.name, self.uuid),
            None => format!("{}.{}.no_send_uuid.{}", self.app_label, self.name, self.uuid),
        }
    }

    /// Whether an option is set to something Python calls true.
    pub fn option_is_true(&self, key: &str) -> bool {
        self.options.get(key).is_some_and(is_truthy)
    }

    /// Whether the message must reach its recipient because of something they did (a password reset, say).
    pub fn is_transactional(&self) -> bool {
        self.option_is_true("transactional")
    }

    /// The key a channel hands to its provider, the same for every attempt: the uuid and the channel's name.
    pub fn idempotency_key(&self, channel: &str) -> String {
        format!("{}.{channel}", self.uuid)
    }
}

/// What all messages of one kind share; a bulk send personalises it for each recipient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageType {
    pub context: Object,
    pub uuid: Uuid,
    pub expiration_time: Option<DateTime>,
    pub app_label: String,
    pub name: String,
    pub options: Object,
    pub log_level: Option<i64>,
}

impl MessageType {
    const FIELDS: [&str; 7] = ["context", "uuid", "expiration_time", "app_label", "name", "options", "log_level"];

    /// A type with a fresh random uuid and nothing optional set.
    pub fn new(app_label: impl Into<String>, name: impl Into<String>) -> Self {
        MessageType {
            context: Object::new(),
            uuid: Uuid::new_v4(),
            expiration_time: None,
            app_label: app_label.into(),
            name: name.into(),
            options: Object::new(),
            log_level: None,
        }
    }

    /// Reads edx-ace's JSON form. Reports every field's error at once.
    pub fn from_json(json: &[u8]) -> Result<Self, FieldErrors> {
        decode(parse(json)?, &Self::FIELDS, |f| MessageType {
            context: f.optional("context", object).unwrap_or_default(),
            uuid: f.optional("uuid", uuid).unwrap_or_else(Uuid::new_v4),
            expiration_time: f.optional("expiration_time", date_time),
            app_label: f.required("app_label", label).unwrap_or_default(),
            name: f.required("name", label).unwrap_or_default(),
            options: f.optional("options", object).unwrap_or_default(),
            log_level: f.optional("log_level", integer),
        })
    }

    /// edx-ace's JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a message type has only string keys and finite numbers")
    }

    /// The message for one recipient: the user's context laid over the type's (not merged deeply), the type's uuid as
    /// `send_uuid`, a fresh uuid, no headers. Each message has options of its own; edx-ace shares one dict.
    pub fn personalize(
        &self,
        recipient: impl Into<Option<Recipient>>,
        language: Option<String>,
        user_context: Object,
    ) -> Message {
        let mut context = self.context.clone();
        context.extend(user_context);
        Message {
            app_label: self.app_label.clone(),
            name: self.name.clone(),
            recipient: recipient.into(),
            expiration_time: self.expiration_time.clone(),
            context,
            uuid: Uuid::new_v4(),
            send_uuid: Some(self.uuid),
            options: self.options.clone(),
            headers: Headers::default(),
            language,
            log_level: self.log_level,
        }
    }
}

/// Header names and values in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

/// A channel type that must not carry a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    /// One line for the operator.
    pub reason: Option<String>,
}

/// A channel type that must not carry a message yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// A channel type, or [`EVERY_TYPE`].
    pub channel_type: ChannelType,
    pub not_before: Timestamp,
    /// One line for the operator.
    pub reason: Option<String>,
}

/// A policy's verdict. The empty one lets the message pass; a policy only ever takes away or delays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyResult {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Denial>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// A plugin that broke instead of answering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionLink {
    pub url: String,
    pub text: String,
    /// Left out where the message says `omit_unsubscribe_link`.
    pub unsubscribe: bool,
}

/// One rendered template file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenderedFile {
    /// As the channel named it: `subject.txt`.
    pub name: String,
    /// The file it was rendered from.
    pub source: String,
    pub text: String,
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
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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
    /// It may have left: the channel broke, or was cut, while or after it handed the message over.
    #[error("{reason}")]
    MaybeSent { reason: String },
    /// It has left, and the channel broke afterwards.
    #[error("{fault}")]
    SentWithFault { answer: String, fault: Fault },
}

/// Who said no or not yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a message over one channel type.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyReport {
    pub policy: String,
    /// The plugin's revision (a short content hash); empty for a policy the application registered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long the call took.
    pub took_us: u64,
    /// Set for a policy in shadow, whose verdict was not obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Agreement>,
}

/// How the verdict of a policy in shadow compares with what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    Agrees,
    Differs,
    /// It broke, and said nothing.
    Broken,
}

/// A policy's answer, or that it broke and what its `on-error` made of that.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Result(PolicyResult),
    Broken { fault: Fault, on_error: OnError },
}

/// What a broken policy means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelReport {
    pub channel_type: ChannelType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The plugin's revision; empty for a channel the application registered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Candidates that were passed over, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
    /// The template files that were used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// What was rendered; kept by `explain` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered: Option<Vec<RenderedFile>>,
    /// Delivery attempts made.
    pub attempts: u32,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What happened to one message: the answer edx-ace's `send` never gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
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

/// Python's idea of truth, for options that edx-ace tests that way.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// The nearest of the known names, where one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = |k: &str| 1 + name.len().max(k.len()) / 3;
    known
        .into_iter()
        // Measuring costs the product of the lengths; what differs that much in length is not near.
        .filter(|k| name.len().abs_diff(k.len()) <= tolerance(k).min(8))
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= tolerance(k))
        .min()
        .map(|(_, k)| k)
}

fn parse(json: &[u8]) -> Result<Value, FieldErrors> {
    serde_json::from_slice(json).map_err(|_| {
        // Slow, and only for a document that is refused: parse again to learn where.
        let mut de = serde_json::Deserializer::from_slice(json);
        let (path, error) = match serde_path_to_error::deserialize::<_, Value>(&mut de) {
            Ok(_) => (String::new(), de.end().err()),
            Err(e) => (pointer(e.path()), Some(e.into_inner())),
        };
        let message = match error {
            Some(e) => match bare_word(json, &e) {
                Some(word) => format!("{word} is not JSON; leave the value out or write null"),
                None => format!("not JSON: {e}"),
            },
            None => "not JSON".to_owned(),
        };
        FieldErrors(vec![FieldError::new(path, message)])
    })
}

/// The `NaN` or `Infinity` at which parsing stopped, which Python writes and JSON does not know.
fn bare_word(json: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let line = json.split(|b| *b == b'\n').nth(error.line().checked_sub(1)?)?;
    let at = error.column().saturating_sub(2).min(line.len());
    ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| {
        line[at..].starts_with(word.as_bytes()) || line[(at + 1).min(line.len())..].starts_with(word.as_bytes())
    })
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |mut out, segment| {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => out.push_str(&format!("/{}", escape_pointer(key))),
            Segment::Enum { variant } => out.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
        out
    })
}

fn escape_pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// An object being taken apart field by field, with all that is wrong with it.
struct Fields {
    path: String,
    object: Object,
    errors: Vec<FieldError>,
}

fn decode<T>(value: Value, known: &[&str], build: impl FnOnce(&mut Fields) -> T) -> Result<T, FieldErrors> {
    let Value::Object(object) = value else {
        return Err(FieldErrors(vec![FieldError::new("", format!("must be a JSON object, not {}", kind(&value)))]));
    };
    let mut fields = Fields { path: String::new(), object, errors: Vec::new() };
    let built = build(&mut fields);
    fields.refuse_the_rest(known);
    if fields.errors.is_empty() { Ok(built) } else { Err(FieldErrors(fields.errors)) }
}

impl Fields {
    fn fail(&mut self, key: &str, message: impl Into<String>) {
        let path = format!("{}/{}", self.path, escape_pointer(key));
        self.errors.push(FieldError::new(path, message));
    }

    /// What is not taken out by now is unknown.
    fn refuse_the_rest(&mut self, known: &[&str]) {
        for key in std::mem::take(&mut self.object).keys() {
            match nearest(key, known.iter().copied()) {
                Some(near) => self.fail(key, format!("unknown field; did you mean {near:?}?")),
                None => self.fail(key, format!("unknown field; known are {}", known.join(", "))),
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        // The order of what is left does not matter.
        self.object.swap_remove(key)
    }

    fn optional<T>(&mut self, key: &str, read: fn(Value) -> Result<T, String>) -> Option<T> {
        match self.take(key) {
            None | Some(Value::Null) => None,
            Some(value) => read(value).map_err(|e| self.fail(key, e)).ok(),
        }
    }

    fn required<T>(&mut self, key: &str, read: fn(Value) -> Result<T, String>) -> Option<T> {
        match self.take(key) {
            None => {
                self.fail(key, "is required");
                None
            }
            Some(value) => read(value).map_err(|e| self.fail(key, e)).ok(),
        }
    }

    fn required_nullable(&mut self, key: &str, read: fn(&mut Fields) -> Recipient) -> Option<Recipient> {
        match self.take(key) {
            None => {
                self.fail(key, "is required (null where the message has no single recipient)");
                None
            }
            Some(Value::Null) => None,
            Some(Value::Object(object)) => {
                let path = format!("{}/{key}", self.path);
                let mut inner = Fields { path, object, errors: Vec::new() };
                let value = read(&mut inner);
                inner.refuse_the_rest(&["lms_user_id", "email_address", "contacts"]);
                self.errors.append(&mut inner.errors);
                Some(value)
            }
            Some(other) => {
                self.fail(key, format!("must be an object, not {}", kind(&other)));
                None
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn string(value: Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

/// A label is a part of template paths, so it cannot be just any string.
fn label(value: Value) -> Result<String, String> {
    let s = string(value)?;
    let sound = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    if s.is_empty() || s.len() > 200 || s.starts_with('.') || !s.chars().all(sound) {
        return Err(format!(
            "{s:?} cannot be a label: 1 to 200 bytes, no slash, no control character, no leading dot (it names a template folder)"
        ));
    }
    Ok(s)
}

fn uuid(value: Value) -> Result<Uuid, String> {
    let s = string(value)?;
    s.parse().map_err(|_| format!("{s:?} is not a uuid"))
}

fn date_time(value: Value) -> Result<DateTime, String> {
    DateTime::parse(&string(value)?)
}

fn object(value: Value) -> Result<Object, String> {
    match value {
        Value::Object(o) => Ok(o),
        other => Err(format!("must be an object, not {}", kind(&other))),
    }
}

fn integer(value: Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("must be a whole number, not {}", kind(&value)))
}

fn headers(value: Value) -> Result<Headers, String> {
    object(value)?
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(s) => Ok((name, s)),
            other => Err(format!("header {name:?} must be a string, not {}", kind(&other))),
        })
        .collect::<Result<_, _>>()
        .map(Headers)
}

fn user_id(value: Value) -> Result<UserId, String> {
    match value {
        Value::Null => Ok(UserId::None),
        Value::String(s) => Ok(UserId::Text(s)),
        Value::Number(ref n) => {
            n.as_i64().map(UserId::Number).ok_or_else(|| format!("{value} is not a whole number of 64 bits"))
        }
        other => Err(format!("must be a number, a string or null, not {}", kind(&other))),
    }
}

fn contacts(value: Value) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for (contact, addresses) in object(value)? {
        let addresses = match addresses {
            Value::Array(list) => list,
            one => vec![one],
        };
        for address in addresses {
            out.push((contact.clone(), string(address).map_err(|e| format!("{contact:?}: {e}"))?));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
