//! The database: opening it, its tables, and queries.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::files::Access;
use crate::sqlite::{self, Held, Hold, HoldError, Use, describe, schema};

/// Marks a database as this store's ("ACEk"), so that no other program's is written to.
const APPLICATION_ID: i32 = 0x4143_456b;

/// The version of the tables.
const TABLES_VERSION: usize = 2;

/// How long a writer waits for another process, and a start for another start.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader waits, on an async thread. Writers never block it; another process that recovers or closes the file may.
const READER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// Pages kept in memory for each connection, in KiB.
const CACHE_KIB: i32 = 8 * 1024;

/// Without rowids a read is one descent of one tree. `counter` numbers those entries that have tokens; `expires` is in
/// milliseconds since 1970. `kind` is 1 for places. A token's `at` is the count when it was counted (`NULL` where nobody will ask), or the
/// moment when it took its place. `size` counts entries and tokens together.
const TABLES: &str = "
    CREATE TABLE entries (
        bucket TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        expires INTEGER,
        counter INTEGER,
        kind INTEGER,
        PRIMARY KEY (bucket, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX expiring ON entries (expires) WHERE expires IS NOT NULL;
    CREATE TABLE tokens (
        counter INTEGER NOT NULL,
        token TEXT NOT NULL,
        at INTEGER,
        PRIMARY KEY (counter, token)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE buckets (bucket TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE store (size INTEGER NOT NULL) STRICT;
    INSERT INTO store VALUES (0);
";

/// What brings tables of version 1 forward.
const TO_VERSION_2: &str = "
    ALTER TABLE entries ADD COLUMN kind INTEGER;
    ALTER TABLE tokens ADD COLUMN at INTEGER;
    CREATE TABLE buckets (bucket TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// … and counts what is in each bucket.
const BUCKET_SIZES: &str = "
    INSERT INTO buckets (bucket, size) SELECT bucket, count(*) FROM (
        SELECT bucket FROM entries UNION ALL SELECT bucket FROM entries JOIN tokens USING (counter)
    ) GROUP BY bucket;
";

/// The kind of an entry that holds places.
pub(super) const PLACES: i64 = 1;

/// An empty database that ends with its connection.
pub(super) fn in_memory() -> rusqlite::Result<Held> {
    let db = Held::in_memory(Connection::open_in_memory()?);
    db.execute_batch(TABLES)?;
    Ok(db)
}

/// The connection for writing; a missing file is created. Blocks, for [`WRITER_BUSY_TIMEOUT`] if another process has locked the
/// file.
pub(super) fn open(file: &Path, access: Access) -> Result<Held, String> {
    let hold = sqlite::prepare(file, Use::Shared, access, &[]).map_err(|error| match error {
        HoldError::Taken(_) => "another program holds it for itself; name another file (keyvalue.database)".to_owned(),
        HoldError::Io(culprit, error) if culprit == file => sqlite::io_words(&error),
        HoldError::Io(culprit, error) => format!("{}: {}", culprit.display(), sqlite::io_words(&error)),
    })?;
    let mut db = connect(file, hold, WRITER_BUSY_TIMEOUT).map_err(|e| describe(&e))?;
    make_tables(&mut db)?;
    if !schema::use_wal(&db, WRITER_BUSY_TIMEOUT).map_err(|e| describe(&e))? {
        return Err("SQLite cannot keep a write-ahead log here; the database must be on a local disk".to_owned());
    }
    db.watch(access)?;
    Ok(db)
}

/// A connection that only reads a database which [`open`] has opened.
pub(super) fn reader(file: &Path, hold: Hold) -> rusqlite::Result<Held> {
    let db = connect(file, hold, READER_BUSY_TIMEOUT)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn connect(file: &Path, hold: Hold, busy_timeout: Duration) -> rusqlite::Result<Held> {
    let db = schema::connect(file, hold, busy_timeout)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(db)
}

/// Makes the tables in an empty file; refuses a file that is another program's, or a later ACE's.
fn make_tables(db: &mut Connection) -> Result<(), String> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| describe(&e))?;
    match schema::version(&transaction, APPLICATION_ID, TABLES_VERSION).map_err(|e| describe(&e))?? {
        0 => fill(transaction, &[TABLES]).map_err(|e| describe(&e)),
        1 => {
            drop(transaction);
            bring_forward(db)
                .map_err(|e| format!("its tables have version 1 and cannot be brought forward: {}", describe(&e)))
        }
        _ => Ok(()),
    }
}

/// Upgrades tables of version 1. If damage prevents counting the entries of buckets, only new ones count.
fn bring_forward(db: &mut Connection) -> rusqlite::Result<()> {
    let fill_now = |db: &mut Connection, tables: &[&str]| -> rusqlite::Result<()> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it meanwhile.
        match schema::version(&transaction, APPLICATION_ID, TABLES_VERSION)? {
            Ok(1) => fill(transaction, tables),
            _ => Ok(()),
        }
    };
    match fill_now(db, &[TO_VERSION_2, BUCKET_SIZES]) {
        Err(error) if !sqlite::is_general(&error) => {
            fill_now(db, &[TO_VERSION_2])?;
            tracing::error!(
                "The key-value store is damaged, and the entries of its buckets could not be counted: keyvalue.max-bucket-entries counts \
                 only new entries from now on. Restore a backup when you can: {}",
                describe(&error)
            );
            Ok(())
        }
        done => done,
    }
}

fn fill(transaction: Transaction, tables: &[&str]) -> rusqlite::Result<()> {
    tables.iter().try_for_each(|tables| transaction.execute_batch(tables))?;
    schema::set_version(&transaction, APPLICATION_ID, TABLES_VERSION)?;
    transaction.commit()
}

/// The value of a live entry.
pub(super) fn value(db: &Connection, bucket: &str, key: &str, now: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM entries WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3)";
    db.prepare_cached(sql)?.query_row(params![bucket, key, now], |row| row.get(0)).optional()
}

/// A token that a live counter has counted: what it was counted as, where that is known.
pub(super) fn counted(
    db: &Connection,
    bucket: &str,
    key: &str,
    token: &str,
    now: i64,
) -> rusqlite::Result<Option<Option<i64>>> {
    let sql = "SELECT at FROM entries JOIN tokens USING (counter)
        WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3) AND kind IS NULL AND token = ?4";
    db.prepare_cached(sql)?.query_row(params![bucket, key, now, token], |row| row.get(0)).optional()
}

/// The places of a key that are in use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub n: i64,
    /// This token has one.
    pub is_held: bool,
    /// When the place was taken that has to come free before there are fewer than the limit.
    pub in_the_way: Option<i64>,
}

/// The places that were taken after `since` and before `now`, as `token` finds them under `limit`.
pub(super) fn used(
    db: &Connection,
    (bucket, key): (&str, &str),
    (token, limit): (&str, i64),
    (since, now): (i64, i64),
) -> rusqlite::Result<Used> {
    let places = "FROM entries JOIN tokens USING (counter)
        WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3) AND kind = 1 AND at > ?4";
    let sql = format!("SELECT count(*), ifnull(max(token = ?5), 0) {places}");
    let read = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
    let (n, is_held) = db.prepare_cached(&sql)?.query_row(params![bucket, key, now, since, token], read)?;
    let too_many = n - limit;
    let in_the_way = if too_many >= 0 {
        let sql = format!("SELECT at {places} ORDER BY at LIMIT 1 OFFSET ?5");
        db.prepare_cached(&sql)?.query_row(params![bucket, key, now, since, too_many], |row| row.get(0)).optional()?
    } else {
        None
    };
    Ok(Used { n, is_held, in_the_way })
}
