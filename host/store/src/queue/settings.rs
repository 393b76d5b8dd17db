//! How much the queue keeps, where, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use crate::files::Access;

/// The settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The SQLite database. `ace.db` beside ace.toml.
    pub database: PathBuf,
    /// Messages that are not settled, at most. 5,000,000.
    pub max_messages: u64,
    /// How long a settled message is kept. 30 days.
    pub retention: Duration,
    /// Settled messages that are kept, at most. 10,000,000.
    pub max_settled: u64,
    /// How long what another attempt needs of a dead letter is kept: its context. 7 days.
    pub dead_letter_retention: Duration,
    /// How long an event is kept for streams that were interrupted. 1 hour.
    pub event_retention: Duration,
    /// Bytes on the disk that are reserved for accepted messages: a full disk serves them from there. 96 MiB; 0: none.
    pub disk_reserve: u64,
    /// Who may read the database and the files beside it.
    pub access: Access,
    /// A message that so many processes ended unexpectedly with, one after the other, is set aside. 5.
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
            disk_reserve: 96 << 20,
            access: Access::default(),
            max_interruptions: 5,
        }
    }
}
