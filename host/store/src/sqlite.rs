//! Common parts of the host's SQLite databases.
//!
//! - [`lock`]: the lock on the database file
//! - [`opening`]: preparations before SQLite opens a file
//! - [`schema`]: opening a connection, and the version of the tables
//! - [`readers`]: a pool of connections for reading
//! - [`identity`]: whether an open database is still the file at its path
//! - [`group_commit`]: the writer thread
//! - [`damage`]: excluding damaged parts from transactions
//! - [`wal`]: the contents of a write-ahead log

pub(crate) mod damage;
#[cfg(test)]
pub(crate) mod dump;
pub(crate) mod group_commit;
mod identity;
mod lock;
mod opening;
mod readers;
pub(crate) mod schema;
mod wal;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode};

use crate::files::Access;

use identity::Identity;
pub(crate) use identity::Lost;
pub(crate) use lock::{FileLock, LockError, LockMode};
pub(crate) use opening::prepare;
pub(crate) use readers::Readers;

/// A connection, and the lock on its file, which is released after the connection is closed.
pub(crate) struct Database {
    db: Connection,
    file: Option<(PathBuf, FileLock)>,
    /// Only for the connection that writes.
    identity: Option<Box<Identity>>,
}

impl Database {
    /// A connection to a locked file.
    pub(crate) fn new(db: Connection, file: &Path, lock: FileLock) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Database { db, file: Some((file, lock)), identity: None }
    }

    /// Starts to watch the file and its write-ahead log for [`Database::check`], and sets the permissions of the files that SQLite
    /// created.
    ///
    /// # Errors
    /// Another file is at the path, the file cannot be read, or its group cannot be set.
    pub(crate) fn watch(&mut self, access: Access) -> Result<(), String> {
        let Some((path, lock)) = &self.file else { return Ok(()) };
        self.identity = Some(Box::new(Identity::new(lock.clone(), &self.db, path)?));
        // SQLite gives them the mode of the database, but not its group.
        let real = path.canonicalize().map_err(|e| describe_io(&e))?;
        ["-wal", "-shm"]
            .iter()
            .try_for_each(|suffix| access.restrict(&beside(&real, suffix)).map(drop))
            .map_err(|e| describe_io(&e))
    }

    /// Must be called before each transaction of a watched connection.
    ///
    /// # Errors
    /// The database is no longer the file at its path, or something other than SQLite wrote to it: nothing may be written.
    pub(crate) fn check(&mut self) -> Result<(), Lost> {
        self.identity.as_mut().map_or(Ok(()), |identity| identity.check(&self.db))
    }

    /// Must be called after each transaction and each checkpoint of a watched connection.
    pub(crate) fn renew(&mut self) {
        if let Some(identity) = &mut self.identity {
            identity.renew();
        }
    }

    /// The lock on its file; `None` in memory.
    pub(crate) fn lock(&self) -> Option<&FileLock> {
        self.file.as_ref().map(|(_, lock)| lock)
    }

    /// A connection to a database in memory.
    pub(crate) fn in_memory(db: Connection) -> Self {
        Database { db, file: None, identity: None }
    }
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl DerefMut for Database {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.db
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The last connection removes the write-ahead log by name when it is closed. If another file is at the database's path now,
        // that log belongs to the other file.
        if self.file.as_ref().is_some_and(|(path, lock)| !lock.is_at(path)) {
            let _ = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// The path of a file in the same folder, whose name is that of the database with a suffix.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}

/// Makes SQLite plan a prepared statement once. Otherwise it plans again for each new value of `LIMIT`.
pub(crate) fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Whether the database is locked by another process or connection.
pub(crate) fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the disk is full.
pub(crate) fn is_full(error: &Error) -> bool {
    // On a full disk the file of SQLite's shared memory cannot be created.
    let is_shared_memory =
        |failure: &rusqlite::ffi::Error| failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    matches!(error, Error::SqliteFailure(failure, _) if failure.code == ErrorCode::DiskFull || is_shared_memory(failure))
}

/// As [`is_full`], for an error of the operating system.
pub(crate) fn is_full_disk(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// As [`describe`], for an error of the operating system about the file or its folder.
pub(crate) fn describe_io(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let meaning = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "it cannot be written; the file and its folder must be writable"
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "it cannot be opened; its folder must exist and be writable"
        }
        _ if is_full_disk(error) => "the disk is full",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

/// Whether an error concerns the whole database or is temporary: the disk, a lock, memory. Any other error is caused by the data that
/// was read or written, such as a damaged page or a row that violates its table's schema.
pub(crate) fn is_general(error: &Error) -> bool {
    // A page that the disk cannot read is damaged; a short one was truncated.
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

/// The error, as a text for operators.
pub(crate) fn describe(error: &Error) -> String {
    let meaning = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program has locked it",
        Some(ErrorCode::NotADatabase) => "it is not a SQLite database; name another file, or move this one away",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged; restore a backup, or move it away to start with an empty one"
        }
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "it cannot be written; the file and its folder must be writable",
        Some(ErrorCode::CannotOpen) => "it cannot be opened; its folder must exist and be writable",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}
