//! Connections: their number, timeouts, and TLS.
//!
//! Every wait for a client has an end: for a TLS handshake and the head of a request `server.read-timeout`; for a body the same, kept up
//! by `server.min-rate` ([`client_timeout`]); for what is written `server.write-timeout`, on the connection
//! ([`Timed`]) and on each HTTP/2 stream ([`Streams`]). And every wait ends when the server stops.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::config;
use axum::Router;
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

use super::client_timeout::{ClientTimeout, Terms};
use super::slots::{Order, Slot, Slots, Spare};
use super::streams::{self, Live, Streams};
use super::timed::Timed;

/// After an accept that failed (no file descriptor left, say).
const PAUSE: Duration = Duration::from_millis(50);
/// How often a failure that lasts is logged.
const SELDOM: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;
/// Bytes that the system holds for a connection beyond what is on its way: with more of them a slow client would seem to take
/// nothing for as long as it needs for all of them.
const UNSENT: u32 = 64 * 1024;
/// How long an HTTP/2 connection may take to end once nothing of it is being answered and the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves connections until `stop`, then waits for their requests, at most so long.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    settings: &config::Server,
    stop: CancellationToken,
) {
    // Connections have it from their listener. A system that knows no such option only sees progress more coarsely.
    let _ = socket2::SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT);
    let slots = Slots::new(settings.connections, settings.spare_connections);
    let connections = TaskTracker::new();
    let door = Arc::new(Door::new(router, tls, settings, stop.clone()));
    tokio::select! {
        () = accept(&listener, &slots, &connections, &door) => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(settings.drain, connections.wait()).await;
}

/// Accepts connections, forever.
async fn accept(listener: &TcpListener, slots: &Arc<Slots>, connections: &TaskTracker, door: &Arc<Door>) {
    let failed = Seldom::default();
    loop {
        match listener.accept().await {
            // The slot comes after the connection: whoever is slow makes room only for somebody who is there.
            Ok((stream, _)) => drop(connections.spawn(door.clone().run(stream, slots.take().await))),
            Err(error) => {
                if failed.is_due() {
                    tracing::warn!("A connection could not be accepted; others may fail too: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A log line that is repeated at most once a minute.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether to log it now: it was not logged for a minute.
    pub(crate) fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let is_due = last.is_none_or(|last| now.duration_since(last) >= SELDOM);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// What every connection is served by.
struct Door {
    router: Router,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    read_timeout: Duration,
    max_head_bytes: u32,
    writing: Arc<Terms>,
}

impl Door {
    fn new(router: Router, tls: Option<TlsAcceptor>, settings: &config::Server, stop: CancellationToken) -> Self {
        let mut http1 = http1::Builder::new();
        // Without `pipeline_flush`: with it hyper's buffer for what is written has no bound.
        http1.timer(TokioTimer::new()).header_read_timeout(settings.read_timeout).max_buf_size(settings.max_head_bytes);
        let writing = Terms { timeout: settings.write_timeout, least_rate: settings.min_rate, stop };
        Door {
            router,
            tls,
            http1,
            read_timeout: settings.read_timeout,
            max_head_bytes: u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX),
            writing: Arc::new(writing),
        }
    }

    /// Serves one connection to its end. Which protocol it is TLS settles; without TLS it is HTTP/1.1.
    async fn run(self: Arc<Self>, stream: TcpStream, slot: Slot) {
        // Answers are small: waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let stream = Timed::new(stream, ClientTimeout::new(self.writing.clone()));
        let Some(acceptor) = &self.tls else { return self.http1(stream, &slot).await };
        let stop = &self.writing.stop;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.read_timeout, acceptor.accept(stream)) => shaken,
            _ = slot.order() => return,
            () = stop.cancelled() => return,
        };
        match shaken {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => self.http2(stream, &slot).await,
            Ok(Ok(stream)) => self.http1(stream, &slot).await,
            Ok(Err(error)) => tracing::debug!("A TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("A TLS handshake took too long."),
        }
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, slot: &Slot) {
        let served = self.served(slot, streams::in_pieces);
        let has_begun = served.has_begun.clone();
        let connection = self.http1.serve_connection(TokioIo::new(stream), served);
        self.drive(connection, slot, &has_begun, None).await;
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, slot: &Slot) {
        let served = self.served(slot, streams::in_turns);
        let has_begun = served.has_begun.clone();
        let live = Arc::new(Live::default());
        let mut http2 = http2::Builder::new(Streams { live: live.clone(), terms: self.writing.clone() });
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(self.read_timeout)
            // A head that does not end holds up every other stream, and the answer to a ping too.
            .keep_alive_timeout(self.read_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(self.max_head_bytes);
        let connection = http2.serve_connection(TokioIo::new(stream), served);
        self.drive(connection, slot, &has_begun, Some(&live)).await;
    }

    fn served(&self, slot: &Slot, shape: fn(Response) -> Response) -> Served {
        let router = TowerToHyperService::new(self.router.clone());
        Served { router, spare: slot.spare().cloned(), has_begun: Arc::default(), shape }
    }

    /// Until the connection ends by itself, or is ended. `live`: the streams of an HTTP/2 connection, which ends when none of them
    /// was there for `server.read-timeout`; hyper looks after HTTP/1.1 itself.
    async fn drive<C: GracefulConnection<Error: std::fmt::Display>>(
        &self,
        connection: C,
        slot: &Slot,
        has_begun: &AtomicBool,
        live: Option<&Live>,
    ) {
        // A token of its own: whoever waits for the common one takes a lock that all connections share.
        let stop = self.writing.stop.child_token();
        let mut connection = pin!(connection);
        let (mut is_stopping, mut is_closing, mut rested) = (false, false, None);
        loop {
            let look = if is_stopping { FAREWELL } else { self.read_timeout / 2 };
            tokio::select! {
                biased;
                served = &mut connection => {
                    // A client that goes away is its own business.
                    if let Err(error) = served {
                        tracing::debug!("A connection ended: {error}");
                    }
                    return;
                }
                () = stop.cancelled(), if !is_stopping => {
                    // A head that is still coming in is not waited for.
                    if !has_begun.load(Relaxed) {
                        return;
                    }
                    (is_stopping, is_closing) = (true, true);
                    connection.as_mut().graceful_shutdown();
                }
                order = slot.order() => match order {
                    Order::Leave => return,
                    Order::WindDown => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                },
                () = tokio::time::sleep(look), if live.is_some() => {
                    let rest = live.and_then(Live::rest);
                    match rest.is_some() && rest == rested {
                        true if is_closing => return,
                        true => {
                            is_closing = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        false => rested = rest,
                    }
                }
            }
        }
    }
}

/// The routes, as one connection asks them.
struct Served {
    router: TowerToHyperService<Router>,
    spare: Option<Arc<Spare>>,
    /// A whole head has come in.
    has_begun: Arc<AtomicBool>,
    shape: fn(Response) -> Response,
}

impl Service<hyper::Request<Incoming>> for Served {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = MapOk<TowerToHyperServiceFuture<Router, hyper::Request<Incoming>>, fn(Response) -> Response>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.has_begun.store(true, Relaxed);
        if let Some(spare) = self.spare.as_ref().filter(|spare| !spare.has_moved()) {
            request.extensions_mut().insert(spare.clone());
        }
        self.router.call(request).map_ok(self.shape)
    }
}
