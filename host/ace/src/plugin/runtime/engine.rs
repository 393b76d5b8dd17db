//! The wasmtime engine: its settings, its pool of instances, and the ticker that bounds the guests' time.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wasmtime::{Enabled, PoolingAllocationConfig, WasmBacktraceDetails};

use super::errors;
use crate::config::Config;

/// How often guests are interrupted. A guest's time is measured to about this.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// The most instances of all plugins together.
const INSTANCES_MAX: u32 = 1_000;
/// The most core instances in one instance of a plugin.
pub(super) const CORE_INSTANCES_MAX: usize = 100;
/// The most elements of one table: mostly functions that are called indirectly.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The most handles that one instance may hold: messages, clocks, exchanges, streams.
pub(super) const HANDLES_MAX: usize = 1_000;
/// The most host objects behind those handles; some handles have two or three.
pub(super) const RESOURCES_MAX: usize = 4 * HANDLES_MAX;
/// Bytes of an instance's memory that are zeroed instead of unmapped when it ends.
const MEMORY_KEPT: usize = 1 << 20;

/// The engine of all plugins. Its ticker ends with the last clone.
#[derive(Clone)]
pub struct Engine {
    pub(in crate::plugin) inner: wasmtime::Engine,
    /// Cancelled when the ticker's thread ends, for whatever reason.
    ticker_ended: CancellationToken,
    /// Whether it counts instructions.
    pub(in crate::plugin) is_metered: bool,
}

impl Engine {
    /// An engine with the limits of a configuration.
    ///
    /// # Errors
    /// wasmtime cannot run on this machine.
    pub fn new(config: &Config) -> wasmtime::Result<Self> {
        Engine::with(config, false)
    }

    /// An engine that counts instructions (wasmtime's fuel), for `ace plugin run`. It is up to 50 % slower.
    ///
    /// # Errors
    /// wasmtime cannot run on this machine.
    pub fn metered(config: &Config) -> wasmtime::Result<Self> {
        Engine::with(config, true)
    }

    fn with(config: &Config, is_metered: bool) -> wasmtime::Result<Self> {
        let mut settings = settings(is_metered);
        settings.allocation_strategy(pool(config.fixed.limits.memory));
        let inner = wasmtime::Engine::new(&settings)?;
        let ticker_ended = start_ticker(&inner);
        Ok(Engine { inner, ticker_ended, is_metered })
    }

    /// Completes when the ticker has ended. Before the engine ends, only a bug can cause that; guests' time is then not limited.
    pub async fn ended(&self) {
        self.ticker_ended.cancelled().await;
    }

    /// wasmtime's own engine, for benchmarks.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }
}

/// The settings that compiled code depends on.
fn settings(is_metered: bool) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings.epoch_interruption(true);
    settings.consume_fuel(is_metered);
    // Component-model threads are not used; without them a call takes 0.3 to 0.8 us less.
    settings.concurrency_support(false);
    // Guests' debug information is never read, whatever the environment says; `errors` truncates the names in a backtrace.
    settings.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    settings.wasm_backtrace_max_frames(NonZeroUsize::new(errors::FRAMES_MAX));
    settings
}

/// An engine that compiles for an [`Engine`]. It has no pool, which would reserve terabytes of address space.
pub(in crate::plugin) fn compiling(is_metered: bool) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&settings(is_metered))
}

/// The pool of instances: memories are mapped in advance, and reset by dropping the written pages. The numbers limit all plugins
/// together; they cost address space, not memory.
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
        // If the kernel can report which pages were written (Linux 6.7), only those are reset.
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Starts the ticker in a thread of its own, so that a busy executor cannot delay it. Returns a token that is cancelled when the
/// thread ends.
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
