//! The start of the program with 20 plugins: compiled, from the cache, and without any.

use std::path::Path;

use super::{Home, tagged};
use crate::measure::{Latencies, Summary, child};
use crate::place::{DISCARD, Place};

const PLUGINS: usize = 20;
/// Python plugins beside them, of 18 MiB each.
const PYTHON: usize = 3;
/// Of these, each in five revisions: two policies and two channels that need no settings.
const KINDS: [&str; 4] = ["stub_policy", "bulk_email_optout", "django_email", "file_email"];

pub fn start(place: &Place, summary: &mut Summary) {
    let components = KINDS.map(|kind| (kind, place.component(kind)));
    let plugins: Vec<(String, Vec<u8>)> = (0..PLUGINS)
        .map(|i| {
            let (kind, wasm) = &components[i % KINDS.len()];
            (format!("{kind}_{i}"), tagged(wasm, &format!("start {i}")))
        })
        .collect();
    let plugins: Vec<(&str, Vec<u8>)> = plugins.iter().map(|(name, wasm)| (name.as_str(), wasm.clone())).collect();
    let toml = format!("template-dirs = [\"../../../host/benches/templates\"]\n[mailer]\n{DISCARD}")
        .replace("[mailer]\n", "[mailer]\ndefault-from = \"a@example.org\"\n");
    let home = Home::new(place, "start", &plugins, &toml);
    let none = Home::new(place, "start_none", &[], &toml);
    let cache = place.bench.join("cache");
    let cold = starts(place, &home, 5, || drop(std::fs::remove_dir_all(&cache)));
    let cached = starts(place, &home, 15, || {});
    let nothing = starts(place, &none, 15, || {});
    let whole = "the whole process, an empty input";
    summary.add("start_ms_20_plugins_cold", cold.median() / 1e3, "ms", "everything is compiled");
    summary.add("start_ms_20_plugins_cached", cached.median() / 1e3, "ms", &format!("aim <= 60; {whole}"));
    if let Some(wasm) = place.example("quiet_hours_python") {
        let python = (0..PYTHON).map(|i| (format!("python_{i}"), tagged(&wasm, &format!("start {i}"))));
        let plugins: Vec<(String, Vec<u8>)> =
            plugins.into_iter().map(|(n, w)| (n.to_owned(), w)).chain(python).collect();
        let plugins: Vec<(&str, Vec<u8>)> = plugins.iter().map(|(name, wasm)| (name.as_str(), wasm.clone())).collect();
        let hours = "config = { start = \"22:00\", end = \"08:00\", time-zone = \"UTC\", channel-types = [\"push\"] }";
        let sections = (0..PYTHON).map(|i| format!("\n[plugins.python_{i}]\n{hours}"));
        let toml: String = std::iter::once(toml).chain(sections).collect();
        let home = Home::new(place, "start_python", &plugins, &toml);
        starts(place, &home, 1, || {});
        let cached = starts(place, &home, 15, || {});
        summary.add("start_ms_20_plugins_and_3_python_cached", cached.median() / 1e3, "ms", whole);
    }
    summary.add("start_ms_no_plugins", nothing.median() / 1e3, "ms", whole);
}

fn starts(place: &Place, home: &Home, times: usize, before: impl Fn()) -> Latencies {
    let took = (0..times).map(|_| {
        before();
        run(&place.target.join("release/ace"), &home.config)
    });
    Latencies::of(took.collect())
}

/// Microseconds from its start to its end, with nothing to send.
fn run(ace: &Path, config: &Path) -> f64 {
    let args = ["--config".as_ref(), config.as_os_str(), "send".as_ref(), "/dev/null".as_ref()];
    child(ace, &args).wall_s * 1e6
}
