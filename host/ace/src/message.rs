//! Every value that crosses modules: messages and their parts here, what is answered about them in [`answers`], what happens to
//! them in [`report`].
//!
//! The JSON form is edx-ace's (`str(message)` there), both ways; [`decode`] reads it. Times are written back as they came, and
//! the context is left exactly as it is, whatever its keys are called.

mod answers;
mod context;
mod decode;
mod destination;
pub mod json;
mod mail_record;
mod prepared;
mod report;
pub mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use answers::{
    ActionLink, Attempt, Delay, DeliveryError, Denial, Fault, FaultKind, Notes, Page, PolicyResult, Receipt, Rendered,
    RenderedFile, ResolveError, Resolved, TemplateFile,
};
pub use context::Context;
pub use decode::{FieldError, FieldErrors};
pub use destination::{Destination, Unreached};
pub use json::without_bom;
pub use mail_record::{MailRecord, RecipientRecord, RecipientState};
pub use prepared::{Member, MemberError, Personal, Prepared};
pub use report::{
    Agreement, AttemptReport, AttemptResult, ChannelReport, HISTORY_MAX, LINES_MAX, OnError, Outcome, PolicyReport,
    REPORT_BYTES_MAX, Reason, Report, Rule, Verdict,
};

/// A JSON object whose keys keep their order.
pub type Object = Map<String, Value>;

/// A channel type: `email`, `push`, `sms`, …; an open set, lower case.
pub type ChannelType = String;

/// edx-ace's `ChannelType.EMAIL`.
pub const EMAIL: &str = "email";
/// edx-ace's `ChannelType.PUSH`.
pub const PUSH: &str = "push";
/// A message's usual size as JSON, without its context.
const JSON_BYTES_USUAL: usize = 512;
/// In a verdict: every channel type.
pub const EVERY_TYPE: &str = "*";

/// A moment as the sender wrote it. Equal by text, compared in time by [`DateTime::timestamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateTime {
    text: String,
    at: Timestamp,
}

/// A text that is not a date and time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a date and time; write it in ISO 8601, as in \"2026-01-02T03:04:05+00:00\"")]
pub struct DateTimeError(String);

impl DateTime {
    /// Reads ISO 8601 (`2026-01-02T03:04:05.678900+00:00`, a space for the `T`, `Z`, a date alone). Without an offset it is UTC.
    ///
    /// # Errors
    /// It is neither of these.
    pub fn parse(text: &str) -> Result<Self, DateTimeError> {
        let trimmed = text.trim();
        let at = trimmed.parse::<Timestamp>().ok().or_else(|| {
            // Without an offset, or past either end of what a timestamp holds (Python's datetime.max is).
            let naive: jiff::civil::DateTime = trimmed.trim_end_matches(['Z', 'z']).parse().ok()?;
            let end = if naive.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
            Some(jiff::tz::TimeZone::UTC.to_timestamp(naive).unwrap_or(end))
        });
        at.map(|at| DateTime { text: text.to_owned(), at }).ok_or_else(|| DateTimeError(text.to_owned()))
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
    /// No user.
    #[default]
    None,
    /// edx-ace's own form.
    Number(i64),
    /// Another system's identifier.
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

    /// The id as a text that [`UserId::of_stored`] reads back with its type: before a text that looks like a number stands a mark
    /// that is not seen, and that [`ace_store::person::normal_user`] leaves out.
    pub fn to_stored(&self) -> Option<String> {
        match self {
            UserId::Text(t) if is_number(t) || t.starts_with(TEXT_MARK) => Some(format!("{TEXT_MARK}{t}")),
            other => other.as_text(),
        }
    }

    /// What [`UserId::to_stored`] wrote.
    pub fn of_stored(text: Option<&str>) -> UserId {
        let Some(text) = text else { return UserId::None };
        match text.strip_prefix(TEXT_MARK) {
            Some(text) => UserId::Text(text.to_owned()),
            None if is_number(text) => text.parse().map_or_else(|_| UserId::Text(text.to_owned()), UserId::Number),
            None => UserId::Text(text.to_owned()),
        }
    }
}

/// A zero-width joiner of words.
const TEXT_MARK: char = '\u{2060}';

/// Whether a text is an integer as it is written by [`UserId::as_text`].
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|n| n.to_string() == text)
}

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipient {
    /// The user's identifier.
    pub lms_user_id: UserId,
    /// Where mail goes.
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
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// edx-ace's `app_label`: the application that the templates belong to.
    pub app_label: String,
    /// The name of the message, which names its templates too.
    pub name: String,
    /// Whom it is for.
    pub recipient: Option<Recipient>,
    /// After it nothing is sent any more.
    pub expiration_time: Option<DateTime>,
    /// What templates and policies may read.
    pub context: Context,
    /// Its identity.
    pub uuid: Uuid,
    /// That of the bulk send it belongs to.
    pub send_uuid: Option<Uuid>,
    /// What channels and policies are told, such as `transactional`.
    pub options: Object,
    /// Headers of the mail.
    pub headers: Headers,
    /// A language tag; `None`: the default language.
    pub language: Option<String>,
    /// edx-ace's `log_level`: how much is logged of it.
    pub log_level: Option<i64>,
}

impl Message {
    /// A message with a fresh random uuid and nothing optional set.
    pub fn new(app_label: impl Into<String>, name: impl Into<String>, recipient: Option<Recipient>) -> Self {
        Message {
            app_label: app_label.into(),
            name: name.into(),
            recipient,
            expiration_time: None,
            context: Context::new(),
            uuid: Uuid::new_v4(),
            send_uuid: None,
            options: Object::new(),
            headers: Headers::default(),
            language: None,
            log_level: None,
        }
    }

    /// edx-ace's JSON form.
    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(self.context.as_json().len() + JSON_BYTES_USUAL);
        write_field(&mut json, "app_label", &self.app_label);
        write_field(&mut json, "name", &self.name);
        write_field(&mut json, "recipient", &self.recipient);
        write_field(&mut json, "expiration_time", &self.expiration_time);
        json.extend_from_slice(br#","context":"#);
        json.extend_from_slice(self.context.as_json().as_bytes());
        write_field(&mut json, "uuid", &self.uuid);
        write_field(&mut json, "send_uuid", &self.send_uuid);
        write_field(&mut json, "options", &self.options);
        write_field(&mut json, "headers", &self.headers);
        write_field(&mut json, "language", &self.language);
        write_field(&mut json, "log_level", &self.log_level);
        json.push(b'}');
        String::from_utf8(json).expect("JSON is UTF-8")
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

    /// Whether `log_level` asks for what is logged at debug of it to be logged at info: it is set, not 0, and no greater than 10,
    /// Python's DEBUG (as in edx-ace).
    pub fn is_logged_in_full(&self) -> bool {
        self.log_level.is_some_and(|level| level != 0 && level <= 10)
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

fn write_field(json: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    json.extend_from_slice(if json.is_empty() { b"{\"" } else { b",\"" });
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    serde_json::to_writer(json, value).expect("it has only string keys and finite numbers");
}

/// What all messages of one kind share; a bulk send personalises it for each recipient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageType {
    /// What templates and policies may read.
    pub context: Context,
    /// The identity of the send.
    pub uuid: Uuid,
    /// After it nothing is sent any more.
    pub expiration_time: Option<DateTime>,
    /// edx-ace's `app_label`: the application that the templates belong to.
    pub app_label: String,
    /// The name of the message, which names its templates too.
    pub name: String,
    /// What channels and policies are told, such as `transactional`.
    pub options: Object,
    /// edx-ace's `log_level`: how much is logged of it.
    pub log_level: Option<i64>,
}

impl MessageType {
    /// A type with a fresh random uuid and nothing optional set.
    pub fn new(app_label: impl Into<String>, name: impl Into<String>) -> Self {
        MessageType {
            context: Context::new(),
            uuid: Uuid::new_v4(),
            expiration_time: None,
            app_label: app_label.into(),
            name: name.into(),
            options: Object::new(),
            log_level: None,
        }
    }

    /// `app_label.name`.
    pub fn unique_name(&self) -> String {
        format!("{}.{}", self.app_label, self.name)
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
        user_context: impl Into<Context>,
    ) -> Message {
        Message {
            app_label: self.app_label.clone(),
            name: self.name.clone(),
            recipient: recipient.into(),
            expiration_time: self.expiration_time.clone(),
            context: self.context.laid(&user_context.into()),
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

/// How long a `Retry-After` asks to be left alone (RFC 9110, section 10.2.3): seconds, or a date; one that is over asks for nothing.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Duration::try_from(rfc2822::parse(text).ok()?.timestamp().duration_since(now)).ok(),
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

/// Whether a name is one of the known ones with a slip in it: at most two letters, and not one that has more at its end
/// (`quiet_hours2`).
pub fn is_misspelt<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> bool {
    let mut near = known.into_iter().filter(|k| name.len().abs_diff(k.len()) <= SLIPS_MAX && !name.starts_with(k));
    near.any(|k| strsim::damerau_levenshtein(name, k) <= SLIPS_MAX)
}

const SLIPS_MAX: usize = 2;

#[cfg(test)]
mod tests;
