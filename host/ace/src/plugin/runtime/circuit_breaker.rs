//! Stops calling a plugin that fails too often: after a number of faults within a window the circuit breaker opens, and after a
//! pause one call probes whether the plugin works again. Time is passed in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a circuit breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// This many faults …
    pub faults: usize,
    /// … within this time open it.
    pub window: Duration,
    /// How long the plugin is not called then.
    pub pause: Duration,
}

/// The circuit breaker of one plugin.
pub struct CircuitBreaker {
    limits: Limits,
    state: Mutex<State>,
    /// Whether the state has an `open_until`, so that calls of a working plugin take no lock.
    is_open: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The latest faults, at most as many as open the circuit breaker.
    faults: VecDeque<Instant>,
    open_until: Option<Instant>,
    /// When the current probe was started. A probe that was cancelled never reports; it expires.
    probing_since: Option<Instant>,
    total: u64,
}

/// A circuit breaker as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Faults since the plugin was loaded.
    pub faults: u64,
    pub open: bool,
}

impl CircuitBreaker {
    pub fn new(limits: Limits) -> Self {
        CircuitBreaker { limits, state: Mutex::default(), is_open: AtomicBool::new(false) }
    }

    /// Whether [`CircuitBreaker::admit`] has anything to decide. Takes no lock.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether a call may be made now; if not, how long the circuit breaker stays open.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        match state.open_until {
            None => Ok(()),
            Some(until) if until > now => Err(until - now),
            Some(_) if state.probing_since.is_some_and(|since| now < since + self.limits.pause) => {
                Err(self.limits.pause)
            }
            Some(_) => {
                state.probing_since = Some(now);
                Ok(())
            }
        }
    }

    /// Records a call that succeeded. Returns whether that closed the circuit breaker.
    pub fn succeeded(&self) -> bool {
        if !self.is_open() {
            return false;
        }
        let mut state = self.lock();
        let was_open = state.open_until.take().is_some();
        if was_open {
            state.probing_since = None;
            state.faults.clear();
            self.is_open.store(false, Ordering::Release);
        }
        was_open
    }

    /// Records a call that failed. Returns whether that opened the circuit breaker.
    pub fn failed(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.total += 1;
        state.faults.push_back(now);
        while state.faults.len() > self.limits.faults {
            state.faults.pop_front();
        }
        let oldest = state.faults.front().copied().unwrap_or(now);
        let too_many = state.faults.len() == self.limits.faults && now - oldest <= self.limits.window;
        let was_open = state.open_until.is_some_and(|until| until > now);
        if state.probing_since.is_some() || too_many {
            (state.open_until, state.probing_since) = (Some(now + self.limits.pause), None);
            self.is_open.store(true, Ordering::Release);
            return !was_open;
        }
        false
    }

    pub fn view(&self) -> View {
        let state = self.lock();
        View { faults: state.total, open: state.open_until.is_some() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (CircuitBreaker, impl Fn(u64) -> Instant) {
        let limits = Limits { faults: 3, window: Duration::from_secs(60), pause: Duration::from_secs(30) };
        let start = Instant::now();
        (CircuitBreaker::new(limits), move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn it_opens_after_the_limit_of_faults_within_the_window() {
        let (breaker, at) = breaker();
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(50)) && !breaker.failed(at(100)));
        assert_eq!(breaker.admit(at(100)), Ok(()));
        assert!(breaker.failed(at(105)), "three within 55 seconds");
        assert_eq!(breaker.admit(at(106)), Err(Duration::from_secs(29)));
        assert_eq!(breaker.view(), View { faults: 4, open: true });
    }

    #[test]
    fn after_the_pause_one_call_probes() {
        let (breaker, at) = breaker();
        for second in 0..3 {
            breaker.failed(at(second));
        }
        assert_eq!(breaker.admit(at(33)), Ok(()), "the probe");
        assert!(breaker.admit(at(33)).is_err(), "one at a time");
        breaker.failed(at(34));
        assert!(breaker.admit(at(40)).is_err(), "it failed: open again at once");
        assert_eq!(breaker.admit(at(70)), Ok(()));
        assert!(breaker.succeeded());
        assert_eq!(breaker.admit(at(70)), Ok(()));
        assert!(!breaker.failed(at(71)), "it starts from zero");
        assert!(!breaker.view().open);
    }

    #[test]
    fn a_probe_that_never_reports_expires() {
        let (breaker, at) = breaker();
        for second in 0..3 {
            breaker.failed(at(second));
        }
        assert_eq!(breaker.admit(at(40)), Ok(()));
        assert!(breaker.admit(at(69)).is_err());
        assert_eq!(breaker.admit(at(70)), Ok(()), "another probe");
    }
}
