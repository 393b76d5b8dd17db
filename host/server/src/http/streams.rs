//! HTTP/2 streams. A client that never opens a stream's window holds up nothing that is written to the connection, so each stream
//! has a timeout of its own; one that takes too long is reset, and the others of its connection continue.

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

use super::client_timeout::{ClientTimeout, Terms};

/// Bytes of a body that a connection is given at once, so that what it holds is bounded, and what the client takes shows.
const PIECE: usize = 16 * 1024;

tokio::task_local! {
    /// The stream that the task is for.
    static STREAM: Arc<Turn>;
}

/// Whose turn it is in a stream.
#[derive(Default)]
struct Turn {
    /// A piece of the body was sent, and the client has not received it.
    is_clients: AtomicBool,
    /// Bytes that it has received and that are not counted yet.
    received: AtomicUsize,
}

/// The streams of one connection that are being answered.
#[derive(Default)]
pub(super) struct Live {
    now: AtomicUsize,
    ever: AtomicU64,
}

impl Live {
    /// Whether nothing is being answered, and how many streams there were.
    pub(super) fn rest(&self) -> Option<u64> {
        (self.now.load(Relaxed) == 0).then(|| self.ever.load(Relaxed))
    }
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams {
    pub live: Arc<Live>,
    pub terms: Arc<Terms>,
}

impl<F: Future + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (turn, client_timeout) = (Arc::new(Turn::default()), ClientTimeout::new(self.terms.clone()));
        self.live.now.fetch_add(1, Relaxed);
        self.live.ever.fetch_add(1, Relaxed);
        let answered = Answered(self.live.clone());
        tokio::spawn(STREAM.scope(turn.clone(), async move {
            let _answered = answered;
            watched(stream, &turn, client_timeout).await;
        }));
    }
}

/// One stream fewer is live when it is dropped.
struct Answered(Arc<Live>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

/// Until the stream is at its end, or its client takes too long: then it is dropped, which resets it.
async fn watched(stream: impl Future, turn: &Turn, mut client_timeout: ClientTimeout) {
    let mut stream = pin!(stream);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match turn.received.swap(0, Relaxed) {
            0 if turn.is_clients.load(Relaxed) => {}
            received => client_timeout.used(received),
        }
        if turn.is_clients.load(Relaxed) { client_timeout.poll_over(cx) } else { Poll::Pending }
    })
    .await;
}

/// An answer whose body goes out in pieces, and says when the client takes them.
pub(super) fn in_turns(response: Response) -> Response {
    let turn = STREAM.try_with(Arc::clone).ok();
    response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), given: 0, turn }))
}

/// A long answer in pieces, so that a connection holds no more of it than it can send; others stay as they are.
pub(super) fn in_pieces(response: Response) -> Response {
    if response.body().size_hint().lower() > PIECE as u64 * 4 {
        response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), given: 0, turn: None }))
    } else {
        response
    }
}

struct Pieces {
    body: Body,
    /// What is left of the frame that came last.
    rest: Bytes,
    /// Bytes of the previous piece, which the client has received when the next one is requested.
    given: usize,
    turn: Option<Arc<Turn>>,
}

impl Pieces {
    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        self.given = piece.len();
        if let Some(turn) = self.turn.as_ref().filter(|_| !piece.is_empty()) {
            turn.is_clients.store(true, Relaxed);
        }
        Frame::data(piece)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(turn) = &self.turn {
            turn.is_clients.store(false, Relaxed);
            turn.received.fetch_add(self.given, Relaxed);
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
