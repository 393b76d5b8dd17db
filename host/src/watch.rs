//! Reloads what changes: plugins, templates and ace.toml, as soon as their files are still for a moment, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::engine::{Ace, Seen, Watched};

/// Files must have been still for so long.
const STILL: Duration = Duration::from_millis(50);
/// How often ace.toml is looked at. Its folder is not watched: the queue's database may be in it, and each of its writes would
/// wake the watcher.
const LOOK: Duration = Duration::from_millis(250);
/// When to look again after something was taken up, or was wrong and being written: the watcher says nothing of a file that came and
/// went between two of its words, and the first of them may have been taken up for another's sake.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// What watches over one engine.
pub struct Watch {
    ace: Arc<Ace>,
    config: Option<Seen>,
    changed: Arc<Notify>,
    hangups: Option<Signal>,
    /// Watches for as long as it lives.
    _watcher: Option<Watcher>,
}

impl Watch {
    /// No change of ace.toml since it was read is missed, and of other files none from here on; SIGHUP does not end the process.
    /// Needs a tokio runtime.
    pub fn start(ace: Arc<Ace>) -> Self {
        let hangups = signal(SignalKind::hangup()).ok();
        let changed = Arc::new(Notify::new());
        let watched = ace.watched();
        let watcher = watcher(&watched, changed.clone()).inspect_err(|error| {
            tracing::error!("Files cannot be watched; send SIGHUP to have them read again: {error}");
        });
        Watch { ace, config: watched.config, changed, hangups, _watcher: watcher.ok() }
    }

    /// Reloads what changes, for as long as it is polled. Never ends.
    pub async fn run(mut self) {
        let mut looks_again = false;
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = changed(&mut self.config) => {}
                () = hangup(&mut self.hangups) => tracing::info!("SIGHUP: everything is read again."),
                () = tokio::time::sleep(LOOK_AGAIN), if looks_again => {}
            }
            looks_again = reload(&self.ace).await;
        }
    }
}

async fn hangup(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Completes when the file is another one than before, and has been still.
async fn changed(config: &mut Option<Seen>) {
    let Some(config) = config else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let mut now = again(config).await;
        if now == *config {
            continue;
        }
        loop {
            tokio::time::sleep(STILL).await;
            let later = again(config).await;
            if later == now {
                *config = now;
                return;
            }
            now = later;
        }
    }
}

async fn again(seen: &Seen) -> Seen {
    let seen = seen.clone();
    tokio::task::spawn_blocking(move || seen.again()).await.expect("looking does not panic")
}

/// True where it is to be done again soon.
async fn reload(ace: &Ace) -> bool {
    match ace.reload().await {
        Ok(reload) => reload.is_unsettled || !reload.changes.is_empty(),
        Err(error) => {
            tracing::error!("Nothing was reloaded, and what ran before goes on: {error}");
            false
        }
    }
}

type Watcher = Debouncer<RecommendedWatcher, RecommendedCache>;

fn watcher(watched: &Watched, changed: Arc<Notify>) -> notify::Result<Watcher> {
    let folders: Vec<PathBuf> = watched.plugins.iter().chain(&watched.templates).cloned().collect();
    let concerns = move |path: &Path| {
        folders.iter().any(|dir| path.starts_with(dir) || dir.canonicalize().is_ok_and(|d| path.starts_with(d)))
    };
    let mut watcher = new_debouncer(STILL, None, move |events: DebounceEventResult| match events {
        Ok(events) if events.iter().all(|e| e.kind.is_access() || !e.paths.iter().any(|p| concerns(p))) => {}
        // Also after an error: events may have been lost.
        _ => changed.notify_one(),
    })?;
    if let Some(dir) = &watched.plugins {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    for dir in &watched.templates {
        watcher.watch(dir, RecursiveMode::Recursive)?;
    }
    Ok(watcher)
}
