//! The cases of a plugin's table. See docs/authoring.md.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::RecoverableError;
use crate::authorized_http::AuthorizedError;
use crate::delivery::{Note, Outcome};
use crate::http::{HttpError, Response};

/// A JSON object.
pub type Object = Map<String, Value>;

const UUID: &str = "00000000-0000-4000-8000-000000000001";
const NOW: &str = "2026-01-01T12:00:00Z";

/// One case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The title.
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    pub message: Value,
    pub resolve: Option<Resolve>,
    pub request: Option<IncomingRequest>,
    pub public_url: Option<String>,
    /// `policy` or `channel`, for a plugin that is both. A table skips cases of the other kind.
    #[serde(rename = "ask")]
    _ask: Option<String>,
    now: Option<String>,
    pub seed: Option<u64>,
    #[serde(default)]
    pub facts: BTreeMap<String, Object>,
    #[serde(default)]
    pub config: Object,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// The keys that verify signatures, by the plugin's names for its credentials; `test-NAME` if it is not given.
    #[serde(default)]
    pub credentials: BTreeMap<String, String>,
    #[serde(default)]
    pub rendered: BTreeMap<String, String>,
    pub attempt: Option<u32>,
    /// The notes of earlier attempts.
    #[serde(default)]
    pub noted: Vec<Note>,
    #[serde(default)]
    pub host: VecDeque<Exchange>,
    pub expect: Option<Value>,
    #[serde(default)]
    pub facts_after: BTreeMap<String, Object>,
}

/// The arguments of a resolver.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    #[serde(default)]
    pub message_type: Object,
    #[serde(default)]
    pub arguments: Object,
    pub cursor: Option<String>,
    #[serde(default = "page_length")]
    pub limit: u32,
}

fn page_length() -> u32 {
    100
}

/// A request from outside, for a plugin that reads feedback.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingRequest {
    #[serde(default = "post")]
    pub method: String,
    #[serde(default)]
    pub path: String,
    pub query: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

impl IncomingRequest {
    pub fn body(&self) -> Vec<u8> {
        bytes(&self.body)
    }
}

fn post() -> String {
    "POST".to_owned()
}

/// An expected request, and its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Exchange {
    Http { request: Object, answer: HttpAnswer },
    Mail { request: Object, answer: MailAnswer },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAnswer {
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    error: Option<HttpFailure>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HttpFailure {
    Denied,
    Connection,
    TimedOut,
    TooLarge,
    Rejected,
    Unavailable,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailAnswer {
    Accepted(String),
    Invalid(String),
    Temporary(String),
    Permanent(String),
}

impl HttpAnswer {
    /// The outcome of a request with a credential.
    pub fn authorized_outcome(self) -> Result<Response, AuthorizedError> {
        let message = "the case says so".to_owned();
        match self.error {
            Some(HttpFailure::Rejected) => Err(AuthorizedError::Rejected(message)),
            Some(HttpFailure::Unavailable) => {
                Err(AuthorizedError::Unavailable(RecoverableError { message, next_attempt_time: Some(0) }))
            }
            _ => self.outcome().map_err(AuthorizedError::Http),
        }
    }

    /// The outcome of a request without a credential.
    pub fn outcome(self) -> Result<Response, HttpError> {
        match self.error {
            None => Ok(Response {
                status: self.status.unwrap_or(200),
                headers: self.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
                body: bytes(&self.body),
            }),
            Some(HttpFailure::Denied) => Err(HttpError::Denied("the case says so".to_owned())),
            Some(HttpFailure::Connection | HttpFailure::Rejected | HttpFailure::Unavailable) => {
                Err(HttpError::Connection("the connection broke: the case says so".to_owned()))
            }
            Some(HttpFailure::TimedOut) => Err(HttpError::TimedOut),
            Some(HttpFailure::TooLarge) => Err(HttpError::TooLarge(0)),
        }
    }
}

/// A body in a case: text, `{"$base64": …}`, or compact JSON.
fn bytes(body: &Value) -> Vec<u8> {
    match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => {
            match other.get("$base64").and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok()) {
                Some(bytes) => bytes,
                None => other.to_string().into_bytes(),
            }
        }
    }
}

/// Bytes in the form of a case.
pub fn written(content: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(content) else { return json!({"$base64": BASE64_STANDARD.encode(content)}) };
    let json = serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array());
    json.unwrap_or_else(|| text.into())
}

impl Case {
    /// Parses a case, or only a message.
    pub fn read(entry: &Value) -> Result<Self, String> {
        if entry.get("message").is_none() && entry.get("app_label").is_some() {
            return Ok(Case { message: entry.clone(), ..Case::default() });
        }
        let case: Case = serde_json::from_value(entry.clone()).map_err(|e| e.to_string())?;
        case.now()?;
        if case.resolve.is_some() || case.request.is_some() || case.message.is_object() {
            Ok(case)
        } else {
            Err("missing field `message` (or, for a resolver, `resolve`, or, for feedback, `request`)".to_owned())
        }
    }

    /// The fixed current time.
    pub fn now(&self) -> Result<Timestamp, String> {
        self.now.as_deref().unwrap_or(NOW).parse().map_err(|e| format!("now: {e}"))
    }

    /// The message with all of its fields, in edx-ace's order.
    pub fn message(&self) -> Result<Object, String> {
        let fields = [
            ("app_label", Value::Null),
            ("name", Value::Null),
            ("recipient", Value::Null),
            ("expiration_time", Value::Null),
            ("context", json!({})),
            ("uuid", UUID.into()),
            ("send_uuid", Value::Null),
            ("options", json!({})),
            ("headers", json!({})),
            ("language", Value::Null),
            ("log_level", Value::Null),
        ];
        let given = self.message.as_object().ok_or("message: expected an object")?;
        if let Some(unknown) = given.keys().find(|key| !fields.iter().any(|(field, _)| field == key)) {
            return Err(format!("message: unknown field `{unknown}`"));
        }
        if let Some(missing) =
            ["app_label", "name"].into_iter().find(|key| !given.get(*key).is_some_and(Value::is_string))
        {
            return Err(format!("message: {missing}: expected a string"));
        }
        let value = |(field, default): (&str, Value)| {
            let given = given.get(field).filter(|value| !value.is_null());
            (field.to_owned(), given.cloned().unwrap_or(default))
        };
        let mut message: Object = fields.into_iter().map(value).collect();
        self.remove_noted(&mut message);
        Ok(message)
    }

    /// Removes the addresses whose outcome is known.
    fn remove_noted(&self, message: &mut Object) {
        let Some(recipient) = message.get_mut("recipient").and_then(Value::as_object_mut) else { return };
        for Note { kind, address, .. } in self.noted.iter().filter(|note| note.outcome != Outcome::Retry) {
            let contacts = recipient.get_mut("contacts").and_then(Value::as_object_mut);
            match contacts.and_then(|contacts| contacts.get_mut(kind)) {
                Some(Value::Array(list)) => list.retain(|one| one != address.as_str()),
                Some(one) if *one == address.as_str() => *one = json!([]),
                _ => {}
            }
            if kind == "email" && recipient.get("email_address").is_some_and(|one| one == address.as_str()) {
                recipient.insert("email_address".to_owned(), Value::Null);
            }
        }
    }
}

/// Whether an answer matches the expectation. Both must have the same kind of answer and the same lists. Within an entry, fields that the
/// expectation omits are not compared.
pub fn agrees(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(is)) => {
            wanted.len() == is.len() && is.keys().all(|key| wanted.contains_key(key)) && matches(wanted, is)
        }
        (expected, actual) => expected == actual,
    }
}

/// Whether an object has the expected fields, at any depth. Lists must have the same length.
pub fn matches(wanted: &Object, actual: &Object) -> bool {
    fn fits(wanted: &Value, actual: &Value) -> bool {
        match (wanted, actual) {
            (Value::Object(wanted), Value::Object(actual)) => matches(wanted, actual),
            (Value::Array(wanted), Value::Array(actual)) => {
                wanted.len() == actual.len() && wanted.iter().zip(actual).all(|(wanted, actual)| fits(wanted, actual))
            }
            (wanted, actual) => wanted == actual,
        }
    }
    wanted.iter().all(|(key, wanted)| actual.get(key).is_some_and(|actual| fits(wanted, actual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_parsed_or_rejected_with_its_error() {
        let message = json!({"app_label": "app", "name": "note"});
        let case = Case::read(&message).expect("a message alone");
        assert_eq!(case.message().expect("whole")["uuid"], UUID);
        for (entry, words) in [
            (json!({"expect": "pass"}), "missing field `message`"),
            (json!({"message": message, "expects": "pass"}), "unknown field `expects`"),
            (json!({"message": message, "now": "noon"}), "now: "),
            (json!({"message": message, "host": [{"ftp": {}}]}), "unknown variant `ftp`"),
        ] {
            let error = Case::read(&entry).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        let misspelt = Case::read(&json!({"message": {"app_label": "a", "name": "b", "option": {}}})).expect("read");
        assert_eq!(misspelt.message(), Err("message: unknown field `option`".to_owned()));
    }

    #[test]
    fn an_expectation_must_have_all_lists() {
        let actual = json!({"deny": [{"channel_type": "email", "reason": "opted out"}]});
        assert!(agrees(&json!({"deny": [{"channel_type": "email"}]}), &actual));
        for other in [json!("pass"), json!({}), json!({"deny": []}), json!({"deny": [{"channel_type": "push"}]})] {
            assert!(!agrees(&other, &actual), "{other}");
        }
    }
}
