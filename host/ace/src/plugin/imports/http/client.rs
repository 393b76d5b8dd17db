//! The HTTP client of all plugins: bounded exchanges over shared connections. It follows no redirects, does not decompress, retries
//! only requests that the server reports as not processed, uses no proxy, and connects only to addresses that [`Resolver`] allows.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::Instrument;

use super::address::{RefusedAddress, Resolver};
use super::authorization::{Credential, Identities};
use super::first_request::FirstRequests;
use crate::credentials::Refusal;
use crate::message::retry_after;
use crate::plugin::runtime::notes::{Noted, not_stored};
use crate::plugin::runtime::world::{self, Interception, World};
use crate::tls::Identity;
use crate::{config, tls};

/// Headers of a request or a response.
pub(super) const HEADERS_MAX: usize = 100;
/// Bytes of all header names and values of one request or response.
pub(super) const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The same limit as HTTP/2 counts it: 32 bytes more for each header (RFC 9113, 6.5.2).
const HTTP2_HEADER_LIST_BYTES_MAX: u32 = (HEADER_BYTES_MAX + 32 * HEADERS_MAX) as u32;

/// Why the client cannot be built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum ClientError {
    #[error("http: {0}")]
    Trust(#[from] tls::TlsError),
    #[error("the HTTP client cannot be built: {0}")]
    Build(String),
}

/// A request that was checked and granted.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// The credential that the client adds.
    pub credential: Option<Credential>,
    /// Whether a grant names the host. Another host is one recipient's: whatever it does, no other message has to wait.
    pub is_named_host: bool,
    /// The span that the exchange runs in.
    pub span: tracing::Span,
}

/// The guest's own time limits of a request; the host's limit applies as well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeouts {
    /// Until the whole response is received.
    pub total: Option<Duration>,
    /// Until its headers are received.
    pub first_byte: Option<Duration>,
}

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Why the provider rejected the credential, if it did.
    pub rejected_credential: Option<String>,
}

/// Why there is no complete response. The texts contain no part of the URL except its host.
#[derive(Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Plugins may not connect to the host's address; nothing was sent.
    Denied(String),
    /// No connection could be made; nothing was sent.
    Unconnected(String),
    /// The connection broke.
    Broken(String),
    /// A time limit was reached.
    TimedOut,
    /// The body is longer than this many bytes.
    TooLarge(u64),
    /// The credential cannot be added; nothing was sent.
    Unauthorized(Refusal),
}

/// A failed exchange, with the status if one was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: Option<StatusCode>,
    pub kind: FailureKind,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn unconnected(why: String) -> Self {
        Failure { status: None, kind: FailureKind::Unconnected(why) }
    }

    /// A failure to add the credential, before anything was sent.
    pub fn unauthorized(refusal: Refusal) -> Self {
        Failure { status: None, kind: FailureKind::Unauthorized(refusal) }
    }
}

/// What is known about a request's effect on the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It was answered with a success status, even if the rest of the response failed.
    Accepted(StatusCode),
    /// It was rejected, or never sent.
    None,
    /// It was sent, completely or in part, and not answered.
    Unknown,
}

/// The effect of an exchange.
pub(super) fn effect(outcome: &Result<Response, Failure>) -> Effect {
    let (status, unknown) = match outcome {
        Ok(response) => (Some(response.status), false),
        Err(failure) => (failure.status, matches!(failure.kind, FailureKind::Broken(_) | FailureKind::TimedOut)),
    };
    match status {
        Some(status) if status.is_success() => Effect::Accepted(status),
        None if unknown => Effect::Unknown,
        _ => Effect::None,
    }
}

/// How long the channel has to wait, if a named host rejected the request with a Retry-After.
pub(super) fn retry_pause(
    outcome: &Result<Response, Failure>,
    is_named_host: bool,
    now: Timestamp,
) -> Option<Duration> {
    let response = outcome.as_ref().ok()?;
    let is_busy = matches!(response.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if !is_busy || !is_named_host {
        return None;
    }
    retry_after(response.headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Permission for one request in flight, until a deadline.
pub struct RequestPermit {
    pub(super) deadline: Instant,
    first_byte: Duration,
    _permit: OwnedSemaphorePermit,
}

/// The client, shared by all plugins.
pub struct Client {
    pub(super) connections: Arc<Connections>,
    pub(super) connector: Arc<Connector>,
    pub(super) identities: Identities,
    timeout: Duration,
    max_response_bytes: usize,
    requests_per_plugin: usize,
    semaphores: Mutex<HashMap<String, Arc<Semaphore>>>,
    world: Arc<dyn World>,
}

/// Connections that requests share.
pub(super) struct Connections {
    inner: reqwest::Client,
    first_requests: FirstRequests,
}

/// Opens connections.
pub(super) struct Connector {
    settings: config::Http,
    resolver: Resolver,
    ping: Ping,
}

/// The pings that detect a dead HTTP/2 connection.
pub(super) struct Ping {
    /// The time between two pings, also on an idle connection.
    pub interval: Duration,
    /// The connection is closed if a ping is not answered within this time.
    pub timeout: Duration,
}

const PING: Ping = Ping { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) };

impl Client {
    /// Reads the trusted root certificates. Blocks: do not call it on an async thread.
    ///
    /// # Errors
    /// The certificates cannot be read, or the client cannot be built.
    pub fn new(settings: &config::Http) -> Result<Self, ClientError> {
        Client::with_resolver(settings, Resolver::system())
    }

    pub(super) fn with_resolver(settings: &config::Http, resolver: Resolver) -> Result<Self, ClientError> {
        Client::build(settings, resolver, PING)
    }

    pub(super) fn build(settings: &config::Http, resolver: Resolver, ping: Ping) -> Result<Self, ClientError> {
        let connector = Connector { settings: settings.clone(), resolver, ping };
        Ok(Client {
            connections: Arc::new(connector.open(None)?),
            connector: Arc::new(connector),
            identities: Identities::default(),
            timeout: settings.timeout,
            max_response_bytes: settings.max_response_bytes,
            requests_per_plugin: settings.requests_per_plugin,
            semaphores: Mutex::default(),
            world: Arc::new(world::RealWorld),
        })
    }

    /// The same client with a world between it and the network.
    pub fn within(self, world: Arc<dyn World>) -> Self {
        Client { world, ..self }
    }

    /// Stores what the call noted so far (`notes`), and waits for a permit of the plugin. The time of the exchange starts here.
    pub async fn acquire(
        &self,
        plugin: &str,
        timeouts: Timeouts,
        notes: Option<Arc<Noted>>,
    ) -> Result<RequestPermit, Failure> {
        if let Some(notes) = notes {
            notes.store().await.map_err(|why| Failure::unconnected(not_stored(&why)))?;
        }
        let deadline = Instant::now() + timeouts.total.unwrap_or(self.timeout).min(self.timeout);
        let semaphore = {
            let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
            match semaphores.get(plugin) {
                Some(semaphore) => semaphore.clone(),
                None => semaphores.entry(plugin.to_owned()).insert_entry(self.semaphore()).get().clone(),
            }
        };
        match tokio::time::timeout_at(deadline, semaphore.acquire_owned()).await {
            Ok(permit) => Ok(RequestPermit {
                deadline,
                first_byte: timeouts.first_byte.unwrap_or(self.timeout),
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

    /// One exchange: sends the request and reads the complete response.
    pub async fn send(&self, permit: RequestPermit, outgoing: Outgoing) -> Result<Response, Failure> {
        let span = outgoing.span.clone();
        match self.world.http(&outgoing) {
            Interception::Answered(answer) => answer,
            interception => {
                let answer = self.send_out(permit, outgoing).instrument(span).await;
                if let Interception::Recorded(request) = interception {
                    self.world.http_answered(request, &answer);
                }
                answer
            }
        }
    }

    async fn send_out(&self, permit: RequestPermit, outgoing: Outgoing) -> Result<Response, Failure> {
        match outgoing.credential.clone() {
            None => self.exchange_in_time(&permit, &self.connections, outgoing).await,
            Some(credential) => self.send_authorized(&permit, &credential, outgoing).await,
        }
    }

    pub(super) async fn exchange_in_time(
        &self,
        permit: &RequestPermit,
        connections: &Connections,
        outgoing: Outgoing,
    ) -> Result<Response, Failure> {
        let mut status = None;
        let exchange = self.exchange(connections, outgoing, permit.first_byte, &mut status);
        let outcome = tokio::time::timeout_at(permit.deadline, exchange).await;
        outcome.unwrap_or(Err(FailureKind::TimedOut)).map_err(|kind| Failure { status, kind })
    }

    async fn exchange(
        &self,
        connections: &Connections,
        outgoing: Outgoing,
        first_byte: Duration,
        status: &mut Option<StatusCode>,
    ) -> Result<Response, FailureKind> {
        let mut request = reqwest::Request::new(outgoing.method, outgoing.url);
        // hyper omits the length of an empty body, which some servers require (RFC 9110, 8.6; 411).
        let needs_length = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        *request.headers_mut() = outgoing.headers;
        if needs_length && outgoing.body.as_ref().is_none_or(Bytes::is_empty) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.body_mut() = outgoing.body.map(Into::into);
        let pass = connections.first_requests.wait(request.url()).await;
        let answered = tokio::time::timeout(first_byte, connections.inner.execute(request)).await;
        let mut response = answered.map_err(|_| FailureKind::TimedOut)?.map_err(|e| unanswered(&e))?;
        pass.answered();
        *status = Some(response.status());
        if response.headers().len() > HEADERS_MAX {
            return Err(FailureKind::Broken(format!("the response has more than {HEADERS_MAX} headers")));
        }
        if header_bytes(response.headers()) > HEADER_BYTES_MAX {
            let text = format!("the response's headers are longer than {HEADER_BYTES_MAX} bytes");
            return Err(FailureKind::Broken(text));
        }
        let body = self.read_body(&mut response).await?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Response { status: response.status(), headers, body, rejected_credential: None })
    }

    async fn read_body(&self, response: &mut reqwest::Response) -> Result<Vec<u8>, FailureKind> {
        let max = self.max_response_bytes;
        let too_large = || FailureKind::TooLarge(max as u64);
        let announced = response.content_length().unwrap_or_default();
        if announced > max as u64 {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(announced as usize);
        while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
            if chunk.len() > max - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl Connector {
    /// Connections that present this client certificate, if one is given. Blocks: it reads the trusted root certificates.
    pub(super) fn open(&self, identity: Option<&Identity>) -> Result<Connections, ClientError> {
        let Connector { settings, resolver, ping } = self;
        let ca_file = settings.ca_file.as_deref();
        let mut tls = match identity {
            None => tls::client_config(ca_file)?,
            Some(identity) => tls::client_config_as(ca_file, identity)?,
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(resolver.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_max_headers(HEADERS_MAX)
            .http2_max_header_list_size(HTTP2_HEADER_LIST_BYTES_MAX)
            .http2_keep_alive_interval(ping.interval)
            .http2_keep_alive_timeout(ping.timeout)
            .http2_keep_alive_while_idle(true)
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(settings.idle_connections)
            .pool_idle_timeout(settings.idle_timeout)
            .build()
            .map_err(|e| ClientError::Build(root_cause(&e)))?;
        Ok(Connections { inner, first_requests: FirstRequests::new(settings.idle_timeout) })
    }
}

/// The bytes of all names and values.
pub(super) fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn unanswered(error: &reqwest::Error) -> FailureKind {
    match causes(error).find_map(|cause| cause.downcast_ref::<RefusedAddress>()) {
        Some(refused) => FailureKind::Denied(refused.to_string()),
        None if error.is_connect() => FailureKind::Unconnected(format!("connecting failed: {}", root_cause(error))),
        None if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_unprocessed)) => {
            FailureKind::Unconnected(format!("the server did not process the request: {}", root_cause(error)))
        }
        None => broken(error),
    }
}

/// Whether the server did not process the request (RFC 9113, 8.7): it refused the stream, or is shutting down.
fn is_unprocessed(error: &h2::Error) -> bool {
    let is_shutdown = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (is_shutdown || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn broken(error: &reqwest::Error) -> FailureKind {
    FailureKind::Broken(format!("the connection broke: {}", root_cause(error)))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The innermost cause: the outer ones say little, and the outermost contains the URL.
fn root_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "no reason was given".to_owned(), ToString::to_string)
}
