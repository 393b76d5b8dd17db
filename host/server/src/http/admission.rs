//! What every request must pass before any route is asked: that it is meant for this server (`Host`), that no page of another
//! site sends it (`Origin`, `Sec-Fetch-Site`), that it came through no proxy which would let everybody in, and that its
//! query and body are of a kind that the operation describes.
//!
//! Without tokens the server trusts everything that reaches it, so the first three guard against a browser on the same machine:
//! a name of an attacker's that resolves to 127.0.0.1 is another host, and a form of an attacker's page has another origin. With
//! tokens any host will do, unless `server.hosts` lists them.

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

/// Who and what is let in.
pub(super) struct Admission {
    operations: Operations,
    has_tokens: bool,
    hosts: Vec<Authority>,
    /// What this server's own addresses start with.
    scheme: &'static str,
}

impl Admission {
    pub(super) fn new(operations: Operations, settings: &Server) -> Self {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let has_tokens = settings.tokens_file.is_some();
        Admission { operations, has_tokens, hosts: settings.hosts.clone(), scheme }
    }

    /// Lets a request in.
    ///
    /// # Errors
    ///
    /// A problem that says what stands against it.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let named = self.named(request)?;
        if !self.has_tokens {
            not_proxied(request.headers())?;
        }
        self.of_this_site(request.headers(), &named)?;
        if *request.method() == Method::CONNECT {
            return Err(ApiError::NoMethod);
        }
        match request.extensions().get::<MatchedPath>() {
            Some(path) => self.operations.check(path.as_str(), request),
            None => Ok(()),
        }
    }

    /// Whether only listed hosts, and this machine's own names, are answered.
    fn is_strict(&self) -> bool {
        !self.has_tokens || !self.hosts.is_empty()
    }

    /// The hosts that a request is for: `:authority` (or the whole address in the first line) and `Host`. Where both are there
    /// they are one and the same (RFC 9112, 3.2.2; RFC 9113, 8.3.1).
    fn named(&self, request: &Request) -> Result<Vec<Authority>, ApiError> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(ApiError::BadRequest("the request has more than one Host".to_owned()));
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
            [] => Err(ApiError::BadRequest("the request names no Host".to_owned())),
            [one, other] if !self.is_same(one, other) => {
                Err(ApiError::BadRequest("the request is for one host and its Host is another".to_owned()))
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

    /// A browser says whose page it sends a request for. Other clients say nothing, and are believed.
    fn of_this_site(&self, headers: &HeaderMap, named: &[Authority]) -> Result<(), ApiError> {
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
        // A proxy in front may have put another Host in; then the browser's own word counts.
        if is_vouched_for && !self.is_strict() {
            return Ok(());
        }
        match headers.get_all(header::ORIGIN).iter().find(|origin| !self.is_own_origin(origin.as_bytes(), named)) {
            Some(origin) => refused("Origin", origin),
            None => Ok(()),
        }
    }

    /// Whether an origin is the one that the request is for; with tokens also one that `server.hosts` lists, since a proxy in
    /// front speaks another scheme perhaps, and asks for another host.
    fn is_own_origin(&self, origin: &[u8], named: &[Authority]) -> bool {
        let text = std::str::from_utf8(origin).unwrap_or_default();
        let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else { return false };
        let Some(origin) = Authority::parse(rest) else { return false };
        let port = |authority: &Authority| authority.port.unwrap_or(default_port(scheme));
        let is_it = |own: &Authority| own.host == origin.host && port(own) == port(&origin);
        if self.has_tokens {
            named.iter().chain(&self.hosts).any(is_it)
        } else {
            scheme == self.scheme && named.iter().any(is_it)
        }
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// Behind a proxy, a server without tokens would be open to everyone the proxy lets through.
fn not_proxied(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_proxys = |name: &&HeaderName| PROXIED.contains(name) || name.as_str().starts_with(FORWARDED);
    match headers.keys().find(is_proxys) {
        Some(name) => {
            let why = format!(
                "the request came through a proxy ({name}), and this server asks nobody for a token; \
                 set server.tokens-file in ace.toml to serve behind one"
            );
            Err(ApiError::Refused("proxied", why))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
