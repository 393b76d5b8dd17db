//! Settings of the queue.

use std::path::PathBuf;
use std::time::Duration;

use crate::files::Access;

/// The settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The SQLite database. Default: `ace.db`, next to ace.toml.
    pub database: PathBuf,
    /// Unsettled messages, at most. Default: 5,000,000.
    pub max_messages: u64,
    /// How long a settled message is stored. Default: 30 days.
    pub retention: Duration,
    /// Settled messages that are stored, at most. Default: 10,000,000.
    pub max_settled: u64,
    /// How long the body and progress of a dead letter are stored, without which it cannot be retried. Default: 7 days.
    pub dead_letter_retention: Duration,
    /// How long an event is stored, so that streams can resume. Default: 1 hour.
    pub event_retention: Duration,
    /// Events of feedback that are stored, at most. Default: 10,000,000.
    pub max_feedback: u64,
    /// Bytes on the disk that are reserved for accepted messages when the disk is full; 0: none. Default: 96 MiB.
    pub disk_reserve: u64,
    /// Who may read the database and its companion files. Default: only this user.
    pub access: Access,
    /// A message is set aside after this many processes ended unexpectedly while it was in flight. Default: 5.
    pub max_interruptions: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            database: "ace.db".into(),
            max_messages: 5_000_000,
            retention: Duration::from_secs(30 * 86_400),
            max_settled: 10_000_000,
            dead_letter_retention: Duration::from_secs(7 * 86_400),
            event_retention: Duration::from_secs(3_600),
            max_feedback: 10_000_000,
            disk_reserve: 96 << 20,
            access: Access::default(),
            max_interruptions: 5,
        }
    }
}
