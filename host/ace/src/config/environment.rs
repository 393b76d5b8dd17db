//! `ACE_…` variables laid over the file: `ACE_DELIVERY__CONCURRENCY=16` is `delivery.concurrency = 16`.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::reader::Walk;
use super::tree::{Node, Place, Table, Value, parse_variable};
use super::variables::{LEVEL, PREFIX, edx_ace};

/// Levels at most; no key of ours is half as deep.
const LEVELS_MAX: usize = 16;
/// These are the program's own, read by its command line.
const RESERVED: [&str; 3] = ["ACE_CONFIG", "ACE_LOG", "ACE_LOG_FORMAT"];
const RESERVED_PREFIX: &str = "ACE_SERVER";

/// Lays every setting of the environment over the document. Whole tables come before keys in them.
pub(super) fn overlay(walk: &mut Walk, document: &mut Table) {
    let mut settings: Vec<(Vec<String>, String, String)> = Vec::new();
    for (name, value) in settings_in(&walk.variables) {
        if let Some(message) = edx_ace(&name) {
            walk.problems.push(of_variable(&name, message));
            continue;
        }
        match levels(&name) {
            Some(levels) => settings.push((levels, name, value)),
            None => walk.unknown_variable(&name, Vec::new()),
        }
    }
    settings.sort_by(|a, b| (a.0.len(), &a.1).cmp(&(b.0.len(), &b.1)));
    for (levels, name, value) in settings {
        if let Err(message) = put(document, &levels, &name, &value) {
            walk.problems.push(of_variable(&name, message));
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

/// Whether Kubernetes sets this variable in each container for a Service called `ace` or `ace-…` (and Docker for a linked
/// container): `ACE_SERVICE_HOST`, `ACE_SERVICE_PORT`, `ACE_SERVICE_PORT_HTTP`, `ACE_PORT=tcp://…`, `ACE_PORT_8025_TCP`,
/// `ACE_PORT_8025_TCP_ADDR`. No setting has a name of these forms.
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

/// The levels of a key in lower case; `None` for what can be no setting's name.
fn levels(name: &str) -> Option<Vec<String>> {
    let path = name.strip_prefix(PREFIX)?;
    let levels: Vec<String> = path.split(LEVEL).map(str::to_lowercase).collect();
    let sound = levels.len() <= LEVELS_MAX && levels.iter().all(|level| !level.is_empty());
    (sound && !path.chars().any(char::is_lowercase)).then_some(levels)
}

/// Puts a variable's value where its key stands. A level is one of the file's keys where one differs from it only in
/// case and in `-` for `_`, since a variable's name can hold neither.
fn put(table: &mut Table, levels: &[String], name: &str, value: &str) -> Result<(), String> {
    let Some((level, deeper)) = levels.split_first() else { return Ok(()) };
    let meant: Vec<usize> =
        table.0.iter().enumerate().filter(|(_, (key, _))| is_same(key, level)).map(|(at, _)| at).collect();
    if let [one, other, ..] = meant[..] {
        let (one, other) = (&table.0[one].0, &table.0[other].0);
        return Err(format!("could mean both {one:?} and {other:?}; write the setting in the file"));
    }
    let at = meant.first().copied().unwrap_or_else(|| {
        let empty = Value::Table(Table::default());
        table.0.push((level.clone(), Node { place: Place::Variable(name.to_owned()), value: empty, text: None }));
        table.0.len() - 1
    });
    let (key, node) = &mut table.0[at];
    if deeper.is_empty() {
        *node = parse_variable(name, value);
        return Ok(());
    }
    match &mut node.value {
        Value::Table(table) => put(table, deeper, name, value),
        other => Err(format!("{key:?} is {}, not a table, so nothing can be set in it", other.kind())),
    }
}

fn is_same(key: &str, level: &str) -> bool {
    key.to_lowercase().replace('-', "_") == level
}
