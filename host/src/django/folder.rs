//! Whole folders: reads a tree of Django templates with its catalogues, and writes what [`super::import`] makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Import;
use crate::files::{self, Readers};

/// A template or catalogue larger than this is a file in the wrong place.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 20_000;
/// Folders inside folders; a symbolic link that leads back up ends here.
const DEPTH_MAX: usize = 16;

/// Why a folder cannot be imported. Nothing has been written then, but for [`ImportError::Write`].
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: is not UTF-8; write it anew in that encoding", file.display())]
    Encoding { file: PathBuf },
    #[error("{}: is larger than {} KiB, which no template is; move it away", file.display(), FILE_BYTES_MAX >> 10)]
    Large { file: PathBuf },
    #[error("{}: has more than {FILES_MAX} files, or folders more than {DEPTH_MAX} deep; name a smaller one", folder.display())]
    Many { folder: PathBuf },
    #[error("{}: has no .html or .txt files; name the folder that Django has as a template folder", folder.display())]
    Empty { folder: PathBuf },
    #[error("{}: is there already; choose an empty folder, or --force to write over it", file.display())]
    Exists { file: PathBuf },
    #[error("{}: lies inside the folder that is read, or around it; write elsewhere", out.display())]
    Nested { out: PathBuf },
    #[error("{}: cannot be written: {source}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// What was read and written.
#[derive(Debug)]
pub struct Imported {
    pub import: Import,
    /// Catalogues, taken over as they are.
    pub catalogs: Vec<String>,
    /// Files of neither kind, which stay behind.
    pub others: Vec<String>,
}

/// Imports the templates below `source` into `out`. Files that are there already are only written over with `force`.
pub fn import(source: &Path, out: &Path, force: bool) -> Result<Imported, ImportError> {
    let read_error = |file: &Path| {
        let file = file.to_owned();
        move |source| ImportError::Read { file, source }
    };
    let source = source.canonicalize().map_err(read_error(source))?;
    let place = resolved(out);
    if place.starts_with(&source) || source.starts_with(&place) {
        return Err(ImportError::Nested { out: out.to_owned() });
    }
    let mut found = Found::default();
    found.walk(&source, &source, 0)?;
    if found.templates.is_empty() {
        return Err(ImportError::Empty { folder: source });
    }
    let import = super::import(&found.templates);
    let files: BTreeMap<&str, &str> =
        import.files.iter().chain(&found.catalogs).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    if let Some(file) = files.keys().map(|name| out.join(name)).find(|file| !force && file.exists()) {
        return Err(ImportError::Exists { file });
    }
    for (name, text) in files {
        write(&out.join(name), text)?;
    }
    Ok(Imported { import, catalogs: found.catalogs.into_keys().collect(), others: found.others })
}

/// Where a folder is, or will be.
fn resolved(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let found = absolute.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match found {
        Some((ancestor, found)) => found.join(absolute.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => absolute,
    }
}

fn write(file: &Path, text: &str) -> Result<(), ImportError> {
    let folder = file.parent().unwrap_or(file);
    let written =
        fs::create_dir_all(folder).and_then(|()| files::replace_linked(file, text.as_bytes(), Readers::AsBefore));
    written.map_err(|source| ImportError::Write { file: file.to_owned(), source })
}

#[derive(Default)]
struct Found {
    templates: BTreeMap<String, String>,
    catalogs: BTreeMap<String, String>,
    others: Vec<String>,
    count: usize,
}

impl Found {
    fn walk(&mut self, root: &Path, folder: &Path, depth: usize) -> Result<(), ImportError> {
        let error = |source| ImportError::Read { file: folder.to_owned(), source };
        let entries = fs::read_dir(folder).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            self.count += 1;
            if depth > DEPTH_MAX || self.count > FILES_MAX {
                return Err(ImportError::Many { folder: root.to_owned() });
            }
            let name =
                path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
            if name.rsplit('/').next().is_some_and(|last| last.starts_with('.') || last.ends_with('~')) {
                continue;
            }
            if path.is_dir() {
                self.walk(root, &path, depth + 1)?;
            } else {
                self.take(name, &path)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, name: String, path: &Path) -> Result<(), ImportError> {
        let is_catalog = name.ends_with(".po") && name.contains("locale/") && name.contains("/LC_MESSAGES/");
        let is_template = name.ends_with(".html") || name.ends_with(".txt");
        let files = match (is_catalog, is_template) {
            (true, _) => &mut self.catalogs,
            (_, true) => &mut self.templates,
            _ => {
                self.others.push(name);
                return Ok(());
            }
        };
        files.insert(name, read(path)?);
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, ImportError> {
    let error = |source| ImportError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(error)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ImportError::Large { file: file.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| ImportError::Encoding { file: file.to_owned() })
}
