//! The lock on a database file, by whichever name it is opened.
//!
//! It is an advisory lock of the whole file (`flock`) on a descriptor of the database file. SQLite's own locks are POSIX locks of byte
//! ranges, which do not conflict with it, but which end as soon as the process closes *any* descriptor of the file. So the descriptor
//! is opened before SQLite opens the file and closed after SQLite has closed it, and a process has only one for each file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::beside;
use crate::files::Access;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// How long to wait for a lock that is being released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between attempts.
const POLL: Duration = Duration::from_millis(10);
/// How often a file may be replaced while it is being opened.
const REPLACEMENTS_MAX: usize = 5;

/// The locks that this process holds.
static HELD: Mutex<Vec<(Id, Weak<Shared>)>> = Mutex::new(Vec::new());

/// The identity of a file: device and inode.
pub(super) type Id = (u64, u64);

/// A lock on a database file, released when its last clone is dropped. It must outlive all connections to the file.
#[derive(Clone, Debug)]
pub(crate) struct FileLock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    id: Id,
    is_exclusive: bool,
    /// The `.lock` files, which are the only ones that ACE 0.1 locks: it must not run at the same time as this version.
    #[expect(dead_code, reason = "locked until it is dropped")]
    companions: Vec<File>,
}

/// Why a file cannot be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// A process uses it; its id, if known. It may be this process.
    InUse(Option<u32>),
    /// A file cannot be opened or locked.
    Io(PathBuf, io::Error),
}

/// How a database file is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Only this process uses it.
    Exclusive,
    /// Other processes may use it too.
    Shared,
}

impl FileLock {
    /// Locks a file, and creates it if it is missing. Also returns whether no other process uses it. Blocks, for about a second if it
    /// is in use.
    ///
    /// # Errors
    /// The file is in use, or cannot be opened.
    pub(crate) fn acquire(path: &Path, mode: LockMode, access: Access) -> Result<(FileLock, bool), LockError> {
        let until = Instant::now() + RELEASE_TIMEOUT;
        loop {
            match try_acquire(path, mode, access) {
                Err(LockError::InUse(_)) if Instant::now() < until => std::thread::sleep(POLL),
                result => return result,
            }
        }
    }

    /// The identity of the file.
    pub(crate) fn id(&self) -> Id {
        self.0.id
    }

    /// Whether the locked file is still at a path.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == self.0.id)
    }

    /// Copies the database file without its write-ahead log, and marks the copy as a database without one.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn copy_database(&self, to: &mut impl io::Write) -> io::Result<()> {
        let (mut at, mut part) = (0, vec![0; COPY_BYTES]);
        loop {
            let read = self.0.file.read_at(&mut part, at)?;
            if read == 0 {
                return Ok(());
            }
            if at == 0 && read > 19 {
                // The format versions for writing and reading: 2 means with a write-ahead log, 1 without.
                part[18..20].fill(1);
            }
            to.write_all(&part[..read])?;
            at += read as u64;
        }
    }

    /// Reads a part of the file, bypassing SQLite.
    ///
    /// # Errors
    /// Those of the operating system; the file is too short.
    pub(crate) fn read_at(&self, part: &mut [u8], at: u64) -> io::Result<()> {
        self.0.file.read_exact_at(part, at)
    }

    /// Writes a part of the file, bypassing SQLite, and syncs it. Connections that are open must not be used afterwards.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn write_at(&self, part: &[u8], at: u64) -> io::Result<()> {
        self.0.file.write_all_at(part, at)?;
        self.0.file.sync_all()
    }

    /// The first bytes of the file, bypassing SQLite; zeros if the file is too short.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn head<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut head = [0; N];
        // Zeros are not a valid header.
        match self.0.file.read_exact_at(&mut head, 0) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
            _ => Ok(head),
        }
    }
}

fn try_acquire(path: &Path, mode: LockMode, access: Access) -> Result<(FileLock, bool), LockError> {
    let io = |e| LockError::Io(path.to_owned(), e);
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|(_, weak)| weak.strong_count() > 0);
    for _ in 0..REPLACEMENTS_MAX {
        // A second descriptor must not be opened, because closing it would end SQLite's locks.
        let known = path.metadata().ok().map(|found| (found.dev(), found.ino()));
        if let Some(known) = held.iter().find(|(id, _)| Some(*id) == known).and_then(|(_, weak)| weak.upgrade()) {
            return if mode == LockMode::Shared && !known.is_exclusive {
                Ok((FileLock(known), false))
            } else {
                Err(LockError::InUse(Some(std::process::id())))
            };
        }
        let companions = match mode {
            LockMode::Exclusive => lock_companions(path, access)?,
            LockMode::Shared => Vec::new(),
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        let is_only_user = lock(&file, mode).map_err(io)?;
        let id = file.metadata().map(|found| (found.dev(), found.ino())).map_err(io)?;
        let is_only_user = is_only_user.ok_or_else(|| LockError::InUse(holder_of(id)))?;
        // The file may have been replaced since it was opened.
        if path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == id) {
            companions.iter().for_each(write_holder);
            let shared = Arc::new(Shared { file, id, is_exclusive: mode == LockMode::Exclusive, companions });
            held.push((id, Arc::downgrade(&shared)));
            return Ok((FileLock(shared), is_only_user));
        }
    }
    Err(io(io::Error::other("it is repeatedly replaced by other files")))
}

/// Locks a descriptor. Returns whether no other process uses the file; `None` if it cannot be locked.
fn lock(file: &File, mode: LockMode) -> io::Result<Option<bool>> {
    let is_free = |result: Result<(), TryLockError>| match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    };
    let is_only_user = is_free(file.try_lock())?;
    Ok(match mode {
        LockMode::Exclusive => is_only_user.then_some(true),
        // The first process inspects what the last one left, and then calls [`FileLock::downgrade`].
        LockMode::Shared if is_only_user => Some(true),
        LockMode::Shared => is_free(file.try_lock_shared())?.then_some(false),
    })
}

impl FileLock {
    /// Converts the exclusive lock of the first process in [`LockMode::Shared`] into a shared one.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn downgrade(&self) -> io::Result<()> {
        self.0.file.lock_shared()
    }
}

/// Locks the `.lock` files as ACE 0.1 does: next to the path, and next to the file that a link points to.
fn lock_companions(path: &Path, access: Access) -> Result<Vec<File>, LockError> {
    let mut paths = vec![beside(path, ".lock")];
    paths.extend(path.canonicalize().ok().map(|real| beside(&real, ".lock")));
    paths.dedup_by(|a, b| a.canonicalize().ok() == b.canonicalize().ok());
    let mut locked = Vec::new();
    for path in paths {
        let io = |e| LockError::Io(path.clone(), e);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse(read_holder(&file))),
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        let _ = access.restrict(&path);
        locked.push(file);
    }
    Ok(locked)
}

/// Writes this process's id into a `.lock` file, for error messages. This may fail, for example on a full disk.
fn write_holder(mut file: &File) {
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
}

/// The process id in a `.lock` file.
fn read_holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that locked a file, if the system tells (Linux: proc_locks(5)).
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

    fn acquire(path: &Path, mode: LockMode) -> Result<(FileLock, bool), LockError> {
        try_acquire(path, mode, Access::default())
    }

    #[test]
    fn a_file_is_locked_once_by_whichever_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let [file, link, hard] = ["ace.db", "link.db", "hard.db"].map(|name| folder.path().join(name));
        let lock = acquire(&file, LockMode::Exclusive).expect("free");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        std::fs::hard_link(&file, &hard).expect("linked");
        std::fs::remove_file(beside(&file, ".lock")).expect("removed");
        for name in [&file, &link, &hard] {
            for mode in [LockMode::Exclusive, LockMode::Shared] {
                let refused = acquire(name, mode).expect_err("in use");
                assert!(matches!(refused, LockError::InUse(Some(pid)) if pid == std::process::id()), "{refused:?}");
            }
        }
        drop(lock);
        assert!(acquire(&link, LockMode::Exclusive).is_ok());
    }

    #[test]
    fn a_shared_file_has_one_descriptor() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("facts.db");
        let (first, is_only_user) = acquire(&file, LockMode::Shared).expect("free");
        assert!(is_only_user);
        first.downgrade().expect("shared");
        let (second, is_only_user) = acquire(&file, LockMode::Shared).expect("shared");
        assert!(!is_only_user && Arc::ptr_eq(&first.0, &second.0));
        assert!(matches!(acquire(&file, LockMode::Exclusive), Err(LockError::InUse(_))));
        drop(first);
        assert!(matches!(acquire(&file, LockMode::Exclusive), Err(LockError::InUse(_))), "the second lock remains");
        drop(second);
        assert!(acquire(&file, LockMode::Exclusive).is_ok());
    }
}
