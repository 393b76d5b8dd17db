//! Takes a document apart key by key, noting every problem instead of stopping at the first.
//!
//! What is returned beside a problem only keeps the reading going: [`Walk::finish`] throws it away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Places;
use super::problem::{Problem, Problems};
use super::tree::{Node, Place, Table, Value};
use super::variables::{edx_ace, variable_of};
use crate::message;

/// No name of ours is longer; comparing names takes time and memory in their lengths.
const NAME_BYTES_MAX: usize = 200;

/// The nearest of the known names, for names out of a file, which may be of any length.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX { None } else { message::nearest(name, known) }
}

/// For a name that nothing has.
pub(super) fn unknown(what: &str, name: &str, known: &[&str], source: &str) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => format!("there is no {what} {name:?}; there are no {source}"),
        None => format!("there is no {what} {name:?}; there are {}", known.join(", ")),
    }
}

/// One reading of one document.
pub(super) struct Walk {
    pub(super) file: Option<PathBuf>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
    /// Where each key stood.
    pub(super) places: Places,
    /// Variables that a secret is read from. They may be called anything, `ACE_…` included.
    pub(super) secret_variables: BTreeSet<String>,
    /// The variable of each key that was asked for.
    known: BTreeSet<String>,
    /// With names near to them; told at the end, when every key is known.
    unknown_variables: Vec<(String, Vec<String>)>,
}

impl Walk {
    pub(super) fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>) -> Self {
        Walk {
            file,
            variables,
            problems: Vec::new(),
            places: Places::default(),
            secret_variables: BTreeSet::new(),
            known: BTreeSet::new(),
            unknown_variables: Vec::new(),
        }
    }

    /// Where relative paths start; empty for the working directory.
    pub(super) fn folder(&self) -> PathBuf {
        self.file.as_deref().and_then(|file| file.parent()).map(PathBuf::from).unwrap_or_default()
    }

    /// Reads the whole document.
    pub(super) fn document<T>(&mut self, table: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        Section::read(self, Vec::new(), Place::Nowhere, table, read)
    }

    /// Notes a variable that names no setting; `near` are names that may have been meant.
    pub(super) fn unknown_variable(&mut self, name: &str, near: Vec<String>) {
        self.unknown_variables.push((name.to_owned(), near));
    }

    /// What was read, or all that is wrong with it.
    pub(super) fn finish<T>(mut self, read: T) -> Result<T, Problems> {
        for (name, near) in std::mem::take(&mut self.unknown_variables) {
            let candidates = near.iter().chain(&self.known).map(String::as_str);
            let message = match nearest(&name, candidates) {
                Some(near) => format!("unknown setting; did you mean {near}?"),
                None => "unknown setting; docs/configuration.md lists all of them".to_owned(),
            };
            self.problems.push(Problem { file: None, line: 0, variable: Some(name), key: String::new(), message });
        }
        let secret = &self.secret_variables;
        self.problems.retain(|p| p.variable.as_ref().is_none_or(|variable| !secret.contains(variable)));
        // Stable: problems of one line, and of the environment, stay in the order they were met.
        self.problems.sort_by_key(|p| (p.variable.is_some(), p.line));
        if self.problems.is_empty() { Ok(read) } else { Err(Problems(self.problems)) }
    }

    /// The variable of each key that was asked for so far.
    #[cfg(test)]
    pub(super) fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    fn fail(&mut self, place: &Place, path: &[String], message: String) {
        let (line, variable) = match place {
            Place::Nowhere => (0, None),
            Place::Line(line) => (*line, None),
            Place::Variable(name) => (0, Some(name.clone())),
        };
        let file = if variable.is_some() { None } else { self.file.clone() };
        self.problems.push(Problem { file, line, variable, key: dotted(path), message });
    }
}

/// A key as TOML writes it: levels that are no bare keys are quoted.
pub(super) fn dotted(path: &[String]) -> String {
    let mut out = String::new();
    for level in path {
        let index = level.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_item = index.is_some_and(|index| index.parse::<usize>().is_ok());
        if !out.is_empty() && !is_item {
            out.push('.');
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if is_item || (!level.is_empty() && level.chars().all(bare)) {
            out.push_str(level)
        } else {
            out.push_str(&format!("{level:?}"))
        }
    }
    out
}

/// The last level of a list item's path.
pub(super) fn item(at: usize) -> String {
    format!("[{at}]")
}

/// A table whose keys are ours. What is not asked for by the end is unknown, and reported.
pub(super) struct Section<'w> {
    walk: &'w mut Walk,
    path: Vec<String>,
    place: Place,
    rest: Table,
    asked: Vec<&'static str>,
    problems_before: usize,
    ignore_rest: bool,
}

impl Section<'_> {
    fn read<T>(
        walk: &mut Walk,
        path: Vec<String>,
        place: Place,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let problems_before = walk.problems.len();
        let mut section =
            Section { walk, path, place, rest: table, asked: Vec::new(), problems_before, ignore_rest: false };
        let value = read(&mut section);
        section.refuse_the_rest();
        value
    }

    /// Takes a key out. `-` and `_` are the same in it.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'_>> {
        self.asked.push(key);
        let path = self.path_of(key);
        self.walk.known.insert(variable_of(&path));
        let mut found = std::mem::take(&mut self.rest.0);
        self.rest.0 = found.extract_if(.., |(written, _)| written.replace('_', "-") != key).collect();
        let mut found = found.into_iter();
        let (_, node) = found.next()?;
        for (_, again) in found {
            let message = "is a duplicate, written with `_` instead of `-`".to_owned();
            self.walk.fail(&again.place, &path, message);
        }
        Some(Field::of(self.walk, path, node))
    }

    /// A value; `None` where the key is left out or its value is wrong.
    pub(super) fn get<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        self.field(key)?.read(read)
    }

    /// As [`Section::get`], and a problem where the key is left out.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        match self.field(key) {
            Some(field) => field.read(read),
            None => {
                self.fail(key, "is required");
                None
            }
        }
    }

    /// A list, with a problem for each wrong item.
    pub(super) fn list<T>(&mut self, key: &'static str, read: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        self.field(key)?.list(read)
    }

    /// A table with keys of ours; one that is left out is read as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let (place, table) = match self.field(key) {
            None => (Place::Nowhere, Table::default()),
            Some(field) => (field.node.place.clone(), field.table().unwrap_or_default()),
        };
        let path = self.path_of(key);
        Section::read(self.walk, path, place, table, read)
    }

    /// A table whose keys are names; entries that cannot be read are left out.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(&str, Field<'_>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        self.field(key).map(|field| field.named(read)).unwrap_or_default()
    }

    /// Whether nothing was wrong in this table so far, so that comparing its values makes sense.
    pub(super) fn is_sound(&self) -> bool {
        self.walk.problems.len() == self.problems_before
    }

    /// For a table of which it cannot be said what belongs into it.
    pub(super) fn ignore_the_rest(&mut self) {
        self.ignore_rest = true;
    }

    /// A problem with a key of this table, where it stands or, left out, where the table does.
    pub(super) fn fail(&mut self, key: &str, message: impl Into<String>) {
        let path = self.path_of(key);
        let place = self.walk.places.find(&dotted(&path)).clone();
        self.walk.fail(&place, &path, message.into());
    }

    /// A problem with an item of a list in this table.
    pub(super) fn fail_item(&mut self, key: &str, at: usize, message: impl Into<String>) {
        let path: Vec<String> = self.path_of(key).into_iter().chain([item(at)]).collect();
        let place = self.walk.places.find(&dotted(&path)).clone();
        self.walk.fail(&place, &path, message.into());
    }

    /// A problem with the table as a whole.
    pub(super) fn fail_whole(&mut self, message: impl Into<String>) {
        self.walk.fail(&self.place, &self.path, message.into());
    }

    /// Whether there are keys that were not asked for yet.
    pub(super) fn has_more(&self) -> bool {
        !self.rest.0.is_empty()
    }

    /// Whether a key that was asked for is there, well or badly.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.walk.places.contains(&dotted(&self.path_of(key)))
    }

    /// A variable of the environment whose value is a secret.
    pub(super) fn secret_variable(&mut self, name: &str) -> Option<String> {
        self.walk.secret_variables.insert(name.to_owned());
        self.walk.variables.get(name).cloned()
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.walk.folder()
    }

    fn path_of(&self, key: &str) -> Vec<String> {
        self.path.iter().cloned().chain([key.to_owned()]).collect()
    }

    fn refuse_the_rest(&mut self) {
        if self.ignore_rest {
            return;
        }
        for (key, node) in std::mem::take(&mut self.rest).0 {
            let path = self.path_of(&key);
            for variable in variables_in(&node) {
                let near = self.with_level_replaced(&variable);
                self.walk.unknown_variable(&variable, near);
            }
            if let Place::Line(_) = node.place {
                let message = self.unknown(&key);
                self.walk.fail(&node.place, &path, message);
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        if let Some(message) = edx_ace(key) {
            return message;
        }
        match nearest(&key.replace('_', "-"), self.asked.iter().copied()) {
            Some(near) => format!("unknown key; did you mean {near:?}?"),
            None => format!("unknown key; known here are {}", self.asked.join(", ")),
        }
    }

    /// A variable with each key of this table at the table's level: what a misspelt section may have been meant to be.
    fn with_level_replaced(&self, variable: &str) -> Vec<String> {
        let levels: Vec<&str> = variable.split("__").collect();
        let deeper = levels.get(self.path.len() + 1..).unwrap_or_default();
        let with = |key: &&str| {
            let whole: Vec<String> = std::iter::once(variable_of(&self.path_of(key)))
                .chain(deeper.iter().map(|level| level.to_string()))
                .collect();
            whole.join("__")
        };
        self.asked.iter().map(with).collect()
    }
}

/// The variables that put something at or below a node.
fn variables_in(node: &Node) -> BTreeSet<String> {
    match (&node.value, &node.place) {
        (Value::Table(table), _) if !table.0.is_empty() => {
            table.0.iter().flat_map(|(_, node)| variables_in(node)).collect()
        }
        (_, Place::Variable(name)) => BTreeSet::from([name.clone()]),
        _ => BTreeSet::new(),
    }
}

/// One key and its value, taken out of its table.
pub(super) struct Field<'w> {
    walk: &'w mut Walk,
    path: Vec<String>,
    node: Node,
}

impl<'w> Field<'w> {
    fn of(walk: &'w mut Walk, path: Vec<String>, node: Node) -> Self {
        walk.places.insert(dotted(&path), node.place.clone());
        Field { walk, path, node }
    }

    pub(super) fn fail(&mut self, message: impl Into<String>) {
        self.walk.fail(&self.node.place, &self.path, message.into());
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn read<T>(mut self, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        read(&self.node).map_err(|message| self.fail(message)).ok()
    }

    pub(super) fn list<T>(mut self, read: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        let Value::List(items) = self.node.value else {
            self.fail(format!("must be a list, as in [\"a\", \"b\"], not {}", self.node.value.kind()));
            return None;
        };
        let path = self.path;
        let walk = self.walk;
        let read_item = |(at, node)| {
            let path = path.iter().cloned().chain([item(at)]).collect();
            Field::of(walk, path, node).read(&read)
        };
        Some(items.into_iter().enumerate().filter_map(read_item).collect())
    }

    /// A table with keys of ours.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut Section<'_>) -> T) -> Option<T> {
        let place = self.node.place.clone();
        let path = self.path.clone();
        let (walk, table) = self.into_table();
        Some(Section::read(walk, path, place, table?, read))
    }

    /// A table whose keys are names.
    pub(super) fn named<T>(self, mut read: impl FnMut(&str, Field<'_>) -> Option<T>) -> BTreeMap<String, T> {
        let path = self.path.clone();
        let (walk, table) = self.into_table();
        let mut out = BTreeMap::new();
        for (name, node) in table.unwrap_or_default().0 {
            let path = path.iter().cloned().chain([name.clone()]).collect();
            if let Some(value) = read(&name, Field::of(walk, path, node)) {
                out.insert(name, value);
            }
        }
        out
    }

    fn table(self) -> Option<Table> {
        self.into_table().1
    }

    fn into_table(mut self) -> (&'w mut Walk, Option<Table>) {
        let kind = self.node.value.kind();
        match std::mem::replace(&mut self.node.value, Value::Boolean(false)) {
            Value::Table(table) => (self.walk, Some(table)),
            _ => {
                self.fail(format!("must be a table, not {kind}"));
                (self.walk, None)
            }
        }
    }
}
