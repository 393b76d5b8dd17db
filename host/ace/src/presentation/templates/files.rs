//! Finds the files of the template folders (templates, themes, catalogues) and decides their precedence.
//!
//! Below a template folder, `themes/{theme}/` has the same layout as the folder itself. The files of a theme take precedence over
//! all files outside themes. `locale/` and `{app_label}/locale/` contain catalogues.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config;
use crate::presentation::TemplateProblem;
use crate::presentation::i18n::languages;
use ace_store::files::FileStamp;

/// The largest template. A larger file is not a template.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The largest catalogue.
pub(crate) const CATALOG_BYTES_MAX: u64 = 16 << 20;
/// The most files in all folders together.
const FILES_MAX: usize = 20_000;
/// The deepest nesting of folders, which also ends cycles of symbolic links.
const DEPTH_MAX: usize = 16;
/// A sample message for the preview of templates, beside the folders of its channel types.
pub(crate) const SAMPLE_FILE: &str = "sample.json";

/// Paths of an application's pages, at the top of a template folder.
const ROUTES_FILE: &str = "routes.toml";
/// The gettext domain of scripts, which Django does not use in templates either.
const SCRIPT_DOMAIN: &str = "djangojs";

/// The files of the template folders, and the problems found.
#[derive(Default)]
pub(crate) struct Files {
    /// The files outside themes, by template name.
    plain: BTreeMap<String, PathBuf>,
    /// The same for each theme.
    themes: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// In the order of the search.
    catalogs: Vec<CatalogFile>,
    /// `app_label/edx_ace/name` to its sample.
    pub samples: BTreeMap<String, PathBuf>,
    /// For each file, the files of the same name that it hides.
    pub shadowed: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Tables of routes, in the order of the folders.
    pub routes: Vec<PathBuf>,
    pub problems: Vec<TemplateProblem>,
    /// Other files, by name. They are templates if a template includes them.
    others: BTreeMap<String, PathBuf>,
    /// The same for each theme.
    theme_others: BTreeMap<String, BTreeMap<String, PathBuf>>,
    /// The texts of files that are part of the program, by their path.
    shipped: BTreeMap<PathBuf, &'static str>,
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
            // Canonical, so that messages have short paths.
            let dir = &dir.canonicalize().unwrap_or_else(|_| dir.clone());
            files.walk(dir, dir, 0);
        }
        files
    }

    /// Adds the templates of the program, which all files of folders override. Its catalogues are for languages that the folders have
    /// catalogues for, and for the default language: a mail in any other language is not translated either.
    pub(crate) fn add_shipped(&mut self, settings: &config::Presentation) {
        let language = |code: &str| code.split('-').next().unwrap_or_default().to_owned();
        let mut used: BTreeSet<String> = self.catalogs.iter().map(|catalog| language(&catalog.language)).collect();
        used.extend(languages::normalized(&settings.default_language).map(|code| language(&code)));
        for file in settings.shipped.templates {
            let catalog = file.path.strip_prefix("locale/").and_then(|rest| rest.split('/').next());
            if catalog.and_then(languages::normalized).is_none_or(|code| used.contains(&language(&code))) {
                self.shipped.insert(file.file(), file.text);
                self.add(file.path, file.file());
            }
        }
    }

    /// Reads a file of at most this many bytes.
    pub(crate) fn read(&self, path: &Path, bytes_max: u64) -> Result<String, String> {
        match self.shipped.get(path) {
            Some(text) => Ok((*text).to_owned()),
            None => read_bounded(path, bytes_max),
        }
    }

    /// Reads a template.
    pub(crate) fn read_template(&self, path: &Path) -> Result<String, String> {
        self.read(path, FILE_BYTES_MAX)
    }

    /// The names of all themes. `included` are the names of files that are templates only because others include them.
    pub(crate) fn themes(&self, included: &BTreeSet<String>) -> Vec<String> {
        let has_included =
            |(_, others): &(&String, &BTreeMap<String, PathBuf>)| included.iter().any(|name| others.contains_key(name));
        let of_others = self.theme_others.iter().filter(has_included).map(|(theme, _)| theme.as_str());
        let of_catalogs = self.catalogs.iter().filter_map(|catalog| catalog.theme.as_deref());
        let all: BTreeSet<&str> = self.themes.keys().map(String::as_str).chain(of_catalogs).chain(of_others).collect();
        all.into_iter().map(str::to_owned).collect()
    }

    /// The files of a theme, merged with those outside themes, by template name.
    pub(crate) fn templates(&self, theme: Option<&str>) -> BTreeMap<String, PathBuf> {
        let mut templates = self.plain.clone();
        let own = theme.and_then(|theme| self.themes.get(theme)).into_iter().flatten();
        templates.extend(own.map(|(name, path)| (name.clone(), path.clone())));
        templates
    }

    /// Another file, of a theme or outside themes.
    pub(crate) fn other(&self, theme: Option<&str>, name: &str) -> Option<&PathBuf> {
        let own = theme.and_then(|theme| self.theme_others.get(theme)).and_then(|others| others.get(name));
        own.or_else(|| self.others.get(name))
    }

    /// All files with one of the names.
    fn others_named<'a>(&'a self, names: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Path> {
        let all = std::iter::once(&self.others).chain(self.theme_others.values());
        all.flat_map(|others| names.iter().filter_map(|name| others.get(name))).map(PathBuf::as_path)
    }

    /// The languages and catalogues of a theme, in order of precedence.
    pub(crate) fn catalogs(&self, theme: Option<&str>) -> impl Iterator<Item = (&str, &Path)> {
        let seen = |wanted: Option<&'_ str>| {
            let wanted = wanted.map(str::to_owned);
            self.catalogs.iter().filter(move |catalog| catalog.theme == wanted)
        };
        let own = theme.map(|theme| seen(Some(theme))).into_iter().flatten();
        own.chain(seen(None)).map(|catalog| (catalog.language.as_str(), catalog.path.as_path()))
    }

    /// The paths of all catalogues.
    pub(crate) fn catalog_paths(&self) -> impl Iterator<Item = &Path> {
        self.catalogs.iter().map(|catalog| catalog.path.as_path())
    }

    /// The current stamps of all files. `included` are the names of files that are templates only because others include them.
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
            return self.problem(
                dir,
                format!("folders are nested more than {DEPTH_MAX} levels deep; is there a cycle of symbolic links?"),
            );
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
            Ok(_) => self.add(&name, path),
            Err(e) => self.problem(&path, format!("cannot be read: {e}")),
        }
    }

    /// Adds a file according to its kind. The first file of a name takes precedence.
    fn add(&mut self, name: &str, path: PathBuf) {
        self.count += 1;
        let (theme, name) = match name.strip_prefix("themes/").and_then(|rest| rest.split_once('/')) {
            Some((theme, name)) => (Some(theme), name),
            None => (None, name),
        };
        match name.split('/').collect::<Vec<_>>()[..] {
            ["locale", language, "LC_MESSAGES", file] | [_, "locale", language, "LC_MESSAGES", file] => {
                if file.ends_with(".po") && !file.starts_with(SCRIPT_DOMAIN) {
                    self.add_catalog(theme, language, path);
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
                self.add_other(theme, name, path);
            }
        }
    }

    fn add_other(&mut self, theme: Option<&str>, name: &str, path: PathBuf) {
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

    fn add_catalog(&mut self, theme: Option<&str>, folder: &str, path: PathBuf) {
        match languages::normalized(folder) {
            Some(language) => self.catalogs.push(CatalogFile { theme: theme.map(str::to_owned), language, path }),
            None => {
                self.problem(&path, format!("{folder:?} is not a language code; name the folder as in fr or pt_BR"))
            }
        }
    }

    fn problem(&mut self, file: &Path, message: String) {
        self.problems.push(TemplateProblem { file: file.to_owned(), line: None, message });
    }
}

/// Dot files and backups of editors.
fn is_hidden(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.starts_with('.') || last.ends_with('~')
}

/// Every file of an `edx_ace` folder is a template, because channels name their files freely. Elsewhere, `.html` and `.txt` are.
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
        return Err(format!("is larger than {} MiB, the maximum for such a file", bytes_max >> 20));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("is not UTF-8 from line {line} on; save it as UTF-8")
    })
}
