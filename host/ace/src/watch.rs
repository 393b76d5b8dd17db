//! Reloads plugins, templates and ace.toml when their files have changed and are unchanged for a moment, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::{Ace, FileState, StartError, Watched};
use crate::tasks::{self, Panicked};
use ace_store::files::FileStamp;

/// How long files must be unchanged before a reload.
const SETTLE_TIME: Duration = Duration::from_millis(50);
/// How often ace.toml and the identity of folders are checked. The folder of ace.toml is not watched, because the queue's database may
/// be in it, and each write would wake the watcher.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// When to check again after a change, or while a faulty file may still be being written: the watcher does not report every change
/// when several follow each other.
const CHECK_AGAIN: Duration = Duration::from_millis(300);
/// How often files are checked if the system cannot watch them.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The most links in one folder, entries that are searched for links, and levels of folders.
const LINKS_MAX: usize = 4_096;
const ENTRIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 16;

/// Watches the files of one engine.
pub struct Watch {
    ace: Arc<Ace>,
    state: WatchedState,
    changed: Arc<Notify>,
    hangups: Option<Signal>,
    announce: Option<Announce>,
    /// `None` if the system cannot watch files.
    watcher: Option<Watcher>,
    /// Whether the log says so.
    is_failure_logged: bool,
}

/// A reload that SIGHUP asked for, as [`Watch::on_hangup`] announces it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Hangup<'a> {
    /// The reload starts.
    Reloading,
    /// The reload has ended, with the error if nothing was reloaded.
    Reloaded(Option<&'a StartError>),
}

type Announce = Box<dyn Fn(Hangup<'_>) + Send + Sync>;

/// Why files are no longer watched, which only a bug can cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The thread that watches files has ended.
    #[error("the thread that watches files has ended")]
    Ended,
    /// It panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// The state of ace.toml and of the watched folders.
#[derive(Clone, PartialEq)]
struct WatchedState {
    config: Option<FileState>,
    folders: Vec<Folder>,
}

/// A watched folder. The system watches the folder itself, not its path, which may later lead to another folder.
#[derive(Clone, PartialEq)]
struct Folder {
    path: PathBuf,
    /// Whether folders below it are watched too.
    is_recursive: bool,
    /// Device and inode; `None` if it does not exist.
    identity: Option<(u64, u64)>,
    /// The links in it, with the stamps of their targets. The system does not report changes behind a link, and Kubernetes updates a
    /// mounted ConfigMap by changing links.
    links: Vec<(PathBuf, Option<FileStamp>)>,
}

impl Folder {
    /// The current state of a folder. Blocks.
    fn read(path: PathBuf, is_recursive: bool) -> Self {
        let (mut links, mut entries_left) = (Vec::new(), ENTRIES_MAX);
        add_links(&path, if is_recursive { DEPTH_MAX } else { 1 }, &mut entries_left, &mut links);
        links.sort();
        Folder { path, is_recursive, identity: None, links }.refresh()
    }

    /// The current state of the same folder and links. Blocks.
    fn refresh(self) -> Self {
        let identity = FileStamp::of(&self.path).map(|stamp| stamp.id());
        let mut folder = Folder { identity, ..self };
        folder.links.iter_mut().for_each(|(link, stamp)| *stamp = FileStamp::of(link));
        folder
    }
}

/// Adds the links in a folder, and in folders of templates below it.
fn add_links(folder: &Path, depth: usize, entries_left: &mut usize, links: &mut Vec<(PathBuf, Option<FileStamp>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if *entries_left == 0 || links.len() == LINKS_MAX {
            return;
        }
        *entries_left -= 1;
        let (path, is_hidden) = (entry.path(), entry.file_name().as_encoded_bytes().starts_with(b"."));
        let kind = entry.file_type();
        if kind.as_ref().is_ok_and(|kind| kind.is_symlink()) {
            links.push((path.clone(), None));
        }
        if depth > 1 && !is_hidden && path.is_dir() {
            add_links(&path, depth - 1, entries_left, links);
        }
    }
}

impl WatchedState {
    fn new(watched: Watched) -> Self {
        let plugins = watched.plugins.into_iter().map(|path| Folder::read(path, false));
        let templates = watched.templates.into_iter().map(|path| Folder::read(path, true));
        WatchedState { config: watched.config, folders: plugins.chain(templates).collect() }
    }

    async fn refresh(&self) -> Result<WatchedState, Panicked> {
        let state = self.clone();
        tasks::blocking(move || WatchedState {
            config: state.config.map(|config| config.refresh()),
            folders: state.folders.into_iter().map(Folder::refresh).collect(),
        })
        .await
    }

    /// Completes with the new state when something has changed and is unchanged for a moment.
    async fn changed(&self) -> Result<WatchedState, Panicked> {
        if self.config.is_none() && self.folders.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let mut now = self.refresh().await?;
            while now != *self {
                tokio::time::sleep(SETTLE_TIME).await;
                let later = now.refresh().await?;
                if later == now {
                    return Ok(now);
                }
                now = later;
            }
        }
    }
}

impl Watch {
    /// Starts to watch. No change of ace.toml since it was read is missed, and no later change of other files. SIGHUP no longer ends
    /// the process. Needs a tokio runtime.
    pub fn start(ace: Arc<Ace>) -> Self {
        let hangups = signal(SignalKind::hangup()).ok();
        let state = WatchedState::new(ace.watched());
        let mut watch = Watch {
            ace,
            state,
            changed: Arc::default(),
            hangups,
            announce: None,
            watcher: None,
            is_failure_logged: false,
        };
        let watcher = Watcher::start(&watch.state.folders, watch.changed.clone());
        watch.set_watcher(watcher);
        watch
    }

    /// Calls `announce` when a reload that SIGHUP asked for starts, and when it ends.
    #[must_use]
    pub fn on_hangup(self, announce: impl Fn(Hangup<'_>) + Send + Sync + 'static) -> Self {
        Watch { announce: Some(Box::new(announce)), ..self }
    }

    /// Reloads changed files, as long as it is polled.
    ///
    /// # Errors
    /// It cannot continue, which only a bug can cause. A new `Watch` can replace it.
    pub async fn run(mut self) -> Result<(), WatchError> {
        // Files may have changed after they were read and before they were watched.
        let mut checks_again = true;
        let mut loaded = self.ace.loaded();
        loop {
            let mut announce: &(dyn Fn(Hangup<'_>) + Sync) = &|_| {};
            tokio::select! {
                () = self.changed.notified() => {}
                state = self.state.changed() => self.update(state?).await?,
                () = hangup(&mut self.hangups) => {
                    tracing::info!("SIGHUP: reloading plugins, templates and ace.toml.");
                    announce = self.announce.as_ref().map_or(announce, |announce| announce.as_ref());
                }
                () = tokio::time::sleep(CHECK_AGAIN), if checks_again => {}
                Ok(()) = loaded.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL), if self.watcher.is_none() => self.restart_watcher().await?,
                () = ended(&self.watcher) => return Err(WatchError::Ended),
            }
            loaded.mark_unchanged();
            checks_again = reload(&self.ace, announce).await;
            self.follow().await?;
        }
    }

    /// Stores the new state, and watches folders that have replaced others.
    async fn update(&mut self, now: WatchedState) -> Result<(), WatchError> {
        let are_same = self.state.folders == now.folders;
        self.state = now;
        if are_same { Ok(()) } else { self.restart_watcher().await }
    }

    /// Watches the folders of the reloaded configuration, and the links in them.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let watched = self.ace.watched();
        let folders = tasks::blocking(move || WatchedState::new(watched).folders).await?;
        if folders == self.state.folders {
            return Ok(());
        }
        self.state.folders = folders;
        self.restart_watcher().await?;
        // They may have changed before they were watched.
        self.changed.notify_one();
        Ok(())
    }

    async fn restart_watcher(&mut self) -> Result<(), WatchError> {
        let (folders, changed) = (self.state.folders.clone(), self.changed.clone());
        let watcher = tasks::blocking(move || Watcher::start(&folders, changed)).await;
        self.set_watcher(watcher?);
        Ok(())
    }

    fn set_watcher(&mut self, watcher: notify::Result<Watcher>) {
        let was_logged = std::mem::replace(&mut self.is_failure_logged, watcher.is_err());
        match &watcher {
            Err(error) if !was_logged => {
                tracing::error!("Files cannot be watched; they are checked every {POLL_INTERVAL:?} instead: {error}");
            }
            Ok(_) if was_logged => tracing::info!("Files are watched again."),
            _ => {}
        }
        self.watcher = watcher.ok();
    }
}

async fn hangup(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn ended(watcher: &Option<Watcher>) {
    match watcher {
        Some(watcher) => watcher.ended.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Reloads. Returns whether to reload again soon.
async fn reload(ace: &Ace, announce: &(dyn Fn(Hangup<'_>) + Sync)) -> bool {
    announce(Hangup::Reloading);
    let reloaded = ace.reload_ready().await;
    announce(Hangup::Reloaded(reloaded.as_ref().err()));
    match reloaded {
        Ok(reload) => reload.files_changing || !reload.changes.is_empty(),
        Err(error) => {
            tracing::error!("Nothing was reloaded; the previous configuration stays in use: {error}");
            false
        }
    }
}

/// A thread that notifies when files in the folders change.
struct Watcher {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    /// Cancelled when the thread ends.
    ended: CancellationToken,
}

impl Watcher {
    fn start(folders: &[Folder], changed: Arc<Notify>) -> notify::Result<Watcher> {
        let ended = CancellationToken::new();
        let listener = Listener::new(folders, changed, ended.clone().drop_guard());
        let mut debouncer = new_debouncer(SETTLE_TIME, None, move |events| listener.handle(events))?;
        // A missing folder is watched when it exists.
        for folder in folders.iter().filter(|folder| folder.identity.is_some()) {
            let mode = if folder.is_recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            debouncer.watch(&folder.path, mode)?;
        }
        Ok(Watcher { _debouncer: debouncer, ended })
    }
}

/// Belongs to the watcher's thread, and is dropped with it.
struct Listener {
    /// All paths that the system may report for a folder: as given, absolute, and with links resolved.
    folders: Vec<PathBuf>,
    changed: Arc<Notify>,
    _ended: DropGuard,
}

impl Listener {
    fn new(folders: &[Folder], changed: Arc<Notify>, ended: DropGuard) -> Self {
        let names = |folder: &Folder| {
            let (absolute, canonical) = (std::path::absolute(&folder.path), folder.path.canonicalize());
            [Some(folder.path.clone()), absolute.ok(), canonical.ok()]
        };
        Listener { folders: folders.iter().flat_map(names).flatten().collect(), changed, _ended: ended }
    }

    fn handle(&self, events: DebounceEventResult) {
        match events {
            Ok(events) if events.iter().all(|e| e.kind.is_access() || !e.paths.iter().any(|p| self.concerns(p))) => {}
            // Also after an error: events may have been lost.
            _ => self.changed.notify_one(),
        }
    }

    fn concerns(&self, path: &Path) -> bool {
        self.folders.iter().any(|dir| path.starts_with(dir))
    }
}
