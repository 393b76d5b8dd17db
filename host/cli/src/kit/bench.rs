//! Measures a plugin: compiling, instantiating and calling it.

use std::time::{Duration, Instant};

use ace::internals::plugin::{Namespace, PluginState};
use serde::Serialize;

use super::KitError;
use super::case::Case;
use super::run::{Prepared, Runner, World};

/// One warm-up call is made for this many measured ones, because the first calls find cold caches.
const WARM_UP_PART: usize = 10;
/// The number of measured instantiations.
const INSTANCES: usize = 100;

/// The measurements of one build.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub file: std::path::PathBuf,
    pub revision: String,
    pub bytes: u64,
    /// The time to compile it, which a host needs only once.
    #[serde(serialize_with = "micros", rename = "compile_us")]
    pub compile: Duration,
    #[serde(rename = "instantiate_us")]
    pub instantiate: Spread,
    #[serde(rename = "call_us")]
    pub call: Spread,
    pub memory_bytes: usize,
    pub host_calls: usize,
    pub calls: usize,
}

/// Percentiles of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    #[serde(serialize_with = "micros")]
    pub p50: Duration,
    #[serde(serialize_with = "micros")]
    pub p99: Duration,
    #[serde(serialize_with = "micros")]
    pub max: Duration,
}

fn micros<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64((duration.as_nanos() as f64 / 100.0).round() / 10.0)
}

impl Spread {
    /// The percentiles of any number of durations; zero if there are none.
    pub fn of(mut durations: Vec<Duration>) -> Spread {
        durations.sort_unstable();
        let at = |percent: usize| {
            let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
            durations.get(index).copied().unwrap_or_default()
        };
        Spread { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// Calls a plugin `calls` times with one case, one call after the other, in the same runtime as the server.
pub async fn measure(runner: &Runner, case: &Case, calls: usize) -> Result<Measured, KitError> {
    let compile = runner.time_compilation().await?;
    let prepared = runner.prepare(case, World::Replayed).await?;
    if let PluginState::Broken(why) = &prepared.plugin.state {
        return Err(runner.fail(why));
    }
    let runtime = prepared.plugin.runtime.clone().ok_or_else(|| runner.fail("the plugin is disabled in ace.toml"))?;
    for _ in 0..calls.div_ceil(WARM_UP_PART) {
        call(runner, &runtime, case, &prepared).await?;
    }
    let mut durations = Vec::with_capacity(calls);
    for _ in 0..calls {
        durations.push(call(runner, &runtime, case, &prepared).await?);
    }
    let mut instances = Vec::with_capacity(INSTANCES);
    for _ in 0..INSTANCES {
        instances.push(runtime.time_instantiation().await.map_err(|fault| runner.fail(&fault.to_string()))?);
    }
    let usage = prepared.sandbox.recording().usage;
    Ok(Measured {
        file: runner.file.clone(),
        revision: prepared.plugin.revision.clone(),
        bytes: prepared.plugin.size,
        compile,
        instantiate: Spread::of(instances),
        call: Spread::of(durations),
        memory_bytes: usage.memory_bytes,
        host_calls: usage.host_calls,
        calls,
    })
}

async fn call(
    runner: &Runner,
    runtime: &ace::internals::plugin::Runtime,
    case: &Case,
    prepared: &Prepared,
) -> Result<Duration, KitError> {
    let namespace = runner.namespace(case, &prepared.plugin)?;
    prepared.sandbox.rewind();
    let started = Instant::now();
    let fault = match namespace {
        Namespace::Policy => runtime.check(&prepared.message, false).await.answer.err(),
        Namespace::Channel => {
            runtime.deliver(&prepared.message, &prepared.rendered, &prepared.attempt).await.answer.err()
        }
        Namespace::RecipientResolver => runner.resolve(runtime, case).await?.answer.err(),
        Namespace::Feedback => runner.receive(runtime, case, prepared).await?.answer.err(),
    };
    let took = started.elapsed();
    match fault {
        None => Ok(took),
        Some(fault) => Err(runner.fail(&format!("the plugin failed while it was measured: {fault}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_durations() {
        let micros = |n: u64| Duration::from_micros(n);
        let spread = Spread::of((1..=200).rev().map(micros).collect());
        assert_eq!(spread, Spread { p50: micros(101), p99: micros(199), max: micros(200) });
        assert_eq!(Spread::of(vec![micros(7)]), Spread { p50: micros(7), p99: micros(7), max: micros(7) });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
