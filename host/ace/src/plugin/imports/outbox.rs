//! `outbox`: files in the folder that the operator granted.

use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt};

use crate::plugin::runtime::bindings::outbox::{Host, OutboxError};
use crate::plugin::runtime::state::State;
use ace_store::files::{self, Access};

/// Bytes of a file's relative name.
const NAME_BYTES_MAX: usize = 255;

impl Host for State {
    async fn write(&mut self, name: String, content: Vec<u8>) -> wasmtime::Result<Result<(), OutboxError>> {
        self.count_host_call()?;
        let access = self.grants.access();
        let dir = match self.grants.outbox() {
            Ok(dir) => dir,
            Err(why) => return Ok(Err(OutboxError::Denied(self.refuse("outbox", why)))),
        };
        if self.call.dry {
            return Ok(Err(OutboxError::Denied(self.refuse("outbox", "nothing is written in a dry call".to_owned()))));
        }
        let written = self
            .outside(async |state| {
                let label = state.settings.clean(&name);
                state.call.handover.pending = Some(format!("{label} was being written"));
                let written = tokio::task::spawn_blocking(move || write_new(&dir, access, &name, &content)).await;
                state.call.handover.pending = None;
                if matches!(written, Ok(Ok(()))) {
                    state.call.handover.accepted = Some(format!("{label} was written"));
                }
                written
            })
            .await;
        Ok(written.unwrap_or_else(|join| Err(OutboxError::Unavailable(join.to_string()))))
    }
}

/// Writes a new file, completely or not at all, so that it survives a power failure. cap-std prevents links from leading out of the
/// folder.
fn write_new(dir: &Dir, access: Access, name: &str, content: &[u8]) -> Result<(), OutboxError> {
    let path = Path::new(name);
    let is_valid = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || c == '\\')
        && path.components().all(|c| matches!(c, Component::Normal(_)));
    if !is_valid {
        let rule = format!("a relative name of at most {NAME_BYTES_MAX} bytes, without \"..\" or control characters");
        return Err(OutboxError::Invalid(format!("{name:?} cannot be a file in the outbox: it must be {rule}")));
    }
    let failed = |io: std::io::Error| match io.kind() {
        ErrorKind::AlreadyExists => OutboxError::Exists(name.to_owned()),
        _ => OutboxError::Unavailable(format!("{name}: {io}")),
    };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let no_folder = |io| OutboxError::Unavailable(format!("{}: {io}", parent.display()));
        create_folders(dir, access, parent).map_err(no_folder)?;
    }
    let temporary = path.with_file_name(files::temporary_name());
    // Unlike a rename, a hard link does not replace an existing file.
    let linked = write_temporary(dir, access, &temporary, content).and_then(|()| dir.hard_link(&temporary, dir, path));
    let removed = dir.remove_file(&temporary);
    linked.and(removed).and_then(|()| sync_folder_of(dir, path)).map_err(failed)
}

fn write_temporary(dir: &Dir, access: Access, temporary: &Path, content: &[u8]) -> std::io::Result<()> {
    let file = dir.open_with(temporary, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
    let mut file = file.into_std();
    file.write_all(content)?;
    access.apply(&file)?;
    file.sync_all()
}

/// Creates the missing folders of a path, with the same access as the files in them.
fn create_folders(dir: &Dir, access: Access, path: &Path) -> std::io::Result<()> {
    let mut folder = PathBuf::new();
    for name in path.components() {
        folder.push(name);
        let mut builder = DirBuilder::new();
        match dir.create_dir_with(&folder, builder.mode(access.folder_mode())) {
            Ok(()) => access.apply_to_folder(&dir.open_dir(&folder)?.into_std_file())?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn sync_folder_of(dir: &Dir, path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    dir.open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_the_folder_and_are_never_replaced() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("out");
        std::fs::create_dir(&folder).expect("made");
        std::os::unix::fs::symlink(root.path(), folder.join("up")).expect("linked");
        let dir = Dir::open_ambient_dir(&folder, cap_std::ambient_authority()).expect("opened");

        write_new(&dir, Access::default(), "a/b.html", b"one").expect("written");
        assert_eq!(std::fs::read(folder.join("a/b.html")).expect("there"), b"one");
        assert!(matches!(write_new(&dir, Access::default(), "a/b.html", b"two"), Err(OutboxError::Exists(_))));
        for name in ["", "../x", "/etc/x", "a/../../x", "a\nb", ".."] {
            assert!(matches!(write_new(&dir, Access::default(), name, b""), Err(OutboxError::Invalid(_))), "{name:?}");
        }
        assert!(
            matches!(write_new(&dir, Access::default(), "up/x", b""), Err(OutboxError::Unavailable(_))),
            "a link out"
        );
        let left: Vec<_> = std::fs::read_dir(folder.join("a")).expect("there").collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }
}
