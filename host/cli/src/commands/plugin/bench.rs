//! `ace plugin bench`.

use std::path::PathBuf;

use ace::config::Config;

use super::{bytes, duration};
use crate::commands::tables::Table;
use crate::commands::{OK, print};
use crate::kit::bench::{Measured, measure};
use crate::kit::case;
use crate::kit::run::Runner;

pub const EXAMPLES: &str = "Examples:
  ace plugin bench quiet_hours.wasm message.json
  ace plugin bench new/quiet_hours.wasm message.json --against old/quiet_hours.wasm

Calls are made one after another on a warm instance. HTTP and mail are answered from \"host\" of the case; nothing leaves the
machine.";

/// More calls would only take longer.
const CALLS_MAX: u64 = 10_000_000;

#[derive(clap::Args)]
pub struct Args {
    /// The component
    file: PathBuf,

    /// A message, a case, or a list of cases of which the first is used, in JSON
    #[arg(value_name = "MESSAGE.json")]
    message: PathBuf,

    /// Another build to compare with
    #[arg(long, value_name = "FILE.wasm")]
    against: Option<PathBuf>,

    /// The number of calls to measure
    #[arg(long, short = 'n', default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=CALLS_MAX))]
    calls: u64,
}

pub async fn run(config: &Config, args: &Args, json: bool) -> anyhow::Result<u8> {
    let cases = case::Table::read(&args.message)?.cases;
    let case = cases.first().ok_or_else(|| anyhow::anyhow!("{}: the file contains no case", args.message.display()))?;
    let mut measured = Vec::new();
    for file in args.against.iter().chain([&args.file]) {
        let runner = Runner::new(config, file, false).await?;
        measured.push(measure(&runner, case, args.calls as usize).await?);
    }
    if json {
        measured.iter().try_for_each(|m| serde_json::to_string(m).map(|text| print(&text)))?
    } else {
        show(&measured)
    }
    Ok(OK)
}

/// Prints the figures of a build, or of two and the change.
fn show(measured: &[Measured]) {
    let [first, .., last] = measured else {
        // One build needs no comparison.
        let mut table = Table::new(["", ""]);
        let builds = |m: &Measured| [m.file.display().to_string(), m.revision.clone()];
        measured.iter().for_each(|m| table.add_row(builds(m)));
        measured.iter().for_each(|m| FIGURES.iter().for_each(|(name, _, format)| table.add_row([*name, &format(m)])));
        return table.print();
    };
    let mut table = Table::new(["", "against", "now", "change"]);
    let name = |m: &Measured| format!("{}\n{}", m.file.display(), m.revision);
    table.add_row([String::new(), name(first), name(last), String::new()]);
    for (name, figure, format) in FIGURES {
        let (before, after) = (figure(first), figure(last));
        let percent = if before > 0.0 { format!("{:+.0} %", (after / before - 1.0) * 100.0) } else { String::new() };
        table.add_row([name.to_owned(), format(first), format(last), percent]);
    }
    table.print();
}

/// A figure of a build: its name, its value, and how it is shown.
type Figure = (&'static str, fn(&Measured) -> f64, fn(&Measured) -> String);

const FIGURES: [Figure; 8] = [
    ("size", |m| m.bytes as f64, |m| bytes(m.bytes)),
    ("compile", |m| m.compile.as_secs_f64(), |m| duration(m.compile)),
    ("instantiate p50", |m| m.instantiate.p50.as_secs_f64(), |m| duration(m.instantiate.p50)),
    ("instantiate p99", |m| m.instantiate.p99.as_secs_f64(), |m| duration(m.instantiate.p99)),
    ("call p50", |m| m.call.p50.as_secs_f64(), |m| duration(m.call.p50)),
    ("call p99", |m| m.call.p99.as_secs_f64(), |m| duration(m.call.p99)),
    ("memory", |m| m.memory_bytes as f64, |m| bytes(m.memory_bytes as u64)),
    ("host calls", |m| m.host_calls as f64, |m| m.host_calls.to_string()),
];
