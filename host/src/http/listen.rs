//! Connections: how many, how patient, and TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
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
    let builder = Arc::new(builder(settings));
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
        let connection = Connection { builder: builder.clone(), router: router.clone(), permit };
        match tls.clone() {
            None => connection.spawn(stream, &graceful),
            Some(acceptor) => {
                let (watcher, patience) = (graceful.watcher(), settings.read_timeout);
                tokio::spawn(async move {
                    if let Some(stream) = handshake(acceptor, stream, patience).await {
                        connection.run(stream, watcher).await;
                    }
                });
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(settings.drain, graceful.shutdown()).await;
}

fn builder(settings: &config::Server) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.read_timeout)
        .max_buf_size(settings.max_head_bytes)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.read_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(settings.max_head_bytes).unwrap_or(u32::MAX));
    builder
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
    builder: Arc<Builder<TokioExecutor>>,
    router: Router,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    fn spawn(self, stream: TcpStream, graceful: &GracefulShutdown) {
        tokio::spawn(self.run(stream, graceful.watcher()));
    }

    async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        watcher: hyper_util::server::graceful::Watcher,
    ) {
        let service = TowerToHyperService::new(self.router);
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        // A client that goes away is its own business.
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!("A connection ended: {error}");
        }
        drop(self.permit);
    }
}
