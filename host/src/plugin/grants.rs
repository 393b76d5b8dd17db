//! The one place that decides what a plugin may reach. Every import of every interface asks here.

use std::sync::Arc;

use cap_std::fs::Dir;
use url::Url;

use crate::config;

/// What one plugin may reach: what ace.toml granted, opened and ready.
pub struct Grants {
    granted: config::Grants,
    http: Vec<Url>,
    outbox: Option<Arc<Dir>>,
}

/// How a bucket is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Grants {
    /// Opens what needs opening: the outbox folder is made where it is not there. Touches files: not for an async thread.
    pub fn open(granted: &config::Grants) -> Result<Self, String> {
        let http =
            granted.http.iter().map(|prefix| Url::parse(prefix).map_err(|e| format!("grants.http: {prefix}: {e}")));
        let http = http.collect::<Result<_, _>>()?;
        let outbox = match &granted.outbox {
            None => None,
            Some(folder) => {
                let opened = std::fs::create_dir_all(folder)
                    .and_then(|()| Dir::open_ambient_dir(folder, cap_std::ambient_authority()))
                    .map_err(|e| format!("grants.outbox: {}: {e}", folder.display()))?;
                Some(Arc::new(opened))
            }
        };
        Ok(Grants { granted: granted.clone(), http, outbox })
    }

    /// May it use a bucket so?
    pub fn bucket(&self, bucket: &str, access: Access) -> Result<(), String> {
        let allowed = self.granted.keyvalue.iter().any(|grant| {
            grant.bucket == bucket
                && match access {
                    Access::Read => grant.read,
                    Access::Write => grant.write,
                }
        });
        let word = match access {
            Access::Read => "read",
            Access::Write => "write",
        };
        allowed.then_some(()).ok_or_else(|| not_granted(&format!("keyvalue = [\"{bucket}:{word}\"]")))
    }

    /// May it fetch this URL? Where the URL names an address instead of a host, so does the grant, or it does not match.
    pub fn http(&self, url: &Url) -> Result<(), String> {
        if self.http.iter().any(|prefix| covers(prefix, url)) {
            return Ok(());
        }
        let mut prefix = url.clone();
        prefix.set_query(None);
        Err(not_granted(&format!("http = [\"{prefix}\"]")))
    }

    /// May it hand mail to the relays?
    pub fn mailer(&self) -> Result<(), String> {
        self.granted.mailer.then_some(()).ok_or_else(|| not_granted("mailer = true"))
    }

    /// The folder it may write into.
    pub fn outbox(&self) -> Result<Arc<Dir>, String> {
        self.outbox.clone().ok_or_else(|| not_granted("outbox = \"FOLDER\""))
    }

    /// What was granted, for people to read.
    pub fn granted(&self) -> &config::Grants {
        &self.granted
    }
}

/// Whether a URL lies under a prefix: the same scheme, host and port, and a path that begins with the prefix's whole
/// segments. Both have been read strictly, so that their paths hold no dot segments.
fn covers(prefix: &Url, url: &Url) -> bool {
    let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    let rest = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
    origin(prefix) == origin(url) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn not_granted(grant: &str) -> String {
    format!("not granted; the operator can write `grants = {{ {grant} }}` into ace.toml")
}

/// What a manifest requests and ace.toml does not grant, as the grant would be written.
pub fn missing(requested: &config::Requests, granted: &config::Grants, secrets: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let granted_prefixes: Vec<Url> = granted.http.iter().filter_map(|prefix| Url::parse(prefix).ok()).collect();
    let is_granted = |url: &str| Url::parse(url).is_ok_and(|url| granted_prefixes.iter().any(|p| covers(p, &url)));
    for url in requested.http.iter().filter(|url| !is_granted(url)) {
        out.push(format!("http:{url}"));
    }
    for want in &requested.keyvalue {
        let have = |wanted: bool, pick: fn(&config::BucketGrant) -> bool| {
            !wanted || granted.keyvalue.iter().any(|g| g.bucket == want.bucket && pick(g))
        };
        if !have(want.read, |g| g.read) {
            out.push(format!("keyvalue:{}:read", want.bucket));
        }
        if !have(want.write, |g| g.write) {
            out.push(format!("keyvalue:{}:write", want.bucket));
        }
    }
    if requested.mailer && !granted.mailer {
        out.push("mailer".to_owned());
    }
    if requested.outbox && granted.outbox.is_none() {
        out.push("outbox".to_owned());
    }
    out.extend(requested.secrets.iter().filter(|s| !secrets.contains(s)).map(|s| format!("secret:{s}")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_lies_under_it() {
        let table = [
            ("https://a.example/", "https://a.example", true),
            ("https://a.example/", "https://a.example/v1?q=/..", true),
            ("https://a.example/v1", "https://a.example/v1", true),
            ("https://a.example/v1", "https://a.example/v1/", true),
            ("https://a.example/v1/", "https://a.example/v1", true),
            ("https://a.example/v1/", "https://a.example/v1/x/y", true),
            ("https://a.example/v1", "https://a.example/v10", false),
            ("https://a.example/v1", "https://a.example/V1", false),
            ("https://a.example/v1", "https://a.example/%761", false),
            ("https://a.example/v1", "https://a.example//v1", false),
            ("https://a.example/v1", "https://a.example/", false),
            ("https://a.example/", "http://a.example/", false),
            ("http://a.example/", "https://a.example/", false),
            ("https://a.example/", "https://a.example:443/", true),
            ("https://a.example/", "https://a.example:8443/", false),
            ("https://a.example:8443/", "https://a.example:8443/", true),
            ("https://a.example/", "https://b.a.example/", false),
            ("https://a.example/", "https://a.example.b/", false),
            ("https://a.example/", "https://a.example./", false),
            ("https://127.0.0.1/", "https://127.1/", true),
            ("https://127.0.0.1/", "https://[::ffff:127.0.0.1]/", false),
            ("https://localhost/", "https://127.0.0.1/", false),
            ("https://[::1]/", "https://[0::1]/", true),
        ];
        let url = |text: &str| Url::parse(text).expect("a URL");
        for (prefix, text, expected) in table {
            assert_eq!(covers(&url(prefix), &url(text)), expected, "{prefix} {text}");
        }
    }

    #[test]
    fn a_request_under_a_grant_is_not_missing() {
        let requested = |http: &str| config::Requests { http: vec![http.to_owned()], ..Default::default() };
        let granted = config::Grants { http: vec!["https://a.example/v1/".to_owned()], ..Default::default() };
        assert_eq!(missing(&requested("https://a.example/v1/send"), &granted, &[]), Vec::<String>::new());
        assert_eq!(missing(&requested("https://a.example/"), &granted, &[]), ["http:https://a.example/"]);
    }
}
