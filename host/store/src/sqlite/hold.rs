//! The lock on a database file itself, whichever name leads to it.
//!
//! The lock is an advisory lock of a whole file (`flock`) on a descriptor of the database file. SQLite's own locks are POSIX locks of
//! byte ranges, which do not conflict with it, but which end as soon as the process closes *any* descriptor of the file. So the
//! descriptor is opened before SQLite opens the file, it is closed after SQLite has closed it, and a process has at most one for each
//! file, however often the file is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::beside;
use crate::files::Access;

/// Bytes that a copy is made of at once.
const COPIED_AT_ONCE: usize = 1 << 20;
/// How long a file may be held by somebody who is just letting it go.
const LETTING_GO: Duration = Duration::from_secs(1);
/// How often that is checked.
const POLL: Duration = Duration::from_millis(10);
/// How often a file may be replaced by another while it is being opened.
const REPLACED_MAX: usize = 5;

/// The descriptors that this process has of database files.
static HELD: Mutex<Vec<(Id, Weak<Shared>)>> = Mutex::new(Vec::new());

/// What identifies a file: its device and its inode.
pub type Id = (u64, u64);

/// The right to use a database file, for as long as it lives or a clone of it does. It must outlive every connection to the file.
#[derive(Clone, Debug)]
pub struct Hold(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    id: Id,
    is_exclusive: bool,
    /// The files beside the database that ACE 0.1 locked, so that it never runs together with this version.
    #[expect(dead_code, reason = "held, not read")]
    beside: Vec<File>,
}

/// Why a file cannot be held.
#[derive(Debug)]
pub enum HoldError {
    /// Another process has it, the one with this number where that is known. It may be this process.
    Taken(Option<u32>),
    Io(PathBuf, io::Error),
}

/// How a database file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// By this process alone.
    Alone,
    /// Together with other processes.
    Shared,
}

impl Hold {
    /// Takes hold of a file, which is created where there is none. True as well where nobody else has it at this moment. Blocks, for
    /// about a second where another has it.
    ///
    /// # Errors
    /// Another process has it for itself, or the file cannot be opened.
    pub fn take(path: &Path, usage: Use, access: Access) -> Result<(Hold, bool), HoldError> {
        let until = Instant::now() + LETTING_GO;
        loop {
            match take_now(path, usage, access) {
                Err(HoldError::Taken(_)) if Instant::now() < until => std::thread::sleep(POLL),
                result => return result,
            }
        }
    }

    /// Which file it is.
    pub fn id(&self) -> Id {
        self.0.id
    }

    /// Whether that file is the one at this path now.
    pub fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == self.0.id)
    }

    /// Copies the database as it is on the disk, without its write-ahead log: the copy needs none.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn copy_database(&self, to: &mut impl io::Write) -> io::Result<()> {
        let (mut at, mut part) = (0, vec![0; COPIED_AT_ONCE]);
        loop {
            let read = self.0.file.read_at(&mut part, at)?;
            if read == 0 {
                return Ok(());
            }
            if at == 0 && read > 19 {
                // The versions of the format for writing and reading: 2 is a file with a write-ahead log, 1 one without.
                part[18..20].fill(1);
            }
            to.write_all(&part[..read])?;
            at += read as u64;
        }
    }

    /// Reads a part of the file as it is on the disk.
    ///
    /// # Errors
    /// Those of the operating system; the file is shorter.
    pub fn read_at(&self, part: &mut [u8], at: u64) -> io::Result<()> {
        self.0.file.read_exact_at(part, at)
    }

    /// Writes a part of the file past SQLite, onto the disk: no connection may have it open that is used afterwards.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn write_at(&self, part: &[u8], at: u64) -> io::Result<()> {
        self.0.file.write_all_at(part, at)?;
        self.0.file.sync_all()
    }

    /// The first bytes of the file as they are on the disk; fewer where it is shorter.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn head<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut head = [0; N];
        // A file that is shorter reads as zeros, which no header is.
        match self.0.file.read_exact_at(&mut head, 0) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
            _ => Ok(head),
        }
    }
}

fn take_now(path: &Path, usage: Use, access: Access) -> Result<(Hold, bool), HoldError> {
    let io = |e| HoldError::Io(path.to_owned(), e);
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|(_, weak)| weak.strong_count() > 0);
    for _ in 0..REPLACED_MAX {
        // A second descriptor of a file that this process holds must not even be opened: see above.
        let known = path.metadata().ok().map(|found| (found.dev(), found.ino()));
        if let Some(known) = held.iter().find(|(id, _)| Some(*id) == known).and_then(|(_, weak)| weak.upgrade()) {
            return if usage == Use::Shared && !known.is_exclusive {
                Ok((Hold(known), false))
            } else {
                Err(HoldError::Taken(Some(std::process::id())))
            };
        }
        let beside = match usage {
            Use::Alone => lock_beside(path, access)?,
            Use::Shared => Vec::new(),
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        let is_alone = lock(&file, usage).map_err(io)?;
        let id = file.metadata().map(|found| (found.dev(), found.ino())).map_err(io)?;
        let is_alone = is_alone.ok_or_else(|| HoldError::Taken(holder_of(id)))?;
        // Another file may have been put in its place since it was opened.
        if path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == id) {
            beside.iter().for_each(name_holder);
            let shared = Arc::new(Shared { file, id, is_exclusive: usage == Use::Alone, beside });
            held.push((id, Arc::downgrade(&shared)));
            return Ok((Hold(shared), is_alone));
        }
    }
    Err(io(io::Error::other("it is replaced by other files again and again")))
}

/// Whether nobody else has it; `None` where it cannot be had.
fn lock(file: &File, usage: Use) -> io::Result<Option<bool>> {
    let is_free = |result: Result<(), TryLockError>| match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    };
    let is_alone = is_free(file.try_lock())?;
    Ok(match usage {
        Use::Alone => is_alone.then_some(true),
        // A process that has it alone shares it after it has inspected what the last process left; see [`Hold::share`].
        Use::Shared if is_alone => Some(true),
        Use::Shared => is_free(file.try_lock_shared())?.then_some(false),
    })
}

impl Hold {
    /// Lets other processes use the file too. To be called by whoever took it for [`Use::Shared`] and was alone.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn share(&self) -> io::Result<()> {
        self.0.file.lock_shared()
    }
}

/// ACE 0.1 locked only the file `.lock` beside the path it was given. It is locked by this version too, beside the path and beside the
/// file that a link leads to.
fn lock_beside(path: &Path, access: Access) -> Result<Vec<File>, HoldError> {
    let mut paths = vec![beside(path, ".lock")];
    paths.extend(path.canonicalize().ok().map(|real| beside(&real, ".lock")));
    paths.dedup_by(|a, b| a.canonicalize().ok() == b.canonicalize().ok());
    let mut locked = Vec::new();
    for path in paths {
        let io = |e| HoldError::Io(path.clone(), e);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HoldError::Taken(named_holder(&file))),
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        let _ = access.restrict(&path);
        locked.push(file);
    }
    Ok(locked)
}

/// Writes who has it into a file beside the database. That is a help and no more: on a full disk it cannot be written.
fn name_holder(mut file: &File) {
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
}

fn named_holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that has locked a file, where the system says so (Linux: proc_locks(5)).
fn holder_of((device, inode): Id) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let mut holders = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&file.as_str())).then(|| fields[4].parse().ok())?
    });
    holders.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path, usage: Use) -> Result<(Hold, bool), HoldError> {
        take_now(path, usage, Access::default())
    }

    #[test]
    fn one_file_is_held_once_whatever_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link, hard] = ["ace.db", "link.db", "hard.db"].map(|name| folder.path().join(name));
        let held = take(&file, Use::Alone).expect("nobody has it");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        std::fs::hard_link(&file, &hard).expect("linked");
        std::fs::remove_file(beside(&file, ".lock")).expect("removed");
        for name in [&file, &link, &hard] {
            for usage in [Use::Alone, Use::Shared] {
                let refused = take(name, usage).expect_err("it is held");
                assert!(matches!(refused, HoldError::Taken(Some(pid)) if pid == std::process::id()), "{refused:?}");
            }
        }
        drop(held);
        assert!(take(&link, Use::Alone).is_ok());
    }

    #[test]
    fn a_file_that_is_shared_has_one_descriptor() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("facts.db");
        let (first, is_alone) = take(&file, Use::Shared).expect("nobody has it");
        assert!(is_alone);
        first.share().expect("shared");
        let (second, is_alone) = take(&file, Use::Shared).expect("it is shared");
        assert!(!is_alone && Arc::ptr_eq(&first.0, &second.0));
        assert!(matches!(take(&file, Use::Alone), Err(HoldError::Taken(_))));
        drop(first);
        assert!(matches!(take(&file, Use::Alone), Err(HoldError::Taken(_))), "the second still has it");
        drop(second);
        assert!(take(&file, Use::Alone).is_ok());
    }
}
