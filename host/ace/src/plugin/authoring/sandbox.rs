//! The sandbox of `ace plugin run` and `ace plugin test`, which replaces the outside world and records a plugin's calls.
//!
//! Clock and random numbers can be fixed. HTTP and mail are either real, and recorded, or answered from a script. Everything else is
//! the same as in a server.

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
use crate::plugin::runtime::world::{Interception, Usage, World};
use exchange::{Exchange, matches};

/// Random bytes from one seed, before they repeat.
const RANDOM_BYTES: usize = 4 * 1024;
/// How much the fixed monotonic clock advances with each reading, in nanoseconds.
const MONOTONIC_STEP_NS: u64 = 1_000;
/// The most lines of logs, and of the trace, that a sandbox records.
const LINES_MAX: usize = 10_000;

/// Replaces the outside world and records calls. One sandbox is for one test or one run.
pub struct Sandbox {
    /// The current time, which stands still. `None`: the real one.
    pub now: Option<Timestamp>,
    /// The seed of random numbers. `None`: real ones.
    pub seed: Option<u64>,
    /// The answers of HTTP and mail. `None`: the real ones.
    script: Option<Script>,
    /// Accepts mail without sending it.
    pub catches_mail: bool,
    /// Never recorded.
    secrets: Vec<String>,
    random: OnceLock<Vec<u8>>,
    recording: Mutex<Recording>,
}

/// Recorded exchanges that answer requests.
struct Script {
    all: Vec<Exchange>,
    remaining: Mutex<VecDeque<Exchange>>,
}

/// What a sandbox recorded.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recording {
    /// The lines that the plugin logged.
    pub logs: Vec<Line>,
    /// Host calls that access something, one line each.
    pub trace: Vec<String>,
    /// Requests to the outside world, and their answers.
    #[serde(skip)]
    pub exchanges: Vec<Exchange>,
    /// Requests that the script has no answer for.
    #[serde(skip)]
    pub unexpected: Vec<String>,
    /// The resources that the latest call used.
    pub usage: Usage,
}

/// A line that a guest logged.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// error, warn, info or debug.
    pub level: &'static str,
    /// The line.
    pub text: String,
}

impl Sandbox {
    /// A sandbox that lets requests through and records them.
    pub fn observing(secrets: Vec<String>) -> Self {
        Sandbox {
            now: None,
            seed: None,
            script: None,
            catches_mail: false,
            secrets,
            random: OnceLock::new(),
            recording: Mutex::default(),
        }
    }

    /// A sandbox that answers HTTP and mail with these exchanges, in this order, and sends nothing.
    pub fn replaying(exchanges: Vec<Exchange>, secrets: Vec<String>) -> Self {
        let remaining = Mutex::new(exchanges.clone().into());
        Sandbox { script: Some(Script { all: exchanges, remaining }), ..Sandbox::observing(secrets) }
    }

    /// What was recorded so far.
    pub fn recording(&self) -> Recording {
        self.lock().clone()
    }

    /// The exchanges of the script that were not requested.
    pub fn unused(&self) -> Vec<Exchange> {
        self.script.iter().flat_map(|script| script.remaining().clone()).collect()
    }

    /// Clears the recording, and restarts the script.
    pub fn rewind(&self) {
        *self.lock() = Recording::default();
        if let Some(script) = &self.script {
            *script.remaining() = script.all.clone().into();
        }
    }

    /// The next exchange of the script, if its request matches.
    fn scripted(&self, request: &Object, expected: impl Fn(&Exchange) -> Option<&Object>) -> Scripted {
        let Some(script) = &self.script else { return Scripted::PassThrough };
        let mut script = script.remaining();
        let fits = script.front().and_then(&expected).is_some_and(|wanted| matches(wanted, request));
        if fits && let Some(next) = script.pop_front() {
            return Scripted::Answer(next);
        }
        let requested = serde_json::to_string(request).unwrap_or_default();
        let why = match script.front().and_then(expected) {
            Some(wanted) => {
                format!("the case expects {} next, not {requested}", serde_json::to_string(wanted).unwrap_or_default())
            }
            None => format!("the case has no answer to {requested}"),
        };
        self.lock().unexpected.push(why.clone());
        Scripted::Missing(why)
    }

    fn clean(&self, mut request: Object) -> Object {
        request.values_mut().for_each(|value| exchange::each_text(value, &|text| self.redact(text)));
        request
    }

    fn redact(&self, text: String) -> String {
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), "[secret]"))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World for Sandbox {
    fn now(&self) -> Option<Timestamp> {
        self.now
    }

    /// Replaces the clock and random numbers, if they are fixed.
    fn prepare(&self, wasi: &mut WasiCtxBuilder) {
        if self.now.is_some() {
            wasi.monotonic_clock(SteppingClock(AtomicU64::new(0)));
        }
        if let Some(seed) = self.seed {
            let random = self.random.get_or_init(|| random_bytes(seed));
            wasi.secure_random(Deterministic::new(random.clone()))
                .insecure_random(Deterministic::new(random.clone()))
                .insecure_random_seed(u128::from(seed));
        }
    }

    fn logged(&self, level: &'static str, text: &str) {
        let mut recording = self.lock();
        if recording.logs.len() < LINES_MAX {
            recording.logs.push(Line { level, text: text.to_owned() });
        }
    }

    fn traced(&self, line: &dyn Fn() -> String) {
        let mut recording = self.lock();
        if recording.trace.len() < LINES_MAX {
            let line = self.redact(line());
            recording.trace.push(line);
        }
    }

    fn used(&self, usage: &mut dyn FnMut() -> Usage) {
        let usage = usage();
        self.lock().usage = usage;
    }

    /// A script answers requests whatever their credentials are.
    fn has_credentials(&self) -> bool {
        self.script.is_none()
    }

    fn http(&self, outgoing: &Outgoing) -> Interception<Result<Response, Failure>> {
        let request = self.clean(exchange::http_request(outgoing));
        self.traced(&|| format!("http {} {}", outgoing.method, outgoing.url));
        let answer = match self.scripted(&request, |e| e.http_request()) {
            Scripted::PassThrough => return Interception::Recorded(request),
            Scripted::Missing(why) => Err(Failure { status: None, kind: FailureKind::Unconnected(why) }),
            Scripted::Answer(Exchange::Http { answer, .. }) => answer.into_outcome(),
            Scripted::Answer(Exchange::Mail { .. }) => unreachable!("only HTTP exchanges match an HTTP request"),
        };
        self.http_answered(request, &answer);
        Interception::Answered(answer)
    }

    fn http_answered(&self, request: Object, answer: &Result<Response, Failure>) {
        let answer = exchange::HttpAnswer::of(answer, |text| self.redact(text));
        self.lock().exchanges.push(Exchange::Http { request, answer });
    }

    fn mail(
        &self,
        email: &mailer::Email,
        message_id: &str,
    ) -> Interception<Result<mailer::Accepted, mailer::MailError>> {
        let request = self.clean(exchange::mail_request(email));
        self.traced(&|| format!("mailer.send {:?} to {}", email.subject, email.recipients.join(", ")));
        let answer = match self.scripted(&request, |e| e.mail_request()) {
            Scripted::PassThrough if self.catches_mail => exchange::MailAnswer::caught().into_outcome(message_id),
            Scripted::PassThrough => return Interception::Recorded(request),
            Scripted::Missing(message) => Err(mailer::MailError::temporary(message)),
            Scripted::Answer(Exchange::Mail { answer, .. }) => answer.into_outcome(message_id),
            Scripted::Answer(Exchange::Http { .. }) => unreachable!("only mail exchanges match a mail request"),
        };
        self.mail_answered(request, &answer);
        Interception::Answered(answer)
    }

    fn mail_answered(&self, request: Object, answer: &Result<mailer::Accepted, mailer::MailError>) {
        let answer = exchange::MailAnswer::of(answer);
        self.lock().exchanges.push(Exchange::Mail { request, answer });
    }
}

impl Script {
    fn remaining(&self) -> MutexGuard<'_, VecDeque<Exchange>> {
        self.remaining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Scripted {
    PassThrough,
    Missing(String),
    Answer(Exchange),
}

/// A monotonic clock that advances by one step with each reading.
struct SteppingClock(AtomicU64);

impl HostMonotonicClock for SteppingClock {
    fn resolution(&self) -> u64 {
        MONOTONIC_STEP_NS
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(MONOTONIC_STEP_NS, Ordering::Relaxed)
    }
}

/// Random bytes that are the same for the same seed, on every machine.
fn random_bytes(seed: u64) -> Vec<u8> {
    let block = |n: usize| Sha256::new().chain_update(seed.to_le_bytes()).chain_update(n.to_le_bytes()).finalize();
    (0..RANDOM_BYTES / 32).flat_map(block).collect()
}

#[cfg(test)]
mod tests;
