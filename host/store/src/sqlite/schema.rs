//! Opening a connection, and the version of the tables.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{Held, Hold, is_busy, keep_plans};

/// How often a change of the journal mode is tried again while another process is in the way.
const POLL: Duration = Duration::from_millis(5);

/// A connection to a file that is held, which exists therefore. Each commit is on the disk before it returns.
///
/// # Errors
/// Those of SQLite.
pub fn connect(file: &Path, hold: Hold, busy_timeout: Duration) -> rusqlite::Result<Held> {
    // An absolute path is never one of the names that mean something else to SQLite, as `:memory:`.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Held::new(Connection::open_with_flags(&file, flags)?, &file, hold);
    db.busy_timeout(busy_timeout)?;
    keep_plans(&db)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// Has a write-ahead log kept; false where the file system cannot. SQLite does not wait for a lock here: two processes that open one
/// new file at once meet here, and one waits for the other.
///
/// # Errors
/// Those of SQLite; also when another process is in the way for so long.
pub fn use_wal(db: &Connection, at_most: Duration) -> rusqlite::Result<bool> {
    let give_up = Instant::now() + at_most;
    loop {
        match db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(error) if is_busy(&error) && Instant::now() < give_up => std::thread::sleep(POLL),
            mode => return mode.map(|mode| mode == "wal"),
        }
    }
}

/// The version of the tables; 0: the file is empty. The inner error says why the file is not ours.
///
/// # Errors
/// Those of SQLite.
pub fn version(db: &Connection, application_id: i32, known: usize) -> rusqlite::Result<Result<usize, String>> {
    let number = |sql| db.query_row(sql, [], |row| row.get::<_, i32>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let (id, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    Ok(match (id, usize::try_from(version)) {
        (id, Ok(version)) if id == application_id && version <= known => Ok(version),
        (id, _) if id == application_id => {
            Err(format!("a later ACE wrote it: its tables have version {version}, this one knows {known}"))
        }
        (0, Ok(0)) if tables == 0 => Ok(0),
        _ => Err("it is the database of another program; name another file".to_owned()),
    })
}

/// Marks the tables as ours, and of this version.
///
/// # Errors
/// Those of SQLite.
pub fn set_version(db: &Connection, application_id: i32, version: usize) -> rusqlite::Result<()> {
    db.pragma_update(None, "application_id", application_id)?;
    db.pragma_update(None, "user_version", version as i32)
}
