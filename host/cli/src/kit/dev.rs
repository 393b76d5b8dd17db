//! `ace plugin dev`: a project whose sources are watched; built, tried on one case and installed each time they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ace::config::Config;
use ace::internals::plugin::inspection::Inspection;
use ace_store::files::FileStamp;
use notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use serde_json::Value;
use tokio::sync::Notify;

use super::build::{Built, Project};
use super::case::Case;
use super::run::{Runner, Tried, World};
use super::{KitError, diff, inspect, ship};

/// Files must have been still for so long.
const STILL: Duration = Duration::from_millis(50);
/// What tools leave at the top of a project, besides the component; nobody writes it by hand.
const LEFT_BY_TOOLS: [&str; 7] =
    ["build", "node_modules", "target", "__pycache__", "Cargo.lock", "package-lock.json", "go.sum"];
/// A plugin has fewer files than that.
const FILES_MAX: usize = 10_000;

/// What came of one build.
pub struct Round {
    pub built: Built,
    pub found: Inspection,
    /// What it answers, where there is a case to ask it.
    pub tried: Option<Tried>,
    /// Its place in the plugin folder, where there is one.
    pub installed: Option<PathBuf>,
}

/// Builds a project, asks the plugin about a case in which nothing leaves, and puts it into the plugin folder of the
/// configuration. What this host cannot run is not installed.
pub async fn round(
    project: &Project,
    config: &Config,
    case: Option<&Case>,
    installs_tools: bool,
) -> Result<Round, KitError> {
    let built = project.build(installs_tools).await?;
    let found = inspect(config, &built.file).await?;
    if let Some(why) = &found.mismatch {
        let message = format!("this host cannot run it: {why}");
        return Err(KitError::Plugin { file: built.file, message });
    }
    let tried = match case {
        Some(case) => Some(Runner::new(config, &built.file, false).await?.run(case, World::Replayed).await?),
        None => None,
    };
    let folder = config.fixed.plugin_dir.as_deref();
    let installed = folder.map(|folder| ship::install(&built.file, folder, true)).transpose()?;
    Ok(Round { built, found, tried, installed })
}

/// How one answer differs from the one before, line by line; `None` where it does not.
pub fn change(before: &Value, now: &Value) -> Option<String> {
    (before != now).then(|| diff::of(before, now))
}

/// The files that a project is built from, watched.
pub struct Sources {
    folder: PathBuf,
    /// Files elsewhere that matter as well.
    others: Vec<PathBuf>,
    component: String,
    watcher: Debouncer<RecommendedWatcher, RecommendedCache>,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
    seen: Stamp,
}

/// How each file looks.
type Stamp = BTreeMap<PathBuf, FileStamp>;

impl Sources {
    /// From here on no change is missed. Needs a tokio runtime.
    pub fn watch(project: &Project, others: Vec<PathBuf>) -> Result<Self, KitError> {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let watcher = new_debouncer(STILL, None, move |events: DebounceEventResult| match events {
            Ok(events) if events.iter().all(|event| event.kind.is_access()) => {}
            // Also after an error: events may have been lost.
            _ => notify.notify_one(),
        });
        let watcher = watcher.map_err(|e| unwatched(&project.folder, e))?;
        let (folder, component) = (project.folder.clone(), format!("{}.wasm", project.name));
        let (watched, seen) = (BTreeSet::new(), Stamp::new());
        let mut sources = Sources { folder, others, component, watcher, watched, changed, seen };
        sources.has_changed()?;
        Ok(sources)
    }

    /// Waits until they are other than they were when this was last asked, and still: a file that is half written is not
    /// built.
    pub async fn change(&mut self) -> Result<(), KitError> {
        while !self.has_changed()? {
            self.changed.notified().await;
        }
        loop {
            tokio::time::sleep(STILL).await;
            if !self.has_changed()? {
                return Ok(());
            }
        }
    }

    fn has_changed(&mut self) -> Result<bool, KitError> {
        let folders = self.folders()?;
        for (folder, mode) in &folders {
            if !self.watched.contains(folder) {
                self.watcher.watch(folder, *mode).map_err(|e| unwatched(folder, e))?;
                self.watched.insert(folder.clone());
            }
        }
        // A folder that is gone and comes back is another one.
        self.watched.retain(|watched| folders.iter().any(|(folder, _)| folder == watched));
        let mut now = Stamp::new();
        stamp(&self.folder, &|name| self.matters(name), &mut now)?;
        now.extend(self.others.iter().filter_map(|file| of_file(file)));
        let has_changed = now != self.seen;
        self.seen = now;
        Ok(has_changed)
    }

    /// What is watched: the top of the project and the folders of sources in it, but none that building fills.
    fn folders(&self) -> Result<Vec<(PathBuf, RecursiveMode)>, KitError> {
        let fail = |source| KitError::File { file: self.folder.clone(), source };
        let mut folders = vec![(self.folder.clone(), RecursiveMode::NonRecursive)];
        for entry in std::fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if self.matters(&entry.file_name().to_string_lossy()) && entry.path().is_dir() {
                folders.push((entry.path(), RecursiveMode::Recursive));
            }
        }
        for parent in self.others.iter().filter_map(|file| file.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            if !folders.iter().any(|(folder, _)| folder == parent) {
                folders.push((parent.to_owned(), RecursiveMode::NonRecursive));
            }
        }
        Ok(folders)
    }

    /// Whether a file or folder of this name may be a source, at the top of the project.
    fn matters(&self, name: &str) -> bool {
        may_be_a_source(name) && !LEFT_BY_TOOLS.contains(&name) && name != self.component
    }
}

/// What editors and Python leave anywhere is none.
fn may_be_a_source(name: &str) -> bool {
    !(name.starts_with('.') || name.ends_with('~') || name.ends_with(".new") || name == "__pycache__")
}

/// Adds the files of a folder that matter there, and all sources of the folders in it.
fn stamp(folder: &Path, matters: &dyn Fn(&str) -> bool, out: &mut Stamp) -> Result<(), KitError> {
    // What vanishes meanwhile is not there.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !matters(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            stamp(&path, &may_be_a_source, out)?
        } else {
            out.extend(of_file(&path))
        }
        if out.len() > FILES_MAX {
            let message = format!("it has more than {FILES_MAX} files, too many to watch for one plugin");
            return Err(KitError::Plugin { file: folder.to_owned(), message });
        }
    }
    Ok(())
}

fn of_file(file: &Path) -> Option<(PathBuf, FileStamp)> {
    Some((file.to_owned(), FileStamp::of(file)?))
}

fn unwatched(folder: &Path, error: notify::Error) -> KitError {
    KitError::Plugin { file: folder.to_owned(), message: format!("it cannot be watched: {error}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn project() -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().expect("a folder");
        for (file, text) in [("a.toml", ""), ("a.js", "1"), ("tests/cases.json", "[]"), ("build/a.js", "1")] {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(file, text).expect("written");
        }
        let project = Project::detect(dir.path()).expect("a project");
        (dir, project)
    }

    async fn changes(sources: &mut Sources) -> bool {
        tokio::time::timeout(Duration::from_secs(10), sources.change()).await.is_ok_and(|change| change.is_ok())
    }

    #[tokio::test]
    async fn a_source_that_changes_is_seen_wherever_it_stands() {
        let ((dir, project), elsewhere) = (project(), tempfile::tempdir().expect("a folder"));
        let message = elsewhere.path().join("message.json");
        let mut sources = Sources::watch(&project, vec![message.clone()]).expect("watched");
        for file in [dir.path().join("a.js"), dir.path().join("tests/cases.json"), message, dir.path().join("new.js")] {
            std::fs::write(&file, "another text").expect("written");
            assert!(changes(&mut sources).await, "{}", file.display());
        }
        // A folder that was not there when the watch began.
        std::fs::create_dir(dir.path().join("src")).expect("made");
        std::fs::write(dir.path().join("src/b.js"), "1").expect("written");
        assert!(changes(&mut sources).await);
        std::fs::write(dir.path().join("src/b.js"), "12").expect("written");
        assert!(changes(&mut sources).await, "in a folder that is new");
    }

    #[tokio::test]
    async fn a_file_that_is_still_being_written_is_one_change() {
        let (dir, project) = project();
        let mut sources = Sources::watch(&project, Vec::new()).expect("watched");
        let file = dir.path().join("a.js");
        std::fs::write(&file, "").expect("cut to nothing");
        let writes = async {
            tokio::time::sleep(STILL / 2).await;
            std::fs::write(&file, "the whole text").expect("written");
        };
        let (changed, ()) = tokio::join!(changes(&mut sources), writes);
        assert!(changed);
        let waited = tokio::time::timeout(STILL * 6, sources.change()).await;
        assert!(waited.is_err(), "the second half was a change of its own");
    }

    #[tokio::test]
    async fn what_a_build_leaves_is_no_source() {
        let (dir, project) = project();
        let mut sources = Sources::watch(&project, Vec::new()).expect("watched");
        for file in ["a.wasm", "a.wasm.new", "build/a.js", "Cargo.lock", ".a.js.swp", "a.js~", "tests/x~"] {
            std::fs::write(dir.path().join(file), "another text").expect("written");
        }
        let waited = tokio::time::timeout(STILL * 6, sources.change()).await;
        assert!(waited.is_err(), "nothing has changed");
    }

    #[test]
    fn only_a_change_is_shown() {
        assert_eq!(change(&json!("pass"), &json!("pass")), None);
        assert_eq!(change(&json!("pass"), &json!({})).as_deref(), Some("- \"pass\"\n+ {}"));
    }
}
