//! Exchanges with the outside world, in the format of a plugin's test cases.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::credentials::Refusal;
use crate::mailer;
use crate::message::Object;
use crate::plugin::http::{Answer as Response, Failure, FailureKind, Outgoing};

/// The key of a body that is not text.
const BASE64: &str = "$base64";

/// A request and its answer. Only the fields that the request contains are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Exchange {
    /// An HTTP request of the plugin.
    Http {
        /// `method`, `url`, `headers`, `body`, and `credential`: the plugin's own name for it.
        request: Object,
        /// The response.
        answer: HttpAnswer,
    },
    /// A mail of the plugin.
    Mail {
        /// The fields of `mailer.email` that are set.
        request: Object,
        /// The relay's answer.
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

/// A response, or an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpAnswer {
    /// The status; 200 if there is neither a status nor an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The headers, with names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A text, which is used as it is, or another JSON value, which is used in compact form.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// Why there is no response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HttpFailure>,
}

/// The errors of `http.http-error` and `authorized-http.authorized-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpFailure {
    /// Not granted.
    Denied,
    /// No connection.
    Connection,
    /// A time limit was reached.
    TimedOut,
    /// The response was too long.
    TooLarge,
    /// The provider rejects the credential for good.
    Rejected,
    /// No token could be obtained.
    Unavailable,
}

/// Headers that are not recorded: they change all the time, say nothing to a plugin, or are private.
const NOT_RECORDED: [HeaderName; 3] = [header::DATE, header::SET_COOKIE, header::SERVER];

impl HttpAnswer {
    pub(super) fn of(outcome: &Result<Response, Failure>, redact: impl Fn(String) -> String) -> Self {
        match outcome {
            Ok(response) => {
                let recorded = response.headers.iter().filter(|(name, _)| !NOT_RECORDED.contains(name));
                let text = |v: &HeaderValue| redact(String::from_utf8_lossy(v.as_bytes()).into_owned());
                let mut body = body(&response.body);
                each_text(&mut body, &redact);
                HttpAnswer {
                    status: Some(response.status.as_u16()),
                    headers: recorded.map(|(name, value)| (name.to_string(), text(value))).collect(),
                    body,
                    error: None,
                }
            }
            Err(failure) => {
                let error = match failure.kind {
                    FailureKind::Denied(_) | FailureKind::Unauthorized(Refusal::Denied(_) | Refusal::Invalid(_)) => {
                        HttpFailure::Denied
                    }
                    FailureKind::Unauthorized(Refusal::Rejected(_)) => HttpFailure::Rejected,
                    FailureKind::Unauthorized(Refusal::Unavailable { .. }) => HttpFailure::Unavailable,
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
                return Ok(Response { status, headers, body: bytes(&self.body), rejected_credential: None });
            }
            Some(HttpFailure::Denied) => FailureKind::Denied("the case says so".to_owned()),
            Some(HttpFailure::Connection) => FailureKind::Broken("the connection broke: the case says so".to_owned()),
            Some(HttpFailure::TimedOut) => FailureKind::TimedOut,
            Some(HttpFailure::TooLarge) => FailureKind::TooLarge(0),
            Some(HttpFailure::Rejected) => FailureKind::Unauthorized(Refusal::Rejected("the case says so".to_owned())),
            Some(HttpFailure::Unavailable) => FailureKind::Unauthorized(Refusal::Unavailable {
                message: "the case says so".to_owned(),
                next_attempt_time: Timestamp::UNIX_EPOCH,
            }),
        };
        Err(Failure { status: None, kind })
    }
}

/// The answer to a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailAnswer {
    /// Accepted, with the relay's last line.
    Accepted(String),
    /// The mail itself is invalid.
    Invalid(String),
    /// Try again later.
    Temporary(String),
    /// Do not try again.
    Permanent(String),
}

impl MailAnswer {
    /// The answer to a mail that is not sent.
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
    if let Some(credential) = &outgoing.credential {
        request.insert("credential".to_owned(), credential.own_name.as_str().into());
    }
    if let Some(content) = &outgoing.body {
        // It is only compared, so the white space of JSON does not matter.
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

/// A body in recorded form: JSON if that gives the same bytes back, else text, else base64.
pub fn body(content: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(content) else {
        return json!({ BASE64: BASE64_STANDARD.encode(content) });
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) if (value.is_object() || value.is_array()) && bytes(&value) == content => value,
        _ => text.into(),
    }
}

/// The bytes of a body in recorded form.
pub fn bytes(body: &Value) -> Vec<u8> {
    match body {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => match other.get(BASE64).and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok()) {
            Some(bytes) => bytes,
            None => other.to_string().into_bytes(),
        },
    }
}

/// Changes every text in a value.
pub(super) fn each_text(value: &mut Value, change: &impl Fn(String) -> String) {
    match value {
        Value::String(text) => *text = change(std::mem::take(text)),
        Value::Array(list) => list.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(fields) => fields.values_mut().for_each(|value| each_text(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether an object matches an expected one. Only the fields of the expected object are compared, at any depth; lists must have the
/// same length.
pub fn matches(expected: &Object, actual: &Object) -> bool {
    fn fits(expected: &Value, actual: &Value) -> bool {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => matches(expected, actual),
            (Value::Array(expected), Value::Array(actual)) => {
                expected.len() == actual.len()
                    && expected.iter().zip(actual).all(|(expected, actual)| fits(expected, actual))
            }
            (expected, actual) => expected == actual,
        }
    }
    expected.iter().all(|(key, expected)| actual.get(key).is_some_and(|actual| fits(expected, actual)))
}
