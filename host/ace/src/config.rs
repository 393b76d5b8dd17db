//! Reads settings from `ace.toml` and the environment. Nothing else in the program reads either.
//!
//! All problems are reported together, each with its file, line and the nearest known name. An engine never starts with a
//! configuration that has problems.

mod authority;
mod brand;
mod compiling;
pub(crate) mod credentials;
mod decode;
mod dkim;
mod environment;
pub mod event_kinds;
mod fallback;
mod feedback;
mod fixed;
mod granting;
mod manifest;
mod names;
mod plugins;
mod problem;
mod reader;
mod relays;
mod secrets;
mod sending;
mod serving;
mod shipped;
mod templates;
mod tree;
mod urls;
mod values;
mod variables;
mod writable;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use authority::{Authority, Host};
pub use brand::{Brand, Color};
pub use compiling::{Compile, Compiler};
pub use credentials::{
    Apns, AwsSigv4, ClientAuthentication, Credential, CredentialKind, Hmac, HmacAlgorithm, KeyDerivation, KeyEncoding,
    Oauth2, SignatureEncoding, SignedPart, is_own_name,
};
pub use dkim::Dkim;
pub(crate) use dkim::dkim_key;
pub(crate) use fallback::chains_before;
pub use feedback::Feedback;
pub use fixed::Fixed;
pub use granting::{GrantError, granted};
pub use manifest::{Manifest, Requests};
pub use plugins::{
    BucketGrant, CacheLimits, Grants, Http, Isolation, Limits, Mode, Plugin, Runtime, Secret, SecretSource, Signatures,
};
pub use problem::{Problem, Problems};
pub(crate) use relays::{PATH_TOKEN, SAMPLE_TOKEN, return_path_key};
pub use secrets::SecretError;
pub use sending::{
    Channel, Defaults, Delivery, Guarantee, Keyvalue, Login, Mailer, Presentation, Proof, Rate, Relay, RelayKind,
    Routing, Smtp, Tls,
};
pub use serving::{Events, Otlp, Queue, Server, ServerTls, Webhook};
pub use shipped::{Shipped, ShippedFile, ShippedPlugin};
pub use templates::{ROUTES_BYTES_MAX, Route, Routes, Tag, Templates};
pub use urls::shared_domain;
pub(crate) use urls::{covers, covers_anybody};
pub use values::{show_duration, show_size};

use ace_store::files::FileStamp;
use tree::Source;

/// The longest ace.toml.
const FILE_BYTES_MAX: usize = 4 * values::MIB;

/// The state of a file, which shows whether it has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct FileState {
    file: PathBuf,
    /// `None` if the file cannot be inspected.
    stamp: Option<FileStamp>,
}

impl FileState {
    /// The current state of a file. Blocks.
    pub fn read(file: PathBuf) -> Self {
        let stamp = FileStamp::of(&file);
        FileState { file, stamp }
    }

    /// The time since the last change; `None` if that is unknown or in the future.
    pub fn age(&self) -> Option<Duration> {
        self.stamp?.age()
    }

    /// The current state of the same file. Blocks.
    pub fn refresh(&self) -> Self {
        FileState::read(self.file.clone())
    }
}

/// All settings. The default value has every default, and no plugin folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The file that it was read from. Relative paths start at its folder.
    pub file: Option<PathBuf>,
    /// The state of that file before [`Config::load`] read it.
    pub file_state: Option<FileState>,
    /// Folders of templates. The first folder with a file wins.
    pub template_dirs: Vec<PathBuf>,
    /// edx-ace's ACE_ENABLED_CHANNELS: only these channels, in this order. `None`: all channels in the plugin folder, by name.
    pub enabled_channels: Option<Vec<String>>,
    /// edx-ace's ACE_ENABLED_POLICIES: only these policies, in this order. `None`: all policies in the plugin folder.
    pub enabled_policies: Option<Vec<String>>,
    /// `[presentation]`
    pub presentation: Presentation,
    /// What templates from Django need of their project. Its routes are also those of `presentation`.
    pub templates: Templates,
    /// `[routing]`
    pub routing: Routing,
    /// `[delivery]`
    pub delivery: Delivery,
    /// Settings of channels, by name.
    pub channels: BTreeMap<String, Channel>,
    /// Settings of plugins, by name.
    pub plugins: BTreeMap<String, Plugin>,
    /// Credentials that the host adds to requests of plugins, by name.
    pub credentials: BTreeMap<String, Credential>,
    /// Settings that a reload cannot change.
    pub fixed: Fixed,
    /// The source of each key, for problems that are found later. Empty in a configuration that was not read from a file.
    pub spans: SourceSpans,
}

impl Config {
    /// Reads a file and the environment of this process. Variables that are not UTF-8 count as not set. Blocks.
    ///
    /// # Errors
    /// All problems with the configuration.
    pub fn load(file: &Path) -> Result<Config, Problems> {
        let file_state = Some(FileState::read(file.to_owned()));
        let text = secrets::read_bounded(file, FILE_BYTES_MAX).map_err(|message| {
            Problems(vec![Problem { file: None, line: 0, variable: None, key: String::new(), message }])
        })?;
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut config = Config::read(&text, Some(file), variables)?;
        config.file_state = file_state;
        config.fixed.cache_dir = config.fixed.cache_dir.or_else(|| Some(default_cache_dir()));
        Ok(config)
    }

    /// The configuration without an ace.toml, for plugin authors: every default.
    pub fn without_file() -> Config {
        Config { fixed: Fixed { cache_dir: Some(default_cache_dir()), ..Fixed::default() }, ..Config::default() }
    }

    /// Reads the text of an ace.toml, overridden by an environment. Relative paths start at the folder of `file`, or at the working
    /// directory. The environment of this process is not read, but files in the text must exist, and files of secrets are read.
    ///
    /// # Errors
    /// All problems with the configuration.
    pub fn read(
        text: &str,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Problems> {
        let mut document = tree::parse(text).map_err(|e| syntax_problem(file, e))?;
        let mut decoder = reader::Decoder::new(file.map(Path::to_owned), env.into_iter().collect());
        environment::override_with(&mut decoder, &mut document);
        let mut config = decoder.document(document, decode::config);
        config.file = file.map(Path::to_owned);
        config.spans = std::mem::take(&mut decoder.spans);
        decoder.finish(config)
    }

    /// A problem with a key that is found after reading. It is reported at the key, or if that is absent, at the nearest table around
    /// it. `key` is a dotted path: `plugins.django_email.grants`, `enabled-channels[1]`.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let source = self.spans.find(key);
        let variable = match source {
            Source::Variable(name) => Some(name.clone()),
            Source::Line(_) | Source::Unknown => None,
        };
        let file = if variable.is_some() { None } else { self.file.clone() };
        Problem { file, line: source.line(), variable, key: key.to_owned(), message: message.into() }
    }
}

/// Where compiled plugins are stored if ace.toml does not say it.
fn default_cache_dir() -> PathBuf {
    cache_dir_of(|variable| std::env::var_os(variable))
}

/// systemd's folder of the service, otherwise the user's, otherwise the system's. systemd separates several folders by colons.
fn cache_dir_of(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name: &str| {
        let value = variable(name)?;
        std::env::split_paths(&value).next().filter(|path| path.is_absolute())
    };
    let users = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache"))).map(|dir| dir.join("ace"));
    folder("CACHE_DIRECTORY").or_else(users).unwrap_or_else(|| PathBuf::from("/var/cache/ace"))
}

fn syntax_problem(file: Option<&Path>, error: tree::SyntaxError) -> Problems {
    let tree::SyntaxError { line, message } = error;
    let message = format!("not TOML: {message}");
    Problems(vec![Problem { file: file.map(Path::to_owned), line, variable: None, key: String::new(), message }])
}

/// The sources of all keys of a configuration, by dotted path. Two values are always equal, because a source is not a setting.
#[derive(Clone, Default)]
pub struct SourceSpans(BTreeMap<String, Source>);

impl SourceSpans {
    fn insert(&mut self, key: String, source: Source) {
        self.0.insert(key, source);
    }

    fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The source of a key, or if it is absent, of the nearest table around it.
    fn find(&self, key: &str) -> &Source {
        let mut key = key;
        loop {
            match (self.0.get(key), key.rfind(['.', '['])) {
                (Some(source), _) => return source,
                (None, Some(end)) => key = &key[..end],
                (None, None) => return &Source::Unknown,
            }
        }
    }
}

impl PartialEq for SourceSpans {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for SourceSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} keys]", self.0.len())
    }
}
