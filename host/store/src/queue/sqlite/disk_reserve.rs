//! Room on the disk that is kept for what was accepted already.
//!
//! To send a message that waits the queue must be written: its claim, its progress, its settlement. On a disk that is full nothing
//! that waits could go out, and the server could not even start. So a file of some size lies beside the database. When the disk is
//! full it is removed: from then on new messages are refused, and its room serves what was accepted. When there is room again the file
//! is made again, and messages are accepted again.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::Settings;
use crate::files::Access;
use crate::sqlite::beside;

/// A disk that has less than so many times the reserve gets a smaller one.
const PART: u64 = 8;
/// A smaller one serves nothing: a disk for which that is too much has none.
const BYTES_MIN: u64 = 128 * 1024;
/// How often to look whether there is room again.
const POLL: Duration = Duration::from_secs(1);
/// Bytes of a block, as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;

pub(super) struct DiskReserve {
    file: PathBuf,
    /// What it has on this disk; 0: none.
    bytes: u64,
    access: Access,
    is_there: bool,
    looked: Option<Instant>,
}

impl DiskReserve {
    /// The reserve beside a database, of `bytes` where the disk is large enough. It is not made yet.
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
        DiskReserve { file, bytes, access, is_there, looked: None }
    }

    /// That of a queue.
    pub fn of(settings: &Settings) -> DiskReserve {
        DiskReserve::new(&settings.database, settings.disk_reserve, settings.access)
    }

    /// Gives its room back. False where there was none.
    pub fn release(&mut self) -> bool {
        self.looked = Some(Instant::now());
        self.is_there = false;
        std::fs::remove_file(&self.file).is_ok()
    }

    /// Whether there is room for new messages: the reserve is there, or is made now. A disk that is too small to have one always has
    /// room, until it is full.
    pub fn is_there(&mut self) -> bool {
        let is_due = |looked: Option<Instant>| looked.is_none_or(|looked| looked.elapsed() >= POLL);
        if self.bytes > 0 && !self.is_there && is_due(self.looked) {
            self.looked = Some(Instant::now());
            self.is_there = self.is_room() && self.make().is_ok();
        }
        self.bytes == 0 || self.is_there
    }

    /// How many pages of so many bytes the log may have before it is folded into the database, which grows by as many then: the
    /// reserve must be enough for that.
    pub fn log_pages(&self, page_bytes: i32, at_most: i32) -> i32 {
        match (self.bytes, self.is_there) {
            (0, _) => at_most,
            // As little as can be, so that the room lasts.
            (_, false) => 1,
            (bytes, true) => {
                let pages = bytes / 4 * 3 / page_bytes.unsigned_abs() as u64;
                i32::try_from(pages).unwrap_or(at_most).clamp(1, at_most)
            }
        }
    }

    /// What to tell whoever is refused.
    pub fn words(&self) -> String {
        format!(
            "the disk is full: new messages are refused, and what was accepted is still sent. Make {} MiB free on the disk of {}; \
             it goes on by itself",
            (self.wanted() >> 20) + 1,
            self.file.with_extension("").display()
        )
    }

    /// With something to spare, so that it does not come and go.
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

/// Whether its blocks are there, and not only its length.
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
    fn it_is_made_given_back_and_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("ace.db");
        let open = |bytes| DiskReserve::new(&database, bytes, Access::default());
        let mut reserve = open(1 << 20);
        assert!(reserve.is_there());
        assert_eq!(folder.path().join("ace.db.reserve").metadata().expect("made").len(), 1 << 20);
        assert_eq!((reserve.log_pages(4_096, 10_000), reserve.log_pages(4_096, 100)), (192, 100));
        let mut again = open(1 << 20);
        assert!(again.is_there && again.release() && !again.release());
        again.looked = Some(Instant::now() + Duration::from_secs(60));
        assert!(!again.is_there() && again.log_pages(4_096, 100) == 1, "it was looked at just now");
        assert!(!again.words().is_empty());
        assert!(open(1 << 20).is_there(), "the next start makes it again");
        let mut none = open(0);
        assert!(none.is_there() && none.log_pages(4_096, 100) == 100);
    }

    #[test]
    fn a_disk_without_room_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut reserve = DiskReserve::new(&folder.path().join("ace.db"), u64::MAX, Access::default());
        reserve.bytes = u64::MAX / 2;
        assert!(!reserve.is_there());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
