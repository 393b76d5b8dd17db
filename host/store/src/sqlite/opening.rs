//! What is done with a database file before SQLite opens it: it is held, its modes are set, and what SQLite would drop in silence is
//! kept.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::hold::{Hold, HoldError, Use};
use super::{beside, wal};
use crate::files::{self, Access, Readers};

/// Bytes of a database's header up to its page size.
const PAGE_SIZE_END: usize = 18;
/// Entries of a folder that are searched for other names of a file.
const ENTRIES_MAX: usize = 10_000;

/// Takes hold of a database file, creating it where there is none. Others cannot read it or what SQLite keeps beside it, nor the files
/// beside it that end in one of `also`. Blocks.
///
/// # Errors
/// Another process has it; or it cannot be opened, for a reason that names the culprit.
pub fn prepare(file: &Path, usage: Use, access: Access, also: &[String]) -> Result<Hold, HoldError> {
    let (hold, is_alone) = Hold::take(file, usage, access)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| HoldError::Io(path, e)
    };
    let real = file.canonicalize().map_err(failed(file))?;
    let mut wider = Vec::new();
    for suffix in ["", "-wal", "-shm"].into_iter().chain(also.iter().map(String::as_str)) {
        let path = beside(&real, suffix);
        if access.restrict(&path).map_err(failed(&path))? {
            wider.push(path);
        }
    }
    access.name_wider(&wider);
    if is_alone {
        check_names(&real, &hold).map_err(failed(file))?;
        keep_damaged_log(&real, &hold, access).map_err(failed(&beside(&real, "-wal")))?;
        if usage == Use::Shared {
            hold.share().map_err(failed(file))?;
        }
    }
    Ok(hold)
}

/// SQLite finds a database's write-ahead log by the database's name. A file with several names (hard links) may have one under
/// another name.
fn check_names(file: &Path, hold: &Hold) -> io::Result<()> {
    let names = file.metadata()?.nlink();
    if names < 2 {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX).flatten() {
        let (path, log) = (entry.path(), beside(&entry.path(), "-wal"));
        let is_same = path != file && !path.is_symlink() && hold.is_at(&path);
        if is_same && log.metadata().is_ok_and(|found| found.len() > 0) {
            let text = format!(
                "it is also called {}, and what was written under that name is in {}; open it under that name, or remove one of \
                 the names and its log",
                path.display(),
                log.display()
            );
            return Err(io::Error::other(text));
        }
    }
    tracing::warn!(
        file = %file.display(), names,
        "The database has several names (hard links). Open it under one of them only: after a crash what was written last is found \
         by that name alone."
    );
    Ok(())
}

/// A log with committed transactions that SQLite is about to drop is copied, and named.
fn keep_damaged_log(file: &Path, hold: &Hold, access: Access) -> io::Result<()> {
    let log = beside(file, "-wal");
    let head: [u8; PAGE_SIZE_END] = hold.head()?;
    let page_bytes = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        bytes => usize::from(bytes),
    };
    let found = wal::scan(&log, page_bytes)?;
    if found.lost_commits == 0 {
        return Ok(());
    }
    let copy = copy_of(&log)?;
    // The log stays as it is until something is written: a start that fails after this meets it again.
    if !copy.exists() {
        files::copy(&log, &copy, Readers::Only(access))?;
    }
    tracing::error!(
        copy = %copy.display(), transactions_lost = found.lost_commits, frames_read = found.valid, frames_lost = found.after,
        "The write-ahead log of {} is damaged in the middle. What was committed after the damage cannot be read: changes of the time \
         shortly before the last stop are missing, so messages may be lost, or sent again. A copy of the log is kept; check the disk, \
         compare with what senders submitted then, and delete the copy afterwards.",
        file.display()
    );
    Ok(())
}

/// A name of its own for each state of a log: the bytes of its header that tell it from others, and its length.
fn copy_of(log: &Path) -> io::Result<PathBuf> {
    let mut head = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open(log)?, &mut head)?;
    let salts: String = head[12..24].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(beside(log, &format!(".damaged-{salts}-{}", log.metadata()?.len())))
}
