//! A relay of kind file: one `.eml` a mail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps two attempts that write the same mail at once apart.
static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

pub(super) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Makes the folder where there is none.
    pub(super) fn new(dir: &Path) -> io::Result<Folder> {
        std::fs::create_dir_all(dir)?;
        Ok(Folder { dir: dir.to_owned() })
    }

    /// Writes the mail under its id and returns the file's name. Whoever reads the folder sees no half of a file, and the
    /// same id again replaces its own file.
    pub(super) async fn write(&self, safe_id: &str, mail: String) -> io::Result<String> {
        let name = format!("{safe_id}.eml");
        let file = self.dir.join(&name);
        let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!(".{}-{number}.tmp", std::process::id()));
        // A closure on a blocking thread runs to its end even where the caller goes away: no half-written file stays.
        let work = move || {
            let written = std::fs::write(&temporary, mail).and_then(|()| std::fs::rename(&temporary, &file));
            if written.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            written
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        Ok(name)
    }
}
