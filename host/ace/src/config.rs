//! `ace.toml` and the environment, read into settings. Nothing else in the program reads either.
//!
//! Reading reports every problem at once, each with its file, line and the nearest known name; an engine never starts
//! on a configuration with a problem in it.

mod authority;
mod compiling;
mod decode;
mod environment;
pub mod event_kinds;
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
mod templates;
mod tree;
mod urls;
mod values;
mod variables;
mod writable;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use authority::{Authority, Host};
pub use compiling::{Compile, Compiler};
pub use fixed::Fixed;
pub use granting::{GrantError, granted};
pub use manifest::{Manifest, Requests};
pub use plugins::{
    BucketGrant, CacheLimits, Grants, Http, Isolation, Limits, Mode, Plugin, Runtime, Secret, SecretSource, Signatures,
};
pub use problem::{Problem, Problems};
pub use secrets::SecretError;
pub use sending::{
    Channel, Defaults, Delivery, Guarantee, Keyvalue, Login, Mailer, Presentation, Proof, Rate, Relay, RelayKind,
    Routing, Smtp, Tls,
};
pub use serving::{Events, Otlp, Queue, Server, ServerTls, Webhook};
pub use templates::{ROUTES_BYTES_MAX, Route, Routes, Tag, Templates};
pub(crate) use urls::covers;
pub use urls::shared_domain;
pub use values::{show_duration, show_size};

use ace_store::files::FileStamp;
use tree::Place;

/// The longest ace.toml.
const FILE_BYTES_MAX: usize = 4 * values::MIB;

/// A file, and how it looked.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    file: PathBuf,
    /// `None` where it could not be looked at.
    stamp: Option<FileStamp>,
}

impl Seen {
    /// As it looks now. Blocks.
    pub fn look(file: PathBuf) -> Self {
        let stamp = FileStamp::of(&file);
        Seen { file, stamp }
    }

    /// How long ago it was changed last; `None` where that is not known, or lies ahead.
    pub fn age(&self) -> Option<Duration> {
        self.stamp?.age()
    }

    /// The same file, as it looks now. Blocks.
    pub fn again(&self) -> Self {
        Seen::look(self.file.clone())
    }
}

/// Everything the operator decides. The default has every default and no plugin folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The file it was read from; relative paths in it start at its folder.
    pub file: Option<PathBuf>,
    /// How that file looked before it was read, where [`Config::load`] read it.
    pub seen: Option<Seen>,
    /// Folders of templates; the first that has a file wins.
    pub template_dirs: Vec<PathBuf>,
    /// edx-ace's ACE_ENABLED_CHANNELS: only these, in this order. `None`: every channel in the plugin folder, by name.
    pub enabled_channels: Option<Vec<String>>,
    /// edx-ace's ACE_ENABLED_POLICIES: only these, asked in this order. `None`: every policy in the plugin folder.
    pub enabled_policies: Option<Vec<String>>,
    /// `[presentation]`
    pub presentation: Presentation,
    /// What templates that were written for Django ask of their project; its routes are also those of `presentation`.
    pub templates: Templates,
    /// `[routing]`
    pub routing: Routing,
    /// `[delivery]`
    pub delivery: Delivery,
    /// How single channels are used, by name.
    pub channels: BTreeMap<String, Channel>,
    /// What ace.toml says of single plugins, by name.
    pub plugins: BTreeMap<String, Plugin>,
    /// What a reload cannot change.
    pub fixed: Fixed,
    /// Where each key stands, for problems found later; empty in a configuration made by hand.
    pub places: Places,
}

impl Config {
    /// Reads a file and this process's environment. Variables that are not UTF-8 count as not set. Blocks.
    pub fn load(file: &Path) -> Result<Config, Problems> {
        let seen = Some(Seen::look(file.to_owned()));
        let text = secrets::read_bounded(file, FILE_BYTES_MAX).map_err(|message| {
            Problems(vec![Problem { file: None, line: 0, variable: None, key: String::new(), message }])
        })?;
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Config::read(&text, Some(file), variables).map(|config| Config { seen, ..config })
    }

    /// What holds where there is no ace.toml, for the author of a plugin: every default, and compiled plugins are kept in this
    /// user's cache folder.
    pub fn without_file() -> Config {
        let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let cache_dir = caches.map(|caches| caches.join("ace/compiled"));
        Config { fixed: Fixed { cache_dir, ..Fixed::default() }, ..Config::default() }
    }

    /// Reads the text of an ace.toml with an environment laid over it. `file` is where it came from: relative paths
    /// start at its folder, without it in the working directory. Nothing is read from this process's environment, but
    /// files named in the text are looked for, and those of secrets are read. Reports every problem at once.
    pub fn read(
        text: &str,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Problems> {
        let mut document = tree::parse(text).map_err(|e| syntax_problem(file, e))?;
        let mut walk = reader::Walk::new(file.map(Path::to_owned), env.into_iter().collect());
        environment::overlay(&mut walk, &mut document);
        let mut config = walk.document(document, decode::config);
        config.file = file.map(Path::to_owned);
        config.places = std::mem::take(&mut walk.places);
        walk.finish(config)
    }

    /// A problem with a key found after reading, told where the key stands or, left out, where the nearest table around
    /// it does. `key` is a dotted path: `plugins.django_email.grants`, `enabled-channels[1]`.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let place = self.places.find(key);
        let variable = match place {
            Place::Variable(name) => Some(name.clone()),
            Place::Line(_) | Place::Nowhere => None,
        };
        let file = if variable.is_some() { None } else { self.file.clone() };
        Problem { file, line: place.line(), variable, key: key.to_owned(), message: message.into() }
    }
}

fn syntax_problem(file: Option<&Path>, error: tree::SyntaxError) -> Problems {
    let tree::SyntaxError { line, message } = error;
    let message = format!("not TOML: {message}");
    Problems(vec![Problem { file: file.map(Path::to_owned), line, variable: None, key: String::new(), message }])
}

/// Where the keys of a configuration stand, by dotted path. Two are always equal: a place is no setting.
#[derive(Clone, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    fn insert(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }

    fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The place of a key or, where it is left out, of the nearest table around it.
    fn find(&self, key: &str) -> &Place {
        let mut key = key;
        loop {
            match (self.0.get(key), key.rfind(['.', '['])) {
                (Some(place), _) => return place,
                (None, Some(end)) => key = &key[..end],
                (None, None) => return &Place::Nowhere,
            }
        }
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} keys]", self.0.len())
    }
}
