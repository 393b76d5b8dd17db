//! Admission of messages: their priority, and whether they go straight to a worker or into the queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use ace::Ace;
use ace::internals::tasks::Panicked;
use ace::message::{Message, MessageType};
use ace_store::queue::{Accepted, Batch, ClaimNo, New, Priority, Queue, QueueError};
use jiff::Timestamp;

use super::{Intake, IntakeError};
use crate::worker::{Awaited, Job, Slot, Stage, Worker};

/// A message as a request submits it.
pub(crate) struct Submission {
    pub(crate) message: Message,
    /// Channel types or channel names that it may go over; empty: all.
    pub(crate) limit_to: Vec<String>,
    /// The trace context of the request.
    pub(crate) trace: Option<String>,
    /// Whether the request waits for the outcome.
    pub(crate) is_awaited: bool,
}

/// A message that has been stored, now or before.
pub(crate) struct Admitted<'a> {
    pub(crate) accepted: Accepted,
    /// Its outcome, if the request waits for it.
    pub(crate) outcome: Option<Awaited<'a>>,
}

/// Accepts messages.
pub(crate) struct Submitter<'a> {
    ace: &'a Ace,
    queue: &'a Arc<Queue>,
    worker: &'a Arc<Worker>,
}

impl<'a> Submitter<'a> {
    pub(crate) fn new(ace: &'a Ace, queue: &'a Arc<Queue>, worker: &'a Arc<Worker>) -> Self {
        Submitter { ace, queue, worker }
    }

    /// Makes a message durable. It goes straight to a worker if a slot is free and it is due; otherwise it waits in the queue.
    ///
    /// # Errors
    /// A field of the message or a name in `limit_to` is invalid, or the queue cannot accept the message.
    pub(crate) async fn message(&self, submission: Submission) -> Result<Admitted<'a>, IntakeError> {
        let Submission { message, limit_to, trace, is_awaited } = submission;
        let message = Arc::new(message);
        let mut new = super::queued(&message, priority(&message))?;
        self.ace.limit(&limit_to)?;
        new.limit = (!limit_to.is_empty()).then(|| limit_to.into_iter().collect::<BTreeSet<_>>().into_iter().collect());
        new.trace = trace.clone();
        let now = self.ace.now();
        let slot = match new.not_before {
            Some(later) if later > now => None,
            _ => self.worker.slot(message.is_transactional()),
        };
        new.claim = slot.is_some();
        let outcome = is_awaited.then(|| self.worker.outcome(message.uuid));
        let accepted = match slot {
            None => self.queue.accept(vec![new], now).await?,
            Some(slot) => self.accept_and_start(new, message, slot, now).await?,
        };
        // There is one answer per message.
        let accepted = accepted.into_iter().next().unwrap_or(Accepted::Conflict);
        Ok(Admitted { accepted, outcome })
    }

    /// Accepts the messages of a batch. They have the batch's own priority, and wait in the queue for their turn.
    ///
    /// # Errors
    /// A field of the message type is invalid.
    pub(crate) fn batch(&self, batch: &'a Batch, kind: &MessageType) -> Result<Intake<'a>, IntakeError> {
        Ok(Intake::new(self.queue, batch, kind)?)
    }

    /// Accepts a message and starts sending it. Runs in a task of its own, so that a message stays with its worker if the client
    /// disconnects.
    async fn accept_and_start(
        &self,
        new: New,
        message: Arc<Message>,
        slot: Slot,
        now: Timestamp,
    ) -> Result<Vec<Accepted>, IntakeError> {
        let (queue, worker) = (self.queue.clone(), self.worker.clone());
        let (limits, trace, priority) = (new.limit.clone().map(|limit| vec![limit]), new.trace.clone(), new.priority);
        let accepting = tokio::spawn(async move {
            let accepted = queue.accept(vec![new], now).await?;
            if let Some(Accepted::New(id)) = accepted.first() {
                let job = Job {
                    id: *id,
                    claim: ClaimNo::FIRST,
                    message,
                    stage: Stage::New,
                    limits,
                    interrupted: Vec::new(),
                    trace,
                    priority,
                    since: now,
                };
                worker.start(slot, job);
            }
            Ok::<_, QueueError>(accepted)
        });
        Ok(accepting.await.map_err(Panicked::from)??)
    }
}

/// Transactional messages go before all others.
fn priority(message: &Message) -> Priority {
    if message.is_transactional() { Priority::TRANSACTIONAL } else { Priority::ORDINARY }
}
