//! Damage found in a file. SQLite accepts no more writes in a transaction that has met a damaged page: the transaction is rolled back
//! and repeated without the part that is damaged.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a damaged part is left out before it is tried again.
const EXCLUDED_FOR: Duration = Duration::from_secs(60);

/// The places that are damaged, each with its reason.
#[derive(Debug)]
pub struct Met<P> {
    known: HashMap<P, (Instant, String)>,
    /// The damage that the current transaction has met; it must be rolled back.
    now: Option<(P, String)>,
}

impl<P> Default for Met<P> {
    fn default() -> Self {
        Met { known: HashMap::new(), now: None }
    }
}

impl<P: Eq + Hash> Met<P> {
    /// A transaction starts.
    pub fn start(&mut self) {
        self.now = None;
        if !self.known.is_empty() {
            self.known.retain(|_, (at, _)| at.elapsed() < EXCLUDED_FOR);
        }
    }

    /// Notes the error of a place: the first one of a transaction, unless it concerns the whole file.
    pub fn meet(&mut self, place: impl FnOnce() -> P, error: &rusqlite::Error) {
        if self.now.is_none() && !super::is_general(error) {
            self.now = Some((place(), super::describe(error)));
        }
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part; `log` is called with that part.
    pub fn exclude(&mut self, log: impl FnOnce(&P, &str)) -> bool {
        let Some((place, reason)) = self.now.take() else { return false };
        log(&place, &reason);
        self.known.insert(place, (Instant::now(), reason)).is_none()
    }

    /// Why a place is left out, if it is.
    pub fn reason(&self, place: &P) -> Option<&str> {
        self.known.get(place).map(|(_, reason)| reason.as_str())
    }

    /// The places that are left out.
    pub fn places(&self) -> impl ExactSizeIterator<Item = &P> {
        self.known.keys()
    }
}

/// Damage for tests, written as no ACE would; nobody has the file open.
#[cfg(test)]
pub mod testing {
    use std::path::Path;

    use rusqlite::Connection;

    /// Runs statements with the schema writable.
    pub fn spoil(file: &Path, sql: &str) {
        let db = Connection::open(file).expect("opened");
        db.execute_batch("PRAGMA writable_schema = ON; PRAGMA ignore_check_constraints = ON").expect("set");
        db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    }

    /// Overwrites one of the pages that hold a table's rows, the first, second or … of them.
    pub fn spoil_leaf(file: &Path, table: &str, nth: i64) {
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
