//! Plugins on their way in. Each is loaded in a task of its own, apart from the reload that asked for it: one that takes long, or
//! never ends, holds up nobody else, and comes in with the settings of the moment at which it is ready.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};

use super::host::Host;
use super::loader::Loader;
use super::stamp::{FileStamps, SETTLING};
use super::versions::is_wanted;
use crate::config::Config;
use crate::plugin::{Plugin, PluginState, Rejected};
use crate::tasks::Panicked;

/// Plugins that are read at once where there are fewer processors: whoever waits for a compiler has to be known to it.
const READING_MIN: usize = 8;
/// Plugins that are asked at once whether they can work.
const STARTING_MAX: usize = 32;

/// Plugins that are being loaded, and those that were and nobody has taken yet.
pub(super) struct Loads {
    pub host: Arc<Host>,
    by_name: Mutex<BTreeMap<String, Load>>,
    /// As the last reload read it.
    config: ArcSwap<Config>,
    /// Bytes of so many files are in memory. How many of them are compiled is the compiler's business.
    reading: Semaphore,
    starting: Semaphore,
    /// How many were begun.
    begun: AtomicU64,
    /// How many have ended.
    ended: watch::Sender<u64>,
}

struct Load {
    /// Of the files that are loaded.
    stamp: FileStamps,
    /// The files were changed so lately that they may not have been whole.
    is_early: bool,
    number: u64,
    loaded: Option<Plugin>,
}

/// What files came to.
pub(super) enum Taken {
    /// A plugin with the settings of now.
    Loaded(Box<Plugin>),
    /// They are wrong, and may still be being written: look again soon.
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

impl Loads {
    pub(super) fn new(host: Arc<Host>, config: Arc<Config>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Loads {
            host,
            by_name: Mutex::default(),
            config: ArcSwap::new(config),
            reading: Semaphore::new(processors.max(READING_MIN)),
            starting: Semaphore::new(STARTING_MAX),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
        }
    }

    /// What holds from now on for all that is being loaded.
    pub(super) fn set_config(&self, config: Arc<Config>) {
        self.config.store(config);
    }

    /// Forgets all plugins but these.
    pub(super) fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| is_wanted(name));
    }

    /// Sees to it that these files are being loaded, or were, with the settings of now.
    pub(super) fn see_to(self: &Arc<Self>, wanted: Wanted) {
        let (mut by_name, config) = (self.lock(), self.config.load());
        let mut start_again = None;
        if let Some(load) = by_name.get_mut(&wanted.name).filter(|load| load.stamp == wanted.stamp) {
            match load.loaded.take_if(|loaded| !loaded.is_current(&wanted.stamp, &config)) {
                // Its settings changed meanwhile. What was read and compiled still holds.
                Some(loaded) => start_again = loaded.code.is_some().then_some(loaded),
                None => return,
            }
        }
        // The same goes for a plugin that serves, unless its code is that of files before these.
        let is_same_code = |before: &Plugin| before.has_code_of(&wanted.stamp);
        let read = start_again.or_else(|| wanted.before.as_deref().filter(|b| is_same_code(b)).cloned());
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let is_early = wanted.stamp.is_younger_than(SETTLING);
        let load = Load { stamp: wanted.stamp.clone(), is_early, number, loaded: None };
        by_name.insert(wanted.name.clone(), load);
        tokio::spawn(run(self.clone(), wanted, read, number));
    }

    /// What these files came to; a plugin once. `settling`: for how long after their last change files that are wrong may still be
    /// being written.
    pub(super) fn take(&self, name: &str, stamp: &FileStamps, settling: Duration) -> Taken {
        let (mut by_name, config) = (self.lock(), self.config.load());
        let Some(load) = by_name.get(name) else { return Taken::Loading };
        let Some(loaded) = load.loaded.as_ref().filter(|loaded| loaded.is_current(stamp, &config)) else {
            return Taken::Loading;
        };
        let is_broken = matches!(loaded.state, PluginState::Broken(_));
        // They are not loaded again before they change, or are still.
        if is_broken && stamp.is_younger_than(settling) {
            return Taken::Unsettled;
        }
        let is_early = load.is_early && !settling.is_zero();
        match by_name.remove(name).and_then(|load| load.loaded) {
            Some(loaded) if !is_broken || !is_early => Taken::Loaded(Box::new(loaded)),
            _ => Taken::Unsettled,
        }
    }

    /// Waits until nothing is being loaded any more, at most so long.
    pub(super) async fn settle(&self, at_most: Option<Duration>) {
        let mut ended = self.ended();
        let all = async {
            while self.lock().values().any(|load| load.loaded.is_none()) {
                // The sender lives as long as this.
                let _ = ended.changed().await;
            }
        };
        match at_most {
            None => all.await,
            Some(time) => drop(tokio::time::timeout(time, all).await),
        }
    }

    /// Changes when a plugin is loaded, from now on.
    pub(super) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    fn put(&self, name: &str, number: u64, plugin: Plugin) {
        // Where it is another one by now, the files or what is wanted of them changed meanwhile.
        if let Some(load) = self.lock().get_mut(name).filter(|load| load.number == number) {
            load.loaded = Some(plugin);
        }
        self.ended.send_modify(|ended| *ended += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Load>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads one plugin; whatever happens, the load ends.
async fn run(loads: Arc<Loads>, wanted: Wanted, read: Option<Plugin>, number: u64) {
    let (name, file, stamp) = (wanted.name.clone(), wanted.file.clone(), wanted.stamp.clone());
    let loaded = tokio::spawn(load(loads.clone(), wanted, read)).await.unwrap_or_else(|error| {
        let config = loads.config.load();
        let settings = config.plugins.get(&name).cloned().unwrap_or_default();
        let mut plugin = Plugin::unread(name.clone(), file, settings, config.fixed.limits.clone());
        if is_wanted(&plugin, &config) {
            plugin.state = PluginState::Broken(Panicked::from(error).to_string());
        }
        plugin
    });
    loads.put(&name, number, Plugin { stamp, ..loaded });
}

async fn load(loads: Arc<Loads>, wanted: Wanted, read: Option<Plugin>) -> Plugin {
    let loader = || Loader { config: loads.config.load_full(), host: loads.host.clone() };
    let Wanted { name, file, before, .. } = wanted;
    let read = match read {
        Some(read) => read,
        None => {
            let _one_of_few = loads.reading.acquire().await;
            loader().read(name, file).await
        }
    };
    let _one_of_few = loads.starting.acquire().await;
    // The settings of now: reading may have taken long.
    let loader = loader();
    let loaded = loader.start(read).await;
    match (&loaded.state, before) {
        (PluginState::Broken(reason), Some(before)) if before.goes_on_instead_of(&loaded, &loader.config) => {
            // Nothing goes on with settings that are no more: what served before is started anew with those of now.
            let again = loader.start(before.as_ref().clone()).await;
            let rejected = Rejected { revision: loaded.revision.clone(), reason: reason.clone() };
            if again.state == PluginState::Active { Plugin { rejected: Some(rejected), ..again } } else { loaded }
        }
        _ => loaded,
    }
}
