//! Relays of kind `file`: one `.eml` file per mail.

use std::io;
use std::path::{Path, PathBuf};

use ace_store::files::{self, Access, Readers};

pub(super) struct Folder {
    dir: PathBuf,
    access: Access,
}

impl Folder {
    /// Creates the folder if it does not exist. Restricts existing mails that others can read.
    pub(super) fn new(dir: &Path, access: Access) -> io::Result<Folder> {
        access.create_folder(dir)?;
        access.restrict_folder(dir, |name| Path::new(name).extension().is_some_and(|extension| extension == "eml"));
        Ok(Folder { dir: dir.to_owned(), access })
    }

    /// Writes the mail durably and atomically under its id, and returns the name of the file. A repeated id replaces its file.
    pub(super) async fn write(&self, safe_id: &str, mail: String) -> io::Result<String> {
        let name = format!("{safe_id}.eml");
        let (file, readers) = (self.dir.join(&name), Readers::Only(self.access));
        // Work on a blocking thread runs to its end even if the call is dropped, so that no partial file remains.
        let work = move || files::replace(&file, mail.as_bytes(), readers);
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        Ok(name)
    }
}
