//! Finds all undefined variables of a message. Tera stops at the first one, but an author wants to know all. After such a fault, each
//! undefined variable is filled in and the files are rendered again, within the limits of the message.

use std::collections::BTreeSet;

use tera::value::Key;
use tera::{Context, ErrorKind, Map, ReportError, Value};

use crate::presentation::{Compiled, Entry, Output, Presentation, TemplateFault, Theme, metering, split_at_span};

/// The most variables that one fault names.
const NAMES_MAX: usize = 10;

/// An undefined variable or field.
struct Undefined {
    /// The path in the template: `user.name`.
    path: String,
    /// The file and line: `body.txt:3`.
    location: String,
}

impl Presentation {
    /// The fault, with all other undefined variables if it is about one.
    pub(in crate::presentation) fn with_all_undefined(
        &self,
        compiled: Compiled<'_>,
        entries: &[&Entry],
        context: &Context,
        fault: TemplateFault,
    ) -> TemplateFault {
        // Other faults are not about undefined variables.
        if !fault.message.contains("defined") {
            return fault;
        }
        let found = self.undefined(compiled, entries, context.clone());
        let others: Vec<String> =
            found.iter().skip(1).map(|Undefined { path, location }| format!("`{path}` ({location})")).collect();
        match others.as_slice() {
            [] => fault,
            others => {
                TemplateFault { message: format!("{}; also undefined: {}", fault.message, others.join(", ")), ..fault }
            }
        }
    }

    /// Empty if the first fault is not about an undefined variable.
    fn undefined(&self, compiled: Compiled<'_>, entries: &[&Entry], mut context: Context) -> Vec<Undefined> {
        let mut found: Vec<Undefined> = Vec::new();
        let mut filled = BTreeSet::new();
        for entry in entries {
            while let Some(fault) = self.fault_of(compiled, entry, &context) {
                let Some(undefined) = fault else { break };
                let path = undefined.path.clone();
                if !found.iter().any(|of| is_part(&path, &of.path)) {
                    found.push(undefined);
                }
                // The variable of a loop cannot be filled in.
                if found.len() == NAMES_MAX || !filled.insert(path.clone()) || !fill(&mut context, &path) {
                    break;
                }
            }
            if found.is_empty() && self.fault_of(compiled, entry, &context).is_some() || found.len() == NAMES_MAX {
                break;
            }
        }
        found
    }

    /// The result of rendering a file: `None` if it succeeds, `Some(None)` for another fault.
    fn fault_of(&self, compiled: Compiled<'_>, entry: &Entry, context: &Context) -> Option<Option<Undefined>> {
        let mut output = Output { bytes: Vec::new(), left: self.settings.max_output_bytes, full: false };
        let error = compiled.tera.render_to(&entry.template, context, &mut output).err()?;
        Some(compiled.theme.undefined(&error))
    }
}

impl Theme {
    /// The undefined variable that an error is about.
    fn undefined(&self, error: &tera::Error) -> Option<Undefined> {
        let ErrorKind::RenderingError(report) = error.kind() else { return None };
        let message = report.message();
        let display = error.to_string();
        let path = match message.strip_prefix("Variable `").and_then(|rest| rest.split_once("` is not defined")) {
            Some((name, _)) => name.to_owned(),
            None if message.contains("not defined") || message.contains("undefined") => path(report, &display)?,
            None => return None,
        };
        if path.is_empty() || !path.chars().all(is_of_path) {
            return None;
        }
        let file = self.paths.get(report.filename()).map_or(report.filename(), String::as_str);
        let file = file.rsplit('/').next().unwrap_or(file);
        Some(Undefined { path, location: format!("{file}:{}", report.span().start_line) })
    }
}

/// The path that an error is about. Tera marks one part of `user.name`: the last defined or the missing part for a field access, or the
/// first part if a filter gets the value.
fn path(report: &ReportError, display: &str) -> Option<String> {
    let (before, marked, after) = split_at_span(report, display)?;
    let marked = marked.trim();
    let expression = metering::original_expression(before, marked);
    if expression != marked {
        return Some(expression.to_owned());
    }
    let start = before.trim_end_matches(is_of_path).len();
    let more = after.len() - after.trim_start_matches(is_of_path).len();
    let rest = if report.message().starts_with("Field `") { "" } else { &after[..more] };
    Some(format!("{}{marked}{rest}", &before[start..]))
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// Whether a path equals another one or is a field of it.
fn is_part(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Sets a path to an empty string. `false` if its parent cannot have fields.
fn fill(context: &mut Context, path: &str) -> bool {
    let (root, rest) = path.split_once('.').map_or((path, None), |(root, rest)| (root, Some(rest)));
    match filled(context.get(root), rest) {
        Some(value) => {
            context.insert_value(root.to_owned(), value);
            true
        }
        None => false,
    }
}

fn filled(value: Option<&Value>, rest: Option<&str>) -> Option<Value> {
    let Some(rest) = rest else { return Some(Value::from("")) };
    let (name, rest) = rest.split_once('.').map_or((rest, None), |(name, rest)| (name, Some(rest)));
    // An empty string may have been filled in before, for a variable with fields.
    let is_empty = |value: &&Value| value.is_undefined() || value.is_none() || value.as_str() == Some("");
    let mut map = match value.filter(|value| !is_empty(value)) {
        None => Map::new(),
        Some(value) => value.as_map()?.clone(),
    };
    let key = Key::String(name.into());
    let field = filled(map.get(&key), rest)?;
    map.insert(key, field);
    Some(Value::from(map))
}
