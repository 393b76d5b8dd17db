//! The compiled code of components: from the cache, or from the compiler.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use wasmtime::component::Component;

use super::cache::{Cache, Entry, InUse, Key};
use super::compiler::{Compiler, Job, MachineCode};
use super::component_file::{CompileError, ComponentInfo, INFO_VERSION};
use crate::config::Config;
use crate::plugin::Engine;
use crate::plugin::runtime::errors;

/// A component whose code can run.
pub struct Compiled {
    pub component: Component,
    /// Keeps the cache entry that the code is mapped from; set if there is one.
    pub in_use: Option<InUse>,
}

/// Loads the code of components for one engine.
pub(in crate::plugin) struct CodeLoader {
    engine: wasmtime::Engine,
    cache: Option<Cache>,
    compiler: Compiler,
    /// Identifies the compiler, its version and its settings. Code of another compiler is never loaded.
    settings_hash: u64,
}

impl CodeLoader {
    pub(in crate::plugin) fn new(config: &Config, engine: &Engine) -> Self {
        let settings_hash = settings_hash(&engine.inner);
        let job = Job { is_metered: engine.is_metered, memory_max: config.fixed.limits.memory };
        CodeLoader {
            engine: engine.inner.clone(),
            cache: Cache::configured(config),
            compiler: Compiler::new(&config.fixed.compiler, job, settings_hash),
            settings_hash,
        }
    }

    /// Maps the code of a component from the cache, or compiles it. If there is a cache, code always runs from a mapped file, whose
    /// pages the kernel can drop and share with other processes. `digest` is the component's SHA-256. Slow: do not call it on an
    /// async thread.
    pub(super) fn load(&self, wasm: &[u8], digest: [u8; 32]) -> Result<(Compiled, ComponentInfo), CompileError> {
        let key = Key { component: digest, settings: self.settings_hash };
        if let Some(cached) = self.cache.as_ref().and_then(|cache| self.map(cache.open(&key)?)) {
            return Ok(cached);
        }
        let MachineCode { info, code, .. } = self.compiler.compile(&self.engine, wasm, &digest)?;
        if let Some(cache) = &self.cache {
            let json = serde_json::to_vec(&info).expect("texts and numbers");
            if let Some(stored) = cache.store(&key, &code[..], &json).and_then(|entry| self.map(entry)) {
                return Ok(stored);
            }
        }
        // SAFETY: the compiler that this host trusts has just made the code, for this engine.
        let component = unsafe { Component::deserialize(&self.engine, code) };
        let component = component.map_err(|e| CompileError {
            reason: format!("its code cannot be loaded: {}", errors::describe(&e)),
            ..CompileError::default()
        })?;
        Ok((Compiled { component, in_use: None }, info))
    }

    /// The contents of a cache entry. `None`: the component must be compiled again.
    fn map(&self, entry: Entry) -> Option<(Compiled, ComponentInfo)> {
        let info = serde_json::from_slice(entry.metadata()).ok()?;
        let (component, in_use) = entry.load(&self.engine)?;
        Some((Compiled { component, in_use: Some(in_use) }, info))
    }

    /// Measures how long compiling a component takes, without the cache.
    pub(in crate::plugin) fn time_compilation(&self, wasm: &[u8], digest: [u8; 32]) -> Result<Duration, CompileError> {
        Ok(self.compiler.compile(&self.engine, wasm, &digest)?.took)
    }

    /// Removes compiled code that is no longer needed. Call it after everything that is needed is loaded; it blocks.
    pub(super) fn prune_cache(&self) {
        self.cache.iter().for_each(Cache::prune);
    }
}

/// Identifies the compiler, its version and its settings, and the format of [`ComponentInfo`].
pub(super) fn settings_hash(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    INFO_VERSION.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::runtime::engine;

    #[test]
    fn the_compiling_engine_makes_code_for_the_running_one() {
        let compiling =
            |is_metered| settings_hash(&engine::compiling(is_metered).expect("wasmtime runs on this machine"));
        let config = Config::default();
        let running = |engine: wasmtime::Result<Engine>| settings_hash(engine.expect("wasmtime runs here").wasmtime());
        assert_eq!(running(Engine::new(&config)), compiling(false));
        assert_eq!(running(Engine::metered(&config)), compiling(true));
        assert_ne!(compiling(false), compiling(true));
    }
}
