//! The engine: policies, channels, templates and settings, built from a configuration and rebuilt by a reload. It stores no messages;
//! `app` adds the queue, the workers and the HTTP server.

pub mod preview;
mod reload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::channel::limiter::{ChannelLimiters, channel_limiters};
use crate::channel::{Channel, ChannelMap, Limit, UnknownChannel, WasmChannel};
pub(crate) use crate::config::FileState;
use crate::config::{Compile, Config, Mode, Problem, Problems};
use crate::credentials::{Credentials, Surroundings};
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

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum StartError {
    /// All problems with the configuration.
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Plugins(#[from] RegistryError),
    #[error(transparent)]
    Mailer(#[from] MailerError),
    #[error(transparent)]
    Keyvalue(#[from] keyvalue::FileError),
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
    application: Application,
    services: Arc<Services>,
    /// With the limits of applications, not of plugins.
    keyvalue: Arc<Keyvalue>,
    destinations: Arc<Destinations>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// Why the last reload was rejected.
    refused: ArcSwapOption<String>,
    notices: broadcast::Sender<Notice>,
}

/// What the application registered. A reload does not change it.
struct Application {
    policies: Vec<Registered>,
    channels: Vec<Arc<dyn Channel>>,
    now: fn() -> Timestamp,
    jitter: fn() -> f64,
}

/// What a start or reload has read.
struct Parts {
    config: Config,
    registry: Registry,
    presentation: Arc<Presentation>,
}

/// What a reload replaces in one step.
struct Running {
    config: Config,
    /// The keys of ace.toml that have changed and take effect only after a restart.
    needs_restart: Vec<String>,
    registry: Arc<Registry>,
    snapshot: Arc<Snapshot>,
}

/// Builds an engine.
pub struct Builder {
    config: Config,
    application: Application,
}

/// A policy with its position in the order.
#[derive(Clone)]
struct Registered {
    order: i64,
    is_plugin: bool,
    entry: PolicyEntry,
}

impl Builder {
    /// Registers a policy of the application. Policies are evaluated by `order` (100 for plugins, unless ace.toml sets another one),
    /// then by name.
    pub fn policy(mut self, policy: impl Policy + 'static, order: i64, on_error: OnError) -> Self {
        let entry = PolicyEntry::enforced(Arc::new(policy), on_error);
        self.application.policies.push(Registered { order, is_plugin: false, entry });
        self
    }

    /// Registers a channel of the application. It comes before plugins of its type.
    pub fn channel(mut self, channel: impl Channel + 'static) -> Self {
        self.application.channels.push(Arc::new(channel));
        self
    }

    /// Replaces the clock, also for plugins, and the source of jitter.
    pub fn clock(mut self, now: fn() -> Timestamp, jitter: fn() -> f64) -> Self {
        (self.application.now, self.application.jitter) = (now, jitter);
        self
    }

    /// Sets where plugins are compiled; the default is in this process. An application that loads untrusted plugins should use
    /// [`Compile::Command`].
    pub fn compiler(mut self, compile: Compile) -> Self {
        self.config.fixed.compiler.compile = compile;
        self
    }

    /// Loads plugins, templates and key-value entries, checks the configuration against them, and starts the engine.
    ///
    /// # Errors
    /// The configuration has problems, or something that it refers to cannot be opened.
    pub async fn start(self) -> Result<Ace, StartError> {
        let Builder { config, application } = self;
        let Preflight { registry, presentation, services, keyvalue, destinations } =
            preflight(&config, application.now).await?;
        reload::log_problems(&presentation, "it is not used");
        let first = application.running(
            Parts { config, registry, presentation: Arc::new(presentation) },
            &destinations,
            None,
        )?;
        let current = ArcSwap::from_pointee(first);
        let (reloading, refused) = (tokio::sync::Mutex::new(()), ArcSwapOption::empty());
        let notices = broadcast::Sender::new(NOTICES_MAX);
        Ok(Ace { current, application, services, keyvalue, destinations, reloading, refused, notices })
    }
}

/// Everything that a configuration refers to, loaded before an engine starts, or to check it.
pub struct Preflight {
    /// The plugins.
    pub registry: Registry,
    /// The templates.
    pub presentation: Presentation,
    services: Arc<Services>,
    /// With the limits of applications, not of plugins.
    keyvalue: Arc<Keyvalue>,
    destinations: Arc<Destinations>,
}

impl Preflight {
    /// Names in the configuration that do not exist.
    pub fn unknown_names(&self, config: &Config) -> Vec<Problem> {
        check_names(config, &self.registry, &Application::default(), false)
    }
}

/// Loads what the configuration refers to: relays, key-value entries, templates and plugins.
///
/// # Errors
/// Something that it refers to cannot be opened.
pub async fn preflight(config: &Config, now: fn() -> Timestamp) -> Result<Preflight, StartError> {
    let (settings, http) = (config.clone(), config.fixed.http.clone());
    let http = tasks::blocking(move || http::Client::new(&http));
    let opened = tasks::blocking(move || {
        let keyvalue = Arc::new(Keyvalue::load(&settings.fixed.keyvalue.store(), now())?);
        let surroundings = Surroundings { now, store: keyvalue.clone() };
        let credentials = Credentials::new(&settings.credentials, &settings.fixed.http, surroundings);
        let credentials = Arc::new(ArcSwap::from_pointee(credentials));
        let mailer = Mailer::with_credentials(&settings.fixed.mailer, credentials.clone())?;
        let presentation = Presentation::load(&settings.template_dirs, &settings.presentation);
        Ok::<_, StartError>((mailer, keyvalue, credentials, presentation))
    });
    let (opened, http) = tokio::join!(opened, http);
    let ((mailer, keyvalue, credentials, presentation), http) = (opened??, http??);
    let (mailer, http, for_plugins) = (Arc::new(mailer), Arc::new(http), Arc::new(keyvalue.for_plugins()));
    let destinations = Destinations::new(&config.delivery, fastrand::f64);
    let tracked = Some(destinations.clone());
    let services = Arc::new(Services {
        mailer,
        keyvalue: for_plugins,
        http,
        credentials,
        destinations: tracked,
        now,
        public_url: config.fixed.server.public_url.clone(),
        world: Arc::new(world::RealWorld),
    });
    let registry = Registry::load(config, services.clone()).await?;
    Ok(Preflight { registry, presentation, services, keyvalue, destinations })
}

impl Ace {
    /// A builder for an engine with these settings.
    pub fn builder(config: Config) -> Builder {
        Builder { config, application: Application::default() }
    }

    /// Sends a message, and returns its report when every channel type is settled. It sleeps between attempts, so this may take hours,
    /// as long as the delivery window is open. `limit_to_channels` contains channel types or channel names; if it is empty, all channels
    /// may be used. The message is not stored: if this future is dropped between two attempts, the message is not retried.
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

    /// Prepares a message that the caller drives. Nothing happens before the first [`InFlight::advance`]. For `limit_to_channels` see
    /// [`Ace::send`].
    ///
    /// # Errors
    /// A name in `limit_to_channels` is unknown.
    pub fn prepare(&self, message: Message, limit_to_channels: &[String]) -> Result<InFlight, UnknownChannel> {
        let limit = self.limit(limit_to_channels)?;
        Ok(InFlight::new(self.snapshot(), Arc::new(message), limit, false))
    }

    /// A limit to these channel types or channel names.
    ///
    /// # Errors
    /// A name is unknown. The error suggests the nearest one.
    pub fn limit(&self, limit_to_channels: &[String]) -> Result<Limit, UnknownChannel> {
        Limit::new(limit_to_channels, &self.snapshot().channels)
    }

    /// Does everything except the delivery: verdicts, channels and rules, rendering. Changes nothing.
    ///
    /// # Errors
    /// A name in `limit_to_channels` is unknown.
    pub async fn explain(&self, message: Message, limit_to_channels: &[String]) -> Result<Report, UnknownChannel> {
        let limit = self.limit(limit_to_channels)?;
        let mut flight = InFlight::new(self.snapshot(), Arc::new(message), limit, true);
        flight.advance().await;
        Ok(flight.into_report())
    }

    /// The current snapshot, for new messages.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load().snapshot.clone()
    }

    /// The current plugins.
    pub fn registry(&self) -> Arc<Registry> {
        self.current.load().registry.clone()
    }

    /// The key-value entries and counters.
    pub fn keyvalue(&self) -> &Arc<Keyvalue> {
        &self.keyvalue
    }

    /// The message that an address names, if it is a signed return path of a relay (`{token}` in `return-path`): a report that came back to
    /// it is about mail of that message. Blocks for microseconds, or for as long as a changed key takes to be read.
    pub fn returned_message(&self, address: &str) -> Option<Uuid> {
        self.services.mailer.returned_message(address)
    }

    /// Which relays and origins can be used now.
    pub fn destinations(&self) -> &Arc<Destinations> {
        &self.destinations
    }

    /// When to retry after this many consecutive failures.
    pub fn retry_at(&self, failures: u32) -> Timestamp {
        let pause = retry::pause(failures, &self.snapshot().delivery, (self.application.jitter)());
        self.now().checked_add(pause).unwrap_or(Timestamp::MAX)
    }

    /// The current time of the engine's clock.
    pub fn now(&self) -> Timestamp {
        (self.application.now)()
    }

    /// The names of enforced policies, including broken ones that must not fail open.
    pub fn enforced_policies(&self) -> BTreeSet<String> {
        let snapshot = self.snapshot();
        let enforced = snapshot.policies.iter().filter(|entry| entry.shadow.is_none());
        enforced.map(|entry| entry.policy.name().to_owned()).collect()
    }

    /// The files and folders to watch: the configuration, the plugin folder, the template folders.
    pub fn watched(&self) -> Watched {
        let current = self.current.load();
        let config = &current.config;
        Watched {
            config: config.file_state.clone().or_else(|| config.file.clone().map(FileState::read)),
            plugins: config.fixed.plugin_dir.clone(),
            templates: config.template_dirs.clone(),
        }
    }

    /// Completes with the name of a part that has ended and cannot be restarted, which only a bug can cause.
    pub async fn ended(&self) -> &'static str {
        let registry = self.registry();
        tokio::select! {
            () = registry.ended() => "the clock that limits the time of plugins",
            () = self.services.keyvalue.ended() => "the thread that writes the key-value store",
        }
    }

    /// Closes idle connections to relays.
    pub async fn close(&self) {
        self.services.mailer.close().await;
    }
}

impl Default for Application {
    fn default() -> Self {
        Application { policies: Vec::new(), channels: Vec::new(), now: Timestamp::now, jitter: fastrand::f64 }
    }
}

impl Application {
    /// Builds the snapshot of a configuration, with the application's policies and channels. An unknown name in the configuration is an
    /// error. Rate limits and shadow comparisons continue from `before`.
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
            feedback_channels: config.feedback_channels(),
            destinations: destinations.clone(),
            now: self.now,
            jitter: self.jitter,
        };
        let is_expected = |plugin: &&Arc<Plugin>| matches!(plugin.state, PluginState::Active | PluginState::Broken(_));
        let expected = registry.plugins.values().filter(is_expected);
        monitoring::set_active_plugins(expected.clone().map(|p| (p.name.clone(), p.revision.clone())).collect());
        for plugin in expected {
            monitoring::plugin_up(&plugin.name, plugin.state == PluginState::Active);
            monitoring::plugin_is_behind(&plugin.name, plugin.rejected.is_some());
        }
        Ok(Running { config, needs_restart: Vec::new(), registry: Arc::new(registry), snapshot: Arc::new(snapshot) })
    }
}

/// The files and folders to watch.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// The state of ace.toml when it was read.
    pub config: Option<FileState>,
    pub plugins: Option<PathBuf>,
    pub templates: Vec<PathBuf>,
}

/// Checks that all names in the configuration exist. On a reload, a plugin's settings may come before its file; at a start they may
/// not, because a policy with a missing file would be skipped.
fn check_names(config: &Config, registry: &Registry, application: &Application, is_reload: bool) -> Vec<Problem> {
    let mut types: BTreeMap<String, String> =
        registry.channels().map(|(p, info)| (p.name.clone(), info.channel_type.clone())).collect();
    types.extend(application.channels.iter().map(|c| (c.name().to_owned(), c.channel_type().to_owned())));
    let is_policy = |p: &&Arc<Plugin>| p.namespaces.contains(&Namespace::Policy);
    let mut names: Vec<String> = registry.plugins.values().filter(is_policy).map(|p| p.name.clone()).collect();
    names.extend(application.policies.iter().map(|p| p.entry.policy.name().to_owned()));
    let (awaited, present): (Vec<_>, Vec<_>) =
        registry.plugins.values().partition(|plugin| plugin.state == PluginState::AwaitingFile);
    let present: Vec<&str> = present.iter().map(|plugin| plugin.name.as_str()).collect();
    let may_come = |plugin: &&&Arc<Plugin>| is_reload && !message::is_misspelt(&plugin.name, present.iter().copied());
    let awaited = awaited.iter().filter(may_come).map(|plugin| &plugin.name);
    let loading = registry.loading.iter().chain(awaited).cloned();
    let all: Vec<String> = present.iter().map(|name| (*name).to_owned()).chain(loading).collect();
    config.check_names(&types, &names, &all)
}

/// The policies in the order of their evaluation: by `order`, then as listed in `enabled-policies`, then by name. The comparison of an
/// unchanged policy in shadow mode continues from `before`.
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
    let position = |name: &str| list.and_then(|list| list.iter().position(|n| n == name));
    all.retain(|r| !r.is_plugin || list.is_none() || position(r.entry.policy.name()).is_some());
    all.sort_by_key(|r| {
        let name = r.entry.policy.name();
        (r.order, position(name).unwrap_or(usize::MAX), name.to_owned())
    });
    all.into_iter().map(|r| r.entry).collect()
}

fn shadow_log(policy: &dyn Policy, before: &[PolicyEntry]) -> Arc<ShadowLog> {
    let is_same =
        |entry: &&PolicyEntry| entry.policy.name() == policy.name() && entry.policy.revision() == policy.revision();
    let kept = before.iter().find(is_same).and_then(|entry| entry.shadow.as_ref()).map(|shadow| shadow.log.clone());
    kept.unwrap_or_default()
}

/// The channels among the plugins, as listed in `enabled-channels`, or else by name.
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
