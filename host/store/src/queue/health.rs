//! Health of the store, as reported by `/readyz`: when the last write and claim succeeded, since when they fail and why, and which
//! parts of the file are damaged. Each failure is logged once when it starts, once a minute while it lasts, and once when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a failure that lasts is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Consecutive messages refused, each for a reason of its own, before that counts as "no message can be accepted".
const REFUSED_MAX: u32 = 3;
/// How long that counts after the last refusal, so that a server that was taken out of rotation gets requests again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The health of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How long ago a write was committed; `None`: not since the start.
    pub last_write: Option<Duration>,
    /// How long ago a claim succeeded; `None`: not since the start.
    pub last_claim: Option<Duration>,
    /// No message can be accepted.
    pub writes: Option<Failing>,
    /// No message can be claimed.
    pub claims: Option<Failing>,
    /// Damaged parts of the file, and what was found there.
    pub damaged: Vec<String>,
}

/// An operation that keeps failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// For how long it has.
    pub since: Duration,
    /// Why, the last time.
    pub reason: String,
}

/// Collects what [`Health`] reports.
#[derive(Default)]
pub(super) struct Pulse(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    writes: Course,
    claims: Course,
    accepts: Course,
    room: Course,
    damaged: BTreeMap<&'static str, String>,
}

/// The course of one repeated operation.
#[derive(Default)]
struct Course {
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

impl Course {
    /// The operation succeeded. Returns how long it had failed before.
    fn went(&mut self) -> Option<Duration> {
        self.last = Some(Instant::now());
        self.failing.take().map(|failure| failure.since.elapsed())
    }

    /// The operation failed. Returns whether to log that.
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

impl Pulse {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was committed.
    pub fn written(&self) {
        if let Some(after) = self.kept().writes.went() {
            tracing::warn!("The queue can be written again, after {after:.0?}.");
        }
    }

    /// Nothing can be written now.
    pub fn write_failed(&self, reason: &str) {
        if self.kept().writes.failed(reason) {
            tracing::error!("The queue cannot be written; new messages are refused until it can be: {reason}");
        }
    }

    pub fn claimed(&self) {
        if let Some(after) = self.kept().claims.went() {
            tracing::warn!("Messages can be claimed again, after {after:.0?}.");
        }
    }

    pub fn claim_failed(&self, reason: &str) {
        if self.kept().claims.failed(reason) {
            tracing::error!("No message can be claimed, so none is sent; trying again twice a second: {reason}");
        }
    }

    /// The disk is full; only messages that were accepted are processed, from the reserve.
    pub fn no_room(&self, reason: &str) {
        if self.kept().room.failed(reason) {
            tracing::error!("The queue accepts nothing: {reason}");
        }
    }

    pub fn has_room(&self) {
        if let Some(after) = self.kept().room.went() {
            tracing::warn!("There is room on the disk again, after {after:.0?}; messages are accepted again.");
        }
    }

    pub fn accepted(&self) {
        self.kept().accepts.went();
    }

    /// A message could not be accepted, for a reason that may be its own.
    pub fn accept_failed(&self, reason: &str) {
        if self.kept().accepts.failed(reason) {
            tracing::error!("A message could not be accepted, and its request failed: {reason}");
        }
    }

    /// A part of the file is damaged. It is logged once.
    pub fn damaged(&self, part: &'static str, consequence: &str, reason: &str) {
        let line = format!("{part}: {reason}; {consequence}");
        if self.kept().damaged.insert(part, line.clone()).is_none() {
            tracing::error!("The queue's file is damaged. {line}. Restore a backup when you can.");
        }
    }

    /// Whether to write only to find out whether writes work again.
    pub fn wants_probe(&self) -> bool {
        self.kept().writes.failing.is_some()
    }

    pub fn health(&self) -> Health {
        let kept = self.kept();
        let is_refusing = |f: &&Failure| f.times >= REFUSED_MAX && f.last.elapsed() < REFUSED_FOR;
        let refusing = kept.accepts.failing.as_ref().filter(is_refusing).and_then(|_| kept.accepts.failing());
        let ago = |course: &Course| course.last.map(|last| last.elapsed());
        Health {
            last_write: ago(&kept.writes),
            last_claim: ago(&kept.claims),
            writes: kept.writes.failing().or(kept.room.failing()).or(refusing),
            claims: kept.claims.failing(),
            damaged: kept.damaged.values().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_and_ends_with_the_next_success() {
        let mut course = Course::default();
        assert!(course.failed("full") && !course.failed("full") && course.failed("locked"));
        assert_eq!(course.failing().map(|f| f.reason), Some("locked".to_owned()));
        assert!(course.went().is_some() && course.went().is_none());
        assert_eq!((course.failing(), course.last.is_some()), (None, true));
    }

    #[test]
    fn one_refused_message_does_not_make_the_store_unhealthy() {
        let pulse = Pulse::default();
        pulse.accept_failed("its page");
        pulse.accepted();
        for _ in 0..REFUSED_MAX - 1 {
            pulse.accept_failed("its page");
        }
        assert_eq!(pulse.health().writes, None);
        pulse.accept_failed("its page");
        assert_eq!(pulse.health().writes.map(|f| f.reason), Some("its page".to_owned()));
        pulse.accepted();
        assert_eq!(pulse.health().writes, None);
    }
}
