//! Settings of the key-value store.

use std::path::PathBuf;

use crate::files::Access;

/// The longest name of a bucket.
const BUCKET_CHARS_MAX: usize = 128;

/// The settings of a key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The SQLite database. `None`: entries are kept in memory, and lost when the process ends.
    pub database: Option<PathBuf>,
    /// NDJSON files with entries that are loaded at the start; a line is `{"bucket": …, "key": …, "value": …}`.
    pub files: Vec<PathBuf>,
    /// Entries and tokens in all buckets, at most.
    pub max_entries: usize,
    /// Entries and tokens that plugins may store in one bucket, at most. `None`: a quarter of `max_entries`.
    pub max_bucket_entries: Option<usize>,
    /// The longest value, in bytes.
    pub max_value_bytes: usize,
    /// Who may read the database and its companion files.
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

/// Whether a name is valid for a bucket: up to 128 letters, digits, `-`, `_` and `.`.
pub fn is_bucket(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=BUCKET_CHARS_MAX).contains(&name.len()) && name.chars().all(is_allowed)
}
