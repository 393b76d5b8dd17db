//! Many messages of one kind, and the plugins that name their recipients.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::ids::Priority;
use super::message::State;

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Recipients are still being added; messages are already sent.
    Receiving = 0,
    /// All recipients were added.
    Sending = 1,
    /// Nothing is sent until it is resumed.
    Paused = 2,
    /// Messages that were not sent were cancelled.
    Cancelled = 3,
    /// Every message is settled.
    Done = 4,
    /// Its resolver failed. Recipients from earlier pages are sent; resuming asks it again.
    Failed = 5,
}

impl BatchState {
    pub(super) fn of(number: i64) -> BatchState {
        match number {
            0 => BatchState::Receiving,
            2 => BatchState::Paused,
            3 => BatchState::Cancelled,
            5 => BatchState::Failed,
            _ => BatchState::Sending,
        }
    }
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub uuid: Uuid,
    pub priority: Priority,
    pub state: BatchState,
    pub created: Timestamp,
    /// All of its messages that are kept, and how many are in each state.
    pub messages: u64,
    pub by_state: BTreeMap<State, u64>,
    /// The resolver that names its recipients, until the last page.
    pub resolver: Option<ResolverStatus>,
    /// The message type, as JSON text.
    pub kind: Vec<u8>,
}

/// The plugin that names a batch's recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    pub plugin: String,
    /// JSON.
    pub arguments: String,
}

/// How a batch's resolver is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverStatus {
    pub plugin: String,
    /// Why the last page failed; it is asked for again, unless the batch has failed.
    pub error: Option<String>,
}

/// A page of recipients to ask a resolver for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePage {
    pub batch: Batch,
    pub resolver: Resolver,
    /// Where the page starts; `None`: the first page.
    pub cursor: Option<String>,
    /// Consecutive failures to get it.
    pub failures: u32,
    /// What is wrong with its stored data: it cannot be asked for.
    pub damage: Option<String>,
}

/// A batch to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    pub uuid: Uuid,
    /// Of what it is made from: a batch with the same uuid and digest is the same batch.
    pub digest: [u8; 16],
    /// The message type, as JSON text.
    pub kind: Vec<u8>,
}
