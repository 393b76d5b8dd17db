//! A plugin tried by its author: what stands in for the world around it, and what is seen of its calls.
//!
//! The clock and the random numbers can be fixed; HTTP and mail are either the world's, and written down, or answered from
//! what was written down. Everything else is the host that serves.

pub mod exchange;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, WasiCtxBuilder};

use crate::mailer;
use crate::message::Object;
use crate::plugin::http::{Answer as Response, Failure, FailureKind, Outgoing};
use crate::plugin::runtime::world::{Course, Usage, World};
use exchange::{Exchange, matches};

/// Random bytes made of one seed; then they repeat.
const RANDOM_BYTES: usize = 4 * 1024;
/// What each look at the fixed monotonic clock adds, in nanoseconds.
const MONOTONIC_STEP_NS: u64 = 1_000;
/// Lines of logs and of the trace that a sandbox keeps.
const LINES_MAX: usize = 10_000;

/// What stands in for the world, and what was seen. One sandbox is for one test or one run.
pub struct Sandbox {
    /// The time of day, which stands still. `None`: the real one.
    pub now: Option<Timestamp>,
    /// What random numbers are made of. `None`: real ones.
    pub seed: Option<u64>,
    /// What HTTP and mail answer. `None`: the world does.
    script: Option<Script>,
    /// Mail is taken and goes nowhere.
    pub catches_mail: bool,
    /// Never written down.
    secrets: Vec<String>,
    random: OnceLock<Vec<u8>>,
    seen: Mutex<Seen>,
}

/// What was written down.
struct Script {
    all: Vec<Exchange>,
    left: Mutex<VecDeque<Exchange>>,
}

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Seen {
    /// What the plugin logged.
    pub logs: Vec<Line>,
    /// Calls into the host, one line each, as far as they reach for something.
    pub trace: Vec<String>,
    /// What it exchanged with the outside.
    #[serde(skip)]
    pub exchanges: Vec<Exchange>,
    /// Calls that the script has no answer to.
    #[serde(skip)]
    pub unexpected: Vec<String>,
    /// Of the latest call.
    pub usage: Usage,
}

/// A line a guest logged.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// error, warn, info or debug.
    pub level: &'static str,
    /// The line.
    pub text: String,
}

impl Sandbox {
    /// The real world, watched.
    pub fn watching(secrets: Vec<String>) -> Self {
        Sandbox {
            now: None,
            seed: None,
            script: None,
            catches_mail: false,
            secrets,
            random: OnceLock::new(),
            seen: Mutex::default(),
        }
    }

    /// HTTP and mail answer what was written down, in this order, and nothing leaves.
    pub fn replaying(exchanges: Vec<Exchange>, secrets: Vec<String>) -> Self {
        let left = Mutex::new(exchanges.clone().into());
        Sandbox { script: Some(Script { all: exchanges, left }), ..Sandbox::watching(secrets) }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// What was written down and not asked for.
    pub fn left_over(&self) -> Vec<Exchange> {
        self.script.iter().flat_map(|script| script.left().clone()).collect()
    }

    /// Forgets what was seen, and begins the script anew.
    pub fn rewind(&self) {
        *self.lock() = Seen::default();
        if let Some(script) = &self.script {
            *script.left() = script.all.clone().into();
        }
    }

    /// The next of what was written down, if it is this request.
    fn scripted(&self, request: &Object, asks: impl Fn(&Exchange) -> Option<&Object>) -> Scripted {
        let Some(script) = &self.script else { return Scripted::World };
        let mut script = script.left();
        let fits = script.front().and_then(&asks).is_some_and(|wanted| matches(wanted, request));
        if fits && let Some(next) = script.pop_front() {
            return Scripted::Answer(next);
        }
        let asked = serde_json::to_string(request).unwrap_or_default();
        let why = match script.front().and_then(asks) {
            Some(wanted) => {
                format!("the case expects {} next, not {asked}", serde_json::to_string(wanted).unwrap_or_default())
            }
            None => format!("the case has no answer to {asked}"),
        };
        self.lock().unexpected.push(why.clone());
        Scripted::Nothing(why)
    }

    fn clean(&self, mut request: Object) -> Object {
        request.values_mut().for_each(|value| exchange::each_text(value, &|text| self.redact(text)));
        request
    }

    fn redact(&self, text: String) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), "[secret]"))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World for Sandbox {
    fn now(&self) -> Option<Timestamp> {
        self.now
    }

    /// Puts the fixed clock and random numbers in the place of the real ones.
    fn prepare(&self, wasi: &mut WasiCtxBuilder) {
        if self.now.is_some() {
            wasi.monotonic_clock(Steps(AtomicU64::new(0)));
        }
        if let Some(seed) = self.seed {
            let random = self.random.get_or_init(|| random_bytes(seed));
            wasi.secure_random(Deterministic::new(random.clone()))
                .insecure_random(Deterministic::new(random.clone()))
                .insecure_random_seed(u128::from(seed));
        }
    }

    fn logged(&self, level: &'static str, text: &str) {
        let mut seen = self.lock();
        if seen.logs.len() < LINES_MAX {
            seen.logs.push(Line { level, text: text.to_owned() });
        }
    }

    fn traced(&self, line: &dyn Fn() -> String) {
        let mut seen = self.lock();
        if seen.trace.len() < LINES_MAX {
            let line = self.redact(line());
            seen.trace.push(line);
        }
    }

    fn used(&self, usage: &mut dyn FnMut() -> Usage) {
        let usage = usage();
        self.lock().usage = usage;
    }

    fn http(&self, outgoing: &Outgoing) -> Course<Result<Response, Failure>> {
        let request = self.clean(exchange::http_request(outgoing));
        self.traced(&|| format!("http {} {}", outgoing.method, outgoing.url));
        let answer = match self.scripted(&request, |e| e.http_request()) {
            Scripted::World => return Course::Watched(request),
            Scripted::Nothing(why) => Err(Failure { status: None, kind: FailureKind::Unconnected(why) }),
            Scripted::Answer(Exchange::Http { answer, .. }) => answer.into_outcome(),
            Scripted::Answer(Exchange::Mail { .. }) => unreachable!("the script was asked for HTTP"),
        };
        self.http_answered(request, &answer);
        Course::Answered(answer)
    }

    fn http_answered(&self, request: Object, answer: &Result<Response, Failure>) {
        let answer = exchange::HttpAnswer::of(answer, |text| self.redact(text));
        self.lock().exchanges.push(Exchange::Http { request, answer });
    }

    fn mail(&self, email: &mailer::Email, message_id: &str) -> Course<Result<mailer::Accepted, mailer::MailError>> {
        let request = self.clean(exchange::mail_request(email));
        self.traced(&|| format!("mailer.send {:?} to {}", email.subject, email.recipients.join(", ")));
        let answer = match self.scripted(&request, |e| e.mail_request()) {
            Scripted::World if self.catches_mail => exchange::MailAnswer::caught().into_outcome(message_id),
            Scripted::World => return Course::Watched(request),
            Scripted::Nothing(message) => Err(mailer::MailError::temporary(message)),
            Scripted::Answer(Exchange::Mail { answer, .. }) => answer.into_outcome(message_id),
            Scripted::Answer(Exchange::Http { .. }) => unreachable!("the script was asked for mail"),
        };
        self.mail_answered(request, &answer);
        Course::Answered(answer)
    }

    fn mail_answered(&self, request: Object, answer: &Result<mailer::Accepted, mailer::MailError>) {
        let answer = exchange::MailAnswer::of(answer);
        self.lock().exchanges.push(Exchange::Mail { request, answer });
    }
}

impl Script {
    fn left(&self) -> MutexGuard<'_, VecDeque<Exchange>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Scripted {
    World,
    Nothing(String),
    Answer(Exchange),
}

/// A monotonic clock that shows how often it was looked at.
struct Steps(AtomicU64);

impl HostMonotonicClock for Steps {
    fn resolution(&self) -> u64 {
        MONOTONIC_STEP_NS
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(MONOTONIC_STEP_NS, Ordering::Relaxed)
    }
}

/// The same for the same seed, on every machine.
fn random_bytes(seed: u64) -> Vec<u8> {
    let block = |n: usize| Sha256::new().chain_update(seed.to_le_bytes()).chain_update(n.to_le_bytes()).finalize();
    (0..RANDOM_BYTES / 32).flat_map(block).collect()
}

#[cfg(test)]
mod tests;
