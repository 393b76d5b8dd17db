//! `[templates]`: what templates that were written for Django ask of the project that they come from.

use std::collections::BTreeMap;

use super::reader::{Field, Section, Walk};
use super::tree::{self, Node, Value};
use super::values;

/// The longest file of routes.
pub const ROUTES_BYTES_MAX: u64 = 1 << 20;

/// What stands for the parts of a Django project that its templates use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Templates {
    /// By the name that `{% url %}` has.
    pub routes: Routes,
    /// What `ace templates import` writes for the project's own tags, by their names.
    pub tags: BTreeMap<String, Tag>,
    /// Django's filters that stand for the project's own, by their names: `floatformat:2`. Empty: the value stays as it is.
    pub filters: BTreeMap<String, String>,
}

/// What is written for a tag of a project's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// This text.
    Text(String),
    /// A value of the message's context, as Django writes it: `site.domain`.
    Context(String),
    /// A setting of `[presentation]`: `base-url`.
    Setting(String),
}

/// The settings that a tag may stand for.
pub(super) const TAG_SETTINGS: [&str; 4] = ["base-url", "static-url", "time-zone", "default-language"];

/// Addresses of an application's pages, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<String, Option<Route>>);

/// The paths of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/accounts/{pk}/`: the first whose parameters are those that are given counts.
    Paths(Vec<String>),
    /// The application has no such page: `{% url … as name %}` gives an empty text.
    Absent,
}

impl Routes {
    /// Reads a file of routes: TOML, `name = "/path/{parameter}/"`. A name whose path is empty, as the importer writes those
    /// that are to be filled in, has no route yet.
    ///
    /// # Errors
    ///
    /// Every line that is wrong, with its number, from 1.
    pub fn read(text: &str) -> Result<Routes, Vec<(usize, String)>> {
        let table = tree::parse(text).map_err(|error| vec![(error.line, format!("not TOML: {}", error.message))])?;
        let mut walk = Walk::new(None, BTreeMap::new());
        let document = tree::Table(vec![(
            "routes".to_owned(),
            tree::Node { place: tree::Place::Nowhere, value: Value::Table(table), text: None },
        )]);
        let routes = walk.document(document, routes);
        walk.finish(routes).map_err(|problems| {
            let told = |problem: super::Problem| {
                (problem.line, format!("{}: {}", problem.key.trim_start_matches("routes."), problem.message))
            };
            problems.0.into_iter().map(told).collect()
        })
    }

    /// The address of a page.
    pub fn get(&self, name: &str) -> Option<&Route> {
        self.0.get(name)?.as_ref()
    }

    /// The names, those without a path yet among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes over those of other ones that are not here.
    pub fn add_missing(&mut self, others: Routes) {
        for (name, route) in others.0 {
            let own = self.0.entry(name).or_default();
            *own = own.take().or(route);
        }
    }
}

pub(super) fn templates(s: &mut Section<'_>) -> Templates {
    Templates {
        routes: routes(s),
        tags: s.named("tags", |_, field| tag(field)),
        filters: s.named("filters", |_, field| field.read(values::text)),
    }
}

fn routes(s: &mut Section<'_>) -> Routes {
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
    const FORM: &str = "write it as in \"/orders/{number}/\", or false where the application has no such page";
    let Value::Text(text) = &node.value else {
        return Err(format!("must be a path, not {}: {FORM}", node.value.kind()));
    };
    let path = values::line(node)?;
    if !path.starts_with('/') {
        return Err(format!("the path {text:?} does not begin with a slash: {FORM}"));
    }
    let mut rest = path.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        let parameter = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        match parameter {
            Some((name, after)) if is_name(name) => rest = after,
            _ => return Err(format!("the path {text:?} has a brace that is no {{parameter}}: {FORM}")),
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
                    if s.is_sound() {
                        s.fail_whole("needs one of the two: context = \"site.domain\", or setting = \"base-url\"");
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
        assert!(wrong[1].1.starts_with("b: the path \"x\" does not begin with a slash"), "{wrong:?}");
        assert!(Routes::read("a =").is_err());
    }
}
