//! How much of a channel is used at once and in a time: the providers' quotas, as `[channels.NAME]` says, and as providers say
//! themselves (Retry-After). Time is passed in.
//!
//! Transactional messages go before bulk: of several places one is kept for them, and a part of each rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use super::rate_limiter::Entry;
use super::rate_limiter::RateLimiter;
use crate::config;

/// A send waits so long for a free place; after that it is put off, and others have their turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest a provider is left alone at its word; then one message more is tried.
pub const CLOSED_MAX: Duration = Duration::from_secs(5 * 60);

/// The gates of the channels, by name.
pub type Gates = BTreeMap<String, Arc<Gate>>;

/// A gate for each of these channels, with its settings where it has any. What its rate limiter admitted goes on counting.
pub fn gates<'a>(
    channels: impl IntoIterator<Item = &'a str>,
    settings: &BTreeMap<String, config::Channel>,
    before: &Gates,
) -> Gates {
    let gate = |name: &str| {
        let settings = settings.get(name).cloned().unwrap_or_default();
        let before = before.get(name);
        let kept = before.filter(|gate| gate.settings == settings).cloned();
        (name.to_owned(), kept.unwrap_or_else(|| Arc::new(Gate::new(settings, before.map(Arc::as_ref)))))
    };
    channels.into_iter().map(gate).collect()
}

/// What lets messages through to one channel.
pub struct Gate {
    /// The channel's settings.
    pub settings: config::Channel,
    places: Option<Places>,
    limiter: Option<Mutex<RateLimiter>>,
    /// What the moments of its log events count from.
    created: Instant,
    /// Until then the provider wants to be left alone; milliseconds since 1970.
    closed_until: AtomicI64,
}

/// Why a message does not get through now, and when it is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// When to ask again.
    pub at: Timestamp,
    /// What is waited for.
    pub why: &'static str,
}

/// The right to use a channel now; given back when it is dropped.
#[derive(Default)]
pub struct Pass {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

struct Places {
    all: Arc<Semaphore>,
    /// Bulk needs one of these too: a place fewer, where there is more than one.
    bulk: Arc<Semaphore>,
}

impl Gate {
    fn new(settings: config::Channel, before: Option<&Gate>) -> Self {
        let places = settings.concurrency.map(|places| Places {
            all: Arc::new(Semaphore::new(places)),
            bulk: Arc::new(Semaphore::new(places.saturating_sub(1).max(1))),
        });
        let before = before.and_then(|gate| gate.limiter.as_ref()).map(locked);
        let limiter = settings.rate.as_ref().map(|rate| Mutex::new(RateLimiter::new(rate, before.as_deref())));
        Gate { settings, places, limiter, created: Instant::now(), closed_until: AtomicI64::new(i64::MIN) }
    }

    /// Lets no message through for so long, but not for longer than [`CLOSED_MAX`]: the provider asked for it.
    pub fn close(&self, pause: Duration, now: Timestamp) {
        let until = later(now, pause.min(CLOSED_MAX));
        self.closed_until.fetch_max(until.as_millisecond(), Ordering::Relaxed);
    }

    /// When it opens again, if it is closed now.
    fn closed(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.closed_until.load(Ordering::Relaxed);
        if until <= now.as_millisecond() {
            return None;
        }
        let until = Timestamp::from_millisecond(until).ok()?;
        // A clock that was set back must not stop the channel.
        if until > later(now, CLOSED_MAX) {
            self.closed_until.store(i64::MIN, Ordering::Relaxed);
            return None;
        }
        Some(until)
    }

    /// Waits a moment for a free place. The rate is judged when there is one, on a monotonic clock.
    pub async fn enter(&self, entry: Entry, now: Timestamp) -> Result<Pass, Later> {
        if let Some(at) = self.closed(now) {
            return Err(Later { at, why: "waiting for the provider's Retry-After" });
        }
        let asked = Instant::now();
        let quota = |pause| Later { at: later(now, pause), why: "its quota is used up ([channels])" };
        let pass = match self.places {
            None => Pass::default(),
            Some(_) => match tokio::time::timeout(PATIENCE, self.place(entry.is_transactional)).await {
                Ok(pass) => pass,
                Err(_) => return Err(quota(PATIENCE)),
            },
        };
        if let Some(limiter) = &self.limiter {
            let (judged, admitted) = {
                let mut limiter = locked(limiter);
                // Read under the lock, so that the limiter's moments never go back.
                let now = Instant::now();
                (now, limiter.admit(entry, now))
            };
            admitted.map_err(|at| quota(at.duration_since(asked)))?;
            let at_us = judged.duration_since(self.created).as_micros() as u64;
            tracing::trace!(at_us, "Admitted a message within its channel's rate");
        }
        Ok(pass)
    }

    async fn place(&self, is_transactional: bool) -> Pass {
        let Some(places) = &self.places else { return Pass::default() };
        let bulk = if is_transactional { None } else { places.bulk.clone().acquire_owned().await.ok() };
        Pass { _permits: [bulk, places.all.clone().acquire_owned().await.ok()] }
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

    fn entry(is_transactional: bool) -> Entry {
        Entry { is_transactional, is_back: false }
    }

    #[tokio::test]
    async fn bulk_leaves_a_place_for_what_is_urgent() {
        let gate = Gate::new(config::Channel { concurrency: Some(2), ..Default::default() }, None);
        let enter = |is_transactional| gate.enter(entry(is_transactional), at(0)).now_or_never();
        let bulk = enter(false).expect("the first place");
        assert!(enter(false).is_none(), "the second is kept");
        let urgent = enter(true).expect("for this");
        assert!(enter(true).is_none(), "there are two");
        drop((bulk, urgent));
        assert!(enter(false).is_some(), "free again");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_place_for_long() {
        let gate = Gate::new(config::Channel { concurrency: Some(1), ..Default::default() }, None);
        let _taken = gate.enter(entry(true), at(0)).await.expect("the place");
        assert_eq!(gate.enter(entry(true), at(0)).await.err().map(|later| later.at), Some(at(1_000)));
    }

    #[test]
    fn a_gate_with_new_settings_begins_anew_and_another_goes_on() {
        let settings = |count| {
            let rate = Some(Rate { count, per: Duration::from_secs(1) });
            BTreeMap::from([("smtp".to_owned(), config::Channel { rate, ..Default::default() })])
        };
        let gates = |count, before: &Gates| gates(["smtp", "push"], &settings(count), before);
        let first = gates(5, &Gates::new());
        assert!(Arc::ptr_eq(&first["smtp"], &gates(5, &first)["smtp"]));
        assert!(!Arc::ptr_eq(&first["smtp"], &gates(6, &first)["smtp"]));
        assert!(Arc::ptr_eq(&first["push"], &gates(6, &first)["push"]), "one without settings too");
    }

    #[tokio::test]
    async fn a_provider_is_left_alone_for_as_long_as_it_asked_and_not_for_ever() {
        let gate = Gate::new(config::Channel::default(), None);
        let opens = async |ms| gate.enter(entry(true), at(ms)).await.err().map(|later| later.at.as_millisecond());
        assert_eq!(opens(0).await, None);
        gate.close(Duration::from_secs(30), at(0));
        gate.close(Duration::from_secs(10), at(0));
        assert_eq!(opens(0).await, Some(30_000), "the longer one counts");
        assert_eq!(opens(30_000).await, None);
        gate.close(Duration::from_secs(86_400), at(30_000));
        assert_eq!(opens(30_000).await, Some(330_000), "five minutes at most");
        assert_eq!(opens(-9_000_000).await, None, "a clock that was set back stops nothing");
        assert_eq!(opens(30_000).await, None);
    }
}
