//! Plugins: WebAssembly components from the plugin folder.
//!
//! - [`runtime`]: the wasmtime engine, instances and bounded calls
//! - [`loading`]: from the files of the plugin folder to plugins that can be called
//! - [`grants`]: the one place that decides what a plugin may access
//! - [`imports`]: the functions that guests can call, one file for each interface
//! - [`view`]: a plugin as listings show it
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

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{self, Isolation, Requests, Secret};
use crate::credentials::Credentials;
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

/// The version of the WIT package that this host provides.
pub const INTERFACE_VERSION: &str = "1.1.0";

/// What the host's imports work with.
pub struct Services {
    /// Relays.
    pub mailer: Arc<Mailer>,
    /// Key-value entries and counters.
    pub keyvalue: Arc<Keyvalue>,
    /// The client for outgoing requests.
    pub http: Arc<http::Client>,
    /// The credentials that the host adds to requests. A reload replaces them.
    pub credentials: Arc<ArcSwap<Credentials>>,
    /// Which relays and origins can be used now. `None` in a sandbox: their health is not tracked.
    pub destinations: Option<Arc<Destinations>>,
    /// The engine's clock, which guests are given.
    pub now: fn() -> Timestamp,
    /// `server.public-url`.
    pub public_url: Option<String>,
    /// What guests reach outside this process, or what replaces it.
    pub world: Arc<dyn World>,
}

impl Services {
    /// The current time as guests see it.
    pub fn now(&self) -> Timestamp {
        self.world.now().unwrap_or_else(self.now)
    }
}

/// The kind of a plugin, which its exports decide; edx-ace's entry-point groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// A policy.
    Policy,
    /// A channel.
    Channel,
    /// A resolver of recipients.
    RecipientResolver,
    /// A reader of what providers report.
    Feedback,
}

impl Namespace {
    /// All namespaces.
    pub const ALL: [Namespace; 4] =
        [Namespace::Policy, Namespace::Channel, Namespace::RecipientResolver, Namespace::Feedback];

    /// The interface that a plugin of this namespace exports.
    pub fn interface(self) -> &'static str {
        match self {
            Namespace::Policy => "policy",
            Namespace::Channel => "channel",
            Namespace::RecipientResolver => "recipient-resolver",
            Namespace::Feedback => "feedback",
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Namespace::Policy => "openedx.ace.policy",
            Namespace::Channel => "openedx.ace.channel",
            Namespace::RecipientResolver => "openedx.ace.recipient_resolver",
            Namespace::Feedback => "openedx.ace.feedback",
        })
    }
}

impl Serialize for Namespace {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What one plugin runs with.
pub struct Settings {
    pub name: String,
    /// A short content hash of component and manifest together.
    pub revision: String,
    /// The manifest's defaults, overridden by `config` in ace.toml.
    pub config: Object,
    pub secrets: BTreeMap<String, Secret>,
    pub limits: Limits,
}

/// The limits of one plugin.
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
    pub circuit_breaker: runtime::circuit_breaker::Limits,
}

impl Settings {
    /// A guest's text with the plugin's secrets replaced.
    pub fn redact<'a>(&'a self, text: &'a str) -> Cow<'a, str> {
        text::redact(text, self.secrets.values().map(Secret::expose))
    }

    /// A guest's text that is safe to store and show: one line, bounded, without secrets and hidden characters.
    pub fn clean(&self, text: &str) -> String {
        self.cut(text, text::TEXT_BYTES_MAX)
    }

    /// The same with at most this many bytes.
    pub fn cut(&self, text: &str, bytes_max: usize) -> String {
        // Redact a little beyond the cut, so that no part of a secret is left at the end.
        let margin = self.secrets.values().map(|secret| secret.expose().len()).max().unwrap_or(0);
        let beginning = &text[..text.floor_char_boundary(bytes_max.saturating_add(margin))];
        let mut kept = self.redact(beginning);
        if beginning.len() < text.len() {
            let end = kept.floor_char_boundary(kept.len().saturating_sub(margin));
            kept = Cow::Owned(format!("{}…", &kept[..end]));
        }
        let line = text::one_line(&kept, bytes_max);
        // Hidden characters inside a secret are removed only now.
        if !kept.is_ascii() && kept.contains(text::is_hidden) { self.redact(&line).into_owned() } else { line }
    }
}

/// What a channel's `describe` returned when the plugin was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    pub channel_type: ChannelType,
    pub template_files: Vec<TemplateFile>,
}

/// Whether a plugin is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum PluginState {
    /// It is called for messages.
    Active,
    /// ace.toml says `enabled = false`, or lists only other plugins.
    Disabled,
    /// It cannot be active, for this reason.
    Broken(String),
    /// ace.toml has settings for it, but its file is not in the plugin folder yet.
    AwaitingFile,
}

/// Files of a plugin that cannot be loaded while an earlier revision stays active. After a restart the plugin would be broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The revision of the files; empty if they could not be read.
    pub revision: String,
    /// Why they cannot be loaded.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejected { revision, reason } = self;
        let name = if revision.is_empty() { "the file" } else { revision.as_str() };
        write!(f, "{name} was rejected; after a restart the plugin would be broken: {reason}")
    }
}

/// One plugin of the folder, active or not.
#[derive(Clone)]
pub struct Plugin {
    /// The name of its file, without the extension.
    pub name: String,
    /// The component.
    pub file: PathBuf,
    /// From its manifest.
    pub version: Option<String>,
    /// From its manifest.
    pub description: Option<String>,
    /// A short content hash of component and manifest together; empty if the file could not be read.
    pub revision: String,
    /// The size of the component in bytes.
    pub size: u64,
    /// Which namespaces it exports; empty if the file could not be read.
    pub namespaces: Vec<Namespace>,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// Its settings in ace.toml.
    pub settings: config::Plugin,
    limits: config::Limits,
    stamp: loading::stamp::FileStamps,
    /// Set if the current files cannot be loaded and an earlier revision stays active.
    pub rejected: Option<Rejected>,
    /// The compiled component, if there is one; that of the earlier files if the current ones were rejected.
    code: Option<Arc<loading::loader::Code>>,
    /// What its manifest requests and ace.toml does not grant.
    pub missing: Requests,
    /// Whether it is active, and if not, why.
    pub state: PluginState,
    /// What `describe` returned, if it is a channel.
    pub channel: Option<ChannelInfo>,
    /// Why it reads no feedback although it exports `feedback` and ace.toml grants it, if so.
    pub feedback_refused: Option<String>,
    /// Set if the state is active.
    pub runtime: Option<Arc<Runtime>>,
}

impl Plugin {
    /// A plugin before its file is read.
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
            feedback_refused: None,
            runtime: None,
        }
    }

    /// Why it reads no feedback, if so.
    pub fn feedback_inactive(&self) -> Option<String> {
        match (&self.state, &self.feedback_refused) {
            (PluginState::Active, None) if self.namespaces.contains(&Namespace::Feedback) => None,
            (PluginState::Active, None) => Some("it does not export openedx:ace/feedback".to_owned()),
            (PluginState::Active, Some(why)) | (PluginState::Broken(why), _) => Some(why.clone()),
            (PluginState::Disabled, _) => Some("it is disabled".to_owned()),
            (PluginState::AwaitingFile, _) => Some("its file is not in the plugin folder yet".to_owned()),
        }
    }

    /// The imported interfaces whose every call is denied for lack of a grant.
    pub fn ungranted(&self) -> Vec<String> {
        grants::ungranted(&self.imports, &self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2-is-no-password";

    pub(super) fn settings() -> Settings {
        let circuit_breaker =
            runtime::circuit_breaker::Limits { faults: 1, window: Duration::ZERO, pause: Duration::ZERO };
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
            circuit_breaker,
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
    fn a_secret_is_redacted_despite_hidden_characters() {
        let cleaned = settings().clean("a hunter2\u{200b}-is-no-\u{202e}password\r\nb");
        assert_eq!(cleaned, "a [secret]  b");
    }

    #[test]
    fn a_short_text_is_as_the_guest_wrote_it() {
        assert_eq!(settings().clean("Zoë – 日本語"), "Zoë – 日本語");
        assert_eq!(settings().cut("abcdef", 3), "abc…");
    }
}
