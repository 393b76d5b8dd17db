//! One plugin by itself, outside of any folder: what its author's tools work with. The runtime is the one that serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::plugin::loading::component_file;
use crate::plugin::loading::host::Host;
use crate::plugin::loading::inspection::Inspection;
use crate::plugin::loading::loader::Loader;
use crate::plugin::loading::registry::RegistryError;
use crate::plugin::runtime::errors;
use crate::plugin::{Engine, Plugin, Services, imports};
use crate::tasks;

/// Why there is nothing to be had of a plugin file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(String);

/// A host for one plugin at a time.
pub struct StandaloneHost {
    host: Arc<Host>,
}

impl StandaloneHost {
    /// Prepares a host. `is_metered`: it counts instructions, and is slower for it.
    pub fn new(config: &Config, services: Arc<Services>, is_metered: bool) -> Result<Self, RegistryError> {
        let engine = if is_metered { Engine::metered(config)? } else { Engine::new(config)? };
        let linker = imports::linker(&engine.inner)?;
        Ok(StandaloneHost { host: Arc::new(Host { dir: PathBuf::new(), engine, linker, services }) })
    }

    /// The same host with other services behind it.
    pub fn with(&self, services: Arc<Services>) -> Self {
        let Host { dir, engine, linker, .. } = self.host.as_ref();
        let host = Host { dir: dir.clone(), engine: engine.clone(), linker: linker.clone(), services };
        StandaloneHost { host: Arc::new(host) }
    }

    /// Reads a component and its manifest, compiles it and ties it to the host, and runs none of its code.
    pub async fn inspect(&self, config: &Config, file: &Path) -> Inspection {
        self.loader(config).inspect(name(file), file.to_owned()).await
    }

    /// Loads a plugin as a serving host would; what does not fit is broken, with its reason.
    pub async fn load(&self, config: &Config, file: &Path) -> Plugin {
        self.loader(config).load(name(file), file.to_owned()).await
    }

    /// How long it takes to make machine code of a component, whatever the cache has.
    ///
    /// # Errors
    /// It cannot be read, or does not compile.
    pub async fn time_compilation(&self, file: &Path) -> Result<Duration, FileError> {
        let (file, host) = (file.to_owned(), self.host.clone());
        let timed = tasks::blocking(move || {
            let wasm = component_file::read_component(&file).map_err(FileError)?;
            let took = host.engine.time_compilation(&wasm, Sha256::digest(&wasm).into());
            took.map_err(|refusal| FileError(errors::printable(&refusal.reason)))
        });
        timed.await.map_err(|panicked| FileError(panicked.to_string()))?
    }

    fn loader(&self, config: &Config) -> Loader {
        Loader { config: Arc::new(config.clone()), host: self.host.clone() }
    }
}

/// A plugin's name is its file's.
pub fn name(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The bytes of a component; bounded, and what is none is told.
///
/// # Errors
/// It cannot be read, or is no component.
pub fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    component_file::read_component(file).map_err(FileError)
}
