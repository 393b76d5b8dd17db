//! Blocked messages, which wait for a relay or an origin that is down. They are released one at a time to probe it, and in growing
//! numbers once it has recovered.

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

use super::{ClaimId, Worker, serialize};
use crate::events;

/// How often to check whether messages can be released.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// How often to check while sending is ramped up.
const RAMP_INTERVAL: Duration = Duration::from_millis(100);
/// The maximum number of messages that are released at once after a destination has recovered.
const AT_ONCE: u32 = 500;

impl Worker {
    /// Blocks a message until its destination is up, or its time to wait ends. If nothing of its batch can be sent, the whole batch is
    /// held, so that its other messages are not claimed only to be blocked too.
    pub(super) async fn block(&self, claim_id: ClaimId, priority: Priority, flight: &InFlight) {
        let Some((down, due)) = flight.waits_for() else { return };
        let destinations: Vec<String> = down.iter().map(ToString::to_string).collect();
        let is_partly_sent = flight.report().channels.iter().any(|c| matches!(c.outcome, Outcome::Sent { .. }));
        let (now, all) = (self.now(), (self.current)().destinations.clone());
        if priority.is_batch() && !is_partly_sent && !all.wanted(down[0], 0, now).is_in_order {
            self.held().insert(priority, down[0].clone());
            self.queue.hold(priority);
        }
        let progress = serialize(flight.progress());
        self.settle(claim_id, Settlement::Block { due, progress, destinations }, false).await;
    }

    /// Releases blocked messages when their destinations recover, until [`Worker::drain`].
    pub async fn release_blocked(self: Arc<Self>) {
        let destinations = (self.current)().destinations.clone();
        for name in self.queue.blocked().into_keys() {
            let Ok(destination) = name.parse();
            destinations.was_down(destination, self.now());
        }
        loop {
            let changed = destinations.changed();
            let is_ramping_up = self.release_some(&destinations).await;
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(if is_ramping_up { RAMP_INTERVAL } else { RELEASE_INTERVAL }) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Emits events about relays and origins that go down or recover, until [`Worker::drain`].
    pub async fn emit_destination_events(self: Arc<Self>) {
        let mut notices = (self.current)().destinations.subscribe();
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
            let notification = events::of_destination(&notice, self.now());
            self.emit(notification).await;
        }
    }

    /// Releases some messages. Returns whether more follow soon.
    async fn release_some(&self, destinations: &Destinations) -> bool {
        let (now, mut is_ramping_up) = (self.now(), false);
        for (name, waiting) in self.queue.blocked() {
            let Ok(destination) = name.parse();
            monitoring::destination_waiting(&destination, waiting);
            let Wanted { messages, is_probe, .. } = destinations.wanted(&destination, AT_ONCE, now);
            is_ramping_up |= !is_probe;
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
        is_ramping_up
    }

    /// Releases held batches whose destination has recovered, or is to be probed while no other message waits for it.
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
