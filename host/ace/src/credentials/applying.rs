//! What a secret becomes in a request. Errors continue "the credential NAME …", and contain no secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::Problem;
use crate::config::Secret;
use crate::config::credentials::keys;

/// What is encoded of a part of a path. `%` is not: the part stands as in the provider's URL.
const IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}').add(b'\\');
/// The same of a query value.
const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'&').add(b'<').add(b'>').add(b'\'');

pub(super) fn token(headers: &mut HeaderMap, scheme: &str, token: &Secret) -> Result<(), Problem> {
    header(headers, &AUTHORIZATION, &format!("{scheme} {}", token.expose()))
}

pub(super) fn basic(headers: &mut HeaderMap, username: &str, password: &Secret) -> Result<(), Problem> {
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    header(headers, &AUTHORIZATION, &format!("Basic {pair}"))
}

/// Sets a header, which is then never logged and never compressed into a table that several requests share.
pub(super) fn header(headers: &mut HeaderMap, name: &HeaderName, value: &str) -> Result<(), Problem> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Problem::Credential("has a secret that cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// Adds a parameter to the query.
pub(super) fn query(url: &mut Url, name: &str, value: &Secret) -> Result<(), Problem> {
    if url.query_pairs().any(|(key, _)| key == name) {
        return Err(Problem::Request(format!("sets the parameter {name:?} of the URL; do not set it too")));
    }
    url.query_pairs_mut().append_pair(name, value.expose());
    Ok(())
}

/// Replaces `$(own_name)`, which is one segment of the path or one value of the query.
pub(super) fn url_part(url: &mut Url, own_name: &str, part: &Secret) -> Result<(), Problem> {
    keys::url_part(part.expose()).map_err(|problem| Problem::Credential(format!("has a secret that {problem}")))?;
    let placeholder = format!("$({own_name})");
    let is_placeholder = |text: &str| percent_decode_str(text).decode_utf8().is_ok_and(|text| text == placeholder);
    let in_path = url.path().split('/').filter(|segment| is_placeholder(segment)).count();
    let value_of = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs = || url.query().unwrap_or_default().split('&');
    let in_query = pairs().filter(|pair| value_of(pair).is_some_and(|(_, value)| is_placeholder(&value))).count();
    if in_path + in_query != 1 {
        let problem =
            format!("needs {placeholder} once in the URL, as a whole segment of the path or value of the query");
        return Err(Problem::Request(problem));
    }
    if in_path == 1 {
        let part = utf8_percent_encode(part.expose(), IN_PATH).to_string();
        let segments =
            url.path().split('/').map(|segment| if is_placeholder(segment) { part.as_str() } else { segment });
        let path = segments.collect::<Vec<_>>().join("/");
        url.set_path(&path);
    } else {
        let part = utf8_percent_encode(part.expose(), IN_QUERY).to_string();
        let replaced = pairs().map(|pair| match value_of(pair) {
            Some((name, value)) if is_placeholder(&value) => format!("{name}={part}"),
            _ => pair.to_owned(),
        });
        let query = replaced.collect::<Vec<_>>().join("&");
        url.set_query(Some(&query));
    }
    Ok(())
}
