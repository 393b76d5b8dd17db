//! Preparations before SQLite opens a database file: it is locked, its permissions are set, and committed transactions that SQLite
//! would silently drop are saved.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock::{FileLock, LockError, LockMode};
use super::{beside, wal};
use crate::files::{self, Access, Readers};

/// Bytes of a database's header up to and including its page size.
const PAGE_SIZE_END: usize = 18;
/// How many entries of a folder are searched for other names of a file.
const ENTRIES_MAX: usize = 10_000;

/// Locks a database file, and creates it if it is missing. Restricts the permissions of the file, of SQLite's files for it, and of the
/// files with its name and one of the suffixes `also`. Blocks.
///
/// # Errors
/// The file is in use by another process, or a file cannot be opened.
pub(crate) fn prepare(file: &Path, mode: LockMode, access: Access, also: &[String]) -> Result<FileLock, LockError> {
    let (lock, is_only_user) = FileLock::acquire(file, mode, access)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| LockError::Io(path, e)
    };
    let real = file.canonicalize().map_err(failed(file))?;
    let mut wider = Vec::new();
    for suffix in ["", "-wal", "-shm"].into_iter().chain(also.iter().map(String::as_str)) {
        let path = beside(&real, suffix);
        if access.restrict(&path).map_err(failed(&path))? {
            wider.push(path);
        }
    }
    access.warn_of_readable(&wider);
    if is_only_user {
        check_names(&real, &lock).map_err(failed(file))?;
        keep_damaged_log(&real, &lock, access).map_err(failed(&beside(&real, "-wal")))?;
        if mode == LockMode::Shared {
            lock.downgrade().map_err(failed(file))?;
        }
    }
    Ok(lock)
}

/// SQLite finds a write-ahead log by the name of the database. A file with several names (hard links) may have its log under another
/// name.
fn check_names(file: &Path, lock: &FileLock) -> io::Result<()> {
    let names = file.metadata()?.nlink();
    if names < 2 {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX).flatten() {
        let (path, log) = (entry.path(), beside(&entry.path(), "-wal"));
        let is_same = path != file && !path.is_symlink() && lock.is_at(&path);
        if is_same && log.metadata().is_ok_and(|found| found.len() > 0) {
            let text = format!(
                "it is also called {}, and the write-ahead log of that name is {}; open it under that name, or remove one of \
                 the names and its log",
                path.display(),
                log.display()
            );
            return Err(io::Error::other(text));
        }
    }
    tracing::warn!(
        file = %file.display(), names,
        "The database has several names (hard links). Always open it under the same name: after a crash, the last changes are found only \
         by that name."
    );
    Ok(())
}

/// If the log contains committed transactions that SQLite will drop, copies it and logs that.
fn keep_damaged_log(file: &Path, lock: &FileLock, access: Access) -> io::Result<()> {
    let log = beside(file, "-wal");
    let head: [u8; PAGE_SIZE_END] = lock.head()?;
    let page_bytes = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        bytes => usize::from(bytes),
    };
    let found = wal::scan(&log, page_bytes)?;
    if found.lost_commits == 0 {
        return Ok(());
    }
    let copy = copy_path(&log)?;
    // The log does not change until something is written, so a start that fails after this finds it again.
    if !copy.exists() {
        files::copy(&log, &copy, Readers::Only(access))?;
    }
    tracing::error!(
        copy = %copy.display(), transactions_lost = found.lost_commits, frames_read = found.valid, frames_lost = found.after,
        "The write-ahead log of {} is damaged in the middle. Transactions committed after the damage cannot be read: changes made \
         shortly before the last stop are missing, so messages may be lost or sent again. The log was copied. Check the disk, \
         compare with the messages that senders submitted at that time, and then delete the copy.",
        file.display()
    );
    Ok(())
}

/// The path of the copy, which is different for each state of a log: from the salts in its header, and its length.
fn copy_path(log: &Path) -> io::Result<PathBuf> {
    let mut head = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open(log)?, &mut head)?;
    let salts: String = head[12..24].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(beside(log, &format!(".damaged-{salts}-{}", log.metadata()?.len())))
}
