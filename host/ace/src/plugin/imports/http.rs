//! Outgoing HTTP: `http.fetch` here, `wasi:http` in [`wasi`], both through one decision and one client.

mod address;
mod client;
mod target;
#[cfg(test)]
mod tests;
pub mod wasi;

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

pub use client::{Client, ClientError};
use client::{Effect, HEADER_BYTES_MAX, HEADERS_MAX, Patience, effect, throttled};
pub(in crate::plugin) use client::{Failure, FailureKind, Outgoing, Response as Answer};

use crate::destination::Cause;
use crate::monitoring::trace;
use crate::plugin::runtime::bindings::http::{Host, HttpError, Request, Response};
use crate::plugin::runtime::contacts::{Came, Met, Target};
use crate::plugin::runtime::state::State;

/// Bytes of a method's name.
const METHOD_BYTES_MAX: usize = 32;

/// Headers that belong to the host: they say how one connection is used, or where it leads.
const HOSTS_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Host for State {
    async fn fetch(&mut self, request: Request) -> wasmtime::Result<Result<Response, HttpError>> {
        self.count_host_call()?;
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let outgoing = match self.admit(&request.method, &request.url, headers) {
            Ok(outgoing) => Outgoing { body: request.body, ..outgoing },
            Err(Refusal::Invalid(why)) => return Ok(Err(HttpError::Invalid(why))),
            Err(Refusal::Denied(why)) => return Ok(Err(HttpError::Denied(why))),
        };
        let whole = request.timeout_ms.map(|ms| Duration::from_millis(ms.into()));
        let patience = Patience { whole, first_byte: None };
        let outcome = self.outside(async |state| state.exchange(outgoing, patience).await).await;
        Ok(match outcome {
            Ok(response) => Ok(response.into()),
            Err(failure) => Err(self.failed(failure)),
        })
    }
}

/// Why a request is not sent.
enum Refusal {
    /// It cannot be.
    Invalid(String),
    /// It may not be.
    Denied(String),
}

impl State {
    /// Everything that is decided before a request goes out. A refusal is noted.
    fn admit<'a>(
        &mut self,
        method: &str,
        url: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Outgoing, Refusal> {
        let method = read_method(method).map_err(Refusal::Invalid)?;
        let url = target::parse(url).map_err(Refusal::Invalid)?;
        let mut headers = read_headers(headers).map_err(Refusal::Invalid)?;
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
        Ok(Outgoing { method, url, headers, body: None, span })
    }

    fn deny(&mut self, why: &str) -> Refusal {
        // A path that the guest made may hold a secret.
        let why = self.settings.clean(why);
        Refusal::Denied(self.refuse("http", why))
    }

    /// Sends, and keeps account of what was handed over.
    async fn exchange(&mut self, outgoing: Outgoing, patience: Patience) -> Result<client::Response, Failure> {
        let client = self.services.http.clone();
        let turn = client.turn(&self.settings.name, patience).await?;
        let (caller, settings) = (self.caller(), self.settings.clone());
        let begun =
            caller.map(|caller| (self.contacts.begin(&caller, &settings.name, Target::Origin(&outgoing.url)), caller));
        let begun = begun.map(|(contact, caller)| Ok((contact.map_err(Failure::unconnected)?, caller))).transpose()?;
        let (url, method) = (outgoing.url.clone(), outgoing.method.clone());
        let outcome = self.hand_over_request(&client, turn, outgoing).await;
        if let Some((contact, caller)) = begun {
            let came = came(&outcome, &method, &url);
            self.contacts.settle(&caller, &settings.name, Met { contact, target: Target::Origin(&url), came });
        }
        outcome
    }

    async fn hand_over_request(
        &mut self,
        client: &Client,
        turn: client::Turn,
        outgoing: Outgoing,
    ) -> Result<client::Response, Failure> {
        let Some(begun) = self.handing_over(&outgoing) else { return client.send(turn, outgoing).await };
        let host = outgoing.url.host_str().unwrap_or_default().to_owned();
        let earlier = self.call.handover.begun.replace(begun);
        let outcome = client.send(turn, outgoing).await;
        let handover = &mut self.call.handover;
        handover.throttled = handover.throttled.max(throttled(&outcome, self.services.now()));
        match effect(&outcome) {
            Effect::Taken(status) => (handover.begun, handover.done) = (earlier, Some(taken(status, &host))),
            Effect::Nothing => handover.begun = earlier,
            Effect::Unknown => {}
        }
        outcome
    }

    /// What a request hands over, if it does: anything but a look, in a delivery.
    fn handing_over(&self, outgoing: &Outgoing) -> Option<String> {
        let Outgoing { method, url, .. } = outgoing;
        let is_handover = self.call.delivery_key.is_some() && !is_safe(method);
        is_handover.then(|| self.settings.clean(&format!("{method} {} was sent and not answered", target::shown(url))))
    }

    fn failed(&mut self, failure: Failure) -> HttpError {
        match failure.kind {
            FailureKind::Denied(why) => HttpError::Denied(self.refuse("http", why)),
            FailureKind::Unconnected(why) | FailureKind::Broken(why) => HttpError::Connection(why),
            FailureKind::TimedOut => HttpError::TimedOut,
            FailureKind::TooLarge(max) => HttpError::TooLarge(max),
        }
    }
}

/// What an exchange says of the origin. A message's own trouble is told by 4xx, and so is not the origin's; that an origin
/// wants to be left alone (Retry-After) has its own way ([`throttled`]).
fn came(outcome: &Result<client::Response, Failure>, method: &Method, url: &reqwest::Url) -> Came {
    let (status, failure) = match outcome {
        Ok(response) => (Some(response.status), None),
        Err(failure) => (failure.status, Some(&failure.kind)),
    };
    let asks_for_time = outcome.as_ref().is_ok_and(|response| response.headers.contains_key(RETRY_AFTER));
    let host = url.host_str().unwrap_or_default();
    match (status.map(|status| status.as_u16()), failure) {
        (Some(200..300), _) => Came::Reached { is_taken: !is_safe(method) },
        (Some(status @ (401 | 407)), _) => Came::LoginRefused(format!("HTTP {status} from {host}")),
        (Some(status @ (502..=504)), _) if !asks_for_time => {
            Came::Failed(Cause::Destination, format!("HTTP {status} from {host}"))
        }
        (Some(status @ 500..), _) if !asks_for_time => {
            Came::Failed(Cause::Unclear, format!("HTTP {status} from {host}"))
        }
        (Some(_), _) => Came::Reached { is_taken: false },
        (None, Some(FailureKind::Unconnected(why))) => Came::Failed(Cause::Destination, why.clone()),
        (None, Some(FailureKind::Broken(why))) if is_safe(method) => Came::Failed(Cause::Destination, why.clone()),
        (None, Some(FailureKind::TimedOut)) if is_safe(method) => {
            Came::Failed(Cause::Destination, format!("no answer from {host} in time"))
        }
        _ => Came::Unknown,
    }
}

/// How a request that was taken stands in the timeline.
fn taken(status: reqwest::StatusCode, host: &str) -> String {
    format!("HTTP {} from {host}", status.as_u16())
}

/// RFC 9110, 9.2.1, as far as anyone relies on it.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn read_method(name: &str) -> Result<Method, String> {
    let sound = !name.is_empty()
        && name.len() <= METHOD_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'));
    match Method::from_bytes(name.as_bytes()) {
        Ok(method) if sound && !matches!(method, Method::CONNECT | Method::TRACE) => Ok(method),
        _ => Err("no such method can be sent: upper-case letters, and neither CONNECT nor TRACE".to_owned()),
    }
}

/// No text of the errors holds a header's value.
fn read_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<HeaderMap, String> {
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        if read.len() == HEADERS_MAX {
            return Err(format!("there are more than {HEADERS_MAX} headers"));
        }
        let no_name = |_| format!("{name:?} cannot be a header's name");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(no_name)?;
        if is_hosts(&header) {
            return Err(format!("the header {header} is the host's to set"));
        }
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| format!("the header {header} holds a line break or another control character"))?;
        read.append(header, value);
    }
    if client::header_bytes(&read) > HEADER_BYTES_MAX {
        return Err(format!("the headers are longer than {HEADER_BYTES_MAX} bytes"));
    }
    Ok(read)
}

fn is_hosts(header: &HeaderName) -> bool {
    HOSTS_HEADERS.contains(&header.as_str())
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
