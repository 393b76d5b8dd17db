//! The database file: opening it, its tables and their versions.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{OpenError, repair, upgrade};
use crate::files::{self, Access};
use crate::sqlite::{self, Database, FileLock, LockError, LockMode, beside, schema};

/// Marks a database as a queue's ("ACEq").
const APPLICATION_ID: i32 = 0x4143_4571;
/// How long a statement waits for another process that reads the file, for example a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The page cache of the connection for writing, in KiB.
const CACHE_KIB: i32 = 64 * 1024;
/// A message has about 2 to 10 KB, so a page of 4 KiB would hold only one.
pub(super) const PAGE_BYTES: i32 = 16 * 1024;
/// The number of pages in the log (64 MiB) that triggers a checkpoint, which writes a page of an index once for many changes.
pub(super) const CHECKPOINT_PAGES: i32 = 4_000;

/// Moves the limits of version 4 to the column of version 5.
macro_rules! moved_limits {
    () => {
        "UPDATE messages SET limits = (SELECT json_array(json_group_array(value)) FROM (
            SELECT value FROM json_each(CAST(progress AS TEXT), '$.limit.types')
            UNION SELECT value FROM json_each(CAST(progress AS TEXT), '$.limit.channels')))
        WHERE progress IS NOT NULL AND CASE WHEN json_valid(CAST(progress AS TEXT))
            THEN json_array_length(CAST(progress AS TEXT), '$.limit.types')
                + json_array_length(CAST(progress AS TEXT), '$.limit.channels') > 0
            ELSE 0 END"
    };
}

/// Records the last message to be indexed again.
macro_rules! rehash_through {
    () => {
        "INSERT INTO meta (key, value) SELECT 'rehash-through', max(id) FROM messages HAVING max(id) IS NOT NULL"
    };
}

/// Fills the column of version 6 for the types of events.
macro_rules! event_kinds {
    () => {
        "UPDATE events SET kind = ifnull(CASE WHEN json_valid(CAST(body AS TEXT))
            THEN json_extract(CAST(body AS TEXT), '$.type') END, '')"
    };
}

pub(super) const MOVED_LIMITS: &str = moved_limits!();
pub(super) const EVENT_KINDS: &str = event_kinds!();
pub(super) const REHASH_THROUGH: &str = rehash_through!();

/// The statements that create each version of the tables from the previous one. Released versions are never edited.
///
/// Times are milliseconds since 1970; `state` is the number of a [`super::State`]. `queue` holds waiting messages (see [`super::ready`]),
/// `claims` those in flight; a message in neither is settled. `uuids` and `recipients` are deferred indexes (see
/// [`super::deferred_index`]).
pub(super) const VERSIONS: [&str; 7] = [
    "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE,
        digest BLOB NOT NULL,
        lane INTEGER NOT NULL,
        state INTEGER NOT NULL,
        in_doubt INTEGER NOT NULL,
        accepted INTEGER NOT NULL,
        settled INTEGER,
        name TEXT NOT NULL,
        user TEXT,
        email TEXT,
        trace TEXT,
        body BLOB,
        progress BLOB,
        report BLOB
    ) STRICT;
    CREATE INDEX settled ON messages (settled) WHERE settled IS NOT NULL;
    CREATE INDEX dead ON messages (id) WHERE state IN (4, 5, 6);
    CREATE TABLE queue (lane INTEGER, due INTEGER, id INTEGER, PRIMARY KEY (lane, due, id)) STRICT, WITHOUT ROWID;
    CREATE TABLE claims (id INTEGER PRIMARY KEY, lane INTEGER NOT NULL) STRICT;
    CREATE TABLE recipients (hash INTEGER, id INTEGER, PRIMARY KEY (hash, id)) STRICT, WITHOUT ROWID;
    CREATE TABLE batches (
        lane INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL UNIQUE,
        digest BLOB NOT NULL,
        state INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        kind BLOB NOT NULL
    ) STRICT;
    CREATE TABLE tallies (lane INTEGER, state INTEGER, n INTEGER NOT NULL, PRIMARY KEY (lane, state)) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        message INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX events_of ON events (message);
    CREATE TABLE calls (
        hook TEXT,
        event INTEGER,
        due INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        PRIMARY KEY (hook, event)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX calls_due ON calls (hook, due);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE resolving (
        lane INTEGER PRIMARY KEY,
        plugin TEXT NOT NULL,
        arguments TEXT NOT NULL,
        cursor TEXT,
        failures INTEGER NOT NULL,
        due INTEGER NOT NULL,
        error TEXT
    ) STRICT;
",
    // Replaces the unique index on uuids, which had to be updated for every new message.
    "
    CREATE TABLE uuids (uuid BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO uuids (uuid, id) SELECT uuid, id FROM messages ORDER BY uuid;
    INSERT INTO meta (key, value) SELECT 'indexed', ifnull(max(id), 0) FROM messages;
    ALTER TABLE messages RENAME TO messages_before;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        uuid BLOB NOT NULL,
        digest BLOB NOT NULL,
        lane INTEGER NOT NULL,
        state INTEGER NOT NULL,
        in_doubt INTEGER NOT NULL,
        accepted INTEGER NOT NULL,
        settled INTEGER,
        name TEXT NOT NULL,
        user TEXT,
        email TEXT,
        trace TEXT,
        body BLOB,
        progress BLOB,
        report BLOB
    ) STRICT;
    INSERT INTO messages SELECT * FROM messages_before ORDER BY id;
    DROP TABLE messages_before;
    CREATE INDEX settled ON messages (settled) WHERE settled IS NOT NULL;
    CREATE INDEX dead ON messages (id) WHERE state IN (4, 5, 6);
",
    // A row of `queue` can be a range of messages; messages of a batch are stored without their shared message type.
    "
    ALTER TABLE queue ADD COLUMN n INTEGER NOT NULL DEFAULT 1;
",
    // `limits`: the limits of the requests for a message (see [`super::limits`]). `parked`: messages that wait for a relay or an origin
    // that is down (see [`super::blocked`]). `retried`: when a failed message was last retried. `interruptions`: how many processes
    // ended unexpectedly with the message in flight; `doubts`: a JSON list of the times at which it was requeued in doubt; both are
    // reset when an attempt finishes (see [`super::suspects`]). `damaged`: messages that were set aside because of their rows.
    // Recipients that were indexed before are indexed again, up to the id in `meta`.
    concat!(
        "
    ALTER TABLE messages ADD COLUMN limits TEXT;
    ",
        moved_limits!(),
        ";
    ALTER TABLE messages ADD COLUMN retried INTEGER;
    CREATE TABLE parked (
        destination TEXT,
        lane INTEGER,
        seq INTEGER,
        id INTEGER NOT NULL,
        PRIMARY KEY (destination, lane, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX parked_in_turn ON parked (destination, seq);
    CREATE INDEX parked_ids ON parked (id);
    ALTER TABLE messages ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN doubts TEXT;
    CREATE TABLE damaged (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, reason TEXT NOT NULL) STRICT;
    ",
        rehash_through!(),
        ";
"
    ),
    // The type of an event was only in the body, which each webhook delivery had to parse.
    concat!(
        "
    ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT '';
    ",
        event_kinds!(),
        ";
"
    ),
    // What providers reported about messages and addresses (see [`super::feedback`]). `message` is 0 for feedback without a message;
    // events of such feedback have its negative id in their column `message`.
    "
    CREATE TABLE feedback (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,
        at INTEGER NOT NULL,
        message INTEGER NOT NULL,
        due INTEGER,
        address TEXT,
        body BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX feedback_digests ON feedback (digest);
    CREATE INDEX feedback_of ON feedback (message, at);
    CREATE INDEX feedback_due ON feedback (due) WHERE due IS NOT NULL;
    CREATE INDEX feedback_about ON feedback (address) WHERE address IS NOT NULL;
    CREATE TABLE awaited (name INTEGER, feedback INTEGER, PRIMARY KEY (name, feedback)) STRICT, WITHOUT ROWID;
    CREATE INDEX awaited_by ON awaited (feedback);
    CREATE TABLE deliveries (message INTEGER, name INTEGER, PRIMARY KEY (message, name)) STRICT, WITHOUT ROWID;
    CREATE INDEX deliveries_named ON deliveries (name, message);
",
];

impl OpenError {
    pub(super) fn of(file: &Path, error: &rusqlite::Error) -> OpenError {
        let (file, reason) = (file.to_owned(), sqlite::describe(error));
        if sqlite::is_full(error) { OpenError::Full { file, reason } } else { OpenError::Database { file, reason } }
    }

    pub(super) fn io(file: &Path, error: &std::io::Error) -> OpenError {
        let (file, reason) = (file.to_owned(), sqlite::describe_io(error));
        if sqlite::is_full_disk(error) {
            OpenError::Full { file, reason }
        } else {
            OpenError::Database { file, reason }
        }
    }
}

/// The connection for writing, and an exclusive lock on the file. A missing file is created. Tables of an earlier version are upgraded,
/// after the file was backed up.
pub(super) fn open(file: &Path, access: Access) -> Result<Database, OpenError> {
    open_with(file, access, &VERSIONS)
}

/// As [`open`], with these versions of the tables.
#[cfg(test)]
pub(super) fn open_as(file: &Path, versions: &[&str]) -> Result<Database, OpenError> {
    open_with(file, Access::default(), versions)
}

fn open_with(file: &Path, access: Access, versions: &[&str]) -> Result<Database, OpenError> {
    let copies: Vec<String> = (1..versions.len()).map(backup_suffix).collect();
    let lock = sqlite::prepare(file, LockMode::Exclusive, access, &copies).map_err(|error| lock_failed(file, error))?;
    let failed = |reason: String| OpenError::Database { file: file.to_owned(), reason };
    let sql = |e: rusqlite::Error| OpenError::of(file, &e);
    let mut db = open_writer(file, lock.clone())?;
    let version = schema::version(&db, APPLICATION_ID, versions.len()).map_err(sql)?.map_err(failed)?;
    if version > 0 && version < versions.len() {
        let copy = beside(file, &backup_suffix(version));
        back_up(&db, version, &copy, access)?;
        upgrade::migrate(&mut db, version, versions).map_err(|error| {
            if sqlite::is_general(&error) { sql(error) } else { failed(upgrade::refusal(file, &copy, version, &error)) }
        })?;
    } else if version == 0 {
        migrate(&mut db, version, versions).map_err(sql)?;
    }
    for table in &repair::TABLES {
        if let Some(repaired) = repair::repair_last_page(&db, file, access, table)? {
            drop(db);
            db = open_writer(file, lock.clone())?;
            repaired.finish(&db, file).map_err(sql)?;
        }
    }
    db.watch(access).map_err(failed)?;
    Ok(db)
}

/// Opens a connection for writing.
fn open_writer(file: &Path, lock: FileLock) -> Result<Database, OpenError> {
    let failed = |reason: String| OpenError::Database { file: file.to_owned(), reason };
    let sql = |e: rusqlite::Error| OpenError::of(file, &e);
    let db = connect(file, lock).map_err(sql)?;
    // Both have an effect only on an empty file.
    db.pragma_update(None, "page_size", PAGE_BYTES).map_err(sql)?;
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(sql)?;
    if !schema::use_wal(&db, BUSY_TIMEOUT).map_err(sql)? {
        return Err(failed(
            "the file system does not support SQLite's write-ahead log; the database must be on a local disk"
                .to_owned(),
        ));
    }
    db.pragma_update(None, "cache_size", -CACHE_KIB).map_err(sql)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sql)?;
    // Overwrites deleted data with zeros on pages that are written anyway.
    db.query_row("PRAGMA secure_delete = FAST", [], |_| Ok(())).map_err(sql)?;
    Ok(db)
}

/// Opens a connection for reading.
pub(super) fn open_reader(file: &Path, lock: FileLock) -> rusqlite::Result<Database> {
    let db = connect(file, lock)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

fn connect(file: &Path, lock: FileLock) -> rusqlite::Result<Database> {
    let db = schema::connect(file, lock, BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

pub(super) fn migrate(db: &mut Connection, from: usize, versions: &[&str]) -> rusqlite::Result<()> {
    migrate_with(db, &versions[from..], versions.len(), |_| Ok(()))
}

/// Runs statements that upgrade the tables to a version, and then `more`, in one transaction.
pub(super) fn migrate_with(
    db: &mut Connection,
    tables: &[impl AsRef<str>],
    version: usize,
    more: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for tables in tables {
        transaction.execute_batch(tables.as_ref())?;
    }
    more(&transaction)?;
    schema::set_version(&transaction, APPLICATION_ID, version)?;
    transaction.commit()
}

/// The suffix of the backup of a database with tables of that version.
fn backup_suffix(version: usize) -> String {
    format!(".version-{version}")
}

/// Backs up the database with SQLite, or byte by byte if it is damaged. An existing backup is kept, because it is older, unless it is
/// incomplete: earlier versions could leave such a file.
fn back_up(db: &Database, version: usize, to: &Path, access: Access) -> Result<(), OpenError> {
    if to.exists() {
        if is_complete_backup(to, version) {
            return Ok(());
        }
        tracing::warn!(copy = %to.display(), "A backup of the queue is incomplete, because an earlier start was interrupted; it is replaced.");
    }
    tracing::info!(copy = %to.display(), "Upgrading the queue's tables; the file is backed up first.");
    let temporary = beside(to, ".tmp");
    // SQLite writes into an existing empty file, and keeps its mode.
    let failed = |e: std::io::Error| OpenError::io(to, &e);
    let copied = files::replace(&temporary, b"", files::Readers::Only(access)).map_err(failed).and_then(|()| {
        match db.execute("VACUUM INTO ?1", [temporary.to_string_lossy()]) {
            Err(error) if !sqlite::is_general(&error) => upgrade::copy_pages(db, &temporary, access)?,
            copied => drop(copied.map_err(|e| OpenError::of(to, &e))?),
        }
        files::put_in_place(&temporary, to).map_err(failed)
    });
    copied.inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

/// Whether a file is a queue's database of that version, and not truncated.
fn is_complete_backup(copy: &Path, of: usize) -> bool {
    let query = || -> rusqlite::Result<bool> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(copy, flags)?;
        let number = |sql| db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let bytes = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
        let is_long_enough =
            copy.metadata().is_ok_and(|found| i64::try_from(found.len()).is_ok_and(|len| len >= bytes));
        Ok(is_long_enough && schema::version(&db, APPLICATION_ID, of)? == Ok(of))
    };
    query().unwrap_or(false)
}

fn lock_failed(file: &Path, error: LockError) -> OpenError {
    match error {
        LockError::InUse(holder) => {
            let holder = holder.map_or("unknown".to_owned(), |number| number.to_string());
            OpenError::InUse { file: file.to_owned(), holder }
        }
        LockError::Io(culprit, error) => OpenError::io(&culprit, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_an_earlier_version_are_upgraded_after_a_backup() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ace.db");
        let next =
            "ALTER TABLE meta ADD COLUMN note TEXT; INSERT INTO meta (key, value, note) VALUES ('b', '2', 'new')";
        let count =
            |db: &Connection| db.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0)).expect("asked");
        let first = [VERSIONS[0]];
        let db = open_as(&file, &first).unwrap_or_else(|e| panic!("{e}"));
        db.execute("INSERT INTO meta (key, value) VALUES ('a', '1')", []).expect("written");
        drop(db);

        let broken = [VERSIONS[0], "CREATE TABLE half (a); ALTER TABLE nowhere ADD COLUMN note TEXT"];
        assert!(open_as(&file, &broken).is_err(), "it is rolled back");
        let versions = [VERSIONS[0], next];
        let db = open_as(&file, &versions).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(count(&db), 2);
        drop(db);
        let db = open_as(&file, &versions).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(count(&db), 2, "once");
        let copy = open_as(&beside(&file, ".version-1"), &first).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(count(&copy), 1, "the backup has the old tables");
        drop((db, copy));
        let refused = open_as(&file, &first).err().expect("refused").to_string();
        assert!(refused.contains("its tables have version 2, this one supports up to 1"), "{refused}");
    }
}
