//! Disk space that is reserved for messages that were accepted.
//!
//! Sending a waiting message needs writes to the queue: its claim, its progress, its settlement. On a full disk no waiting message
//! could be sent, and the server could not even start. So a file is kept beside the database. When the disk is full the file is
//! removed: from then on new messages are refused, and the space serves messages that were accepted. When there is space again the
//! file is created again, and new messages are accepted.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Settings;
use crate::files::Access;
use crate::sqlite::beside;

/// A disk smaller than this many times the reserve gets a smaller reserve.
const PART: u64 = 8;
/// A smaller reserve would be useless: a disk that is too small for this one has none.
const BYTES_MIN: u64 = 128 * 1024;
/// How often to check for free space.
const POLL: Duration = Duration::from_secs(1);
/// Bytes of a block, as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;

pub(super) struct DiskReserve {
    file: PathBuf,
    /// Its size on this disk; 0: no reserve.
    bytes: u64,
    access: Access,
    is_there: bool,
    checked: Option<Instant>,
}

impl DiskReserve {
    /// The reserve beside a database, of `bytes` if the disk is large enough. The file is not created yet.
    pub fn new(database: &Path, bytes: u64, access: Access) -> DiskReserve {
        let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
        let file = beside(&database, ".reserve");
        let total = space(&file).map_or(0, |(total, _)| total);
        let bytes = Some(bytes.min(total / PART)).filter(|bytes| *bytes >= BYTES_MIN).unwrap_or(0);
        let is_there = bytes > 0 && is_whole(&file, bytes);
        if bytes == 0 {
            // One of an earlier start with other settings.
            let _ = std::fs::remove_file(&file);
        }
        DiskReserve { file, bytes, access, is_there, checked: None }
    }

    /// The reserve of a queue.
    pub fn of(settings: &Settings) -> DiskReserve {
        DiskReserve::new(&settings.database, settings.disk_reserve, settings.access)
    }

    /// Removes the file. Returns false if there was none.
    pub fn release(&mut self) -> bool {
        self.checked = Some(Instant::now());
        self.is_there = false;
        std::fs::remove_file(&self.file).is_ok()
    }

    /// Whether there is room for new messages: the reserve exists, or is created now. A disk that is too small for a reserve always
    /// has room, until it is full.
    pub fn is_there(&mut self) -> bool {
        let is_due = |checked: Option<Instant>| checked.is_none_or(|checked| checked.elapsed() >= POLL);
        if self.bytes > 0 && !self.is_there && is_due(self.checked) {
            self.checked = Some(Instant::now());
            self.is_there = self.is_room() && self.make().is_ok();
        }
        self.bytes == 0 || self.is_there
    }

    /// How many pages the log may have before a checkpoint. The database grows by as many pages then, so the reserve must suffice.
    pub fn log_pages(&self, page_bytes: i32, at_most: i32) -> i32 {
        match (self.bytes, self.is_there) {
            (0, _) => at_most,
            // As few as possible, so that the space lasts.
            (_, false) => 1,
            (bytes, true) => {
                let pages = bytes / 4 * 3 / page_bytes.unsigned_abs() as u64;
                i32::try_from(pages).unwrap_or(at_most).clamp(1, at_most)
            }
        }
    }

    /// Why new messages are refused, for the error text.
    pub fn reason(&self) -> String {
        format!(
            "the disk is full: new messages are refused, and accepted ones are still sent. Make {} MiB free on the disk of {}; \
             messages are then accepted again",
            (self.wanted() >> 20) + 1,
            self.file.with_extension("").display()
        )
    }

    /// The free space needed to create it, with a margin, so that it is not created and removed all the time.
    fn wanted(&self) -> u64 {
        self.bytes + self.bytes / 4
    }

    fn is_room(&self) -> bool {
        space(&self.file).is_ok_and(|(_, free)| free >= self.wanted())
    }

    fn make(&self) -> io::Result<()> {
        let temporary = beside(&self.file, ".tmp");
        let _ = std::fs::remove_file(&temporary);
        let make = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            self.access.apply(&file)?;
            fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?;
            std::fs::rename(&temporary, &self.file)
        };
        make().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }
}

/// Whether all blocks are allocated, not only the length set.
fn is_whole(file: &Path, bytes: u64) -> bool {
    file.symlink_metadata().is_ok_and(|found| found.is_file() && found.blocks() * BLOCK_BYTES >= bytes)
}

/// Bytes of the disk, and those of them that are free for this user.
fn space(file: &Path) -> io::Result<(u64, u64)> {
    let found = statvfs(file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    Ok((found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_created_released_and_created_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("ace.db");
        let open = |bytes| DiskReserve::new(&database, bytes, Access::default());
        let mut reserve = open(1 << 20);
        assert!(reserve.is_there());
        assert_eq!(folder.path().join("ace.db.reserve").metadata().expect("made").len(), 1 << 20);
        assert_eq!((reserve.log_pages(4_096, 10_000), reserve.log_pages(4_096, 100)), (192, 100));
        let mut again = open(1 << 20);
        assert!(again.is_there && again.release() && !again.release());
        again.checked = Some(Instant::now() + Duration::from_secs(60));
        assert!(!again.is_there() && again.log_pages(4_096, 100) == 1, "it was checked just now");
        assert!(!again.reason().is_empty());
        assert!(open(1 << 20).is_there(), "the next start makes it again");
        let mut none = open(0);
        assert!(none.is_there() && none.log_pages(4_096, 100) == 100);
    }

    #[test]
    fn a_disk_without_space_has_no_reserve() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut reserve = DiskReserve::new(&folder.path().join("ace.db"), u64::MAX, Access::default());
        reserve.bytes = u64::MAX / 2;
        assert!(!reserve.is_there());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
