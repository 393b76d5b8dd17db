//! Reads request bodies, within limits of size and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use ace_store::lines::{Line, Splitter, TooLong};
use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes};

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
    splitter: Splitter,
    piece: Bytes,
    is_at_end: bool,
}

impl Lines {
    /// Reads lines of at most `max` bytes.
    pub(super) fn new(pieces: Pieces, max: usize) -> Self {
        Lines { pieces, splitter: Splitter::new(max), piece: Bytes::new(), is_at_end: false }
    }

    /// The next line that is not empty, and its number, counted from 1. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, ApiError> {
        loop {
            let line = self.next_line().await?;
            let Some(line) = line else { return Ok(None) };
            let Line { number, text } = line.map_err(|error| ApiError::BadRequest(error.to_string()))?;
            let trimmed = text.trim_ascii();
            match trimmed.len() {
                0 => {}
                len if len == text.len() => return Ok(Some((number, text))),
                _ => return Ok(Some((number, trimmed.to_vec()))),
            }
        }
    }

    async fn next_line(&mut self) -> Result<Option<Result<Line, TooLong>>, ApiError> {
        while !self.is_at_end {
            let (taken, line) = self.splitter.push(&self.piece);
            self.piece.advance(taken);
            if line.is_some() {
                return Ok(line);
            }
            if self.piece.is_empty() {
                match self.pieces.next().await? {
                    Some(piece) => self.piece = piece,
                    None => self.is_at_end = true,
                }
            }
        }
        Ok(self.splitter.finish())
    }
}
