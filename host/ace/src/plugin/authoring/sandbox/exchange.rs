//! Exchanges with the world as a case of a plugin's table writes them down.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::mailer;
use crate::message::Object;
use crate::plugin::http::{Answer as Response, Failure, FailureKind, Outgoing};

/// What a body that is no text is written under.
const BASE64: &str = "$base64";

/// A question to the world, and its answer. What a question leaves out is not compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Exchange {
    /// A request of the plugin.
    Http {
        /// `method`, `url`, `headers`, `body`.
        request: Object,
        /// What it is answered.
        answer: HttpAnswer,
    },
    /// A mail of the plugin.
    Mail {
        /// The fields of `mailer.email`, as far as they are set.
        request: Object,
        /// What it is answered.
        answer: MailAnswer,
    },
}

impl Exchange {
    pub(super) fn http_request(&self) -> Option<&Object> {
        if let Exchange::Http { request, .. } = self { Some(request) } else { None }
    }

    pub(super) fn mail_request(&self) -> Option<&Object> {
        if let Exchange::Mail { request, .. } = self { Some(request) } else { None }
    }
}

/// A response, or why there was none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpAnswer {
    /// 200, where there is no error either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// By their names, in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A text as it is; any other JSON value is sent in its compact form.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HttpFailure>,
}

/// As `http.http-error` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpFailure {
    /// Not granted.
    Denied,
    /// No connection.
    Connection,
    /// No answer in time.
    TimedOut,
    /// More bytes than are allowed.
    TooLarge,
}

/// Headers that differ from one day to the next and say nothing to a plugin, or are nobody's business.
const NOT_WRITTEN: [HeaderName; 3] = [header::DATE, header::SET_COOKIE, header::SERVER];

impl HttpAnswer {
    pub(super) fn of(outcome: &Result<Response, Failure>, redact: impl Fn(String) -> String) -> Self {
        match outcome {
            Ok(response) => {
                let written = response.headers.iter().filter(|(name, _)| !NOT_WRITTEN.contains(name));
                let text = |v: &HeaderValue| redact(String::from_utf8_lossy(v.as_bytes()).into_owned());
                let mut body = body(&response.body);
                each_text(&mut body, &redact);
                HttpAnswer {
                    status: Some(response.status.as_u16()),
                    headers: written.map(|(name, value)| (name.to_string(), text(value))).collect(),
                    body,
                    error: None,
                }
            }
            Err(failure) => {
                let error = match failure.kind {
                    FailureKind::Denied(_) => HttpFailure::Denied,
                    FailureKind::Unconnected(_) | FailureKind::Broken(_) => HttpFailure::Connection,
                    FailureKind::TimedOut => HttpFailure::TimedOut,
                    FailureKind::TooLarge(_) => HttpFailure::TooLarge,
                };
                HttpAnswer { error: Some(error), ..HttpAnswer::default() }
            }
        }
    }

    pub(super) fn into_outcome(self) -> Result<Response, Failure> {
        let kind = match self.error {
            None => {
                let mut headers = HeaderMap::new();
                for (name, value) in &self.headers {
                    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                        headers.append(name, value);
                    }
                }
                let status = StatusCode::from_u16(self.status.unwrap_or(200)).unwrap_or(StatusCode::OK);
                return Ok(Response { status, headers, body: bytes(&self.body) });
            }
            Some(HttpFailure::Denied) => FailureKind::Denied("the case says so".to_owned()),
            Some(HttpFailure::Connection) => FailureKind::Broken("the connection broke: the case says so".to_owned()),
            Some(HttpFailure::TimedOut) => FailureKind::TimedOut,
            Some(HttpFailure::TooLarge) => FailureKind::TooLarge(0),
        };
        Err(Failure { status: None, kind })
    }
}

/// What became of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailAnswer {
    /// The relay's last line.
    Accepted(String),
    /// The mail itself is wrong.
    Invalid(String),
    /// Try again later.
    Temporary(String),
    /// Do not try again.
    Permanent(String),
}

impl MailAnswer {
    /// For a mail that goes nowhere.
    pub(super) fn caught() -> Self {
        MailAnswer::Accepted("250 2.0.0 Ok".to_owned())
    }

    pub(super) fn of(outcome: &Result<mailer::Accepted, mailer::MailError>) -> Self {
        match outcome {
            Ok(accepted) => MailAnswer::Accepted(accepted.answer.clone()),
            Err(mailer::MailError::Invalid(text)) => MailAnswer::Invalid(text.clone()),
            Err(mailer::MailError::Temporary { message, .. }) => MailAnswer::Temporary(message.clone()),
            Err(mailer::MailError::Permanent { message, .. }) => MailAnswer::Permanent(message.clone()),
        }
    }

    pub(super) fn into_outcome(self, message_id: &str) -> Result<mailer::Accepted, mailer::MailError> {
        match self {
            MailAnswer::Accepted(answer) => {
                Ok(mailer::Accepted { answer, message_id: format!("<{message_id}@test.invalid>"), refused: Vec::new() })
            }
            MailAnswer::Invalid(text) => Err(mailer::MailError::Invalid(text)),
            MailAnswer::Temporary(message) => Err(mailer::MailError::temporary(message)),
            MailAnswer::Permanent(message) => {
                Err(mailer::MailError::Permanent { message, detail: mailer::FailureDetail::default() })
            }
        }
    }
}

pub(super) fn http_request(outgoing: &Outgoing) -> Object {
    let text = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let headers: BTreeMap<String, String> = outgoing.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
    let mut request = Object::new();
    request.insert("method".to_owned(), outgoing.method.as_str().into());
    request.insert("url".to_owned(), outgoing.url.as_str().into());
    if !headers.is_empty() {
        request.insert("headers".to_owned(), json!(headers));
    }
    if let Some(content) = &outgoing.body {
        // It is only compared: how a guest spaces its JSON says nothing.
        let json = serde_json::from_slice::<Value>(content).ok().filter(|v| v.is_object() || v.is_array());
        request.insert("body".to_owned(), json.unwrap_or_else(|| body(content)));
    }
    request
}

pub(super) fn mail_request(email: &mailer::Email) -> Object {
    let attachments = email.attachments.iter().map(|a| {
        json!({"file_name": a.file_name, "content_type": a.content_type, "content": body(&a.content), "content_id": a.content_id})
    });
    let fields = json!({
        "sender": email.sender,
        "recipients": email.recipients,
        "cc": email.cc,
        "bcc": email.bcc,
        "reply_to": email.reply_to,
        "subject": email.subject,
        "text": email.text,
        "html": email.html,
        "headers": email.headers,
        "attachments": attachments.collect::<Vec<_>>(),
        "relay": email.relay,
        "return_path": email.return_path,
    });
    let Value::Object(mut fields) = fields else { unreachable!("it is written as an object") };
    fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    fields
}

/// Bytes as they are written down: JSON where that gives the same bytes back, else text, else base64.
fn body(content: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(content) else {
        return json!({ BASE64: BASE64_STANDARD.encode(content) });
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) if (value.is_object() || value.is_array()) && bytes(&value) == content => value,
        _ => text.into(),
    }
}

fn bytes(body: &Value) -> Vec<u8> {
    match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => match other.get(BASE64).and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok()) {
            Some(bytes) => bytes,
            None => other.to_string().into_bytes(),
        },
    }
}

/// Every text within a value, changed.
pub(super) fn each_text(value: &mut Value, change: &impl Fn(String) -> String) {
    match value {
        Value::String(text) => *text = change(std::mem::take(text)),
        Value::Array(list) => list.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| each_text(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether an object is as wanted: what is left out of the wanted one is not compared, at any depth; lists have the same
/// length.
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
