//! Manifests: `NAME.toml` beside `NAME.wasm`, by the plugin's author. A manifest requests; only ace.toml grants.

use std::collections::BTreeMap;
use std::path::Path;

use super::plugins::{CALL_TIMEOUT_MAX, INSTANCES_MAX, ISOLATIONS, MEMORY_MAX, Maxima, Runtime, TIME_MAX, runtime};
use super::problem::Problems;
use super::reader::{Decoder, TableDecoder};
use super::tree::Node;
use super::{BucketGrant, is_own_name, syntax_problem, tree, urls, values};
use crate::message::Object;

/// The manifest of a plugin. A plugin without one has the default, which requests nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// One line without control characters, like the next three.
    pub version: Option<String>,
    /// One line.
    pub description: Option<String>,
    /// An SPDX expression.
    pub license: Option<String>,
    /// A URL.
    pub homepage: Option<String>,
    /// The grants that the plugin requests.
    pub requests: Requests,
    /// The author's defaults for `config`, which ace.toml overrides.
    pub defaults: Object,
    /// `[runtime]`: how it is run.
    pub runtime: Runtime,
}

/// The grants that a plugin requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// URL prefixes, as in [`super::Grants`].
    pub http: Vec<String>,
    /// Buckets.
    pub keyvalue: Vec<BucketGrant>,
    /// Sending mail.
    pub mailer: bool,
    /// Writing files into a folder, which the operator chooses.
    pub outbox: bool,
    /// The channels whose messages it reports feedback about.
    pub feedback: Vec<String>,
    /// The keys of secrets that it reads.
    pub secrets: Vec<String>,
    /// Its own names for the credentials that the host adds to its requests.
    pub credentials: Vec<String>,
}

impl Requests {
    /// One line for each request: `http:https://a.example/`, `keyvalue:facts:read`, `mailer`, `outbox`, `feedback:ses_email`,
    /// `secret:api-key`, `credential:api`.
    pub fn lines(&self) -> Vec<String> {
        let http = self.http.iter().map(|url| format!("http:{url}"));
        let accesses = self.keyvalue.iter().flat_map(|grant| {
            let read = grant.read.then(|| format!("keyvalue:{}:read", grant.bucket));
            read.into_iter().chain(grant.write.then(|| format!("keyvalue:{}:write", grant.bucket)))
        });
        let mailer = self.mailer.then(|| "mailer".to_owned());
        let outbox = self.outbox.then(|| "outbox".to_owned());
        let feedback = self.feedback.iter().map(|channel| format!("feedback:{channel}"));
        let secrets = self.secrets.iter().map(|name| format!("secret:{name}"));
        let credentials = self.credentials.iter().map(|name| format!("credential:{name}"));
        let grants = http.chain(accesses).chain(mailer).chain(outbox).chain(feedback);
        grants.chain(secrets).chain(credentials).collect()
    }
}

impl Manifest {
    /// Reads the text of a manifest. `file` is only used in problems.
    ///
    /// # Errors
    /// All problems with the manifest.
    pub fn read(text: &str, file: Option<&Path>) -> Result<Manifest, Problems> {
        let document = tree::parse(text).map_err(|e| syntax_problem(file, e))?;
        let mut decoder = Decoder::new(file.map(Path::to_owned), BTreeMap::new());
        let manifest = decoder.document(document, manifest);
        decoder.finish(manifest)
    }
}

fn manifest(s: &mut TableDecoder<'_>) -> Manifest {
    let maxima =
        Maxima { memory: MEMORY_MAX, time: TIME_MAX, call_timeout: CALL_TIMEOUT_MAX, instances: INSTANCES_MAX };
    Manifest {
        version: s.get("version", values::line),
        description: s.get("description", values::line),
        license: s.get("license", values::line),
        homepage: s.get("homepage", values::line),
        requests: s.section("requests", requests),
        defaults: s.get("defaults", values::object).unwrap_or_default(),
        runtime: s.section("runtime", |s| Runtime {
            isolation: s.get("isolation", values::one_of(&ISOLATIONS)),
            ..runtime(s, &maxima)
        }),
    }
}

/// A plugin's own name for a credential.
fn own_name(node: &Node) -> Result<String, String> {
    let name = values::line(node)?;
    if is_own_name(&name) { Ok(name) } else { Err("use up to 64 lower-case letters, digits, `-` and `_`".to_owned()) }
}

fn requests(s: &mut TableDecoder<'_>) -> Requests {
    Requests {
        http: s.list("http", urls::url_pattern).unwrap_or_default(),
        keyvalue: s.list("keyvalue", values::bucket).unwrap_or_default(),
        mailer: s.get("mailer", values::boolean).unwrap_or_default(),
        outbox: s.get("outbox", values::boolean).unwrap_or_default(),
        feedback: s.list("feedback", values::line).unwrap_or_default(),
        secrets: s.list("secrets", values::line).unwrap_or_default(),
        credentials: s.list("credentials", own_name).unwrap_or_default(),
    }
}
