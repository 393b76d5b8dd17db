//! The one HTTP client of all plugins: bounded exchanges over shared connections. It follows nothing, repeats nothing,
//! decodes nothing, uses no proxy, and connects only to what [`Resolver`] lets through.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::Instrument;

use super::address::{RefusedAddress, Resolver};
use crate::message::retry_after;
use crate::plugin::runtime::world::{self, Course, World};
use crate::{config, tls};

/// Headers of a request or a response.
pub(super) const HEADERS_MAX: usize = 100;
/// Bytes of all header names and values of a request or a response together.
pub(super) const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum ClientError {
    #[error("http: {0}")]
    Trust(#[from] tls::TlsError),
    #[error("the HTTP client cannot be built: {0}")]
    Build(String),
}

/// One request that was looked at and granted.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
    /// What the exchange is in, wherever it runs.
    pub span: tracing::Span,
}

/// How long a request may take at most; the host's own limit binds as well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// Until the whole response is here.
    pub whole: Option<Duration>,
    /// Until its headers are.
    pub first_byte: Option<Duration>,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no whole response. The texts hold no part of the URL but its host.
#[derive(Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The host's address is none that a plugin may reach; nothing was sent.
    Denied(String),
    /// Nothing was sent.
    Unconnected(String),
    Broken(String),
    TimedOut,
    /// The body is longer than this many bytes.
    TooLarge(u64),
}

/// A failed exchange, and the status where that had come.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: Option<StatusCode>,
    pub kind: FailureKind,
}

impl Failure {
    /// Nothing was sent.
    pub fn unconnected(why: String) -> Self {
        Failure { status: None, kind: FailureKind::Unconnected(why) }
    }
}

/// What is known of a request's effect on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It was answered with a success, whatever came of the rest of the answer.
    Taken(StatusCode),
    /// It was turned down, or never sent.
    Nothing,
    /// It was sent, in whole or in part, and not answered.
    Unknown,
}

/// What an exchange did.
pub(super) fn effect(outcome: &Result<Response, Failure>) -> Effect {
    let (status, unknown) = match outcome {
        Ok(response) => (Some(response.status), false),
        Err(failure) => (failure.status, matches!(failure.kind, FailureKind::Broken(_) | FailureKind::TimedOut)),
    };
    match status {
        Some(status) if status.is_success() => Effect::Taken(status),
        None if unknown => Effect::Unknown,
        _ => Effect::Nothing,
    }
}

/// How long the other side wants to be left alone, where it turned the request down with a Retry-After.
pub(super) fn throttled(outcome: &Result<Response, Failure>, now: Timestamp) -> Option<Duration> {
    let response = outcome.as_ref().ok()?;
    if !matches!(response.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    retry_after(response.headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// The right of a plugin to have one request under way, up to a moment.
pub struct Turn {
    deadline: Instant,
    first_byte: Duration,
    _permit: OwnedSemaphorePermit,
}

/// The client; one serves all plugins.
pub struct Client {
    inner: reqwest::Client,
    timeout: Duration,
    max_response_bytes: usize,
    requests_per_plugin: usize,
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    world: Arc<dyn World>,
}

impl Client {
    /// Reads the trusted roots. Touches files: not for an async thread.
    pub fn new(settings: &config::Http) -> Result<Self, ClientError> {
        Client::with_resolver(settings, Resolver::system())
    }

    pub(super) fn with_resolver(settings: &config::Http, resolver: Resolver) -> Result<Self, ClientError> {
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(settings.ca_file.as_deref())?)
            .dns_resolver(resolver)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .http1_max_headers(HEADERS_MAX)
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(settings.idle_connections)
            .pool_idle_timeout(settings.idle_timeout)
            .build()
            .map_err(|e| ClientError::Build(root_cause(&e)))?;
        Ok(Client {
            inner,
            timeout: settings.timeout,
            max_response_bytes: settings.max_response_bytes,
            requests_per_plugin: settings.requests_per_plugin,
            turns: Mutex::default(),
            world: Arc::new(world::Open),
        })
    }

    /// This client with something between it and the network.
    pub fn within(self, world: Arc<dyn World>) -> Self {
        Client { world, ..self }
    }

    /// Waits for a plugin's turn; the exchange's time runs from here.
    pub async fn turn(&self, plugin: &str, patience: Patience) -> Result<Turn, Failure> {
        let deadline = Instant::now() + patience.whole.unwrap_or(self.timeout).min(self.timeout);
        let semaphore = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            match turns.get(plugin) {
                Some(semaphore) => semaphore.clone(),
                None => turns.entry(plugin.to_owned()).insert_entry(self.semaphore()).get().clone(),
            }
        };
        match tokio::time::timeout_at(deadline, semaphore.acquire_owned()).await {
            Ok(permit) => Ok(Turn {
                deadline,
                first_byte: patience.first_byte.unwrap_or(self.timeout),
                _permit: permit.expect("the semaphore is never closed"),
            }),
            Err(_) => {
                let text = format!("{} requests of the plugin were in flight all the time", self.requests_per_plugin);
                Err(Failure::unconnected(text))
            }
        }
    }

    fn semaphore(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.requests_per_plugin))
    }

    /// One exchange: sends, and reads the whole response.
    pub async fn send(&self, turn: Turn, outgoing: Outgoing) -> Result<Response, Failure> {
        let span = outgoing.span.clone();
        match self.world.http(&outgoing) {
            Course::Answered(answer) => answer,
            course => {
                let answer = self.send_out(turn, outgoing).instrument(span).await;
                if let Course::Watched(request) = course {
                    self.world.http_answered(request, &answer);
                }
                answer
            }
        }
    }

    async fn send_out(&self, turn: Turn, outgoing: Outgoing) -> Result<Response, Failure> {
        let mut status = None;
        let exchange = self.exchange(outgoing, turn.first_byte, &mut status);
        let outcome = tokio::time::timeout_at(turn.deadline, exchange).await;
        outcome.unwrap_or(Err(FailureKind::TimedOut)).map_err(|kind| Failure { status, kind })
    }

    async fn exchange(
        &self,
        outgoing: Outgoing,
        first_byte: Duration,
        status: &mut Option<StatusCode>,
    ) -> Result<Response, FailureKind> {
        let mut request = reqwest::Request::new(outgoing.method, outgoing.url);
        // Without a body hyper leaves the length out, and some servers insist on it (RFC 9110, 8.6; 411).
        let length_wanted = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        *request.headers_mut() = outgoing.headers;
        if length_wanted && outgoing.body.as_ref().is_none_or(Vec::is_empty) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.body_mut() = outgoing.body.map(Into::into);
        let answered = tokio::time::timeout(first_byte, self.inner.execute(request)).await;
        let mut response = answered.map_err(|_| FailureKind::TimedOut)?.map_err(|e| unanswered(&e))?;
        *status = Some(response.status());
        if header_bytes(response.headers()) > HEADER_BYTES_MAX {
            let text = format!("the response's headers are longer than {HEADER_BYTES_MAX} bytes");
            return Err(FailureKind::Broken(text));
        }
        let body = self.read_body(&mut response).await?;
        Ok(Response { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }

    async fn read_body(&self, response: &mut reqwest::Response) -> Result<Vec<u8>, FailureKind> {
        let max = self.max_response_bytes;
        let too_large = || FailureKind::TooLarge(max as u64);
        let promised = response.content_length().unwrap_or_default();
        if promised > max as u64 {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(promised as usize);
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
            if chunk.len() > max - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Bytes of all names and values.
pub(super) fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn unanswered(error: &reqwest::Error) -> FailureKind {
    match causes(error).find_map(|cause| cause.downcast_ref::<RefusedAddress>()) {
        Some(refused) => FailureKind::Denied(refused.to_string()),
        None if error.is_connect() => FailureKind::Unconnected(format!("connecting failed: {}", root_cause(error))),
        None => broken(error),
    }
}

fn broken(error: &reqwest::Error) -> FailureKind {
    FailureKind::Broken(format!("the connection broke: {}", root_cause(error)))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The innermost text: those around it say little, and the outermost would say the URL.
fn root_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "no reason was given".to_owned(), ToString::to_string)
}
