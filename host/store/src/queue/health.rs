//! The health of the store, as reported by `/readyz`: when the last write and claim succeeded, since when and why they fail, and which
//! parts of the file are damaged. A failure is logged when it starts, once a minute while it lasts, and when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a continuing failure is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Consecutive messages that are rejected, each for its own reason, before that counts as "no message can be accepted".
const REFUSED_MAX: u32 = 3;
/// How long that counts after the last rejection, so that a server that was taken out of rotation gets requests again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The health of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How long ago the last write was committed; `None`: none since the start.
    pub last_write: Option<Duration>,
    /// How long ago the last claim succeeded; `None`: none since the start.
    pub last_claim: Option<Duration>,
    /// Since when and why no message can be accepted, if so.
    pub writes: Option<Failing>,
    /// Since when and why no message can be claimed, if so.
    pub claims: Option<Failing>,
    /// Damaged parts of the file, each with the error and its consequence.
    pub damaged: Vec<String>,
}

/// An operation that keeps failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// For how long it has failed.
    pub since: Duration,
    /// The last error.
    pub reason: String,
}

/// Tracks the health of the store.
#[derive(Default)]
pub(super) struct HealthTracker(Mutex<Operations>);

#[derive(Default)]
struct Operations {
    writes: Operation,
    claims: Operation,
    accepts: Operation,
    room: Operation,
    damaged: BTreeMap<&'static str, String>,
}

/// The state of one kind of operation.
#[derive(Default)]
struct Operation {
    last: Option<Instant>,
    failing: Option<Failure>,
}

struct Failure {
    since: Instant,
    last: Instant,
    logged: Instant,
    times: u32,
    reason: String,
}

impl Operation {
    /// The operation succeeded. Returns for how long it had failed before.
    fn succeeded(&mut self) -> Option<Duration> {
        self.last = Some(Instant::now());
        self.failing.take().map(|failure| failure.since.elapsed())
    }

    /// The operation failed. Returns whether to log it.
    fn failed(&mut self, reason: &str) -> bool {
        let now = Instant::now();
        let Some(failure) = &mut self.failing else {
            self.failing = Some(Failure { since: now, last: now, logged: now, times: 1, reason: reason.to_owned() });
            return true;
        };
        let is_news = failure.reason != reason || now.duration_since(failure.logged) > LOG_AGAIN;
        if is_news {
            (failure.logged, failure.reason) = (now, reason.to_owned());
        }
        (failure.last, failure.times) = (now, failure.times.saturating_add(1));
        is_news
    }

    fn failing(&self) -> Option<Failing> {
        self.failing.as_ref().map(|f| Failing { since: f.since.elapsed(), reason: f.reason.clone() })
    }
}

impl HealthTracker {
    fn state(&self) -> MutexGuard<'_, Operations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was committed.
    pub(super) fn written(&self) {
        if let Some(after) = self.state().writes.succeeded() {
            tracing::warn!("The queue can be written again after {after:.0?}.");
        }
    }

    /// A write failed.
    pub(super) fn write_failed(&self, reason: &str) {
        if self.state().writes.failed(reason) {
            tracing::error!("The queue cannot be written; new messages are rejected until it can: {reason}");
        }
    }

    pub(super) fn claimed(&self) {
        if let Some(after) = self.state().claims.succeeded() {
            tracing::warn!("Messages can be claimed again after {after:.0?}.");
        }
    }

    pub(super) fn claim_failed(&self, reason: &str) {
        if self.state().claims.failed(reason) {
            tracing::error!("Messages cannot be claimed, so none are sent; retrying twice a second: {reason}");
        }
    }

    /// The disk is full; only messages that were accepted are processed, with the reserve.
    pub(super) fn no_room(&self, reason: &str) {
        if self.state().room.failed(reason) {
            tracing::error!("The queue accepts no messages: {reason}");
        }
    }

    pub(super) fn has_room(&self) {
        if let Some(after) = self.state().room.succeeded() {
            tracing::warn!("There is space on the disk again after {after:.0?}; messages are accepted again.");
        }
    }

    pub(super) fn accepted(&self) {
        self.state().accepts.succeeded();
    }

    /// A message could not be accepted, perhaps because of its content.
    pub(super) fn accept_failed(&self, reason: &str) {
        if self.state().accepts.failed(reason) {
            tracing::error!("A message could not be accepted, so its request failed: {reason}");
        }
    }

    /// A part of the file is damaged. Logged once.
    pub(super) fn damaged(&self, part: &'static str, consequence: &str, reason: &str) {
        let line = format!("{part}: {reason}; {consequence}");
        if self.state().damaged.insert(part, line.clone()).is_none() {
            tracing::error!("The queue's file is damaged. {line}. Restore a backup when possible.");
        }
    }

    /// Whether to make a write that checks whether writes work again.
    pub(super) fn wants_probe(&self) -> bool {
        self.state().writes.failing.is_some()
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        let is_refusing = |f: &&Failure| f.times >= REFUSED_MAX && f.last.elapsed() < REFUSED_FOR;
        let refusing = state.accepts.failing.as_ref().filter(is_refusing).and_then(|_| state.accepts.failing());
        let ago = |operation: &Operation| operation.last.map(|last| last.elapsed());
        Health {
            last_write: ago(&state.writes),
            last_claim: ago(&state.claims),
            writes: state.writes.failing().or(state.room.failing()).or(refusing),
            claims: state.claims.failing(),
            damaged: state.damaged.values().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_and_ends_with_a_success() {
        let mut operation = Operation::default();
        assert!(operation.failed("full") && !operation.failed("full") && operation.failed("locked"));
        assert_eq!(operation.failing().map(|f| f.reason), Some("locked".to_owned()));
        assert!(operation.succeeded().is_some() && operation.succeeded().is_none());
        assert_eq!((operation.failing(), operation.last.is_some()), (None, true));
    }

    #[test]
    fn one_refused_message_does_not_make_the_store_unhealthy() {
        let health = HealthTracker::default();
        health.accept_failed("its page");
        health.accepted();
        for _ in 0..REFUSED_MAX - 1 {
            health.accept_failed("its page");
        }
        assert_eq!(health.health().writes, None);
        health.accept_failed("its page");
        assert_eq!(health.health().writes.map(|f| f.reason), Some("its page".to_owned()));
        health.accepted();
        assert_eq!(health.health().writes, None);
    }
}
