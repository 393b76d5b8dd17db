//! The parts of a manifest that tests use: requests, which a test grants, and defaults.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The used parts of `NAME.toml`. `ace plugin check` validates the whole file.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Manifest {
    #[serde(default)]
    pub requests: Requests,
    #[serde(default)]
    pub defaults: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Requests {
    #[serde(default)]
    http: Vec<String>,
    #[serde(default)]
    keyvalue: Vec<String>,
    #[serde(default)]
    mailer: bool,
    #[serde(default)]
    outbox: bool,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    credentials: Vec<String>,
}

impl Manifest {
    pub fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }
}

impl Requests {
    /// `access` is `read` or `write`.
    pub fn bucket(&self, bucket: &str, access: &str) -> Result<(), String> {
        let is_requested = self.keyvalue.iter().any(|request| {
            let (of, word) = request.rsplit_once(':').unwrap_or((request, "read"));
            of == bucket && (word == access || word == "read-write")
        });
        is_requested.then_some(()).ok_or_else(|| not_requested(&format!("keyvalue = [\"{bucket}:{access}\"]")))
    }

    pub fn http(&self, url: &str) -> Result<(), String> {
        let is_covered = self.http.iter().any(|prefix| covers(prefix, url));
        is_covered.then_some(()).ok_or_else(|| not_requested(&format!("http = [\"{url}\"]")))
    }

    pub fn mailer(&self) -> Result<(), String> {
        self.mailer.then_some(()).ok_or_else(|| not_requested("mailer = true"))
    }

    pub fn outbox(&self) -> Result<(), String> {
        self.outbox.then_some(()).ok_or_else(|| not_requested("outbox = true"))
    }

    pub fn credential(&self, name: &str) -> Result<(), String> {
        let is_requested = self.credentials.iter().any(|requested| requested == name);
        is_requested.then_some(()).ok_or_else(|| not_requested(&format!("credentials = [\"{name}\"]")))
    }

    /// The default keys of credentials: `test-NAME`.
    pub fn credentials(&self) -> BTreeMap<String, String> {
        self.credentials.iter().map(|name| (name.clone(), format!("test-{name}"))).collect()
    }

    /// The default values of secrets: `test-NAME`.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        self.secrets.iter().map(|name| (name.clone(), format!("test-{name}"))).collect()
    }
}

/// Whether a URL begins with the prefix's whole segments. The prefix's host may be `*.domain`, for the names under a domain, or `*`, for
/// all names.
fn covers(prefix: &str, url: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    let rest = match prefix.split_once("://*") {
        None => url.strip_prefix(prefix),
        Some((scheme, pattern)) => url
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .and_then(|rest| under_pattern(pattern, rest)),
    };
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// What follows the pattern's path, where the host is a name that ends as the pattern does.
fn under_pattern<'a>(pattern: &str, url: &'a str) -> Option<&'a str> {
    let (domain, path) = pattern.split_at(pattern.find('/').unwrap_or(pattern.len()));
    let (host, rest) = url.split_at(url.find(['/', '?']).unwrap_or(url.len()));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_name = name.parse::<Ipv4Addr>().is_err() && name != "localhost";
    let labels = host.strip_suffix(domain).filter(|labels| is_name && !labels.is_empty() && !labels.contains(':'));
    labels.and(rest.strip_prefix(path))
}

/// The error of a missing request. Tests grant exactly what the manifest requests, as operators do.
fn not_requested(request: &str) -> String {
    format!("not granted: the manifest does not say `{request}` under [requests]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_requested_is_granted_and_nothing_else() {
        let text = "[requests]\nkeyvalue = ['a:read', 'b:read-write']\nhttp = ['https://a.example/v1/']\n";
        let requests = Manifest::read(text).expect("a manifest").requests;
        assert_eq!(requests.bucket("a", "read"), Ok(()));
        assert_eq!(requests.bucket("b", "write"), Ok(()));
        assert!(requests.bucket("a", "write").expect_err("reading alone").contains("keyvalue = [\"a:write\"]"));
        assert_eq!(requests.http("https://a.example/v1/send?x=1"), Ok(()));
        for url in ["https://a.example/v10", "https://a.example/", "http://a.example/v1/"] {
            assert!(requests.http(url).is_err(), "{url}");
        }
        let text = "[requests]\nhttp = ['https://*.push.example/v1/', 'http://*:8080/']\n";
        let requests = Manifest::read(text).expect("a manifest").requests;
        for url in ["https://5.push.example/v1/send", "https://a.b.push.example/v1?x", "http://hook.example:8080/"] {
            assert_eq!(requests.http(url), Ok(()), "{url}");
        }
        for url in
            ["https://push.example/v1/", "https://a.push.example/", "http://hook.example/", "http://127.0.0.1:8080/"]
        {
            assert!(requests.http(url).is_err(), "{url}");
        }
        assert!(requests.mailer().is_err() && requests.outbox().is_err());
    }
}
