//! Suspects: messages with which several processes crashed, or that panicked repeatedly. Each is sent with nothing else in flight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::internals::monitoring;
use ace::internals::tasks::Panicked;
use ace_store::queue::Settlement;
use uuid::Uuid;

use super::{ClaimId, Job, POLL_MAX, SETTLING_MAX, STORE_PAUSE, Slot, Worker};

/// Messages whose panics are kept.
const PANICS_MAX: usize = 256;

/// The latest panic of each message that is retried, which is the reason if it is abandoned.
#[derive(Default)]
pub(super) struct Panics(Mutex<HashMap<Uuid, Panicked>>);

impl Panics {
    fn keep(&self, uuid: Uuid, panicked: Panicked) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= PANICS_MAX {
            kept.clear();
        }
        kept.insert(uuid, panicked);
    }

    fn take(&self, uuid: Uuid) -> Option<Panicked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid)
    }
}

/// When the next suspect is due.
#[derive(Default)]
pub(super) struct Alone {
    due: Option<Instant>,
    /// Until then other messages are sent, for as long as the last suspect took.
    not_before: Option<Instant>,
}

impl Alone {
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some() && self.left().is_zero()
    }

    pub(super) fn left(&self) -> Duration {
        let due = self.due.map(|due| self.not_before.map_or(due, |other| due.max(other)));
        due.map_or(POLL_MAX, |due| due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn schedule(&mut self, after: Option<Duration>) {
        self.due = after.map(|after| Instant::now() + after);
    }

    pub(super) fn sent(&mut self, took: Duration) {
        (self.due, self.not_before) = (None, Some(Instant::now() + took));
    }
}

impl Worker {
    /// Sends one suspect with nothing else in flight: if this process crashes too, no other message is suspected. Returns how long it
    /// took.
    pub(super) async fn send_alone(self: &Arc<Self>) -> Duration {
        let everything = async {
            let any = self.any.clone().acquire_many_owned(self.slots).await.ok()?;
            // Waits until all earlier settlements are on disk, so that a crash puts none of those messages in doubt.
            drop(self.settling.acquire_many(SETTLING_MAX as u32).await.ok()?);
            Some(Slot { _permit: any, bulk_permit: None })
        };
        let slot = tokio::select! {
            slot = everything => slot,
            () = self.stop.cancelled() => None,
        };
        let (Some(slot), started) = (slot, Instant::now()) else { return Duration::ZERO };
        match self.queue.claim_suspect(self.now()).await {
            Ok(None) => {}
            Ok(Some(claimed)) => {
                let (uuid, interruptions) = (claimed.uuid, claimed.interruptions);
                tracing::info!(message_uuid = %uuid, interruptions, "Sending a suspect message alone.");
                let worker = self.clone();
                // One of the tasks that `drain` waits for.
                let _ = self.tasks.spawn(async move { worker.send_claimed(slot, claimed).await }).await;
            }
            Err(error) => {
                tracing::debug!("A suspect could not be claimed; retrying in {STORE_PAUSE:?}: {error}");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
        started.elapsed()
    }

    /// Waits until messages that were claimed ahead can be started.
    pub(super) async fn free_for_bulk(&self) {
        tokio::select! {
            _ = self.bulk.acquire() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Records that sending a message panicked. That counts like a crash of the process with only this message in flight.
    pub(super) async fn interrupted(&self, claim_id: ClaimId, uuid: Uuid, panicked: Panicked) {
        monitoring::task_failed("message");
        // The message may have been delivered already.
        tracing::error!(
            message_uuid = %uuid,
            "Sending a message panicked; it is retried, up to queue.max-interruptions times, and its report says that it may \
             arrive twice: {panicked}"
        );
        self.panics.keep(uuid, panicked);
        self.settle(claim_id, Settlement::Interrupted, false).await;
    }

    /// Abandons a message that crashed several processes, the last one with nothing else in flight. It is not retried automatically.
    pub(super) async fn abandon(&self, job: Job, interruptions: u32) {
        let (claim_id, uuid) = ((job.id, job.claim), job.message.uuid);
        let reason = match self.panics.take(uuid) {
            None => format!(
                "set aside: sending it was interrupted {interruptions} times, by processes that ended unexpectedly or by panics, the \
                 last time with nothing else in flight (queue.max-interruptions)"
            ),
            Some(panicked) => format!(
                "set aside: sending it was interrupted {interruptions} times, the last time by {panicked} (queue.max-interruptions)"
            ),
        };
        tracing::error!(
            message_uuid = %uuid,
            "A message was {reason}. Inspect it with: ace messages {uuid}; once its cause is fixed: ace messages {uuid} --retry"
        );
        let mut flight = self.flight(job.message, job.stage, job.limits, &job.interrupted);
        flight.abandon(&reason);
        self.complete(claim_id, flight).await;
    }
}
