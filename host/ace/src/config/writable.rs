//! Checks whether `ace serve` can write the files and folders of a configuration, without writing anything.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{Config, Problem, RelayKind};

/// What is written there.
#[derive(Clone, Copy)]
enum Use {
    /// A database; SQLite creates other files beside it.
    Database,
    /// A folder, which is created if it is missing.
    Folder,
}

impl Config {
    /// The keys whose files or folders the user of this process cannot write. Blocks.
    pub fn unwritable(&self) -> Vec<Problem> {
        let mut needed = vec![("queue.database".to_owned(), self.fixed.queue.database.as_path(), Use::Database)];
        let keyvalue = self.fixed.keyvalue.database.iter();
        needed.extend(keyvalue.map(|file| ("keyvalue.database".to_owned(), file.as_path(), Use::Database)));
        // Without a key, code that cannot be stored is compiled at every start, as the log says.
        let cache_dir = self.fixed.cache_dir.iter().filter(|_| self.spans.contains("cache-dir"));
        needed.extend(cache_dir.map(|dir| ("cache-dir".to_owned(), dir.as_path(), Use::Folder)));
        for (name, relay) in &self.fixed.mailer.relays {
            if let RelayKind::File { dir } = &relay.kind {
                needed.push((format!("relays.{name}.dir"), dir, Use::Folder));
            }
        }
        for (name, plugin) in self.plugins.iter().filter(|(_, plugin)| plugin.enabled) {
            let outbox = plugin.grants.outbox.iter();
            needed.extend(outbox.map(|dir| (format!("plugins.{name}.grants.outbox"), dir.as_path(), Use::Folder)));
        }
        let wrong = |(key, path, usage): (String, &Path, Use)| Some(self.problem(&key, check(path, usage).err()?));
        needed.into_iter().filter_map(wrong).collect()
    }
}

fn check(path: &Path, usage: Use) -> Result<(), String> {
    let folder = match usage {
        Use::Folder => path,
        Use::Database => {
            if path.exists() {
                allowed(path, Access::READ_OK | Access::WRITE_OK)?;
            }
            path.parent().unwrap_or(path)
        }
    };
    // The nearest existing folder, in which missing ones are created.
    let existing = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        return Err(format!("{} is not a folder", existing.display()));
    }
    allowed(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
}

fn allowed(path: &Path, access: Access) -> Result<(), String> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|error| {
        let user = rustix::process::geteuid().as_raw();
        format!("ace serve must write to {}, but this user (id {user}) cannot: {error}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_of_unwritable_paths_are_reported() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "").expect("written");
        let text = format!(
            "cache-dir = {:?}\n[relays.a]\nkind = \"file\"\ndir = {:?}\n[plugins.p.grants]\noutbox = {:?}\n\
             [plugins.q]\nenabled = false\n[plugins.q.grants]\noutbox = {:?}\n",
            path("new/cache"),
            path("file/mails"),
            path("file"),
            path("file"),
        );
        let config = Config::read(&text, Some(Path::new("ace.toml")), []).expect("it is valid");
        let found: Vec<String> = config.unwritable().iter().map(ToString::to_string).collect();
        let expected = [
            format!("ace.toml:4: relays.a.dir: {} is not a folder", path("file").display()),
            format!("ace.toml:6: plugins.p.grants.outbox: {} is not a folder", path("file").display()),
        ];
        assert_eq!(found, expected);
        std::fs::create_dir(path("closed")).expect("made");
        let closed = format!("[queue]\ndatabase = {:?}\n", path("closed/ace.db"));
        std::fs::set_permissions(path("closed"), std::fs::Permissions::from_mode(0o500)).expect("set");
        let found = Config::read(&closed, None, []).expect("it is valid").unwritable();
        let is_refused = found.iter().any(|p| p.message.contains("closed, but this user"));
        assert_eq!(is_refused, !rustix::process::geteuid().is_root(), "root may write everywhere");
        let fine = format!("[queue]\ndatabase = {:?}\n", path("ace.db"));
        assert_eq!(Config::read(&fine, None, []).expect("it is valid").unwritable(), []);
    }
}
