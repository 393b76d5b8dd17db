//! How a file looks from outside: enough to see that it is another one, or that something else is in it, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file as the file system describes it. Two stamps of one path are equal only where the same file was there with the same
/// content: whatever is written to a file, and whatever a program then says of its time of modification, the kernel sets the time
/// of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileStamp {
    /// Device and inode. They differ where a link leads elsewhere, or another file was renamed to this path.
    id: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
    /// Seconds and nanoseconds of the last change of content, name or mode.
    changed: (i64, i64),
}

impl FileStamp {
    /// The file, or folder, at this path; links are followed. `None` if there is none, or it cannot be read. Blocks.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(FileStamp::from)
    }

    /// How long ago it was modified; `None` where that is not known, or lies ahead.
    pub fn age(&self) -> Option<Duration> {
        self.modified?.elapsed().ok()
    }

    /// Device and inode.
    pub fn id(&self) -> (u64, u64) {
        self.id
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

    /// Writes a text of one length, and says that it was written at one time.
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("written");
        let file = File::options().append(true).open(path).expect("there");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("it is ours");
    }

    #[test]
    fn other_content_is_another_stamp_whatever_length_and_time_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        assert_eq!(FileStamp::of(&path), None);
        write(&path, "one");
        let one = FileStamp::of(&path).expect("there");
        assert_eq!(FileStamp::of(&path), Some(one));
        assert!(one.age().is_some_and(|age| age > Duration::from_secs(3_600)));
        // The kernel's clock of files moves a few times in a hundredth of a second.
        std::thread::sleep(Duration::from_millis(20));
        write(&path, "two");
        let two = FileStamp::of(&path).expect("there");
        assert_eq!((one.bytes, one.modified, one.id), (two.bytes, two.modified, two.id));
        assert_ne!(one, two);
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_another_stamp() {
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
