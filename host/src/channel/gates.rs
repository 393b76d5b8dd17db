//! How much of a channel is used at once and in a time: the providers' quotas, as `[channels.NAME]` says, and as providers say
//! themselves (Retry-After). Time is passed in.
//!
//! Transactional messages go before bulk: of several places one is kept for them, and of a rate the burst.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{self, Rate};

/// A send waits so long for a free place; after that it is put off, and others have their turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest a provider is left alone at its word; then one message more is tried.
pub const CLOSED_MAX: Duration = Duration::from_secs(5 * 60);
/// Of a rate's count, one part in so many may be used in a burst.
const BURST_PART: u32 = 10;

/// The gates of the channels, by name.
pub type Gates = BTreeMap<String, Arc<Gate>>;

/// A gate for each of these channels, with its settings where it has any. One whose settings are as before goes on counting.
pub fn gates<'a>(
    channels: impl IntoIterator<Item = &'a str>,
    settings: &BTreeMap<String, config::Channel>,
    before: &Gates,
) -> Gates {
    let gate = |name: &str| {
        let settings = settings.get(name).cloned().unwrap_or_default();
        let kept = before.get(name).filter(|gate| gate.settings == settings).cloned();
        (name.to_owned(), kept.unwrap_or_else(|| Arc::new(Gate::new(settings))))
    };
    channels.into_iter().map(gate).collect()
}

/// What lets messages through to one channel.
pub struct Gate {
    pub settings: config::Channel,
    places: Option<Places>,
    pace: Option<Mutex<Pace>>,
    /// Until then the provider wants to be left alone; milliseconds since 1970.
    closed_until: AtomicI64,
}

/// Why a message does not get through now, and when it is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    pub at: Timestamp,
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
    pub fn new(settings: config::Channel) -> Self {
        let places = settings.concurrency.map(|places| Places {
            all: Arc::new(Semaphore::new(places)),
            bulk: Arc::new(Semaphore::new(places.saturating_sub(1).max(1))),
        });
        let pace = settings.rate.as_ref().map(|rate| Mutex::new(Pace::new(rate)));
        Gate { settings, places, pace, closed_until: AtomicI64::new(i64::MIN) }
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

    /// Waits a moment for a free place.
    pub async fn enter(&self, is_transactional: bool, now: Timestamp) -> Result<Pass, Later> {
        if let Some(at) = self.closed(now) {
            return Err(Later { at, why: "its provider asked to be left alone until then (Retry-After)" });
        }
        let quota = |at| Later { at, why: "its quota is used up ([channels])" };
        let pass = match self.places {
            None => Pass::default(),
            Some(_) => match tokio::time::timeout(PATIENCE, self.place(is_transactional)).await {
                Ok(pass) => pass,
                Err(_) => return Err(quota(later(now, PATIENCE))),
            },
        };
        if let Some(pace) = &self.pace {
            pace.lock().unwrap_or_else(PoisonError::into_inner).admit(is_transactional, now).map_err(quota)?;
        }
        Ok(pass)
    }

    async fn place(&self, is_transactional: bool) -> Pass {
        let Some(places) = &self.places else { return Pass::default() };
        let bulk = match is_transactional {
            true => None,
            false => places.bulk.clone().acquire_owned().await.ok(),
        };
        Pass { _permits: [bulk, places.all.clone().acquire_owned().await.ok()] }
    }
}

/// A rate that no span of its length exceeds, kept as the generic cell rate algorithm does: by the moment from which on the
/// next message is on time.
struct Pace {
    interval: SignedDuration,
    /// How far ahead of its time a transactional message may be.
    burst: SignedDuration,
    on_time: Timestamp,
    /// The moment that was last given to a bulk message to come back.
    slot: Timestamp,
}

impl Pace {
    fn new(rate: &Rate) -> Self {
        let burst = (rate.count / BURST_PART).max(1);
        let nanos = rate.per.as_nanos().div_ceil(u128::from(rate.count - burst + 1));
        let interval = SignedDuration::from_nanos_i128(nanos as i128);
        Pace { interval, burst: interval * (burst as i32 - 1), on_time: Timestamp::MIN, slot: Timestamp::MIN }
    }

    fn admit(&mut self, is_transactional: bool, now: Timestamp) -> Result<(), Timestamp> {
        // A clock that was set back must not stop the channel.
        if self.on_time.duration_since(now) > self.burst + self.interval {
            (self.on_time, self.slot) = (now, now);
        }
        let ahead = if is_transactional { self.burst } else { SignedDuration::ZERO };
        if self.on_time.duration_since(now) <= ahead {
            self.on_time = self.on_time.max(now) + self.interval;
            return Ok(());
        }
        if is_transactional {
            return Err(self.on_time - ahead);
        }
        let slot = self.on_time.max(self.slot);
        self.slot = slot + self.interval;
        Err(slot)
    }
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("in range")
    }

    fn pace(count: u32, per: Duration) -> Pace {
        Pace::new(&Rate { count, per })
    }

    /// Lets messages in as early as they may; gives the moments.
    fn schedule(pace: &mut Pace, is_transactional: bool, n: usize) -> Vec<i128> {
        let mut now = at(0);
        let mut moments = Vec::new();
        while moments.len() < n {
            match pace.admit(is_transactional, now) {
                Ok(()) => moments.push(now.as_nanosecond()),
                Err(later) => now = later,
            }
        }
        moments
    }

    #[test]
    fn no_span_of_the_rates_length_holds_more_than_its_count() {
        for (count, seconds) in [(1, 1), (2, 1), (14, 1), (100, 60), (1_000, 3_600)] {
            let (mut pace, per) = (pace(count, Duration::from_secs(seconds)), i128::from(seconds) * 1_000_000_000);
            let moments = schedule(&mut pace, true, 3 * count as usize + 5);
            for (i, from) in moments.iter().enumerate() {
                let within = moments[i..].iter().take_while(|m| **m < from + per).count();
                assert!(within <= count as usize, "{within} of {count} in {seconds} s from {from}");
            }
            let (first, last) = (moments[0], moments[moments.len() - 1]);
            assert!(last - first <= 9 * per, "and the rate is used: {count} in {seconds} s");
        }
    }

    #[test]
    fn bulk_is_spread_and_transactional_messages_overtake_it() {
        let mut pace = pace(30, Duration::from_secs(1));
        assert_eq!(pace.admit(false, at(0)), Ok(()));
        let slots: Vec<i64> = (0..3).map(|_| pace.admit(false, at(0)).expect_err("later").as_millisecond()).collect();
        assert_eq!(slots, [35, 71, 107], "each has a moment of its own");
        assert_eq!(pace.admit(true, at(0)), Ok(()), "the burst is theirs");
        assert!(pace.admit(false, at(35)).is_err(), "and bulk makes up for it");
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let mut pace = pace(1, Duration::from_secs(1));
        assert_eq!(pace.admit(true, at(1_000_000)), Ok(()));
        assert_eq!(pace.admit(true, at(0)), Ok(()));
    }

    #[tokio::test]
    async fn bulk_leaves_a_place_for_what_is_urgent() {
        let gate = Gate::new(config::Channel { concurrency: Some(2), ..Default::default() });
        let enter = |is_transactional| gate.enter(is_transactional, at(0)).now_or_never();
        let bulk = enter(false).expect("the first place");
        assert!(enter(false).is_none(), "the second is kept");
        let urgent = enter(true).expect("for this");
        assert!(enter(true).is_none(), "there are two");
        drop((bulk, urgent));
        assert!(enter(false).is_some(), "free again");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_place_for_long() {
        let gate = Gate::new(config::Channel { concurrency: Some(1), ..Default::default() });
        let _taken = gate.enter(true, at(0)).await.expect("the place");
        assert_eq!(gate.enter(true, at(0)).await.err().map(|later| later.at), Some(at(1_000)));
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
        let gate = Gate::new(config::Channel::default());
        let opens = async |ms| gate.enter(true, at(ms)).await.err().map(|later| later.at.as_millisecond());
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
