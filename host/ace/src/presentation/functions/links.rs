//! Addresses in templates: `static`, `with_link_tracking`, and the channel's `get_action_links`. A mail has no page it could
//! be relative to, so all of them are absolute.

use std::sync::Arc;

use tera::{Kwargs, State, Tera, TeraResult, Value};
use url::Url;

use crate::config::{self, Route, Routes};
use crate::presentation::filters::{self, python};
use crate::presentation::rendering;
use crate::presentation::templates::tokenizer::{self, TokenKind};

/// The context and the argument by which the unsubscribe links are left out.
const OMIT_UNSUBSCRIBE_LINK: &str = "omit_unsubscribe_link";

/// What Django leaves as it is in a page's address, beside letters, digits and `_.-`.
const PATH_SIGNS: &str = "!$&'()*+,;=/~:@";

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation, routes: &Arc<Routes>) {
    let routes = routes.clone();
    tera.register_function("url", move |kwargs: Kwargs, _: &State| {
        let values: Vec<Value> = kwargs.get::<Vec<Value>>("values")?.unwrap_or_default();
        let name = python::text(kwargs.must_get("name")?);
        let given = Given { values: &values, named: kwargs.get::<&Value>("named")? };
        match page(&name, &given, &routes) {
            Err(NoPage::Absent | NoPage::OtherValues(_)) if kwargs.get("or_empty")?.unwrap_or(false) => {
                Ok(String::new())
            }
            found => found.map_err(|why| tera::Error::message(format!("the page `{name}` {why}"))),
        }
    });
    let (base, statics) = (settings.base_url.clone(), settings.static_url.clone());
    tera.register_function("static", move |kwargs: Kwargs, _: &State| {
        absolute_static(kwargs.must_get("path")?, statics.as_deref(), base.as_ref())
    });
    let base = settings.base_url.clone();
    tera.register_function("with_link_tracking", move |kwargs: Kwargs, _: &State| {
        tracked(kwargs.must_get("url")?, base.as_ref())
    });
    let base = settings.base_url.clone();
    tera.register_filter("with_link_tracking", move |url: &str, _: Kwargs, _: &State| tracked(url, base.as_ref()));
    tera.register_function("get_action_links", action_links);
}

/// The values of a page's address, in a row or by name.
struct Given<'a> {
    values: &'a [Value],
    named: Option<&'a Value>,
}

impl Given<'_> {
    /// What a path's parameter gets; of those without names, the first parameter gets the first.
    fn get(&self, at: usize, parameter: &str) -> Option<String> {
        let value = match self.named {
            Some(named) => named.as_map()?.iter().find(|(key, _)| key.as_str() == Some(parameter))?.1,
            None => self.values.get(at)?,
        };
        Some(python::text(value)).filter(|text| !text.is_empty())
    }

    fn count(&self) -> usize {
        self.named.map_or(self.values.len(), |named| named.len().unwrap_or(0))
    }
}

/// Why there is no address of a page.
#[derive(Debug, thiserror::Error)]
enum NoPage {
    #[error("has no route: set its path under [templates.routes] in ace.toml, or in routes.toml in a template folder")]
    NoRoute,
    #[error("is one that the application does not have: its route is false")]
    Absent,
    #[error("has no route with the values that are given; there is {0}")]
    OtherValues(String),
}

/// The path of a page, as Django's `reverse` gives it.
fn page(name: &str, given: &Given, routes: &Routes) -> Result<String, NoPage> {
    let paths = match routes.get(name) {
        None => return Err(NoPage::NoRoute),
        Some(Route::Absent) => return Err(NoPage::Absent),
        Some(Route::Paths(paths)) => paths,
    };
    let path =
        paths.iter().find_map(|path| filled(path, given)).ok_or_else(|| NoPage::OtherValues(paths.join(", ")))?;
    let path = filters::url_encoded(&path, PATH_SIGNS);
    // Two slashes would begin the name of another host.
    Ok(path.strip_prefix("//").map_or(path.clone(), |rest| format!("/%2F{rest}")))
}

/// A route's path with its parameters, where those are the ones that are given.
fn filled(path: &str, given: &Given) -> Option<String> {
    let (mut filled, mut rest, mut count) = (String::new(), path, 0);
    while let Some((before, (parameter, after))) = rest.split_once('{').and_then(|(b, r)| Some((b, r.split_once('}')?)))
    {
        filled.push_str(before);
        filled.push_str(&given.get(count, parameter)?);
        (rest, count) = (after, count + 1);
    }
    filled.push_str(rest);
    (count == given.count()).then_some(filled)
}

/// The pages that a template asks for by a text, with the bytes where it does.
pub(crate) fn pages(text: &str) -> Vec<(usize, String)> {
    let mut pages = Vec::new();
    if !text.contains("url(") {
        return pages;
    }
    for tag in tokenizer::tags(text) {
        for at in 0..tag.tokens.len() {
            let is_call = tag.name(at) == Some("url")
                && tag.is_sign(at + 1, '(')
                && tag.name(at + 2) == Some("name")
                && tag.is_sign(at + 3, '=');
            if let (true, Some(TokenKind::Text(name))) = (is_call, tag.tokens.get(at + 4).map(|token| &token.kind)) {
                pages.push((tag.tokens[at].range.start, name.clone()));
            }
        }
    }
    pages
}

/// A file among the static ones: `static(path="images/logo.png")`. What an address has signs for is a part of the name.
fn absolute_static(path: &str, statics: Option<&str>, base: Option<&Url>) -> TeraResult<String> {
    let unset = || tera::Error::message("`static` needs presentation.static-url in ace.toml");
    let path = filters::url_encoded(path.trim_start_matches('/'), "/");
    let whole = format!("{}/{path}", statics.ok_or_else(unset)?.trim_end_matches('/'));
    absolute(&whole, base).map(String::from)
}

fn absolute(url: &str, base: Option<&Url>) -> TeraResult<Url> {
    match (Url::parse(url), base) {
        (Ok(url), _) => Ok(url),
        (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => base.join(url).map_err(|e| no_address(url, e)),
        (Err(url::ParseError::RelativeUrlWithoutBase), None) => {
            let why = "is not absolute: write it as in https://…, or set presentation.base-url in ace.toml";
            Err(tera::Error::message(format!("the address `{url}` {why}")))
        }
        (Err(e), _) => Err(no_address(url, e)),
    }
}

fn no_address(url: &str, error: url::ParseError) -> tera::Error {
    tera::Error::message(format!("`{url}` is no address: {error}"))
}

/// The address with the message's `utm_` parameters in place of those it has.
fn tracked(url: &str, base: Option<&Url>) -> TeraResult<String> {
    let mut url = absolute(url, base)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(url.into());
    }
    rendering::current(|rendering| {
        let rendering::Tracking { app_label, name, channel_type, course_id, uuid } = &rendering.tracking;
        let mut parameters = vec![
            ("utm_source", app_label),
            ("utm_medium", channel_type),
            ("utm_campaign", name),
            ("utm_content", uuid),
        ];
        if let Some(course_id) = course_id {
            parameters.insert(3, ("utm_term", course_id));
        }
        let is_set = |name: &str| parameters.iter().any(|(set, _)| *set == name);
        let own: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(name, _)| !is_set(name)).collect();
        url.query_pairs_mut().clear().extend_pairs(own).extend_pairs(parameters);
        Ok(())
    })?;
    Ok(url.into())
}

/// The channel's links; without those for unsubscribing where the argument or the context says so. (edx-ace looks at the
/// context alone.)
fn action_links(kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let argument = kwargs.get::<&Value>(OMIT_UNSUBSCRIBE_LINK)?.is_some_and(Value::is_truthy);
    let omits = argument || state.get::<Value>(OMIT_UNSUBSCRIBE_LINK)?.is_some_and(|value| value.is_truthy());
    let channel = match kwargs.get::<Value>("channel")? {
        Some(channel) => Some(channel),
        None => state.get::<Value>("channel")?,
    };
    let links = channel.as_ref().and_then(|channel| channel.get_from_path("action_links")).and_then(Value::as_array);
    let is_kept = |link: &&Value| !omits || !link.get_from_path("unsubscribe").is_some_and(Value::is_truthy);
    Ok(Value::from(links.unwrap_or_default().iter().filter(is_kept).cloned().collect::<Vec<_>>()))
}
