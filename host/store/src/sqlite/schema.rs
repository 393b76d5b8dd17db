//! Opening a connection, and the version of the tables.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{Database, FileLock, is_busy, keep_plans};

/// The pause between attempts to change the journal mode while another process has locked the database.
const POLL: Duration = Duration::from_millis(5);

/// Connects to a locked file, which therefore exists. A commit returns after it was written to the disk.
///
/// # Errors
/// Those of SQLite.
pub(crate) fn connect(file: &Path, lock: FileLock, busy_timeout: Duration) -> rusqlite::Result<Database> {
    // An absolute path is never a special name for SQLite, such as `:memory:`.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Database::new(Connection::open_with_flags(&file, flags)?, &file, lock);
    db.busy_timeout(busy_timeout)?;
    keep_plans(&db)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// Enables the write-ahead log. Returns false if the file system does not support it. SQLite does not wait for a lock here, so this
/// retries: two processes may create the same file at the same time.
///
/// # Errors
/// Those of SQLite; the database stays locked for that long.
pub(crate) fn use_wal(db: &Connection, timeout: Duration) -> rusqlite::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(error) if is_busy(&error) && Instant::now() < deadline => std::thread::sleep(POLL),
            mode => return mode.map(|mode| mode == "wal"),
        }
    }
}

/// The version of the tables; 0 if the file is empty. The inner error says why it is not a database of this kind.
///
/// # Errors
/// Those of SQLite.
pub(crate) fn version(db: &Connection, application_id: i32, known: usize) -> rusqlite::Result<Result<usize, String>> {
    let number = |sql| db.query_row(sql, [], |row| row.get::<_, i32>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let (id, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    Ok(match (id, usize::try_from(version)) {
        (id, Ok(version)) if id == application_id && version <= known => Ok(version),
        (id, _) if id == application_id => {
            Err(format!("a later ACE wrote it: its tables have version {version}, this one supports up to {known}"))
        }
        (0, Ok(0)) if tables == 0 => Ok(0),
        _ => Err("it is the database of another program; choose another file".to_owned()),
    })
}

/// Sets the kind of database and the version of its tables.
///
/// # Errors
/// Those of SQLite.
pub(crate) fn set_version(db: &Connection, application_id: i32, version: usize) -> rusqlite::Result<()> {
    db.pragma_update(None, "application_id", application_id)?;
    db.pragma_update(None, "user_version", version as i32)
}
