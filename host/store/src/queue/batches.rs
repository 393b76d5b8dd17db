//! Batches: many messages of one type, and resolvers, the plugins that return their recipients.

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
    /// Recipients are being added; messages are already sent.
    Receiving = 0,
    /// All recipients were added.
    Sending = 1,
    /// Its messages are not sent until it is resumed.
    Paused = 2,
    /// Its messages that waited were cancelled.
    Cancelled = 3,
    /// Every message is settled.
    Done = 4,
    /// Its resolver failed. Messages to recipients of earlier pages are sent. When it is resumed, the page is requested again.
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
    /// The uuid it was created with.
    pub uuid: Uuid,
    /// Its priority class.
    pub priority: Priority,
    /// Its state.
    pub state: BatchState,
    /// When it was created.
    pub created: Timestamp,
    /// The number of its messages that are still stored.
    pub messages: u64,
    /// The number of messages in each state.
    pub by_state: BTreeMap<State, u64>,
    /// Its resolver, until the last page.
    pub resolver: Option<ResolverStatus>,
    /// The message type, as JSON text.
    pub kind: Vec<u8>,
}

/// The plugin that returns the recipients of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// The name of the plugin.
    pub plugin: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

/// The status of a batch's resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverStatus {
    /// The name of the plugin.
    pub plugin: String,
    /// Why the last page failed. It is retried, unless the batch has failed.
    pub error: Option<String>,
}

/// A page of recipients to request from a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePage {
    /// The batch.
    pub batch: Batch,
    /// Its resolver.
    pub resolver: Resolver,
    /// The cursor of the page; `None` for the first one.
    pub cursor: Option<String>,
    /// Consecutive failures of this page.
    pub failures: u32,
    /// What is wrong with its stored data, because of which it cannot be requested.
    pub damage: Option<String>,
}

/// A batch to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// A uuid that the caller chose.
    pub uuid: Uuid,
    /// The digest of its content: a batch with the same uuid and digest is the same batch.
    pub digest: [u8; 16],
    /// The message type, as JSON text.
    pub kind: Vec<u8>,
}
