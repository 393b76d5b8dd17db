//! What every plugin of a folder is loaded with.

use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::Linker;

use crate::plugin::runtime::state::State;
use crate::plugin::{Engine, Services};

/// What every plugin is loaded with, at the start and at every reload.
pub(in crate::plugin) struct Host {
    pub dir: PathBuf,
    pub engine: Engine,
    pub linker: Linker<State>,
    pub services: Arc<Services>,
}
