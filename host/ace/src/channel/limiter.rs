//! Enforces the quotas of channels: concurrency and rate from `[channels.NAME]`, and pauses that providers request (Retry-After).
//! Time is passed in.
//!
//! Transactional messages have priority over bulk: one of several slots and a part of each rate are reserved for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use super::rate_limiter::Arrival;
use super::rate_limiter::RateLimiter;
use crate::config;

/// How long a message waits for a free slot before it is deferred, so that others get a turn.
const SLOT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest pause that a provider can request; after it, another message is tried.
pub const PROVIDER_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// The limiters of the channels, by name.
pub type ChannelLimiters = BTreeMap<String, Arc<ChannelLimiter>>;

/// A limiter for each of these channels. What the previous limiter admitted still counts.
pub fn channel_limiters<'a>(
    channels: impl IntoIterator<Item = &'a str>,
    settings: &BTreeMap<String, config::Channel>,
    before: &ChannelLimiters,
) -> ChannelLimiters {
    let limiter = |name: &str| {
        let settings = settings.get(name).cloned().unwrap_or_default();
        let before = before.get(name);
        let kept = before.filter(|limiter| limiter.settings == settings).cloned();
        (name.to_owned(), kept.unwrap_or_else(|| Arc::new(ChannelLimiter::new(settings, before.map(Arc::as_ref)))))
    };
    channels.into_iter().map(limiter).collect()
}

/// Limits the messages of one channel.
pub struct ChannelLimiter {
    /// The channel's settings.
    pub settings: config::Channel,
    slots: Option<Slots>,
    rate_limiter: Option<Mutex<RateLimiter>>,
    /// The start of the times in its log events.
    created: Instant,
    /// When the pause that the provider requested ends, in milliseconds since 1970.
    paused_until: AtomicI64,
}

/// Why a message is deferred, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// When to try again.
    pub at: Timestamp,
    /// What it waits for.
    pub why: &'static str,
}

/// Permission to use a channel, which ends when this is dropped.
#[derive(Default)]
pub struct ChannelPermit {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

struct Slots {
    all: Arc<Semaphore>,
    /// Bulk messages need one of these too: one slot fewer, if there is more than one.
    bulk: Arc<Semaphore>,
}

impl ChannelLimiter {
    fn new(settings: config::Channel, before: Option<&ChannelLimiter>) -> Self {
        let slots = settings.concurrency.map(|slots| Slots {
            all: Arc::new(Semaphore::new(slots)),
            bulk: Arc::new(Semaphore::new(slots.saturating_sub(1).max(1))),
        });
        let before = before.and_then(|limiter| limiter.rate_limiter.as_ref()).map(locked);
        let rate_limiter = settings.rate.as_ref().map(|rate| Mutex::new(RateLimiter::new(rate, before.as_deref())));
        ChannelLimiter {
            settings,
            slots,
            rate_limiter,
            created: Instant::now(),
            paused_until: AtomicI64::new(i64::MIN),
        }
    }

    /// Defers all messages for a pause that the provider requested, at most [`PROVIDER_PAUSE_MAX`].
    pub fn pause(&self, pause: Duration, now: Timestamp) {
        let until = later(now, pause.min(PROVIDER_PAUSE_MAX));
        self.paused_until.fetch_max(until.as_millisecond(), Ordering::Relaxed);
    }

    /// When the current pause ends, if there is one.
    fn pause_end(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.paused_until.load(Ordering::Relaxed);
        if until <= now.as_millisecond() {
            return None;
        }
        let until = Timestamp::from_millisecond(until).ok()?;
        // A clock that was set back must not stop the channel.
        if until > later(now, PROVIDER_PAUSE_MAX) {
            self.paused_until.store(i64::MIN, Ordering::Relaxed);
            return None;
        }
        Some(until)
    }

    /// Waits a moment for a free slot, then applies the rate limit, on a monotonic clock.
    pub async fn acquire(&self, arrival: Arrival, now: Timestamp) -> Result<ChannelPermit, Deferral> {
        if let Some(at) = self.pause_end(now) {
            return Err(Deferral { at, why: "waiting for the provider's Retry-After" });
        }
        let started = Instant::now();
        let quota = |pause| Deferral { at: later(now, pause), why: "its quota is used up ([channels])" };
        let permit = match self.slots {
            None => ChannelPermit::default(),
            Some(_) => match tokio::time::timeout(SLOT_TIMEOUT, self.acquire_slot(arrival.is_transactional)).await {
                Ok(permit) => permit,
                Err(_) => return Err(quota(SLOT_TIMEOUT)),
            },
        };
        if let Some(rate_limiter) = &self.rate_limiter {
            let (admitted_at, admitted) = {
                let mut limiter = locked(rate_limiter);
                // Read under the lock, so that the limiter's times never decrease.
                let now = Instant::now();
                (now, limiter.admit(arrival, now))
            };
            admitted.map_err(|at| quota(at.duration_since(started)))?;
            let at_us = admitted_at.duration_since(self.created).as_micros() as u64;
            tracing::trace!(at_us, "Admitted a message within its channel's rate");
        }
        Ok(permit)
    }

    async fn acquire_slot(&self, is_transactional: bool) -> ChannelPermit {
        let Some(slots) = &self.slots else { return ChannelPermit::default() };
        let bulk = if is_transactional { None } else { slots.bulk.clone().acquire_owned().await.ok() };
        ChannelPermit { _permits: [bulk, slots.all.clone().acquire_owned().await.ok()] }
    }
}

fn locked(limiter: &Mutex<RateLimiter>) -> MutexGuard<'_, RateLimiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Rate;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("in range")
    }

    fn arrival(is_transactional: bool) -> Arrival {
        Arrival { is_transactional, is_returning: false }
    }

    #[tokio::test]
    async fn bulk_leaves_a_slot_for_transactional_messages() {
        let limiter = ChannelLimiter::new(config::Channel { concurrency: Some(2), ..Default::default() }, None);
        let acquire = |is_transactional| limiter.acquire(arrival(is_transactional), at(0)).now_or_never();
        let bulk = acquire(false).expect("the first slot");
        assert!(acquire(false).is_none(), "the second is reserved");
        let transactional = acquire(true).expect("the reserved slot");
        assert!(acquire(true).is_none(), "there are two");
        drop((bulk, transactional));
        assert!(acquire(false).is_some(), "free again");
    }

    #[tokio::test]
    async fn a_message_is_deferred_after_a_short_wait_for_a_slot() {
        let limiter = ChannelLimiter::new(config::Channel { concurrency: Some(1), ..Default::default() }, None);
        let _permit = limiter.acquire(arrival(true), at(0)).await.expect("the slot");
        assert_eq!(limiter.acquire(arrival(true), at(0)).await.err().map(|later| later.at), Some(at(1_000)));
    }

    #[test]
    fn only_limiters_with_changed_settings_are_replaced() {
        let settings = |count| {
            let rate = Some(Rate { count, per: Duration::from_secs(1) });
            BTreeMap::from([("smtp".to_owned(), config::Channel { rate, ..Default::default() })])
        };
        let limiters = |count, before: &ChannelLimiters| channel_limiters(["smtp", "push"], &settings(count), before);
        let first = limiters(5, &ChannelLimiters::new());
        assert!(Arc::ptr_eq(&first["smtp"], &limiters(5, &first)["smtp"]));
        assert!(!Arc::ptr_eq(&first["smtp"], &limiters(6, &first)["smtp"]));
        assert!(Arc::ptr_eq(&first["push"], &limiters(6, &first)["push"]), "one without settings is kept too");
    }

    #[tokio::test]
    async fn a_pause_that_the_provider_requested_is_respected_but_bounded() {
        let limiter = ChannelLimiter::new(config::Channel::default(), None);
        let opens =
            async |ms| limiter.acquire(arrival(true), at(ms)).await.err().map(|later| later.at.as_millisecond());
        assert_eq!(opens(0).await, None);
        limiter.pause(Duration::from_secs(30), at(0));
        limiter.pause(Duration::from_secs(10), at(0));
        assert_eq!(opens(0).await, Some(30_000), "the longer one counts");
        assert_eq!(opens(30_000).await, None);
        limiter.pause(Duration::from_secs(86_400), at(30_000));
        assert_eq!(opens(30_000).await, Some(330_000), "at most five minutes");
        assert_eq!(opens(-9_000_000).await, None, "a clock that was set back ends the pause");
        assert_eq!(opens(30_000).await, None);
    }
}
