//! Outgoing HTTP: `http.fetch` here, `authorized-http.fetch` in [`super::authorized_http`], `wasi:http` in [`wasi`]. All use the same
//! checks and the same client.

mod address;
mod authorization;
mod client;
mod first_request;
mod target;
#[cfg(test)]
mod tests;
pub mod wasi;

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

pub(super) use authorization::Credential;
pub use client::{Client, ClientError};
use client::{Effect, HEADER_BYTES_MAX, HEADERS_MAX, Timeouts, effect, retry_pause};
pub(in crate::plugin) use client::{Failure, FailureKind, Outgoing, Response as Answer};

use crate::config::credentials::is_host_header;
use crate::credentials::Refusal;
use crate::destination::Cause;
use crate::monitoring::trace;
use crate::plugin::runtime::bindings::http::{Host, HttpError, Request, Response};
use crate::plugin::runtime::contacts::{Caller, ContactOutcome, EndedContact, Target};
use crate::plugin::runtime::state::State;

/// Bytes of a method's name.
const METHOD_BYTES_MAX: usize = 32;

impl Host for State {
    async fn fetch(&mut self, request: Request) -> wasmtime::Result<Result<Response, HttpError>> {
        self.count_host_call()?;
        let timeouts = timeouts(&request);
        let outgoing = match self.admit_fetch(request) {
            Ok(outgoing) => outgoing,
            Err(rejection) => return Ok(Err(rejection.into())),
        };
        let outcome = self.outside(async |state| state.exchange(outgoing, timeouts).await).await;
        Ok(match outcome {
            Ok(response) => Ok(response.into()),
            Err(failure) => Err(self.failed(failure)),
        })
    }
}

/// Why a request is not sent.
pub(super) enum Rejection {
    /// It is not a valid request.
    Invalid(String),
    /// It is not granted.
    Denied(String),
}

impl From<Rejection> for HttpError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Invalid(why) => HttpError::Invalid(why),
            Rejection::Denied(why) => HttpError::Denied(why),
        }
    }
}

/// The time limits of a request.
pub(super) fn timeouts(request: &Request) -> Timeouts {
    Timeouts { total: request.timeout_ms.map(|ms| Duration::from_millis(ms.into())), first_byte: None }
}

impl State {
    /// All checks before a request of `fetch` is sent.
    pub(super) fn admit_fetch(&mut self, request: Request) -> Result<Outgoing, Rejection> {
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let outgoing = self.admit(&request.method, &request.url, headers)?;
        Ok(Outgoing { body: request.body.map(Bytes::from), ..outgoing })
    }

    /// All checks before a request is sent. A denied one is recorded.
    fn admit<'a>(
        &mut self,
        method: &str,
        url: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Outgoing, Rejection> {
        let method = read_method(method).map_err(Rejection::Invalid)?;
        let url = target::parse(url).map_err(Rejection::Invalid)?;
        let mut headers = read_headers(headers).map_err(Rejection::Invalid)?;
        if let Err(why) = self.grants.http(&url) {
            return Err(self.deny(&why));
        }
        if self.call.dry && !is_safe(&method) {
            let why = format!("{}: only GET and HEAD are sent in a dry call, not {method}", target::shown(&url));
            return Err(self.deny(&why));
        }
        let span = trace::outgoing_span(&self.settings.name, &method, url.host_str().unwrap_or_default());
        if let Some(trace) = span.in_scope(trace::current) {
            trace.write(&mut headers);
        }
        let is_named_host = self.grants.names_host(&url);
        Ok(Outgoing { method, url, headers, body: None, credential: None, is_named_host, span })
    }

    fn deny(&mut self, why: &str) -> Rejection {
        // The guest may have put a secret into the path.
        let why = self.settings.clean(why);
        Rejection::Denied(self.refuse("http", why))
    }

    /// Sends a request, and records what was handed over.
    pub(super) async fn exchange(
        &mut self,
        outgoing: Outgoing,
        timeouts: Timeouts,
    ) -> Result<client::Response, Failure> {
        let client = self.services.http.clone();
        let permit = client.acquire(&self.settings.name, timeouts, self.call.notes.unstored()).await?;
        let (caller, settings) = (self.caller_to(&outgoing), self.settings.clone());
        let contact = match caller {
            None => None,
            Some(caller) => {
                let contact = self.contacts.start(&caller, &settings.name, Target::Origin(&outgoing.url));
                Some((contact.map_err(Failure::unconnected)?, caller))
            }
        };
        let (url, method) = (outgoing.url.clone(), outgoing.method.clone());
        let outcome = self.hand_over_request(&client, permit, outgoing).await;
        if let Some((contact, caller)) = contact {
            let ended = EndedContact {
                contact,
                target: Target::Origin(&url),
                outcome: contact_outcome(&outcome, &method, &url),
            };
            self.contacts.settle(&caller, &settings.name, ended);
        }
        outcome
    }

    /// The current delivery, if the host of its request is a destination of the channel. `None`: an outage of the host is not tracked.
    fn caller_to(&self, outgoing: &Outgoing) -> Option<Caller> {
        self.caller().filter(|_| outgoing.is_named_host)
    }

    async fn hand_over_request(
        &mut self,
        client: &Client,
        permit: client::RequestPermit,
        outgoing: Outgoing,
    ) -> Result<client::Response, Failure> {
        let Some(pending) = self.handing_over(&outgoing) else { return client.send(permit, outgoing).await };
        let host = outgoing.url.host_str().unwrap_or_default().to_owned();
        let is_named_host = outgoing.is_named_host;
        let earlier = self.call.handover.pending.replace(pending);
        let outcome = client.send(permit, outgoing).await;
        let pause = retry_pause(&outcome, is_named_host, self.services.now());
        let handover = &mut self.call.handover;
        handover.retry_pause = handover.retry_pause.max(pause);
        match effect(&outcome) {
            Effect::Accepted(status) => {
                (handover.pending, handover.accepted) = (earlier, Some(accepted(status, &host)))
            }
            Effect::None => handover.pending = earlier,
            Effect::Unknown => {}
        }
        outcome
    }

    /// Describes what a request hands over: in a delivery, every request except GET and HEAD.
    fn handing_over(&self, outgoing: &Outgoing) -> Option<String> {
        let Outgoing { method, url, .. } = outgoing;
        let is_handover = self.call.delivery_key.is_some() && !is_safe(method);
        is_handover.then(|| self.settings.clean(&format!("{method} {} was sent and not answered", target::shown(url))))
    }

    pub(super) fn failed(&mut self, failure: Failure) -> HttpError {
        match failure.kind {
            FailureKind::Denied(why) => HttpError::Denied(self.refuse("http", why)),
            FailureKind::Unconnected(why) | FailureKind::Broken(why) => HttpError::Connection(why),
            FailureKind::TimedOut => HttpError::TimedOut,
            FailureKind::TooLarge(max) => HttpError::TooLarge(max),
            FailureKind::Unauthorized(refusal) => HttpError::Connection(refusal.to_string()),
        }
    }
}

/// What an exchange says about the origin. 4xx are about the message, not about the origin; [`retry_pause`] handles Retry-After.
fn contact_outcome(outcome: &Result<client::Response, Failure>, method: &Method, url: &reqwest::Url) -> ContactOutcome {
    let (status, failure) = match outcome {
        Ok(Answer { rejected_credential: Some(why), .. }) => return ContactOutcome::LoginRejected(why.clone()),
        Ok(response) => (Some(response.status), None),
        Err(failure) => (failure.status, Some(&failure.kind)),
    };
    let asks_for_time = outcome.as_ref().is_ok_and(|response| response.headers.contains_key(RETRY_AFTER));
    let host = url.host_str().unwrap_or_default();
    match (status.map(|status| status.as_u16()), failure) {
        (Some(200..300), _) => ContactOutcome::Reached { is_accepted: !is_safe(method) },
        (Some(status @ (401 | 407)), _) => ContactOutcome::LoginRejected(format!("HTTP {status} from {host}")),
        (Some(status @ (502..=504)), _) if !asks_for_time => {
            ContactOutcome::Failed(Cause::Destination, format!("HTTP {status} from {host}"))
        }
        (Some(status @ 500..), _) if !asks_for_time => {
            ContactOutcome::Failed(Cause::Unclear, format!("HTTP {status} from {host}"))
        }
        (Some(_), _) => ContactOutcome::Reached { is_accepted: false },
        (None, Some(FailureKind::Unauthorized(Refusal::Rejected(why)))) => ContactOutcome::LoginRejected(why.clone()),
        (None, Some(FailureKind::Unauthorized(Refusal::Unavailable { message, .. }))) => {
            ContactOutcome::Failed(Cause::Destination, message.clone())
        }
        (None, Some(FailureKind::Unconnected(why))) => ContactOutcome::Failed(Cause::Destination, why.clone()),
        (None, Some(FailureKind::Broken(why))) if is_safe(method) => {
            ContactOutcome::Failed(Cause::Destination, why.clone())
        }
        (None, Some(FailureKind::TimedOut)) if is_safe(method) => {
            ContactOutcome::Failed(Cause::Destination, format!("no answer from {host} in time"))
        }
        _ => ContactOutcome::Unknown,
    }
}

/// An accepted request, for the timeline.
fn accepted(status: reqwest::StatusCode, host: &str) -> String {
    format!("HTTP {} from {host}", status.as_u16())
}

/// Safe methods (RFC 9110, 9.2.1), except the rarely used ones.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn read_method(name: &str) -> Result<Method, String> {
    let is_valid = !name.is_empty()
        && name.len() <= METHOD_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'));
    match Method::from_bytes(name.as_bytes()) {
        Ok(method) if is_valid && !matches!(method, Method::CONNECT | Method::TRACE) => Ok(method),
        _ => Err("this method cannot be sent; use upper-case letters, and neither CONNECT nor TRACE".to_owned()),
    }
}

/// The errors do not contain header values.
fn read_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<HeaderMap, String> {
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        if read.len() == HEADERS_MAX {
            return Err(format!("there are more than {HEADERS_MAX} headers"));
        }
        let no_name = |_| format!("{name:?} cannot be a header's name");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(no_name)?;
        if is_host_header(&header) {
            return Err(format!("the header {header} is set by the host"));
        }
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| format!("the header {header} contains a line break or another control character"))?;
        read.append(header, value);
    }
    if client::header_bytes(&read) > HEADER_BYTES_MAX {
        return Err(format!("the headers are longer than {HEADER_BYTES_MAX} bytes"));
    }
    Ok(read)
}

impl From<client::Response> for Response {
    fn from(response: client::Response) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Response {
            status: response.status.as_u16(),
            headers: response.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            body: response.body,
        }
    }
}
