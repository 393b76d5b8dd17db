//! What guests reach beyond this process, and who sees it. A serving host has the world as it is ([`Open`]); where an author tries a
//! plugin, a [`Sandbox`](crate::plugin::Sandbox) stands in for it and writes down what it sees.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use wasmtime_wasi::WasiCtxBuilder;

use crate::mailer::{self, MailError};
use crate::message::Object;
use crate::plugin::http::{Answer, Failure, Outgoing};

/// What stands between guests and the world. Given once, when the services of a host are built.
pub trait World: Send + Sync {
    /// The time of day that guests are told. `None`: the engine's own.
    fn now(&self) -> Option<Timestamp> {
        None
    }

    /// Puts other clocks and random numbers in the place of the real ones.
    fn prepare(&self, _wasi: &mut WasiCtxBuilder) {}

    /// A guest logged a line.
    fn logged(&self, _level: &'static str, _text: &str) {}

    /// A guest called the host; `line` describes the call.
    fn traced(&self, _line: &dyn Fn() -> String) {}

    /// A call into a guest ended; `usage` measures what it used.
    fn used(&self, _usage: &mut dyn FnMut() -> Usage) {}

    /// Who answers an HTTP request.
    fn http(&self, _request: &Outgoing) -> Course<Result<Answer, Failure>> {
        Course::Open
    }

    /// What the world answered a request that is [`Course::Watched`].
    fn http_answered(&self, _request: Object, _answer: &Result<Answer, Failure>) {}

    /// Who answers a mail.
    fn mail(&self, _email: &mailer::Email, _message_id: &str) -> Course<Result<mailer::Accepted, MailError>> {
        Course::Open
    }

    /// What the world answered a mail that is [`Course::Watched`].
    fn mail_answered(&self, _request: Object, _answer: &Result<mailer::Accepted, MailError>) {}
}

/// Who answers a request.
pub enum Course<T> {
    /// The world does.
    Open,
    /// The world does, and its answer is written down with the request.
    Watched(Object),
    /// Answered already: nothing leaves.
    Answered(T),
}

/// The world as it is: nothing is replaced, and nothing written down.
pub struct Open;

impl World for Open {}

/// What one call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The whole call.
    #[serde(rename = "took_us", serialize_with = "micros")]
    pub took: Duration,
    /// The guest's own computing, to about a tick of 5 ms where it is longer than that.
    #[serde(rename = "guest_us", serialize_with = "micros")]
    pub guest: Duration,
    /// Instructions, as wasmtime's fuel counts them; of a metered engine alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Bytes of linear memory the instance has after it.
    pub memory_bytes: usize,
    /// Calls into the host.
    pub host_calls: usize,
}

fn micros<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
