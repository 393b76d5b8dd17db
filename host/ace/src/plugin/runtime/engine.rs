//! The wasmtime engine, its clock, and how a component becomes code.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmtime::component::Component;
use wasmtime::{Enabled, PoolingAllocationConfig, WasmBacktraceDetails};

use super::errors;
use crate::config::Config;
use crate::plugin::loading::cache::{Cache, Entry, InUse, Key};
use crate::plugin::loading::compiler::{Compiler, Job, Machine};
use crate::plugin::loading::component_file::{FACTS_VERSION, Facts, Refusal};

/// How often guests are looked at. A guest's time is measured to about this.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Instances of all plugins together.
const INSTANCES_MAX: u32 = 1_000;
/// Core instances in one instance of a plugin.
pub(super) const CORE_INSTANCES_MAX: usize = 100;
/// Elements of one table: functions called indirectly, mostly.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Handles one instance may hold at once: messages, clocks, exchanges, streams.
pub(super) const HANDLES_MAX: usize = 1_000;
/// What the host keeps behind those handles; some of them stand for two or three.
pub(super) const RESOURCES_MAX: usize = 4 * HANDLES_MAX;
/// Bytes of an instance's memory that are set to zero rather than given back when it ends.
const MEMORY_KEPT: usize = 1 << 20;

/// One engine for all plugins. Its ticker ends with the last clone.
#[derive(Clone)]
pub struct Engine {
    pub(in crate::plugin) inner: wasmtime::Engine,
    cache: Option<Arc<Cache>>,
    /// Names the compiler, its version and its settings; compiled code of another is never loaded.
    settings_hash: u64,
    /// Cancelled when the ticker's thread ends, for whatever reason.
    ticker_ended: CancellationToken,
    compiler: Arc<Compiler>,
    /// Whether it counts instructions.
    pub(in crate::plugin) is_metered: bool,
}

/// A component whose code can run.
pub struct Compiled {
    pub component: Component,
    /// Where its code is mapped from the cache: keep it as long as the component.
    pub in_use: Option<InUse>,
}

impl Engine {
    /// With the limits, the compiler and the cache of a configuration. Fails only where the machine cannot run wasmtime.
    pub fn new(config: &Config) -> wasmtime::Result<Self> {
        Engine::with(config, false)
    }

    /// One that counts instructions (wasmtime's fuel) for `ace plugin run`; it is slower by up to a half.
    pub fn metered(config: &Config) -> wasmtime::Result<Self> {
        Engine::with(config, true)
    }

    fn with(config: &Config, is_metered: bool) -> wasmtime::Result<Self> {
        let memory_max = config.fixed.limits.memory;
        let mut settings = settings(is_metered);
        settings.allocation_strategy(pool(memory_max));
        let inner = wasmtime::Engine::new(&settings)?;
        let ticker_ended = start_ticker(&inner);
        let settings_hash = settings_hash(&inner);
        let job = Job { is_metered, memory_max };
        let compiler = Arc::new(Compiler::new(&config.fixed.compiler, job, settings_hash));
        let cache = Cache::configured(config).map(Arc::new);
        Ok(Engine { inner, cache, settings_hash, compiler, ticker_ended, is_metered })
    }

    /// Completes when the ticker has ended, which it does before the engine only after a bug: no guest's time is measured then.
    pub async fn ended(&self) {
        self.ticker_ended.cancelled().await;
    }

    /// wasmtime's own engine, for whoever measures against it.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// Maps what was compiled of a component before, or has it compiled. Where there is a cache, what runs is always mapped from
    /// its file: the kernel can drop such pages and share them with another process. `digest` is its SHA-256. Takes long: not
    /// for an async thread.
    pub(in crate::plugin) fn load(&self, wasm: &[u8], digest: [u8; 32]) -> Result<(Compiled, Facts), Refusal> {
        let key = Key { component: digest, settings: self.settings_hash };
        if let Some(known) = self.cache.as_ref().and_then(|cache| self.map(cache.open(&key)?)) {
            return Ok(known);
        }
        let Machine { facts, code, .. } = self.compiler.compile(&self.inner, wasm, &digest)?;
        if let Some(cache) = &self.cache {
            let json = serde_json::to_vec(&facts).expect("texts and numbers");
            if let Some(stored) = cache.store(&key, &code[..], &json).and_then(|entry| self.map(entry)) {
                return Ok(stored);
            }
        }
        // SAFETY: the compiler that this host trusts has just made the code, for this engine.
        let component = unsafe { Component::deserialize(&self.inner, code) };
        let component = component.map_err(|e| Refusal {
            reason: format!("its code cannot be loaded: {}", errors::describe(&e)),
            ..Refusal::default()
        })?;
        Ok((Compiled { component, in_use: None }, facts))
    }

    /// What an entry of the cache holds. `None`: it is to be made anew.
    fn map(&self, entry: Entry) -> Option<(Compiled, Facts)> {
        let facts = serde_json::from_slice(entry.metadata()).ok()?;
        let (component, in_use) = entry.load(&self.inner)?;
        Some((Compiled { component, in_use: Some(in_use) }, facts))
    }

    /// How long it takes to make machine code of a component, whatever the cache has.
    pub(in crate::plugin) fn time_compilation(&self, wasm: &[u8], digest: [u8; 32]) -> Result<Duration, Refusal> {
        Ok(self.compiler.compile(&self.inner, wasm, &digest)?.took)
    }

    /// Removes compiled code that is not needed any more. Call it when everything that is needed is loaded; it blocks.
    pub fn prune_cache(&self) {
        self.cache.iter().for_each(|cache| cache.prune());
    }
}

/// What the code that is made depends on.
fn settings(is_metered: bool) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings.epoch_interruption(true);
    settings.consume_fuel(is_metered);
    // Component-model threads are not used; without them a call is 0.3 to 0.8 us cheaper.
    settings.concurrency_support(false);
    // A guest's debug information is not read, whatever the environment says; names in a stack are cut by `errors`.
    settings.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    settings.wasm_backtrace_max_frames(NonZeroUsize::new(errors::FRAMES_MAX));
    settings
}

/// An engine that makes code for an [`Engine`], and has no pool: that would reserve terabytes of address space.
pub(in crate::plugin) fn compiling(is_metered: bool) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&settings(is_metered))
}

/// Names the compiler, its version and its settings, and the form of the facts beside the code.
pub(in crate::plugin) fn settings_hash(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    FACTS_VERSION.hash(&mut hasher);
    hasher.finish()
}

/// Instances come from a pool: their memories are mapped beforehand and reset by dropping what was written. The numbers
/// bound all plugins together; they cost address space, not memory.
fn pool(memory_max: usize) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_stacks(INSTANCES_MAX)
        .total_memories(INSTANCES_MAX * 2)
        .total_core_instances(INSTANCES_MAX * CORE_INSTANCES_MAX as u32)
        .total_tables(INSTANCES_MAX * 8)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_memory_size(memory_max)
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(MEMORY_KEPT)
        // Where the kernel can say which pages were written (Linux 6.7), only those are reset.
        .pagemap_scan(Enabled::Auto);
    pool
}

/// A thread of its own, so that no busy executor can hold the clock up. What it gives is cancelled when the thread ends.
fn start_ticker(engine: &wasmtime::Engine) -> CancellationToken {
    let (weak, ended) = (engine.weak(), CancellationToken::new());
    let guard = ended.clone().drop_guard();
    std::thread::Builder::new()
        .name("ace-ticker".to_owned())
        .spawn(move || {
            let _guard = guard;
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .expect("a thread can be started");
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compiles_and_what_runs_agree_on_the_code() {
        for is_metered in [false, true] {
            let runs = Engine::with(&Config::default(), is_metered).expect("wasmtime runs here");
            let compiles = compiling(is_metered).expect("wasmtime runs here");
            assert_eq!(runs.settings_hash, settings_hash(&compiles), "metered: {is_metered}");
        }
        let [plain, metered] = [false, true].map(|is_metered| settings_hash(&compiling(is_metered).expect("it runs")));
        assert_ne!(plain, metered);
    }
}
