//! Reloads what changes: plugins, templates and ace.toml, as soon as their files are still for a moment, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::{Ace, Seen, Watched};
use crate::tasks::{self, Panicked};
use ace_store::files::FileStamp;

/// Files must have been still for so long.
const STILL: Duration = Duration::from_millis(50);
/// How often ace.toml is looked at, and whether the folders are still the same ones. The folder of ace.toml is not watched: the
/// queue's database may be in it, and each of its writes would wake the watcher.
const LOOK: Duration = Duration::from_millis(250);
/// When to look again after something was taken up, or was wrong and being written: the watcher says nothing of a file that came and
/// went between two of its words, and the first of them may have been taken up for another's sake.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How often everything is looked at where the system cannot watch it.
const POLL: Duration = Duration::from_secs(5);
/// Links in one folder that are looked at, entries among which they are looked for, and how deep.
const LINKS_MAX: usize = 4_096;
const ENTRIES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 16;

/// What watches over one engine.
pub struct Watch {
    ace: Arc<Ace>,
    seen: Looked,
    changed: Arc<Notify>,
    hangups: Option<Signal>,
    /// Watches for as long as it lives; `None` where the system cannot.
    watcher: Option<Watcher>,
    /// Whether that was told.
    is_told: bool,
}

/// Why files are watched no more, which takes a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The thread that watches files has ended.
    #[error("the thread that watches files has ended")]
    Ended,
    /// It panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// How the files looked that are not watched.
#[derive(Clone, PartialEq)]
struct Looked {
    config: Option<Seen>,
    folders: Vec<Folder>,
}

/// A watched folder. What is watched is the folder itself, not its name: under that another one may be found later.
#[derive(Clone, PartialEq)]
struct Folder {
    path: PathBuf,
    /// With all that is below it.
    is_recursive: bool,
    /// Device and inode; `None` where it is not there.
    identity: Option<(u64, u64)>,
    /// The links in it, and how what they lead to looks. The system says nothing of what happens behind a link: that it leads
    /// elsewhere, in two steps or more, is how Kubernetes changes what it mounts of a ConfigMap.
    links: Vec<(PathBuf, Option<FileStamp>)>,
}

impl Folder {
    /// Blocks.
    fn look(path: PathBuf, is_recursive: bool) -> Self {
        let (mut links, mut entries_left) = (Vec::new(), ENTRIES_MAX);
        add_links(&path, if is_recursive { DEPTH_MAX } else { 1 }, &mut entries_left, &mut links);
        links.sort();
        Folder { path, is_recursive, identity: None, links }.again()
    }

    /// The same folder and links, as they look now. Blocks.
    fn again(self) -> Self {
        let identity = FileStamp::of(&self.path).map(|stamp| stamp.id());
        let mut folder = Folder { identity, ..self };
        folder.links.iter_mut().for_each(|(link, stamp)| *stamp = FileStamp::of(link));
        folder
    }
}

/// Adds the links in a folder, and in those below it that templates are looked for in.
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

impl Looked {
    fn new(watched: Watched) -> Self {
        let plugins = watched.plugins.into_iter().map(|path| Folder::look(path, false));
        let templates = watched.templates.into_iter().map(|path| Folder::look(path, true));
        Looked { config: watched.config, folders: plugins.chain(templates).collect() }
    }

    async fn again(&self) -> Result<Looked, Panicked> {
        let seen = self.clone();
        tasks::blocking(move || Looked {
            config: seen.config.map(|config| config.again()),
            folders: seen.folders.into_iter().map(Folder::again).collect(),
        })
        .await
    }

    /// Completes with how things look when they look different than before, and have been still.
    async fn changed(&self) -> Result<Looked, Panicked> {
        if self.config.is_none() && self.folders.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let mut now = self.again().await?;
            while now != *self {
                tokio::time::sleep(STILL).await;
                let later = now.again().await?;
                if later == now {
                    return Ok(now);
                }
                now = later;
            }
        }
    }
}

impl Watch {
    /// No change of ace.toml since it was read is missed, and of other files none from here on; SIGHUP does not end the process.
    /// Needs a tokio runtime.
    pub fn start(ace: Arc<Ace>) -> Self {
        let hangups = signal(SignalKind::hangup()).ok();
        let seen = Looked::new(ace.watched());
        let mut watch = Watch { ace, seen, changed: Arc::new(Notify::new()), hangups, watcher: None, is_told: false };
        let watcher = Watcher::start(&watch.seen.folders, watch.changed.clone());
        watch.watch_with(watcher);
        watch
    }

    /// Reloads what changes, for as long as it is polled.
    ///
    /// # Errors
    /// It cannot go on, which takes a bug; another one can take its place.
    pub async fn run(mut self) -> Result<(), WatchError> {
        // What changed after it was read, and while nobody watched.
        let mut looks_again = true;
        let mut loaded = self.ace.loaded();
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                seen = self.seen.changed() => self.look_different(seen?).await?,
                () = hangup(&mut self.hangups) => tracing::info!("SIGHUP: reloading plugins, templates and ace.toml."),
                () = tokio::time::sleep(LOOK_AGAIN), if looks_again => {}
                Ok(()) = loaded.changed() => {}
                () = tokio::time::sleep(POLL), if self.watcher.is_none() => self.watch_anew().await?,
                () = ended(&self.watcher) => return Err(WatchError::Ended),
            }
            loaded.mark_unchanged();
            looks_again = reload(&self.ace).await;
            self.follow().await?;
        }
    }

    /// Remembers how things look now, and watches a folder that took the place of another.
    async fn look_different(&mut self, now: Looked) -> Result<(), WatchError> {
        let are_same = self.seen.folders == now.folders;
        self.seen = now;
        if are_same { Ok(()) } else { self.watch_anew().await }
    }

    /// Watches the folders that a reload named, and the links that are in them now.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let watched = self.ace.watched();
        let folders = tasks::blocking(move || Looked::new(watched).folders).await?;
        if folders == self.seen.folders {
            return Ok(());
        }
        self.seen.folders = folders;
        self.watch_anew().await?;
        // What changed in them before they were watched.
        self.changed.notify_one();
        Ok(())
    }

    async fn watch_anew(&mut self) -> Result<(), WatchError> {
        let (folders, changed) = (self.seen.folders.clone(), self.changed.clone());
        let watcher = tasks::blocking(move || Watcher::start(&folders, changed)).await;
        self.watch_with(watcher?);
        Ok(())
    }

    fn watch_with(&mut self, watcher: notify::Result<Watcher>) {
        let told = std::mem::replace(&mut self.is_told, watcher.is_err());
        match &watcher {
            Err(error) if !told => {
                tracing::error!("Files cannot be watched; they are checked every {POLL:?} instead: {error}");
            }
            Ok(_) if told => tracing::info!("Files are watched again."),
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

/// True where it is to be done again soon.
async fn reload(ace: &Ace) -> bool {
    match ace.reload_ready().await {
        Ok(reload) => reload.files_changing || !reload.changes.is_empty(),
        Err(error) => {
            tracing::error!("Nothing was reloaded; the previous configuration stays in use: {error}");
            false
        }
    }
}

/// A thread that says when something in the folders changes.
struct Watcher {
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    /// Cancelled when the thread ends.
    ended: CancellationToken,
}

impl Watcher {
    fn start(folders: &[Folder], changed: Arc<Notify>) -> notify::Result<Watcher> {
        let ended = CancellationToken::new();
        let listener = Listener::new(folders, changed, ended.clone().drop_guard());
        let mut debouncer = new_debouncer(STILL, None, move |events| listener.hear(events))?;
        // A folder that is not there is watched once it is.
        for folder in folders.iter().filter(|folder| folder.identity.is_some()) {
            let mode = if folder.is_recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            debouncer.watch(&folder.path, mode)?;
        }
        Ok(Watcher { _debouncer: debouncer, ended })
    }
}

/// Belongs to the watching thread, and is dropped with it.
struct Listener {
    /// Every name that the system may tell of a folder by: a relative one is made absolute, with the links in it or without.
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

    fn hear(&self, events: DebounceEventResult) {
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
