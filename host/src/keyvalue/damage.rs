//! What is done about damage: an entry that cannot be read or written is its own fault alone. It is named once, whoever writes to it
//! is told, and everything else of the transaction is done.
//!
//! SQLite takes no more writes in a transaction that has met a damaged page. So what may be damaged is *attempted*: where it is
//! damaged the transaction is void, and made again with that left out.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::writer::{Batch, Stop};
use crate::sqlite;

/// How long damage that was met is left out; then it is looked at again.
const REMEMBERED: Duration = Duration::from_secs(60);
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
    known: HashMap<Place, (Instant, String)>,
    /// In the transaction under way, which is void by it.
    met: Option<(Place, String)>,
    named: HashSet<Place>,
}

impl Damage {
    pub fn of(file: Option<PathBuf>) -> Self {
        Damage { file, ..Damage::default() }
    }

    /// A transaction begins.
    pub fn begin(&mut self) {
        self.met = None;
        if !self.known.is_empty() {
            self.known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
    }

    /// It is void. Whether it may be made again, with what was met left out.
    pub fn learn(&mut self) -> bool {
        let Some((place, reason)) = self.met.take() else { return false };
        if self.named.len() < NAMED_MAX && self.named.insert(place.clone()) {
            self.name(&place, &reason);
        }
        self.known.insert(place, (Instant::now(), reason)).is_none()
    }

    /// How much is left out.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    fn name(&self, place: &Place, reason: &str) {
        let file = self.file.as_ref().map_or_else(|| "in memory".to_owned(), |file| file.display().to_string());
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
}

impl Batch<'_> {
    /// Does what damage may stop; the inner error is the damage, and nothing was done then.
    pub fn attempt<T>(
        &mut self,
        place: impl Fn() -> Place,
        work: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<Result<T, String>, Stop> {
        if self.damage.len() > 0
            && let Some((_, reason)) = self.damage.known.get(&place())
        {
            return Ok(Err(reason.clone()));
        }
        let done = work(self);
        if let Err(Stop::Broken(error)) = &done
            && !sqlite::is_general(error)
            && self.damage.met.is_none()
        {
            self.damage.met = Some((place(), sqlite::words(error)));
        }
        done.map(Ok)
    }
}
