//! The engine: everything that decides and sends, built from one configuration and built anew by a reload. It keeps nothing of a
//! message; `app` puts the queue, the workers and the HTTP server around it.

pub mod preview;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::channel::gates::{Gates, gates};
use crate::channel::{Channel, ChannelMap, Limit, WasmChannel};
pub use crate::config::Seen;
use crate::config::{self, Compile, Config, Mode, Problem, Problems};
use crate::destination::Destinations;
use crate::keyvalue::{self, Keyvalue};
use crate::mailer::{Mailer, MailerError};
use crate::message::{Message, OnError, Report};
use crate::monitoring;
use crate::pipeline::{InFlight, Snapshot};
use crate::plugin::http;
use crate::plugin::registry::{self, Change, RegistryError};
use crate::plugin::{Namespace, Plugin, PluginState, Registry, Services};
use crate::policy::shadow::ShadowLog;
use crate::policy::{BrokenPolicy, Policy, Shadow, Slot, WasmPolicy};
use crate::presentation::Presentation;
use crate::retry;
use crate::tasks::{self, Panicked};

/// The translatable texts of templates.
pub mod texts {
    pub use crate::presentation::{ExtractError, Extracted, extract};
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
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
/// let mut sending = ace.send(message, &[]).map_err(anyhow::Error::msg)?;
/// sending.advance().await;
/// println!("{:?}", sending.report());
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

/// What is replaced as one by a reload.
struct Running {
    config: Config,
    /// What ace.toml says otherwise by now, and a reload cannot change.
    needs_restart: Vec<&'static str>,
    registry: Arc<Registry>,
    snapshot: Arc<Snapshot>,
}

/// What a reload came to.
#[derive(Debug, Default, Serialize)]
pub struct Reload {
    /// Plugins that are not what they were.
    pub changes: Vec<Change>,
    /// A file is wrong and was being written a moment ago: reload again soon.
    pub is_unsettled: bool,
    /// Plugins whose files are still being loaded.
    pub loading: BTreeSet<String>,
}

/// What reloads come to, for whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Changed(Change),
    /// Something is wrong, and nothing was changed. Told once for each reason.
    Refused(String),
}

/// ace.toml is read when it has been still for so long, or after so many pauses.
const STILL: Duration = Duration::from_millis(50);
const STILL_TIMES_MAX: u32 = 20;
/// How often one reload reads ace.toml because it changed meanwhile.
const TIMES_MAX: u32 = 5;
/// Notices that a slow listener may be behind.
const NOTICES_MAX: usize = 256;

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
    slot: Slot,
}

impl Builder {
    /// Registers a policy of the application's own beside the plugins. Policies are asked by `order` (plugins have 100
    /// unless ace.toml says otherwise), then by name.
    pub fn policy(mut self, policy: impl Policy + 'static, order: i64, on_error: OnError) -> Self {
        let slot = Slot::enforced(Arc::new(policy), on_error);
        self.own.policies.push(Registered { order, is_plugin: false, slot });
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
        self.config.compiler.compile = compile;
        self
    }

    /// Reads plugins, templates and facts, and checks the configuration against them.
    pub async fn start(self) -> Result<Ace, StartError> {
        let Builder { config, own } = self;
        let Survey { registry, presentation, services, keyvalue, destinations } = survey(&config, own.now).await?;
        let first = own.running((config, registry, Arc::new(presentation)), &destinations, None)?;
        let current = ArcSwap::from_pointee(first);
        let (reloading, refused) = (tokio::sync::Mutex::new(()), ArcSwapOption::empty());
        let notices = broadcast::Sender::new(NOTICES_MAX);
        Ok(Ace { current, own, services, keyvalue, destinations, reloading, refused, notices })
    }
}

/// What a configuration leads to, before it is put to work.
pub struct Survey {
    pub registry: Registry,
    pub presentation: Presentation,
    services: Arc<Services>,
    /// As applications write to it.
    keyvalue: Arc<Keyvalue>,
    destinations: Arc<Destinations>,
}

impl Survey {
    /// Names in the configuration that nothing is called by.
    pub fn unknown_names(&self, config: &Config) -> Vec<Problem> {
        check_names(config, &self.registry, &[], &[])
    }
}

/// Reads what the configuration points to: relays, facts, templates, plugins.
pub async fn survey(config: &Config, now: fn() -> Timestamp) -> Result<Survey, StartError> {
    let (settings, http) = (config.clone(), config.http.clone());
    let http = tasks::blocking(move || http::Client::new(&http));
    let opened = tasks::blocking(move || {
        let mailer = Mailer::new(&settings.mailer)?;
        let keyvalue = Keyvalue::load(&settings.keyvalue, now())?;
        Ok::<_, StartError>((mailer, keyvalue, Presentation::load(&settings.template_dirs, &settings.presentation)))
    });
    let (opened, http) = tokio::join!(opened, http);
    let ((mailer, keyvalue, presentation), http) = (opened??, http??);
    let (mailer, http, for_plugins) = (Arc::new(mailer), Arc::new(http), Arc::new(keyvalue.for_plugins()));
    let destinations = Destinations::new(&config.delivery, fastrand::f64);
    let served = Some(destinations.clone());
    let services = Services { mailer, keyvalue: for_plugins, http, destinations: served, now, trial: None };
    let services = Arc::new(services);
    let registry = match &config.plugin_dir {
        Some(dir) => Registry::load(config, dir, services.clone()).await?,
        None => Registry::empty(),
    };
    Ok(Survey { registry, presentation, services, keyvalue: Arc::new(keyvalue), destinations })
}

impl Ace {
    /// Lays down an engine with these settings.
    pub fn builder(config: Config) -> Builder {
        let own = Own { policies: Vec::new(), channels: Vec::new(), now: Timestamp::now, jitter: fastrand::f64 };
        Builder { config, own }
    }

    /// Sets a message on its way: nothing happens before the first [`InFlight::advance`]. `limit_to_channels` holds channel
    /// types or channel names; an unknown one is an error, and empty limits nothing.
    pub fn send(&self, message: Message, limit_to_channels: &[String]) -> Result<InFlight, String> {
        let limit = self.limit(limit_to_channels)?;
        Ok(InFlight::new(self.snapshot(), Arc::new(message), limit, false))
    }

    /// Channel types or channel names as a limit; an unknown one is an error that names the nearest.
    pub fn limit(&self, limit_to_channels: &[String]) -> Result<Limit, String> {
        Limit::new(limit_to_channels, &self.snapshot().channels)
    }

    /// Everything short of the delivery: verdicts, channels and rules, templates, rendered results. Changes nothing.
    pub async fn explain(&self, message: Message, limit_to_channels: &[String]) -> Result<Report, String> {
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
        let enforced = snapshot.policies.iter().filter(|slot| slot.shadow.is_none());
        enforced.map(|slot| slot.policy.name().to_owned()).collect()
    }

    /// Where changes are to be looked for: the configuration's file, the plugin folder, the template folders.
    pub fn watched(&self) -> Watched {
        let current = self.current.load();
        let config = &current.config;
        Watched {
            config: config.seen.clone().or_else(|| config.file.clone().map(Seen::look)),
            plugins: config.plugin_dir.clone(),
            templates: config.template_dirs.clone(),
        }
    }

    /// Looks at files and configuration again and publishes what is new: sends under way finish on what they began with. What
    /// cannot serve leaves the version before serving; a configuration with problems changes nothing. Of ace.toml, what concerns
    /// plugins, routing and delivery is taken up; relays, facts and limits need a new start. Returns when every plugin that is
    /// new is loaded; one that takes long holds up no other.
    ///
    /// # Errors
    /// What is wrong with the configuration or the folders, or a panic; what ran before goes on.
    pub async fn reload(&self) -> Result<Reload, StartError> {
        let mut all = Reload::default();
        loop {
            let mut loaded = self.loaded();
            let Reload { changes, is_unsettled, loading } = self.reload_ready().await?;
            all.changes.extend(changes);
            all.is_unsettled = is_unsettled;
            if loading.is_empty() {
                return Ok(all);
            }
            // Its sender lives as long as the registry.
            let _ = loaded.changed().await;
        }
    }

    /// As [`Ace::reload`], without waiting for plugins that take long to load: the result names them. They come into service with
    /// a later reload, for which [`Ace::loaded`] says when, and with the settings of that moment.
    ///
    /// # Errors
    /// As for [`Ace::reload`].
    pub async fn reload_ready(&self) -> Result<Reload, StartError> {
        let reloaded = tasks::caught(self.read_again()).await.unwrap_or_else(|panicked| Err(panicked.into()));
        monitoring::reloaded(reloaded.is_ok());
        match &reloaded {
            Ok(reload) => {
                self.refused.store(None);
                for change in &reload.changes {
                    // Nobody may be listening, here and below.
                    let _ = self.notices.send(Notice::Changed(change.clone()));
                }
            }
            Err(error) => {
                let why = error.to_string();
                let before = self.refused.swap(Some(Arc::new(why.clone())));
                if before.is_none_or(|before| *before != why) {
                    let _ = self.notices.send(Notice::Refused(why));
                }
            }
        }
        reloaded
    }

    /// Why the last reload changed nothing, where it did not: at the next start the same would be in the way.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }

    /// What reloads come to from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Changes when a plugin that took long to load is ready for the next reload, from now on.
    pub fn loaded(&self) -> watch::Receiver<u64> {
        self.registry().load_ended()
    }

    async fn read_again(&self) -> Result<Reload, StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let running = self.current.load_full();
        let mut times = 0;
        let (read, files) = loop {
            let read = reread(&running).await?;
            let files = running.registry.look_again(&read.config).await?;
            times += 1;
            // Loading took a while. What comes into service does so with the settings of now, not of then.
            let seen = read.config.seen.clone();
            let is_same = tasks::blocking(move || seen.is_none_or(|seen| seen.again() == seen)).await?;
            if is_same || times == TIMES_MAX {
                break (read, files);
            }
        };
        let registry::Reloaded { registry, changes, is_unsettled, loading } =
            running.registry.reload(&files, &read.config);
        let Reread { config, needs_restart, presentation } = read;
        let before = Some(running.snapshot.as_ref());
        let mut next = self.own.running((config, registry, presentation), &self.destinations, before)?;
        next.needs_restart = needs_restart;
        self.destinations.set_schedule(&next.config.delivery);
        self.current.store(Arc::new(next));
        changes.iter().for_each(Change::log);
        Ok(Reload { changes, is_unsettled, loading })
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

/// What a reload reads before it looks at plugins.
struct Reread {
    config: Config,
    needs_restart: Vec<&'static str>,
    presentation: Arc<Presentation>,
}

/// What ace.toml and the templates say now; of ace.toml, what a reload can change.
async fn reread(running: &Running) -> Result<Reread, StartError> {
    let (before, templates) = (running.config.clone(), running.snapshot.presentation.clone());
    let told = running.needs_restart.clone();
    let read = tasks::blocking(move || {
        let (config, needs_restart) = match &before.file {
            Some(file) => {
                wait_until_still(file);
                keep_the_fixed(Config::load(file)?, &before)
            }
            None => (before, Vec::new()),
        };
        // Told once for the same changes.
        if !needs_restart.is_empty() && needs_restart != told {
            let keys = needs_restart.join(", ");
            tracing::warn!("These changes in ace.toml take effect only after a restart: {keys}.");
        }
        let presentation = templates.reload(&config.template_dirs, &config.presentation);
        if !Arc::ptr_eq(&presentation, &templates) {
            for problem in presentation.problems() {
                tracing::error!(
                    file = %problem.file.display(),
                    "A template or catalogue is broken; where it was whole before, that is used on: {problem}"
                );
            }
        }
        Ok(Reread { config, needs_restart, presentation })
    });
    read.await?
}

/// A file that is just being written is waited for, not for long: read half-way, it might say something else and be sound.
/// Blocks.
fn wait_until_still(file: &Path) {
    for _ in 0..STILL_TIMES_MAX {
        match Seen::look(file.to_owned()).age() {
            Some(age) if age < STILL => std::thread::sleep(STILL - age),
            _ => return,
        }
    }
}

impl Own {
    /// What a configuration, its plugins and templates come to beside what the application registered; an error where a
    /// name in the configuration is nobody's. Quotas and comparisons go on counting from `before`.
    fn running(
        &self,
        (config, registry, presentation): (Config, Registry, Arc<Presentation>),
        destinations: &Arc<Destinations>,
        before: Option<&Snapshot>,
    ) -> Result<Running, StartError> {
        let problems = check_names(&config, &registry, &self.policies, &self.channels);
        if !problems.is_empty() {
            return Err(Problems(problems).into());
        }
        let channels = self.channels.iter().cloned().chain(wasm_channels(&config, &registry));
        let channels = ChannelMap::new(channels);
        let names = channels.iter().map(|channel| channel.name());
        let gates = gates(names, &config.channels, before.map_or(&Gates::new(), |before| &before.gates));
        let snapshot = Snapshot {
            policies: slots(&config, &registry, self.policies.clone(), before.map_or(&[], |before| &before.policies)),
            channels,
            presentation,
            routing: config.routing.clone(),
            delivery: config.delivery.clone(),
            gates,
            destinations: destinations.clone(),
            now: self.now,
            jitter: self.jitter,
        };
        for plugin in registry.plugins.values().filter(|p| p.state != PluginState::Disabled) {
            monitoring::plugin_up(&plugin.name, plugin.state == PluginState::Active);
            monitoring::plugin_is_behind(&plugin.name, plugin.rejected.is_some());
        }
        Ok(Running { config, needs_restart: Vec::new(), registry: Arc::new(registry), snapshot: Arc::new(snapshot) })
    }
}

/// What a reload cannot change, because it was opened at the start, stays as it was; the keys of those changes.
fn keep_the_fixed(mut new: Config, before: &Config) -> (Config, Vec<&'static str>) {
    fn keep<T: Clone + PartialEq>(key: &'static str, new: &mut T, before: &T) -> Option<&'static str> {
        let is_changed = new != before;
        new.clone_from(before);
        is_changed.then_some(key)
    }
    // No key of ace.toml, so that a new reading never has it.
    new.compiler.compile = before.compiler.compile.clone();
    let changed = [
        keep("plugin-dir", &mut new.plugin_dir, &before.plugin_dir),
        keep("cache-dir", &mut new.cache_dir, &before.cache_dir),
        keep("cache-max-size and cache-max-age", &mut new.cache, &before.cache),
        keep("compiler", &mut new.compiler, &before.compiler),
        keep("mailer and relays", &mut new.mailer, &before.mailer),
        keep("keyvalue", &mut new.keyvalue, &before.keyvalue),
        keep("http", &mut new.http, &before.http),
        keep("server", &mut new.server, &before.server),
        keep("queue", &mut new.queue, &before.queue),
        keep("events", &mut new.events, &before.events),
        keep("webhooks", &mut new.webhooks, &before.webhooks),
        keep("otlp", &mut new.otlp, &before.otlp),
        keep("plugin-signatures", &mut new.signatures, &before.signatures),
        keep("limits", &mut new.limits, &before.limits),
    ];
    new.enforced_before.clone_from(&before.enforced_before);
    new.delivery.defaults = before.delivery.defaults;
    (new, changed.into_iter().flatten().collect())
}

/// Where changes are to be looked for.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// As it was when it was read: what has changed since is a change.
    pub config: Option<Seen>,
    pub plugins: Option<PathBuf>,
    pub templates: Vec<PathBuf>,
}

/// Every name in the configuration must be that of something that exists.
fn check_names(
    config: &Config,
    registry: &Registry,
    policies: &[Registered],
    channels: &[Arc<dyn Channel>],
) -> Vec<Problem> {
    let mut types: BTreeMap<String, String> =
        registry.channels().map(|(p, info)| (p.name.clone(), info.channel_type.clone())).collect();
    types.extend(channels.iter().map(|c| (c.name().to_owned(), c.channel_type().to_owned())));
    let is_policy = |p: &&Arc<Plugin>| p.namespaces.contains(&Namespace::Policy);
    let mut names: Vec<String> = registry.plugins.values().filter(is_policy).map(|p| p.name.clone()).collect();
    names.extend(policies.iter().map(|p| p.slot.policy.name().to_owned()));
    let all: Vec<String> = registry.plugins.keys().chain(&registry.loading).cloned().collect();
    config.check_names(&types, &names, &all)
}

/// The policies in the order they are asked: by their `order`, then as `enabled-policies` lists them, then by name.
/// A policy in shadow that is the same as `before` goes on counting.
fn slots(config: &Config, registry: &Registry, registered: Vec<Registered>, before: &[Slot]) -> Vec<Slot> {
    let mut all = registered;
    for plugin in registry.plugins.values() {
        let settings = config.plugins.get(&plugin.name).cloned().unwrap_or_default();
        let policy: Arc<dyn Policy> = match (&plugin.state, &plugin.runtime) {
            (PluginState::Active, Some(runtime)) if plugin.namespaces.contains(&Namespace::Policy) => {
                Arc::new(WasmPolicy(runtime.clone()))
            }
            (PluginState::Broken(reason), _) if registry::is_enforced(plugin, config) => {
                Arc::new(BrokenPolicy { name: plugin.name.clone(), reason: reason.clone() })
            }
            _ => continue,
        };
        let shadow = (settings.mode == Mode::Shadow)
            .then(|| Shadow { of: settings.shadow_of.clone(), log: shadow_log(policy.as_ref(), before) });
        let slot = Slot { policy, on_error: settings.on_error, shadow };
        all.push(Registered { order: settings.order, is_plugin: true, slot });
    }
    let list = config.enabled_policies.as_deref();
    let place = |name: &str| list.and_then(|list| list.iter().position(|n| n == name));
    all.retain(|r| !r.is_plugin || list.is_none() || place(r.slot.policy.name()).is_some());
    all.sort_by_key(|r| {
        let name = r.slot.policy.name();
        (r.order, place(name).unwrap_or(usize::MAX), name.to_owned())
    });
    all.into_iter().map(|r| r.slot).collect()
}

fn shadow_log(policy: &dyn Policy, before: &[Slot]) -> Arc<ShadowLog> {
    let is_same = |slot: &&Slot| slot.policy.name() == policy.name() && slot.policy.revision() == policy.revision();
    let kept = before.iter().find(is_same).and_then(|slot| slot.shadow.as_ref()).map(|shadow| shadow.log.clone());
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
