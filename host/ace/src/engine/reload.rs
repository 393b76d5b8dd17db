//! Reloads: reads changed files, and publishes the result in one step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::{Ace, Parts, Running, StartError};
use crate::config::{Config, FileState};
use crate::monitoring;
use crate::plugin::loading::registry::{self, Change};
use crate::presentation::Presentation;
use crate::tasks;

/// The result of a reload.
#[derive(Debug, Default, Serialize)]
pub struct Reload {
    /// The plugins that have changed.
    pub changes: Vec<Change>,
    /// A faulty file may still be being written: reload again soon.
    pub files_changing: bool,
    /// Plugins whose files are still being loaded.
    pub loading: BTreeSet<String>,
}

/// A notification about a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A plugin changed.
    Changed(Change),
    /// The reload was rejected for this reason, and changed nothing. Sent once for each reason.
    Refused(String),
}

/// ace.toml is read when it was unchanged for this time, or after this number of waits.
const SETTLE_TIME: Duration = Duration::from_millis(50);
const SETTLE_WAITS_MAX: u32 = 20;
/// The most faults of templates and catalogues that are logged one by one.
const PROBLEMS_LOGGED_MAX: usize = 20;
/// How often a reload reads ace.toml because it changed meanwhile.
const READS_MAX: u32 = 5;
/// The most notices that a slow subscriber may lag behind.
pub(super) const NOTICES_MAX: usize = 256;

impl Ace {
    /// Reads files and configuration again and publishes what has changed. Attempts in flight continue with the previous snapshot. If a
    /// new version of a plugin cannot be loaded, the previous one stays active. Of ace.toml, the settings of plugins, routing and delivery
    /// take effect; relays with the credentials they need, key-value entries and limits need a restart. Returns when all changed plugins
    /// are loaded; a slow one does not delay others.
    ///
    /// # Errors
    /// The configuration has problems, a folder cannot be read, or a panic. The previous state stays in use.
    pub async fn reload(&self) -> Result<Reload, StartError> {
        let mut all = Reload::default();
        loop {
            let mut loaded = self.loaded();
            let Reload { changes, files_changing, loading } = self.reload_ready().await?;
            all.changes.extend(changes);
            all.files_changing = files_changing;
            if loading.is_empty() {
                return Ok(all);
            }
            // The sender lives as long as the registry.
            let _ = loaded.changed().await;
        }
    }

    /// The same as [`Ace::reload`], but does not wait for plugins that are slow to load. The result lists them. They become active with a
    /// later reload, when [`Ace::loaded`] changes.
    ///
    /// # Errors
    /// See [`Ace::reload`].
    pub async fn reload_ready(&self) -> Result<Reload, StartError> {
        let reloaded = tasks::caught(self.read_and_publish()).await.unwrap_or_else(|panicked| Err(panicked.into()));
        monitoring::reloaded(reloaded.is_ok());
        match &reloaded {
            Ok(reload) => {
                self.refused.store(None);
                for change in &reload.changes {
                    // There may be no subscribers, here and below.
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

    /// Why the last reload was rejected, if it was. A restart would fail for the same reason.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }

    /// Subscribes to notices about reloads.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Changes each time a slow plugin is loaded and ready for the next reload, from now on.
    pub fn loaded(&self) -> watch::Receiver<u64> {
        self.registry().load_ended()
    }

    async fn read_and_publish(&self) -> Result<Reload, StartError> {
        let _one_at_a_time = self.reloading.lock().await;
        let running = self.current.load_full();
        let mut times = 0;
        let (read, files) = loop {
            let read = reread(&running).await?;
            let files = running.registry.scan_folder(&read.config).await?;
            times += 1;
            // Loading took a while, so use the current settings.
            let state = read.config.file_state.clone();
            let is_same = tasks::blocking(move || state.is_none_or(|state| state.refresh() == state)).await?;
            if is_same || times == READS_MAX {
                break (read, files);
            }
        };
        let registry::Reloaded { registry, changes, files_changing, loading } =
            running.registry.reload(&files, &read.config);
        let Reread { config, needs_restart, presentation } = read;
        let before = Some(running.snapshot.as_ref());
        let mut next =
            self.application.running(Parts { config, registry, presentation }, &self.destinations, before)?;
        next.needs_restart = needs_restart;
        self.destinations.set_schedule(&next.config.delivery);
        if next.config.credentials != running.config.credentials {
            let credentials = self.services.credentials.load().with(&next.config.credentials);
            self.services.credentials.store(Arc::new(credentials));
        }
        self.current.store(Arc::new(next));
        changes.iter().for_each(Change::log);
        Ok(Reload { changes, files_changing, loading })
    }
}

/// What a reload reads before the plugins.
struct Reread {
    config: Config,
    needs_restart: Vec<String>,
    presentation: Arc<Presentation>,
}

/// Reads ace.toml, as far as a reload can change it, and the templates.
async fn reread(running: &Running) -> Result<Reread, StartError> {
    let (before, templates) = (running.config.clone(), running.snapshot.presentation.clone());
    let reported = running.needs_restart.clone();
    let read = tasks::blocking(move || {
        let (config, needs_restart) = match &before.file {
            Some(file) => {
                wait_until_settled(file);
                Config::load(file)?.with_fixed_of(&before)
            }
            None => (before, Vec::new()),
        };
        // Reported once for the same changes.
        if !needs_restart.is_empty() && needs_restart != reported {
            let keys = needs_restart.join(", ");
            tracing::warn!("These changes in ace.toml take effect only after a restart: {keys}.");
        }
        let presentation = templates.reload(&config.template_dirs, &config.presentation);
        if !Arc::ptr_eq(&presentation, &templates) {
            log_problems(&presentation, "the last working version stays in use");
        }
        Ok(Reread { config, needs_restart, presentation })
    });
    read.await?
}

/// Logs the faults of templates and catalogues, with their consequence.
pub(super) fn log_problems(presentation: &Presentation, consequence: &str) {
    let problems = presentation.problems();
    for problem in problems.iter().take(PROBLEMS_LOGGED_MAX) {
        tracing::error!(
            file = %problem.file.display(),
            "A template or catalogue is broken; {consequence}: {problem}"
        );
    }
    if problems.len() > PROBLEMS_LOGGED_MAX {
        let more = problems.len() - PROBLEMS_LOGGED_MAX;
        tracing::error!("{more} more faults of templates and catalogues; `ace check` lists all of them.");
    }
}

/// Waits a moment while a file is being written, because a partial file may be valid but different. Blocks.
fn wait_until_settled(file: &Path) {
    for _ in 0..SETTLE_WAITS_MAX {
        match FileState::read(file.to_owned()).age() {
            Some(age) if age < SETTLE_TIME => std::thread::sleep(SETTLE_TIME - age),
            _ => return,
        }
    }
}
