//! Finds the template files, compiles them together, and sets the broken ones aside.
//!
//! Tera validates all templates of an environment together and refuses them together. So: all at once first, which is
//! the usual case and fast; only when that fails, each alone (which tells its syntax errors and what it extends), then
//! all that are left, dropping those the error names, until the rest is accepted. Every round drops at least one.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tera::{ErrorKind, Kwargs, State, Tera, TeraResult};

use super::{Entry, Index, Presentation, TemplateProblem, shortened};

/// A template larger than this is a file in the wrong place.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Template files in all folders together.
const FILES_MAX: usize = 20_000;
/// Folders inside folders; a symbolic link that leads back up ends here.
const DEPTH_MAX: usize = 16;
/// Numbers in one `range()`. Tera's own limit of 100,000 lets two nested loops run for minutes without writing
/// anything.
pub(super) const RANGE_MAX: usize = 1_000;

/// The line (where known) and the words.
type Fault = (Option<usize>, String);
/// What is wrong with each broken template, by its name.
type Broken = BTreeMap<String, Vec<Fault>>;

pub(super) fn load(dirs: &[PathBuf]) -> Presentation {
    build(dirs, Files::find(dirs), None)
}

/// `None` where no file has changed since `before` was loaded.
pub(super) fn load_again(dirs: &[PathBuf], before: &Presentation) -> Option<Presentation> {
    let files = Files::find(dirs);
    let is_same = before.dirs == dirs && before.stamps == files.stamps();
    (!is_same).then(|| build(dirs, files, Some(before)))
}

/// A file's size and the time of its last change.
pub(super) type Stamp = (u64, Option<SystemTime>);

fn build(dirs: &[PathBuf], files: Files, before: Option<&Presentation>) -> Presentation {
    let mut texts = BTreeMap::new();
    let mut broken = Broken::new();
    for (name, path) in &files.paths {
        match read(path) {
            Ok(text) => {
                texts.insert(name.clone(), text);
            }
            Err(message) => {
                broken.insert(name.clone(), vec![(None, message)]);
            }
        }
    }
    let stamps = files.stamps();
    let mut tera = compile(&texts, &mut broken);
    let mut problems = files.problems;
    for (name, faults) in &broken {
        let file = &files.paths[name];
        problems.extend(faults.iter().map(|(line, message)| TemplateProblem {
            file: file.clone(),
            line: *line,
            message: message.clone(),
        }));
    }
    problems.sort();
    // What broke since goes on as it was; what only broke with it is whole again.
    let kept: Vec<(&String, &String)> = broken.keys().filter_map(|name| before?.texts.get_key_value(name)).collect();
    if !kept.is_empty() {
        texts.extend(kept.into_iter().map(|(name, text)| (name.clone(), text.clone())));
        broken.clear();
        tera = compile(&texts, &mut broken);
    }
    texts.retain(|name, _| !broken.contains_key(name));
    Presentation {
        tera,
        index: index(&files.paths, &broken),
        dirs: dirs.to_vec(),
        paths: files.paths.into_iter().map(|(name, path)| (name, path.display().to_string())).collect(),
        problems,
        texts,
        stamps,
    }
}

/// The files found so far, by template name, and what is wrong with the folders.
#[derive(Default)]
struct Files {
    paths: BTreeMap<String, PathBuf>,
    problems: Vec<TemplateProblem>,
}

impl Files {
    fn find(dirs: &[PathBuf]) -> Self {
        let mut files = Files::default();
        for dir in dirs {
            // Without the detours of a relative path, so that files are told by short names.
            let dir = &dir.canonicalize().unwrap_or_else(|_| dir.clone());
            files.walk(dir, dir, 0);
        }
        files
    }

    fn stamps(&self) -> BTreeMap<PathBuf, Stamp> {
        let stamp = |path: &PathBuf| fs::metadata(path).map(|m| (m.len(), m.modified().ok())).unwrap_or_default();
        self.paths.values().map(|path| (path.clone(), stamp(path))).collect()
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
            if self.paths.len() >= FILES_MAX {
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
            Ok(_) if is_template(&name) => {
                self.paths.entry(name).or_insert(path);
            }
            Ok(_) => {}
            Err(e) => self.problem(&path, format!("cannot be read: {e}")),
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

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} MiB; that is no template", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("is not UTF-8 from line {line} on; save it as UTF-8")
    })
}

/// Where each file of each message stands. A template elsewhere (a base layout) can be extended, but no channel asks
/// for it.
fn index(paths: &BTreeMap<String, PathBuf>, broken: &Broken) -> Index {
    let mut index = Index::new();
    for (name, path) in paths {
        let [app_label, "edx_ace", message, channel_type, file] = name.split('/').collect::<Vec<_>>()[..] else {
            continue;
        };
        let why = broken.get(name).and_then(|faults| faults.first()).map(|(line, message)| {
            TemplateProblem { file: path.clone(), line: *line, message: message.clone() }.to_string()
        });
        let types = index.entry(app_label.to_owned()).or_default().entry(message.to_owned()).or_default();
        types.entry(channel_type.to_owned()).or_default().push(Entry {
            file: file.to_owned(),
            template: name.clone(),
            source: path.display().to_string(),
            broken: why,
        });
    }
    index
}

/// Tera as we set it up: only `.html` is escaped (edx-ace escapes text, too; a fault of its), and `range` is shorter.
fn environment() -> Tera {
    let mut tera = Tera::new();
    tera.autoescape_on([".html"]);
    tera.register_function("range", range);
    tera
}

fn compile(texts: &BTreeMap<String, String>, broken: &mut Broken) -> Tera {
    let mut tera = environment();
    if tera.add_raw_templates(texts).is_ok() {
        return tera;
    }
    Isolation::survey(texts, broken).compile()
}

/// The slow way round: templates that are still thought to be good.
struct Isolation<'a> {
    texts: &'a BTreeMap<String, String>,
    good: BTreeMap<&'a str, &'a str>,
    /// What each one extends.
    extends: HashMap<&'a str, String>,
    broken: &'a mut Broken,
}

impl<'a> Isolation<'a> {
    /// Each template alone: its syntax errors, and what it extends (as a parent that is not there).
    fn survey(texts: &'a BTreeMap<String, String>, broken: &'a mut Broken) -> Self {
        let mut this = Isolation { texts, good: BTreeMap::new(), extends: HashMap::new(), broken };
        let empty = environment();
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
            let mut tera = environment();
            let Err(error) = tera.add_raw_templates(&self.good) else {
                return tera;
            };
            let mut culprits = self.culprits(&error);
            if culprits.is_empty() {
                // Tera names nobody we know: nothing can be told apart, so nothing of what is left can be used.
                culprits =
                    self.good.keys().map(|name| (name.to_string(), (None, shortened(&error.to_string())))).collect();
            }
            for (name, fault) in culprits {
                self.good.remove(name.as_str());
                self.broken.entry(name).or_default().push(fault);
            }
        }
    }

    /// Drops what extends something that is not there or not good, and what extends that, and so on.
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
                let why = self.unusable("extends", &self.extends[name]);
                self.broken.entry(name.to_owned()).or_default().push((line, why));
            }
        }
    }

    fn unusable(&self, verb: &str, name: &str) -> String {
        match self.texts.contains_key(name) || self.broken.contains_key(name) {
            true => format!("{verb} `{name}`, which is broken itself"),
            false => format!("{verb} `{name}`, which is in no template folder"),
        }
    }

    /// Whom Tera's error is about.
    fn culprits(&self, error: &tera::Error) -> Vec<(String, Fault)> {
        let known = |name: &str| self.good.contains_key(name);
        let found = match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                vec![(report.filename().to_owned(), (Some(report.span().start_line), report.message().to_owned()))]
            }
            ErrorKind::MissingParent { current, parent } => {
                vec![(current.clone(), (None, self.unusable("extends", parent)))]
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
        found.into_iter().filter(|(name, _)| known(name)).collect()
    }

    /// Unknown filters, includes and the like come as one text of many reports, `error: …` and `--> file:line:column`
    /// each; a component defined twice as a sentence with both names in backquotes, of which the last is dropped.
    fn reported(&self, text: &str) -> Vec<(String, Fault)> {
        let mut found = Vec::new();
        let mut said = "";
        for line in text.lines() {
            if let Some(message) = line.strip_prefix("error: ") {
                said = message;
            } else if let Some(place) = line.trim_start().strip_prefix("--> ") {
                let mut parts = place.rsplitn(3, ':').skip(1);
                let line = parts.next().and_then(|n| n.parse().ok());
                let name = parts.next().unwrap_or(place).to_owned();
                found.push((name, (line, self.reworded(said))));
            }
        }
        if found.is_empty() {
            let named = text.split('`').rfind(|name| self.good.contains_key(name));
            found.extend(named.map(|name| (name.to_owned(), (None, text.to_owned()))));
        }
        found
    }

    fn reworded(&self, said: &str) -> String {
        match said.strip_prefix("Unknown template `").and_then(|rest| rest.strip_suffix('`')) {
            Some(name) => self.unusable("includes", name),
            None => said.to_owned(),
        }
    }
}

/// Tera's `range(start, end, step_by)` with a smaller limit.
fn range(kwargs: Kwargs, _: &State) -> TeraResult<Vec<i64>> {
    let start: i64 = kwargs.get("start")?.unwrap_or(0);
    let end: i64 = kwargs.must_get("end")?;
    let step: i64 = kwargs.get("step_by")?.unwrap_or(1);
    if step == 0 {
        return Err(tera::Error::message("`range` needs a `step_by` other than 0"));
    }
    if step > 0 && start > end {
        return Err(tera::Error::message(format!("`range` starts at {start}, after its end {end}")));
    }
    let before_end = |n: &i64| if step > 0 { *n < end } else { *n > end };
    let numbers = std::iter::successors(Some(start), |n| n.checked_add(step)).take_while(before_end);
    let numbers: Vec<i64> = numbers.take(RANGE_MAX + 1).collect();
    match numbers.len() > RANGE_MAX {
        true => Err(tera::Error::message(format!("`range` gives at most {RANGE_MAX} numbers"))),
        false => Ok(numbers),
    }
}
