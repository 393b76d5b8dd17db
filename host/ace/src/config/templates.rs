//! `[templates]`: replaces the parts of a Django project that its templates use.

use std::collections::BTreeMap;

use super::reader::{Decoder, Field, TableDecoder};
use super::tree::{self, Node, Value};
use super::values;

/// The longest file of routes.
pub const ROUTES_BYTES_MAX: u64 = 1 << 20;

/// Replacements for the parts of a Django project that its templates use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Templates {
    /// The routes of `{% url %}`, by name.
    pub routes: Routes,
    /// What `ace templates import` writes for the project's own tags, by name.
    pub tags: BTreeMap<String, Tag>,
    /// Django filters that replace the project's own, by name: `floatformat:2`. Empty: the value is not changed.
    pub filters: BTreeMap<String, String>,
}

/// What is written for a project's own tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// This text.
    Text(String),
    /// A value of the message's context, in Django's notation: `site.domain`.
    Context(String),
    /// A setting of `[presentation]`: `base-url`.
    Setting(String),
}

/// The settings that can replace a tag.
pub(super) const TAG_SETTINGS: [&str; 4] = ["base-url", "static-url", "time-zone", "default-language"];

/// The URLs of an application's pages, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<String, Option<Route>>);

/// The paths of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Paths such as `/accounts/{pk}/`. The first one with the given parameters is used.
    Paths(Vec<String>),
    /// The application does not have this page: `{% url … as name %}` gives an empty text.
    Absent,
}

impl Routes {
    /// Parses a file of routes: TOML, `name = "/path/{parameter}/"`. The importer writes empty paths for routes that the operator must
    /// fill in.
    ///
    /// # Errors
    /// All faulty lines, with their numbers from 1.
    pub fn read(text: &str) -> Result<Routes, Vec<(usize, String)>> {
        let table = tree::parse(text).map_err(|error| vec![(error.line, format!("not TOML: {}", error.message))])?;
        let mut decoder = Decoder::new(None, BTreeMap::new());
        let document = tree::Table(vec![(
            "routes".to_owned(),
            tree::Node { source: tree::Source::Unknown, value: Value::Table(table), text: None },
        )]);
        let routes = decoder.document(document, routes);
        decoder.finish(routes).map_err(|problems| {
            let describe = |problem: super::Problem| {
                (problem.line, format!("{}: {}", problem.key.trim_start_matches("routes."), problem.message))
            };
            problems.0.into_iter().map(describe).collect()
        })
    }

    /// The route of a page.
    pub fn get(&self, name: &str) -> Option<&Route> {
        self.0.get(name)?.as_ref()
    }

    /// All names, including those without a path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Adds the routes of `others` that are missing here.
    pub fn add_missing(&mut self, others: Routes) {
        for (name, route) in others.0 {
            let own = self.0.entry(name).or_default();
            *own = own.take().or(route);
        }
    }
}

pub(super) fn templates(s: &mut TableDecoder<'_>) -> Templates {
    Templates {
        routes: routes(s),
        tags: s.named("tags", |_, field| tag(field)),
        filters: s.named("filters", |_, field| field.read(values::text)),
    }
}

fn routes(s: &mut TableDecoder<'_>) -> Routes {
    let named = s.named("routes", |_, field| match &field.node().value {
        Value::List(_) => field.list(path).map(|paths| Some(Route::Paths(paths))),
        Value::Boolean(false) => Some(Some(Route::Absent)),
        Value::Text(text) if text.is_empty() => Some(None),
        _ => field.read(path).map(|path| Some(Route::Paths(vec![path]))),
    });
    Routes(named)
}

/// `/path/{parameter}/`.
fn path(node: &Node) -> Result<String, String> {
    const FORM: &str = "write it as in \"/orders/{number}/\", or false if the application does not have this page";
    let Value::Text(text) = &node.value else {
        return Err(format!("must be a path, not {}: {FORM}", node.value.kind()));
    };
    let path = values::line(node)?;
    if !path.starts_with('/') {
        return Err(format!("the path {text:?} does not start with a slash: {FORM}"));
    }
    let mut rest = path.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        let parameter = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        match parameter {
            Some((name, after)) if is_name(name) => rest = after,
            _ => return Err(format!("the path {text:?} has a brace that is not part of a {{parameter}}: {FORM}")),
        }
    }
    Ok(path)
}

fn tag(field: Field<'_>) -> Option<Tag> {
    match &field.node().value {
        Value::Table(_) => field.section(|s| {
            let settings = TAG_SETTINGS.map(|name| (name, name));
            let context = s.get("context", values::line).map(Tag::Context);
            let setting = s.get("setting", values::one_of(&settings)).map(|name| Tag::Setting(name.to_owned()));
            match (context, setting) {
                (Some(tag), None) | (None, Some(tag)) => Some(tag),
                _ => {
                    if s.is_valid() {
                        s.fail_whole("needs either context = \"site.domain\" or setting = \"base-url\"");
                    }
                    None
                }
            }
        })?,
        _ => field.read(values::text).map(Tag::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_paths_with_parameters() {
        let routes =
            Routes::read("home = \"/\"\n\"app:item\" = [\"/i/{pk}/\", \"/i/{pk}/{_0}\"]\nno = false\nlater = \"\"\n");
        let routes = routes.expect("routes");
        assert_eq!(routes.get("home"), Some(&Route::Paths(vec!["/".to_owned()])));
        assert!(matches!(routes.get("app:item"), Some(Route::Paths(paths)) if paths.len() == 2));
        assert_eq!((routes.get("no"), routes.get("later")), (Some(&Route::Absent), None));
        let wrong = Routes::read("a = 1\nb = \"x\"\nc = \"/{a b}\"\nd = \"/}\"\n").expect_err("four faults");
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(wrong[1].1.starts_with("b: the path \"x\" does not start with a slash"), "{wrong:?}");
        assert!(Routes::read("a =").is_err());
    }
}
