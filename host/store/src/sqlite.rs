//! What is the same for every SQLite database of the host.
//!
//! - [`hold`]: the lock on the file itself
//! - [`opening`]: what is done before SQLite opens a file
//! - [`schema`]: opening a connection, and the version of the tables
//! - [`readers`]: connections for reading
//! - [`identity`]: whether an open database is still the file at its path
//! - [`wal`]: what is in a write-ahead log

pub mod damage;
#[cfg(test)]
pub mod dump;
mod hold;
mod identity;
mod opening;
mod readers;
pub mod schema;
mod wal;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode};

use crate::files::Access;

pub use hold::{Hold, HoldError, Use};
use identity::Identity;
pub use identity::Lost;
pub use opening::prepare;
pub use readers::Readers;

/// A connection that is closed before its file is let go.
pub struct Held {
    db: Connection,
    file: Option<(PathBuf, Hold)>,
    /// Of a connection that writes.
    identity: Option<Box<Identity>>,
}

impl Held {
    /// A connection to a file that is held.
    pub fn new(db: Connection, file: &Path, hold: Hold) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Held { db, file: Some((file, hold)), identity: None }
    }

    /// Starts to watch the file and its write-ahead log, for [`Held::check`]. What SQLite created beside the file has its access
    /// then.
    ///
    /// # Errors
    /// The file is another one already, it cannot be read, or it cannot be given to a group.
    pub fn watch(&mut self, access: Access) -> Result<(), String> {
        let Some((path, hold)) = &self.file else { return Ok(()) };
        self.identity = Some(Box::new(Identity::new(hold.clone(), &self.db, path)?));
        // SQLite gives them the mode of the database, but not its group.
        let real = path.canonicalize().map_err(|e| io_words(&e))?;
        ["-wal", "-shm"]
            .iter()
            .try_for_each(|suffix| access.restrict(&beside(&real, suffix)).map(drop))
            .map_err(|e| io_words(&e))
    }

    /// To be called before each transaction of a connection that is watched.
    ///
    /// # Errors
    /// Nothing may be written: the database is not the file at its path any more, or something other than SQLite wrote into it.
    pub fn check(&mut self) -> Result<(), Lost> {
        self.identity.as_mut().map_or(Ok(()), |identity| identity.check(&self.db))
    }

    /// To be called after each transaction, and each checkpoint, of a connection that is watched.
    pub fn renew(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.renew();
        }
    }

    /// What holds its file; `None` in memory.
    pub fn hold(&self) -> Option<&Hold> {
        self.file.as_ref().map(|(_, hold)| hold)
    }

    /// A connection to a database in memory.
    pub fn in_memory(db: Connection) -> Self {
        Held { db, file: None, identity: None }
    }
}

impl Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.db
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The last connection that is closed removes the write-ahead log by its name. Where another file has taken the database's
        // place that log is the other's.
        if self.file.as_ref().is_some_and(|(path, hold)| !hold.is_at(path)) {
            let _ = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// The file that SQLite or ACE keeps beside a database: its name, and something appended.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}

/// A statement is planned once. Without this it is planned anew for each other `LIMIT`.
pub fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Whether another process, or another connection, is in the way just now.
pub fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether there is no room on the disk.
pub fn is_full(error: &Error) -> bool {
    // The memory that connections share has a file of its own, which cannot be made then.
    let is_shared_memory =
        |failure: &rusqlite::ffi::Error| failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    matches!(error, Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DiskFull || is_shared_memory(failure))
}

/// As [`is_full`], of what the operating system says.
pub fn is_full_disk(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// As [`words`], of what the operating system says of the file or its folder.
pub fn io_words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let meaning = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "it cannot be written; the file and its folder must be writable"
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "it cannot be opened; its folder must be there and be writable"
        }
        _ if is_full_disk(error) => "the disk is full",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

/// Whether a failure is the whole database's, or passes by itself: the disk, a lock, memory. Any other is the fault of what was
/// looked at or written: a damaged page, a row that is not as its table has it.
pub fn is_general(error: &Error) -> bool {
    // A page that the disk cannot give back is damaged; one that ends too early was cut off.
    let is_page = |failure: &rusqlite::ffi::Error| {
        [rusqlite::ffi::SQLITE_IOERR_READ, rusqlite::ffi::SQLITE_IOERR_SHORT_READ].contains(&failure.extended_code)
    };
    match error {
        Error::SqliteFailure(failure, _) if is_page(failure) => false,
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::NotADatabase
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
        ),
        _ => false,
    }
}

/// What is wrong, in words for the operator.
pub fn describe(error: &Error) -> String {
    let meaning = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program holds it locked",
        Some(ErrorCode::NotADatabase) => "it is not a SQLite database; name another file, or move this one away",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged; restore a backup, or move it away to start with an empty one"
        }
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "it cannot be written; the file and its folder must be writable",
        Some(ErrorCode::CannotOpen) => "it cannot be opened; its folder must be there and be writable",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}
