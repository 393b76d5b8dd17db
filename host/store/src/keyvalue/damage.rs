//! Handling of damage: an entry that cannot be read or written affects no other entry. It is logged once, writes to it fail, and the
//! rest of the transaction is done.
//! Operations that may meet damage are *attempted* ([`Met`]).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::batch::Batch;
use super::writer::WriteError;
use crate::sqlite::damage::Met;

/// Damaged entries that are named in the log.
const NAMED_MAX: usize = 1_000;

/// What may be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// An entry, by its bucket and key, with invalid UTF-8 replaced.
    Entry(String, String),
    /// A part of the file, and the consequence of the damage.
    Part(&'static str),
}

/// The index of expired entries.
pub(super) const EXPIRING: Place =
    Place::Part("the index of expiring entries is damaged: expired entries are no longer read, but stay in the file");
/// The number of entries.
pub(super) const SIZES: Place = Place::Part(
    "how many entries there are cannot be read or written: keyvalue.max-entries and keyvalue.max-bucket-entries are not enforced",
);

/// The damage that was met.
#[derive(Default)]
pub(super) struct Damage {
    file: Option<PathBuf>,
    met: Met<Place>,
    named: HashSet<Place>,
}

impl Damage {
    pub fn of(file: Option<PathBuf>) -> Self {
        Damage { file, ..Damage::default() }
    }

    /// A transaction starts.
    pub fn start(&mut self) {
        self.met.start();
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part.
    pub fn exclude(&mut self) -> bool {
        let Damage { file, met, named } = self;
        met.exclude(|place, reason| {
            if named.len() < NAMED_MAX && named.insert(place.clone()) {
                name(file.as_deref(), place, reason);
            }
        })
    }

    /// The number of places that are left out.
    pub fn len(&self) -> usize {
        self.met.places().len()
    }
}

fn name(file: Option<&Path>, place: &Place, reason: &str) {
    let file = file.map_or_else(|| "in memory".to_owned(), |file| file.display().to_string());
    match place {
        Place::Entry(bucket, key) => tracing::error!(
            bucket,
            key,
            "An entry of the key-value store is damaged, or lies beside a damaged page; it stays as it is, all others work: \
             {reason}. Restore a backup of {file} when you can, or save what is readable: sqlite3 {file} .recover"
        ),
        Place::Part(what) => tracing::error!(
            "The key-value store is damaged: {what} ({reason}). Restore a backup of {file} when you can."
        ),
    }
}

impl Batch<'_> {
    /// Does `work`, which may meet damage. The inner error is the damage; nothing was done then.
    pub fn attempt<T>(
        &mut self,
        place: impl Fn() -> Place,
        work: impl FnOnce(&mut Self) -> Result<T, WriteError>,
    ) -> Result<Result<T, String>, WriteError> {
        if self.damage.len() > 0
            && let Some(reason) = self.damage.met.reason(&place())
        {
            return Ok(Err(reason.to_owned()));
        }
        let done = work(self);
        if let Err(WriteError::Aborted(error)) = &done {
            self.damage.met.meet(place, error);
        }
        done.map(Ok)
    }
}
