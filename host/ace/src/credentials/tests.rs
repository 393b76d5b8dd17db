//! Credentials of each kind, in requests that are never sent.

mod logs;
mod refresh_tokens;
mod requests;
mod server;
mod signatures;
mod tokens;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::*;
use crate::config::Config;

/// A key of the curve P-256 that nobody trusts.
const EC_KEY: &str = include_str!("tests/ec.pem");

/// The secrets of all tests, by their variables.
const ENV: [(&str, &str); 7] = [
    ("TOKEN", "s3cret-one"),
    ("OLD_TOKEN", "s3cret-two"),
    ("URL_PART", "T00/B00/s3cret%2Bone"),
    ("BASE64_KEY", "whsec_czNjcmV0LW9uZQ=="),
    ("HEX_KEY", "73336372"),
    ("EC_KEY", EC_KEY),
    ("AWS_KEY", "s3cret-aws/key+of=40-characters-in-all"),
];

/// 2026-11-30T12:00:00Z
const START: Timestamp = Timestamp::constant(1_796_040_000, 0);

thread_local! {
    static NOW: Cell<Timestamp> = const { Cell::new(START) };
}

/// The clock of a test, which has a thread of its own.
fn now() -> Timestamp {
    NOW.get()
}

fn pass(time: SignedDuration) {
    NOW.set(NOW.get() + time);
}

fn definitions(text: &str) -> BTreeMap<String, Credential> {
    let env = ENV.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::read(text, None, env).unwrap_or_else(|problems| panic!("{problems}\n{text}")).credentials
}

/// The credentials of a text.
fn credentials(text: &str) -> Credentials {
    credentials_in(text, Arc::new(MemoryStore::default()))
}

/// The credentials of a process that has this store.
fn credentials_in(text: &str, store: Arc<dyn TokenStore>) -> Credentials {
    credentials_with(text, store, &config::Http { timeout: Duration::from_secs(10), ..config::Http::default() })
}

/// The same with these settings for requests.
fn credentials_with(text: &str, store: Arc<dyn TokenStore>, http: &config::Http) -> Credentials {
    Credentials::new(&definitions(text), http, Surroundings { now, store })
}

/// A store of one test.
#[derive(Default)]
struct MemoryStore {
    entries: Mutex<BTreeMap<String, (Secret, Option<Timestamp>)>>,
    is_broken: AtomicBool,
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn get(&self, name: &str, now: Timestamp) -> Result<Option<Secret>, String> {
        let found = self.entries.lock().unwrap().get(name).cloned();
        Ok(found.filter(|(_, end)| end.is_none_or(|end| now < end)).map(|(value, _)| value))
    }

    async fn put(&self, name: &str, value: &Secret, ttl: Option<Duration>, now: Timestamp) -> Result<(), String> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err("the disk is full".to_owned());
        }
        let end = ttl.map(|ttl| now + ttl);
        self.entries.lock().unwrap().insert(name.to_owned(), (value.clone(), end));
        Ok(())
    }
}

/// A request, and what becomes of it.
struct Sent {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    fn new(url: &str) -> Self {
        Sent { method: Method::POST, url: url.parse().expect("a URL"), headers: HeaderMap::new(), body: b"{}".to_vec() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header"));
        self
    }

    /// Authorizes the request with the credential `c`, which the plugin calls `mine`.
    async fn authorize(&mut self, credentials: &Credentials) -> Result<Authorized, Refusal> {
        let Sent { method, url, headers, body } = self;
        credentials.authorize("c", Request { own_name: "mine", method, url, headers, body }).await
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// The credential `c` of a kind, with further keys.
fn one(kind: &str, keys: &str) -> String {
    format!("[credentials.c]\nkind = '{kind}'\nurls = ['https://api.example/v1/']\n{keys}\n")
}
