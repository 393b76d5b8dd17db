//! Decides what a plugin may access. Every import checks here.

use std::collections::BTreeMap;
use std::sync::Arc;

use cap_std::fs::Dir;
use url::Url;

use crate::config::{self, BucketGrant, Requests, covers, covers_anybody};
use ace_store::files;

/// What one plugin may access: the grants of ace.toml, opened.
pub struct Grants {
    granted: config::Grants,
    /// The names in `[credentials]`, by the plugin's own names.
    credentials: BTreeMap<String, String>,
    http: Vec<Url>,
    /// Those of `http` that name a host, or a domain that has one owner.
    named_hosts: Vec<Url>,
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
    pub(crate) fn open(settings: &config::Plugin) -> Result<Self, String> {
        let granted = &settings.grants;
        let http =
            granted.http.iter().map(|prefix| Url::parse(prefix).map_err(|e| format!("grants.http: {prefix}: {e}")));
        let http = http.collect::<Result<Vec<_>, _>>()?;
        let named_hosts = http.iter().filter(|prefix| !covers_anybody(prefix)).cloned().collect();
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
        Ok(Grants { granted: granted.clone(), credentials: settings.credentials.clone(), http, named_hosts, outbox })
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

    /// Whether a grant names the host of this URL, or a domain that has one owner. Another host is one that a recipient chose.
    pub(crate) fn names_host(&self, url: &Url) -> bool {
        self.named_hosts.iter().any(|prefix| covers(prefix, url))
    }

    /// The name in `[credentials]` of a credential of the plugin.
    pub(crate) fn credential(&self, own: &str) -> Result<&str, String> {
        let name = self.credentials.get(own).map(String::as_str);
        name.ok_or_else(|| {
            format!("the plugin has no credential {own:?}; the operator can write `credentials = {{ {own:?} = \"NAME\" }}` into ace.toml")
        })
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
pub fn missing(requested: &Requests, settings: &config::Plugin) -> Requests {
    let granted = &settings.grants;
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
        feedback: requested.feedback.iter().filter(|channel| !granted.feedback.contains(channel)).cloned().collect(),
        secrets: requested.secrets.iter().filter(|name| !settings.secrets.contains_key(*name)).cloned().collect(),
        credentials: requested
            .credentials
            .iter()
            .filter(|own| !settings.credentials.contains_key(*own))
            .cloned()
            .collect(),
    }
}

/// The imported interfaces whose every call is denied for lack of a grant.
pub fn ungranted(imports: &[String], settings: &config::Plugin) -> Vec<String> {
    let granted = &settings.grants;
    let is_granted = |import: &&String| match import.split_once('@').map_or(import.as_str(), |(path, _)| path) {
        "openedx:ace/mailer" => granted.mailer,
        "openedx:ace/outbox" => granted.outbox.is_some(),
        "openedx:ace/keyvalue" => !granted.keyvalue.is_empty(),
        "openedx:ace/http" | "wasi:http/outgoing-handler" => !granted.http.is_empty(),
        "openedx:ace/authorized-http" => !granted.http.is_empty() && !settings.credentials.is_empty(),
        _ => true,
    };
    imports.iter().filter(|import| !is_granted(import)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(grants: config::Grants) -> config::Plugin {
        config::Plugin { grants, ..Default::default() }
    }

    #[test]
    fn a_request_under_a_grant_is_not_missing() {
        let requested = |http: &str| Requests { http: vec![http.to_owned()], ..Default::default() };
        let granted = |http: &str| settings(config::Grants { http: vec![http.to_owned()], ..Default::default() });
        let prefix = granted("https://a.example/v1/");
        assert_eq!(missing(&requested("https://a.example/v1/send"), &prefix), Requests::default());
        assert_eq!(missing(&requested("https://a.example/"), &prefix), requested("https://a.example/"));
        let pattern = granted("https://*.example/");
        assert_eq!(missing(&requested("https://*.push.example/"), &pattern), Requests::default());
        assert_eq!(missing(&requested("https://*/"), &pattern), requested("https://*/"));
    }

    #[test]
    fn a_host_that_only_a_pattern_for_hosts_of_anybody_covers_is_not_named() {
        let names = |granted: &[&str], url: &str| {
            let http = granted.iter().map(|prefix| (*prefix).to_owned()).collect();
            let grants = Grants::open(&settings(config::Grants { http, ..Default::default() })).expect("opened");
            grants.names_host(&Url::parse(url).expect("a URL"))
        };
        let url = "https://api.shop.example/hooks";
        assert!(names(&["https://api.shop.example/"], url));
        assert!(names(&["https://*.shop.example/"], url));
        assert!(names(&["https://*/", "https://*.shop.example/"], url));
        assert!(!names(&["https://*/", "https://other.example/"], url));
        let shared = "https://shop.github.io/hooks";
        assert!(!names(&["https://*/", "https://*.github.io/"], shared));
        assert!(names(&["https://*.github.io/", "https://shop.github.io/"], shared));
    }

    #[test]
    fn a_credential_is_the_one_that_is_assigned_and_missing_otherwise() {
        let credentials = BTreeMap::from([("fcm".to_owned(), "brand-a".to_owned())]);
        let settings = config::Plugin { credentials, ..Default::default() };
        let requested = Requests { credentials: vec!["fcm".to_owned(), "apns".to_owned()], ..Default::default() };
        assert_eq!(missing(&requested, &settings).lines(), ["credential:apns"]);
        let grants = Grants::open(&settings).expect("opened");
        assert_eq!(grants.credential("fcm"), Ok("brand-a"));
        let why = grants.credential("brand-a").expect_err("it is not the plugin's own name");
        assert!(why.contains("credentials = { \"brand-a\" = \"NAME\" }"), "{why}");
    }

    #[test]
    fn imports_that_need_a_grant_are_listed_without_one() {
        let imports =
            ["config@1.0.0", "keyvalue@1.0.0", "mailer@1.0.0", "outbox@1.1.0", "http@1.0.0", "authorized-http@1.1.0"];
        let mut imports: Vec<String> = imports.map(|name| format!("openedx:ace/{name}")).into();
        imports.extend(["wasi:http/types@0.2.0".to_owned(), "wasi:http/outgoing-handler@0.2.0".to_owned()]);
        let listed = ungranted(&imports, &config::Plugin::default());
        assert_eq!(listed, [&imports[1..6], &imports[7..]].concat());
        let entries = BucketGrant { bucket: "entries".to_owned(), read: true, write: false };
        let granted = config::Grants {
            http: vec!["https://a.example/".to_owned()],
            keyvalue: vec![entries],
            mailer: true,
            outbox: Some("out".into()),
            ..Default::default()
        };
        let mut settings = settings(granted);
        assert_eq!(ungranted(&imports, &settings), ["openedx:ace/authorized-http@1.1.0"]);
        settings.credentials.insert("api".to_owned(), "api".to_owned());
        assert_eq!(ungranted(&imports, &settings), Vec::<String>::new());
    }
}
