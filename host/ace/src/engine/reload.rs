//! Reloads: what the files say now, published in one step.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::{Ace, Parts, Running, StartError};
use crate::config::{Config, Seen};
use crate::monitoring;
use crate::plugin::loading::registry::{self, Change};
use crate::presentation::Presentation;
use crate::tasks;

/// What a reload came to.
#[derive(Debug, Default, Serialize)]
pub struct Reload {
    /// Plugins that are not what they were.
    pub changes: Vec<Change>,
    /// A faulty file was still being written a moment ago; reload again soon.
    pub files_changing: bool,
    /// Plugins whose files are still being loaded.
    pub loading: BTreeSet<String>,
}

/// What reloads come to, for whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A plugin changed.
    Changed(Change),
    /// Something is wrong, and nothing was changed. Told once for each reason.
    Refused(String),
}

/// ace.toml is read when it has been still for so long, or after so many pauses.
const STILL: Duration = Duration::from_millis(50);
const STILL_TIMES_MAX: u32 = 20;
/// Faults of templates and catalogues that are logged one by one.
const PROBLEMS_LOGGED_MAX: usize = 20;
/// How often one reload reads ace.toml because it changed meanwhile.
const TIMES_MAX: u32 = 5;
/// Notices that a slow listener may be behind.
pub(super) const NOTICES_MAX: usize = 256;

impl Ace {
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
            let Reload { changes, files_changing, loading } = self.reload_ready().await?;
            all.changes.extend(changes);
            all.files_changing = files_changing;
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
            let files = running.registry.scan_folder(&read.config).await?;
            times += 1;
            // Loading took a while. What comes into service does so with the settings of now, not of then.
            let seen = read.config.seen.clone();
            let is_same = tasks::blocking(move || seen.is_none_or(|seen| seen.again() == seen)).await?;
            if is_same || times == TIMES_MAX {
                break (read, files);
            }
        };
        let registry::Reloaded { registry, changes, files_changing, loading } =
            running.registry.reload(&files, &read.config);
        let Reread { config, needs_restart, presentation } = read;
        let before = Some(running.snapshot.as_ref());
        let mut next = self.own.running(Parts { config, registry, presentation }, &self.destinations, before)?;
        next.needs_restart = needs_restart;
        self.destinations.set_schedule(&next.config.delivery);
        self.current.store(Arc::new(next));
        changes.iter().for_each(Change::log);
        Ok(Reload { changes, files_changing, loading })
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
                Config::load(file)?.with_fixed_of(&before)
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
            log_problems(&presentation, "the last working version stays in use");
        }
        Ok(Reread { config, needs_restart, presentation })
    });
    read.await?
}

/// Logs what is wrong with templates and catalogues, and what is done about it.
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
