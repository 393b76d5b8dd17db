//! A rate limiter: no interval of the rate's length ever has more messages than the rate allows, and a backlog of bulk messages uses
//! at least 95 % of it.
//!
//! Two rules apply. A sliding window guarantees the limit: it records the admissions of the last `per`, and when there are `count`
//! of them, nothing is admitted before the oldest expires. A GCRA limiter (generic cell rate algorithm) spreads bulk messages evenly
//! at 97 % of the rate; the rest is reserved for transactional messages. If messages arrive late, it catches up as far as the window
//! allows.
//!
//! A deferred message gets a time at which to return, different from the times of others. If it returns then and still cannot be
//! admitted, it has priority over messages that arrive for the first time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// The percentage of a rate that is reserved for transactional messages.
const RESERVE_PERCENT: u32 = 3;
/// How much delay of bulk messages is caught up, by using the reserved part for a while. More would only allow bursts after a pause:
/// the window limits catching up to 3 % of the rate anyway.
const CATCH_UP: Duration = Duration::from_millis(250);
/// Admissions within the rate's length divided by this are recorded as one, with the time of the latest.
const LOG_PARTS: u32 = 4_096;
/// A deferred message returns after at most this time, because the rate may have been raised, or other messages may be gone.
const DEFERRAL_MAX: Duration = Duration::from_secs(10 * 60);
/// How long room is reserved for a transactional message after the time at which it should return.
const RESERVED_FOR: Duration = Duration::from_secs(1);

/// A message that arrives at the limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Whether the message is transactional.
    pub is_transactional: bool,
    /// It was deferred before, and returns at its time.
    pub is_returning: bool,
}

/// Admissions that are recorded as one.
#[derive(Debug, Clone, Copy)]
struct Admissions {
    first: Instant,
    last: Instant,
    n: u32,
}

/// Limits admissions. The monotonic time is passed in.
pub(super) struct RateLimiter {
    count: u32,
    per: Duration,
    /// The admissions of the last `per`, the oldest first.
    log: VecDeque<Admissions>,
    /// How many messages `log` contains.
    admitted: u32,
    /// The time between two bulk messages.
    interval: Duration,
    /// When the next bulk message may be admitted.
    due: Option<Instant>,
    /// The latest times given to messages that arrived for the first time, and to those that had returned.
    assigned: [Option<Instant>; 2],
    /// Deferred transactional messages that have not returned yet, and until when room is reserved for them.
    expected: Option<(u32, Instant)>,
}

impl RateLimiter {
    /// Creates a limiter. What `before` admitted still counts, so that a changed rate is enforced immediately.
    pub(super) fn new(rate: &Rate, before: Option<&RateLimiter>) -> Self {
        let bulk = rate.count - rate.count * RESERVE_PERCENT / 100;
        let (log, admitted) = before.map_or_else(Default::default, |before| (before.log.clone(), before.admitted));
        let interval = rate.per / bulk;
        RateLimiter {
            count: rate.count,
            per: rate.per,
            log,
            admitted,
            interval,
            due: None,
            assigned: [None; 2],
            expected: None,
        }
    }

    /// Admits a message now, or defers it.
    ///
    /// # Errors
    /// The message is deferred until this time.
    pub(super) fn admit(&mut self, arrival: Arrival, now: Instant) -> Result<(), Instant> {
        self.expire(now);
        let earliest = self.earliest(arrival, now);
        if earliest > now {
            return Err(self.defer(arrival, earliest, now));
        }
        if arrival.is_transactional {
            self.expected = self.expected.and_then(|(n, until)| (n > 1).then(|| (n - 1, until)));
        } else {
            let due = self.due.unwrap_or(now);
            let caught_up = now.checked_sub(self.interval.max(CATCH_UP)).unwrap_or(now);
            self.due = Some(due.max(caught_up) + self.interval);
        }
        self.log(now);
        Ok(())
    }

    /// Drops admissions and reservations that have expired.
    fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.log.front().filter(|oldest| oldest.last + self.per <= now) {
            self.admitted -= oldest.n;
            self.log.pop_front();
        }
        self.expected = self.expected.filter(|(_, until)| *until >= now);
    }

    /// When the message could be admitted.
    fn earliest(&self, arrival: Arrival, now: Instant) -> Instant {
        let expected = self.expected.filter(|_| !arrival.is_transactional).map_or(0, |(n, _)| n);
        // This many of the oldest must leave the window first.
        let mut excess = (self.admitted + expected + 1).saturating_sub(self.count);
        let mut earliest = now;
        for admissions in &self.log {
            if excess == 0 {
                break;
            }
            earliest = earliest.max(admissions.last + self.per);
            excess = excess.saturating_sub(admissions.n);
        }
        if excess > 0 {
            // The window is full of reservations.
            earliest = earliest.max(now + self.interval);
        }
        let due = self.due.filter(|_| !arrival.is_transactional);
        due.map_or(earliest, |due| earliest.max(due))
    }

    fn defer(&mut self, arrival: Arrival, earliest: Instant, now: Instant) -> Instant {
        let assigned = &mut self.assigned[usize::from(arrival.is_returning)];
        let own = assigned.map_or(earliest, |assigned| assigned + self.interval);
        let at = own.min(now + DEFERRAL_MAX).max(earliest);
        *assigned = Some(at);
        if arrival.is_transactional {
            let n = self.expected.map_or(0, |(n, _)| n) + u32::from(!arrival.is_returning);
            self.expected = Some((n.clamp(1, self.count), at + RESERVED_FOR));
        }
        at
    }

    fn log(&mut self, now: Instant) {
        self.admitted += 1;
        match self.log.back_mut().filter(|latest| now.duration_since(latest.first) < self.per / LOG_PARTS) {
            Some(latest) => (latest.last, latest.n) = (now, latest.n + 1),
            None => self.log.push_back(Admissions { first: now, last: now, n: 1 }),
        }
    }
}

#[cfg(test)]
mod tests;
