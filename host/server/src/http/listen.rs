//! Connections: their number, timeouts, and TLS.
//!
//! Every wait for a client is limited: for a TLS handshake and the head of a request by `server.read-timeout`; for a body by a budget of
//! the same length, which `server.min-rate` refills ([`client_timeout`]); for writes by `server.write-timeout`, on the connection
//! ([`Timed`]) and on each HTTP/2 stream ([`Streams`]). Every wait ends when the server stops, but a request that is on its way at that
//! moment is still answered: clients of a server that is being replaced notice nothing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::config;
use axum::Router;
use axum::http::{HeaderValue, header::CONNECTION};
use axum::response::Response;
use futures_util::TryFutureExt;
use futures_util::future::MapOk;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_timeout::{ClientLimits, ClientTimeout};
use super::slots::{Order, Slot, Slots, Spare};
use super::streams::{self, ActiveStreams, Streams};
use super::timed::Timed;

/// The pause after a failed accept (no file descriptor is left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a persistent failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Concurrent requests of one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Unsent bytes that the system buffers for a connection. With a larger buffer, a slow client would seem to receive nothing until the
/// buffer drains.
const UNSENT_MAX: u32 = 64 * 1024;
/// How long an idle connection stays open when the server stops. Over HTTP/1.1, a client may have sent a request already; over HTTP/2, it
/// closes the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves connections until `stop`, then waits for their requests, at most `server.drain`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    settings: &config::Server,
    stop: CancellationToken,
) {
    // Connections inherit the option. On a system without it, progress is only measured more coarsely.
    let _ = socket2::SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_MAX);
    let slots = Slots::new(settings.connections, settings.spare_connections);
    let connections = TaskTracker::new();
    let handler = Arc::new(Handler::new(router, tls, settings, stop.clone()));
    tokio::select! {
        () = accept(&listener, &slots, &connections, &handler) => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(settings.drain, connections.wait()).await;
}

/// Accepts connections, forever.
async fn accept(listener: &TcpListener, slots: &Arc<Slots>, connections: &TaskTracker, handler: &Arc<Handler>) {
    let warned = Throttle::default();
    loop {
        match listener.accept().await {
            // The slot is taken after the accept, so that a slow client is disconnected only in favour of one that is waiting.
            Ok((stream, _)) => drop(connections.spawn(handler.clone().run(stream, slots.take().await))),
            Err(error) => {
                if warned.is_due() {
                    tracing::warn!("A connection could not be accepted; retrying in {ACCEPT_PAUSE:?}: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Limits a repeated log line to one a minute.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Whether to log the line now.
    pub(crate) fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let is_due = last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Serves connections.
struct Handler {
    router: Router,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    read_timeout: Duration,
    max_head_bytes: u32,
    writing: Arc<ClientLimits>,
}

impl Handler {
    fn new(router: Router, tls: Option<TlsAcceptor>, settings: &config::Server, stop: CancellationToken) -> Self {
        let mut http1 = http1::Builder::new();
        // Without `pipeline_flush`, because with it hyper's write buffer is unbounded.
        http1.timer(TokioTimer::new()).header_read_timeout(settings.read_timeout).max_buf_size(settings.max_head_bytes);
        let writing = ClientLimits { timeout: settings.write_timeout, min_rate: settings.min_rate, stop };
        Handler {
            router,
            tls,
            http1,
            read_timeout: settings.read_timeout,
            max_head_bytes: u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX),
            writing: Arc::new(writing),
        }
    }

    /// Serves one connection until it ends. TLS negotiates the protocol; without TLS it is HTTP/1.1.
    async fn run(self: Arc<Self>, stream: TcpStream, slot: Slot) {
        // Responses are small; waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = Timed::new(stream, ClientTimeout::new(self.writing.clone()));
        let Some(acceptor) = &self.tls else { return self.http1(stream, &slot).await };
        let stop = &self.writing.stop;
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(self.read_timeout, acceptor.accept(stream)) => handshake,
            _ = slot.order() => return,
            () = stop.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => self.http2(stream, &slot).await,
            Ok(Ok(stream)) => self.http1(stream, &slot).await,
            Ok(Err(error)) => tracing::debug!("A TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("A TLS handshake took too long."),
        }
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, slot: &Slot) {
        let service = self.service(slot, streams::in_pieces, in_last_pieces);
        let state = service.state.clone();
        let connection = self.http1.serve_connection(TokioIo::new(stream), service);
        self.drive(connection, slot, &state, None).await;
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, slot: &Slot) {
        let service = self.service(slot, streams::in_tracked_pieces, streams::in_tracked_pieces);
        let state = service.state.clone();
        let active = Arc::new(ActiveStreams::default());
        let mut http2 = http2::Builder::new(Streams { active: active.clone(), limits: self.writing.clone() });
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(self.read_timeout)
            // A head that does not end blocks every other stream, and the response to a ping.
            .keep_alive_timeout(self.read_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(self.max_head_bytes);
        let connection = http2.serve_connection(TokioIo::new(stream), service);
        self.drive(connection, slot, &state, Some(&active)).await;
    }

    fn service(&self, slot: &Slot, shape: Shape, last_shape: Shape) -> RequestService {
        let router = TowerToHyperService::new(self.router.clone());
        RequestService { router, spare: slot.spare().cloned(), state: Arc::default(), shape, last_shape }
    }

    /// Runs a connection until it ends. `streams` are those of an HTTP/2 connection, which is closed if it has none for
    /// `server.read-timeout`; hyper itself closes idle HTTP/1.1 connections.
    async fn drive<C: GracefulConnection<Error: std::fmt::Display>>(
        &self,
        connection: C,
        slot: &Slot,
        state: &ConnectionState,
        streams: Option<&ActiveStreams>,
    ) {
        // A token of its own, because waiting for the common one takes a lock that all connections share.
        let stop = self.writing.stop.child_token();
        let mut connection = pin!(connection);
        let (mut is_stopping, mut is_closing, mut was_idle_at, mut last_call) = (false, false, None, None);
        loop {
            let check_after = if is_stopping { CLOSE_TIMEOUT } else { self.read_timeout / 2 };
            tokio::select! {
                biased;
                ended = &mut connection => {
                    // Clients may disconnect at any time, so this is no warning.
                    if let Err(error) = ended {
                        tracing::debug!("A connection ended: {error}");
                    }
                    return;
                }
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    last_call = Some(tokio::time::Instant::now() + CLOSE_TIMEOUT);
                    state.is_stopping.store(true, Relaxed);
                    if streams.is_some() && state.has_request.load(Relaxed) {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = reached(last_call) => {
                    last_call = None;
                    // Do not wait for a head that is still arriving.
                    if !state.has_request.load(Relaxed) {
                        return;
                    }
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                order = slot.order() => match order {
                    Order::CloseNow => return,
                    Order::CloseAfterResponse => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                },
                () = tokio::time::sleep(check_after), if streams.is_some() => {
                    let idle_at = streams.and_then(ActiveStreams::idle_at);
                    let stayed_idle = idle_at.is_some() && idle_at == was_idle_at;
                    was_idle_at = idle_at;
                    if stayed_idle && is_closing {
                        return;
                    }
                    if stayed_idle {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// Completes at a time; never without one.
async fn reached(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What a connection and its requests tell each other.
#[derive(Default)]
struct ConnectionState {
    /// Whether the head of a request has arrived.
    has_request: AtomicBool,
    /// Whether the server is stopping, so that every response is the last one.
    is_stopping: AtomicBool,
}

/// What is done to a response before it is written.
type Shape = fn(Response) -> Response;

/// The response to the last request of an HTTP/1.1 connection. The header also makes hyper close the connection.
fn in_last_pieces(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    streams::in_pieces(response)
}

/// Runs the routes for the requests of one connection.
struct RequestService {
    router: TowerToHyperService<Router>,
    spare: Option<Arc<Spare>>,
    state: Arc<ConnectionState>,
    shape: Shape,
    last_shape: Shape,
}

impl Service<hyper::Request<Incoming>> for RequestService {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = MapOk<TowerToHyperServiceFuture<Router, hyper::Request<Incoming>>, Shape>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.state.has_request.store(true, Relaxed);
        if let Some(spare) = self.spare.as_ref().filter(|spare| !spare.has_moved()) {
            request.extensions_mut().insert(spare.clone());
        }
        let shape = if self.state.is_stopping.load(Relaxed) { self.last_shape } else { self.shape };
        self.router.call(request).map_ok(shape)
    }
}
