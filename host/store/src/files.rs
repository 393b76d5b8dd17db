//! Atomic replacement of files, and their permissions.
//!
//! A process can be killed, and a machine can lose power, between any two system calls. A file is therefore written under a
//! temporary name, synchronized and renamed, and its folder is synchronized too: after that the file survives a power failure, and an
//! incomplete file never has the final name.

mod stamp;

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use stamp::FileStamp;

/// Prefix and suffix of the names of temporary files; between them is a uuid.
const TEMPORARY: (&str, &str) = (".ace-", ".tmp");
/// An older temporary file was left behind by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3_600);
/// Files that [`Access::restrict_folder`] inspects.
const FILES_MAX: usize = 200_000;
/// How deep it descends into folders.
const DEPTH_MAX: usize = 16;
/// The permission bits of a mode.
const MODE_BITS: u32 = 0o7777;

/// Who may read files with personal data: the user that ACE runs as and, if configured, a group. The umask does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// The id of the group.
    pub group: Option<u32>,
}

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Only these: for personal data and secrets.
    Only(Access),
    /// Owner and permissions of the file that it replaces; for a new file, the umask applies.
    AsBefore,
}

impl Access {
    /// The mode of files: 0600, or 0640 with a group.
    fn file_mode(self) -> u32 {
        if self.group.is_some() { 0o640 } else { 0o600 }
    }

    /// The mode of folders: 0700, or 0750 with a group.
    pub fn folder_mode(self) -> u32 {
        if self.group.is_some() { 0o750 } else { 0o700 }
    }

    /// Creates a folder and those above it. An existing folder is not changed.
    ///
    /// # Errors
    /// Those of the operating system; the group cannot be set.
    pub fn create_folder(self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(self.folder_mode()).create(folder)?;
        self.apply_to_folder(&File::open(folder)?)
    }

    /// Sets the mode and the group of a file that this process created with mode 0600.
    ///
    /// # Errors
    /// Those of the operating system, mostly that this user is not in the group.
    pub fn apply(self, file: &File) -> io::Result<()> {
        self.set(file, self.file_mode())
    }

    /// As [`Access::apply`], for a folder that was created with [`Access::folder_mode`].
    ///
    /// # Errors
    /// As [`Access::apply`].
    pub fn apply_to_folder(self, folder: &File) -> io::Result<()> {
        self.set(folder, self.folder_mode())
    }

    fn set(self, file: &File, mode: u32) -> io::Result<()> {
        // Without a group, the mode that it was created with is right.
        let Some(group) = self.group else { return Ok(()) };
        fchown(file, None, Some(group)).map_err(|e| group_error(group, &e))?;
        // The umask may have removed bits.
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Sets the mode and the group of the file at a path, without opening it (closing a descriptor of a database would end SQLite's
    /// locks). Returns whether others could read or write it before. A missing file, and one that belongs to another user, is ignored.
    ///
    /// # Errors
    /// As [`Access::apply`].
    pub(crate) fn restrict(self, path: &Path) -> io::Result<bool> {
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        if !found.is_file() || !is_ours(&found) {
            return Ok(false);
        }
        if let Some(group) = self.group.filter(|group| *group != found.gid()) {
            chown(path, None, Some(group)).map_err(|e| group_error(group, &e))?;
        }
        let (mode, wanted) = (found.mode() & MODE_BITS, self.file_mode());
        let is_wider = mode & 0o077 & !wanted != 0;
        // Without a group, a more restrictive mode was set by the operator and is kept.
        if is_wider || (self.group.is_some() && mode != wanted) {
            std::fs::set_permissions(path, Permissions::from_mode(wanted))?;
        }
        Ok(is_wider)
    }

    /// As [`Access::restrict`] for all files in a folder and below it whose names are `wanted`; also removes temporary files that a
    /// killed process left there. If others could read any of them, one warning is logged. A folder that cannot be read is skipped:
    /// the next write into it reports the error.
    pub fn restrict_folder(self, folder: &Path, wanted: impl Fn(&OsStr) -> bool) {
        // In a folder that only this user can access, the files need no restriction.
        let is_private = self.group.is_none() && folder.metadata().is_ok_and(|found| found.mode() & 0o077 == 0);
        let wanted = |name: &OsStr| !is_private && wanted(name);
        let (mut folders, mut seen) = (vec![(folder.to_owned(), 0)], 0);
        let mut wider: Vec<PathBuf> = Vec::new();
        while let Some((folder, depth)) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                seen += 1;
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if seen > FILES_MAX {
                    break;
                } else if kind.is_dir() && depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                } else if kind.is_file() && is_abandoned(&path) {
                    let _ = std::fs::remove_file(&path);
                } else if kind.is_file() && wanted(&entry.file_name()) && self.restrict(&path).unwrap_or(false) {
                    wider.push(path);
                }
            }
        }
        self.warn_of_readable(&wider);
    }

    /// Logs that others could read files until now.
    pub(crate) fn warn_of_readable(self, files: &[PathBuf]) {
        let Some(first) = files.first() else { return };
        let (count, mode) = (files.len(), format!("{:04o}", self.file_mode()));
        tracing::warn!(
            file = %first.display(), count, mode,
            "Files with personal data were readable by other users; ACE restricted their permissions. To let a group read them, set file-group."
        );
    }
}

/// Whether it belongs to this process's user; root could change others' files too, but must not.
fn is_ours(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_temporary = name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1);
    let age = || path.symlink_metadata().ok()?.modified().ok()?.elapsed().ok();
    is_temporary && age().is_some_and(|age| age > ABANDONED)
}

fn group_error(group: u32, error: &io::Error) -> io::Error {
    let hint = "file-group must be a group of the user that ACE runs as";
    io::Error::new(error.kind(), format!("its group cannot be set to {group}: {error}; {hint}"))
}

/// A new name for a temporary file.
pub fn temporary_name() -> String {
    format!("{}{}{}", TEMPORARY.0, uuid::Uuid::new_v4().simple(), TEMPORARY.1)
}

/// Creates or replaces a file. After success it survives a power failure; after an error the previous file is unchanged. A symbolic
/// link at `path` is replaced, not followed. Blocks.
///
/// # Errors
/// Those of the operating system.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    replace_with(path, readers, |file| file.write_all(content))
}

/// As [`replace`], but does not replace an existing file. Blocks.
///
/// # Errors
/// Those of the operating system; [`ErrorKind::AlreadyExists`].
pub fn create(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let temporary = path.with_file_name(temporary_name());
    // Unlike a rename, a hard link does not replace a file.
    let written = write(&temporary, path, Readers::Only(access), |file| file.write_all(content));
    let created = written.and_then(|()| std::fs::hard_link(&temporary, path));
    let removed = std::fs::remove_file(&temporary);
    created.and(removed)?;
    sync_folder_of(path)
}

/// Copies a file, and writes the copy as [`replace`] does. Blocks.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn copy(from: &Path, to: &Path, readers: Readers) -> io::Result<()> {
    let mut from = File::open(from)?;
    replace_with(to, readers, |file| io::copy(&mut from, file).map(drop))
}

/// Renames a complete temporary file to its final name, and makes it survive a power failure. Blocks.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    File::open(temporary)?.sync_all()?;
    std::fs::rename(temporary, path)?;
    sync_folder_of(path)
}

fn replace_with(path: &Path, readers: Readers, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_file_name(temporary_name());
    let written = write(&temporary, path, readers, fill).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder_of(path)
}

/// As [`replace`], but if `path` is a symbolic link, replaces the file that it points to.
///
/// # Errors
/// Those of the operating system.
pub fn replace_linked(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    match path.canonicalize() {
        Ok(path) => replace(&path, content, readers),
        Err(_) => replace(path, content, readers),
    }
}

fn write(
    temporary: &Path,
    path: &Path,
    readers: Readers,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let before = match readers {
        Readers::AsBefore => path.symlink_metadata().ok().filter(Metadata::is_file),
        Readers::Only(_) => None,
    };
    let is_open_to_umask = readers == Readers::AsBefore && before.is_none();
    let mode = if is_open_to_umask { 0o666 } else { 0o600 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    fill(&mut file)?;
    match (readers, before) {
        (Readers::Only(access), _) => access.apply(&file)?,
        (Readers::AsBefore, Some(before)) => {
            // Only root can change the owner; for other users the file becomes theirs.
            let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
            file.set_permissions(Permissions::from_mode(before.mode() & MODE_BITS))?;
        }
        (Readers::AsBefore, None) => {}
    }
    file.sync_all()
}

/// Syncs the folder of a file, so that files created, renamed or removed in it survive a power failure.
///
/// # Errors
/// Those of the operating system.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it is there").mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("one").file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ace.toml");
        replace(&path, b"one", Readers::AsBefore).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o604)).expect("changed");
        replace(&path, b"two", Readers::AsBefore).expect("written");
        assert_eq!((std::fs::read(&path).expect("there"), mode(&path)), (b"two".to_vec(), 0o604));
        replace(&path, b"three", Readers::Only(Access::default())).expect("written");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(folder.path()), ["ace.toml"], "no temporary file is left");
    }

    #[test]
    fn create_does_not_replace_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        create(&path, b"one", Access::default()).expect("written");
        let refused = create(&path, b"two", Access::default()).expect_err("it is there");
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!((std::fs::read(&path).expect("there"), mode(&path)), (b"one".to_vec(), 0o600));
        assert_eq!(names(folder.path()), ["key"], "no temporary file is left");
    }

    #[test]
    fn a_failed_replacement_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).expect("made");
        assert!(replace(&path, b"one", Readers::AsBefore).is_err(), "a file does not replace a folder");
        assert_eq!(names(folder.path()), ["taken"], "no temporary file is left");
        assert!(replace(&folder.path().join("nowhere/x"), b"", Readers::AsBefore).is_err());
    }

    #[test]
    fn a_link_is_replaced_or_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        replace_linked(&link, b"new", Readers::AsBefore).expect("written");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).expect("there"), b"new");
        replace(&link, b"other", Readers::AsBefore).expect("written");
        assert!(!link.is_symlink());
        assert_eq!(std::fs::read(&file).expect("there"), b"new", "a link in a mail folder is not followed");
    }

    #[test]
    fn readable_files_are_restricted_and_others_are_not_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir(root.join("below")).expect("made");
        std::fs::set_permissions(root, Permissions::from_mode(0o755)).expect("changed");
        let all = [("a.eml", 0o644), ("below/b.eml", 0o666), ("c.eml", 0o400), ("notes.txt", 0o644)];
        for (name, bits) in all {
            std::fs::write(root.join(name), "").expect("written");
            std::fs::set_permissions(root.join(name), Permissions::from_mode(bits)).expect("changed");
        }
        std::os::unix::fs::symlink(root.join("notes.txt"), root.join("d.eml")).expect("linked");
        let (fresh, left) = (root.join(temporary_name()), root.join(temporary_name()));
        for file in [&fresh, &left] {
            std::fs::write(file, "half").expect("written");
        }
        let long_ago = std::fs::metadata(&left).and_then(|m| m.modified()).expect("there") - 2 * ABANDONED;
        File::options().write(true).open(&left).and_then(|f| f.set_modified(long_ago)).expect("changed");

        Access::default().restrict_folder(root, |name| Path::new(name).extension().is_some_and(|e| e == "eml"));
        let modes = all.map(|(name, _)| mode(&root.join(name)));
        assert_eq!(modes, [0o600, 0o600, 0o400, 0o644]);
        assert!(fresh.exists() && !left.exists(), "the temporary file of a killed process is removed");
    }

    #[test]
    fn a_configured_group_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        // Root can set any group, other users only their own groups.
        let is_root = rustix::process::geteuid().is_root();
        let group = if is_root { 4_711 } else { rustix::process::getegid().as_raw() };
        let access = Access { group: Some(group) };
        let below = folder.path().join("out/mails");
        access.create_folder(&below).expect("made");
        let path = below.join("a.eml");
        replace(&path, b"one", Readers::Only(access)).expect("written");
        let found = |path: &Path| {
            let found = std::fs::metadata(path).expect("there");
            (found.mode() & 0o777, found.gid())
        };
        assert_eq!((found(&path), found(&below)), ((0o640, group), (0o750, group)));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("changed");
        assert!(!access.restrict(&path).expect("changed"), "nobody else could read it");
        assert_eq!(found(&path), (0o640, group));
        if !is_root {
            let foreign = Access { group: Some(0) };
            let refused = replace(&path, b"two", Readers::Only(foreign)).expect_err("not a member").to_string();
            assert!(refused.contains("file-group"), "{refused}");
        }
    }
}
