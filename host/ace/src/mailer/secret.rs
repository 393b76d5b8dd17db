//! Values that are read from secrets.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::SecretSource;
use ace_store::files::FileStamp;

/// A value that is read from a secret, and read again when the secret's file has changed.
pub(super) struct FromSecret<T> {
    source: SecretSource,
    read: fn(&str) -> Result<T, String>,
    loaded: Mutex<Option<Loaded<T>>>,
}

struct Loaded<T> {
    value: Arc<T>,
    /// The state of the file before it was read.
    stamp: Option<FileStamp>,
}

impl<T> FromSecret<T> {
    pub(super) fn new(source: &SecretSource, read: fn(&str) -> Result<T, String>) -> FromSecret<T> {
        FromSecret { source: source.clone(), read, loaded: Mutex::default() }
    }

    /// The current value. The error names the file, and contains nothing of the secret. Blocks.
    pub(super) fn get(&self) -> Result<Arc<T>, String> {
        let stamp = match &self.source {
            SecretSource::File(file) => FileStamp::of(file),
            SecretSource::Value(_) => None,
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(known.value.clone());
        }
        let secret = self.source.read_now().map_err(|error| error.to_string())?;
        let value = (self.read)(secret.expose()).map(Arc::new).map_err(|problem| match &self.source {
            SecretSource::File(file) => format!("{}: {problem}", file.display()),
            SecretSource::Value(_) => problem,
        })?;
        *loaded = Some(Loaded { value: value.clone(), stamp });
        Ok(value)
    }
}
