//! Reads request bodies, within limits of size and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use ace::message::without_bom;
use axum::body::{Body, HttpBody};
use bytes::Bytes;

use super::client_timeout::ClientTimeout;
use super::problem::ApiError;

/// Reads a body in pieces, within the client's timeout.
pub(super) struct Pieces {
    body: Body,
    client_timeout: ClientTimeout,
}

impl Pieces {
    pub(super) fn new(body: Body, client_timeout: ClientTimeout) -> Self {
        Pieces { body, client_timeout }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let Pieces { body, client_timeout } = self;
            let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => client_timeout.poll_over(cx).map(Err),
            });
            let frame = match frame.await {
                Ok(frame) => frame,
                Err(()) if client_timeout.is_stopping() => return Err(ApiError::stopping()),
                Err(()) => return Err(ApiError::TooSlow),
            };
            let data = match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::BadRequest(format!("the body was cut off: {error}"))),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            client_timeout.used(data.len());
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, if it is not longer than `max` bytes.
    pub(super) async fn whole(mut self, max: usize) -> Result<Vec<u8>, ApiError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > max {
                return Err(ApiError::TooLarge(max));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// Reads a body line by line.
pub(super) struct Lines {
    pieces: Pieces,
    max: usize,
    held: Vec<u8>,
    at: usize,
    number: u64,
    is_at_end: bool,
}

impl Lines {
    /// Reads lines of at most `max` bytes.
    pub(super) fn new(pieces: Pieces, max: usize) -> Self {
        Lines { pieces, max, held: Vec::new(), at: 0, number: 0, is_at_end: false }
    }

    /// The next line that is not empty, and its number, counted from 1. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, ApiError> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.held[self.at..]) {
                let start = self.at;
                self.at += end + 1;
                self.number += 1;
                let line = trimmed(self.number, &self.held[start..start + end]).to_vec();
                if !line.is_empty() {
                    return Ok(Some((self.number, line)));
                }
            }
            self.held.drain(..std::mem::take(&mut self.at));
            if self.is_at_end {
                self.number += 1;
                let line = trimmed(self.number, &std::mem::take(&mut self.held)).to_vec();
                return Ok(Some((self.number, line)).filter(|(_, line)| !line.is_empty()));
            }
            if self.held.len() > self.max {
                let line = self.number + 1;
                return Err(ApiError::BadRequest(format!("line {line} is longer than {} bytes", self.max)));
            }
            match self.pieces.next().await? {
                Some(piece) => self.held.extend_from_slice(&piece),
                None => self.is_at_end = true,
            }
        }
    }
}

/// Removes white space around a line and, from the first line, a byte order mark.
fn trimmed(number: u64, line: &[u8]) -> &[u8] {
    let line = if number == 1 { without_bom(line) } else { line };
    line.trim_ascii()
}
