//! Handling of damage. A damaged entry affects no other entry: it is logged once, writes to it fail, and the rest of the transaction is
//! committed. Operations that may find damage are *attempted* ([`KnownDamage`]).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::batch::Batch;
use super::writer::WriteError;
use crate::sqlite::damage::KnownDamage;

/// Damaged entries that are logged, at most.
const NAMED_MAX: usize = 1_000;

/// What may be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Location {
    /// An entry, by its bucket and key, with invalid UTF-8 replaced.
    Entry(String, String),
    /// Another part of the file, as a text about the damage and its consequence.
    Part(&'static str),
}

/// The index by time of expiry.
pub(super) const EXPIRING: Location = Location::Part(
    "the index of expiring entries cannot be read or written: expired entries are not returned, but stay in the file",
);
/// The numbers of entries.
pub(super) const SIZES: Location = Location::Part(
    "the numbers of entries cannot be read or written: keyvalue.max-entries and keyvalue.max-bucket-entries are not enforced",
);

/// The damage that was found.
#[derive(Default)]
pub(super) struct Damage {
    file: Option<PathBuf>,
    known: KnownDamage<Location>,
    named: HashSet<Location>,
}

impl Damage {
    pub(super) fn of(file: Option<PathBuf>) -> Self {
        Damage { file, ..Damage::default() }
    }

    /// A transaction starts.
    pub(super) fn start(&mut self) {
        self.known.start();
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part.
    pub(super) fn exclude(&mut self) -> bool {
        let Damage { file, known, named } = self;
        known.exclude(|location, reason| {
            if named.len() < NAMED_MAX && named.insert(location.clone()) {
                log(file.as_deref(), location, reason);
            }
        })
    }

    /// The number of excluded locations.
    pub(super) fn len(&self) -> usize {
        self.known.locations().len()
    }
}

fn log(file: Option<&Path>, location: &Location, reason: &str) {
    let file = file.map_or_else(|| "in memory".to_owned(), |file| file.display().to_string());
    match location {
        Location::Entry(bucket, key) => tracing::error!(
            bucket,
            key,
            "An entry of the key-value store is damaged, or next to a damaged page; it cannot be changed, all others can: \
             {reason}. Restore a backup of {file} when possible, or recover what is readable: sqlite3 {file} .recover"
        ),
        Location::Part(what) => tracing::error!(
            "The key-value store is damaged: {what} ({reason}). Restore a backup of {file} when possible."
        ),
    }
}

impl Batch<'_> {
    /// Runs `work`, which may find damage. The inner error is the damage; in that case nothing was done.
    pub(super) fn attempt<T>(
        &mut self,
        location: impl Fn() -> Location,
        work: impl FnOnce(&mut Self) -> Result<T, WriteError>,
    ) -> Result<Result<T, String>, WriteError> {
        if self.damage.len() > 0
            && let Some(reason) = self.damage.known.reason(&location())
        {
            return Ok(Err(reason.to_owned()));
        }
        let done = work(self);
        if let Err(WriteError::Aborted(error)) = &done {
            self.damage.known.note(location, error);
        }
        done.map(Ok)
    }
}
