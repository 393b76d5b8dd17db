//! A plugin measured: what it costs to compile, to make an instance of, and to call.

use std::time::{Duration, Instant};

use ace::internals::plugin::{Namespace, PluginState};
use serde::Serialize;

use super::KitError;
use super::case::Case;
use super::run::{Prepared, Runner, World};

/// Calls before the measured ones, as a part of them: the first ones meet cold caches.
const WARM_UP_PART: usize = 10;
/// Instances made one after the other.
const INSTANCES: usize = 100;

/// What was measured of one build.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub file: std::path::PathBuf,
    pub revision: String,
    pub bytes: u64,
    /// Making machine code of it; a host does it once and keeps the result.
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

/// How durations are spread.
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
    /// Of any number of durations; of none it is zero.
    pub fn of(mut durations: Vec<Duration>) -> Spread {
        durations.sort_unstable();
        let at = |percent: usize| {
            let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
            durations.get(index).copied().unwrap_or_default()
        };
        Spread { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// Calls a plugin so many times with one case, one call after the other, in the runtime that serves.
pub async fn measure(runner: &Runner, case: &Case, calls: usize) -> Result<Measured, KitError> {
    let compile = runner.time_compilation().await?;
    let prepared = runner.prepare(case, World::Replayed).await?;
    if let PluginState::Broken(why) = &prepared.plugin.state {
        return Err(runner.fail(why));
    }
    let runtime = prepared.plugin.runtime.clone().ok_or_else(|| runner.fail("ace.toml disables it"))?;
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
    let begun = Instant::now();
    let fault = match namespace {
        Namespace::Policy => runtime.check(&prepared.message, false).await.answer.err(),
        Namespace::Channel => {
            runtime.deliver(&prepared.message, &prepared.rendered, &prepared.attempt).await.answer.err()
        }
        Namespace::RecipientResolver => runner.resolve(runtime, case).await?.answer.err(),
    };
    let took = begun.elapsed();
    match fault {
        None => Ok(took),
        Some(fault) => Err(runner.fail(&format!("it failed while it was measured: {fault}"))),
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
