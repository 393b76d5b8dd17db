//! Slots for connections: how many there are, and who gets one when all are in use.
//!
//! Beyond `server.connections` there are spare slots. On them the head of a request is read before the connection is accepted or
//! refused: a health check is answered; a client with a token moves to one of as many reserved slots; any other client moves to a slot
//! that has become free, or is refused. A client that is slow to send a head is disconnected in favour of the next one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::listen::Throttle;

/// The slots of a server.
pub(super) struct Slots {
    general: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    /// For clients with a token.
    reserved: Arc<Semaphore>,
    /// Connections whose first head is being read, the oldest first.
    undecided: Mutex<VecDeque<Weak<Spare>>>,
    warned: Throttle,
}

/// The slot that a connection holds until it ends.
pub(super) enum Slot {
    General { _permit: OwnedSemaphorePermit },
    Spare(Arc<Spare>),
}

/// What a client may use slots for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// It requests a health check.
    Probe,
    /// It has a valid token.
    Bearer,
    Other,
}

/// The decision about a request on a spare slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The connection keeps its slot, and continues.
    Keep,
    /// The request is answered, and the connection closed.
    AnswerAndClose,
    /// The request is refused, and the connection closed.
    Refuse,
}

const UNDECIDED: u8 = 0;
const DECIDED: u8 = 1;
const CUT: u8 = 2;

/// A connection beyond `server.connections`.
pub(super) struct Spare {
    slots: Arc<Slots>,
    /// A spare slot, or the slot that the connection has moved to.
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
    CloseAfterResponse,
    CloseNow,
}

impl Slots {
    pub(super) fn new(connections: usize, spare: usize) -> Arc<Self> {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (general, spare, reserved) = (semaphore(connections), semaphore(spare), semaphore(spare));
        Arc::new(Slots { general, spare, reserved, undecided: Mutex::default(), warned: Throttle::default() })
    }

    /// Takes a slot for a new connection. Waits if all spare slots are in use.
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

    /// Disconnects the client that has been sending its first head for longest.
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

    /// What the connection must do. Never completes unless it is on a spare slot.
    pub(super) async fn order(&self) -> Order {
        let Slot::Spare(spare) = self else { return std::future::pending().await };
        spare.decided.notified().await;
        if spare.state.load(SeqCst) == CUT { Order::CloseNow } else { Order::CloseAfterResponse }
    }
}

impl Spare {
    /// Whether the connection has left its spare slot, so that no decision is pending.
    pub(super) fn has_moved(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).has_moved
    }

    /// Decides about a request whose head has been read.
    pub(super) fn decide(&self, client: ClientKind) -> Decision {
        self.state.store(DECIDED, SeqCst);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.has_moved {
            return Decision::Keep;
        }
        let reserved =
            || (client == ClientKind::Bearer).then(|| self.slots.reserved.clone().try_acquire_owned().ok()).flatten();
        if let Some(permit) = self.slots.general.clone().try_acquire_owned().ok().or_else(reserved) {
            *held = Held { has_moved: true, _permit: permit };
            return Decision::Keep;
        }
        self.decided.notify_one();
        if client == ClientKind::Probe { Decision::AnswerAndClose } else { Decision::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot, if one is free at once.
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
        assert_eq!(spare(&probe).decide(ClientKind::Probe), Decision::AnswerAndClose);
        assert_eq!(
            (spare(&other).decide(ClientKind::Other), other.order().await),
            (Decision::Refuse, Order::CloseAfterResponse)
        );
        drop((probe, other));
        let bearers = [slots.take().await, slots.take().await];
        assert!(bearers.iter().all(|slot| spare(slot).decide(ClientKind::Bearer) == Decision::Keep));
        assert!(
            bearers.iter().all(|slot| spare(slot).decide(ClientKind::Other) == Decision::Keep),
            "the slot is theirs now"
        );
        let third = slots.take().await;
        assert_eq!(spare(&third).decide(ClientKind::Bearer), Decision::Refuse, "the reserved slots are in use");
        let fourth = slots.take().await;
        drop(general);
        assert_eq!(spare(&fourth).decide(ClientKind::Other), Decision::Keep, "a slot has become free");
        assert!(spare(&fourth).has_moved());
    }

    #[tokio::test]
    async fn a_client_that_is_slow_to_send_a_head_is_disconnected() {
        let slots = Slots::new(1, 2);
        let _general = slots.take().await;
        let (first, second) = (slots.take().await, slots.take().await);
        assert!(slot_at_once(&slots).await.is_none(), "until the oldest is disconnected");
        assert_eq!(first.order().await, Order::CloseNow);
        drop(first);
        let third = slot_at_once(&slots).await.expect("a slot");
        spare(&second).decide(ClientKind::Probe);
        assert!(slot_at_once(&slots).await.is_none());
        assert_eq!(third.order().await, Order::CloseNow, "a client that is being answered stays");
    }
}
