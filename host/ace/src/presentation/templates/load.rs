//! Loads and compiles templates, and isolates the broken ones.
//!
//! Tera validates all templates of an environment together and rejects them together. All templates are therefore compiled at once
//! first, which usually succeeds. If that fails, each is compiled alone, to find its syntax errors and the template that it
//! extends. Then the rest is compiled repeatedly without the templates that the error names, until Tera accepts it. Every round
//! drops at least one template.

mod sources;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tera::{ErrorKind, Tera};

use super::files::Files;
use super::{python_numbers, tokenizer};
use crate::config::{self, Brand, Routes};
use crate::presentation::email::Inliner;
use crate::presentation::i18n::languages::{Catalog, Languages};
use crate::presentation::i18n::{formats, translate};
use crate::presentation::{
    Entry, Index, Presentation, TemplateProblem, Theme, filters, functions, metering, shortened,
};
use ace_store::files::FileStamp;

/// The line, if known, and the message.
type Fault = (Option<usize>, String);
/// The faults of each broken template, by its name.
type Broken = BTreeMap<String, Vec<Fault>>;
/// The text of each template, by its name.
pub(crate) type Texts = BTreeMap<String, Arc<str>>;

pub(crate) fn load(dirs: &[PathBuf], settings: &config::Presentation) -> Presentation {
    build(dirs, settings, find(dirs, settings), None)
}

/// `None` if no file and no setting has changed since `before` was loaded.
pub(crate) fn load_again(
    dirs: &[PathBuf],
    settings: &config::Presentation,
    before: &Presentation,
) -> Option<Presentation> {
    let files = find(dirs, settings);
    let is_same =
        before.dirs == dirs && before.settings == *settings && before.stamps == files.stamps(&before.included);
    (!is_same).then(|| build(dirs, settings, files, Some(before)))
}

/// The files of the folders, and those of the program.
fn find(dirs: &[PathBuf], settings: &config::Presentation) -> Files {
    let mut files = Files::find(dirs);
    files.add_shipped(settings);
    files
}

fn build(
    dirs: &[PathBuf],
    settings: &config::Presentation,
    mut files: Files,
    before: Option<&Presentation>,
) -> Presentation {
    let mut stamps = files.stamps(&BTreeSet::new());
    let mut problems = std::mem::take(&mut files.problems);
    let catalogs = sources::catalogs(&files, settings, before, &mut problems);
    let (route_files, routes) = sources::routes(&files, settings, before, &mut problems);
    let mut loader = Loader {
        settings,
        files: &files,
        catalogs: &catalogs,
        routes: Arc::new(routes),
        read: HashMap::new(),
        included: BTreeSet::new(),
        stamps: BTreeMap::new(),
        problems,
    };
    let plain = loader.theme(None, before.map(|before| &before.plain));
    let mut names = files.themes(&loader.included);
    // A theme may be no more than a brand.
    names.extend(settings.themes.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
    let mut themes = BTreeMap::new();
    for name in names {
        let theme = loader.theme(Some(&name), before.and_then(|before| before.themes.get(&name)));
        themes.insert(name, theme);
    }
    let Loader { mut problems, included, stamps: more, routes, .. } = loader;
    stamps.extend(more);
    problems.sort();
    // A problem outside themes is found in every theme.
    problems.dedup();
    Presentation {
        plain,
        themes,
        settings: settings.clone(),
        dirs: dirs.to_vec(),
        samples: files.samples,
        shadowed: files.shadowed,
        problems,
        catalogs,
        route_files,
        routes,
        stamps,
        included,
        inliner: Inliner::default(),
    }
}

/// Builds the themes.
struct Loader<'a> {
    settings: &'a config::Presentation,
    files: &'a Files,
    catalogs: &'a BTreeMap<PathBuf, Arc<Catalog>>,
    routes: Arc<Routes>,
    /// The names of files that are templates only because others include them, even if they do not exist.
    included: BTreeSet<String>,
    /// The stamps of these files before they were read.
    stamps: BTreeMap<PathBuf, Option<FileStamp>>,
    /// The text of each file, so that it is read once for all themes.
    read: HashMap<PathBuf, Result<Arc<str>, String>>,
    problems: Vec<TemplateProblem>,
}

impl Loader<'_> {
    fn theme(&mut self, name: Option<&str>, before: Option<&Theme>) -> Theme {
        let mut paths = self.files.templates(name);
        let mut texts = Texts::new();
        let mut broken = Broken::new();
        for (name, path) in &paths {
            match self.text(path) {
                Ok(text) => {
                    texts.insert(name.clone(), text);
                }
                Err(message) => {
                    broken.insert(name.clone(), vec![(None, message)]);
                }
            }
        }
        self.add_included(name, &mut paths, &mut texts, &mut broken);
        self.report_missing_pages(&paths, &texts);
        let settings = self.settings;
        let brand = name.and_then(|name| settings.themes.get(name)).unwrap_or(&settings.brand);
        let routes = self.routes.clone();
        let known = Known { settings, brand, routes: &routes };
        let mut tera = compile(&texts, known, &mut broken);
        for (name, faults) in &broken {
            self.problems.extend(faults.iter().map(|(line, message)| TemplateProblem {
                file: paths[name].clone(),
                line: *line,
                message: message.clone(),
            }));
        }
        // Broken templates are replaced by their last valid version, which also repairs those that depend on them.
        let kept: Vec<(&String, &Arc<str>)> =
            broken.keys().filter_map(|name| before?.texts.get_key_value(name)).collect();
        if !kept.is_empty() {
            texts.extend(kept.into_iter().map(|(name, text)| (name.clone(), text.clone())));
            broken.clear();
            tera = compile(&texts, known, &mut broken);
        }
        texts.retain(|name, _| !broken.contains_key(name));
        let catalogs = self.files.catalogs(name);
        let catalogs =
            catalogs.filter_map(|(language, path)| Some((language.to_owned(), self.catalogs.get(path)?.clone())));
        Theme {
            tera,
            index: index(&paths, &broken),
            languages: Languages::new(catalogs, &self.settings.default_language),
            reads_context: texts.values().any(|text| text.contains(".context") || text.contains("context\"]")),
            paths: paths.into_iter().map(|(name, path)| (name, path.display().to_string())).collect(),
            texts,
            brand: brand.clone(),
            with_python_numbers: OnceLock::new(),
        }
    }

    /// Adds files that are templates because others include or extend them.
    fn add_included(
        &mut self,
        theme: Option<&str>,
        paths: &mut BTreeMap<String, PathBuf>,
        texts: &mut Texts,
        broken: &mut Broken,
    ) {
        let mut pending: Vec<Arc<str>> = texts.values().cloned().collect();
        while let Some(text) = pending.pop() {
            for name in tokenizer::links(&text) {
                if paths.contains_key(&name) {
                    continue;
                }
                self.included.insert(name.clone());
                let Some(path) = self.files.other(theme, &name) else { continue };
                paths.insert(name.clone(), path.clone());
                self.stamps.insert(path.clone(), FileStamp::of(path));
                match self.text(path) {
                    Ok(text) => {
                        pending.push(text.clone());
                        texts.insert(name, text);
                    }
                    Err(message) => drop(broken.insert(name, vec![(None, message)])),
                }
            }
        }
    }

    /// Reports pages without a route. A template with one can be rendered if it does not reach that call.
    fn report_missing_pages(&mut self, paths: &BTreeMap<String, PathBuf>, texts: &Texts) {
        for (name, text) in texts {
            for (at, page) in functions::links::pages(text) {
                if self.routes.get(&page).is_none() {
                    let line = 1 + text[..at].matches('\n').count();
                    let message = format!(
                        "the page `{page}` has no route: set its path under [templates.routes] in ace.toml, or in routes.toml in \
                         a template folder"
                    );
                    self.problems.push(TemplateProblem { file: paths[name].clone(), line: Some(line), message });
                }
            }
        }
    }

    fn text(&mut self, path: &Path) -> Result<Arc<str>, String> {
        let read = self.read.entry(path.to_owned());
        let read = read.or_insert_with(|| self.files.read_template(path).map(Arc::from));
        read.clone()
    }
}

/// The files of each message. Templates in other places (base layouts) can be extended, but no channel requests them.
fn index(paths: &BTreeMap<String, PathBuf>, broken: &Broken) -> Index {
    let mut index = Index::new();
    for (name, path) in paths {
        let [app_label, "edx_ace", message, channel_type, file] = name.split('/').collect::<Vec<_>>()[..] else {
            continue;
        };
        let fault = broken.get(name).and_then(|faults| faults.first()).map(|(line, message)| {
            TemplateProblem { file: path.clone(), line: *line, message: message.clone() }.to_string()
        });
        let types = index.entry(app_label.to_owned()).or_default().entry(message.to_owned()).or_default();
        types.entry(channel_type.to_owned()).or_default().push(Entry {
            file: file.to_owned(),
            template: name.clone(),
            source: path.display().to_string(),
            fault,
        });
    }
    index
}

/// What functions and filters of templates know.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub settings: &'a config::Presentation,
    /// That of the theme.
    pub brand: &'a Brand,
    pub routes: &'a Arc<Routes>,
}

/// Tera with our filters and functions. Only `.html` is escaped; that edx-ace escapes `.txt` too is a fault.
fn environment(known: Known) -> Tera {
    let Known { settings, brand, routes } = known;
    let mut tera = Tera::new();
    tera.autoescape_on([".html"]);
    tera.set_escape_fn(filters::escape_into);
    metering::register(&mut tera);
    python_numbers::register(&mut tera);
    translate::register(&mut tera);
    formats::register(&mut tera, settings);
    functions::register(&mut tera, settings, brand, routes);
    filters::register(&mut tera, settings);
    tera
}

/// The templates of a theme, with numbers in Python's format.
pub(crate) fn compile_with_python_numbers(texts: &Texts, known: Known) -> Tera {
    let texts =
        texts.iter().map(|(name, text)| (name.clone(), python_numbers::with_python_numbers(text).into())).collect();
    // Faults were already reported for the original templates.
    compile(&texts, known, &mut Broken::new())
}

fn compile(texts: &Texts, known: Known, broken: &mut Broken) -> Tera {
    let empty = environment(known);
    let looped = metering::looped_templates(pairs(texts));
    let captured = metering::captured_templates(pairs(texts));
    let instrumented = |name: &String, text: &str| {
        let captured_in_loop = captured.contains(name).then(|| looped.contains(name));
        (name.clone(), metering::instrumented(text, captured_in_loop).into())
    };
    let instrumented: Texts = texts.iter().map(|(name, text)| instrumented(name, text)).collect();
    let mut tera = empty.clone();
    if tera.add_raw_templates(&instrumented).is_ok() && metering::nested_too_deep(pairs(&instrumented)).is_empty() {
        return tera;
    }
    Isolation::start(&empty, &instrumented, broken).compile()
}

fn pairs(texts: &Texts) -> impl Iterator<Item = (&str, &str)> {
    texts.iter().map(|(name, text)| (name.as_str(), &**text))
}

/// Finds the broken templates: keeps the ones that are not known to be broken.
struct Isolation<'a> {
    empty: &'a Tera,
    texts: &'a Texts,
    good: BTreeMap<&'a str, &'a str>,
    /// The template that each one extends.
    extends: HashMap<&'a str, String>,
    broken: &'a mut Broken,
}

impl<'a> Isolation<'a> {
    /// Compiles each template alone to find its syntax errors and, as a missing parent, the template that it extends.
    fn start(empty: &'a Tera, texts: &'a Texts, broken: &'a mut Broken) -> Self {
        let mut this = Isolation { empty, texts, good: BTreeMap::new(), extends: HashMap::new(), broken };
        for (name, text) in texts {
            let mut alone = empty.clone();
            match alone.add_raw_template(name, text).as_ref().map_err(tera::Error::kind) {
                Err(ErrorKind::SyntaxError(report)) => {
                    let fault = (Some(report.span().start_line), report.message().to_owned());
                    this.broken.entry(name.clone()).or_default().push(fault);
                    continue;
                }
                Err(ErrorKind::MissingParent { parent, .. }) => {
                    this.extends.insert(name, parent.clone());
                }
                _ => {}
            }
            this.good.insert(name, text);
        }
        this
    }

    fn compile(mut self) -> Tera {
        loop {
            self.drop_orphans();
            let mut tera = self.empty.clone();
            let culprits = match tera.add_raw_templates(&self.good) {
                Err(error) => self.culprits(&error),
                Ok(()) => {
                    let deep = metering::nested_too_deep(self.good.iter().map(|(name, text)| (*name, *text)));
                    if deep.is_empty() {
                        return tera;
                    }
                    let message =
                        format!("more than {} files include or extend one another in a row", metering::FILES_DEEP_MAX);
                    deep.into_iter().map(|name| (name, (None, message.clone()))).collect()
                }
            };
            for (name, fault) in culprits {
                self.good.remove(name.as_str());
                self.broken.entry(name).or_default().push(fault);
            }
        }
    }

    /// Drops templates whose parent does not exist or is broken, repeatedly.
    fn drop_orphans(&mut self) {
        loop {
            let good = &self.good;
            let orphans: Vec<&str> = good
                .keys()
                .copied()
                .filter(|name| self.extends.get(name).is_some_and(|parent| !good.contains_key(parent.as_str())))
                .collect();
            if orphans.is_empty() {
                return;
            }
            for name in orphans {
                self.good.remove(name);
                let line = self.texts[name].lines().position(|line| line.contains("extends")).map(|i| i + 1);
                let message = self.unusable_link("extends", &self.extends[name]);
                self.broken.entry(name.to_owned()).or_default().push((line, message));
            }
        }
    }

    fn unusable_link(&self, verb: &str, name: &str) -> String {
        if self.texts.contains_key(name) || self.broken.contains_key(name) {
            format!("{verb} `{name}`, which is broken")
        } else {
            format!("{verb} `{name}`, which is in no template folder")
        }
    }

    /// The templates that Tera's error is about.
    fn culprits(&self, error: &tera::Error) -> Vec<(String, Fault)> {
        let known = |name: &str| self.good.contains_key(name);
        let found = match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                vec![(report.filename().to_owned(), (Some(report.span().start_line), report.message().to_owned()))]
            }
            ErrorKind::MissingParent { current, parent } => {
                vec![(current.clone(), (None, self.unusable_link("extends", parent)))]
            }
            ErrorKind::CircularExtend { tpl, inheritance_chain: chain } => {
                vec![(tpl.clone(), (None, format!("extends itself: {}", chain.join(" -> "))))]
            }
            ErrorKind::CircularInclude { tpl, include_chain: chain } => {
                vec![(tpl.clone(), (None, format!("includes itself: {}", chain.join(" -> "))))]
            }
            ErrorKind::Msg(text) => self.reported(text),
            _ => Vec::new(),
        };
        let found: Vec<_> = found.into_iter().filter(|(name, _)| known(name)).collect();
        if found.is_empty() {
            // The error names no known template, so none of the rest can be used.
            let why = shortened(&error.to_string());
            return self.good.keys().map(|name| ((*name).to_owned(), (None, why.clone()))).collect();
        }
        found
    }

    /// Parses the text of an error. Tera reports unknown filters, includes and the like as one text with `error: …` and
    /// `--> file:line:column` each, and a duplicate component as a sentence with both templates, of which the last is dropped.
    fn reported(&self, text: &str) -> Vec<(String, Fault)> {
        let mut found = Vec::new();
        let mut error = "";
        for line in text.lines() {
            if let Some(message) = line.strip_prefix("error: ") {
                error = message;
            } else if let Some(location) = line.trim_start().strip_prefix("--> ") {
                let mut parts = location.rsplitn(3, ':').skip(1);
                let line = parts.next().and_then(|n| n.parse().ok());
                let name = parts.next().unwrap_or(location).to_owned();
                found.push((name, (line, self.reworded(error))));
            }
        }
        if found.is_empty() {
            let named = text.split('`').rfind(|name| self.good.contains_key(name));
            found.extend(named.map(|name| (name.to_owned(), (None, text.to_owned()))));
        }
        found
    }

    fn reworded(&self, error: &str) -> String {
        match error.strip_prefix("Unknown template `").and_then(|rest| rest.strip_suffix('`')) {
            Some(name) => self.unusable_link("includes", name),
            None => error.to_owned(),
        }
    }
}
