//! Checks that every request must pass before it reaches a route: it is meant for this server (`Host`), it is not sent by a page of
//! another site (`Origin`, `Sec-Fetch-Site`), it does not come through a proxy although no token is required, and its query and body
//! are described for the operation.
//!
//! Without tokens the server trusts every request, so the first three checks protect it from a browser on the same machine: an
//! attacker's host name that resolves to 127.0.0.1 is another host, and a form on an attacker's page has another origin. With tokens
//! any host is accepted, unless `server.hosts` is set.

use ace::config::{Authority, Server};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::operations::Operations;
use super::problem::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers by which proxies describe the client, besides everything that starts with [`FORWARDED`].
const PROXIED: [HeaderName; 6] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];
const FORWARDED: &str = "x-forwarded";

/// The rules for requests.
pub(super) struct Admission {
    operations: Operations,
    has_tokens: bool,
    hosts: Vec<Authority>,
    /// The scheme of this server's own URLs.
    scheme: &'static str,
}

impl Admission {
    pub(super) fn new(operations: Operations, settings: &Server) -> Self {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let has_tokens = settings.tokens_file.is_some();
        Admission { operations, has_tokens, hosts: settings.hosts.clone(), scheme }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The problem that says which rule it violates.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let named = self.named(request)?;
        if !self.has_tokens {
            check_not_proxied(request.headers())?;
        }
        self.check_site(request.headers(), &named)?;
        if *request.method() == Method::CONNECT {
            return Err(ApiError::NoMethod);
        }
        match request.extensions().get::<MatchedPath>() {
            Some(path) => self.operations.check(path.as_str(), request),
            None => Ok(()),
        }
    }

    /// Whether only hosts of `server.hosts` and loopback names are accepted.
    fn is_strict(&self) -> bool {
        !self.has_tokens || !self.hosts.is_empty()
    }

    /// The hosts that a request names: `:authority` (or the request target in absolute form) and `Host`. If there are both, they must
    /// be the same (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
    fn named(&self, request: &Request) -> Result<Vec<Authority>, ApiError> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(ApiError::BadRequest("the request has more than one Host header".to_owned()));
        }
        let texts = [request.uri().authority().map(|a| a.as_str().as_bytes()), host.map(HeaderValue::as_bytes)];
        let read = |text: &[u8]| std::str::from_utf8(text).ok().and_then(Authority::parse);
        if !self.is_strict() {
            return Ok(texts.into_iter().flatten().filter_map(read).collect());
        }
        let mut named = Vec::with_capacity(2);
        for text in texts.into_iter().flatten() {
            let host = String::from_utf8_lossy(text);
            let authority =
                read(text).ok_or_else(|| ApiError::BadRequest(format!("Host: {host:?} is not a host name")))?;
            if !self.is_own(&authority) {
                let why = format!("{host:?} is not a name of this server; server.hosts in ace.toml lists its names");
                return Err(ApiError::Refused("host-not-allowed", why));
            }
            named.push(authority);
        }
        match &named[..] {
            [] => Err(ApiError::BadRequest("the request has no Host header".to_owned())),
            [one, other] if !self.is_same(one, other) => {
                Err(ApiError::BadRequest("the request target and the Host header name different hosts".to_owned()))
            }
            _ => Ok(named),
        }
    }

    fn is_own(&self, authority: &Authority) -> bool {
        let is_listed = |listed: &Authority| {
            listed.host == authority.host
                && listed.port.is_none_or(|port| authority.port.unwrap_or(default_port(self.scheme)) == port)
        };
        authority.is_this_machine() || self.hosts.iter().any(is_listed)
    }

    fn is_same(&self, one: &Authority, other: &Authority) -> bool {
        let port = |authority: &Authority| authority.port.unwrap_or(default_port(self.scheme));
        one.host == other.host && port(one) == port(other)
    }

    /// Checks that no page of another site sent the request. Browsers say which page did; other clients send no such header.
    fn check_site(&self, headers: &HeaderMap, named: &[Authority]) -> Result<(), ApiError> {
        let refused = |what: &str, value: &HeaderValue| {
            let why = format!(
                "{what}: {value:?}: requests from other sites are not allowed; open the server's own address in the browser"
            );
            Err(ApiError::Refused("cross-origin", why))
        };
        let mut is_vouched_for = false;
        for site in headers.get_all(SEC_FETCH_SITE) {
            match site.as_bytes() {
                b"same-origin" | b"none" => is_vouched_for = true,
                _ => return refused("Sec-Fetch-Site", site),
            }
        }
        // A proxy may have replaced Host, but the browser has compared the origin with the address that it opened.
        if is_vouched_for && !self.is_strict() {
            return Ok(());
        }
        match headers.get_all(header::ORIGIN).iter().find(|origin| !self.is_own_origin(origin.as_bytes(), named)) {
            Some(origin) => refused("Origin", origin),
            None => Ok(()),
        }
    }

    /// Whether an origin is that of the requested host or, with tokens, of a host in `server.hosts`, because a proxy may use another
    /// scheme and host than the browser.
    fn is_own_origin(&self, origin: &[u8], named: &[Authority]) -> bool {
        let text = std::str::from_utf8(origin).unwrap_or_default();
        let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else { return false };
        let Some(origin) = Authority::parse(rest) else { return false };
        let port = |authority: &Authority| authority.port.unwrap_or(default_port(scheme));
        let is_same = |own: &Authority| own.host == origin.host && port(own) == port(&origin);
        if self.has_tokens {
            named.iter().chain(&self.hosts).any(is_same)
        } else {
            scheme == self.scheme && named.iter().any(is_same)
        }
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// Rejects a proxied request: behind a proxy, a server without tokens would be open to all clients of the proxy.
fn check_not_proxied(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_of_proxy = |name: &&HeaderName| PROXIED.contains(name) || name.as_str().starts_with(FORWARDED);
    match headers.keys().find(is_of_proxy) {
        Some(name) => {
            let why = format!(
                "the request came through a proxy ({name}), and this server requires no tokens; \
                 set server.tokens-file in ace.toml to serve behind one"
            );
            Err(ApiError::Refused("proxied", why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
