//! A rate limit that no span of its length ever exceeds, and that a backlog of bulk messages uses to at least 95 %.
//!
//! Two rules stand behind each other. The *window* is the promise: the admissions of the last `per` are kept, and where there are
//! `count` of them nobody is admitted before the oldest is that old. The *pace* is for bulk alone: it spreads bulk evenly at 97 % of the
//! rate (the rest stays for transactional messages), by the moment from which the next one is due, as the generic cell rate
//! algorithm does. A message that comes late moves that moment by no more than the rate allows, so that late wake-ups are caught up.
//!
//! A refused message is told when to come back. Each gets a moment of its own; one that comes back at its moment and still finds no
//! room goes before those that are told for the first time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// Of a rate's count, so many in a hundred are not for bulk.
const RESERVE_PERCENT: u32 = 3;
/// How much lateness of bulk is made up for, by using the whole rate for a while. The window leaves no room for more: of what a stall
/// of the whole machine costs, all but the 3 % a second is lost whatever this is. A larger one would only let bulk burst after a rest.
const CATCH_UP: Duration = Duration::from_millis(250);
/// Admissions within this part of the rate's length are kept as one, dated as the latest of them.
const LOG_PARTS: u32 = 4_096;
/// A refused message asks again after so long at most: the rate may have been raised, or the others may be gone.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10 * 60);
/// Room is kept so long for a transactional message after the moment it was told.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// What asks to be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whether the message is transactional.
    pub is_transactional: bool,
    /// It was refused before, and comes back when it was told to.
    pub is_back: bool,
}

/// Admissions that are kept as one.
#[derive(Debug, Clone, Copy)]
struct Admissions {
    first: Instant,
    last: Instant,
    n: u32,
}

/// Counts admissions on a monotonic clock, which is passed in.
pub(super) struct RateLimiter {
    count: u32,
    per: Duration,
    /// Those of the last `per`, the oldest first.
    log: VecDeque<Admissions>,
    /// How many the log holds.
    admitted: u32,
    /// The time between two bulk messages.
    interval: Duration,
    /// The next bulk message is due then.
    due: Option<Instant>,
    /// The moments told last: to messages that came for the first time, and to those that had come back.
    told: [Option<Instant>; 2],
    /// Transactional messages that were refused and have not come back yet, and until when room is kept for them.
    expected: Option<(u32, Instant)>,
}

impl RateLimiter {
    /// What `before` admitted counts on, so that a changed rate is kept from its first moment.
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
            told: [None; 2],
            expected: None,
        }
    }

    /// Admits a message now, or says when it is to come back.
    ///
    /// # Errors
    ///
    /// The moment to ask again, where there is no room now.
    pub(super) fn admit(&mut self, entry: Entry, now: Instant) -> Result<(), Instant> {
        self.forget_before(now);
        let earliest = self.earliest(entry, now);
        if earliest > now {
            return Err(self.come_back(entry, earliest, now));
        }
        if entry.is_transactional {
            self.expected = self.expected.and_then(|(n, until)| (n > 1).then(|| (n - 1, until)));
        } else {
            let due = self.due.unwrap_or(now);
            let caught_up = now.checked_sub(self.interval.max(CATCH_UP)).unwrap_or(now);
            self.due = Some(due.max(caught_up) + self.interval);
        }
        self.log(now);
        Ok(())
    }

    /// Drops what no window that ends now or later holds.
    fn forget_before(&mut self, now: Instant) {
        while let Some(oldest) = self.log.front().filter(|oldest| oldest.last + self.per <= now) {
            self.admitted -= oldest.n;
            self.log.pop_front();
        }
        self.expected = self.expected.filter(|(_, until)| *until >= now);
    }

    /// When there is room for it as things stand.
    fn earliest(&self, entry: Entry, now: Instant) -> Instant {
        let expected = self.expected.filter(|_| !entry.is_transactional).map_or(0, |(n, _)| n);
        // After so many of the oldest are out of the window, one more fits.
        let mut in_the_way = (self.admitted + expected + 1).saturating_sub(self.count);
        let mut earliest = now;
        for admissions in &self.log {
            if in_the_way == 0 {
                break;
            }
            earliest = earliest.max(admissions.last + self.per);
            in_the_way = in_the_way.saturating_sub(admissions.n);
        }
        if in_the_way > 0 {
            // Those that are expected take all there is.
            earliest = earliest.max(now + self.interval);
        }
        let due = self.due.filter(|_| !entry.is_transactional);
        due.map_or(earliest, |due| earliest.max(due))
    }

    fn come_back(&mut self, entry: Entry, earliest: Instant, now: Instant) -> Instant {
        let told = &mut self.told[usize::from(entry.is_back)];
        let own = told.map_or(earliest, |told| told + self.interval);
        let at = own.min(now + ASK_AGAIN_MAX).max(earliest);
        *told = Some(at);
        if entry.is_transactional {
            let n = self.expected.map_or(0, |(n, _)| n) + u32::from(!entry.is_back);
            self.expected = Some((n.clamp(1, self.count), at + KEPT_FOR));
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
