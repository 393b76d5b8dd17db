//! Detects changes of a plugin's files.

use std::path::Path;
use std::time::Duration;

use super::signature;
use ace_store::files::FileStamp;

/// How long after its last change a faulty file may still be being written.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The stamps of a plugin's files when they were read, which show changes without reading the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStamps {
    component: Option<FileStamp>,
    manifest: Option<FileStamp>,
    signature: Option<FileStamp>,
    /// The plugin is part of the program.
    is_shipped: bool,
}

impl FileStamps {
    pub(in crate::plugin) fn of(component: &Path) -> Self {
        FileStamps {
            component: FileStamp::of(component),
            manifest: FileStamp::of(&component.with_extension("toml")),
            signature: FileStamp::of(&signature::file_of(component)),
            is_shipped: false,
        }
    }

    /// Those of a plugin that is part of the program, which never changes.
    pub(super) fn shipped() -> Self {
        FileStamps { is_shipped: true, ..FileStamps::default() }
    }

    /// Whether the plugin is part of the program.
    pub(super) fn is_shipped(&self) -> bool {
        self.is_shipped
    }

    /// Whether the component existed.
    pub(super) fn has_component(&self) -> bool {
        self.is_shipped || self.component.is_some()
    }

    /// Whether one of the files was changed within this time.
    pub(super) fn is_younger_than(&self, age: Duration) -> bool {
        let files = self.component.iter().chain(&self.manifest).chain(&self.signature);
        files.filter_map(FileStamp::age).any(|elapsed| elapsed < age)
    }
}
