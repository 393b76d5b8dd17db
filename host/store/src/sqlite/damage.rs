//! Known damage in a database. SQLite accepts no more writes in a transaction that read a damaged page: the transaction is rolled back
//! and repeated without the damaged part.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a damaged part is excluded before it is tried again.
const EXCLUDED_FOR: Duration = Duration::from_secs(60);

/// The damaged locations, each with the error.
#[derive(Debug)]
pub(crate) struct KnownDamage<P> {
    known: HashMap<P, (Instant, String)>,
    /// The damage that the current transaction found; it must be rolled back.
    now: Option<(P, String)>,
}

impl<P> Default for KnownDamage<P> {
    fn default() -> Self {
        KnownDamage { known: HashMap::new(), now: None }
    }
}

impl<P: Eq + Hash> KnownDamage<P> {
    /// A transaction starts.
    pub(crate) fn start(&mut self) {
        self.now = None;
        if !self.known.is_empty() {
            self.known.retain(|_, (at, _)| at.elapsed() < EXCLUDED_FOR);
        }
    }

    /// Records the first error of a transaction, unless it is general.
    pub(crate) fn note(&mut self, location: impl FnOnce() -> P, error: &rusqlite::Error) {
        if self.now.is_none() && !super::is_general(error) {
            self.now = Some((location(), super::describe(error)));
        }
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part; `log` is called with that part.
    pub(crate) fn exclude(&mut self, log: impl FnOnce(&P, &str)) -> bool {
        let Some((location, reason)) = self.now.take() else { return false };
        log(&location, &reason);
        self.known.insert(location, (Instant::now(), reason)).is_none()
    }

    /// Why a location is excluded, if it is.
    pub(crate) fn reason(&self, location: &P) -> Option<&str> {
        self.known.get(location).map(|(_, reason)| reason.as_str())
    }

    /// The excluded locations.
    pub(crate) fn locations(&self) -> impl ExactSizeIterator<Item = &P> {
        self.known.keys()
    }
}

/// Damages databases, for tests. The file must not be open.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    use rusqlite::Connection;

    /// Runs statements with a writable schema and without check constraints.
    pub(crate) fn spoil(file: &Path, sql: &str) {
        let db = Connection::open(file).expect("opened");
        db.execute_batch("PRAGMA writable_schema = ON; PRAGMA ignore_check_constraints = ON").expect("set");
        db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    }

    /// Overwrites the nth page with rows of a table.
    pub(crate) fn spoil_leaf(file: &Path, table: &str, nth: i64) {
        spoil(file, "");
        let db = Connection::open(file).expect("opened");
        let sql =
            "SELECT pgoffset, pgsize FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET ?2";
        let found =
            db.query_row(sql, rusqlite::params![table, nth], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let (at, len) = found.expect("a page");
        drop(db);
        let mut bytes = std::fs::read(file).expect("read");
        bytes[at as usize..(at + len) as usize].fill(0x5a);
        std::fs::write(file, bytes).expect("written");
    }
}
