//! Claiming messages, and settling them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::events::NewEvent;
use super::feedback::Delivery;
use super::ids::{ClaimNo, MessageId, Priority};
use super::message::{Limits, State};

/// How many messages to claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Messages, at most.
    pub max: usize,
    /// How many of them may be non-transactional.
    pub bulk_max: usize,
}

/// A message that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its id.
    pub id: MessageId,
    /// The number of this claim; settlements are fenced by it.
    pub claim: ClaimNo,
    /// The uuid it was submitted with.
    pub uuid: Uuid,
    /// Its priority class.
    pub priority: Priority,
    /// For a message of a batch: the message type that all its messages share ([`super::NewBatch::kind`]).
    pub kind: Option<Arc<[u8]>>,
    /// Its body, as it was submitted.
    pub body: Vec<u8>,
    /// The progress that it was last settled or recorded with.
    pub progress: Option<Vec<u8>>,
    /// Its previous report, if a later request added channel types.
    pub report: Option<Vec<u8>>,
    /// What its requests limited it to; `None` if the first one had no limit.
    pub limits: Option<Limits>,
    /// When it was found that a process or a worker had ended while the message was in flight. It may have been delivered then.
    pub interrupted: Vec<Timestamp>,
    /// How many processes ended unexpectedly while it was in flight, since its last finished attempt.
    pub interruptions: u32,
    /// It must not be sent: `queue.max-interruptions` processes ended while it was in flight.
    pub is_culprit: bool,
    /// What is wrong with its stored data, because of which it must be set aside.
    pub damage: Option<String>,
    /// The W3C trace context of its request.
    pub trace: Option<String>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it was accepted, or last retried after it had failed. Its age counts from then.
    pub since: Timestamp,
}

#[cfg(any(test, feature = "conformance"))]
impl Claimed {
    /// Whether it may have been delivered before.
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.interrupted.is_empty()
    }
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedBatch {
    /// The claimed messages.
    pub messages: Vec<Claimed>,
    /// When the next message for such a claim is due.
    pub next: Option<Timestamp>,
    /// When the next transactional message is due.
    pub next_transactional: Option<Timestamp>,
    /// When the next suspect is due, for [`super::Queue::claim_suspect`].
    pub next_suspect: Option<Timestamp>,
}

/// The settlement of a claimed message.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The message.
    pub id: MessageId,
    /// The claim that returned it. A settlement for a claim that has ended is ignored.
    pub claim: ClaimNo,
    /// Its outcome.
    pub settlement: Settlement,
}

/// The outcome of a claim. Reports, progress and `kept` are JSON of the caller.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// The message is settled. Its body and progress are erased, unless it is a dead letter.
    Done(Done),
    /// The message is requeued until `due`.
    Defer {
        /// When it may be claimed again.
        due: Timestamp,
        /// The state of its delivery.
        progress: Vec<u8>,
    },
    /// As `Defer`, for a message whose destinations are down. [`super::Queue::unblock`] makes it due earlier.
    Block {
        /// When it may be claimed again in any case.
        due: Timestamp,
        /// The state of its delivery.
        progress: Vec<u8>,
        /// The relays and origins that it waits for.
        destinations: Vec<String>,
    },
    /// The progress is stored, and the message stays in flight. Fails with [`super::QueueError::State`] if its claim has ended.
    Record {
        /// The state of its delivery.
        progress: Vec<u8>,
    },
    /// The attempt was not started; the message is requeued.
    Release,
    /// The worker panicked. This counts like a process that ended unexpectedly while the message was in flight.
    Interrupted,
    /// The stored data of the message cannot be read; it is set aside.
    Corrupt {
        /// A report with the reason.
        report: Vec<u8>,
    },
}

/// How a message ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its final state.
    pub state: State,
    /// Its report.
    pub report: Vec<u8>,
    /// The event for webhooks and streams.
    pub event: Option<NewEvent>,
    /// Events about the message's addresses. They are stored even if further channel types were requested meanwhile.
    pub contacts: Vec<NewEvent>,
    /// For a dead letter: the progress that [`super::Queue::retry`] starts with.
    pub kept: Option<Vec<u8>>,
    /// The deliveries that feedback may refer to.
    pub deliveries: Vec<Delivery>,
}

impl Done {
    /// A message that ended in this state, with this report and nothing else.
    pub fn new(state: State, report: Vec<u8>) -> Self {
        Done { state, report, event: None, contacts: Vec::new(), kept: None, deliveries: Vec::new() }
    }
}

/// How long a claim lasts: longer than any attempt to send a message.
pub(crate) const LEASE: Duration = Duration::from_secs(15 * 60);
