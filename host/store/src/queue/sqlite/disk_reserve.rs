//! Disk space that is reserved for accepted messages.
//!
//! Sending a message needs writes to the queue: its claim, its progress, its settlement. On a full disk no message could be sent, and the
//! server could not even start. So a file next to the database reserves space. When the disk is full, the file is removed: new messages
//! are rejected, and accepted ones use the space. When there is enough space again, the file is created again and new messages are
//! accepted.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Settings;
use crate::files::Access;
use crate::sqlite::beside;

/// The reserve takes at most this fraction of the disk.
const DISK_FRACTION: u64 = 8;
/// The smallest useful reserve; a disk that is too small for it has none.
const BYTES_MIN: u64 = 128 * 1024;
/// The pause between checks for free space.
const POLL: Duration = Duration::from_secs(1);
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

pub(super) struct DiskReserve {
    file: PathBuf,
    /// Its size; 0: there is no reserve.
    bytes: u64,
    access: Access,
    is_there: bool,
    checked: Option<Instant>,
}

impl DiskReserve {
    /// The reserve for a database, of `bytes` if the disk is large enough. The file is not created yet.
    pub(super) fn new(database: &Path, bytes: u64, access: Access) -> DiskReserve {
        let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
        let file = beside(&database, ".reserve");
        let total = space(&file).map_or(0, |(total, _)| total);
        let bytes = Some(bytes.min(total / DISK_FRACTION)).filter(|bytes| *bytes >= BYTES_MIN).unwrap_or(0);
        let is_there = bytes > 0 && is_allocated(&file, bytes);
        if bytes == 0 {
            // The file may exist from a start with other settings.
            let _ = std::fs::remove_file(&file);
        }
        DiskReserve { file, bytes, access, is_there, checked: None }
    }

    /// The reserve of a queue.
    pub(super) fn of(settings: &Settings) -> DiskReserve {
        DiskReserve::new(&settings.database, settings.disk_reserve, settings.access)
    }

    /// Removes the file. Returns whether it existed.
    pub(super) fn release(&mut self) -> bool {
        self.checked = Some(Instant::now());
        self.is_there = false;
        std::fs::remove_file(&self.file).is_ok()
    }

    /// Creates the reserve if it is missing. Returns whether there is room for new messages: the reserve exists, or the disk is too small
    /// for one.
    pub(super) fn ensure(&mut self) -> bool {
        let is_due = |checked: Option<Instant>| checked.is_none_or(|checked| checked.elapsed() >= POLL);
        if self.bytes > 0 && !self.is_there && is_due(self.checked) {
            self.checked = Some(Instant::now());
            self.is_there = self.has_space() && self.create().is_ok();
        }
        self.bytes == 0 || self.is_there
    }

    /// The number of pages in the log that triggers a checkpoint. The database may grow by as many pages, for which the reserve must be
    /// large enough.
    pub(super) fn log_pages(&self, page_bytes: i32, at_most: i32) -> i32 {
        match (self.bytes, self.is_there) {
            (0, _) => at_most,
            // As few as possible, to save space.
            (_, false) => 1,
            (bytes, true) => {
                let pages = bytes / 4 * 3 / page_bytes.unsigned_abs() as u64;
                i32::try_from(pages).unwrap_or(at_most).clamp(1, at_most)
            }
        }
    }

    /// Why new messages are rejected.
    pub(super) fn reason(&self) -> String {
        format!(
            "the disk is full: new messages are rejected, and accepted ones are still sent. Free {} MiB on the disk of {}; \
             new messages are then accepted again",
            (self.bytes_needed() >> 20) + 1,
            self.file.with_extension("").display()
        )
    }

    /// The free space that is needed to create it, with a margin, so that it is not repeatedly created and removed.
    fn bytes_needed(&self) -> u64 {
        self.bytes + self.bytes / 4
    }

    fn has_space(&self) -> bool {
        space(&self.file).is_ok_and(|(_, free)| free >= self.bytes_needed())
    }

    fn create(&self) -> io::Result<()> {
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

/// Whether all its blocks are allocated.
fn is_allocated(file: &Path, bytes: u64) -> bool {
    file.symlink_metadata().is_ok_and(|found| found.is_file() && found.blocks() * BLOCK_BYTES >= bytes)
}

/// The size of the disk, and the free space for this user, in bytes.
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
        assert!(reserve.ensure());
        assert_eq!(folder.path().join("ace.db.reserve").metadata().expect("made").len(), 1 << 20);
        assert_eq!((reserve.log_pages(4_096, 10_000), reserve.log_pages(4_096, 100)), (192, 100));
        let mut again = open(1 << 20);
        assert!(again.is_there && again.release() && !again.release());
        again.checked = Some(Instant::now() + Duration::from_secs(60));
        assert!(!again.ensure() && again.log_pages(4_096, 100) == 1, "it was checked recently");
        assert!(!again.reason().is_empty());
        assert!(open(1 << 20).ensure(), "the next start creates it again");
        let mut none = open(0);
        assert!(none.ensure() && none.log_pages(4_096, 100) == 100);
    }

    #[test]
    fn a_disk_without_space_has_no_reserve() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut reserve = DiskReserve::new(&folder.path().join("ace.db"), u64::MAX, Access::default());
        reserve.bytes = u64::MAX / 2;
        assert!(!reserve.ensure());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
