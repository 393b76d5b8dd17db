//! A provider that speaks HTTP/2 alone.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::{Request, Response};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::{Answer, Seen, State};

/// Serves until the state says that it is over.
pub fn serve(state: Arc<State>, config: Arc<ServerConfig>, listener: TcpListener) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        listener.set_nonblocking(true).expect("set");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let acceptor = TlsAcceptor::from(config);
        while let Ok((socket, _)) = listener.accept().await {
            if state.is_over.load(Ordering::Relaxed) {
                return;
            }
            state.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(connection(state.clone(), acceptor.clone(), socket));
        }
    });
}

/// One connection, with requests side by side. Errors of a client do not concern the server.
async fn connection(state: Arc<State>, acceptor: TlsAcceptor, socket: TcpStream) -> Option<()> {
    let socket = acceptor.accept(socket).await.ok()?;
    let mut connection = h2::server::handshake(socket).await.ok()?;
    let cut = Arc::new(Notify::new());
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let (request, respond) = accepted?.ok()?;
                tokio::spawn(exchange(state.clone(), cut.clone(), request, respond));
            }
            () = cut.notified() => return None,
        }
    }
}

async fn exchange(
    state: Arc<State>,
    cut: Arc<Notify>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<()> {
    match state.answer(read(request).await?) {
        Answer::Silence => std::future::pending().await,
        Answer::Cut => cut.notify_one(),
        Answer::CutMidway => {
            let mut stream = respond.send_response(Response::new(()), false).ok()?;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        Answer::Reply { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name.to_lowercase(), value);
            }
            let mut stream = respond.send_response(response.body(()).ok()?, body.is_empty()).ok()?;
            if !body.is_empty() {
                stream.send_data(body.into(), true).ok()?;
            }
        }
    }
    Some(())
}

async fn read(request: Request<RecvStream>) -> Option<Seen> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.ok()?;
        stream.flow_control().release_capacity(chunk.len()).ok()?;
        body.extend_from_slice(&chunk);
    }
    let headers = head.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let path = head.uri.path_and_query()?;
    Some(Seen::new(format!("{} {path} HTTP/2", head.method), headers.collect(), body))
}
