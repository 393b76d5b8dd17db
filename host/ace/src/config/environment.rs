//! `ACE_…` variables, which override the file: `ACE_DELIVERY__CONCURRENCY=16` is `delivery.concurrency = 16`.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::reader::Decoder;
use super::tree::{Node, Source, Table, Value, parse_variable};
use super::variables::{LEVEL, PREFIX, edx_ace};

/// The most levels of a key; ours have less than half of that.
const LEVELS_MAX: usize = 16;
/// Variables of the command line.
const RESERVED: [&str; 5] =
    ["ACE_CONFIG", "ACE_LOG", "ACE_LOG_FORMAT", "ACE_FEEDBACK_SECRET", "ACE_FEEDBACK_SECRET_FILE"];
const RESERVED_PREFIX: &str = "ACE_SERVER";

/// Overrides the document with all settings in the environment: first whole tables, then keys in them.
pub(super) fn override_with(decoder: &mut Decoder, document: &mut Table) {
    let mut settings: Vec<(Vec<String>, String, String)> = Vec::new();
    for (name, value) in settings_in(&decoder.variables) {
        if let Some(message) = edx_ace(&name) {
            decoder.problems.push(of_variable(&name, message));
            continue;
        }
        match levels(&name) {
            Some(levels) => settings.push((levels, name, value)),
            None => decoder.unknown_variable(&name, Vec::new()),
        }
    }
    settings.sort_by(|a, b| (a.0.len(), &a.1).cmp(&(b.0.len(), &b.1)));
    for (levels, name, value) in settings {
        if let Err(message) = put(document, &levels, &name, &value) {
            decoder.problems.push(of_variable(&name, message));
        }
    }
}

fn settings_in(variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let is_setting = |name: &str, value: &str| {
        name.starts_with(PREFIX)
            && !name.starts_with(RESERVED_PREFIX)
            && !RESERVED.contains(&name)
            && !is_service_link(name, value)
    };
    let settings = variables.iter().filter(|(name, value)| is_setting(name, value));
    settings.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether Kubernetes sets this variable for a Service named `ace` or `ace-…` (or Docker for a linked container):
/// `ACE_SERVICE_HOST`, `ACE_SERVICE_PORT`, `ACE_SERVICE_PORT_HTTP`, `ACE_PORT=tcp://…`, `ACE_PORT_8025_TCP`,
/// `ACE_PORT_8025_TCP_ADDR`. No setting has such a name.
fn is_service_link(name: &str, value: &str) -> bool {
    let mut ports = name.match_indices("_PORT_").map(|(at, part)| &name[at + part.len()..]);
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || ports.any(is_port)
}

/// `8025_TCP`, or a part of that: `8025_TCP_ADDR`.
fn is_port(text: &str) -> bool {
    let Some((number, rest)) = text.split_once('_') else { return false };
    let (protocol, part) = rest.split_once('_').unwrap_or((rest, "PORT"));
    number.parse::<u16>().is_ok()
        && ["TCP", "UDP", "SCTP"].contains(&protocol)
        && ["PORT", "PROTO", "ADDR"].contains(&part)
}

fn of_variable(name: &str, message: String) -> Problem {
    Problem { file: None, line: 0, variable: Some(name.to_owned()), key: String::new(), message }
}

/// The levels of a key, in lower case; `None` if a setting cannot have this name.
fn levels(name: &str) -> Option<Vec<String>> {
    let path = name.strip_prefix(PREFIX)?;
    let levels: Vec<String> = path.split(LEVEL).map(str::to_lowercase).collect();
    let is_valid = levels.len() <= LEVELS_MAX && levels.iter().all(|level| !level.is_empty());
    (is_valid && !path.chars().any(char::is_lowercase)).then_some(levels)
}

/// Sets a key to the value of a variable. A level matches a key of the file that differs only in case, or has `-` for `_`, because
/// names of variables contain neither lower-case letters nor `-`.
fn put(table: &mut Table, levels: &[String], name: &str, value: &str) -> Result<(), String> {
    let Some((level, deeper)) = levels.split_first() else { return Ok(()) };
    let matching: Vec<usize> =
        table.0.iter().enumerate().filter(|(_, (key, _))| is_same(key, level)).map(|(at, _)| at).collect();
    if let [one, other, ..] = matching[..] {
        let (one, other) = (&table.0[one].0, &table.0[other].0);
        return Err(format!("could mean both {one:?} and {other:?}; write the setting in the file"));
    }
    let at = matching.first().copied().unwrap_or_else(|| {
        let empty = Value::Table(Table::default());
        table.0.push((level.clone(), Node { source: Source::Variable(name.to_owned()), value: empty, text: None }));
        table.0.len() - 1
    });
    let (key, node) = &mut table.0[at];
    if deeper.is_empty() {
        *node = parse_variable(name, value);
        return Ok(());
    }
    match &mut node.value {
        Value::Table(table) => put(table, deeper, name, value),
        other => Err(format!("{key:?} is {}, not a table, so no key can be set in it", other.kind())),
    }
}

fn is_same(key: &str, level: &str) -> bool {
    key.to_lowercase().replace('-', "_") == level
}
