//! How a plugin's files look from outside.

use std::path::Path;
use std::time::Duration;

use super::signature;
use ace_store::files::FileStamp;

/// A file that is wrong may still be being written this long after its last change.
pub(super) const SETTLING: Duration = Duration::from_secs(1);

/// How a plugin's files looked when they were read: enough to see that they have changed without reading them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStamps {
    component: Option<FileStamp>,
    manifest: Option<FileStamp>,
    signature: Option<FileStamp>,
}

impl FileStamps {
    pub(in crate::plugin) fn of(component: &Path) -> Self {
        FileStamps {
            component: FileStamp::of(component),
            manifest: FileStamp::of(&component.with_extension("toml")),
            signature: FileStamp::of(&signature::file_of(component)),
        }
    }

    /// Whether the component was there.
    pub(super) fn has_component(&self) -> bool {
        self.component.is_some()
    }

    /// Whether one of them was changed within this time.
    pub(super) fn is_younger_than(&self, age: Duration) -> bool {
        let files = self.component.iter().chain(&self.manifest).chain(&self.signature);
        files.filter_map(FileStamp::age).any(|elapsed| elapsed < age)
    }
}
