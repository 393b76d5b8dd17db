//! Claiming messages, and settling them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::events::NewEvent;
use super::ids::{ClaimNo, MessageId, Priority};
use super::message::{Limits, State};

/// How many messages to claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Messages at most.
    pub max: usize,
    /// How many of them may be other than transactional.
    pub bulk_max: usize,
}

/// A message that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub id: MessageId,
    /// Which of the message's claims this is: settlements are fenced by it.
    pub claim: ClaimNo,
    pub uuid: Uuid,
    pub priority: Priority,
    /// What it shares with the other messages of its batch, if it belongs to one: the batch's `kind`.
    pub kind: Option<Arc<[u8]>>,
    pub body: Vec<u8>,
    pub progress: Option<Vec<u8>>,
    /// Its report before a request added channel types.
    pub report: Option<Vec<u8>>,
    /// What its requests limited it to, if the first of them did.
    pub limits: Option<Limits>,
    /// When it was noticed that a process or a worker had ended while it was in flight: it may have been delivered then.
    pub interrupted: Vec<Timestamp>,
    /// Processes that ended unexpectedly while it was in flight, since it last made progress.
    pub interruptions: u32,
    /// It must not be tried again: `queue.max-interruptions` processes ended while it was in flight.
    pub is_culprit: bool,
    /// What is wrong with its stored data: it must be set aside.
    pub damage: Option<String>,
    pub trace: Option<String>,
    pub accepted: Timestamp,
    /// When it was accepted or, after it had failed, last retried: its age counts from there.
    pub since: Timestamp,
}

impl Claimed {
    /// Whether it may have been delivered before.
    pub fn is_in_doubt(&self) -> bool {
        !self.interrupted.is_empty()
    }
}

/// The messages that were claimed, and when to claim again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedBatch {
    pub messages: Vec<Claimed>,
    /// When the next message is due that such a claim could return.
    pub next: Option<Timestamp>,
    /// The same for transactional messages alone.
    pub next_transactional: Option<Timestamp>,
    /// When the next suspect is due, which only [`super::Queue::claim_suspect`] returns.
    pub next_suspect: Option<Timestamp>,
}

/// What became of a message that was claimed.
#[derive(Debug, Clone)]
pub struct Settled {
    pub id: MessageId,
    /// The claim that returned it. A settlement for a claim that has ended is ignored.
    pub claim: ClaimNo,
    pub settlement: Settlement,
}

/// What becomes of a message. Reports, progress and `kept` are the caller's JSON.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// Nothing more is tried. What only another attempt would need is erased, unless it is a dead letter.
    Done {
        state: State,
        report: Vec<u8>,
        /// The event for webhooks and streams.
        event: Option<NewEvent>,
        /// The progress that [`super::Queue::retry`] starts with. Only for a dead letter.
        kept: Option<Vec<u8>>,
    },
    /// To be claimed again at that time.
    Defer { due: Timestamp, progress: Vec<u8> },
    /// As `Defer`, for a message whose destinations are down: [`super::Queue::unblock`] makes it due earlier.
    Block { due: Timestamp, progress: Vec<u8>, destinations: Vec<String> },
    /// It stays in flight, and its progress is stored. Fails with [`super::QueueError::State`] if its claim has ended.
    Record { progress: Vec<u8> },
    /// It was not started, and waits as before.
    Release,
    /// Its worker panicked: it counts as a process that ended unexpectedly while the message was in flight.
    Interrupted,
    /// Its stored data cannot be read: it is set aside, with the reason as its report.
    Corrupt { report: Vec<u8> },
}

/// How long a claim lasts: longer than any call into a channel, and the waiting around it.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
