//! The wasmtime engine, its clock, and how a component becomes code.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmtime::component::Component;
use wasmtime::{Enabled, PoolingAllocationConfig};

use super::cache::{Cache, InUse, Key};

/// How often guests are looked at. A guest's time is measured to about this.
pub const TICK: Duration = Duration::from_millis(5);

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
    pub(super) inner: wasmtime::Engine,
    cache: Option<Arc<Cache>>,
    /// Names the compiler, its version and its settings; compiled code of another is never loaded.
    settings_hash: u64,
    /// Cancelled when the ticker's thread ends, for whatever reason.
    ticker_ended: CancellationToken,
    /// Whether it counts instructions.
    pub(super) is_metered: bool,
}

/// A component whose code can run.
pub struct Compiled {
    pub component: Component,
    /// Where its code is mapped from the cache: keep it as long as the component.
    pub in_use: Option<InUse>,
}

impl Engine {
    /// `memory_max`: what any instance may have. Fails only where the machine cannot run wasmtime.
    pub fn new(cache: Option<Cache>, memory_max: usize) -> wasmtime::Result<Self> {
        Engine::with(cache, memory_max, false)
    }

    /// One that counts instructions (wasmtime's fuel) for `ace plugin run`; it is slower by up to a half.
    pub fn metered(cache: Option<Cache>, memory_max: usize) -> wasmtime::Result<Self> {
        Engine::with(cache, memory_max, true)
    }

    fn with(cache: Option<Cache>, memory_max: usize, is_metered: bool) -> wasmtime::Result<Self> {
        let mut config = wasmtime::Config::new();
        config.allocation_strategy(pool(memory_max));
        config.epoch_interruption(true);
        config.consume_fuel(is_metered);
        // Component-model threads are not used; without them a call is 0.3 to 0.8 us cheaper.
        config.concurrency_support(false);
        let inner = wasmtime::Engine::new(&config)?;
        let mut hasher = DefaultHasher::new();
        inner.precompile_compatibility_hash().hash(&mut hasher);
        let ticker_ended = start_ticker(&inner);
        Ok(Engine { settings_hash: hasher.finish(), inner, cache: cache.map(Arc::new), ticker_ended, is_metered })
    }

    /// Completes when the ticker has ended, which it does before the engine only after a bug: no guest's time is measured then.
    pub async fn ended(&self) {
        self.ticker_ended.cancelled().await;
    }

    /// wasmtime's own engine, for whoever measures against it.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// Compiles a component, or maps what was compiled of it before. Where there is a cache, what runs is always mapped from its
    /// file: the kernel can drop such pages and share them with another process. `digest` is its SHA-256. Takes long: not for
    /// an async thread.
    pub fn compile(&self, wasm: &[u8], digest: [u8; 32]) -> wasmtime::Result<Compiled> {
        let key = Key { component: digest, settings: self.settings_hash };
        let cached = self.cache.as_ref().and_then(|cache| cache.open(&key)?.load(&self.inner));
        if let Some((component, in_use)) = cached {
            return Ok(Compiled { component, in_use: Some(in_use) });
        }
        let component = Component::from_binary(&self.inner, wasm)?;
        let Some(cache) = &self.cache else { return Ok(Compiled { component, in_use: None }) };
        let code = component.serialize()?;
        match cache.store(&key, &code[..], b"").and_then(|entry| entry.load(&self.inner)) {
            Some((component, in_use)) => Ok(Compiled { component, in_use: Some(in_use) }),
            None => Ok(Compiled { component, in_use: None }),
        }
    }

    /// Removes compiled code that is not needed any more. Call it when everything that is needed is loaded; it blocks.
    pub fn prune_cache(&self) {
        self.cache.iter().for_each(|cache| cache.prune());
    }
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

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
