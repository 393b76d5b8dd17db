//! The settings that a reload cannot change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::relays::can_still_log_in;
use super::{
    CacheLimits, Compiler, Config, Credential, Events, Feedback, Http, Keyvalue, Limits, Mailer, Otlp, Proof, Queue,
    RelayKind, Server, Shipped, Signatures, Webhook,
};

/// Settings of resources that are opened at start-up. A reload does not change them, so that the shown configuration is the one in
/// use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fixed {
    /// Folder of `*.wasm` plugins and their manifests.
    pub plugin_dir: Option<PathBuf>,
    /// Folder of compiled plugins. `None`: they are compiled at every start. [`Config::load`] sets a default.
    pub cache_dir: Option<PathBuf>,
    /// The limits of the code cache.
    pub cache: CacheLimits,
    /// `[mailer]`
    pub mailer: Mailer,
    /// `[keyvalue]`
    pub keyvalue: Keyvalue,
    /// `[queue]`
    pub queue: Queue,
    /// `[http]`
    pub http: Http,
    /// `[server]`
    pub server: Server,
    /// `[feedback]`
    pub feedback: Feedback,
    /// `[events]`
    pub events: Events,
    /// The webhooks that events are sent to, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// The collector that spans are exported to. `None`: they are not exported.
    pub otlp: Option<Otlp>,
    /// `[limits]`
    pub limits: Limits,
    /// `[compiler]`
    pub compiler: Compiler,
    /// `[plugin-signatures]`
    pub signatures: Signatures,
    /// Policies that were active before. If the file of one of them exists and cannot be loaded, the policy is broken, not absent.
    /// Not a key of ace.toml; `ace serve` stores them.
    pub enforced_before: BTreeSet<String>,
    /// Plugins and templates of the program. Not a key of ace.toml; [`Config::ship`] sets it.
    pub shipped: &'static Shipped,
}

impl Config {
    /// This configuration with the fixed settings of `running`, and the keys of ace.toml that differ and take effect only after a
    /// restart. A credential that a relay in use can no longer log in with is fixed too.
    pub(crate) fn with_fixed_of(mut self, running: &Config) -> (Config, Vec<String>) {
        let read = std::mem::replace(&mut self.fixed, running.fixed.clone());
        self.delivery.defaults = running.delivery.defaults;
        self.presentation.shipped = running.presentation.shipped;
        let differing = self.fixed.differing(read).into_iter().map(str::to_owned);
        let kept = running.fixed.mailer.outdated(&self.credentials);
        for name in &kept {
            self.credentials
                .extend(running.credentials.get(*name).map(|credential| ((*name).clone(), credential.clone())));
        }
        let kept = kept.into_iter().map(|name| format!("credentials.{name}"));
        (self, differing.chain(kept).collect())
    }
}

impl Mailer {
    /// The credentials of relays that could not log in with those of `read`: one is gone, is of an unfit kind, or has no user name where
    /// the relay has none either.
    fn outdated(&self, read: &BTreeMap<String, Credential>) -> BTreeSet<&String> {
        let logins = self.relays.values().filter_map(|relay| match &relay.kind {
            RelayKind::Smtp(smtp) => smtp.login.as_ref(),
            _ => None,
        });
        let names = logins.filter_map(|login| match &login.proof {
            Proof::Credential(name) if !can_still_log_in(login, name, read.get(name)) => Some(name),
            _ => None,
        });
        names.collect()
    }
}

impl Fixed {
    /// The keys of ace.toml whose settings differ in `read`.
    fn differing(&self, read: Fixed) -> Vec<&'static str> {
        // Lists every field, so that the compiler reports a new one.
        let Fixed {
            plugin_dir,
            cache_dir,
            cache,
            mailer,
            keyvalue,
            queue,
            http,
            server,
            feedback,
            events,
            webhooks,
            otlp,
            limits,
            compiler,
            signatures,
            enforced_before: _,
            shipped: _,
        } = read;
        // Not a key of ace.toml.
        let compiler = Compiler { compile: self.compiler.compile.clone(), ..compiler };
        let keys = [
            ("plugin-dir", self.plugin_dir != plugin_dir),
            ("cache-dir", self.cache_dir != cache_dir),
            ("cache-max-size and cache-max-age", self.cache != cache),
            ("compiler", self.compiler != compiler),
            ("mailer and relays", self.mailer != mailer),
            ("keyvalue", self.keyvalue != keyvalue),
            ("http", self.http != http),
            ("server", self.server != server),
            ("feedback", self.feedback != feedback),
            ("queue", self.queue != queue),
            ("events", self.events != events),
            ("webhooks", self.webhooks != webhooks),
            ("otlp", self.otlp != otlp),
            ("plugin-signatures", self.signatures != signatures),
            ("limits", self.limits != limits),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
