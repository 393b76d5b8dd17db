//! What guests reach outside this process. A server uses [`RealWorld`]; plugin authors use a
//! [`Sandbox`](crate::plugin::Sandbox), which records and answers requests.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use wasmtime_wasi::WasiCtxBuilder;

use crate::mailer::{self, MailError};
use crate::message::Object;
use crate::plugin::http::{Answer, Failure, Outgoing};

/// Stands between guests and the outside world. Set once, when the services of a host are built.
pub trait World: Send + Sync {
    /// The current time that guests get. `None`: the engine's clock.
    fn now(&self) -> Option<Timestamp> {
        None
    }

    /// Replaces clocks and random numbers.
    fn prepare(&self, _wasi: &mut WasiCtxBuilder) {}

    /// Called when a guest logged a line.
    fn logged(&self, _level: &'static str, _text: &str) {}

    /// Called when a guest called the host; `line` describes the call.
    fn traced(&self, _line: &dyn Fn() -> String) {}

    /// Called when a call into a guest ended; `usage` measures what it used.
    fn used(&self, _usage: &mut dyn FnMut() -> Usage) {}

    /// Whether requests need real credentials.
    fn has_credentials(&self) -> bool {
        true
    }

    /// Decides who answers an HTTP request.
    fn http(&self, _request: &Outgoing) -> Interception<Result<Answer, Failure>> {
        Interception::PassThrough
    }

    /// Called with the answer to a request that is [`Interception::Recorded`].
    fn http_answered(&self, _request: Object, _answer: &Result<Answer, Failure>) {}

    /// Decides who answers a mail.
    fn mail(&self, _email: &mailer::Email, _message_id: &str) -> Interception<Result<mailer::Accepted, MailError>> {
        Interception::PassThrough
    }

    /// Called with the answer to a mail that is [`Interception::Recorded`].
    fn mail_answered(&self, _request: Object, _answer: &Result<mailer::Accepted, MailError>) {}
}

/// Who answers a request.
pub enum Interception<T> {
    /// The real provider.
    PassThrough,
    /// The real provider; its answer is recorded with this request.
    Recorded(Object),
    /// This answer; nothing is sent.
    Answered(T),
}

/// The real world: nothing is replaced or recorded.
pub struct RealWorld;

impl World for RealWorld {}

/// The resources that one call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The duration of the whole call.
    #[serde(rename = "took_us", serialize_with = "micros")]
    pub took: Duration,
    /// The guest's computing time, measured to about 5 ms (a tick) if it is longer than that.
    #[serde(rename = "guest_us", serialize_with = "micros")]
    pub guest: Duration,
    /// Instructions, in wasmtime's fuel; only with a metered engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The instance's linear memory after the call, in bytes.
    pub memory_bytes: usize,
    /// Host calls.
    pub host_calls: usize,
}

fn micros<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
