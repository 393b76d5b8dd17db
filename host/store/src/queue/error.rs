//! Errors of the queue.

use std::path::PathBuf;

/// Why an operation failed, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too many messages are unsettled. Nothing was changed.
    #[error("the queue is full: {0} messages wait (queue.max-messages)")]
    Full(u64),
    /// Too much feedback is stored. Nothing was changed.
    #[error("the queue has no room for feedback: {0} events are stored (feedback.max-events)")]
    FeedbackFull(u64),
    /// The database cannot be used now, for example because it is locked. Nothing was changed; a retry may succeed.
    #[error("the queue: {0}")]
    Unavailable(String),
    /// The disk is full. Nothing was changed; messages that were accepted are still sent.
    #[error("the queue: {0}")]
    NoRoom(String),
    /// The operation needs a damaged part of the database. Nothing was changed; other operations work.
    #[error("a part of the queue is damaged: {0}")]
    Damaged(String),
    /// There is no such message or batch.
    #[error("there is no {0}")]
    Unknown(&'static str),
    /// The message, batch or claim is in a state that does not allow it.
    #[error("{0}")]
    State(String),
}

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{}: another ace (process {holder}) has it open; stop that process, or choose another file (queue.database)", file.display())]
    InUse {
        /// The database.
        file: PathBuf,
        /// The id of that process, or `unknown`.
        holder: String,
    },
    /// The file cannot be read or written, or is not a queue.
    #[error("{}: {reason}", file.display())]
    Database {
        /// The database.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk is too full to open it.
    #[error("{}: {reason}; free some space, and it starts by itself", file.display())]
    Full {
        /// The database.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
