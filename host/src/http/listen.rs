//! Connections: how many, how patient, and TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config;

/// After an accept that failed (no file descriptor left, say).
const PAUSE: Duration = Duration::from_millis(50);
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;

/// Serves connections until `stop`, then waits for their requests, at most so long.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    settings: &config::Server,
    stop: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(settings.connections));
    let graceful = GracefulShutdown::new();
    let protocols = Arc::new(Protocols::new(settings));
    loop {
        let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("A connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Answers are small: waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let connection =
            Connection { protocols: protocols.clone(), router: router.clone(), watcher: graceful.watcher(), permit };
        match tls.clone() {
            None => drop(tokio::spawn(connection.run(stream, false))),
            Some(acceptor) => {
                let patience = settings.read_timeout;
                tokio::spawn(async move {
                    if let Some(stream) = handshake(acceptor, stream, patience).await {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        connection.run(stream, is_http2).await;
                    }
                });
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(settings.drain, graceful.shutdown()).await;
}

/// How each protocol is spoken. Which one it is TLS has settled; without TLS it is HTTP/1.1.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new(settings: &config::Server) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(settings.read_timeout)
            .max_buf_size(settings.max_head_bytes)
            .pipeline_flush(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.read_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX));
        Protocols { http1, http2 }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    patience: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!("A TLS handshake failed: {error}");
            None
        }
        Err(_) => None,
    }
}

struct Connection {
    protocols: Arc<Protocols>,
    router: Router,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool) {
        let Connection { protocols, router, watcher, permit } = self;
        let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
        let served = match is_http2 {
            true => watcher.watch(protocols.http2.serve_connection(io, service)).await,
            false => watcher.watch(protocols.http1.serve_connection(io, service)).await,
        };
        // A client that goes away is its own business.
        if let Err(error) = served {
            tracing::debug!("A connection ended: {error}");
        }
        drop(permit);
    }
}
