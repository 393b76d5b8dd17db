//! Messages that processes have ended with, one after the other: each is sent with nothing else under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Job, LOOK_MAX, Place, SETTLING_MAX, STORE_PAUSE, Worker};

/// When the next message is due that is to be sent alone.
#[derive(Default)]
pub(super) struct Alone {
    due: Option<Instant>,
    /// Until then what else there is has its turn: as long as the last one took.
    not_before: Option<Instant>,
}

impl Alone {
    pub fn is_due(&self) -> bool {
        self.due.is_some() && self.left().is_zero()
    }

    pub fn left(&self) -> Duration {
        let due = self.due.map(|due| self.not_before.map_or(due, |other| due.max(other)));
        due.map_or(LOOK_MAX, |due| due.saturating_duration_since(Instant::now()))
    }

    pub fn wanted(&mut self, after: Option<Duration>) {
        self.due = after.map(|after| Instant::now() + after);
    }

    pub fn ended(&mut self, took: Duration) {
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
                tracing::info!(message_uuid = %uuid, interruptions, "A message that processes ended with is tried alone.");
                let worker = self.clone();
                // Of the tasks that a stop waits for.
                let _ = self.tasks.spawn(async move { worker.send_claimed(place, claimed).await }).await;
            }
            Err(error) => {
                tracing::debug!("No suspect can be claimed, and it is tried again soon: {error}");
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

    /// A message that ended one process after the other, the last of them alone, is not tried again by itself.
    pub(super) async fn give_up(&self, job: Job, interruptions: u32) {
        let (lent, uuid) = ((job.id, job.claim), job.message.uuid);
        let reason = format!(
            "set aside: {interruptions} processes ended unexpectedly while it was being sent, the last of them with nothing else \
             under way (queue.max-interruptions)"
        );
        tracing::error!(
            message_uuid = %uuid,
            "A message was {reason}. Look at it with: ace messages {uuid}; once its cause is fixed: ace messages {uuid} --retry"
        );
        let mut flight = self.flight(job.message, job.stands, job.limits, &job.interrupted);
        flight.abandon(&reason);
        self.done(lent, flight).await;
    }
}
