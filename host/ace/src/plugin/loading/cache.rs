//! Compiled plugins on disk: written once, then mapped at every start.
//!
//! Mapped files run as native code. So an entry is used only after two checks, on the same descriptor that is then mapped: nobody
//! except this user and root can have written it (owner, mode and number of links, also of the folder), and every byte is as it was
//! stored (length and checksum). Otherwise the plugin is compiled again, a WARN tells why, and the new entry replaces the old one.
//!
//! An entry contains, in this order:
//!
//! - the code in wasmtime's serialized form, first, so that it can be mapped;
//! - metadata: JSON from the caller, opaque to this module;
//! - a trailer of [`TRAILER_BYTES`]: the lengths of both, the [`Key`], [`MAGIC`], and the XXH3-128 of everything before it.
//!
//! Entries are written under a temporary name, synced and renamed. A file lock (`flock`) means that a temporary file is being
//! written, or that an entry is mapped. Files that a killed process left behind are not locked.

#[cfg(test)]
mod tests;

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use twox_hash::XxHash3_128;
use wasmtime::component::Component;

use crate::config::{CacheLimits, Config};

/// Identifies the format of an entry, in its trailer.
const MAGIC: [u8; 8] = *b"ACECODE1";
const CHECKSUM_BYTES: usize = 16;
/// Two lengths, the key (a SHA-256 and a number), the magic, the checksum.
const TRAILER_BYTES: usize = 8 + 8 + 32 + 8 + MAGIC.len() + CHECKSUM_BYTES;
/// The longest metadata of an entry.
pub(super) const METADATA_BYTES_MAX: usize = 1 << 20;
/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Only this user can read an entry, and nobody can write to it in place, which would change running code.
const ENTRY_MODE: u32 = 0o400;
/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;
/// How many temporary names are tried: another process may remove a new file before it is locked.
const NAMES_MAX: usize = 5;

/// The folder of compiled plugins. Everything here blocks.
pub(crate) struct Cache {
    dir: PathBuf,
    limits: CacheLimits,
    /// Whether the log says that the folder is not used.
    is_warned: AtomicBool,
}

/// Identifies the code of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The component's SHA-256.
    pub component: [u8; 32],
    /// Identifies the compiler, its version and its settings.
    pub settings: u64,
}

/// An entry that was checked.
pub(crate) struct Entry {
    /// Holds a shared lock.
    file: File,
    path: PathBuf,
    code_bytes: usize,
    metadata: Vec<u8>,
}

/// Prevents every process from pruning an entry while its code is in use.
pub struct InUse(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

/// Why an entry, or the whole folder, is not used.
#[derive(Debug, thiserror::Error)]
enum UnusableError {
    #[error("other users may write into {} (mode {mode:03o}): run `chmod go-w {}`", path.display(), path.display())]
    OthersWrite { path: PathBuf, mode: u32 },
    #[error("{} belongs to the user with id {owner}, and ACE runs as the one with id {me}: change its owner, or remove it", path.display())]
    Owner { path: PathBuf, owner: u32, me: u32 },
    #[error("{} has {links} names (hard links), and whoever knows another one may write it", path.display())]
    Links { path: PathBuf, links: u64 },
    #[error("{} is not a {wanted}", path.display())]
    Kind { path: PathBuf, wanted: &'static str },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl Cache {
    pub(crate) fn new(dir: PathBuf, limits: CacheLimits) -> Self {
        // Absolute, for log lines.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        Cache { dir, limits, is_warned: AtomicBool::new(false) }
    }

    /// The cache in `cache-dir`, if that is set.
    pub(crate) fn configured(config: &Config) -> Option<Self> {
        Some(Cache::new(config.fixed.cache_dir.clone()?, config.fixed.cache.clone()))
    }

    /// Opens and checks the entry of this key. `None`: there is no usable entry; if there is an unusable one, a WARN tells why.
    pub(crate) fn open(&self, key: &Key) -> Option<Entry> {
        let folder = self.folder()?;
        match Entry::open(&folder, self.dir.join(key.file_name()), key) {
            Ok(entry) => entry,
            Err(unusable) => {
                tracing::warn!("Compiled code in the cache cannot be used; its plugin is compiled again: {unusable}");
                None
            }
        }
    }

    /// Stores code with its metadata (at most [`METADATA_BYTES_MAX`]), and opens the new entry. `None`: that failed, and a WARN
    /// tells why.
    pub(crate) fn store(&self, key: &Key, code: impl Read, metadata: &[u8]) -> Option<Entry> {
        match self.write(key, code, metadata) {
            Ok(()) => self.open(key),
            Err(io) => {
                let file = self.dir.join(key.file_name());
                tracing::warn!(file = %file.display(), "Compiled code could not be stored; its plugin is compiled again at the next start: {io}");
                None
            }
        }
    }

    /// Opens the folder, if nobody else may write into it. It is checked each time; the log tells once that it is not used.
    fn folder(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unusable = match rustix::fs::open(&self.dir, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return None,
            Err(rustix::io::Errno::NOTDIR) => UnusableError::Kind { path: self.dir.clone(), wanted: "folder" },
            Err(errno) => UnusableError::Unreadable { path: self.dir.clone(), source: errno.into() },
            Ok(folder) => {
                let folder = File::from(folder);
                match folder.metadata() {
                    Err(source) => UnusableError::Unreadable { path: self.dir.clone(), source },
                    Ok(metadata) => match check_writers(&self.dir, &metadata) {
                        Err(unusable) => unusable,
                        Ok(()) => return Some(folder.into()),
                    },
                }
            }
        };
        if !self.is_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "The folder of compiled plugins (cache-dir) cannot be used; plugins are compiled at every start: {unusable}"
            );
        }
        None
    }

    fn write(&self, key: &Key, mut code: impl Read, metadata: &[u8]) -> io::Result<()> {
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(io::Error::other(format!("its metadata is longer than {METADATA_BYTES_MAX} bytes")));
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // The log has told why it is not used.
        let Some(folder) = self.folder() else { return Ok(()) };
        let (temporary, file) = create_temporary(&folder, key)?;
        let mut written = || -> io::Result<()> {
            let mut out = Summed { file: &file, sum: XxHash3_128::new() };
            let code_bytes = io::copy(&mut code, &mut out)?;
            out.write_all(metadata)?;
            out.write_all(&lengths_and_key(code_bytes, metadata.len() as u64, key))?;
            let sum = out.sum.finish_128();
            (&file).write_all(&sum.to_le_bytes())?;
            file.sync_all()?;
            rustix::fs::renameat(&folder, &temporary, &folder, key.file_name())?;
            Ok(rustix::fs::fsync(&folder)?)
        };
        let written = written();
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        }
        written
    }

    /// Removes entries that were not used for `cache-max-age`, then the least recently used ones until the rest fits into
    /// `cache-max-size`, and files that killed processes left behind. Keeps entries that any process has mapped, and files of
    /// others. Call it when everything that is needed is loaded.
    pub(crate) fn prune(&self) {
        let Some(folder) = self.folder() else { return };
        match self.prune_folder(&folder) {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(folder = %self.dir.display(), "Removed {removed} files of compiled plugins that were no longer used.");
            }
            Err(io) => {
                tracing::warn!(folder = %self.dir.display(), "The folder of compiled plugins could not be cleaned up: {io}");
            }
        }
    }

    fn prune_folder(&self, folder: &OwnedFd) -> io::Result<usize> {
        let (mut entries, mut removed) = (Vec::new(), 0);
        for file in Dir::read_from(folder)? {
            let Ok(name) = file?.file_name().to_str().map(str::to_owned) else { continue };
            match kind(&name) {
                Some(Kind::Temporary) => removed += usize::from(remove_unlocked(folder, &name)),
                Some(Kind::Entry) => {
                    let Ok(stat) = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
                    entries.push((used, stat.st_size as u64, name));
                }
                None => {}
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (used, size, name) in entries {
            let is_old = used.elapsed().is_ok_and(|age| age > self.limits.max_age);
            if (is_old || bytes > self.limits.max_bytes as u64) && remove_unlocked(folder, &name) {
                bytes -= size;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Key {
    fn file_name(&self) -> String {
        format!("{}-{:016x}.cwasm", HEXLOWER.encode(&self.component), self.settings)
    }
}

impl Entry {
    /// `Ok(None)`: there is no entry.
    fn open(folder: &OwnedFd, path: PathBuf, key: &Key) -> Result<Option<Self>, UnusableError> {
        let unreadable = |source: io::Error| UnusableError::Unreadable { path: path.clone(), source };
        // Does not follow a link or block on a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, key.file_name(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(UnusableError::Kind { path, wanted: "regular file" }),
            Err(errno) => return Err(unreadable(errno.into())),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(UnusableError::Kind { path, wanted: "regular file" });
        }
        check_writers(&path, &metadata)?;
        match file.try_lock_shared() {
            // Another process is pruning it.
            Err(TryLockError::WouldBlock) => return Ok(None),
            // The file system has no locks, so nothing is pruned on it.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        match file.metadata().map_err(unreadable)?.nlink() {
            0 => return Ok(None),
            1 => {}
            links => return Err(UnusableError::Links { path, links }),
        }
        let (code_bytes, metadata) = verify(&file, metadata.len(), key).map_err(|fault| match fault {
            Fault::Damage(what) => UnusableError::Damaged { path: path.clone(), what },
            Fault::Reading(source) => unreadable(source),
        })?;
        // Records the last use; fails for a file of root, which keeps the time of its creation.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Ok(Some(Entry { file, path, code_bytes, metadata }))
    }

    /// The metadata that was stored with the code.
    pub(crate) fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Maps the code, so that the kernel can drop its pages and share them with other processes. `None`: wasmtime rejects it,
    /// and a WARN tells so.
    pub(crate) fn load(self, engine: &wasmtime::Engine) -> Option<(Component, InUse)> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: the content was written by this user or root, by this module (`verify`), from what wasmtime serialized; nobody
        // else may write the file, and this program replaces files instead of writing into them.
        let loaded = unsafe { Component::deserialize_file(engine, path) }.or_else(|error| {
            // Without /proc, or on a file system that is mounted `noexec`, the code is copied into memory.
            let mut code = vec![0; self.code_bytes];
            self.file.read_exact_at(&mut code, 0).map_err(|_| error)?;
            // SAFETY: the same as above.
            unsafe { Component::deserialize(engine, code) }
        });
        match loaded {
            Ok(component) => Some((component, InUse(self.file))),
            Err(_) => {
                tracing::warn!(file = %self.path.display(), "wasmtime rejects compiled code from the cache; its plugin is compiled again.");
                None
            }
        }
    }
}

/// Checks that only this user and root may write a file or folder.
fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), UnusableError> {
    let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != me && owner != 0 {
        return Err(UnusableError::Owner { path: path.to_owned(), owner, me });
    }
    // With an access control list, the group's bits are the maximum of what it grants.
    match metadata.mode() & 0o7777 {
        mode if mode & OTHERS_WRITE != 0 => Err(UnusableError::OthersWrite { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

enum Fault {
    Damage(&'static str),
    Reading(io::Error),
}

/// Checks every byte of an entry. Returns the length of its code, and its metadata.
fn verify(file: &File, length: u64, key: &Key) -> Result<(usize, Vec<u8>), Fault> {
    let trailer_at = length.checked_sub(TRAILER_BYTES as u64).ok_or(Fault::Damage("it is truncated"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_at).map_err(Fault::Reading)?;
    let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
    let (code_bytes, metadata_bytes) = (number(0), number(8));
    let (head, checksum) = trailer.split_at(TRAILER_BYTES - CHECKSUM_BYTES);
    if !head.ends_with(&MAGIC) {
        return Err(Fault::Damage("it has no valid trailer"));
    }
    if *head != lengths_and_key(code_bytes, metadata_bytes, key) {
        return Err(Fault::Damage("it is the code of another plugin, or was compiled with other settings"));
    }
    if code_bytes.checked_add(metadata_bytes) != Some(trailer_at) || metadata_bytes > METADATA_BYTES_MAX as u64 {
        return Err(Fault::Damage("its length is wrong"));
    }
    let (mut sum, mut chunk, mut at) = (XxHash3_128::new(), vec![0; CHUNK_BYTES], 0);
    while at < trailer_at {
        let part = &mut chunk[..CHUNK_BYTES.min((trailer_at - at) as usize)];
        file.read_exact_at(part, at).map_err(Fault::Reading)?;
        sum.write(part);
        at += part.len() as u64;
    }
    sum.write(head);
    if sum.finish_128().to_le_bytes() != *checksum {
        return Err(Fault::Damage("its checksum is wrong"));
    }
    let mut metadata = vec![0; metadata_bytes as usize];
    file.read_exact_at(&mut metadata, code_bytes).map_err(Fault::Reading)?;
    let code_bytes = usize::try_from(code_bytes).map_err(|_| Fault::Damage("it is too long for this machine"))?;
    Ok((code_bytes, metadata))
}

/// The trailer without its checksum.
fn lengths_and_key(code_bytes: u64, metadata_bytes: u64, key: &Key) -> Vec<u8> {
    let numbers = [code_bytes, metadata_bytes].map(u64::to_le_bytes).concat();
    [&numbers[..], &key.component, &key.settings.to_le_bytes(), &MAGIC].concat()
}

/// Writes to a file and computes the checksum of what was written.
struct Summed<'a> {
    file: &'a File,
    sum: XxHash3_128,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a file with a unique name, and locks it: unlocked temporary files are left-overs.
fn create_temporary(folder: &OwnedFd, key: &Key) -> io::Result<(String, File)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..NAMES_MAX {
        let name = format!("{}.{}.tmp", key.file_name(), uuid::Uuid::new_v4());
        let file = File::from(rustix::fs::openat(folder, &name, flags, Mode::from_raw_mode(ENTRY_MODE))?);
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && file.metadata()?.nlink() == 1 {
            return Ok((name, file));
        }
    }
    Err(io::Error::other("another process removes its temporary files"))
}

/// The kinds of files that this module writes.
enum Kind {
    Entry,
    Temporary,
}

fn kind(name: &str) -> Option<Kind> {
    let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (stem, suffix) = name.split_once('.')?;
    let (component, settings) = stem.split_once('-')?;
    let is_ours = is_hex(component, 64) && is_hex(settings, 16);
    match suffix {
        "cwasm" if is_ours => Some(Kind::Entry),
        _ if is_ours && suffix.ends_with(".tmp") => Some(Kind::Temporary),
        _ => None,
    }
}

/// Removes a file, unless a process is writing it or has it mapped.
fn remove_unlocked(folder: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()).map(File::from) else { return false };
    file.try_lock().is_ok() && rustix::fs::unlinkat(folder, name, AtFlags::empty()).is_ok()
}
