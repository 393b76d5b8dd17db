//! Whole folders: reads a tree of Django templates with its catalogues, and writes the templates that [`super::import`] returns.
//!
//! A file that cannot be read is reported as a finding; all others are imported. Catalogues are copied one after the other, so that
//! only one of them is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Finding, Import, Options, Severity, named_files};

/// A larger file is not a template.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
/// The same for a catalogue; those of Open edX have up to 5 MiB.
const CATALOG_BYTES_MAX: u64 = 16 << 20;
/// The size of all templates together, which are in memory at once.
const TEMPLATES_BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 20_000;
/// How deep folders may be nested; this also ends a loop of symbolic links.
const DEPTH_MAX: usize = 16;
/// The file name of catalogues of Django's own domain, which templates are translated from.
const CATALOG: &str = "django.po";

/// Why a folder cannot be imported. Nothing was written, except with [`ImportError::Write`].
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum ImportError {
    #[error("cannot read {}", folder.display())]
    Read { folder: PathBuf, source: io::Error },
    #[error("{}: contains more than {FILES_MAX} files, or more than {} MiB of templates; choose a smaller folder", folder.display(), TEMPLATES_BYTES_MAX >> 20)]
    Many { folder: PathBuf },
    #[error("{}: contains no readable templates (.html, .txt) or catalogues (LC_MESSAGES/{CATALOG}); choose a folder that Django uses for templates", folder.display())]
    Empty { folder: PathBuf },
    #[error("{}: already exists; choose an empty folder, or overwrite it with --force", file.display())]
    Exists { file: PathBuf },
    #[error("{}: is inside the folder to import, or contains it; choose another output folder", out.display())]
    Nested { out: PathBuf },
    #[error("cannot write {}", file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// What was read and written.
#[derive(Debug)]
pub struct Imported {
    /// The translated templates, and the findings.
    pub import: Import,
    /// Catalogues, which were copied unchanged, by their new names.
    pub catalogs: Vec<String>,
    /// Other files, which were not copied.
    pub others: Vec<String>,
}

/// Writes a file into an existing folder.
pub type WriteFile<'a> = &'a dyn Fn(&Path, &[u8]) -> io::Result<()>;

/// Imports the templates below `source` into `out`; `write` writes each file. Existing files are overwritten only with `force`.
///
/// # Errors
///
/// See [`ImportError`]. Files that cannot be read are not an error: they are reported as findings.
pub fn import(
    source: &Path,
    out: &Path,
    force: bool,
    options: &Options,
    write: WriteFile<'_>,
) -> Result<Imported, ImportError> {
    let root = source.canonicalize().map_err(|error| ImportError::Read { folder: source.to_owned(), source: error })?;
    let target = resolved(out);
    if target.starts_with(&root) || root.starts_with(&target) {
        return Err(ImportError::Nested { out: out.to_owned() });
    }
    let mut found = Found::default();
    found.walk(&root, &root, 0)?;
    found.add_named_templates();
    if found.templates.is_empty() && found.catalogs.is_empty() {
        return Err(match found.unread.first() {
            // The folder itself cannot be read.
            Some(unread) if unread.file.is_empty() => {
                ImportError::Read { folder: root, source: io::Error::other(unread.reason.clone()) }
            }
            _ => ImportError::Empty { folder: root },
        });
    }
    let named = found.templates.values().flat_map(|text| named_files(text));
    let elsewhere = named.filter(|name| out.join(name).is_file()).collect();
    let mut import = super::import_with(&found.templates, options, &elsewhere);
    let mut names = import.files.keys().chain(found.catalogs.keys());
    if let Some(name) = names.find(|name| !force && out.join(name).exists()) {
        return Err(ImportError::Exists { file: out.join(name) });
    }
    for (name, text) in &import.files {
        write_into_folder(&out.join(name), text.as_bytes(), write)?;
    }
    let catalogs = found.copy_catalogs(out, write)?;
    import.findings.append(&mut found.unread);
    import.findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(Imported { import, catalogs, others: found.others.into_keys().collect() })
}

/// The canonical path of a folder that may not exist yet.
fn resolved(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let found = absolute.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match found {
        Some((ancestor, found)) => found.join(absolute.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => absolute,
    }
}

/// Writes a file, and creates the folders above it.
fn write_into_folder(file: &Path, text: &[u8], write: WriteFile<'_>) -> Result<(), ImportError> {
    let folder = file.parent().unwrap_or(file);
    let written = fs::create_dir_all(folder).and_then(|()| write(file, text));
    written.map_err(|source| ImportError::Write { file: file.to_owned(), source })
}

#[derive(Default)]
struct Found {
    templates: BTreeMap<String, String>,
    /// By their new names.
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
                Ok(_) => self.add(name, path),
                Err(error) => self.unread(name, format!("it cannot be read: {error}")),
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, path: PathBuf) {
        if let Some(new_name) = catalog_path(&name) {
            self.add_catalog(&name, new_name, path);
        } else if name.ends_with(".html") || name.ends_with(".txt") {
            self.add_template(name, &path);
        } else {
            self.others.insert(name, path);
        }
    }

    /// If two catalogues would get the same name, the later one gets the full path of its folder instead.
    fn add_catalog(&mut self, name: &str, new_name: String, path: PathBuf) {
        let new_name = if self.catalogs.contains_key(&new_name) { full_catalog_path(name) } else { new_name };
        self.catalogs.insert(new_name, path);
    }

    fn add_template(&mut self, name: String, path: &Path) {
        let text = read(path, TEMPLATE_BYTES_MAX).and_then(|bytes| {
            self.bytes += bytes.len() as u64;
            self.is_full |= self.bytes > TEMPLATES_BYTES_MAX;
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8: save it in that encoding".to_owned())
        });
        match text {
            Ok(text) => drop(self.templates.insert(name, text)),
            Err(reason) => self.unread(name, reason),
        }
    }

    /// Adds files with other extensions that a template extends or includes, and those that these refer to.
    fn add_named_templates(&mut self) {
        let mut waiting: Vec<String> = self.templates.keys().cloned().collect();
        while let Some(name) = waiting.pop() {
            let Some(text) = self.templates.get(&name) else { continue };
            let named: BTreeSet<String> =
                named_files(text).into_iter().filter_map(|named| super::project::resolved(&name, &named)).collect();
            for named in named {
                if let Some(path) = self.others.remove(&named) {
                    self.add_template(named.clone(), &path);
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
                Err(reason) => self.unread(name, reason),
            }
        }
        Ok(copied)
    }

    fn unread(&mut self, file: String, reason: String) {
        let suggestion = "fix that and import again; the other files were imported".to_owned();
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

/// The path at which rendering looks for a catalogue: `locale/fr/LC_MESSAGES/django.po`, below the folder of its application if it
/// has one. `None` for other files, and for catalogues of other domains such as `djangojs`.
fn catalog_path(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').collect();
    let (folders, language) = match parts.as_slice() {
        [folders @ .., "locale", language, "LC_MESSAGES", CATALOG] => (folders, language),
        // The imported folder is itself the one with the languages.
        [language, "LC_MESSAGES", CATALOG] => (&[][..], language),
        _ => return None,
    };
    let app = folders.last().map(|app| format!("{app}/")).unwrap_or_default();
    Some(format!("{app}locale/{language}/LC_MESSAGES/{CATALOG}"))
}

fn full_catalog_path(name: &str) -> String {
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
