//! All plugins of the plugin folder, and what changes of files or settings mean for them. A faulty file does not affect other
//! plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::host::Host;
use super::load_tasks::{LoadState, LoadTasks, Wanted};
use super::stamp::{FileStamps, SETTLE_TIME};
use crate::config::Config;
use crate::monitoring;
use crate::plugin::runtime::errors;
use crate::plugin::{ChannelInfo, Engine, Plugin, PluginState, Rejected, Services};
use crate::tasks;

/// Why no plugins could be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum RegistryError {
    #[error("the plugin folder {} cannot be read: {source}", dir.display())]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("wasmtime cannot run here: {0}")]
    Engine(String),
}

impl From<wasmtime::Error> for RegistryError {
    fn from(error: wasmtime::Error) -> Self {
        RegistryError::Engine(errors::describe(&error))
    }
}

/// All plugins of the folder, by name.
pub struct Registry {
    /// By name.
    pub plugins: BTreeMap<String, Arc<Plugin>>,
    /// Plugins whose files are still being loaded or written; until then, the version in `plugins` stays active.
    pub loading: BTreeSet<String>,
    /// `None` without a plugin folder and without shipped plugins.
    tasks: Option<Arc<LoadTasks>>,
}

/// The components by plugin name, with the stamps of their files.
pub type Files = BTreeMap<String, (PathBuf, FileStamps)>;

/// The result of a reload.
pub struct Reloaded {
    /// The plugins after the reload.
    pub registry: Registry,
    /// What has changed.
    pub changes: Vec<Change>,
    /// A faulty file may still be being written: check again soon.
    pub files_changing: bool,
    /// Plugins whose files are still being loaded.
    pub loading: BTreeSet<String>,
}

impl Reloaded {
    fn new(registry: Registry) -> Self {
        Reloaded { registry, changes: Vec::new(), files_changing: false, loading: BTreeSet::new() }
    }

    /// Adds one plugin in its current state. It is left out if its file is gone, unless it counts as broken.
    fn add(&mut self, before: Option<&Arc<Plugin>>, now: Arc<Plugin>) {
        self.changes.extend(change(before, &now));
        if now.stamp.has_component() || now.is_broken() {
            self.registry.plugins.insert(now.name.clone(), now);
        }
    }
}

/// A plugin that has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The name of the plugin.
    pub plugin: String,
    /// What happened to it.
    #[serde(flatten)]
    pub what: ChangeKind,
}

/// What happened to a plugin in a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the text of each variant describes its fields")]
pub enum ChangeKind {
    /// It is active, and was not before.
    Added { revision: String },
    /// It is active with a new revision or new settings.
    Replaced { from: String, to: String },
    /// The new files cannot be loaded, and the previous revision stays active. After a restart the plugin would be broken.
    Rejected { revision: String, reason: String, active_revision: String },
    /// It should be active and cannot.
    Broken { reason: String },
    /// It is no longer active, because of the configuration or because its file was removed.
    Removed,
}

/// How long a reload waits for plugins to be loaded, before it continues without them.
const LOAD_WAIT: Duration = Duration::from_millis(100);

impl Registry {
    /// No plugins, for an application that registers its own policies and channels.
    pub fn empty() -> Self {
        Registry { plugins: BTreeMap::new(), loading: BTreeSet::new(), tasks: None }
    }

    /// Loads every plugin of the folder, and the shipped ones that ace.toml names. Plugins that cannot be loaded are included, with the
    /// reason.
    ///
    /// # Errors
    /// The folder cannot be read, or wasmtime cannot run on this machine.
    pub async fn load(config: &Config, services: Arc<Services>) -> Result<Self, RegistryError> {
        let dir = config.fixed.plugin_dir.clone();
        if dir.is_none() && config.fixed.shipped.plugins.is_empty() {
            return Ok(Registry::empty());
        }
        let host = Arc::new(Host::new(config, dir, Engine::new(config)?, services)?);
        let tasks = Arc::new(LoadTasks::new(host, Arc::new(config.clone())));
        let empty = Registry { tasks: Some(tasks), ..Registry::empty() };
        let files = empty.scan(config, None).await?;
        let Reloaded { registry, changes, .. } = empty.collect(&files, config, Duration::ZERO);
        changes.iter().for_each(Change::log);
        if let Some(pruned) = registry.prune() {
            // A short command must not exit before it is done.
            pruned.await.unwrap_or_else(|_| tracing::warn!("Cleaning up compiled plugins ended unexpectedly."));
        }
        Ok(registry)
    }

    /// Removes compiled code that is no longer needed, in the background, unless plugins are still being loaded.
    fn prune(&self) -> Option<JoinHandle<()>> {
        let code = self.tasks.as_ref().filter(|_| self.loading.is_empty())?.host.code.clone();
        Some(tokio::task::spawn_blocking(move || code.prune_cache()))
    }

    /// Changes each time a plugin is loaded and ready for the next reload, from now on.
    pub fn load_ended(&self) -> watch::Receiver<u64> {
        self.tasks.as_ref().map_or_else(|| watch::Sender::new(0).subscribe(), |tasks| tasks.ended())
    }

    /// The first part of a reload: scans the folder, starts to load what has changed in it or in the configuration, and waits a
    /// moment for that.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn scan_folder(&self, config: &Config) -> Result<Files, RegistryError> {
        self.scan(config, Some(LOAD_WAIT)).await
    }

    /// The second part, with the same configuration. Unchanged plugins stay as they are. If a new version cannot be loaded, or is not
    /// loaded yet, the previous revision stays active.
    pub fn reload(&self, files: &Files, config: &Config) -> Reloaded {
        let reloaded = self.collect(files, config, SETTLE_TIME);
        drop(reloaded.registry.prune());
        reloaded
    }

    /// `at_most`: how long to wait for plugins to be loaded. `None`: until all of them are.
    async fn scan(&self, config: &Config, at_most: Option<Duration>) -> Result<Files, RegistryError> {
        let Some(tasks) = &self.tasks else { return Ok(Files::new()) };
        let mut files = match tasks.host.dir.clone() {
            Some(dir) => component_files(dir).await?,
            None => Files::new(),
        };
        for shipped in config.shipped_plugins() {
            files.entry(shipped.name.to_owned()).or_insert_with(|| (shipped.file(), FileStamps::shipped()));
        }
        tasks.set_config(Arc::new(config.clone()));
        let is_new =
            |name: &str, stamp: &FileStamps| !self.plugins.get(name).is_some_and(|b| b.is_current(stamp, config));
        tasks.retain(|name| files.get(name).is_some_and(|(_, stamp)| is_new(name, stamp)));
        for (name, (file, stamp)) in &files {
            if is_new(name, stamp) {
                let before = self.plugins.get(name).cloned();
                tasks.ensure_loading(Wanted { name: name.clone(), file: file.clone(), stamp: stamp.clone(), before });
            }
        }
        tasks.wait(at_most).await;
        Ok(files)
    }

    /// `settle_time`: how long after its last change a faulty file may still be being written.
    fn collect(&self, files: &Files, config: &Config, settle_time: Duration) -> Reloaded {
        let Some(tasks) = &self.tasks else { return Reloaded::new(Registry::empty()) };
        let mut reloaded = Reloaded::new(Registry { tasks: Some(tasks.clone()), ..Registry::empty() });
        for (name, (_, stamp)) in files {
            let before = self.plugins.get(name);
            if let Some(same) = before.filter(|before| before.is_current(stamp, config)) {
                reloaded.add(before, same.with_settings_of(config));
                continue;
            }
            match tasks.take(name, stamp, settle_time) {
                LoadState::Loaded(loaded) => {
                    reloaded.add(before, Arc::new(loaded.or_previous(before, config)));
                    continue;
                }
                LoadState::Unsettled => reloaded.files_changing = true,
                LoadState::Loading => drop(reloaded.loading.insert(name.clone())),
            }
            reloaded.registry.loading.insert(name.clone());
            before.into_iter().for_each(|before| reloaded.add(Some(before), before.until_loaded(config)));
        }
        let had_a_file = |before: &&Arc<Plugin>| before.state != PluginState::AwaitingFile;
        for gone in self.plugins.values().filter(|before| !files.contains_key(&before.name)).filter(had_a_file) {
            reloaded.add(Some(gone), gone.with_file_removed(config));
        }
        let plugins = &reloaded.registry.plugins;
        let is_awaited = |name: &&String| !files.contains_key(*name) && !plugins.contains_key(*name);
        let awaited: Vec<Arc<Plugin>> = config
            .plugins
            .keys()
            .filter(is_awaited)
            .map(|name| self.awaited(name, tasks.host.dir.as_deref(), config))
            .collect();
        reloaded.registry.plugins.extend(awaited.into_iter().map(|plugin| (plugin.name.clone(), plugin)));
        reloaded
    }

    /// A plugin that has settings in ace.toml, but no file yet.
    fn awaited(&self, name: &str, dir: Option<&Path>, config: &Config) -> Arc<Plugin> {
        if let Some(before) = self.plugins.get(name).filter(|before| before.state == PluginState::AwaitingFile) {
            return before.with_settings_of(config);
        }
        let file = dir.unwrap_or(Path::new("")).join(format!("{name}.wasm"));
        let settings = config.plugins.get(name).cloned().unwrap_or_default();
        let unread = Plugin::unread(name.to_owned(), file, settings, config.fixed.limits.clone());
        Arc::new(Plugin { state: PluginState::AwaitingFile, ..unread })
    }

    /// Completes when the engine's ticker has ended, which only a bug can cause.
    pub async fn ended(&self) {
        match &self.tasks {
            Some(tasks) => tasks.host.engine.ended().await,
            None => std::future::pending().await,
        }
    }

    /// The channels among the plugins, active or not.
    pub fn channels(&self) -> impl Iterator<Item = (&Plugin, &ChannelInfo)> {
        self.plugins.values().filter_map(|p| p.channel.as_ref().map(|info| (p.as_ref(), info)))
    }
}

fn change(before: Option<&Arc<Plugin>>, now: &Arc<Plugin>) -> Option<Change> {
    if before.is_some_and(|before| Arc::ptr_eq(before, now)) {
        return None;
    }
    let served = before.filter(|b| b.runtime.is_some()).map(|b| b.revision.clone());
    // Reported once, whatever else changes.
    let rejected = now.rejected.as_ref().filter(|new| before.and_then(|before| before.rejected.as_ref()) != Some(new));
    let what = match (&now.state, rejected, served) {
        (PluginState::Active, Some(rejected), _) => {
            let Rejected { revision, reason } = rejected.clone();
            ChangeKind::Rejected { revision, reason, active_revision: now.revision.clone() }
        }
        (PluginState::Active, None, None) => ChangeKind::Added { revision: now.revision.clone() },
        (PluginState::Active, None, Some(from)) => ChangeKind::Replaced { from, to: now.revision.clone() },
        (PluginState::Broken(reason), ..) => ChangeKind::Broken { reason: reason.clone() },
        (PluginState::Disabled, _, Some(_)) => ChangeKind::Removed,
        (PluginState::Disabled, _, None) | (PluginState::AwaitingFile, ..) => return None,
    };
    Some(Change { plugin: now.name.clone(), what })
}

impl Change {
    /// Logs the change.
    pub fn log(&self) {
        let plugin = self.plugin.as_str();
        match &self.what {
            ChangeKind::Added { revision } => tracing::info!(plugin, revision, "The plugin is active."),
            ChangeKind::Replaced { from, to } if from == to => {
                tracing::info!(plugin, to, "The plugin is active with new settings.")
            }
            ChangeKind::Replaced { from, to } => {
                tracing::info!(plugin, from, to, "The plugin is active with a new revision.")
            }
            ChangeKind::Rejected { revision, reason, active_revision } => {
                monitoring::plugin_rejected(plugin, revision);
                tracing::error!(
                    plugin,
                    revision,
                    active_revision,
                    "The new version was rejected and the previous one stays active; after a restart the plugin would be broken: {reason}"
                );
            }
            ChangeKind::Broken { reason } => tracing::error!(plugin, "The plugin is broken: {reason}"),
            ChangeKind::Removed => {
                monitoring::plugin_is_behind(plugin, false);
                tracing::info!(plugin, "The plugin is no longer active.");
            }
        }
    }
}

/// Lists the components of the folder.
async fn component_files(dir: PathBuf) -> Result<Files, RegistryError> {
    let found = dir.clone();
    let read = tasks::blocking(move || {
        let mut files = Files::new();
        for entry in std::fs::read_dir(found)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.extension().is_some_and(|e| e == "wasm") && !hidden {
                let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                let stamp = FileStamps::of(&path);
                files.insert(name, (path, stamp));
            }
        }
        Ok::<_, std::io::Error>(files)
    });
    let read = read.await.map_err(std::io::Error::other).flatten();
    read.map_err(|source| RegistryError::Folder { dir, source })
}
