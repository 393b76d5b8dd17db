//! Whole folders: reads a tree of Django templates with its catalogues, and writes what [`super::import`] makes of it.
//!
//! A file that cannot be read is named among the findings and costs itself alone. Catalogues are copied one after the other,
//! so that no more than one of them is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Finding, Import, Options, Severity, named_files};

/// A template larger than this is a file in the wrong place.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
/// The same for a catalogue; those of Open edX have up to 5 MiB.
const CATALOG_BYTES_MAX: u64 = 16 << 20;
/// All templates together, which are in memory at once.
const TEMPLATES_BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 20_000;
/// Folders inside folders; a symbolic link that leads back up ends here.
const DEPTH_MAX: usize = 16;
/// The domain that Django's templates are translated from.
const CATALOG: &str = "django.po";

/// Why a folder cannot be imported. Nothing has been written then, except with [`ImportError::Write`].
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum ImportError {
    #[error("cannot read {}", folder.display())]
    Read { folder: PathBuf, source: io::Error },
    #[error("{}: has more than {FILES_MAX} files, or templates of more than {} MiB; name a smaller folder", folder.display(), TEMPLATES_BYTES_MAX >> 20)]
    Many { folder: PathBuf },
    #[error("{}: has neither templates (.html, .txt) nor catalogues (LC_MESSAGES/{CATALOG}) that can be read; name the folder that Django has as a template folder", folder.display())]
    Empty { folder: PathBuf },
    #[error("{}: is there already; choose an empty folder, or --force to write over it", file.display())]
    Exists { file: PathBuf },
    #[error("{}: lies inside the folder that is read, or around it; write elsewhere", out.display())]
    Nested { out: PathBuf },
    #[error("cannot write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// What was read and written.
#[derive(Debug)]
pub struct Imported {
    /// The templates, and what is to be said about them.
    pub import: Import,
    /// Catalogues, copied as they are, by the name they have now.
    pub catalogs: Vec<String>,
    /// Files that are neither, and stay behind.
    pub others: Vec<String>,
}

/// Writes a file; the folder it is in exists.
pub type WriteFile<'a> = &'a dyn Fn(&Path, &[u8]) -> io::Result<()>;

/// Imports the templates below `source` into `out`, where each file is written by `write`. Existing files are only overwritten
/// with `force`.
///
/// # Errors
///
/// See [`ImportError`]. Files that cannot be read are not an error: they are named among the findings.
pub fn import(
    source: &Path,
    out: &Path,
    force: bool,
    options: &Options,
    write: WriteFile<'_>,
) -> Result<Imported, ImportError> {
    let root = source.canonicalize().map_err(|error| ImportError::Read { folder: source.to_owned(), source: error })?;
    let place = resolved(out);
    if place.starts_with(&root) || root.starts_with(&place) {
        return Err(ImportError::Nested { out: out.to_owned() });
    }
    let mut found = Found::default();
    found.walk(&root, &root, 0)?;
    found.take_what_is_named();
    if found.templates.is_empty() && found.catalogs.is_empty() {
        return Err(match found.unread.first() {
            // A folder of which nothing can be read is told with the reason.
            Some(unread) if unread.file.is_empty() => {
                ImportError::Read { folder: root, source: io::Error::other(unread.reason.clone()) }
            }
            _ => ImportError::Empty { folder: root },
        });
    }
    let named = found.templates.values().flat_map(|text| named_files(text));
    let elsewhere = named.filter(|name| out.join(name).is_file()).collect();
    let mut import = super::import_with(&found.templates, options, &elsewhere);
    let taken: Vec<&String> = import.files.keys().chain(found.catalogs.keys()).collect();
    if let Some(file) = taken.into_iter().map(|name| out.join(name)).find(|file| !force && file.exists()) {
        return Err(ImportError::Exists { file });
    }
    for (name, text) in &import.files {
        write_into_folder(&out.join(name), text.as_bytes(), write)?;
    }
    let catalogs = found.copy_catalogs(out, write)?;
    import.findings.append(&mut found.unread);
    import.findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(Imported { import, catalogs, others: found.others.into_keys().collect() })
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

/// Writes a file and the folders around it.
fn write_into_folder(file: &Path, text: &[u8], write: WriteFile<'_>) -> Result<(), ImportError> {
    let folder = file.parent().unwrap_or(file);
    let written = fs::create_dir_all(folder).and_then(|()| write(file, text));
    written.map_err(|source| ImportError::Write { file: file.to_owned(), source })
}

#[derive(Default)]
struct Found {
    templates: BTreeMap<String, String>,
    /// By the name they get.
    catalogs: BTreeMap<String, PathBuf>,
    others: BTreeMap<String, PathBuf>,
    unread: Vec<Finding>,
    count: usize,
    bytes: u64,
    is_full: bool,
}

impl Found {
    fn walk(&mut self, root: &Path, folder: &Path, depth: usize) -> Result<(), ImportError> {
        let name = name_below(root, folder);
        if depth > DEPTH_MAX {
            self.unread(name, format!("the folder is nested more than {DEPTH_MAX} deep; does a link lead back up?"));
            return Ok(());
        }
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut paths: Vec<PathBuf> = match entries {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => {
                self.unread(name, format!("the folder cannot be read: {error}"));
                return Ok(());
            }
        };
        paths.sort();
        for path in paths {
            self.count += 1;
            if self.count > FILES_MAX || self.is_full {
                return Err(ImportError::Many { folder: root.to_owned() });
            }
            let name = name_below(root, &path);
            if name.rsplit('/').next().is_some_and(|last| last.starts_with('.') || last.ends_with('~')) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.walk(root, &path, depth + 1)?,
                Ok(meta) if !meta.is_file() => self.unread(name, "it is not a regular file".to_owned()),
                Ok(_) => self.take(name, path),
                Err(error) => self.unread(name, format!("it cannot be read: {error}")),
            }
        }
        Ok(())
    }

    fn take(&mut self, name: String, path: PathBuf) {
        if let Some(place) = catalog_place(&name) {
            self.take_catalog(&name, place, path);
        } else if name.ends_with(".html") || name.ends_with(".txt") {
            self.take_template(name, &path);
        } else {
            self.others.insert(name, path);
        }
    }

    /// Where two catalogues would get one name, the later one gets the whole of its folder's.
    fn take_catalog(&mut self, name: &str, place: String, path: PathBuf) {
        let place = if self.catalogs.contains_key(&place) { whole_catalog_place(name) } else { place };
        self.catalogs.insert(place, path);
    }

    fn take_template(&mut self, name: String, path: &Path) {
        let text = read(path, TEMPLATE_BYTES_MAX).and_then(|bytes| {
            self.bytes += bytes.len() as u64;
            self.is_full |= self.bytes > TEMPLATES_BYTES_MAX;
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8: save it in that encoding".to_owned())
        });
        match text {
            Ok(text) => drop(self.templates.insert(name, text)),
            Err(why) => self.unread(name, why),
        }
    }

    /// Files of any other name that a template extends or includes are templates, and so are those that these name.
    fn take_what_is_named(&mut self) {
        let mut waiting: Vec<String> = self.templates.keys().cloned().collect();
        while let Some(name) = waiting.pop() {
            let Some(text) = self.templates.get(&name) else { continue };
            let named: BTreeSet<String> =
                named_files(text).into_iter().filter_map(|named| super::project::resolved(&name, &named)).collect();
            for named in named {
                if let Some(path) = self.others.remove(&named) {
                    self.take_template(named.clone(), &path);
                    waiting.push(named);
                }
            }
        }
    }

    fn copy_catalogs(&mut self, out: &Path, write: WriteFile<'_>) -> Result<Vec<String>, ImportError> {
        let mut copied = Vec::new();
        for (name, path) in std::mem::take(&mut self.catalogs) {
            match read(&path, CATALOG_BYTES_MAX) {
                Ok(bytes) => {
                    write_into_folder(&out.join(&name), &bytes, write)?;
                    copied.push(name);
                }
                Err(why) => self.unread(name, why),
            }
        }
        Ok(copied)
    }

    fn unread(&mut self, file: String, reason: String) {
        let suggestion = "make it readable and import again; the rest was imported without it".to_owned();
        self.unread.push(Finding {
            file,
            line: 0,
            severity: Severity::Unreadable,
            source: String::new(),
            reason,
            suggestion,
        });
    }
}

fn name_below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/")
}

/// Where a catalogue is looked for when a message is rendered: `locale/fr/LC_MESSAGES/django.po`, for an application's below
/// its folder. `None` for what is no catalogue of Django's templates: other domains, as `djangojs`, are not theirs.
fn catalog_place(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').collect();
    let (folders, language) = match parts.as_slice() {
        [folders @ .., "locale", language, "LC_MESSAGES", CATALOG] => (folders, language),
        // The folder with the languages itself was named.
        [language, "LC_MESSAGES", CATALOG] => (&[][..], language),
        _ => return None,
    };
    let app = folders.last().map(|app| format!("{app}/")).unwrap_or_default();
    Some(format!("{app}locale/{language}/LC_MESSAGES/{CATALOG}"))
}

fn whole_catalog_place(name: &str) -> String {
    match name.rsplit_once("/locale/") {
        Some((folders, rest)) => format!("{}/locale/{rest}", folders.replace('/', "-")),
        None => format!("whole/locale/{name}"),
    }
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).and_then(|opened| opened.take(bytes_max + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max { Err(format!("it is larger than {} MiB", bytes_max >> 20)) } else { Ok(bytes) }
}
