//! SQLite alone, with the queue's settings: what durable groups cost.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params};

/// Rows a second, in groups of this size, each group one durable transaction.
pub fn rate(folder: &Path, group: usize, rows: usize, body: &[u8], is_indexed: bool) -> f64 {
    let db = Connection::open(folder.join("raw.db")).expect("a database");
    let settings = "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536;
        CREATE TABLE m (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL, state INTEGER NOT NULL, due INTEGER NOT NULL, body BLOB NOT NULL);";
    db.execute_batch(settings).expect("settings");
    if is_indexed {
        db.execute_batch("CREATE UNIQUE INDEX of ON m (uuid); CREATE INDEX due ON m (state, due);").expect("indexes");
    }
    let mut insert = db.prepare("INSERT INTO m (uuid, state, due, body) VALUES (?1, 0, ?2, ?3)").expect("a statement");
    let begun = Instant::now();
    for first in (0..rows).step_by(group) {
        db.execute_batch("BEGIN IMMEDIATE").expect("begun");
        for row in first..rows.min(first + group) {
            let uuid = uuid::Uuid::new_v4();
            insert.execute(params![uuid.as_bytes(), row as i64, body]).expect("inserted");
        }
        db.execute_batch("COMMIT").expect("committed");
    }
    rows as f64 / begun.elapsed().as_secs_f64()
}
