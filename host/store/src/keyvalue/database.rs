//! The database: opening the file, its tables, and queries.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::files::Access;
use crate::sqlite::{self, Database, FileLock, LockError, LockMode, describe, schema};

/// Marks a database as a key-value store ("ACEk"), so that no other database is written to.
const APPLICATION_ID: i32 = 0x4143_456b;

/// The version of the tables.
const TABLES_VERSION: usize = 2;

/// How long the writer waits for a lock of another process.
const WRITER_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader waits, on an async thread. Writers never block it, but a process that recovers or closes the file may.
const READER_BUSY_TIMEOUT: Duration = Duration::from_millis(20);

/// The page cache of each connection, in KiB.
const CACHE_KIB: i32 = 8 * 1024;

/// Without rowids, a read descends one tree once. `counter` is a number for entries that have tokens; `expires` is in milliseconds
/// since 1970; `kind` is 1 for places. A token's `at` is the count when it was counted (`NULL` if not needed), or the time at which it took
/// its place. `size` is the number of entries and tokens.
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

/// Upgrades tables of version 1.
const TO_VERSION_2: &str = "
    ALTER TABLE entries ADD COLUMN kind INTEGER;
    ALTER TABLE tokens ADD COLUMN at INTEGER;
    CREATE TABLE buckets (bucket TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Counts the entries and tokens of each bucket.
const BUCKET_SIZES: &str = "
    INSERT INTO buckets (bucket, size) SELECT bucket, count(*) FROM (
        SELECT bucket FROM entries UNION ALL SELECT bucket FROM entries JOIN tokens USING (counter)
    ) GROUP BY bucket;
";

/// The kind of an entry that holds places.
pub(super) const PLACES: i64 = 1;

/// An empty database that ends with its connection.
pub(super) fn in_memory() -> rusqlite::Result<Database> {
    let db = Database::in_memory(Connection::open_in_memory()?);
    db.execute_batch(TABLES)?;
    Ok(db)
}

/// The connection for writing. A missing file is created. Blocks, up to [`WRITER_BUSY_TIMEOUT`] if another process has locked the file.
pub(super) fn open(file: &Path, access: Access) -> Result<Database, String> {
    let lock = sqlite::prepare(file, LockMode::Shared, access, &[]).map_err(|error| match error {
        LockError::InUse(_) => {
            "another program has locked it exclusively; choose another file (keyvalue.database)".to_owned()
        }
        LockError::Io(culprit, error) if culprit == file => sqlite::describe_io(&error),
        LockError::Io(culprit, error) => format!("{}: {}", culprit.display(), sqlite::describe_io(&error)),
    })?;
    let mut db = connect(file, lock, WRITER_BUSY_TIMEOUT).map_err(|e| describe(&e))?;
    create_or_migrate(&mut db)?;
    if !schema::use_wal(&db, WRITER_BUSY_TIMEOUT).map_err(|e| describe(&e))? {
        return Err("the file system does not support SQLite's write-ahead log; the database must be on a local disk"
            .to_owned());
    }
    db.watch(access)?;
    Ok(db)
}

/// A connection for reading a database that [`open`] opened.
pub(super) fn open_reader(file: &Path, lock: FileLock) -> rusqlite::Result<Database> {
    let db = connect(file, lock, READER_BUSY_TIMEOUT)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn connect(file: &Path, lock: FileLock, busy_timeout: Duration) -> rusqlite::Result<Database> {
    let db = schema::connect(file, lock, busy_timeout)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(db)
}

/// Creates or upgrades the tables. Rejects the database of another program or of a later ACE.
fn create_or_migrate(db: &mut Connection) -> Result<(), String> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| describe(&e))?;
    match schema::version(&transaction, APPLICATION_ID, TABLES_VERSION).map_err(|e| describe(&e))?? {
        0 => create(transaction, &[TABLES]).map_err(|e| describe(&e)),
        1 => {
            drop(transaction);
            migrate(db).map_err(|e| format!("its tables have version 1 and cannot be upgraded: {}", describe(&e)))
        }
        _ => Ok(()),
    }
}

/// Upgrades tables of version 1. If damage prevents counting the entries of buckets, only new ones are counted.
fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let create_now = |db: &mut Connection, tables: &[&str]| -> rusqlite::Result<()> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it meanwhile.
        match schema::version(&transaction, APPLICATION_ID, TABLES_VERSION)? {
            Ok(1) => create(transaction, tables),
            _ => Ok(()),
        }
    };
    match create_now(db, &[TO_VERSION_2, BUCKET_SIZES]) {
        Err(error) if !sqlite::is_general(&error) => {
            create_now(db, &[TO_VERSION_2])?;
            tracing::error!(
                "The key-value store is damaged, and the entries of its buckets could not be counted: keyvalue.max-bucket-entries counts \
                 only new entries from now on. Restore a backup when possible: {}",
                describe(&error)
            );
            Ok(())
        }
        done => done,
    }
}

fn create(transaction: Transaction, tables: &[&str]) -> rusqlite::Result<()> {
    tables.iter().try_for_each(|tables| transaction.execute_batch(tables))?;
    schema::set_version(&transaction, APPLICATION_ID, TABLES_VERSION)?;
    transaction.commit()
}

/// The value of an entry that has not expired.
pub(super) fn value(db: &Connection, bucket: &str, key: &str, now: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT value FROM entries WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3)";
    db.prepare_cached(sql)?.query_row(params![bucket, key, now], |row| row.get(0)).optional()
}

/// The entries of a bucket after a key that have not expired.
pub(super) fn list(
    db: &Connection,
    (bucket, after): (&str, &str),
    limit: usize,
    now: i64,
) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let sql = "SELECT key, value FROM entries
        WHERE bucket = ?1 AND key > ?2 AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    statement.query_map(params![bucket, after, now, limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Whether a counter that has not expired has counted a token, and the count at that time if known.
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
pub(super) struct PlaceUsage {
    pub n: i64,
    /// The token has one of them.
    pub is_held: bool,
    /// If the limit is reached: when the place was taken that must become free first.
    pub blocked_by: Option<i64>,
}

/// The places that were taken after `since`, for a request by `token` with that limit.
pub(super) fn used(
    db: &Connection,
    (bucket, key): (&str, &str),
    (token, limit): (&str, i64),
    (since, now): (i64, i64),
) -> rusqlite::Result<PlaceUsage> {
    let places = "FROM entries JOIN tokens USING (counter)
        WHERE bucket = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?3) AND kind = 1 AND at > ?4";
    let sql = format!("SELECT count(*), ifnull(max(token = ?5), 0) {places}");
    let read = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
    let (n, is_held) = db.prepare_cached(&sql)?.query_row(params![bucket, key, now, since, token], read)?;
    let surplus = n - limit;
    let blocked_by = if surplus >= 0 {
        let sql = format!("SELECT at {places} ORDER BY at LIMIT 1 OFFSET ?5");
        db.prepare_cached(&sql)?.query_row(params![bucket, key, now, since, surplus], |row| row.get(0)).optional()?
    } else {
        None
    };
    Ok(PlaceUsage { n, is_held, blocked_by })
}
