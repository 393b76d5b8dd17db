//! Messages that processes have ended with, or that panicked, one time after the other: each is sent with nothing else under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::internals::monitoring;
use ace::internals::tasks::Panicked;
use ace_store::queue::Settlement;
use uuid::Uuid;

use super::{Job, LOOK_MAX, Lent, Place, SETTLING_MAX, STORE_PAUSE, Worker};

/// Messages whose panics are kept.
const PANICS_MAX: usize = 256;

/// The latest panic over each message that is to be tried again: the reason, should it be given up.
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

/// When the next message is due that is to be sent alone.
#[derive(Default)]
pub(super) struct Alone {
    due: Option<Instant>,
    /// Until then what else there is has its turn: as long as the last one took.
    not_before: Option<Instant>,
}

impl Alone {
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some() && self.left().is_zero()
    }

    pub(super) fn left(&self) -> Duration {
        let due = self.due.map(|due| self.not_before.map_or(due, |other| due.max(other)));
        due.map_or(LOOK_MAX, |due| due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn wanted(&mut self, after: Option<Duration>) {
        self.due = after.map(|after| Instant::now() + after);
    }

    pub(super) fn ended(&mut self, took: Duration) {
        (self.due, self.not_before) = (None, Some(Instant::now() + took));
    }
}

impl Worker {
    /// Sends one message that processes have ended with, with nothing else under way in this one: if that ends it too, no other
    /// message is suspected. How long it took.
    pub(super) async fn send_alone(self: &Arc<Self>) -> Duration {
        let everything = async {
            let any = self.any.clone().acquire_many_owned(self.places).await.ok()?;
            // What was under way is on the disk, so that no end of this process makes it doubtful.
            drop(self.settling.acquire_many(SETTLING_MAX as u32).await.ok()?);
            Some(Place { _any: any, _bulk: None })
        };
        let place = tokio::select! {
            place = everything => place,
            () = self.stop.cancelled() => None,
        };
        let (Some(place), begun) = (place, Instant::now()) else { return Duration::ZERO };
        match self.queue.claim_suspect(self.now()).await {
            Ok(None) => {}
            Ok(Some(claimed)) => {
                let (uuid, interruptions) = (claimed.uuid, claimed.interruptions);
                tracing::info!(message_uuid = %uuid, interruptions, "Sending a suspect message alone.");
                let worker = self.clone();
                // Of the tasks that a stop waits for.
                let _ = self.tasks.spawn(async move { worker.send_claimed(place, claimed).await }).await;
            }
            Err(error) => {
                tracing::debug!("Claiming a suspect failed; retrying soon: {error}");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
        begun.elapsed()
    }

    /// Until what was claimed ahead can be begun.
    pub(super) async fn free_for_bulk(&self) {
        tokio::select! {
            _ = self.bulk.acquire() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Sending a message panicked. That counts as if the process had ended with this message alone.
    pub(super) async fn interrupted(&self, lent: Lent, uuid: Uuid, panicked: Panicked) {
        monitoring::task_failed("message");
        // What was under way may have been handed over.
        tracing::error!(
            message_uuid = %uuid,
            "Sending a message failed; it is tried again, up to queue.max-interruptions times, and its report says that it may \
             arrive twice: {panicked}"
        );
        self.panics.keep(uuid, panicked);
        self.settle(lent, Settlement::Interrupted, false).await;
    }

    /// A message that ended one process after the other, the last of them alone, is not tried again by itself.
    pub(super) async fn give_up(&self, job: Job, interruptions: u32) {
        let (lent, uuid) = ((job.id, job.claim), job.message.uuid);
        let reason = match self.panics.take(uuid) {
            None => format!(
                "set aside: sending it was interrupted {interruptions} times, by processes that ended unexpectedly or by panics, the \
                 last time with nothing else under way (queue.max-interruptions)"
            ),
            Some(panicked) => format!(
                "set aside: sending it was interrupted {interruptions} times, the last time by {panicked} (queue.max-interruptions)"
            ),
        };
        tracing::error!(
            message_uuid = %uuid,
            "A message was {reason}. Look at it with: ace messages {uuid}; once its cause is fixed: ace messages {uuid} --retry"
        );
        let mut flight = self.flight(job.message, job.stands, job.limits, &job.interrupted);
        flight.abandon(&reason);
        self.done(lent, flight).await;
    }
}
