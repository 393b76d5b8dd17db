//! The door that every message comes in by: which priority it has, and whether it goes straight to a worker or into the queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use ace::Ace;
use ace::internals::tasks::Panicked;
use ace::message::{Message, MessageType};
use ace_store::queue::{Accepted, Batch, ClaimNo, New, Priority, Queue, QueueError};
use jiff::Timestamp;

use super::{Intake, IntakeError};
use crate::worker::{Awaited, Job, Place, Stands, Worker};

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

/// A message that is on the disk, or was before.
pub(crate) struct Admitted<'a> {
    pub(crate) accepted: Accepted,
    /// Its outcome, where the request waits for that.
    pub(crate) outcome: Option<Awaited<'a>>,
}

/// Takes messages in.
pub(crate) struct Submitter<'a> {
    ace: &'a Ace,
    queue: &'a Arc<Queue>,
    worker: &'a Arc<Worker>,
}

impl<'a> Submitter<'a> {
    pub(crate) fn new(ace: &'a Ace, queue: &'a Arc<Queue>, worker: &'a Arc<Worker>) -> Self {
        Submitter { ace, queue, worker }
    }

    /// Makes a message durable. It goes straight to a worker where a slot is free and it is due; otherwise it waits in the queue.
    ///
    /// # Errors
    /// A field of the message or a name in `limit_to` is wrong, or the queue cannot take it.
    pub(crate) async fn message(&self, submission: Submission) -> Result<Admitted<'a>, IntakeError> {
        let Submission { message, limit_to, trace, is_awaited } = submission;
        let message = Arc::new(message);
        let mut new = super::new(&message, priority(&message))?;
        self.ace.limit(&limit_to)?;
        new.limit = (!limit_to.is_empty()).then(|| limit_to.into_iter().collect::<BTreeSet<_>>().into_iter().collect());
        new.trace = trace.clone();
        let now = self.ace.now();
        let place = match new.not_before {
            Some(later) if later > now => None,
            _ => self.worker.place(message.is_transactional()),
        };
        new.claim = place.is_some();
        let outcome = is_awaited.then(|| self.worker.outcome(message.uuid));
        let accepted = match place {
            None => self.queue.accept(vec![new], now).await?,
            Some(place) => self.accept_and_begin(new, message, place, now).await?,
        };
        // One for each that was given.
        let accepted = accepted.into_iter().next().unwrap_or(Accepted::Conflict);
        Ok(Admitted { accepted, outcome })
    }

    /// The messages of a batch, as they come in. They have the batch's own priority, and wait in the queue for their turn.
    ///
    /// # Errors
    /// A field of the message type is wrong.
    pub(crate) fn batch(&self, batch: &'a Batch, kind: &MessageType) -> Result<Intake<'a>, IntakeError> {
        Ok(Intake::new(self.queue, batch, kind)?)
    }

    /// Apart from the request: a client that goes away leaves no claimed message without its worker.
    async fn accept_and_begin(
        &self,
        new: New,
        message: Arc<Message>,
        place: Place,
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
                    stands: Stands::AtTheBeginning,
                    limits,
                    interrupted: Vec::new(),
                    trace,
                    priority,
                    since: now,
                };
                worker.begin(place, job);
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
