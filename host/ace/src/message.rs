//! The values that modules exchange: messages here, results of policies and channels in [`answers`], outcomes in [`report`].
//!
//! Messages are read ([`decode`]) and written in edx-ace's JSON form (`str(message)` there). Times keep their original text, and
//! contexts keep their keys and values unchanged.

mod addresses;
mod answers;
mod context;
mod decode;
mod destination;
mod feedback;
pub mod json;
mod mail_record;
mod prepared;
mod report;
pub mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use addresses::{
    ADDRESS_BYTES_MAX, ADDRESSES_BYTES_MAX, ADDRESSES_MAX, AddressOutcome, AddressRecord, DETAILS_BYTES_MAX, Hold,
    KIND_BYTES_MAX, RecordAddresses, Recording, add_record, check_contacts,
};
pub use answers::{
    ActionLink, Attempt, CallContext, Delay, DeliveryError, Denial, Earlier, Fault, FaultKind, Page, PolicyResult,
    Receipt, Rendered, RenderedFile, ResolveError, Resolved, TemplateFile,
};
pub use context::Context;
pub use decode::{FieldError, FieldErrors};
pub use destination::{Destination, Unreached};
pub use feedback::{ContactAddress, FEEDBACK_KINDS, FeedbackAnswer, FeedbackError, FeedbackEvent, Incoming, Received};
pub use json::without_bom;
pub use mail_record::{MailRecord, RecipientRecord, RecipientState};
pub use prepared::{Member, MemberError, Personal, Prepared};
pub use report::{
    Agreement, AttemptReport, AttemptResult, ChannelReport, HISTORY_MAX, LINES_MAX, OnError, Outcome, PolicyReport,
    REPORT_BYTES_MAX, Reason, Report, Rule, Verdict,
};

/// A JSON object whose keys keep their order.
pub type Object = Map<String, Value>;

/// A channel type in lower case: `email`, `push`, `sms` or any other.
pub type ChannelType = String;

/// edx-ace's `ChannelType.EMAIL`.
pub const EMAIL: &str = "email";
/// edx-ace's `ChannelType.PUSH`.
pub const PUSH: &str = "push";
/// The initial size of a message's JSON, without its context.
const JSON_BYTES_USUAL: usize = 512;
/// Stands for every channel type in a verdict.
pub const EVERY_TYPE: &str = "*";

/// A date and time with its original text. `==` compares the texts; use [`DateTime::timestamp`] to compare in time.
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
    /// Parses ISO 8601: `2026-01-02T03:04:05.678900+00:00`, also with a space instead of `T`, with `Z`, or only a date. The default
    /// offset is UTC.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, DateTimeError> {
        let trimmed = text.trim();
        let at = trimmed.parse::<Timestamp>().ok().or_else(|| {
            // Without an offset, or outside the range of timestamps, as Python's datetime.max is.
            let naive: jiff::civil::DateTime = trimmed.trim_end_matches(['Z', 'z']).parse().ok()?;
            let end = if naive.year() > 0 { Timestamp::MAX } else { Timestamp::MIN };
            Some(TimeZone::UTC.to_timestamp(naive).unwrap_or(end))
        });
        at.map(|at| DateTime { text: text.to_owned(), at }).ok_or_else(|| DateTimeError(text.to_owned()))
    }

    /// The instant.
    pub fn timestamp(&self) -> Timestamp {
        self.at
    }

    /// The original text.
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

/// edx-ace's `lms_user_id`, which is untyped there: numbers, strings, 0 and None are in use.
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
    /// The id as text; `None` for no user.
    pub fn as_text(&self) -> Option<String> {
        match self {
            UserId::None => None,
            UserId::Number(n) => Some(n.to_string()),
            UserId::Text(t) => Some(t.clone()),
        }
    }

    /// The id as a number, if it is a number or a string of digits.
    pub fn as_number(&self) -> Option<i64> {
        match self {
            UserId::None => None,
            UserId::Number(n) => Some(*n),
            UserId::Text(t) => t.parse().ok(),
        }
    }

    /// The id as text from which [`UserId::of_stored`] restores its type. A string that looks like a number gets an invisible
    /// prefix, which [`ace_store::person::normal_user`] ignores.
    pub fn to_stored(&self) -> Option<String> {
        match self {
            UserId::Text(t) if is_number(t) || t.starts_with(TEXT_MARK) => Some(format!("{TEXT_MARK}{t}")),
            other => other.as_text(),
        }
    }

    /// The id from the text of [`UserId::to_stored`].
    pub fn of_stored(text: Option<&str>) -> UserId {
        let Some(text) = text else { return UserId::None };
        match text.strip_prefix(TEXT_MARK) {
            Some(text) => UserId::Text(text.to_owned()),
            None if is_number(text) => text.parse().map_or_else(|_| UserId::Text(text.to_owned()), UserId::Number),
            None => UserId::Text(text.to_owned()),
        }
    }
}

/// The prefix of strings that look like numbers: a word joiner.
const TEXT_MARK: char = '\u{2060}';

/// Whether a text is an integer in the form of [`UserId::as_text`].
fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|n| n.to_string() == text)
}

/// The recipient of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipient {
    /// The user's identifier.
    pub lms_user_id: UserId,
    /// The e-mail address.
    pub email_address: Option<String>,
    /// Other addresses by kind: `("push-token", "…")`, `("phone", "+15550100")`. Not part of edx-ace; omitted if empty.
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

/// One message to one recipient. The fields and their order are edx-ace's.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// edx-ace's `app_label`: the application that the templates belong to.
    pub app_label: String,
    /// The name of the message and its templates.
    pub name: String,
    /// The recipient.
    pub recipient: Option<Recipient>,
    /// The message is not sent after this time.
    pub expiration_time: Option<DateTime>,
    /// The data of templates and policies.
    pub context: Context,
    /// The id of the message.
    pub uuid: Uuid,
    /// The id of the bulk send that the message belongs to.
    pub send_uuid: Option<Uuid>,
    /// Options for channels and policies, such as `transactional`.
    pub options: Object,
    /// Headers of the e-mail.
    pub headers: Headers,
    /// A language tag; `None` for the default language.
    pub language: Option<String>,
    /// edx-ace's `log_level`: how much is logged about the message.
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

    /// `app_label.name.send_uuid.uuid`, with `no_send_uuid` if the message belongs to no bulk send.
    pub fn log_id(&self) -> String {
        match self.send_uuid {
            Some(send) => format!("{}.{}.{send}.{}", self.app_label, self.name, self.uuid),
            None => format!("{}.{}.no_send_uuid.{}", self.app_label, self.name, self.uuid),
        }
    }

    /// Whether debug events of this message are logged at level info: `log_level` is set, not 0, and at most 10 (Python's DEBUG),
    /// as in edx-ace.
    pub fn is_logged_in_full(&self) -> bool {
        self.log_level.is_some_and(|level| level != 0 && level <= 10)
    }

    /// Whether an option has a value that is true in Python.
    pub fn option_is_true(&self, key: &str) -> bool {
        self.options.get(key).is_some_and(is_truthy)
    }

    /// Whether the message responds to an action of its recipient, such as a password reset.
    pub fn is_transactional(&self) -> bool {
        self.option_is_true("transactional")
    }

    /// The idempotency key for the provider, the same for every attempt: the uuid and the channel's name.
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

/// The common part of the messages of a bulk send, which is personalized for each recipient.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessageType {
    /// The data of templates and policies.
    pub context: Context,
    /// The id of the send.
    pub uuid: Uuid,
    /// The message is not sent after this time.
    pub expiration_time: Option<DateTime>,
    /// edx-ace's `app_label`: the application that the templates belong to.
    pub app_label: String,
    /// The name of the message and its templates.
    pub name: String,
    /// Options for channels and policies, such as `transactional`.
    pub options: Object,
    /// edx-ace's `log_level`: how much is logged about the message.
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

    /// The message for one recipient: the user's context overrides the type's, key by key; the type's uuid becomes `send_uuid`;
    /// the message gets a new uuid and no headers. Each message has a copy of the options; edx-ace shares one dict.
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
            context: self.context.merged(&user_context.into()),
            uuid: Uuid::new_v4(),
            send_uuid: Some(self.uuid),
            options: self.options.clone(),
            headers: Headers::default(),
            language,
            log_level: self.log_level,
        }
    }
}

/// Header names and values in their original order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

/// Whether a value is true in Python, for options that edx-ace tests that way.
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

/// The delay of a `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date. `None` for a date in the past, and for a delay until
/// after the year 9999.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    match seconds(text) {
        Some(delay) => now.checked_add(delay).ok().map(|_| delay),
        None => Duration::try_from(http_date(text)?.duration_since(now)).ok(),
    }
}

/// Decimal seconds, rounded up to milliseconds: some providers send fractions. The SDK of plugins reads them in the same way.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let (thousandths, rest) = fraction.split_at(fraction.len().min(3));
    let millis: u64 = format!("{thousandths:0<3}").parse().ok()?;
    let millis = millis + u64::from(rest.bytes().any(|digit| digit != b'0'));
    Duration::from_secs(whole.parse().ok()?).checked_add(Duration::from_millis(millis))
}

/// The forms of a date in HTTP that servers no longer send but clients must read (RFC 9110, section 5.6.7).
const OBSOLETE_DATES: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

fn http_date(text: &str) -> Option<Timestamp> {
    let obsolete = |form: &str| TimeZone::UTC.to_timestamp(strtime::parse(form, text).ok()?.to_datetime().ok()?).ok();
    let usual = rfc2822::parse(text).ok().map(|date| date.timestamp());
    usual.or_else(|| OBSOLETE_DATES.into_iter().find_map(obsolete))
}

/// The most similar known name, if one is similar enough for a suggestion.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = |k: &str| 1 + name.len().max(k.len()) / 3;
    known
        .into_iter()
        // The distance costs the product of the lengths; names of very different lengths are not similar.
        .filter(|k| name.len().abs_diff(k.len()) <= tolerance(k).min(8))
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= tolerance(k))
        .min()
        .map(|(_, k)| k)
}

/// Whether a name is probably a misspelt known one: at most two letters differ, and it does not extend one (`quiet_hours2`).
pub fn is_misspelt<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> bool {
    let mut near = known.into_iter().filter(|k| name.len().abs_diff(k.len()) <= TYPOS_MAX && !name.starts_with(k));
    near.any(|k| strsim::damerau_levenshtein(name, k) <= TYPOS_MAX)
}

const TYPOS_MAX: usize = 2;

#[cfg(test)]
mod tests;
