//! Decodes a document key by key, and collects all problems instead of stopping at the first.
//!
//! After a problem, placeholder values are returned so that decoding can continue; [`Decoder::finish`] drops them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::SourceSpans;
use super::problem::{Problem, Problems};
use super::tree::{Node, Source, Table, Value};
use super::variables::{edx_ace, variable_of};
use crate::message;

/// The longest name that is compared with known names, because comparing takes time and memory.
const NAME_BYTES_MAX: usize = 200;

/// The nearest known name to a name from a file, which may have any length.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX { None } else { message::nearest(name, known) }
}

/// The message about an unknown name.
pub(super) fn unknown(what: &str, name: &str, known: &[&str], source: &str) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => format!("there is no {what} {name:?}; there are no {source}"),
        None => format!("there is no {what} {name:?}; there are {}", known.join(", ")),
    }
}

/// The decoding of one document.
pub(super) struct Decoder {
    pub(super) file: Option<PathBuf>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
    /// The source of each key.
    pub(super) spans: SourceSpans,
    /// Variables that contain secrets. They may have any name, including `ACE_…`.
    pub(super) secret_variables: BTreeSet<String>,
    /// The variables of all decoded keys.
    known: BTreeSet<String>,
    /// Unknown variables with similar names, reported at the end, when all keys are known.
    unknown_variables: Vec<(String, Vec<String>)>,
}

impl Decoder {
    pub(super) fn new(file: Option<PathBuf>, variables: BTreeMap<String, String>) -> Self {
        Decoder {
            file,
            variables,
            problems: Vec::new(),
            spans: SourceSpans::default(),
            secret_variables: BTreeSet::new(),
            known: BTreeSet::new(),
            unknown_variables: Vec::new(),
        }
    }

    /// The folder that relative paths start at; empty for the working directory.
    pub(super) fn folder(&self) -> PathBuf {
        self.file.as_deref().and_then(|file| file.parent()).map(PathBuf::from).unwrap_or_default()
    }

    /// Decodes the whole document.
    pub(super) fn document<T>(&mut self, table: Table, read: impl FnOnce(&mut TableDecoder<'_>) -> T) -> T {
        TableDecoder::read(self, Vec::new(), Source::Unknown, table, read)
    }

    /// Records a variable that is not a setting. `near` are names that may have been meant.
    pub(super) fn unknown_variable(&mut self, name: &str, near: Vec<String>) {
        self.unknown_variables.push((name.to_owned(), near));
    }

    /// The decoded value, or all problems.
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
        // A stable sort keeps the order of problems on one line and in the environment.
        self.problems.sort_by_key(|p| (p.variable.is_some(), p.line));
        if self.problems.is_empty() { Ok(read) } else { Err(Problems(self.problems)) }
    }

    /// The variables of all keys decoded so far.
    #[cfg(test)]
    pub(super) fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    fn fail(&mut self, source: &Source, path: &[String], message: String) {
        let (line, variable) = match source {
            Source::Unknown => (0, None),
            Source::Line(line) => (*line, None),
            Source::Variable(name) => (0, Some(name.clone())),
        };
        let file = if variable.is_some() { None } else { self.file.clone() };
        self.problems.push(Problem { file, line, variable, key: dotted(path), message });
    }
}

/// A key as in TOML: levels that are not bare keys are quoted.
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

/// The last level of the path of a list item.
pub(super) fn item(at: usize) -> String {
    format!("[{at}]")
}

/// Decodes a table with fixed keys. Keys that are not decoded are reported as unknown.
pub(super) struct TableDecoder<'w> {
    decoder: &'w mut Decoder,
    path: Vec<String>,
    source: Source,
    rest: Table,
    known: Vec<&'static str>,
    problems_before: usize,
    ignore_rest: bool,
}

impl TableDecoder<'_> {
    fn read<T>(
        decoder: &mut Decoder,
        path: Vec<String>,
        source: Source,
        table: Table,
        read: impl FnOnce(&mut TableDecoder<'_>) -> T,
    ) -> T {
        let problems_before = decoder.problems.len();
        let mut section =
            TableDecoder { decoder, path, source, rest: table, known: Vec::new(), problems_before, ignore_rest: false };
        let value = read(&mut section);
        section.reject_unknown();
        value
    }

    /// Takes out the field of a key. `-` and `_` are equal in keys.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'_>> {
        self.known.push(key);
        let path = self.path_of(key);
        self.decoder.known.insert(variable_of(&path));
        let mut found = std::mem::take(&mut self.rest.0);
        self.rest.0 = found.extract_if(.., |(written, _)| written.replace('_', "-") != key).collect();
        let mut found = found.into_iter();
        let (_, node) = found.next()?;
        for (_, again) in found {
            let message = "is a duplicate, written with `_` instead of `-`".to_owned();
            self.decoder.fail(&again.source, &path, message);
        }
        Some(Field::of(self.decoder, path, node))
    }

    /// Decodes a value; `None` if the key is absent or its value is invalid.
    pub(super) fn get<T>(&mut self, key: &'static str, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        self.field(key)?.read(read)
    }

    /// The same as [`TableDecoder::get`], but a missing key is a problem.
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

    /// Decodes a list, with a problem for each invalid item.
    pub(super) fn list<T>(&mut self, key: &'static str, read: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        self.field(key)?.list(read)
    }

    /// Decodes a table with fixed keys. A missing table is decoded as an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut TableDecoder<'_>) -> T) -> T {
        let (source, table) = match self.field(key) {
            None => (Source::Unknown, Table::default()),
            Some(field) => (field.node.source.clone(), field.table().unwrap_or_default()),
        };
        let path = self.path_of(key);
        TableDecoder::read(self.decoder, path, source, table, read)
    }

    /// Decodes a table whose keys are names. Invalid entries are left out.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(&str, Field<'_>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        self.field(key).map(|field| field.named(read)).unwrap_or_default()
    }

    /// Whether this table has no problems so far, so that its values can be compared.
    pub(super) fn is_valid(&self) -> bool {
        self.decoder.problems.len() == self.problems_before
    }

    /// Ignores the remaining keys, if it is unknown which ones are valid.
    pub(super) fn ignore_the_rest(&mut self) {
        self.ignore_rest = true;
    }

    /// Reports a problem with a key of this table, at the key, or if it is absent, at the table.
    pub(super) fn fail(&mut self, key: &str, message: impl Into<String>) {
        self.fail_below(&[key], message);
    }

    /// Reports a problem with an item of a list in this table.
    pub(super) fn fail_item(&mut self, key: &str, at: usize, message: impl Into<String>) {
        self.fail_below(&[key, &item(at)], message);
    }

    /// Reports a problem with a key of a table in this table, at any depth.
    pub(super) fn fail_below(&mut self, levels: &[&str], message: impl Into<String>) {
        let path: Vec<String> = self.path.iter().cloned().chain(levels.iter().map(ToString::to_string)).collect();
        let source = self.decoder.spans.find(&dotted(&path)).clone();
        self.decoder.fail(&source, &path, message.into());
    }

    /// Reports a problem with the whole table.
    pub(super) fn fail_whole(&mut self, message: impl Into<String>) {
        self.decoder.fail(&self.source, &self.path, message.into());
    }

    /// Whether there are keys that were not decoded yet.
    pub(super) fn has_more(&self) -> bool {
        !self.rest.0.is_empty()
    }

    /// Whether a decoded key is present, valid or not.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.decoder.spans.contains(&dotted(&self.path_of(key)))
    }

    /// The value of a variable that contains a secret.
    pub(super) fn secret_variable(&mut self, name: &str) -> Option<String> {
        self.decoder.secret_variables.insert(name.to_owned());
        self.decoder.variables.get(name).cloned()
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.decoder.folder()
    }

    fn path_of(&self, key: &str) -> Vec<String> {
        self.path.iter().cloned().chain([key.to_owned()]).collect()
    }

    fn reject_unknown(&mut self) {
        if self.ignore_rest {
            return;
        }
        for (key, node) in std::mem::take(&mut self.rest).0 {
            let path = self.path_of(&key);
            for variable in variables_in(&node) {
                let near = self.with_level_replaced(&variable);
                self.decoder.unknown_variable(&variable, near);
            }
            if let Source::Line(_) = node.source {
                let message = self.unknown(&key);
                self.decoder.fail(&node.source, &path, message);
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        if let Some(message) = edx_ace(key) {
            return message;
        }
        match nearest(&key.replace('_', "-"), self.known.iter().copied()) {
            Some(near) => format!("unknown key; did you mean {near:?}?"),
            None => format!("unknown key; known here are {}", self.known.join(", ")),
        }
    }

    /// Similar names for a variable, with each key of this table at the table's level, for a misspelt section.
    fn with_level_replaced(&self, variable: &str) -> Vec<String> {
        let levels: Vec<&str> = variable.split("__").collect();
        let deeper = levels.get(self.path.len() + 1..).unwrap_or_default();
        let with = |key: &&str| {
            let whole: Vec<String> = std::iter::once(variable_of(&self.path_of(key)))
                .chain(deeper.iter().map(|level| level.to_string()))
                .collect();
            whole.join("__")
        };
        self.known.iter().map(with).collect()
    }
}

/// The variables that set values at or below a node.
fn variables_in(node: &Node) -> BTreeSet<String> {
    match (&node.value, &node.source) {
        (Value::Table(table), _) if !table.0.is_empty() => {
            table.0.iter().flat_map(|(_, node)| variables_in(node)).collect()
        }
        (_, Source::Variable(name)) => BTreeSet::from([name.clone()]),
        _ => BTreeSet::new(),
    }
}

/// A key and its value, taken out of its table.
pub(super) struct Field<'w> {
    decoder: &'w mut Decoder,
    path: Vec<String>,
    node: Node,
}

impl<'w> Field<'w> {
    fn of(decoder: &'w mut Decoder, path: Vec<String>, node: Node) -> Self {
        decoder.spans.insert(dotted(&path), node.source.clone());
        Field { decoder, path, node }
    }

    pub(super) fn fail(&mut self, message: impl Into<String>) {
        self.decoder.fail(&self.node.source, &self.path, message.into());
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// Decodes the value; `None` if it is invalid.
    pub(super) fn read<T>(mut self, read: impl FnOnce(&Node) -> Result<T, String>) -> Option<T> {
        read(&self.node).map_err(|message| self.fail(message)).ok()
    }

    /// Decodes a list, with a problem for each invalid item.
    pub(super) fn list<T>(mut self, read: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        let Value::List(items) = self.node.value else {
            self.fail(format!("must be a list, as in [\"a\", \"b\"], not {}", self.node.value.kind()));
            return None;
        };
        let path = self.path;
        let decoder = self.decoder;
        let read_item = |(at, node)| {
            let path = path.iter().cloned().chain([item(at)]).collect();
            Field::of(decoder, path, node).read(&read)
        };
        Some(items.into_iter().enumerate().filter_map(read_item).collect())
    }

    /// Decodes each item of a list, or a single value as the only item.
    pub(super) fn each<T>(self, mut read: impl FnMut(Field<'_>) -> Option<T>) -> Vec<T> {
        let Value::List(items) = self.node.value else { return read(self).into_iter().collect() };
        let mut out = Vec::new();
        for (at, node) in items.into_iter().enumerate() {
            let path = self.path.iter().cloned().chain([item(at)]).collect();
            out.extend(read(Field::of(self.decoder, path, node)));
        }
        out
    }

    /// Decodes a table with fixed keys.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut TableDecoder<'_>) -> T) -> Option<T> {
        let source = self.node.source.clone();
        let path = self.path.clone();
        let (decoder, table) = self.into_table();
        Some(TableDecoder::read(decoder, path, source, table?, read))
    }

    /// Decodes a table whose keys are names.
    pub(super) fn named<T>(self, mut read: impl FnMut(&str, Field<'_>) -> Option<T>) -> BTreeMap<String, T> {
        let path = self.path.clone();
        let (decoder, table) = self.into_table();
        let mut out = BTreeMap::new();
        for (name, node) in table.unwrap_or_default().0 {
            let path = path.iter().cloned().chain([name.clone()]).collect();
            if let Some(value) = read(&name, Field::of(decoder, path, node)) {
                out.insert(name, value);
            }
        }
        out
    }

    fn table(self) -> Option<Table> {
        self.into_table().1
    }

    fn into_table(mut self) -> (&'w mut Decoder, Option<Table>) {
        let kind = self.node.value.kind();
        match std::mem::replace(&mut self.node.value, Value::Boolean(false)) {
            Value::Table(table) => (self.decoder, Some(table)),
            _ => {
                self.fail(format!("must be a table, not {kind}"));
                (self.decoder, None)
            }
        }
    }
}
