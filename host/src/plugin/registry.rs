//! The plugin folder as a whole: what serves, what a change of files or settings means for it, and what must not fail open.
//! One bad file never stops the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use wasmtime::component::Linker;

use super::errors;
use super::imports;
use super::loader::Loader;
use super::signature;
use super::state::State;
use super::{ChannelInfo, Engine, Namespace, Plugin, PluginState, Services};
use crate::config::{self, Config};
use crate::tasks;

/// Why no plugin could be loaded at all.
#[derive(Debug, thiserror::Error)]
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
    pub plugins: BTreeMap<String, Arc<Plugin>>,
    host: Option<Arc<Host>>,
}

/// What every plugin is loaded with, at the start and at every reload.
pub(super) struct Host {
    pub dir: PathBuf,
    pub engine: Engine,
    pub linker: Linker<State>,
    pub services: Arc<Services>,
}

/// What a reload came to.
pub struct Reloaded {
    pub registry: Registry,
    pub changes: Vec<Change>,
    /// A file is wrong and was being written a moment ago: look again soon.
    pub is_unsettled: bool,
}

/// What one file of the folder came to.
struct Found {
    name: String,
    stamp: Stamp,
    /// `None`: the plugin that is there already is still it.
    loaded: Option<Plugin>,
}

/// One plugin that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub plugin: String,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum What {
    /// It serves, and did not before.
    Added { revision: String },
    /// It serves in a new revision or with new settings.
    Replaced { from: String, to: String },
    /// The new files cannot serve; the revision before goes on.
    Rejected { reason: String, serving: String },
    /// It should serve and cannot.
    Broken { reason: String },
    /// It does not serve any more, as the operator wants it.
    Removed,
}

/// A file that is wrong may still be being written this long after its last change.
const SETTLING: Duration = Duration::from_secs(1);

impl Registry {
    /// No plugins: an application that registers its own policies and channels needs none.
    pub fn empty() -> Self {
        Registry { plugins: BTreeMap::new(), host: None }
    }

    /// Reads, compiles and asks every plugin of the folder. What does not fit is in the result too, with its reason.
    pub async fn load(config: &Config, dir: &Path, services: Arc<Services>) -> Result<Self, RegistryError> {
        let engine = Engine::new(config)?;
        let linker = imports::linker(&engine.inner)?;
        let host = Arc::new(Host { dir: dir.to_owned(), engine, linker, services });
        let nothing = Registry { plugins: BTreeMap::new(), host: Some(host) };
        Ok(nothing.reload(config, Duration::ZERO).await?.registry)
    }

    /// What the folder and the configuration say now. What did not change stays as it is; what cannot serve leaves the
    /// revision before it serving, where there is one.
    pub async fn reload_now(&self, config: &Config) -> Result<Reloaded, RegistryError> {
        self.reload(config, SETTLING).await
    }

    async fn reload(&self, config: &Config, settling: Duration) -> Result<Reloaded, RegistryError> {
        let Some(host) = &self.host else {
            return Ok(Reloaded { registry: Registry::empty(), changes: Vec::new(), is_unsettled: false });
        };
        let files =
            component_files(&host.dir).map_err(|source| RegistryError::Folder { dir: host.dir.clone(), source })?;
        let config = Arc::new(config.clone());
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let looked_at = stream::iter(files).map(|file| self.look_at(file, host, &config)).buffered(at_once);
        let looked_at: Vec<Found> = looked_at.collect().await;
        let (mut plugins, mut changes, mut is_unsettled) = (BTreeMap::new(), Vec::new(), false);
        for Found { name, stamp, loaded } in looked_at {
            let before = self.plugins.get(&name);
            let plugin = match (loaded, before) {
                (None, Some(before)) => before.clone(),
                (None, None) => continue,
                (Some(loaded), _) if loaded.is_broken() && stamp.is_younger_than(settling) => {
                    is_unsettled = true;
                    plugins.extend(before.map(|before| (before.name.clone(), before.clone())));
                    continue;
                }
                (Some(loaded), _) => Arc::new(Plugin { stamp, ..loaded }.or_else(before, &config)),
            };
            changes.extend(change(before, &plugin));
            plugins.insert(plugin.name.clone(), plugin);
        }
        for gone in self.plugins.values().filter(|before| !plugins.contains_key(&before.name)).collect::<Vec<_>>() {
            let left = gone.without_its_file(&config);
            changes.extend(change(Some(gone), &left));
            if left.is_broken() {
                plugins.insert(left.name.clone(), left);
            }
        }
        for change in &changes {
            change.log();
        }
        let engine = host.engine.clone();
        tasks::blocking(move || engine.prune_cache()).await.unwrap_or_else(|panicked| {
            tracing::error!("Compiled code could not be pruned: {panicked}");
        });
        Ok(Reloaded { registry: Registry { plugins, host: Some(host.clone()) }, changes, is_unsettled })
    }

    /// Loads one file, unless it is what it was.
    async fn look_at(&self, file: PathBuf, host: &Arc<Host>, config: &Arc<Config>) -> Found {
        let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let stamp = Stamp::of(&file);
        if self.plugins.get(&name).is_some_and(|before| before.is_current(&stamp, config)) {
            return Found { name, stamp, loaded: None };
        }
        let loader = Loader { config: config.clone(), host: host.clone() };
        let loaded = loader.load(name.clone(), file).await;
        Found { name, stamp, loaded: Some(loaded) }
    }

    /// Completes when the clock that bounds the guests' time has ended, which it does only after a bug.
    pub async fn ended(&self) {
        match &self.host {
            Some(host) => host.engine.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Names and types of the channels among the plugins, whether they serve or not.
    pub fn channels(&self) -> impl Iterator<Item = (&Plugin, &ChannelInfo)> {
        self.plugins.values().filter_map(|p| p.channel.as_ref().map(|info| (p.as_ref(), info)))
    }
}

/// How a plugin's files looked when they were read: enough to see that they have changed without reading them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    component: Option<FileStamp>,
    manifest: Option<FileStamp>,
    signature: Option<FileStamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    fn of(component: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let stamp = |file: &Path| {
            let meta = std::fs::metadata(file).ok()?;
            Some(FileStamp { bytes: meta.len(), modified: meta.modified().ok(), inode: meta.ino() })
        };
        Stamp {
            component: stamp(component),
            manifest: stamp(&component.with_extension("toml")),
            signature: stamp(&signature::file_of(component)),
        }
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        let files = self.component.iter().chain(&self.manifest).chain(&self.signature);
        files.filter_map(|f| f.modified?.elapsed().ok()).any(|elapsed| elapsed < age)
    }
}

impl Plugin {
    fn is_broken(&self) -> bool {
        matches!(self.state, PluginState::Broken(_))
    }

    /// Whether loading it again could come to anything else.
    fn is_current(&self, stamp: &Stamp, config: &Config) -> bool {
        let settings = config.plugins.get(&self.name).cloned().unwrap_or_default();
        self.stamp == *stamp
            // Where its section stands in ace.toml changes nothing.
            && self.settings == config::Plugin { line: self.settings.line, ..settings }
            && self.limits == config.limits
            && (self.state == PluginState::Disabled) != is_wanted(self, config)
    }

    /// A new version that cannot serve leaves the one before serving. Not so where the settings have changed: nothing goes
    /// on with grants that were taken away.
    fn or_else(self, before: Option<&Arc<Plugin>>, config: &Config) -> Plugin {
        let PluginState::Broken(reason) = &self.state else { return self };
        match before {
            Some(before)
                if before.runtime.is_some() && before.settings == self.settings && is_wanted(before, config) =>
            {
                Plugin { rejected: Some(reason.clone()), stamp: self.stamp, ..before.as_ref().clone() }
            }
            _ => self,
        }
    }

    /// What is left of it when its file is gone: nothing, unless ace.toml names it.
    fn without_its_file(&self, config: &Config) -> Arc<Plugin> {
        let state = match is_enforced(self, config) && is_wanted(self, config) {
            true => PluginState::Broken("its file is gone from the plugin folder".to_owned()),
            false => PluginState::Disabled,
        };
        Arc::new(Plugin { state, runtime: None, channel: None, stamp: Stamp::default(), ..self.clone() })
    }
}

fn change(before: Option<&Arc<Plugin>>, now: &Arc<Plugin>) -> Option<Change> {
    if before.is_some_and(|before| Arc::ptr_eq(before, now)) {
        return None;
    }
    let served = before.filter(|b| b.runtime.is_some()).map(|b| b.revision.clone());
    let what = match (&now.state, &now.rejected, served) {
        (PluginState::Active, Some(reason), _) => {
            What::Rejected { reason: reason.clone(), serving: now.revision.clone() }
        }
        (PluginState::Active, None, None) => What::Added { revision: now.revision.clone() },
        (PluginState::Active, None, Some(from)) => What::Replaced { from, to: now.revision.clone() },
        (PluginState::Broken(reason), ..) => What::Broken { reason: reason.clone() },
        (PluginState::Disabled, _, Some(_)) => What::Removed,
        (PluginState::Disabled, _, None) => return None,
    };
    Some(Change { plugin: now.name.clone(), what })
}

impl Change {
    fn log(&self) {
        let plugin = self.plugin.as_str();
        match &self.what {
            What::Added { revision } => tracing::info!(plugin, revision, "The plugin serves."),
            What::Replaced { from, to } => tracing::info!(plugin, from, to, "The plugin serves in a new revision."),
            What::Rejected { reason, serving } => {
                tracing::error!(plugin, serving, "The new version cannot serve, and the one before goes on: {reason}");
            }
            What::Broken { reason } => tracing::error!(plugin, "The plugin cannot serve: {reason}"),
            What::Removed => tracing::info!(plugin, "The plugin does not serve any more."),
        }
    }
}

/// Whether ace.toml lets a plugin serve in any of its namespaces.
pub(super) fn is_wanted(plugin: &Plugin, config: &Config) -> bool {
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|names| names.contains(&plugin.name));
    config.plugins.get(&plugin.name).is_none_or(|p| p.enabled)
        && (plugin.namespaces.is_empty()
            || plugin.namespaces.iter().any(|namespace| match namespace {
                Namespace::Policy => listed(&config.enabled_policies),
                Namespace::Channel => listed(&config.enabled_channels),
                Namespace::RecipientResolver => true,
            }))
}

fn component_files(dir: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "wasm") && !hidden {
            files.insert(path);
        }
    }
    Ok(files)
}

/// Whether a plugin that cannot serve stands for a policy that must not fail open: ace.toml names it, and it is a policy, or
/// nobody could read what it is and nothing in ace.toml says it is a channel; or it served before, and its file is there.
pub fn is_enforced(plugin: &Plugin, config: &Config) -> bool {
    let name = &plugin.name;
    if config.enforced_before.contains(name) && plugin.file.exists() {
        return true;
    }
    let lists = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|names| names.contains(name));
    if config.enabled_policies.is_some() {
        return lists(&config.enabled_policies);
    }
    if !plugin.namespaces.is_empty() {
        return plugin.namespaces.contains(&Namespace::Policy) && config.plugins.contains_key(name);
    }
    let routing = &config.routing;
    let single = routing.default.values().chain(routing.transactional.values());
    let mut routed = single.chain(routing.listed.values().flatten()).chain(routing.failover.values().flatten());
    let is_channel = lists(&config.enabled_channels) || routed.any(|routed| routed == name);
    config.plugins.contains_key(name) && !is_channel
}
