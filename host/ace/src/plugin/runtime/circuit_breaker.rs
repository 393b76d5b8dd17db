//! A plugin that breaks too often is left alone for a while: after so many faults within a window its circuit opens, and
//! after a pause one call tries whether it works again. Time is passed in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// So many faults …
    pub faults: usize,
    /// … within this long open it.
    pub window: Duration,
    /// Then nothing is asked for so long.
    pub pause: Duration,
}

/// One plugin's circuit.
pub struct Circuit {
    limits: Limits,
    state: Mutex<State>,
    /// Whether the state has an `open_until`, so that the calls of a plugin that works take no lock.
    is_open: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The latest faults, at most as many as open the circuit.
    faults: VecDeque<Instant>,
    open_until: Option<Instant>,
    /// Since when a call tries whether the plugin works again. One that was given up never tells, and is forgotten in time.
    trying_since: Option<Instant>,
    total: u64,
}

/// What a circuit shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Faults since the plugin was loaded.
    pub faults: u64,
    pub open: bool,
}

impl Circuit {
    pub fn new(limits: Limits) -> Self {
        Circuit { limits, state: Mutex::default(), is_open: AtomicBool::new(false) }
    }

    /// Whether [`Circuit::admit`] has anything to decide. Takes no lock.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether a call may be made now; if not, how long the circuit stays open.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        match state.open_until {
            None => Ok(()),
            Some(until) if until > now => Err(until - now),
            Some(_) if state.trying_since.is_some_and(|since| now < since + self.limits.pause) => {
                Err(self.limits.pause)
            }
            Some(_) => {
                state.trying_since = Some(now);
                Ok(())
            }
        }
    }

    /// A call has answered. True when that closed the circuit.
    pub fn succeeded(&self) -> bool {
        if !self.is_open() {
            return false;
        }
        let mut state = self.lock();
        let was_open = state.open_until.take().is_some();
        if was_open {
            state.trying_since = None;
            state.faults.clear();
            self.is_open.store(false, Ordering::Release);
        }
        was_open
    }

    /// A call broke. True when that opened the circuit.
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
        if state.trying_since.is_some() || too_many {
            (state.open_until, state.trying_since) = (Some(now + self.limits.pause), None);
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

    fn circuit() -> (Circuit, impl Fn(u64) -> Instant) {
        let limits = Limits { faults: 3, window: Duration::from_secs(60), pause: Duration::from_secs(30) };
        let start = Instant::now();
        (Circuit::new(limits), move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn it_opens_after_so_many_faults_within_the_window_and_not_otherwise() {
        let (circuit, at) = circuit();
        assert!(!circuit.failed(at(0)) && !circuit.failed(at(50)) && !circuit.failed(at(100)));
        assert_eq!(circuit.admit(at(100)), Ok(()));
        assert!(circuit.failed(at(105)), "three within 55 seconds");
        assert_eq!(circuit.admit(at(106)), Err(Duration::from_secs(29)));
        assert_eq!(circuit.view(), View { faults: 4, open: true });
    }

    #[test]
    fn after_the_pause_one_call_tries() {
        let (circuit, at) = circuit();
        for second in 0..3 {
            circuit.failed(at(second));
        }
        assert_eq!(circuit.admit(at(33)), Ok(()), "the trial");
        assert!(circuit.admit(at(33)).is_err(), "one at a time");
        circuit.failed(at(34));
        assert!(circuit.admit(at(40)).is_err(), "it failed: open again at once");
        assert_eq!(circuit.admit(at(70)), Ok(()));
        assert!(circuit.succeeded());
        assert_eq!(circuit.admit(at(70)), Ok(()));
        assert!(!circuit.failed(at(71)), "it starts anew");
        assert!(!circuit.view().open);
    }

    #[test]
    fn a_trial_that_never_tells_is_forgotten() {
        let (circuit, at) = circuit();
        for second in 0..3 {
            circuit.failed(at(second));
        }
        assert_eq!(circuit.admit(at(40)), Ok(()));
        assert!(circuit.admit(at(69)).is_err());
        assert_eq!(circuit.admit(at(70)), Ok(()), "another may try");
    }
}
