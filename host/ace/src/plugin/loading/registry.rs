//! The plugin folder as a whole: what serves, what a change of files or settings means for it, and what must not fail open.
//! One bad file never stops the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::host::Host;
use super::load_tasks::{Loads, Taken, Wanted};
use super::stamp::{FileStamps, SETTLING};
use crate::config::Config;
use crate::monitoring;
use crate::plugin::imports;
use crate::plugin::runtime::errors;
use crate::plugin::{ChannelInfo, Engine, Plugin, PluginState, Rejected, Services};
use crate::tasks;

/// Why no plugin could be loaded at all.
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
    /// Plugins whose files are still being loaded, or written: what is among `plugins` under the same name serves until then.
    pub loading: BTreeSet<String>,
    /// What plugins are loaded with; `None` where there is no folder.
    loads: Option<Arc<Loads>>,
}

/// The components of a folder by the names of the plugins they are, and how their files look.
pub type Files = BTreeMap<String, (PathBuf, FileStamps)>;

/// What a reload came to.
pub struct Reloaded {
    /// What is active now.
    pub registry: Registry,
    /// What is different.
    pub changes: Vec<Change>,
    /// A file is wrong and was being written a moment ago: look again soon.
    pub files_changing: bool,
    /// Plugins whose files are still being loaded.
    pub loading: BTreeSet<String>,
}

impl Reloaded {
    fn new(registry: Registry) -> Self {
        Reloaded { registry, changes: Vec::new(), files_changing: false, loading: BTreeSet::new() }
    }

    /// One plugin as it is now. One that is gone and stood for nothing is no more.
    fn add(&mut self, before: Option<&Arc<Plugin>>, now: Arc<Plugin>) {
        self.changes.extend(change(before, &now));
        if now.stamp.has_component() || now.is_broken() {
            self.registry.plugins.insert(now.name.clone(), now);
        }
    }
}

/// One plugin that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The name of the plugin.
    pub plugin: String,
    /// What happened to it.
    #[serde(flatten)]
    pub what: What,
}

/// What happened to a plugin in a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
pub enum What {
    /// It serves, and did not before.
    Added { revision: String },
    /// It serves in a new revision or with new settings.
    Replaced { from: String, to: String },
    /// The new files cannot serve; the revision before goes on. At the next start the plugin would be broken.
    Rejected { revision: String, reason: String, active_revision: String },
    /// It should serve and cannot.
    Broken { reason: String },
    /// It does not serve any more, as the operator wants it.
    Removed,
}

/// How long a reload waits for plugins that have to be loaded, before it goes on without those that take longer.
const READY: Duration = Duration::from_millis(100);

impl Registry {
    /// No plugins: an application that registers its own policies and channels needs none.
    pub fn empty() -> Self {
        Registry { plugins: BTreeMap::new(), loading: BTreeSet::new(), loads: None }
    }

    /// Reads, compiles and asks every plugin of the folder. What does not fit is in the result too, with its reason.
    pub async fn load(config: &Config, dir: &Path, services: Arc<Services>) -> Result<Self, RegistryError> {
        let engine = Engine::new(config)?;
        let linker = imports::linker(&engine.inner)?;
        let host = Arc::new(Host { dir: dir.to_owned(), engine, linker, services });
        let loads = Arc::new(Loads::new(host, Arc::new(config.clone())));
        let nothing = Registry { loads: Some(loads), ..Registry::empty() };
        let files = nothing.look(config, None).await?;
        let Reloaded { registry, changes, .. } = nothing.collect(&files, config, Duration::ZERO);
        changes.iter().for_each(Change::log);
        if let Some(pruned) = registry.prune() {
            // A short command must not end before it.
            pruned.await.unwrap_or_else(|_| tracing::warn!("Cleaning up compiled plugins ended unexpectedly."));
        }
        Ok(registry)
    }

    /// Removes compiled code that is not needed any more, in the background, unless something is still being loaded.
    fn prune(&self) -> Option<JoinHandle<()>> {
        let engine = self.loads.as_ref().filter(|_| self.loading.is_empty())?.host.engine.clone();
        Some(tokio::task::spawn_blocking(move || engine.prune_cache()))
    }

    /// Changes when one of the plugins that are being loaded is ready for the next reload, from now on.
    pub fn load_ended(&self) -> watch::Receiver<u64> {
        self.loads.as_ref().map_or_else(|| watch::Sender::new(0).subscribe(), |loads| loads.ended())
    }

    /// The first part of a reload: looks at the folder, has loaded what is new there or in the configuration, and waits a moment
    /// for it.
    pub async fn look_again(&self, config: &Config) -> Result<Files, RegistryError> {
        self.look(config, Some(READY)).await
    }

    /// The second part, with the same configuration: what the folder and the configuration say now. What did not change stays as
    /// it is; what cannot serve leaves the revision before it serving, where there is one; and so does what is not loaded yet.
    pub fn reload(&self, files: &Files, config: &Config) -> Reloaded {
        let reloaded = self.collect(files, config, SETTLING);
        drop(reloaded.registry.prune());
        reloaded
    }

    /// `at_most`: how long to wait for plugins that have to be loaded. `None`: until all of them are.
    async fn look(&self, config: &Config, at_most: Option<Duration>) -> Result<Files, RegistryError> {
        let Some(loads) = &self.loads else { return Ok(Files::new()) };
        let files = component_files(loads.host.dir.clone()).await?;
        loads.set_config(Arc::new(config.clone()));
        let is_new =
            |name: &str, stamp: &FileStamps| !self.plugins.get(name).is_some_and(|b| b.is_current(stamp, config));
        loads.retain(|name| files.get(name).is_some_and(|(_, stamp)| is_new(name, stamp)));
        for (name, (file, stamp)) in &files {
            if is_new(name, stamp) {
                let before = self.plugins.get(name).cloned();
                loads.see_to(Wanted { name: name.clone(), file: file.clone(), stamp: stamp.clone(), before });
            }
        }
        loads.settle(at_most).await;
        Ok(files)
    }

    /// `settling`: for how long after its last change a file that is wrong may still be being written.
    fn collect(&self, files: &Files, config: &Config, settling: Duration) -> Reloaded {
        let Some(loads) = &self.loads else { return Reloaded::new(Registry::empty()) };
        let mut reloaded = Reloaded::new(Registry { loads: Some(loads.clone()), ..Registry::empty() });
        for (name, (_, stamp)) in files {
            let before = self.plugins.get(name);
            if let Some(same) = before.filter(|before| before.is_current(stamp, config)) {
                reloaded.add(before, same.with_settings_of(config));
                continue;
            }
            match loads.take(name, stamp, settling) {
                Taken::Loaded(loaded) => {
                    reloaded.add(before, Arc::new(loaded.or_else(before, config)));
                    continue;
                }
                Taken::Unsettled => reloaded.files_changing = true,
                Taken::Loading => drop(reloaded.loading.insert(name.clone())),
            }
            reloaded.registry.loading.insert(name.clone());
            before.into_iter().for_each(|before| reloaded.add(Some(before), before.until_loaded(config)));
        }
        let had_a_file = |before: &&Arc<Plugin>| before.state != PluginState::AwaitingFile;
        for gone in self.plugins.values().filter(|before| !files.contains_key(&before.name)).filter(had_a_file) {
            reloaded.add(Some(gone), gone.without_its_file(config));
        }
        let plugins = &reloaded.registry.plugins;
        let is_awaited = |name: &&String| !files.contains_key(*name) && !plugins.contains_key(*name);
        let awaited: Vec<Arc<Plugin>> =
            config.plugins.keys().filter(is_awaited).map(|name| self.awaited(name, &loads.host.dir, config)).collect();
        reloaded.registry.plugins.extend(awaited.into_iter().map(|plugin| (plugin.name.clone(), plugin)));
        reloaded
    }

    /// A plugin that ace.toml has settings for, and that has no file yet.
    fn awaited(&self, name: &str, dir: &Path, config: &Config) -> Arc<Plugin> {
        if let Some(before) = self.plugins.get(name).filter(|before| before.state == PluginState::AwaitingFile) {
            return before.with_settings_of(config);
        }
        let file = dir.join(format!("{name}.wasm"));
        let settings = config.plugins.get(name).cloned().unwrap_or_default();
        let unread = Plugin::unread(name.to_owned(), file, settings, config.fixed.limits.clone());
        Arc::new(Plugin { state: PluginState::AwaitingFile, ..unread })
    }

    /// Completes when the clock that bounds the guests' time has ended, which it does only after a bug.
    pub async fn ended(&self) {
        match &self.loads {
            Some(loads) => loads.host.engine.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Names and types of the channels among the plugins, whether they serve or not.
    pub fn channels(&self) -> impl Iterator<Item = (&Plugin, &ChannelInfo)> {
        self.plugins.values().filter_map(|p| p.channel.as_ref().map(|info| (p.as_ref(), info)))
    }
}

fn change(before: Option<&Arc<Plugin>>, now: &Arc<Plugin>) -> Option<Change> {
    if before.is_some_and(|before| Arc::ptr_eq(before, now)) {
        return None;
    }
    let served = before.filter(|b| b.runtime.is_some()).map(|b| b.revision.clone());
    // Told once, whatever else changes meanwhile.
    let rejected = now.rejected.as_ref().filter(|new| before.and_then(|before| before.rejected.as_ref()) != Some(new));
    let what = match (&now.state, rejected, served) {
        (PluginState::Active, Some(rejected), _) => {
            let Rejected { revision, reason } = rejected.clone();
            What::Rejected { revision, reason, active_revision: now.revision.clone() }
        }
        (PluginState::Active, None, None) => What::Added { revision: now.revision.clone() },
        (PluginState::Active, None, Some(from)) => What::Replaced { from, to: now.revision.clone() },
        (PluginState::Broken(reason), ..) => What::Broken { reason: reason.clone() },
        (PluginState::Disabled, _, Some(_)) => What::Removed,
        (PluginState::Disabled, _, None) | (PluginState::AwaitingFile, ..) => return None,
    };
    Some(Change { plugin: now.name.clone(), what })
}

impl Change {
    /// Tells the operator.
    pub fn log(&self) {
        let plugin = self.plugin.as_str();
        match &self.what {
            What::Added { revision } => tracing::info!(plugin, revision, "The plugin serves."),
            What::Replaced { from, to } if from == to => tracing::info!(plugin, to, "The plugin has new settings."),
            What::Replaced { from, to } => tracing::info!(plugin, from, to, "The plugin is active in a new revision."),
            What::Rejected { revision, reason, active_revision } => {
                monitoring::plugin_rejected(plugin, revision);
                tracing::error!(
                    plugin,
                    revision,
                    active_revision,
                    "The new version was rejected and the previous one stays active; after a restart the plugin would be broken: {reason}"
                );
            }
            What::Broken { reason } => tracing::error!(plugin, "The plugin is broken: {reason}"),
            What::Removed => {
                monitoring::plugin_is_behind(plugin, false);
                tracing::info!(plugin, "The plugin is no longer active.");
            }
        }
    }
}

/// The components of the folder.
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
