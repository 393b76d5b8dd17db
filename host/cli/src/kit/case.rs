//! A test case: a message, the state around it, and the expected answer.
//!
//! A file contains one case or a list of cases. Everything except `message` (`resolve` for a resolver, `request` for feedback) is
//! optional.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ace::internals::plugin::Namespace;
use ace::internals::plugin::sandbox::exchange::Exchange;
use ace::message::{AddressRecord, Message, Object, without_bom};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::KitError;

/// The maximum size of a file of cases.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The uuid of messages without one, so that the same case is the same message.
const UUID: &str = "00000000-0000-4000-8000-000000000001";
/// The time in cases without one.
const NOW: &str = "2026-01-01T12:00:00Z";

/// One case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case tests, for people.
    pub name: Option<String>,
    /// The message, in edx-ace's JSON form.
    #[serde(default)]
    pub message: Value,
    /// For a resolver, instead of the message.
    pub resolve: Option<Resolve>,
    /// For feedback, instead of the message.
    pub request: Option<IncomingRequest>,
    /// `server.public-url`, for feedback.
    pub public_url: Option<String>,
    /// How to call a plugin that is both: `policy` or `channel`.
    pub ask: Option<Ask>,
    /// The fixed time.
    pub now: Option<Timestamp>,
    /// The seed of random numbers.
    pub seed: Option<u64>,
    /// The key-value entries: bucket, key, value. A string is stored unchanged, any other value as JSON.
    #[serde(default)]
    pub facts: BTreeMap<String, Object>,
    /// Overrides the manifest's `[defaults]`.
    #[serde(default)]
    pub config: Object,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// The keys that verify signatures, by the plugin's names for its credentials; `test-NAME` if it is not given.
    #[serde(default)]
    pub credentials: BTreeMap<String, String>,
    /// For a channel: the rendered files. The content of a file that is not named is its name.
    #[serde(default)]
    pub rendered: BTreeMap<String, String>,
    /// For a channel: the number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// For a channel: the outcomes that earlier attempts noted.
    #[serde(default)]
    pub noted: Vec<AddressRecord>,
    /// The answers to HTTP requests and mails, in this order.
    pub host: Option<Vec<Exchange>>,
    /// The expected answer. Keys that an entry leaves out are not compared.
    pub expect: Option<Value>,
    /// The expected key-value entries afterwards; `null` for a key that does not exist.
    #[serde(default)]
    pub facts_after: BTreeMap<String, Object>,
    /// The file and index of the case, for people.
    #[serde(skip)]
    pub location: String,
}

/// The request to a resolver.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// The message type, in edx-ace's JSON form.
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

/// The request to a plugin that reads feedback.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingRequest {
    #[serde(default = "post")]
    pub method: String,
    /// The path below the plugin's own.
    #[serde(default)]
    pub path: String,
    pub query: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Text, `{"$base64": "…"}`, or a JSON value, which is sent in compact form.
    #[serde(default)]
    pub body: Value,
}

fn post() -> String {
    "POST".to_owned()
}

/// How a plugin is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    Policy,
    Channel,
}

impl From<Ask> for Namespace {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Policy => Namespace::Policy,
            Ask::Channel => Namespace::Channel,
        }
    }
}

impl Case {
    /// The message, with a fixed uuid if it has none. The case of a resolver or of feedback has a placeholder.
    pub fn read_message(&self) -> Result<Message, KitError> {
        let fail = |message: String| KitError::Case { location: self.location.clone(), message };
        if self.resolve.is_some() || self.request.is_some() {
            return Ok(Message::new("no", "message", None));
        }
        let mut message = self.message.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.entry("uuid").or_insert_with(|| UUID.into());
        }
        Message::from_value(message).map_err(|e| fail(format!("message: {e}")))
    }

    /// The time of a case that is not being recorded.
    pub fn fixed_now(&self) -> Timestamp {
        self.now.unwrap_or_else(|| NOW.parse().expect("a moment"))
    }

    /// Its name, or else its location.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.location)
    }
}

/// A file of cases. It keeps the document, so that recorded values can be written back.
pub struct Table {
    pub file: PathBuf,
    document: Value,
    pub cases: Vec<Case>,
}

impl Table {
    /// Reads a file of cases. A message alone is a case, too.
    pub fn read(file: &Path) -> Result<Table, KitError> {
        let text = read_bounded(file).map_err(|source| KitError::File { file: file.to_owned(), source })?;
        let shown = file.display();
        let fail = |location: String, message: String| KitError::Case { location, message };
        let document: Value = serde_json::from_slice(without_bom(text.as_bytes()))
            .map_err(|e| fail(shown.to_string(), format!("not JSON: {e}")))?;
        let entries = match &document {
            Value::Array(entries) => entries.iter().enumerate().map(|(n, e)| (format!("{shown}[{n}]"), e)).collect(),
            one => vec![(shown.to_string(), one)],
        };
        let mut cases = Vec::new();
        for (location, entry) in entries {
            cases.push(read_case(location.clone(), entry).map_err(|message| fail(location, message))?);
        }
        Ok(Table { file: file.to_owned(), document, cases })
    }

    /// Sets fields of a case. A message alone is turned into a case first.
    pub fn set(&mut self, index: usize, fields: Object) {
        let entry = match &mut self.document {
            Value::Array(entries) => &mut entries[index],
            one => one,
        };
        if !has_subject(entry) {
            let message = std::mem::take(entry);
            *entry = Value::Object(Object::from_iter([("message".to_owned(), message)]));
        }
        if let Some(entry) = entry.as_object_mut() {
            entry.extend(fields);
        }
    }

    /// The current text of the file.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.document).expect("JSON was read, so it can be written");
        text.push('\n');
        text
    }
}

fn read_case(location: String, entry: &Value) -> Result<Case, String> {
    if !entry.is_object() {
        return Err("a case is an object: {\"message\": {…}, \"expect\": …}".to_owned());
    }
    if entry.get("message").is_none() && entry.get("app_label").is_some() {
        return Ok(Case { message: entry.clone(), location, ..Case::default() });
    }
    let case: Result<Case, _> = serde_path_to_error::deserialize(entry);
    let case = case.map_err(|e| match e.path().to_string().as_str() {
        "." => e.inner().to_string(),
        path => format!("{path}: {}", e.inner()),
    })?;
    // Checked after the fields, so that a misspelled one is reported first.
    if !has_subject(entry) {
        return Err("missing field `message` (or, for a resolver, `resolve`, or, for feedback, `request`)".to_owned());
    }
    Ok(Case { location, ..case })
}

/// Whether a case says what the plugin is called with.
fn has_subject(entry: &Value) -> bool {
    ["message", "resolve", "request"].iter().any(|field| entry.get(field).is_some())
}

fn read_bounded(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("the file is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Whether an answer is as expected. Both must have the same kind of answer and the same lists; keys that an expected entry leaves
/// out are not compared.
pub fn agrees(expected: &Value, actual: &Value) -> bool {
    let keys = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(given)) => {
            let (mut wanted_keys, mut keys) = (keys(expected), keys(actual));
            wanted_keys.iter_mut().chain(keys.iter_mut()).for_each(|keys| keys.sort());
            wanted_keys == keys && ace::internals::plugin::sandbox::exchange::matches(wanted, given)
        }
        (expected, actual) => expected == actual,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(text: &str) -> Result<Table, KitError> {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("cases.json");
        std::fs::write(&file, text).expect("written");
        Table::read(&file)
    }

    #[test]
    fn a_file_holds_one_case_a_list_or_a_message_alone() {
        let message =
            json!({"app_label": "app", "name": "note", "recipient": {"lms_user_id": 7, "email_address": "a@b.c"}});
        assert_eq!(table(&message.to_string()).expect("read").cases[0].message, message);
        let case = json!({"message": message, "expect": "pass"});
        assert_eq!(table(&case.to_string()).expect("read").cases.len(), 1);
        let cases = table(&json!([case, case]).to_string()).expect("read").cases;
        assert!(cases[1].location.ends_with("cases.json[1]"), "{}", cases[1].location);
        let uuid = cases[0].read_message().expect("a message").uuid;
        assert_eq!(uuid, cases[1].read_message().expect("a message").uuid);
    }

    #[test]
    fn errors_name_their_location() {
        for (text, words) in [
            ("{", "not JSON"),
            ("7", "a case is an object"),
            ("[{\"expect\": \"pass\"}]", "cases.json[0]: missing field `message`"),
            ("{\"message\": {}, \"expects\": 1}", "unknown field `expects`"),
            ("{\"message\": {}, \"now\": \"noon\"}", "now: "),
            ("{\"message\": {}, \"host\": [{\"http\": {\"request\": {}, \"answer\": {\"code\": 1}}}]}", "host[0].http"),
        ] {
            let error = table(text).err().expect(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let error =
            table("{\"message\": {\"name\": 1}}").expect("read").cases[0].read_message().expect_err("no message");
        assert!(error.to_string().contains("cases.json: message: "), "{error}");
    }

    #[test]
    fn an_expectation_names_all_lists_and_may_leave_out_keys() {
        let actual = json!({"deny": [{"channel_type": "email", "reason": "opted out"}]});
        assert!(agrees(&json!({"deny": [{"channel_type": "email"}]}), &actual));
        assert!(agrees(&actual, &actual));
        for other in [
            json!("pass"),
            json!({}),
            json!({"deny": []}),
            json!({"deny": [{"channel_type": "push"}]}),
            json!({"deny": [{"channel_type": "email"}], "delay": []}),
        ] {
            assert!(!agrees(&other, &actual), "{other}");
        }
    }

    #[test]
    fn recorded_values_are_written_back() {
        let mut one = table("{\"app_label\": \"app\", \"name\": \"note\"}").expect("read");
        one.set(0, Object::from_iter([("expect".to_owned(), "pass".into())]));
        let written: Value = serde_json::from_str(&one.text()).expect("JSON");
        assert_eq!(written, json!({"message": {"app_label": "app", "name": "note"}, "expect": "pass"}));
    }
}
