//! One call of a policy: through the registry, by wasmtime alone, and as a part of the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ace::internals::plugin::{Engine, Runtime};
use ace::message::{CallContext, Denial, Fault, Message, PolicyResult};
use ace::policy::Policy;
use async_trait::async_trait;

use super::bare::Bare;
use super::{Home, message, runtime};
use crate::measure::{Summary, cpu_us, latencies, latencies_in_turn, one_core, resident_mib};
use crate::place::Place;

/// Calls of one measurement.
const CALLS: usize = 50_000;
/// Instances that are kept alive to weigh them.
const INSTANCES: usize = 200;
/// Bytes of a usual context, and of a large one.
const SMALL: usize = 300;
const LARGE: usize = 50_000;

const TOML: &str = "[plugins.whole]\nconfig = { whole = true }";

fn home(place: &Place) -> Home {
    let reader = place.component("context_reader");
    Home::new(place, "calls", &[("reader", reader.clone()), ("whole", reader)], TOML)
}

pub fn calls(place: &Place, summary: &mut Summary) {
    one_core().block_on(async {
        let ace = home(place).start().await;
        let (reader, whole) = (runtime(&ace, "reader"), runtime(&ace, "whole"));
        against_bare(place, &reader, summary).await;
        contexts(&reader, &whole, summary).await;
    });
}

/// What the policy costs through the registry, over the same component called by wasmtime alone, and over plain Rust.
async fn against_bare(place: &Place, reader: &Runtime, summary: &mut Summary) {
    let message = message(SMALL);
    let engine = Engine::new(&ace::Config::default()).expect("wasmtime runs here");
    let bare = Bare::new(engine.wasmtime(), &place.component("context_reader"));
    let mut instance = bare.instantiate().await;
    for _ in 0..CALLS / 10 {
        check(reader, &message).await;
        instance.check(&message).await;
    }
    let (ours, theirs) =
        latencies_in_turn(CALLS, async |_| check(reader, &message).await, async |_| instance.check(&message).await)
            .await;
    summary.add("policy_call_over_bare", ours.median() / theirs.median(), "x", "aim <= 1.2; p50 of each, in turns");
    summary.add("policy_call_us_p50", ours.median(), "us", "aim <= 4; Rust, one getter, warm instance");
    summary.add("policy_call_us_p99", ours.percentile(99), "us", "");
    summary.add(
        "policy_call_bare_us_p50",
        theirs.median(),
        "us",
        "wasmtime alone: same engine, async, epochs, resource",
    );
    summary.add("policy_call_bare_us_p99", theirs.percentile(99), "us", "");
    let native: &dyn Policy = &NativeReader;
    let call = CallContext::default();
    let native_us = cpu_us(CALLS, async |_| drop(native.check(&message, false, &call).await)).await;
    summary.add("policy_call_reader_native_us", native_us, "us", "the same policy as a part of the host");
    summary.add("policy_call_over_native", ours.median() / native_us, "x", "");

    let fresh = latencies(2_000, async |_| drop(bare.instantiate().await)).await;
    summary.add("instantiate_us_p50", fresh.median(), "us", "an instance from the pool, and back");
    let before = resident_mib();
    let mut alive = Vec::with_capacity(INSTANCES);
    for _ in 0..INSTANCES {
        let mut instance = bare.instantiate().await;
        instance.check(&message).await;
        alive.push(instance);
    }
    let kib = (resident_mib() - before) * 1024.0 / alive.len() as f64;
    summary.add("memory_kib_per_instance", kib, "KiB", "alive, after one call");
}

/// A getter against the whole message as JSON, on a usual and on a large context.
async fn contexts(reader: &Runtime, whole: &Runtime, summary: &mut Summary) {
    for (size, bytes) in [("300b", SMALL), ("50kb", LARGE)] {
        let message = message(bytes);
        let times = if bytes == LARGE { CALLS / 50 } else { CALLS / 5 };
        let (getter, to_json) =
            latencies_in_turn(times, async |_| check(reader, &message).await, async |_| check(whole, &message).await)
                .await;
        summary.add(&format!("policy_call_getter_{size}_us_p50"), getter.median(), "us", "");
        summary.add(&format!("policy_call_to_json_{size}_us_p50"), to_json.median(), "us", "parsed by the guest");
    }
}

/// Calls a second with all there is to do on one core, and on two.
pub fn cores(place: &Place, summary: &mut Summary) {
    let home = home(place);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (cores, rates) in [1, 2].into_iter().zip(&mut rates) {
            rates.push(calls_per_s(&home, cores));
        }
    }
    let [one, two] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    summary.add("policy_calls_per_s_1_core", one, "/s", "");
    summary.add("policy_calls_per_s_2_cores", two, "/s", "");
    summary.add("policy_calls_2_cores_over_1", two / one, "x", "on two cores that others use too");
}

fn calls_per_s(home: &Home, cores: usize) -> f64 {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build();
    let workers = workers.expect("a runtime");
    workers.block_on(async {
        let reader = runtime(&home.start().await, "reader");
        let done = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let tasks: Vec<_> = (0..cores * 4)
            .map(|_| {
                let (reader, done, message) = (reader.clone(), done.clone(), message(SMALL));
                tokio::spawn(async move {
                    while started.elapsed() < Duration::from_secs(1) {
                        for _ in 0..50 {
                            check(&reader, &message).await;
                        }
                        done.fetch_add(50, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
    })
}

/// One call as the pipeline makes it.
pub async fn check(policy: &Runtime, message: &Arc<Message>) {
    std::hint::black_box(policy.check(message, false).await.answer.unwrap_or_else(|fault| panic!("{fault}")));
}

/// The guest context_reader in plain Rust.
struct NativeReader;

#[async_trait]
impl Policy for NativeReader {
    fn name(&self) -> &str {
        "native_reader"
    }

    async fn check(&self, message: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        let mut result = PolicyResult::default();
        if message.context.get("plan") == Some("\"free\"") {
            result.deny.push(Denial { channel_type: "push".to_owned(), reason: None });
        }
        Ok(std::hint::black_box(result))
    }
}
