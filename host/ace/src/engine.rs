//! The engine: everything that decides and sends, built from one configuration and built anew by a reload. It keeps nothing of a
//! message; `app` puts the queue, the workers and the HTTP server around it.

pub mod preview;
mod reload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::channel::limiter::{ChannelLimiters, channel_limiters};
use crate::channel::{Channel, ChannelMap, Limit, UnknownChannel, WasmChannel};
pub(crate) use crate::config::Seen;
use crate::config::{Compile, Config, Mode, Problem, Problems};
use crate::destination::Destinations;
use crate::mailer::{Mailer, MailerError};
use crate::message::{self, Message, OnError, Report};
use crate::monitoring;
use crate::pipeline::{InFlight, Snapshot};
use crate::plugin::loading::registry::RegistryError;
use crate::plugin::runtime::world;
use crate::plugin::{self, Namespace, Plugin, PluginState, Registry, Services, http};
use crate::policy::shadow::ShadowLog;
use crate::policy::{BrokenPolicy, Policy, PolicyEntry, Shadow, WasmPolicy};
use crate::presentation::Presentation;
use crate::retry;
use crate::tasks::{self, Panicked};
use ace_store::keyvalue::{self, Keyvalue};
use reload::NOTICES_MAX;
pub use reload::{Notice, Reload};

/// The translatable texts of templates.
pub mod texts {
    pub use crate::presentation::{ExtractError, Extracted, extract};
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum StartError {
    /// Everything that is wrong with the configuration.
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Plugins(#[from] RegistryError),
    #[error(transparent)]
    Mailer(#[from] MailerError),
    #[error(transparent)]
    Facts(#[from] keyvalue::FileError),
    #[error(transparent)]
    Http(#[from] http::ClientError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A running engine.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use ace::{Ace, Config, Message, Recipient};
///
/// let ace = Ace::builder(Config::load("ace.toml".as_ref())?).start().await?;
/// let mut message = Message::new("ace_demo", "passwordreset", Some(Recipient::new(7, "zoe@example.com")));
/// message.context.insert("reset_link", "https://example.com/reset");
/// let report = ace.send(message, &[]).await?;
/// println!("{report:?}");
/// # Ok(()) }
/// ```
pub struct Ace {
    current: ArcSwap<Running>,
    own: Own,
    services: Arc<Services>,
    /// As applications write to it.
    keyvalue: Arc<Keyvalue>,
    destinations: Arc<Destinations>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// Why the last reload changed nothing.
    refused: ArcSwapOption<String>,
    notices: broadcast::Sender<Notice>,
}

/// What the application registered itself, and no reload changes.
struct Own {
    policies: Vec<Registered>,
    channels: Vec<Arc<dyn Channel>>,
    now: fn() -> Timestamp,
    jitter: fn() -> f64,
}

/// What a start or a reload has read.
struct Parts {
    config: Config,
    registry: Registry,
    presentation: Arc<Presentation>,
}

/// What is replaced as one by a reload.
struct Running {
    config: Config,
    /// What ace.toml says otherwise by now, and a reload cannot change.
    needs_restart: Vec<&'static str>,
    registry: Arc<Registry>,
    snapshot: Arc<Snapshot>,
}

/// What an application lays down before the engine starts.
pub struct Builder {
    config: Config,
    own: Own,
}

/// A policy with its place in the order.
#[derive(Clone)]
struct Registered {
    order: i64,
    is_plugin: bool,
    entry: PolicyEntry,
}

impl Builder {
    /// Registers a policy of the application's own beside the plugins. Policies are asked by `order` (plugins have 100
    /// unless ace.toml says otherwise), then by name.
    pub fn policy(mut self, policy: impl Policy + 'static, order: i64, on_error: OnError) -> Self {
        let entry = PolicyEntry::enforced(Arc::new(policy), on_error);
        self.own.policies.push(Registered { order, is_plugin: false, entry });
        self
    }

    /// Registers a channel of the application's own; it stands before the plugins of its type.
    pub fn channel(mut self, channel: impl Channel + 'static) -> Self {
        self.own.channels.push(Arc::new(channel));
        self
    }

    /// Replaces the clock, which the plugins are told as well, and the source of jitter.
    pub fn clock(mut self, now: fn() -> Timestamp, jitter: fn() -> f64) -> Self {
        (self.own.now, self.own.jitter) = (now, jitter);
        self
    }

    /// Where plugins are read and compiled: in this process unless this says otherwise. The process in which plugins from
    /// anybody are loaded should name a [`Compile::Command`].
    pub fn compiler(mut self, compile: Compile) -> Self {
        self.config.fixed.compiler.compile = compile;
        self
    }

    /// Reads plugins, templates and facts, and checks the configuration against them.
    pub async fn start(self) -> Result<Ace, StartError> {
        let Builder { config, own } = self;
        let Survey { registry, presentation, services, keyvalue, destinations } = survey(&config, own.now).await?;
        reload::log_problems(&presentation, "what is wrong is not used");
        let first =
            own.running(Parts { config, registry, presentation: Arc::new(presentation) }, &destinations, None)?;
        let current = ArcSwap::from_pointee(first);
        let (reloading, refused) = (tokio::sync::Mutex::new(()), ArcSwapOption::empty());
        let notices = broadcast::Sender::new(NOTICES_MAX);
        Ok(Ace { current, own, services, keyvalue, destinations, reloading, refused, notices })
    }
}

/// What a configuration leads to, before it is put to work.
pub struct Survey {
    /// The plugins.
    pub registry: Registry,
    /// The templates.
    pub presentation: Presentation,
    services: Arc<Services>,
    /// As applications write to it.
    keyvalue: Arc<Keyvalue>,
    destinations: Arc<Destinations>,
}

impl Survey {
    /// Names in the configuration that nothing is called by.
    pub fn unknown_names(&self, config: &Config) -> Vec<Problem> {
        check_names(config, &self.registry, &Own::default(), false)
    }
}

/// Reads what the configuration points to: relays, facts, templates, plugins.
pub async fn survey(config: &Config, now: fn() -> Timestamp) -> Result<Survey, StartError> {
    let (settings, http) = (config.clone(), config.fixed.http.clone());
    let http = tasks::blocking(move || http::Client::new(&http));
    let opened = tasks::blocking(move || {
        let mailer = Mailer::new(&settings.fixed.mailer)?;
        let keyvalue = Keyvalue::load(&settings.fixed.keyvalue.store(), now())?;
        Ok::<_, StartError>((mailer, keyvalue, Presentation::load(&settings.template_dirs, &settings.presentation)))
    });
    let (opened, http) = tokio::join!(opened, http);
    let ((mailer, keyvalue, presentation), http) = (opened??, http??);
    let (mailer, http, for_plugins) = (Arc::new(mailer), Arc::new(http), Arc::new(keyvalue.for_plugins()));
    let destinations = Destinations::new(&config.delivery, fastrand::f64);
    let served = Some(destinations.clone());
    let services =
        Services { mailer, keyvalue: for_plugins, http, destinations: served, now, world: Arc::new(world::RealWorld) };
    let services = Arc::new(services);
    let registry = match &config.fixed.plugin_dir {
        Some(dir) => Registry::load(config, dir, services.clone()).await?,
        None => Registry::empty(),
    };
    Ok(Survey { registry, presentation, services, keyvalue: Arc::new(keyvalue), destinations })
}

impl Ace {
    /// Lays down an engine with these settings.
    pub fn builder(config: Config) -> Builder {
        Builder { config, own: Own::default() }
    }

    /// Sends a message, and returns what became of it once every channel type is settled. Between attempts it sleeps: for as long as
    /// the message's delivery window is open this may take hours. `limit_to_channels` holds channel types or channel names; empty
    /// limits nothing. Nothing is kept outside this call: dropped between two attempts, the message is not tried again.
    ///
    /// # Errors
    /// A name in `limit_to_channels` is unknown; nothing was sent.
    pub async fn send(&self, message: Message, limit_to_channels: &[String]) -> Result<Report, UnknownChannel> {
        let mut flight = self.prepare(message, limit_to_channels)?;
        flight.advance().await;
        while let Some(due) = flight.due() {
            let pause = due.duration_since(self.now());
            tokio::time::sleep(pause.try_into().unwrap_or_default()).await;
            flight.use_snapshot(self.snapshot());
            flight.advance().await;
        }
        Ok(flight.into_report())
    }

    /// Prepares a message that the caller drives: nothing happens before the first [`InFlight::advance`]. `limit_to_channels` is that
    /// of [`Ace::send`].
    ///
    /// # Errors
    /// A name in `limit_to_channels` is unknown.
    pub fn prepare(&self, message: Message, limit_to_channels: &[String]) -> Result<InFlight, UnknownChannel> {
        let limit = self.limit(limit_to_channels)?;
        Ok(InFlight::new(self.snapshot(), Arc::new(message), limit, false))
    }

    /// Channel types or channel names as a limit.
    ///
    /// # Errors
    /// A name is unknown; the error names the nearest.
    pub fn limit(&self, limit_to_channels: &[String]) -> Result<Limit, UnknownChannel> {
        Limit::new(limit_to_channels, &self.snapshot().channels)
    }

    /// Everything short of the delivery: verdicts, channels and rules, templates, rendered results. Changes nothing.
    ///
    /// # Errors
    /// A name in `limit_to_channels` is unknown.
    pub async fn explain(&self, message: Message, limit_to_channels: &[String]) -> Result<Report, UnknownChannel> {
        let limit = self.limit(limit_to_channels)?;
        let mut flight = InFlight::new(self.snapshot(), Arc::new(message), limit, true);
        flight.advance().await;
        Ok(flight.into_report())
    }

    /// What the next sends look at.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load().snapshot.clone()
    }

    /// The plugins as they are now.
    pub fn registry(&self) -> Arc<Registry> {
        self.current.load().registry.clone()
    }

    /// The facts and counters.
    pub fn keyvalue(&self) -> &Arc<Keyvalue> {
        &self.keyvalue
    }

    /// Which relays and origins can be used now.
    pub fn destinations(&self) -> &Arc<Destinations> {
        &self.destinations
    }

    /// When to try again what has failed so many times in a row.
    pub fn retry_at(&self, failures: u32) -> Timestamp {
        let pause = retry::pause(failures, &self.snapshot().delivery, (self.own.jitter)());
        self.now().checked_add(pause).unwrap_or(Timestamp::MAX)
    }

    /// What time it is for this engine.
    pub fn now(&self) -> Timestamp {
        (self.own.now)()
    }

    /// The policies that serve and are obeyed, and those that must not fail open.
    pub fn enforced_policies(&self) -> BTreeSet<String> {
        let snapshot = self.snapshot();
        let enforced = snapshot.policies.iter().filter(|entry| entry.shadow.is_none());
        enforced.map(|entry| entry.policy.name().to_owned()).collect()
    }

    /// Where changes are to be looked for: the configuration's file, the plugin folder, the template folders.
    pub fn watched(&self) -> Watched {
        let current = self.current.load();
        let config = &current.config;
        Watched {
            config: config.seen.clone().or_else(|| config.file.clone().map(Seen::look)),
            plugins: config.fixed.plugin_dir.clone(),
            templates: config.template_dirs.clone(),
        }
    }

    /// Completes when a part of it has ended that cannot be started again, with what that is. That takes a bug.
    pub async fn ended(&self) -> &'static str {
        let registry = self.registry();
        tokio::select! {
            () = registry.ended() => "the clock that bounds the time of plugins",
            () = self.services.keyvalue.ended() => "the thread that writes the key-value store",
        }
    }

    /// Closes what is open: idle connections to relays.
    pub async fn close(&self) {
        self.services.mailer.close().await;
    }
}

impl Default for Own {
    fn default() -> Self {
        Own { policies: Vec::new(), channels: Vec::new(), now: Timestamp::now, jitter: fastrand::f64 }
    }
}

impl Own {
    /// What a configuration, its plugins and templates come to beside what the application registered; an error where a
    /// name in the configuration is nobody's. Quotas and comparisons go on counting from `before`.
    fn running(
        &self,
        parts: Parts,
        destinations: &Arc<Destinations>,
        before: Option<&Snapshot>,
    ) -> Result<Running, StartError> {
        let Parts { config, registry, presentation } = parts;
        let problems = check_names(&config, &registry, self, before.is_some());
        if !problems.is_empty() {
            return Err(Problems(problems).into());
        }
        let channels = self.channels.iter().cloned().chain(wasm_channels(&config, &registry));
        let channels = ChannelMap::new(channels);
        let names = channels.iter().map(|channel| channel.name());
        let limiters = channel_limiters(
            names,
            &config.channels,
            before.map_or(&ChannelLimiters::new(), |before| &before.limiters),
        );
        let snapshot = Snapshot {
            policies: policy_entries(
                &config,
                &registry,
                self.policies.clone(),
                before.map_or(&[], |before| &before.policies),
            ),
            channels,
            presentation,
            routing: config.routing.clone(),
            delivery: config.delivery.clone(),
            limiters,
            destinations: destinations.clone(),
            now: self.now,
            jitter: self.jitter,
        };
        let is_to_serve = |plugin: &&Arc<Plugin>| matches!(plugin.state, PluginState::Active | PluginState::Broken(_));
        let serving = registry.plugins.values().filter(is_to_serve);
        monitoring::set_active_plugins(serving.clone().map(|p| (p.name.clone(), p.revision.clone())).collect());
        for plugin in serving {
            monitoring::plugin_up(&plugin.name, plugin.state == PluginState::Active);
            monitoring::plugin_is_behind(&plugin.name, plugin.rejected.is_some());
        }
        Ok(Running { config, needs_restart: Vec::new(), registry: Arc::new(registry), snapshot: Arc::new(snapshot) })
    }
}

/// Where changes are to be looked for.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// As it was when it was read: what has changed since is a change.
    pub config: Option<Seen>,
    pub plugins: Option<PathBuf>,
    pub templates: Vec<PathBuf>,
}

/// Every name in the configuration must be that of something that exists; on a reload, a plugin's settings may come before its file.
/// Not so at a start: a policy whose file is missing then would let everything pass.
fn check_names(config: &Config, registry: &Registry, own: &Own, is_reload: bool) -> Vec<Problem> {
    let mut types: BTreeMap<String, String> =
        registry.channels().map(|(p, info)| (p.name.clone(), info.channel_type.clone())).collect();
    types.extend(own.channels.iter().map(|c| (c.name().to_owned(), c.channel_type().to_owned())));
    let is_policy = |p: &&Arc<Plugin>| p.namespaces.contains(&Namespace::Policy);
    let mut names: Vec<String> = registry.plugins.values().filter(is_policy).map(|p| p.name.clone()).collect();
    names.extend(own.policies.iter().map(|p| p.entry.policy.name().to_owned()));
    let (awaited, present): (Vec<_>, Vec<_>) =
        registry.plugins.values().partition(|plugin| plugin.state == PluginState::AwaitingFile);
    let present: Vec<&str> = present.iter().map(|plugin| plugin.name.as_str()).collect();
    let may_come = |plugin: &&&Arc<Plugin>| is_reload && !message::is_misspelt(&plugin.name, present.iter().copied());
    let awaited = awaited.iter().filter(may_come).map(|plugin| &plugin.name);
    let loading = registry.loading.iter().chain(awaited).cloned();
    let all: Vec<String> = present.iter().map(|name| (*name).to_owned()).chain(loading).collect();
    config.check_names(&types, &names, &all)
}

/// The policies in the order they are asked: by their `order`, then as `enabled-policies` lists them, then by name.
/// A policy in shadow that is the same as `before` goes on counting.
fn policy_entries(
    config: &Config,
    registry: &Registry,
    registered: Vec<Registered>,
    before: &[PolicyEntry],
) -> Vec<PolicyEntry> {
    let mut all = registered;
    for plugin in registry.plugins.values() {
        let settings = config.plugins.get(&plugin.name).cloned().unwrap_or_default();
        let policy: Arc<dyn Policy> = match (&plugin.state, &plugin.runtime) {
            (PluginState::Active, Some(runtime)) if plugin.namespaces.contains(&Namespace::Policy) => {
                Arc::new(WasmPolicy(runtime.clone()))
            }
            (PluginState::Broken(reason), _) if plugin::is_enforced(plugin, config) => {
                Arc::new(BrokenPolicy { name: plugin.name.clone(), reason: reason.clone() })
            }
            _ => continue,
        };
        let shadow = (settings.mode == Mode::Shadow)
            .then(|| Shadow { of: settings.shadow_of.clone(), log: shadow_log(policy.as_ref(), before) });
        let entry = PolicyEntry { policy, on_error: settings.on_error, shadow };
        all.push(Registered { order: settings.order, is_plugin: true, entry });
    }
    let list = config.enabled_policies.as_deref();
    let place = |name: &str| list.and_then(|list| list.iter().position(|n| n == name));
    all.retain(|r| !r.is_plugin || list.is_none() || place(r.entry.policy.name()).is_some());
    all.sort_by_key(|r| {
        let name = r.entry.policy.name();
        (r.order, place(name).unwrap_or(usize::MAX), name.to_owned())
    });
    all.into_iter().map(|r| r.entry).collect()
}

fn shadow_log(policy: &dyn Policy, before: &[PolicyEntry]) -> Arc<ShadowLog> {
    let is_same =
        |entry: &&PolicyEntry| entry.policy.name() == policy.name() && entry.policy.revision() == policy.revision();
    let kept = before.iter().find(is_same).and_then(|entry| entry.shadow.as_ref()).map(|shadow| shadow.log.clone());
    kept.unwrap_or_default()
}

/// The channels among the plugins: as `enabled-channels` lists them, else by name.
fn wasm_channels(config: &Config, registry: &Registry) -> Vec<Arc<dyn Channel>> {
    let mut found: Vec<Arc<dyn Channel>> = Vec::new();
    for plugin in registry.plugins.values().filter(|p| p.state == PluginState::Active) {
        if let (Some(runtime), Some(info)) = (&plugin.runtime, &plugin.channel) {
            found.push(Arc::new(WasmChannel { runtime: runtime.clone(), info: info.clone() }));
        }
    }
    if let Some(list) = &config.enabled_channels {
        found.retain(|c| list.iter().any(|n| n == c.name()));
        found.sort_by_key(|c| list.iter().position(|n| n == c.name()));
    }
    found
}
