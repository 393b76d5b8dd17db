//! The limits of the store, and where its data is.

use std::path::PathBuf;

use crate::files::Access;

/// Characters of a bucket's name, at most.
const BUCKET_CHARS_MAX: usize = 128;

/// The settings of a key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The SQLite database that keeps entries over restarts. `None`: memory, and nothing is kept.
    pub database: Option<PathBuf>,
    /// NDJSON files loaded at the start, each line `{"bucket": …, "key": …, "value": …}`.
    pub files: Vec<PathBuf>,
    /// Entries and once-tokens at most, in all buckets.
    pub max_entries: usize,
    /// Of these, what plugins may put into one bucket. `None`: a quarter of `max_entries`.
    pub max_bucket_entries: Option<usize>,
    /// The longest value, in bytes.
    pub max_value_bytes: usize,
    /// Who may read the database and the files beside it.
    pub access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            database: None,
            files: Vec::new(),
            max_entries: 100_000,
            max_bucket_entries: None,
            max_value_bytes: 64 << 10,
            access: Access::default(),
        }
    }
}

/// Whether a bucket can have this name: letters, digits, `-`, `_` and `.`, 128 at most.
pub fn is_bucket(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=BUCKET_CHARS_MAX).contains(&name.len()) && name.chars().all(is_allowed)
}
