//! The host that plugins are loaded into.

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::Linker;

use super::code::CodeLoader;
use crate::config::Config;
use crate::plugin::runtime::state::State;
use crate::plugin::{Engine, Services, imports};

/// What all plugins are loaded with, at the start and at every reload.
#[derive(Clone)]
pub(in crate::plugin) struct Host {
    /// The plugin folder, if there is one.
    pub dir: Option<PathBuf>,
    pub engine: Engine,
    pub code: Arc<CodeLoader>,
    pub linker: Linker<State>,
    pub services: Arc<Services>,
}

impl Host {
    pub(in crate::plugin) fn new(
        config: &Config,
        dir: Option<PathBuf>,
        engine: Engine,
        services: Arc<Services>,
    ) -> wasmtime::Result<Self> {
        let code = Arc::new(CodeLoader::new(config, &engine));
        let linker = imports::linker(&engine.inner)?;
        Ok(Host { dir, engine, code, linker, services })
    }
}
