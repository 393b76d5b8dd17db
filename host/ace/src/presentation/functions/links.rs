//! URLs in templates: `url`, `static`, `with_link_tracking`, and the channel's `get_action_links`.

use std::sync::Arc;

use tera::{Kwargs, State, Tera, TeraResult, Value};
use url::Url;

use crate::config::{self, Route, Routes};
use crate::presentation::filters::{self, python};
use crate::presentation::rendering;
use crate::presentation::templates::tokenizer::{self, TokenKind};

/// The variable and the argument that omit the unsubscribe links.
const OMIT_UNSUBSCRIBE_LINK: &str = "omit_unsubscribe_link";

/// The characters that Django does not encode in the path of a page, besides letters, digits and `_.-`.
const PATH_SIGNS: &str = "!$&'()*+,;=/~:@";

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation, routes: &Arc<Routes>) {
    let routes = routes.clone();
    tera.register_function("url", move |kwargs: Kwargs, _: &State| {
        let values: Vec<Value> = kwargs.get::<Vec<Value>>("values")?.unwrap_or_default();
        let name = python::text(kwargs.must_get("name")?);
        let parameters = Parameters { values: &values, named: kwargs.get::<&Value>("named")? };
        match page(&name, &parameters, &routes) {
            Err(PageError::Absent | PageError::OtherParameters(_)) if kwargs.get("or_empty")?.unwrap_or(false) => {
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

/// The parameters of a page's path, by position or by name.
struct Parameters<'a> {
    values: &'a [Value],
    named: Option<&'a Value>,
}

impl Parameters<'_> {
    /// The value of a path's parameter, by name or by position.
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

/// Why a page has no path.
#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error("has no route: set its path under [templates.routes] in ace.toml, or in routes.toml in a template folder")]
    NoRoute,
    #[error("does not exist in the application: its route is false")]
    Absent,
    #[error("has no route with these parameters; its routes are {0}")]
    OtherParameters(String),
}

/// The path of a page, as in Django's `reverse`.
fn page(name: &str, parameters: &Parameters, routes: &Routes) -> Result<String, PageError> {
    let paths = match routes.get(name) {
        None => return Err(PageError::NoRoute),
        Some(Route::Absent) => return Err(PageError::Absent),
        Some(Route::Paths(paths)) => paths,
    };
    let path = paths
        .iter()
        .find_map(|path| filled(path, parameters))
        .ok_or_else(|| PageError::OtherParameters(paths.join(", ")))?;
    let path = filters::url_encoded(&path, PATH_SIGNS);
    // Two slashes would start a host name.
    Ok(path.strip_prefix("//").map_or(path.clone(), |rest| format!("/%2F{rest}")))
}

/// A route's path with its parameters. `None` if it has other parameters.
fn filled(path: &str, parameters: &Parameters) -> Option<String> {
    let (mut filled, mut rest, mut count) = (String::new(), path, 0);
    while let Some((before, (parameter, after))) = rest.split_once('{').and_then(|(b, r)| Some((b, r.split_once('}')?)))
    {
        filled.push_str(before);
        filled.push_str(&parameters.get(count, parameter)?);
        (rest, count) = (after, count + 1);
    }
    filled.push_str(rest);
    (count == parameters.count()).then_some(filled)
}

/// The pages that a template names with a literal, each with its byte offset.
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

/// The URL of a static file: `static(path="images/logo.png")`. Special characters of URLs are encoded.
fn absolute_static(path: &str, statics: Option<&str>, base: Option<&Url>) -> TeraResult<String> {
    let unset = || tera::Error::message("`static` needs presentation.static-url in ace.toml");
    let path = filters::url_encoded(path.trim_start_matches('/'), "/");
    let whole = format!("{}/{path}", statics.ok_or_else(unset)?.trim_end_matches('/'));
    absolute(&whole, base).map(String::from)
}

fn absolute(url: &str, base: Option<&Url>) -> TeraResult<Url> {
    match (Url::parse(url), base) {
        (Ok(url), _) => Ok(url),
        (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => base.join(url).map_err(|e| invalid_url(url, e)),
        (Err(url::ParseError::RelativeUrlWithoutBase), None) => {
            let fix = "write it as in https://…, or set presentation.base-url in ace.toml";
            Err(tera::Error::message(format!("the URL `{url}` is not absolute: {fix}")))
        }
        (Err(e), _) => Err(invalid_url(url, e)),
    }
}

fn invalid_url(url: &str, error: url::ParseError) -> tera::Error {
    tera::Error::message(format!("`{url}` is not a valid URL: {error}"))
}

/// The URL with the message's `utm_` parameters, which replace its own.
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

/// The channel's links, without unsubscribe links if the argument or the context says so. (edx-ace only checks the context.)
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
