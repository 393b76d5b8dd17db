//! Finds the files of the template folders: templates, themes, catalogues. What wins is decided here.
//!
//! Below a template folder, `themes/{theme}/` is laid out as the folder itself; a theme's file goes before every folder's
//! own. `locale/` and `{app_label}/locale/` hold catalogues.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::presentation::TemplateProblem;
use crate::presentation::i18n::languages;
use ace_store::files::FileStamp;

/// A template larger than this is a file in the wrong place.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The same for a catalogue.
pub(crate) const CATALOG_BYTES_MAX: u64 = 16 << 20;
/// Files in all folders together.
const FILES_MAX: usize = 20_000;
/// Folders inside folders; a symbolic link that leads back up ends here.
const DEPTH_MAX: usize = 16;
/// A message that shows what its templates look like, beside the folders of its channel types.
pub(crate) const SAMPLE_FILE: &str = "sample.json";

/// Addresses of an application's pages, at the top of a template folder.
const ROUTES_FILE: &str = "routes.toml";
/// Texts of scripts, which Django's templates do not see either.
const SCRIPT_DOMAIN: &str = "djangojs";

/// The files found so far, and what is wrong with the folders.
#[derive(Default)]
pub(crate) struct Files {
    /// Template name to file, outside themes.
    plain: BTreeMap<String, PathBuf>,
    /// The same for each theme.
    themes: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// In the order they were found.
    catalogs: Vec<CatalogFile>,
    /// `app_label/edx_ace/name` to its sample.
    pub samples: BTreeMap<String, PathBuf>,
    /// A file to those that are not used because of it.
    pub shadowed: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Tables of routes; those of earlier folders first.
    pub routes: Vec<PathBuf>,
    pub problems: Vec<TemplateProblem>,
    /// Files that are no templates by their names, and become some where a template includes them.
    others: BTreeMap<String, PathBuf>,
    /// The same for each theme.
    theme_others: BTreeMap<String, BTreeMap<String, PathBuf>>,
    count: usize,
    others_count: usize,
}

struct CatalogFile {
    theme: Option<String>,
    language: String,
    path: PathBuf,
}

impl Files {
    pub(crate) fn find(dirs: &[PathBuf]) -> Self {
        let mut files = Files::default();
        for dir in dirs {
            // Without the detours of a relative path, so that files are told by short names.
            let dir = &dir.canonicalize().unwrap_or_else(|_| dir.clone());
            files.walk(dir, dir, 0);
        }
        files
    }

    /// `included` are the names of files that count only because templates include them.
    pub(crate) fn themes(&self, included: &BTreeSet<String>) -> Vec<String> {
        let has_included =
            |(_, others): &(&String, &BTreeMap<String, PathBuf>)| included.iter().any(|name| others.contains_key(name));
        let of_others = self.theme_others.iter().filter(has_included).map(|(theme, _)| theme.as_str());
        let of_catalogs = self.catalogs.iter().filter_map(|catalog| catalog.theme.as_deref());
        let all: BTreeSet<&str> = self.themes.keys().map(String::as_str).chain(of_catalogs).chain(of_others).collect();
        all.into_iter().map(str::to_owned).collect()
    }

    /// Template name to file, as a theme sees them.
    pub(crate) fn templates(&self, theme: Option<&str>) -> BTreeMap<String, PathBuf> {
        let mut templates = self.plain.clone();
        let own = theme.and_then(|theme| self.themes.get(theme)).into_iter().flatten();
        templates.extend(own.map(|(name, path)| (name.clone(), path.clone())));
        templates
    }

    /// A file that is no template by its name, as a theme sees it.
    pub(crate) fn other(&self, theme: Option<&str>, name: &str) -> Option<&PathBuf> {
        let own = theme.and_then(|theme| self.theme_others.get(theme)).and_then(|others| others.get(name));
        own.or_else(|| self.others.get(name))
    }

    /// Every file that has one of the names.
    fn others_named<'a>(&'a self, names: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Path> {
        let all = std::iter::once(&self.others).chain(self.theme_others.values());
        all.flat_map(|others| names.iter().filter_map(|name| others.get(name))).map(PathBuf::as_path)
    }

    /// Languages and catalogues as a theme sees them, its own first, then those of whole folders before applications'.
    pub(crate) fn catalogs(&self, theme: Option<&str>) -> impl Iterator<Item = (&str, &Path)> {
        let seen = |wanted: Option<&'_ str>| {
            let wanted = wanted.map(str::to_owned);
            self.catalogs.iter().filter(move |catalog| catalog.theme == wanted)
        };
        let own = theme.map(|theme| seen(Some(theme))).into_iter().flatten();
        own.chain(seen(None)).map(|catalog| (catalog.language.as_str(), catalog.path.as_path()))
    }

    /// Every catalogue file once.
    pub(crate) fn catalog_paths(&self) -> impl Iterator<Item = &Path> {
        self.catalogs.iter().map(|catalog| catalog.path.as_path())
    }

    /// `included` are the names of files that count only because templates include them.
    pub(crate) fn stamps(&self, included: &BTreeSet<String>) -> BTreeMap<PathBuf, Option<FileStamp>> {
        let templates =
            self.plain.values().chain(self.themes.values().flat_map(BTreeMap::values)).map(PathBuf::as_path);
        let samples = self.samples.values().chain(&self.routes).map(PathBuf::as_path);
        templates
            .chain(self.catalog_paths())
            .chain(samples)
            .chain(self.others_named(included))
            .map(|path| (path.to_owned(), FileStamp::of(path)))
            .collect()
    }

    fn walk(&mut self, root: &Path, dir: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return self
                .problem(dir, format!("folders are nested more than {DEPTH_MAX} deep; does a link lead back up?"));
        }
        let entries = match fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(e) => return self.problem(dir, format!("cannot read this template folder: {e}")),
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            if self.count >= FILES_MAX {
                return self.problem(root, format!("more than {FILES_MAX} template files; the rest is not read"));
            }
            self.visit(root, path, depth);
        }
    }

    fn visit(&mut self, root: &Path, path: PathBuf, depth: usize) {
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
            return self.problem(&path, "the file name is not UTF-8".to_owned());
        };
        let name = name.replace(std::path::MAIN_SEPARATOR, "/");
        if is_hidden(&name) {
            return;
        }
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => self.walk(root, &path, depth + 1),
            Ok(_) => self.take(&name, path),
            Err(e) => self.problem(&path, format!("cannot be read: {e}")),
        }
    }

    /// Files a file by what it is. The first of a name stays.
    fn take(&mut self, name: &str, path: PathBuf) {
        self.count += 1;
        let (theme, name) = match name.strip_prefix("themes/").and_then(|rest| rest.split_once('/')) {
            Some((theme, name)) => (Some(theme), name),
            None => (None, name),
        };
        match name.split('/').collect::<Vec<_>>()[..] {
            ["locale", language, "LC_MESSAGES", file] | [_, "locale", language, "LC_MESSAGES", file] => {
                if file.ends_with(".po") && !file.starts_with(SCRIPT_DOMAIN) {
                    self.catalog(theme, language, path);
                }
            }
            ["locale", ..] => {}
            [ROUTES_FILE] if theme.is_none() => self.routes.push(path),
            [app_label, "edx_ace", message, SAMPLE_FILE] => {
                self.samples.entry(format!("{app_label}/edx_ace/{message}")).or_insert(path);
            }
            _ if is_template(name) => {
                let templates = match theme {
                    Some(theme) => self.themes.entry(theme.to_owned()).or_default(),
                    None => &mut self.plain,
                };
                match templates.entry(name.to_owned()) {
                    Entry::Vacant(free) => {
                        free.insert(path);
                    }
                    Entry::Occupied(first) => self.shadowed.entry(first.get().clone()).or_default().push(path),
                }
            }
            _ => {
                self.count -= 1;
                self.take_other(theme, name, path);
            }
        }
    }

    fn take_other(&mut self, theme: Option<&str>, name: &str, path: PathBuf) {
        if self.others_count >= FILES_MAX {
            return;
        }
        self.others_count += 1;
        let others = match theme {
            Some(theme) => self.theme_others.entry(theme.to_owned()).or_default(),
            None => &mut self.others,
        };
        others.entry(name.to_owned()).or_insert(path);
    }

    fn catalog(&mut self, theme: Option<&str>, folder: &str, path: PathBuf) {
        match languages::normalized(folder) {
            Some(language) => self.catalogs.push(CatalogFile { theme: theme.map(str::to_owned), language, path }),
            None => self.problem(&path, format!("{folder:?} is no language: name the folder as in fr or pt_BR")),
        }
    }

    fn problem(&mut self, file: &Path, message: String) {
        self.problems.push(TemplateProblem { file: file.to_owned(), line: None, message });
    }
}

/// Dot files and editors' backups.
fn is_hidden(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.starts_with('.') || last.ends_with('~')
}

/// Every file of an `edx_ace` folder, whatever a channel calls its files; elsewhere what is plainly a template to
/// include.
fn is_template(name: &str) -> bool {
    name.split('/').nth(1) == Some("edx_ace") || name.ends_with(".html") || name.ends_with(".txt")
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    read_bounded(path, FILE_BYTES_MAX)
}

pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {} MiB, the most that is read of such a file", bytes_max >> 20));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("is not UTF-8 from line {line} on; save it as UTF-8")
    })
}
