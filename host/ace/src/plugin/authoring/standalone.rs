//! Loads one plugin outside of any folder, for the tools of plugin authors. The runtime is the same as a server's.

use std::path::Path;
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
use crate::plugin::{Engine, Plugin, Services};
use crate::tasks;

/// Why a plugin file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FileError(String);

/// A host for one plugin at a time.
pub struct StandaloneHost {
    host: Arc<Host>,
}

impl StandaloneHost {
    /// Creates a host. `is_metered`: it counts instructions, which makes it slower.
    ///
    /// # Errors
    /// wasmtime cannot run on this machine.
    pub fn new(config: &Config, services: Arc<Services>, is_metered: bool) -> Result<Self, RegistryError> {
        let engine = if is_metered { Engine::metered(config)? } else { Engine::new(config)? };
        Ok(StandaloneHost { host: Arc::new(Host::new(config, None, engine, services)?) })
    }

    /// The same host with other services.
    pub fn with(&self, services: Arc<Services>) -> Self {
        StandaloneHost { host: Arc::new(Host { services, ..self.host.as_ref().clone() }) }
    }

    /// Reads, compiles and links a component, but runs none of its code.
    pub async fn inspect(&self, config: &Config, file: &Path) -> Inspection {
        self.loader(config).inspect(name(file), file.to_owned()).await
    }

    /// Loads a plugin as a server would. A plugin that cannot be loaded is broken, with the reason.
    pub async fn load(&self, config: &Config, file: &Path) -> Plugin {
        self.loader(config).load(name(file), file.to_owned()).await
    }

    /// Measures how long compiling a component takes, without the cache.
    ///
    /// # Errors
    /// The component cannot be read, or does not compile.
    pub async fn time_compilation(&self, file: &Path) -> Result<Duration, FileError> {
        let (file, host) = (file.to_owned(), self.host.clone());
        let timed = tasks::blocking(move || {
            let wasm = component_file::read_component(&file).map_err(FileError)?;
            let took = host.code.time_compilation(&wasm, Sha256::digest(&wasm).into());
            took.map_err(|error| FileError(errors::printable(&error.reason)))
        });
        timed.await.map_err(|panicked| FileError(panicked.to_string()))?
    }

    fn loader(&self, config: &Config) -> Loader {
        Loader { config: Arc::new(config.clone()), host: self.host.clone() }
    }
}

/// The name of a plugin: that of its file, without the extension.
pub fn name(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads a component file.
///
/// # Errors
/// The file cannot be read, is too long, or is not a component.
pub fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    component_file::read_component(file).map_err(FileError)
}
