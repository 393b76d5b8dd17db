//! Messages that wait for a relay or an origin that is down: put away so that nobody claims them in vain, and brought back one
//! at a time to see whether it is up again, then more and more.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ace::InFlight;
use ace::internals::destination::{Destinations, Wanted};
use ace::internals::monitoring;
use ace::message::{Destination, Outcome};
use ace_store::queue::{Priority, Settlement};
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;

use super::{Lent, Worker, write_down};
use crate::events;

/// How often it is looked whether one is to be tried.
const LOOK: Duration = Duration::from_secs(1);
/// … and while they go out.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// Messages that are brought back at once, of a destination that is in order again.
const AT_ONCE: u32 = 500;

impl Worker {
    /// Puts a message away until what it waits for is up, or until its waiting ends. A batch of which nothing goes out so is
    /// held as a whole: its other messages need not be claimed to find the same.
    pub(super) async fn block(&self, lent: Lent, priority: Priority, flight: &InFlight) {
        let Some((down, due)) = flight.waits_for() else { return };
        let destinations: Vec<String> = down.iter().map(ToString::to_string).collect();
        let is_carried = flight.report().channels.iter().any(|c| matches!(c.outcome, Outcome::Sent { .. }));
        let (now, all) = (self.now(), (self.current)().destinations.clone());
        if priority.is_batch() && !is_carried && !all.wanted(down[0], 0, now).is_in_order {
            self.held().insert(priority, down[0].clone());
            self.queue.hold(priority);
        }
        let progress = write_down(flight.progress());
        self.settle(lent, Settlement::Block { due, progress, destinations }, false).await;
    }

    /// Brings messages back that waited, until [`Worker::drain`].
    pub async fn release_blocked(self: Arc<Self>) {
        let destinations = (self.current)().destinations.clone();
        for name in self.queue.blocked().into_keys() {
            let Ok(destination) = name.parse();
            destinations.was_down(destination, self.now());
        }
        loop {
            let changed = destinations.changed();
            let are_going_out = self.release_some(&destinations).await;
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(if are_going_out { LOOK_SOON } else { LOOK }) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Tells the outside of relays and origins that go down or come back, until [`Worker::drain`].
    pub async fn tell_of_destinations(self: Arc<Self>) {
        let mut notices = (self.current)().destinations.listen();
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = self.stop.cancelled() => return,
            };
            let notice = match notice {
                Ok(notice) => notice,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let told = events::tell_of_destination(&notice, self.now());
            self.tell(told).await;
        }
    }

    /// Whether more are to follow soon.
    async fn release_some(&self, destinations: &Destinations) -> bool {
        let (now, mut are_going_out) = (self.now(), false);
        for (name, waiting) in self.queue.blocked() {
            let Ok(destination) = name.parse();
            monitoring::destination_waiting(&destination, waiting);
            let Wanted { messages, is_probe, .. } = destinations.wanted(&destination, AT_ONCE, now);
            are_going_out |= !is_probe;
            if messages == 0 {
                continue;
            }
            match self.queue.unblock(name, messages as usize, is_probe).await {
                Ok(released) => monitoring::destination_waiting(&destination, waiting.saturating_sub(released as u64)),
                Err(error) => {
                    tracing::error!("Messages that wait for {destination} cannot be read; retrying: {error}");
                    return false;
                }
            }
        }
        self.release_batches(destinations, now);
        are_going_out
    }

    /// A batch goes on when what it waits for is in order, or is to be tried and nothing else is left to try it with.
    fn release_batches(&self, destinations: &Destinations, now: Timestamp) {
        let mut held = self.held();
        if held.is_empty() {
            return;
        }
        let blocked = self.queue.blocked();
        let free: Vec<Priority> = held
            .extract_if(|_, destination| {
                let wanted = destinations.wanted(destination, 1, now);
                wanted.is_in_order || (wanted.messages > 0 && !blocked.contains_key(&destination.to_string()))
            })
            .map(|(batch, _)| batch)
            .collect();
        self.queue.release(&free);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Priority, Destination>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
