//! Errors of the queue.

use std::path::PathBuf;

/// Why a request to the store failed, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too many messages are not settled yet. Nothing was changed.
    #[error("the queue is full: {0} messages wait (queue.max-messages)")]
    Full(u64),
    /// The database cannot be used now, for example because it is locked. Nothing was changed; trying again may work.
    #[error("the queue: {0}")]
    Unavailable(String),
    /// The disk is full. Nothing was changed; accepted messages are still sent.
    #[error("the queue: {0}")]
    NoRoom(String),
    /// The request needs a damaged part of the database. Nothing was changed, and everything else works.
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
    #[error("{}: another ace (process {holder}) has it open; stop that one, or name another file (queue.database)", file.display())]
    Taken { file: PathBuf, holder: String },
    #[error("{}: {reason}", file.display())]
    Database { file: PathBuf, reason: String },
    /// The disk is too full to open it.
    #[error("{}: {reason}; free some space, and it starts by itself", file.display())]
    Full { file: PathBuf, reason: String },
}
