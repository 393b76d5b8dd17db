//! Throughput: messages accepted and settled in the last minutes, counted per second at commit. Time is passed in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The longest reported span, in seconds.
const SPAN: u64 = 300;
const MINUTE: u64 = 60;

/// What one transaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub accepted: u64,
    pub settled: u64,
    /// Settled messages that failed, expired or could not be read.
    pub failed: u64,
}

/// Average messages per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Accepted messages.
    pub accepted: f64,
    /// Settled messages, in any state.
    pub settled: f64,
    /// Settled messages that failed, expired or could not be read.
    pub failed: f64,
}

/// Rates over two spans, or since the start if that was later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Over the last minute.
    pub minute: Rate,
    /// Over the last five minutes.
    pub five_minutes: Rate,
}

/// Counts messages per second.
pub(super) struct Meter {
    started: Instant,
    seconds: Mutex<Seconds>,
}

struct Seconds {
    counts: [Counted; SPAN as usize],
    /// The current second, since the start.
    at: u64,
}

impl Meter {
    pub(super) fn new(started: Instant) -> Self {
        Meter { started, seconds: Mutex::new(Seconds { counts: [Counted::default(); SPAN as usize], at: 0 }) }
    }

    pub(super) fn add(&self, counted: Counted) {
        if counted != Counted::default() {
            self.add_at(counted, self.started.elapsed());
        }
    }

    pub(super) fn rates(&self) -> Rates {
        self.rates_at(self.started.elapsed())
    }

    fn add_at(&self, counted: Counted, elapsed: Duration) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.advance(elapsed.as_secs());
        let slot = (seconds.at % SPAN) as usize;
        let slot = &mut seconds.counts[slot];
        slot.accepted += counted.accepted;
        slot.settled += counted.settled;
        slot.failed += counted.failed;
    }

    fn rates_at(&self, elapsed: Duration) -> Rates {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.advance(elapsed.as_secs());
        let over = |span: u64| {
            // The current second counts as far as it has elapsed.
            let took = elapsed.as_secs_f64().min((span - 1) as f64 + elapsed.as_secs_f64().fract()).max(1.0);
            let slots =
                (0..span.min(seconds.at + 1)).map(|back| &seconds.counts[((seconds.at - back) % SPAN) as usize]);
            let sum = slots.fold([0, 0, 0], |[a, s, f], c| [a + c.accepted, s + c.settled, f + c.failed]);
            let [accepted, settled, failed] = sum.map(|n: u64| (n as f64 / took * 1_000.0).round() / 1_000.0);
            Rate { accepted, settled, failed }
        };
        Rates { minute: over(MINUTE), five_minutes: over(SPAN) }
    }
}

impl Seconds {
    /// Advances to a second, and clears those in between.
    fn advance(&mut self, to: u64) {
        for second in (self.at + 1..=to).rev().take(SPAN as usize) {
            self.counts[(second % SPAN) as usize] = Counted::default();
        }
        self.at = self.at.max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(n: u64) -> Counted {
        Counted { accepted: n, settled: n, failed: n / 10 }
    }

    fn at(second: f64) -> Duration {
        Duration::from_secs_f64(second)
    }

    #[test]
    fn a_steady_flow_has_its_rate_in_every_span_and_a_pause_shows_in_the_short_one_first() {
        let meter = Meter::new(Instant::now());
        for second in 0..400 {
            meter.add_at(counted(50), at(f64::from(second)));
        }
        let rates = meter.rates_at(at(400.0));
        for rate in [rates.minute, rates.five_minutes] {
            assert_eq!((rate.accepted, rate.settled, rate.failed), (50.0, 50.0, 5.0));
        }
        let rates = meter.rates_at(at(460.0));
        assert_eq!(rates.minute, Rate::default());
        assert!((39.0..41.0).contains(&rates.five_minutes.accepted), "{rates:?}");
        assert_eq!(meter.rates_at(at(10_000.0)), Rates::default(), "however long nothing came");
    }

    #[test]
    fn soon_after_the_start_rates_are_averaged_over_the_elapsed_time() {
        let meter = Meter::new(Instant::now());
        meter.add_at(counted(10), at(0.2));
        assert_eq!(meter.rates_at(at(0.4)).minute.accepted, 10.0, "a second at least");
        meter.add_at(counted(10), at(3.0));
        let rates = meter.rates_at(at(4.0));
        assert_eq!((rates.minute.accepted, rates.five_minutes.accepted), (5.0, 5.0));
    }

    #[test]
    fn a_second_is_counted_once_and_dropped_after_its_span() {
        let meter = Meter::new(Instant::now());
        meter.add_at(counted(600), at(0.0));
        meter.add_at(counted(0), at(SPAN as f64 - 1.0));
        assert!(meter.rates_at(at(SPAN as f64 - 0.5)).five_minutes.accepted > 1.9);
        assert_eq!(meter.rates_at(at(SPAN as f64)).five_minutes.accepted, 0.0);
    }
}
