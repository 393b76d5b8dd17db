//! The plugin runtime: components from a folder, each bounded, granted and isolated.
//!
//! - [`runtime`]: the wasmtime engine, instances and bounded calls
//! - [`loading`]: from the files of the plugin folder to plugins that can be called
//! - [`view`]: a plugin as listings show it
//! - [`grants`]: the one place that decides what a plugin may reach
//! - [`imports`]: what a guest may call, one file for each interface
//! - [`authoring`]: one plugin by itself, for its author
//!
//! The host never trusts a guest: every call has a deadline, a memory limit and an output limit.

pub(crate) mod authoring;
pub mod grants;
mod imports;
pub(crate) mod loading;
pub(crate) mod runtime;
mod view;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{self, Isolation, Requests, Secret};
use crate::destination::Destinations;
use crate::mailer::Mailer;
use crate::message::{ChannelType, Object, TemplateFile, text};
use ace_store::keyvalue::Keyvalue;

pub use authoring::sandbox::Sandbox;
pub use authoring::standalone::StandaloneHost;
pub use imports::http;
pub(crate) use loading::registry::Registry;
pub(crate) use loading::versions::is_enforced;
pub use runtime::engine::Engine;
pub use runtime::instance::Runtime;
pub use runtime::world::World;
pub use view::PluginView;

/// The version of the WIT package this host serves.
pub const INTERFACE_VERSION: &str = "1.1.0";

/// What the host serves its guests with.
pub struct Services {
    /// Relays.
    pub mailer: Arc<Mailer>,
    /// Entries and counters.
    pub keyvalue: Arc<Keyvalue>,
    /// The client for outgoing requests.
    pub http: Arc<http::Client>,
    /// Which relays and origins can be used now. `None`: nothing is remembered of them, as where an author tries a plugin.
    pub destinations: Option<Arc<Destinations>>,
    /// The time of day that guests are told: the engine's own.
    pub now: fn() -> Timestamp,
    /// What stands between guests and the world.
    pub world: Arc<dyn World>,
}

impl Services {
    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.world.now().unwrap_or_else(self.now)
    }
}

/// What a plugin is by what it exports; edx-ace's entry-point groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// A policy.
    Policy,
    /// A channel.
    Channel,
    /// A resolver of recipients.
    RecipientResolver,
}

impl Namespace {
    /// Each of them.
    pub const ALL: [Namespace; 3] = [Namespace::Policy, Namespace::Channel, Namespace::RecipientResolver];

    /// The interface whose export makes it so.
    pub fn interface(self) -> &'static str {
        match self {
            Namespace::Policy => "policy",
            Namespace::Channel => "channel",
            Namespace::RecipientResolver => "recipient-resolver",
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Namespace::Policy => "openedx.ace.policy",
            Namespace::Channel => "openedx.ace.channel",
            Namespace::RecipientResolver => "openedx.ace.recipient_resolver",
        })
    }
}

impl Serialize for Namespace {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Everything that is settled for one plugin before it runs.
pub struct Settings {
    pub name: String,
    /// A short content hash of component and manifest together.
    pub revision: String,
    /// The manifest's defaults with ace.toml's config laid over them.
    pub config: Object,
    pub secrets: BTreeMap<String, Secret>,
    pub limits: Limits,
}

/// The bounds of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub memory: usize,
    pub time: Duration,
    pub call_timeout: Duration,
    pub instances: usize,
    pub isolation: Isolation,
    pub calls_per_instance: u32,
    pub output_bytes: usize,
    pub log_bytes: usize,
    pub host_calls: usize,
    pub circuit: runtime::circuit_breaker::Limits,
}

impl Settings {
    /// A guest's text without the plugin's secrets.
    pub fn redact<'a>(&'a self, text: &'a str) -> Cow<'a, str> {
        text::redact(text, self.secrets.values().map(Secret::expose))
    }

    /// A guest's text as it may be kept and shown: no secrets, one line, not long, nothing hidden in it.
    pub fn clean(&self, text: &str) -> String {
        self.cut(text, text::TEXT_BYTES_MAX)
    }

    /// The same, with this many bytes at most.
    pub fn cut(&self, text: &str, bytes_max: usize) -> String {
        // Little of what is cut off is looked at, and no part of a secret is left where it is cut.
        let margin = self.secrets.values().map(|secret| secret.expose().len()).max().unwrap_or(0);
        let beginning = &text[..text.floor_char_boundary(bytes_max.saturating_add(margin))];
        let mut kept = self.redact(beginning);
        if beginning.len() < text.len() {
            let end = kept.floor_char_boundary(kept.len().saturating_sub(margin));
            kept = Cow::Owned(format!("{}…", &kept[..end]));
        }
        let line = text::one_line(&kept, bytes_max);
        // What was hidden in a secret is gone now.
        if !kept.is_ascii() && kept.contains(text::is_hidden) { self.redact(&line).into_owned() } else { line }
    }
}

/// What a channel says of itself when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    pub channel_type: ChannelType,
    pub template_files: Vec<TemplateFile>,
}

/// Whether a plugin serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum PluginState {
    /// It is used.
    Active,
    /// ace.toml says `enabled = false`, or lists others only.
    Disabled,
    /// It should serve and cannot.
    Broken(String),
    /// ace.toml has settings for it, and the plugin folder does not have its file yet.
    AwaitingFile,
}

/// Files of a plugin that cannot serve, while an earlier revision goes on. At the next start there is no earlier one: the plugin
/// would be broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Of the files; empty where they could not be read.
    pub revision: String,
    /// Why they cannot serve.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejected { revision, reason } = self;
        let name = if revision.is_empty() { "what is in the plugin folder" } else { revision.as_str() };
        write!(f, "{name} was refused, and at the next start the plugin would be broken: {reason}")
    }
}

/// One plugin of the folder, whether it serves or not.
#[derive(Clone)]
pub struct Plugin {
    /// Its name: that of its file.
    pub name: String,
    /// The component.
    pub file: PathBuf,
    /// As its manifest says.
    pub version: Option<String>,
    /// As its manifest says.
    pub description: Option<String>,
    /// A short content hash of component and manifest together; empty where the file could not be read.
    pub revision: String,
    /// Bytes of the component.
    pub size: u64,
    /// What it exports, as far as the file could be read.
    pub namespaces: Vec<Namespace>,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// What ace.toml says of it.
    pub settings: config::Plugin,
    limits: config::Limits,
    stamp: loading::stamp::FileStamps,
    /// The files that are there now, where they cannot serve and an earlier revision goes on instead.
    pub rejected: Option<Rejected>,
    /// What was made of its files, where that could be done; of the files before, where those of now were refused.
    code: Option<Arc<loading::loader::Code>>,
    /// What it requests and is not granted.
    pub missing: Requests,
    /// Whether it is used, and if not why.
    pub state: PluginState,
    /// What it says of itself, if it is a channel.
    pub channel: Option<ChannelInfo>,
    /// Present where the state is active.
    pub runtime: Option<Arc<Runtime>>,
}

impl Plugin {
    /// A plugin of which nothing is known but its file and what ace.toml says.
    fn unread(name: String, file: PathBuf, settings: config::Plugin, limits: config::Limits) -> Self {
        Plugin {
            name,
            file,
            version: None,
            description: None,
            revision: String::new(),
            size: 0,
            namespaces: Vec::new(),
            imports: Vec::new(),
            settings,
            limits,
            stamp: loading::stamp::FileStamps::default(),
            rejected: None,
            code: None,
            missing: Requests::default(),
            state: PluginState::Disabled,
            channel: None,
            runtime: None,
        }
    }

    /// The interfaces it imports that answer nothing but "not granted".
    pub fn ungranted(&self) -> Vec<String> {
        grants::ungranted(&self.imports, &self.settings.grants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2-is-no-password";

    fn settings() -> Settings {
        let circuit = runtime::circuit_breaker::Limits { faults: 1, window: Duration::ZERO, pause: Duration::ZERO };
        let limits = Limits {
            memory: 0,
            time: Duration::ZERO,
            call_timeout: Duration::ZERO,
            instances: 1,
            isolation: Isolation::Pooled,
            calls_per_instance: 1,
            output_bytes: 0,
            log_bytes: 0,
            host_calls: 0,
            circuit,
        };
        let secrets = BTreeMap::from([("token".to_owned(), Secret::new(SECRET))]);
        Settings { name: "p".to_owned(), revision: String::new(), config: Object::new(), secrets, limits }
    }

    #[test]
    fn no_part_of_a_secret_is_left_wherever_a_text_is_cut() {
        let settings = settings();
        for before in 950..1_030 {
            for text in ["x".repeat(before) + SECRET, SECRET.repeat(40) + &"x".repeat(before - 900) + SECRET] {
                let text = text + &"y".repeat(before % 60);
                let cleaned = settings.clean(&text);
                assert!(!cleaned.contains("hu"), "{before}: {cleaned}");
                assert!(cleaned.len() <= text::TEXT_BYTES_MAX + '…'.len_utf8(), "{before}");
            }
        }
    }

    #[test]
    fn a_secret_with_something_hidden_in_it_is_one_all_the_same() {
        let cleaned = settings().clean("a hunter2\u{200b}-is-no-\u{202e}password\r\nb");
        assert_eq!(cleaned, "a [secret]  b");
    }

    #[test]
    fn a_short_text_is_as_the_guest_wrote_it() {
        assert_eq!(settings().clean("Zoë – 日本語"), "Zoë – 日本語");
        assert_eq!(settings().cut("abcdef", 3), "abc…");
    }
}
