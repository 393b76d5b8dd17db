//! `ace plugin bench`.

use std::path::PathBuf;

use ace::config::Config;
use comfy_table::{Table, presets};

use super::{bytes, duration};
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
        print(&table(&measured))
    }
    Ok(OK)
}

/// A table with a column for each build, and one for the change from the first to the last.
fn table(measured: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let mut header = vec![String::new()];
    header.extend(measured.iter().map(|m| format!("{}\n{}", m.file.display(), m.revision)));
    if measured.len() > 1 {
        header.push("change".to_owned());
    }
    table.set_header(header);
    let mut row = |name: &str, figure: fn(&Measured) -> f64, format: fn(&Measured) -> String| {
        let mut cells = vec![name.to_owned()];
        cells.extend(measured.iter().map(format));
        if let [before, .., after] = measured {
            let (before, after) = (figure(before), figure(after));
            let percent =
                if before > 0.0 { format!("{:+.0} %", (after / before - 1.0) * 100.0) } else { String::new() };
            cells.push(percent);
        }
        table.add_row(cells);
    };
    row("size", |m| m.bytes as f64, |m| bytes(m.bytes));
    row("compile", |m| m.compile.as_secs_f64(), |m| duration(m.compile));
    row("instantiate p50", |m| m.instantiate.p50.as_secs_f64(), |m| duration(m.instantiate.p50));
    row("instantiate p99", |m| m.instantiate.p99.as_secs_f64(), |m| duration(m.instantiate.p99));
    row("call p50", |m| m.call.p50.as_secs_f64(), |m| duration(m.call.p50));
    row("call p99", |m| m.call.p99.as_secs_f64(), |m| duration(m.call.p99));
    row("memory", |m| m.memory_bytes as f64, |m| bytes(m.memory_bytes as u64));
    row("host calls", |m| m.host_calls as f64, |m| m.host_calls.to_string());
    table.to_string()
}
