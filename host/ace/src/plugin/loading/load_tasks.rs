//! Plugins that are being loaded, each in a task of its own, independent of the reload that started it. A slow plugin does not delay
//! others, and gets the settings that are current when it is ready.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};

use super::host::Host;
use super::loader::Loader;
use super::stamp::{FileStamps, SETTLE_TIME};
use super::versions::is_enabled;
use crate::config::Config;
use crate::plugin::{Plugin, PluginState, Rejected};
use crate::tasks::Panicked;

/// The least number of plugins that are read at the same time: the compiler must know which ones wait for it.
const READING_MIN: usize = 8;
/// The most plugins that are started at the same time.
const STARTING_MAX: usize = 32;

/// Plugins that are being loaded, and loaded ones that no reload has taken yet.
pub(super) struct LoadTasks {
    pub host: Arc<Host>,
    by_name: Mutex<BTreeMap<String, LoadTask>>,
    /// The configuration of the latest reload.
    config: ArcSwap<Config>,
    /// Limits the files that are in memory. The compiler limits how many of them it compiles.
    reading: Semaphore,
    starting: Semaphore,
    /// How many tasks were started.
    started: AtomicU64,
    /// How many tasks have ended.
    ended: watch::Sender<u64>,
}

struct LoadTask {
    /// The stamp of the files that are loaded.
    stamp: FileStamps,
    /// The files were changed so recently that they may have been incomplete.
    is_early: bool,
    number: u64,
    loaded: Option<Plugin>,
}

/// The state of a plugin's files.
pub(super) enum LoadState {
    /// They are loaded, with the current settings.
    Loaded(Box<Plugin>),
    /// They are faulty, but may still be being written: check again soon.
    Unsettled,
    /// They are still being loaded.
    Loading,
}

/// A plugin whose files are to be loaded.
pub(super) struct Wanted {
    pub name: String,
    pub file: PathBuf,
    pub stamp: FileStamps,
    /// The plugin as it is now.
    pub before: Option<Arc<Plugin>>,
}

impl LoadTasks {
    pub(super) fn new(host: Arc<Host>, config: Arc<Config>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        LoadTasks {
            host,
            by_name: Mutex::default(),
            config: ArcSwap::new(config),
            reading: Semaphore::new(processors.max(READING_MIN)),
            starting: Semaphore::new(STARTING_MAX),
            started: AtomicU64::new(0),
            ended: watch::Sender::new(0),
        }
    }

    /// Sets the configuration for all plugins that are being loaded.
    pub(super) fn set_config(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    /// Drops all plugins except these.
    pub(super) fn retain(&self, is_enabled: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| is_enabled(name));
    }

    /// Starts to load these files, unless they are being loaded, or are loaded with the current settings.
    pub(super) fn ensure_loading(self: &Arc<Self>, wanted: Wanted) {
        let (mut by_name, config) = (self.lock(), self.config.load());
        let mut start_again = None;
        if let Some(load) = by_name.get_mut(&wanted.name).filter(|load| load.stamp == wanted.stamp) {
            match load.loaded.take_if(|loaded| !loaded.is_current(&wanted.stamp, &config)) {
                // Its settings have changed. The compiled code can be used again.
                Some(loaded) => start_again = loaded.code.is_some().then_some(loaded),
                None => return,
            }
        }
        // The same applies to an active plugin, unless its code is from earlier files.
        let is_same_code = |before: &Plugin| before.has_code_of(&wanted.stamp);
        let read = start_again.or_else(|| wanted.before.as_deref().filter(|b| is_same_code(b)).cloned());
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let is_early = wanted.stamp.is_younger_than(SETTLE_TIME);
        let load = LoadTask { stamp: wanted.stamp.clone(), is_early, number, loaded: None };
        by_name.insert(wanted.name.clone(), load);
        tokio::spawn(run(self.clone(), wanted, read, number));
    }

    /// The state of these files. A loaded plugin is returned only once. `settle_time`: how long after their last change faulty files
    /// may still be being written.
    pub(super) fn take(&self, name: &str, stamp: &FileStamps, settle_time: Duration) -> LoadState {
        let (mut by_name, config) = (self.lock(), self.config.load());
        let Some(load) = by_name.get(name) else { return LoadState::Loading };
        let Some(loaded) = load.loaded.as_ref().filter(|loaded| loaded.is_current(stamp, &config)) else {
            return LoadState::Loading;
        };
        let is_broken = matches!(loaded.state, PluginState::Broken(_));
        // They are loaded again after they change, or after the settle time.
        if is_broken && stamp.is_younger_than(settle_time) {
            return LoadState::Unsettled;
        }
        let is_early = load.is_early && !settle_time.is_zero();
        match by_name.remove(name).and_then(|load| load.loaded) {
            Some(loaded) if !is_broken || !is_early => LoadState::Loaded(Box::new(loaded)),
            _ => LoadState::Unsettled,
        }
    }

    /// Waits until all plugins are loaded, at most this long.
    pub(super) async fn wait(&self, at_most: Option<Duration>) {
        let mut ended = self.ended();
        let all = async {
            while self.lock().values().any(|load| load.loaded.is_none()) {
                // The sender lives as long as `self`.
                let _ = ended.changed().await;
            }
        };
        match at_most {
            None => all.await,
            Some(time) => drop(tokio::time::timeout(time, all).await),
        }
    }

    /// Changes each time a plugin is loaded, from now on.
    pub(super) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    fn put(&self, name: &str, number: u64, plugin: Plugin) {
        // If the number differs, a newer task loads changed files or settings.
        if let Some(load) = self.lock().get_mut(name).filter(|load| load.number == number) {
            load.loaded = Some(plugin);
        }
        self.ended.send_modify(|ended| *ended += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LoadTask>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads one plugin. The task ends even if loading panics.
async fn run(tasks: Arc<LoadTasks>, wanted: Wanted, read: Option<Plugin>, number: u64) {
    let (name, file, stamp) = (wanted.name.clone(), wanted.file.clone(), wanted.stamp.clone());
    let loaded = tokio::spawn(load(tasks.clone(), wanted, read)).await.unwrap_or_else(|error| {
        let config = tasks.config.load();
        let settings = config.plugins.get(&name).cloned().unwrap_or_default();
        let mut plugin = Plugin::unread(name.clone(), file, settings, config.fixed.limits.clone());
        if is_enabled(&plugin, &config) {
            plugin.state = PluginState::Broken(Panicked::from(error).to_string());
        }
        plugin
    });
    tasks.put(&name, number, Plugin { stamp, ..loaded });
}

async fn load(tasks: Arc<LoadTasks>, wanted: Wanted, read: Option<Plugin>) -> Plugin {
    let loader = || Loader { config: tasks.config.load_full(), host: tasks.host.clone() };
    let Wanted { name, file, before, .. } = wanted;
    let read = match read {
        Some(read) => read,
        None => {
            let _one_of_few = tasks.reading.acquire().await;
            loader().read(name, file).await
        }
    };
    let _one_of_few = tasks.starting.acquire().await;
    // The current settings, because reading may have taken long.
    let loader = loader();
    let loaded = loader.start(read).await;
    match (&loaded.state, before) {
        (PluginState::Broken(reason), Some(before)) if before.can_replace(&loaded, &loader.config) => {
            // The previous version must not stay active with old settings, so it is started again with the current ones.
            let again = loader.start(before.as_ref().clone()).await;
            let rejected = Rejected { revision: loaded.revision.clone(), reason: reason.clone() };
            if again.state == PluginState::Active { Plugin { rejected: Some(rejected), ..again } } else { loaded }
        }
        _ => loaded,
    }
}
