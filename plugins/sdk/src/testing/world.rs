//! The simulated host of a case.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::case::{Case, Exchange, MailAnswer, Object, matches, written};
use super::manifest::{Manifest, Requests};
use crate::delivery::Note;

/// The number of random bytes from a seed before they repeat.
const RANDOM_BYTES: usize = 4 * 1024;

/// The state of the simulated host functions.
pub struct World {
    config: Object,
    secrets: BTreeMap<String, String>,
    /// The keys that verify signatures.
    credentials: BTreeMap<String, String>,
    requests: Requests,
    facts: BTreeMap<(String, String), Vec<u8>>,
    /// The numbers of counted tokens, by bucket, key and token.
    tokens: BTreeMap<(String, String, String), i64>,
    /// The taken places by bucket and key: tokens and times.
    places: BTreeMap<(String, String), BTreeMap<String, u64>>,
    public_url: Option<String>,
    now: Timestamp,
    random: Vec<u8>,
    random_at: usize,
    host: VecDeque<Exchange>,
    /// Whether a request must have no other headers than a case lists.
    pub has_exact_headers: bool,
    files: BTreeSet<String>,
    /// The idempotency key during a delivery.
    pub delivery_key: Option<String>,
    /// The notes of earlier attempts.
    noted: Vec<Note>,
    /// The notes of this attempt, and its hold.
    outcomes: Vec<Value>,
    hold: Option<Value>,
    /// Unexpected calls.
    pub unexpected: Vec<String>,
    pub logs: Vec<String>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Sets the simulated host of this thread.
pub fn enter(world: World) {
    WORLD.with_borrow_mut(|around| *around = Some(world));
}

/// Accesses the simulated host of this thread.
pub fn with<T>(access: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|around| {
        access(around.as_mut().expect("a host function was called outside of a case; use table_test!"))
    })
}

impl World {
    pub fn new(manifest: &Manifest, case: &Case) -> Result<Self, String> {
        let mut config = manifest.defaults.clone();
        config.extend(case.config.clone());
        let mut secrets = manifest.requests.secrets();
        secrets.extend(case.secrets.clone());
        let mut credentials = manifest.requests.credentials();
        credentials.extend(case.credentials.clone());
        let facts = case.facts.iter().flat_map(|(bucket, facts)| {
            facts.iter().map(|(key, value)| ((bucket.clone(), key.clone()), text(value).into_bytes()))
        });
        Ok(World {
            config,
            secrets,
            credentials,
            requests: manifest.requests.clone(),
            facts: facts.collect(),
            tokens: BTreeMap::new(),
            places: BTreeMap::new(),
            public_url: case.public_url.clone(),
            now: case.now()?,
            random: random_bytes(case.seed.unwrap_or_default()),
            random_at: 0,
            host: case.host.clone(),
            has_exact_headers: false,
            files: BTreeSet::new(),
            delivery_key: None,
            noted: case.noted.clone(),
            outcomes: Vec::new(),
            hold: None,
            unexpected: Vec::new(),
            logs: Vec::new(),
        })
    }

    /// The values of the requested keys.
    pub fn facts(&self, requested: &BTreeMap<String, Object>) -> Value {
        let value = |bucket: &str, key: &str, wanted: &Value| {
            let held = self.facts.get(&(bucket.to_owned(), key.to_owned()));
            let text = held.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            text.map_or(Value::Null, |text| match serde_json::from_str(&text) {
                Ok(json) if !wanted.is_string() => json,
                _ => text.into(),
            })
        };
        let bucket = |(bucket, keys): (&String, &Object)| {
            let held = keys.iter().map(|(key, wanted)| (key.clone(), value(bucket, key, wanted)));
            (bucket.clone(), Value::Object(held.collect()))
        };
        Value::Object(requested.iter().map(bucket).collect())
    }

    /// Adds the notes and the hold of a delivery to its answer.
    pub fn add_notes(&self, answer: &mut Value) {
        if !self.outcomes.is_empty() {
            answer["outcomes"] = self.outcomes.clone().into();
        }
        self.hold.iter().for_each(|hold| answer["hold"] = hold.clone());
    }

    /// The number of expected requests that were not made.
    pub fn left_over(&self) -> usize {
        self.host.len()
    }

    /// Replaces secrets by `[secret]`, as the host does in answers and recordings.
    pub fn redact(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for secret in self.secrets.values().filter(|secret| !secret.is_empty()) {
                    *text = text.replace(secret.as_str(), "[secret]");
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.redact(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.redact(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn random_byte(&mut self) -> u8 {
        let byte = self.random[self.random_at];
        self.random_at = (self.random_at + 1) % self.random.len();
        byte
    }

    /// The next answer of the case, if it matches this request.
    fn next_answer(&mut self, kind: &str, mut request: Value) -> Result<Exchange, String> {
        self.redact(&mut request);
        let fits = match (self.host.front(), request.as_object()) {
            (Some(Exchange::Http { request: wanted, .. }), Some(is)) => {
                kind == "http" && matches(wanted, is) && (!self.has_exact_headers || has_same_headers(wanted, is))
            }
            (Some(Exchange::Mail { request: wanted, .. }), Some(is)) => kind == "mail" && matches(wanted, is),
            _ => false,
        };
        if fits && let Some(next) = self.host.pop_front() {
            return Ok(next);
        }
        let why = match self.host.front() {
            Some(Exchange::Http { request: wanted, .. } | Exchange::Mail { request: wanted, .. }) => {
                format!("the case expects {} next, not {request}", Value::Object(wanted.clone()))
            }
            None => format!(
                "the case has no answer to {request}; `ace plugin test --record` writes down what the world answers"
            ),
        };
        self.unexpected.push(why.clone());
        Err(why)
    }
}

/// Whether a request has no headers besides the expected ones, all of which it has.
fn has_same_headers(wanted: &Object, is: &Object) -> bool {
    let count = |request: &Object| request.get("headers").and_then(Value::as_object).map(Object::len);
    count(wanted).is_none_or(|wanted| count(is) == Some(wanted))
}

/// A string without quotes, any other value as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The random bytes of a seed, the same as in `ace plugin test`.
fn random_bytes(seed: u64) -> Vec<u8> {
    let block = |n: usize| Sha256::new().chain_update(seed.to_le_bytes()).chain_update(n.to_le_bytes()).finalize();
    (0..RANDOM_BYTES / 32).flat_map(block).collect()
}

pub mod imports;

/// The message of a case.
pub fn message(case: &Case) -> Result<crate::Message, String> {
    Ok(crate::Message::new(imports::messages::Message(case.message()?)))
}

/// A recipient of a page in the form of a case.
pub fn recipient(recipient: &crate::Recipient) -> Value {
    let id = match (recipient.lms_user_id, &recipient.user_id) {
        (Some(number), _) => number.into(),
        (None, Some(text)) => text.as_str().into(),
        (None, None) => Value::Null,
    };
    let mut fields = json!({"lms_user_id": id, "email_address": recipient.email_address});
    if !recipient.contacts.is_empty() {
        let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        recipient.contacts.iter().for_each(|(kind, address)| by_kind.entry(kind).or_default().push(address));
        fields["contacts"] = json!(by_kind);
    }
    fields
}
