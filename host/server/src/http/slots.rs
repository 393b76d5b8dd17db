//! Slots for connections: how many there are, and who gets one when all are in use.
//!
//! Beyond `server.connections` there are spare slots, on which a request's head is read before anything is decided. Then a health check
//! is answered; who bears a token moves to one of as many slots that are kept for such; and everybody else moves to a slot that has
//! become free, or is refused. A connection that is slow to send a head makes room for the next one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::listen::Seldom;

/// All slots.
pub(super) struct Slots {
    general: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    /// For bearers of a token.
    kept: Arc<Semaphore>,
    /// Connections whose first head is being read, the oldest first.
    undecided: Mutex<VecDeque<Weak<Spare>>>,
    warned: Seldom,
}

/// What a connection holds as long as it lives.
pub(super) enum Slot {
    General { _permit: OwnedSemaphorePermit },
    Spare(Arc<Spare>),
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Probe,
    Bearer,
    Anyone,
}

/// The decision about a request on a spare slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    /// It is answered, and its connection ends.
    Once,
    /// It is not, and its connection ends.
    Full,
}

const UNDECIDED: u8 = 0;
const DECIDED: u8 = 1;
const CUT: u8 = 2;

/// A connection beyond those that all may have.
pub(super) struct Spare {
    slots: Arc<Slots>,
    /// Of the spare slots at first, then of those that it has moved to.
    held: Mutex<Held>,
    state: AtomicU8,
    decided: Notify,
}

struct Held {
    has_moved: bool,
    _permit: OwnedSemaphorePermit,
}

/// What a connection on a spare slot must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To end after what is being answered.
    WindDown,
    /// To make room at once.
    Leave,
}

impl Slots {
    pub(super) fn new(connections: usize, spare: usize) -> Arc<Self> {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (general, spare, kept) = (semaphore(connections), semaphore(spare), semaphore(spare));
        Arc::new(Slots { general, spare, kept, undecided: Mutex::default(), warned: Seldom::default() })
    }

    /// A slot for a new connection. It waits where all spare ones are held by who may stay there.
    pub(super) async fn take(self: &Arc<Self>) -> Slot {
        if let Ok(permit) = self.general.clone().try_acquire_owned() {
            return Slot::General { _permit: permit };
        }
        if self.warned.is_due() {
            tracing::warn!(
                "All connections of server.connections are in use: health checks and requests with a token are served, others are \
                 answered with 503 until connections end."
            );
        }
        let permit = match self.spare.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.make_room();
                self.spare.clone().acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        let held = Mutex::new(Held { has_moved: false, _permit: permit });
        let (state, decided) = (AtomicU8::new(UNDECIDED), Notify::new());
        let spare = Arc::new(Spare { slots: self.clone(), held, state, decided });
        let mut undecided = self.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        undecided.retain(|other| other.upgrade().is_some_and(|other| other.state.load(SeqCst) == UNDECIDED));
        undecided.push_back(Arc::downgrade(&spare));
        Slot::Spare(spare)
    }

    /// Cuts the connection that has been sending its first head for longest.
    fn make_room(&self) {
        let mut undecided = self.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(oldest) = undecided.pop_front() {
            if let Some(oldest) = oldest.upgrade()
                && oldest.state.compare_exchange(UNDECIDED, CUT, SeqCst, SeqCst).is_ok()
            {
                oldest.decided.notify_one();
                return;
            }
        }
    }
}

impl Slot {
    pub(super) fn spare(&self) -> Option<&Arc<Spare>> {
        match self {
            Slot::General { .. } => None,
            Slot::Spare(spare) => Some(spare),
        }
    }

    /// What the connection must do; completes only for one on a spare slot.
    pub(super) async fn order(&self) -> Order {
        let Slot::Spare(spare) = self else { return std::future::pending().await };
        spare.decided.notified().await;
        if spare.state.load(SeqCst) == CUT { Order::Leave } else { Order::WindDown }
    }
}

impl Spare {
    /// Whether the connection has a slot of its own by now, so that nothing is left to be decided.
    pub(super) fn has_moved(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).has_moved
    }

    /// Decides about a request whose head is read.
    pub(super) fn decide(&self, asker: Asker) -> Verdict {
        self.state.store(DECIDED, SeqCst);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.has_moved {
            return Verdict::Stay;
        }
        let kept = || (asker == Asker::Bearer).then(|| self.slots.kept.clone().try_acquire_owned().ok()).flatten();
        if let Some(permit) = self.slots.general.clone().try_acquire_owned().ok().or_else(kept) {
            *held = Held { has_moved: true, _permit: permit };
            return Verdict::Stay;
        }
        self.decided.notify_one();
        if asker == Asker::Probe { Verdict::Once } else { Verdict::Full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Some` where there is a slot at once.
    async fn slot_at_once(slots: &Arc<Slots>) -> Option<Slot> {
        tokio::time::timeout(std::time::Duration::from_millis(10), slots.take()).await.ok()
    }

    fn spare(slot: &Slot) -> &Arc<Spare> {
        slot.spare().expect("on a spare slot")
    }

    #[tokio::test]
    async fn probes_and_bearers_are_served_while_others_are_refused() {
        let slots = Slots::new(2, 2);
        let general = [slots.take().await, slots.take().await];
        assert!(general.iter().all(|slot| slot.spare().is_none()));
        let (probe, other) = (slots.take().await, slots.take().await);
        assert_eq!(spare(&probe).decide(Asker::Probe), Verdict::Once);
        assert_eq!((spare(&other).decide(Asker::Anyone), other.order().await), (Verdict::Full, Order::WindDown));
        drop((probe, other));
        let bearers = [slots.take().await, slots.take().await];
        assert!(bearers.iter().all(|slot| spare(slot).decide(Asker::Bearer) == Verdict::Stay));
        assert!(bearers.iter().all(|slot| spare(slot).decide(Asker::Anyone) == Verdict::Stay), "it is theirs now");
        let third = slots.take().await;
        assert_eq!(spare(&third).decide(Asker::Bearer), Verdict::Full, "and so many of them");
        let fourth = slots.take().await;
        drop(general);
        assert_eq!(spare(&fourth).decide(Asker::Anyone), Verdict::Stay, "one has become free");
        assert!(spare(&fourth).has_moved());
    }

    #[tokio::test]
    async fn who_is_slow_to_send_a_head_makes_room() {
        let slots = Slots::new(1, 2);
        let _general = slots.take().await;
        let (first, second) = (slots.take().await, slots.take().await);
        assert!(slot_at_once(&slots).await.is_none(), "until the oldest has left");
        assert_eq!(first.order().await, Order::Leave);
        drop(first);
        let third = slot_at_once(&slots).await.expect("a slot");
        spare(&second).decide(Asker::Probe);
        assert!(slot_at_once(&slots).await.is_none());
        assert_eq!(third.order().await, Order::Leave, "whoever is being answered stays");
    }
}
