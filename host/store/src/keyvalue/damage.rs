//! What is done about damage: an entry that cannot be read or written is its own fault alone. It is named once, whoever writes to it
//! is told, and everything else of the transaction is done.
//! What may be damaged is *attempted* ([`Met`]).

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
    /// An entry, by its bucket and key, as far as they are text.
    Entry(String, String),
    /// A part of the file, and what becomes of it.
    Part(&'static str),
}

/// Which entries are over.
pub(super) const EXPIRING: Place =
    Place::Part("the index of expiring entries is damaged: they are not read any more, but stay in the file");
/// How many entries there are.
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

    /// A transaction begins.
    pub fn start(&mut self) {
        self.met.start();
    }

    /// It is void. Whether it may be made again, with what was met left out.
    pub fn exclude(&mut self) -> bool {
        let Damage { file, met, named } = self;
        met.exclude(|place, reason| {
            if named.len() < NAMED_MAX && named.insert(place.clone()) {
                name(file.as_deref(), place, reason);
            }
        })
    }

    /// How much is left out.
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
            "An entry of the key-value store is damaged, or lies beside a damaged page; it stays as it is, and all others go on: \
             {reason}. Put a backup of {file} in its place when you can, or save what is readable: sqlite3 {file} .recover"
        ),
        Place::Part(what) => tracing::error!(
            "The key-value store is damaged: {what} ({reason}). Put a backup of {file} in its place when you can."
        ),
    }
}

impl Batch<'_> {
    /// Does what damage may stop; the inner error is the damage, and nothing was done then.
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
