//! Decodes edx-ace's JSON form and reports all errors of a document at once.
//!
//! Deliberate departures from faults of edx-ace's decoder: a missing `uuid` is generated, times without an offset are UTC, and only
//! the fields of the message are typed, not the values of its context.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Context, DateTime, Headers, Message, MessageType, Object, Recipient, UserId, check_contacts, context, nearest,
    without_bom,
};

/// An error in one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// An RFC 6901 pointer to the field; `""` is the whole document.
    pub path: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl FieldError {
    /// An error at an RFC 6901 pointer.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { path: path.into(), message: message.into() }
    }
}

/// All errors of a document, in the order of its fields.
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

impl Recipient {
    /// Decodes the recipient of a message.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_value(value: Value) -> Result<Self, FieldErrors> {
        decode(value, &Self::FIELDS, Recipient::decode)
    }

    const FIELDS: [&str; 3] = ["lms_user_id", "email_address", "contacts"];

    fn decode(fields: &mut Fields) -> Self {
        Recipient {
            lms_user_id: fields.required("lms_user_id", user_id).unwrap_or_default(),
            email_address: fields.optional("email_address", string),
            contacts: fields.optional("contacts", contacts).unwrap_or_default(),
        }
    }
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

    /// Decodes edx-ace's JSON form.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_json(json: &[u8]) -> Result<Self, FieldErrors> {
        Self::read(json, context::Reader { is_ours: false }, None)
    }

    /// Like [`Message::from_json`], with this uuid for a message without one.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_json_or(json: &[u8], uuid: Option<Uuid>) -> Result<Self, FieldErrors> {
        Self::read(json, context::Reader { is_ours: false }, uuid)
    }

    /// Decodes the result of [`Message::to_json`]. Copies the context without normalizing it again.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_own_json(json: &[u8]) -> Result<Self, FieldErrors> {
        Self::read(json, context::Reader { is_ours: true }, None)
    }

    fn read(json: &[u8], reader: context::Reader, uuid: Option<Uuid>) -> Result<Self, FieldErrors> {
        let json = without_bom(json);
        match document(json, reader) {
            Some((fields, context)) => Self::decode(fields.into(), Some(context), uuid),
            // The document is invalid or unusual. Decode it as a value to report errors with their fields.
            None => Self::decode(parse(json)?, None, uuid),
        }
    }

    /// Like [`Message::from_json`], from a JSON value.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_value(value: Value) -> Result<Self, FieldErrors> {
        Self::decode(value, None, None)
    }

    /// `context` is the context if it is not among the fields.
    fn decode(value: Value, context: Option<Context>, default_uuid: Option<Uuid>) -> Result<Self, FieldErrors> {
        decode(value, &Self::FIELDS, |f| Message {
            app_label: f.required("app_label", label).unwrap_or_default(),
            name: f.required("name", label).unwrap_or_default(),
            recipient: f.required_nullable("recipient", Recipient::decode),
            expiration_time: f.optional("expiration_time", date_time),
            context: f.optional("context", object).map(Context::from).or(context).unwrap_or_default(),
            uuid: f.optional("uuid", uuid).or(default_uuid).unwrap_or_else(Uuid::new_v4),
            send_uuid: f.optional("send_uuid", uuid),
            options: f.optional("options", object).unwrap_or_default(),
            headers: f.optional("headers", headers).unwrap_or_default(),
            language: f.optional("language", string),
            log_level: f.optional("log_level", integer),
        })
    }
}

impl MessageType {
    const FIELDS: [&str; 7] = ["context", "uuid", "expiration_time", "app_label", "name", "options", "log_level"];

    /// Decodes edx-ace's JSON form.
    ///
    /// # Errors
    /// All errors of its fields.
    pub fn from_json(json: &[u8]) -> Result<Self, FieldErrors> {
        let json = without_bom(json);
        match document(json, context::Reader { is_ours: false }) {
            Some((fields, context)) => Self::decode(fields.into(), Some(context)),
            None => Self::decode(parse(json)?, None),
        }
    }

    /// `context` is the context if it is not among the fields.
    fn decode(value: Value, context: Option<Context>) -> Result<Self, FieldErrors> {
        decode(value, &Self::FIELDS, |f| MessageType {
            context: f.optional("context", object).map(Context::from).or(context).unwrap_or_default(),
            uuid: f.optional("uuid", uuid).unwrap_or_else(Uuid::new_v4),
            expiration_time: f.optional("expiration_time", date_time),
            app_label: f.required("app_label", label).unwrap_or_default(),
            name: f.required("name", label).unwrap_or_default(),
            options: f.optional("options", object).unwrap_or_default(),
            log_level: f.optional("log_level", integer),
        })
    }
}

/// The fields of a message and, separately, its context. `None` unless both are objects.
fn document(json: &[u8], reader: context::Reader) -> Option<(Object, Context)> {
    let mut deserializer = serde_json::Deserializer::from_str(std::str::from_utf8(json).ok()?);
    let document = deserializer.deserialize_map(Document(reader)).ok()?;
    deserializer.end().ok().map(|()| document)
}

struct Document(context::Reader);

impl<'de> Visitor<'de> for Document {
    type Value = (Object, Context);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut context) = (Object::with_capacity(Message::FIELDS.len()), Context::default());
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "context" => context = entries.next_value_seed(self.0)?,
                _ => drop(fields.insert(key, entries.next_value()?)),
            }
        }
        Ok((fields, context))
    }
}

fn parse(json: &[u8]) -> Result<Value, FieldErrors> {
    serde_json::from_slice(json).map_err(|_| {
        // The document is invalid: parse it again, more slowly, to find the position.
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

/// The `NaN` or `Infinity` at which parsing stopped. Python writes them, but they are not JSON.
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

/// An object whose fields are decoded one by one, and the errors found.
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
    fields.reject_unknown(known);
    if fields.errors.is_empty() { Ok(built) } else { Err(FieldErrors(fields.errors)) }
}

impl Fields {
    fn fail(&mut self, key: &str, message: impl Into<String>) {
        let path = format!("{}/{}", self.path, escape_pointer(key));
        self.errors.push(FieldError::new(path, message));
    }

    /// The fields that were not decoded are unknown.
    fn reject_unknown(&mut self, known: &[&str]) {
        for key in std::mem::take(&mut self.object).keys() {
            match nearest(key, known.iter().copied()) {
                Some(near) => self.fail(key, format!("unknown field; did you mean {near:?}?")),
                None => self.fail(key, format!("unknown field; the known fields are {}", known.join(", "))),
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        // The order of the remaining fields does not matter.
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
                self.fail(key, "is required (null if the message has no single recipient)");
                None
            }
            Some(Value::Null) => None,
            Some(Value::Object(object)) => {
                let path = format!("{}/{key}", self.path);
                let mut inner = Fields { path, object, errors: Vec::new() };
                let value = read(&mut inner);
                inner.reject_unknown(&Recipient::FIELDS);
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

/// A label is part of template paths, so not every string is valid.
fn label(value: Value) -> Result<String, String> {
    let s = string(value)?;
    let is_valid = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    if s.is_empty() || s.len() > 200 || s.starts_with('.') || !s.chars().all(is_valid) {
        return Err(format!(
            "{s:?} cannot be a template folder: use 1 to 200 bytes without slashes, control characters or a leading dot"
        ));
    }
    Ok(s)
}

fn uuid(value: Value) -> Result<Uuid, String> {
    let s = string(value)?;
    s.parse().map_err(|_| format!("{s:?} is not a uuid"))
}

fn date_time(value: Value) -> Result<DateTime, String> {
    DateTime::parse(&string(value)?).map_err(|e| e.to_string())
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

pub(super) fn user_id(value: Value) -> Result<UserId, String> {
    match value {
        Value::Null => Ok(UserId::None),
        Value::String(s) => Ok(UserId::Text(s)),
        Value::Number(ref n) => {
            n.as_i64().map(UserId::Number).ok_or_else(|| format!("{value} is not a 64-bit integer"))
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
    check_contacts(&out).map(|()| out)
}
