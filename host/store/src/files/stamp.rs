//! The metadata of a file, by which a change is detected without reading the file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The metadata of a file. Two stamps of a path are equal only if it is the same file with the same content: a program can set the
/// time of modification, but the kernel records the time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileStamp {
    /// Device and inode. They change if a link points elsewhere, or if another file was renamed to this path.
    id: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
    /// Seconds and nanoseconds of the last change of content, name or mode.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file or folder; links are followed. `None` if it does not exist or cannot be read. Blocks.
    pub fn of(path: &Path) -> Option<Self> {
        FileStamp::try_of(path).ok()
    }

    pub(crate) fn try_of(path: &Path) -> io::Result<Self> {
        Ok(FileStamp::from(&path.metadata()?))
    }

    /// How long ago it was modified; `None` if that is unknown or in the future.
    pub fn age(&self) -> Option<Duration> {
        self.modified?.elapsed().ok()
    }

    /// Device and inode.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl From<&Metadata> for FileStamp {
    fn from(found: &Metadata) -> Self {
        FileStamp {
            id: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: found.modified().ok(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Writes a text, and sets a fixed time of modification.
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("written");
        let file = File::options().append(true).open(path).expect("there");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("it is ours");
    }

    #[test]
    fn changed_content_changes_the_stamp_even_with_equal_size_and_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        assert_eq!(FileStamp::of(&path), None);
        write(&path, "one");
        let one = FileStamp::of(&path).expect("there");
        assert_eq!(FileStamp::of(&path), Some(one));
        assert!(one.age().is_some_and(|age| age > Duration::from_secs(3_600)));
        // The kernel's clock for file times advances every few milliseconds.
        std::thread::sleep(Duration::from_millis(20));
        write(&path, "two");
        let two = FileStamp::of(&path).expect("there");
        assert_eq!((one.bytes, one.modified, one.id), (two.bytes, two.modified, two.id));
        assert_ne!(one, two);
    }

    #[test]
    fn a_changed_link_changes_the_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        write(&path("one"), "same");
        write(&path("two"), "same");
        symlink("one", path("link")).expect("linked");
        let one = FileStamp::of(&path("link"));
        symlink("two", path("next")).expect("linked");
        std::fs::rename(path("next"), path("link")).expect("swapped");
        assert_eq!((one, FileStamp::of(&path("link"))), (FileStamp::of(&path("one")), FileStamp::of(&path("two"))));
        assert_ne!(one, FileStamp::of(&path("link")));
    }
}
