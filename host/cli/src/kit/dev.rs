//! `ace plugin dev`: watches the sources of a project; builds, runs and installs the plugin each time they change.

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
use super::run::{CaseRun, Runner, World};
use super::{KitError, diff, inspect, ship};

/// How long files must be unchanged before a build starts.
const STILL: Duration = Duration::from_millis(50);
/// Files and folders that tools create at the top of a project, besides the component.
const GENERATED: [&str; 7] =
    ["build", "node_modules", "target", "__pycache__", "Cargo.lock", "package-lock.json", "go.sum"];
/// The maximum number of files in a project.
const FILES_MAX: usize = 10_000;

/// The result of one build.
pub struct DevBuild {
    pub built: Built,
    pub found: Inspection,
    /// The run of the case, if there is one.
    pub run: Option<CaseRun>,
    /// The installed component, if there is a plugin folder.
    pub installed: Option<PathBuf>,
}

/// Builds a project, runs the case with recorded answers, and installs the plugin into the plugin folder of the configuration. A
/// component that this host cannot run is not installed.
pub async fn build(
    project: &Project,
    config: &Config,
    case: Option<&Case>,
    installs_tools: bool,
) -> Result<DevBuild, KitError> {
    let built = project.build(installs_tools).await?;
    let found = inspect(config, &built.file).await?;
    if let Some(why) = &found.mismatch {
        let message = format!("this host cannot run it: {why}");
        return Err(KitError::Plugin { file: built.file, message });
    }
    let run = match case {
        Some(case) => Some(Runner::new(config, &built.file, false).await?.run(case, World::Replayed).await?),
        None => None,
    };
    let folder = config.fixed.plugin_dir.as_deref();
    let installed = folder.map(|folder| ship::install(&built.file, folder, true)).transpose()?;
    Ok(DevBuild { built, found, run, installed })
}

/// The difference between two answers, line by line; `None` if they are the same.
pub fn change(before: &Value, now: &Value) -> Option<String> {
    (before != now).then(|| diff::of_values(before, now))
}

/// Watches the files that a project is built from.
pub struct Sources {
    folder: PathBuf,
    /// Files elsewhere that are watched, too.
    others: Vec<PathBuf>,
    component: String,
    watcher: Debouncer<RecommendedWatcher, RecommendedCache>,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
    seen: Stamp,
}

/// The stamp of each file.
type Stamp = BTreeMap<PathBuf, FileStamp>;

impl Sources {
    /// Starts to watch. Needs a tokio runtime.
    pub fn watch(project: &Project, others: Vec<PathBuf>) -> Result<Self, KitError> {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let watcher = new_debouncer(STILL, None, move |events: DebounceEventResult| match events {
            Ok(events) if events.iter().all(|event| event.kind.is_access()) => {}
            // After an error too, because events may have been lost.
            _ => notify.notify_one(),
        });
        let watcher = watcher.map_err(|e| unwatched(&project.folder, e))?;
        let (folder, component) = (project.folder.clone(), format!("{}.wasm", project.name));
        let (watched, seen) = (BTreeSet::new(), Stamp::new());
        let mut sources = Sources { folder, others, component, watcher, watched, changed, seen };
        sources.has_changed()?;
        Ok(sources)
    }

    /// Waits until files have changed since the last call, and are no longer changing, so that no half-written file is built.
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
        // A folder that was removed and created again must be watched anew.
        self.watched.retain(|watched| folders.iter().any(|(folder, _)| folder == watched));
        let mut now = Stamp::new();
        stamp(&self.folder, &|name| self.is_source(name), &mut now)?;
        now.extend(self.others.iter().filter_map(|file| of_file(file)));
        let has_changed = now != self.seen;
        self.seen = now;
        Ok(has_changed)
    }

    /// The watched folders: the top of the project and its source folders, except those that builds write to.
    fn folders(&self) -> Result<Vec<(PathBuf, RecursiveMode)>, KitError> {
        let fail = |source| KitError::File { file: self.folder.clone(), source };
        let mut folders = vec![(self.folder.clone(), RecursiveMode::NonRecursive)];
        for entry in std::fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if self.is_source(&entry.file_name().to_string_lossy()) && entry.path().is_dir() {
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

    /// Whether a file or folder of this name at the top of the project may be a source.
    fn is_source(&self, name: &str) -> bool {
        may_be_a_source(name) && !GENERATED.contains(&name) && name != self.component
    }
}

/// Whether a name is not that of a temporary file of editors or Python.
fn may_be_a_source(name: &str) -> bool {
    !(name.starts_with('.') || name.ends_with('~') || name.ends_with(".new") || name == "__pycache__")
}

/// Adds the source files of a folder and of the folders in it.
fn stamp(folder: &Path, is_source: &dyn Fn(&str) -> bool, out: &mut Stamp) -> Result<(), KitError> {
    // Files that are removed meanwhile are skipped.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !is_source(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            stamp(&path, &may_be_a_source, out)?
        } else {
            out.extend(of_file(&path))
        }
        if out.len() > FILES_MAX {
            let message = format!("the folder has more than {FILES_MAX} files, too many to watch");
            return Err(KitError::Plugin { file: folder.to_owned(), message });
        }
    }
    Ok(())
}

fn of_file(file: &Path) -> Option<(PathBuf, FileStamp)> {
    Some((file.to_owned(), FileStamp::of(file)?))
}

fn unwatched(folder: &Path, error: notify::Error) -> KitError {
    KitError::Plugin { file: folder.to_owned(), message: format!("the folder cannot be watched: {error}") }
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
    async fn a_changed_source_is_noticed_in_every_folder() {
        let ((dir, project), elsewhere) = (project(), tempfile::tempdir().expect("a folder"));
        let message = elsewhere.path().join("message.json");
        let mut sources = Sources::watch(&project, vec![message.clone()]).expect("watched");
        for file in [dir.path().join("a.js"), dir.path().join("tests/cases.json"), message, dir.path().join("new.js")] {
            std::fs::write(&file, "another text").expect("written");
            assert!(changes(&mut sources).await, "{}", file.display());
        }
        // A folder that did not exist when the watch started.
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
    async fn files_that_a_build_writes_are_not_sources() {
        let (dir, project) = project();
        let mut sources = Sources::watch(&project, Vec::new()).expect("watched");
        for file in ["a.wasm", "a.wasm.new", "build/a.js", "Cargo.lock", ".a.js.swp", "a.js~", "tests/x~"] {
            std::fs::write(dir.path().join(file), "another text").expect("written");
        }
        let waited = tokio::time::timeout(STILL * 6, sources.change()).await;
        assert!(waited.is_err(), "nothing has changed");
    }

    #[test]
    fn only_a_change_has_a_difference() {
        assert_eq!(change(&json!("pass"), &json!("pass")), None);
        assert_eq!(change(&json!("pass"), &json!({})).as_deref(), Some("- \"pass\"\n+ {}"));
    }
}
