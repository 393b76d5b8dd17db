//! A relay of kind file: one `.eml` a mail.

use std::io;
use std::path::{Path, PathBuf};

use ace_store::files::{self, Access, Readers};

pub(super) struct Folder {
    dir: PathBuf,
    access: Access,
}

impl Folder {
    /// Makes the folder where there is none. Mails in it that others can read are restricted.
    pub(super) fn new(dir: &Path, access: Access) -> io::Result<Folder> {
        access.create_folder(dir)?;
        access.restrict_folder(dir, |name| Path::new(name).extension().is_some_and(|extension| extension == "eml"));
        Ok(Folder { dir: dir.to_owned(), access })
    }

    /// Writes the mail under its id and returns the file's name. Then it survives a power failure. Whoever reads the folder sees no
    /// half of a file, and the same id again replaces its own file.
    pub(super) async fn write(&self, safe_id: &str, mail: String) -> io::Result<String> {
        let name = format!("{safe_id}.eml");
        let (file, readers) = (self.dir.join(&name), Readers::Only(self.access));
        // A closure on a blocking thread runs to its end even where the caller goes away: no half-written file stays.
        let work = move || files::replace(&file, mail.as_bytes(), readers);
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        Ok(name)
    }
}
