//! A case of a plugin's table: a message and the state of the world, and what the plugin is expected to answer.
//!
//! A file holds one case or a list of them. Everything but `message` (`resolve` for a resolver) may be left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ace::internals::plugin::Namespace;
use ace::internals::plugin::sandbox::exchange::Exchange;
use ace::message::{Message, Object, without_bom};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::KitError;

/// The longest file of cases.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The uuid of a message that gives none, so that the same case is the same message.
const UUID: &str = "00000000-0000-4000-8000-000000000001";
/// The time of day where a case gives none: the same on every day.
const NOW: &str = "2026-01-01T12:00:00Z";

/// One case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about, for people.
    pub name: Option<String>,
    /// edx-ace's JSON form.
    #[serde(default)]
    pub message: Value,
    /// For a resolver, in the place of the message.
    pub resolve: Option<Resolve>,
    /// `policy` or `channel`, for a plugin that is both.
    pub ask: Option<Ask>,
    /// The time of day, which stands still.
    pub now: Option<Timestamp>,
    /// What random numbers are made of.
    pub seed: Option<u64>,
    /// What the buckets hold: bucket, key, value. A text is stored as it is, anything else as JSON.
    #[serde(default)]
    pub facts: BTreeMap<String, Object>,
    /// Overrides the manifest's `[defaults]`.
    #[serde(default)]
    pub config: Object,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// For a channel: the rendered files. One that is left out holds its own name.
    #[serde(default)]
    pub rendered: BTreeMap<String, String>,
    /// For a channel: which attempt it is, from 1.
    pub attempt: Option<u32>,
    /// What HTTP and mail answer, in this order.
    pub host: Option<Vec<Exchange>>,
    /// What the plugin answers. What it leaves out of an entry is not compared.
    pub expect: Option<Value>,
    /// What buckets hold afterwards; `null` where nothing is.
    #[serde(default)]
    pub facts_after: BTreeMap<String, Object>,
    /// Where it stands, for people.
    #[serde(skip)]
    pub place: String,
}

/// What a resolver is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// edx-ace's JSON form of a message type.
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

/// What a plugin is asked as.
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
    /// The message, with a fixed uuid where it gives none. Of a resolver's case it means nothing.
    pub fn read_message(&self) -> Result<Message, KitError> {
        let fail = |message: String| KitError::Case { place: self.place.clone(), message };
        if self.resolve.is_some() {
            return Ok(Message::new("resolve", "resolve", None));
        }
        let mut message = self.message.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.entry("uuid").or_insert_with(|| UUID.into());
        }
        Message::from_value(message).map_err(|e| fail(format!("message: {e}")))
    }

    /// The time of day of a case that is not recorded.
    pub fn fixed_now(&self) -> Timestamp {
        self.now.unwrap_or_else(|| NOW.parse().expect("a moment"))
    }

    /// Its name, else the place it stands at.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.place)
    }
}

/// A file of cases as it stands, so that what is recorded goes back into it.
pub struct Table {
    pub file: PathBuf,
    document: Value,
    pub cases: Vec<Case>,
}

impl Table {
    /// Reads a file of cases. One that holds a message alone is a case of it.
    pub fn read(file: &Path) -> Result<Table, KitError> {
        let text = read_bounded(file).map_err(|source| KitError::File { file: file.to_owned(), source })?;
        let shown = file.display();
        let fail = |place: String, message: String| KitError::Case { place, message };
        let document: Value = serde_json::from_slice(without_bom(text.as_bytes()))
            .map_err(|e| fail(shown.to_string(), format!("not JSON: {e}")))?;
        let entries = match &document {
            Value::Array(entries) => entries.iter().enumerate().map(|(n, e)| (format!("{shown}[{n}]"), e)).collect(),
            one => vec![(shown.to_string(), one)],
        };
        let mut cases = Vec::new();
        for (place, entry) in entries {
            cases.push(read_case(place.clone(), entry).map_err(|message| fail(place, message))?);
        }
        Ok(Table { file: file.to_owned(), document, cases })
    }

    /// Sets fields of a case. Those of a message that stands alone make it a case.
    pub fn set(&mut self, index: usize, fields: Object) {
        let entry = match &mut self.document {
            Value::Array(entries) => &mut entries[index],
            one => one,
        };
        if entry.get("message").is_none() && entry.get("resolve").is_none() {
            let message = std::mem::take(entry);
            *entry = Value::Object(Object::from_iter([("message".to_owned(), message)]));
        }
        if let Some(entry) = entry.as_object_mut() {
            entry.extend(fields);
        }
    }

    /// The text of the file as it is now.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.document).expect("JSON was read, so it can be written");
        text.push('\n');
        text
    }
}

fn read_case(place: String, entry: &Value) -> Result<Case, String> {
    if !entry.is_object() {
        return Err("a case is an object: {\"message\": {…}, \"expect\": …}".to_owned());
    }
    if entry.get("message").is_none() && entry.get("app_label").is_some() {
        return Ok(Case { message: entry.clone(), place, ..Case::default() });
    }
    let case: Result<Case, _> = serde_path_to_error::deserialize(entry);
    let case = case.map_err(|e| match e.path().to_string().as_str() {
        "." => e.inner().to_string(),
        path => format!("{path}: {}", e.inner()),
    })?;
    // After the fields are known, so that a misspelt one is named first.
    if entry.get("message").is_none() && entry.get("resolve").is_none() {
        return Err("missing field `message` (or, for a resolver, `resolve`)".to_owned());
    }
    Ok(Case { place, ..case })
}

fn read_bounded(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Whether an answer is as expected. Both name the same kind of answer and the same lists; within an entry, what the
/// expectation leaves out is not compared.
pub fn agrees(expected: &Value, actual: &Value) -> bool {
    let keys = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(is)) => {
            let (mut wanted_keys, mut keys) = (keys(expected), keys(actual));
            wanted_keys.iter_mut().chain(keys.iter_mut()).for_each(|keys| keys.sort());
            wanted_keys == keys && ace::internals::plugin::sandbox::exchange::matches(wanted, is)
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
        assert!(cases[1].place.ends_with("cases.json[1]"), "{}", cases[1].place);
        let uuid = cases[0].read_message().expect("a message").uuid;
        assert_eq!(uuid, cases[1].read_message().expect("a message").uuid);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
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
    fn an_expectation_names_all_lists_and_leaves_out_what_does_not_matter() {
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
    fn what_is_recorded_goes_back_into_the_file() {
        let mut one = table("{\"app_label\": \"app\", \"name\": \"note\"}").expect("read");
        one.set(0, Object::from_iter([("expect".to_owned(), "pass".into())]));
        let written: Value = serde_json::from_str(&one.text()).expect("JSON");
        assert_eq!(written, json!({"message": {"app_label": "app", "name": "note"}, "expect": "pass"}));
    }
}
