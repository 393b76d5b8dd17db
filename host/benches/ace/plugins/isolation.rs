//! Warm instances against a fresh one for each call, in every language whose guest is there.

use std::path::PathBuf;
use std::sync::Arc;

use ace::internals::plugin::Runtime;
use ace::message::Message;

use super::calls::check;
use super::{Home, message, runtime};
use crate::measure::{Latencies, Summary, latencies, one_core, process_cpu_s};
use crate::place::Place;

/// Calls of one measurement.
const CALLS: usize = 1_000;

pub fn isolation(place: &Place, summary: &mut Summary) {
    let rust = ("rust".to_owned(), place.component("context_reader"));
    for (language, wasm) in std::iter::once(rust).chain(others(place)) {
        // On a busy machine a runtime's first call takes its time.
        let toml = "[limits]\ntime = \"10s\"\npolicy-call-timeout = \"30s\"\n[plugins.fresh]\nisolation = \"message\"";
        let home = Home::new(place, "isolation", &[("warm", wasm.clone()), ("fresh", wasm)], toml);
        one_core().block_on(compare(&language, &home, summary));
    }
}

/// The examples in other languages: `lang_NAME.wasm`.
fn others(place: &Place) -> Vec<(String, Vec<u8>)> {
    let folders = ["plugins/examples", "test-plugins"].map(|folder| place.target.join(folder));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "wasm")) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(language) = stem.strip_prefix("lang_") {
            found.push((language.to_owned(), std::fs::read(file).expect("it can be read")));
        }
    }
    if found.is_empty() {
        println!("No guest in another language is built (lang_*.wasm): isolation is measured for Rust alone.");
    }
    found
}

async fn compare(language: &str, home: &Home, summary: &mut Summary) {
    let ace = home.start().await;
    let (warm, fresh, message) = (runtime(&ace, "warm"), runtime(&ace, "fresh"), message(300));
    for _ in 0..CALLS / 10 {
        check(&warm, &message).await;
        check_spare(&fresh, &message).await;
    }
    let pooled = latencies(CALLS, async |_| check(&warm, &message).await).await;
    let before = process_cpu_s();
    let isolated = isolated(&fresh, &message).await;
    let cpu_us = (process_cpu_s() - before) * 1e6 / CALLS as f64;
    let of = if language == "rust" { String::new() } else { format!("_{language}") };
    let aim = if language == "rust" { "aim <= 15; " } else { "" };
    summary.add(&format!("policy_call_pooled{of}_us_p50"), pooled.median(), "us", "warm instance");
    let reference = format!("{aim}latency from a spare that was made before");
    summary.add(&format!("policy_call_isolated{of}_us_p50"), isolated.median(), "us", &reference);
    summary.add(&format!("policy_call_isolated{of}_us_p99"), isolated.percentile(99), "us", "");
    summary.add(
        &format!("policy_call_isolated{of}_cpu_us"),
        cpu_us,
        "us",
        "CPU, the making of the next spare included",
    );
}

async fn isolated(fresh: &Runtime, message: &Arc<Message>) -> Latencies {
    let mut took = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        took.push(check_spare(fresh, message).await);
    }
    Latencies::of(took)
}

/// Waits until there is a spare; then, how many microseconds one call takes.
async fn check_spare(fresh: &Runtime, message: &Arc<Message>) -> f64 {
    while fresh.idle_instances() == 0 {
        tokio::task::yield_now().await;
    }
    let started = std::time::Instant::now();
    check(fresh, message).await;
    started.elapsed().as_secs_f64() * 1e6
}
