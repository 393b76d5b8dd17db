//! The settings of wasmtime, one changed at a time, against those the host has: what a call on a warm instance and a fresh
//! instance for a call cost then. docs/performance.md keeps the figures that decided.

use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

use super::bare::Bare;
use super::message;
use crate::measure::{Summary, cpu_us, one_core};
use crate::place::Place;

/// Calls of one round.
const CALLS: usize = 5_000;

/// A name, and what is changed.
type Change = (&'static str, fn(&mut Config, &mut PoolingAllocationConfig));

const ON_DEMAND: &str = "on_demand";

const CHANGES: [Change; 8] = [
    ("as_the_host", |_, _| ()),
    ("without_epochs", |config, _| {
        config.epoch_interruption(false);
    }),
    ("fuel", |config, _| {
        config.consume_fuel(true);
    }),
    ("without_cow", |config, _| {
        config.memory_init_cow(false);
    }),
    ("keep_nothing", |_, pool| {
        pool.linear_memory_keep_resident(0).table_keep_resident(0);
    }),
    ("without_pagemap", |_, pool| {
        pool.pagemap_scan(Enabled::No);
    }),
    ("keep_64_kib_without_pagemap", |_, pool| {
        pool.linear_memory_keep_resident(64 << 10).pagemap_scan(Enabled::No);
    }),
    (ON_DEMAND, |_, _| ()),
];

pub fn settings(place: &Place, summary: &mut Summary) {
    let wasm = place.component("context_reader");
    let mut reference = None;
    for (name, change) in CHANGES {
        let bare = Bare::new(&engine((name, change)), &wasm);
        let (warm, fresh) = one_core().block_on(cost(&bare));
        let (warm_before, fresh_before) = *reference.get_or_insert((warm, fresh));
        summary.add(&format!("settings_{name}_warm"), warm / warm_before, "x", &format!("{warm:.2} us of CPU"));
        summary.add(&format!("settings_{name}_fresh"), fresh / fresh_before, "x", &format!("{fresh:.2} us of CPU"));
    }
}

/// The settings of host/ace/src/plugin/runtime/engine.rs, changed.
fn engine((name, change): Change) -> Engine {
    let (mut config, mut pool) = (Config::new(), PoolingAllocationConfig::new());
    config.epoch_interruption(true).concurrency_support(false);
    pool.max_memory_size(64 << 20).linear_memory_keep_resident(1 << 20).table_keep_resident(64 << 10);
    pool.pagemap_scan(Enabled::Auto);
    change(&mut config, &mut pool);
    if name != ON_DEMAND {
        config.allocation_strategy(pool);
    }
    Engine::new(&config).expect("wasmtime runs here")
}

/// CPU microseconds of a call on a warm instance, and of a fresh instance, a call and its end.
async fn cost(bare: &Bare) -> (f64, f64) {
    let message = message(300);
    let mut instance = bare.instantiate().await;
    let warm = cpu_us(CALLS, async |_| instance.check(&message).await).await;
    let fresh = cpu_us(CALLS / 5, async |_| bare.instantiate().await.check(&message).await).await;
    (warm, fresh)
}
