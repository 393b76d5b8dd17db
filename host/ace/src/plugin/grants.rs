//! Decides what a plugin may access. Every import checks here.

use std::collections::BTreeMap;
use std::sync::Arc;

use cap_std::fs::Dir;
use url::Url;

use crate::config::{self, BucketGrant, Requests, Secret, covers};
use ace_store::files;

/// What one plugin may access: the grants of ace.toml, opened.
pub struct Grants {
    granted: config::Grants,
    http: Vec<Url>,
    outbox: Option<Arc<Dir>>,
}

/// The access to a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read entries.
    Read,
    /// Write entries.
    Write,
}

impl Grants {
    /// Opens the outbox folder, and creates it if it is missing. Blocks: do not call it on an async thread.
    pub(crate) fn open(granted: &config::Grants) -> Result<Self, String> {
        let http =
            granted.http.iter().map(|prefix| Url::parse(prefix).map_err(|e| format!("grants.http: {prefix}: {e}")));
        let http = http.collect::<Result<_, _>>()?;
        let outbox = match &granted.outbox {
            None => None,
            Some(folder) => {
                let opened = granted
                    .access
                    .create_folder(folder)
                    .and_then(|()| Dir::open_ambient_dir(folder, cap_std::ambient_authority()))
                    .map_err(|e| format!("grants.outbox: {}: {e}", folder.display()))?;
                granted.access.restrict_folder(folder, |_| true);
                Some(Arc::new(opened))
            }
        };
        Ok(Grants { granted: granted.clone(), http, outbox })
    }

    /// Checks that a bucket may be accessed in this way.
    pub(crate) fn bucket(&self, bucket: &str, access: Access) -> Result<(), String> {
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

    /// Checks that this URL may be requested. A URL with an address instead of a host name needs a grant with that address.
    pub(crate) fn http(&self, url: &Url) -> Result<(), String> {
        if self.http.iter().any(|prefix| covers(prefix, url)) {
            return Ok(());
        }
        let mut prefix = url.clone();
        prefix.set_query(None);
        Err(not_granted(&format!("http = [\"{prefix}\"]")))
    }

    /// Checks that mail may be sent.
    pub(crate) fn mailer(&self) -> Result<(), String> {
        self.granted.mailer.then_some(()).ok_or_else(|| not_granted("mailer = true"))
    }

    /// The folder that it may write into.
    pub(crate) fn outbox(&self) -> Result<Arc<Dir>, String> {
        self.outbox.clone().ok_or_else(|| not_granted("outbox = \"FOLDER\""))
    }

    /// Who may read the files in that folder.
    pub fn access(&self) -> files::Access {
        self.granted.access
    }

    /// The grants in ace.toml, for listings.
    pub fn granted(&self) -> &config::Grants {
        &self.granted
    }
}

fn not_granted(grant: &str) -> String {
    format!("not granted; the operator can write `grants = {{ {grant} }}` into ace.toml")
}

/// What a manifest requests and ace.toml does not grant.
pub fn missing(requested: &Requests, granted: &config::Grants, secrets: &BTreeMap<String, Secret>) -> Requests {
    let granted_prefixes: Vec<Url> = granted.http.iter().filter_map(|prefix| Url::parse(prefix).ok()).collect();
    let is_granted = |url: &str| Url::parse(url).is_ok_and(|url| granted_prefixes.iter().any(|p| covers(p, &url)));
    let lacks = |want: &BucketGrant, wanted: bool, pick: fn(&BucketGrant) -> bool| {
        wanted && !granted.keyvalue.iter().any(|g| g.bucket == want.bucket && pick(g))
    };
    let buckets = requested.keyvalue.iter().map(|want| BucketGrant {
        bucket: want.bucket.clone(),
        read: lacks(want, want.read, |g| g.read),
        write: lacks(want, want.write, |g| g.write),
    });
    Requests {
        http: requested.http.iter().filter(|url| !is_granted(url)).cloned().collect(),
        keyvalue: buckets.filter(|bucket| bucket.read || bucket.write).collect(),
        mailer: requested.mailer && !granted.mailer,
        outbox: requested.outbox && granted.outbox.is_none(),
        secrets: requested.secrets.iter().filter(|name| !secrets.contains_key(*name)).cloned().collect(),
    }
}

/// The imported interfaces whose every call is denied for lack of a grant.
pub fn ungranted(imports: &[String], granted: &config::Grants) -> Vec<String> {
    let is_granted = |import: &&String| match import.split_once('@').map_or(import.as_str(), |(path, _)| path) {
        "openedx:ace/mailer" => granted.mailer,
        "openedx:ace/outbox" => granted.outbox.is_some(),
        "openedx:ace/keyvalue" => !granted.keyvalue.is_empty(),
        "openedx:ace/http" | "wasi:http/outgoing-handler" => !granted.http.is_empty(),
        _ => true,
    };
    imports.iter().filter(|import| !is_granted(import)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_under_a_grant_is_not_missing() {
        let requested = |http: &str| Requests { http: vec![http.to_owned()], ..Default::default() };
        let granted = config::Grants { http: vec!["https://a.example/v1/".to_owned()], ..Default::default() };
        let missing = |http| missing(&requested(http), &granted, &BTreeMap::new());
        assert_eq!(missing("https://a.example/v1/send"), Requests::default());
        assert_eq!(missing("https://a.example/"), requested("https://a.example/"));
        let granted = config::Grants { http: vec!["https://*.example/".to_owned()], ..Default::default() };
        let missing = |http| super::missing(&requested(http), &granted, &BTreeMap::new());
        assert_eq!(missing("https://*.push.example/"), Requests::default());
        assert_eq!(missing("https://*/"), requested("https://*/"));
    }

    #[test]
    fn imports_that_need_a_grant_are_listed_without_one() {
        let imports = ["config@1.0.0", "keyvalue@1.0.0", "mailer@1.0.0", "outbox@1.1.0", "http@1.0.0"];
        let mut imports: Vec<String> = imports.map(|name| format!("openedx:ace/{name}")).into();
        imports.extend(["wasi:http/types@0.2.0".to_owned(), "wasi:http/outgoing-handler@0.2.0".to_owned()]);
        let listed = ungranted(&imports, &config::Grants::default());
        assert_eq!(listed, [&imports[1..5], &imports[6..]].concat());
        let entries = BucketGrant { bucket: "entries".to_owned(), read: true, write: false };
        let granted = config::Grants {
            http: vec!["https://a.example/".to_owned()],
            keyvalue: vec![entries],
            mailer: true,
            outbox: Some("out".into()),
            ..Default::default()
        };
        assert_eq!(ungranted(&imports, &granted), Vec::<String>::new());
    }
}
