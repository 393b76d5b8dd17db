//! HTTP/2 streams. A client that never opens a stream's window does not block writes to the connection, so each stream has a timeout of
//! its own. A stream that takes too long is reset; the others of its connection continue.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;

use super::client_timeout::{ClientLimits, ClientTimeout};

/// Bytes of a body that a connection gets at once, so that its buffer is bounded, and the client's progress is visible.
const PIECE: usize = 16 * 1024;

tokio::task_local! {
    /// The stream that the task serves.
    static STREAM: Arc<StreamState>;
}

/// The progress of one stream.
#[derive(Default)]
struct StreamState {
    /// A piece of the body was sent, and the client has not received it yet.
    awaits_client: AtomicBool,
    /// Bytes that the client has received and that are not counted yet.
    received: AtomicUsize,
}

/// The streams of one connection that are being answered.
#[derive(Default)]
pub(super) struct ActiveStreams {
    active: AtomicUsize,
    total: AtomicU64,
}

impl ActiveStreams {
    /// If no stream is active, the number of streams so far: the connection was idle between two calls that return the same.
    pub(super) fn idle_at(&self) -> Option<u64> {
        (self.active.load(Relaxed) == 0).then(|| self.total.load(Relaxed))
    }
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams {
    pub active: Arc<ActiveStreams>,
    pub limits: Arc<ClientLimits>,
}

impl<F: Future + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (state, client_timeout) = (Arc::new(StreamState::default()), ClientTimeout::new(self.limits.clone()));
        self.active.active.fetch_add(1, Relaxed);
        self.active.total.fetch_add(1, Relaxed);
        let guard = ActiveGuard(self.active.clone());
        tokio::spawn(STREAM.scope(state.clone(), async move {
            let _guard = guard;
            with_timeout(stream, &state, client_timeout).await;
        }));
    }
}

/// Counts its stream as no longer active when it is dropped.
struct ActiveGuard(Arc<ActiveStreams>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Runs a stream until it ends, or its client takes too long. Dropping the stream then resets it.
async fn with_timeout(stream: impl Future, state: &StreamState, mut client_timeout: ClientTimeout) {
    let mut stream = pin!(stream);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match state.received.swap(0, Relaxed) {
            0 if state.awaits_client.load(Relaxed) => {}
            received => client_timeout.used(received),
        }
        if state.awaits_client.load(Relaxed) { client_timeout.poll_over(cx) } else { Poll::Pending }
    })
    .await;
}

/// Sends a response's body in pieces, and tracks when the client receives them.
pub(super) fn in_tracked_pieces(response: Response) -> Response {
    let state = STREAM.try_with(Arc::clone).ok();
    response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), given: 0, state }))
}

/// Sends a long body in pieces, so that a connection buffers no more of it than it can send. Short bodies are sent as they are.
pub(super) fn in_pieces(response: Response) -> Response {
    if response.body().size_hint().lower() > PIECE as u64 * 4 {
        response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), given: 0, state: None }))
    } else {
        response
    }
}

struct Pieces {
    body: Body,
    /// The rest of the last frame.
    rest: Bytes,
    /// Bytes of the previous piece, which the client has received when the next one is requested.
    given: usize,
    state: Option<Arc<StreamState>>,
}

impl Pieces {
    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.given = piece.len();
        if let Some(state) = self.state.as_ref().filter(|_| !piece.is_empty()) {
            state.awaits_client.store(true, Relaxed);
        }
        Frame::data(piece)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(state) = &self.state {
            state.awaits_client.store(false, Relaxed);
            state.received.fetch_add(self.given, Relaxed);
        }
        self.given = 0;
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    Poll::Ready(Some(Ok(self.piece())))
                }
                Err(other) => Poll::Ready(Some(Ok(other))),
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
