//! What is the same for every SQLite database of the host.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode};

/// A statement is planned once. Without this it is planned anew for each other `LIMIT`.
pub fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Whether another process, or another connection, is in the way just now.
pub fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What is wrong, in words for the operator.
pub fn words(error: &Error) -> String {
    let meaning = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program holds it locked",
        Some(ErrorCode::NotADatabase) => "it is no SQLite database; name another file, or move this one away",
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged; put a backup in its place, or move it away to begin anew",
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "it cannot be written; the file and its folder must be writable",
        Some(ErrorCode::CannotOpen) => "it cannot be opened; its folder must be there and be writable",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}
