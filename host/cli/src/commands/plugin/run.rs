//! `ace plugin run`.

use std::path::PathBuf;

use ace::config::Config;
use serde_json::{Value, json};

use super::{block, bytes, duration};
use crate::commands::{FAILED, OK, print};
use crate::kit::case::Table;
use crate::kit::run::{CaseRun, Runner, World};

pub const EXAMPLES: &str = "Examples:
  ace plugin run quiet_hours.wasm message.json
  ace plugin run --json slack.wasm tests/cases.json | jq .answer

The JSON is a message, a case of a table, or a list of cases. Key-value buckets are kept in memory. Granted HTTP requests are
really sent, unless the case has answers under \"host\"; mail goes to the relays of ace.toml, if there are any.

The exit code is 1 if the plugin failed or could not be loaded.";

#[derive(clap::Args)]
pub struct Args {
    /// The component
    file: PathBuf,

    /// A message, a case, or a list of cases, in JSON
    #[arg(value_name = "MESSAGE.json")]
    message: PathBuf,
}

pub async fn run(config: &Config, args: &Args, json: bool) -> anyhow::Result<u8> {
    let table = Table::read(&args.message)?;
    let runner = Runner::new(config, &args.file, true).await?;
    let mut succeeded = true;
    for case in &table.cases {
        let run = runner.run(case, World::Real).await?;
        succeeded &= !["fault", "refused", "sent_with_fault"].iter().any(|key| run.answer.get(key).is_some());
        if json { print(&describe(case.title(), &run).to_string()) } else { print(&in_full(case.title(), &run)) }
    }
    Ok(if succeeded { OK } else { FAILED })
}

fn in_full(title: &str, run: &CaseRun) -> String {
    let usage = &run.seen.usage;
    let fuel = usage.fuel.map(|fuel| format!(", {fuel} instructions")).unwrap_or_default();
    let parts = [
        ("answer", vec![serde_json::to_string_pretty(&run.answer).unwrap_or_default()]),
        ("stack", run.backtrace.iter().map(|trace| trace.trim_end().to_owned()).collect()),
        ("logged", run.seen.logs.iter().map(|line| format!("{:<5} {}", line.level, line.text)).collect()),
        ("host calls", run.seen.trace.clone()),
        ("refused", run.denied.clone()),
        (
            "used",
            vec![format!(
                "{}{fuel}, {} of memory, {} host calls",
                duration(usage.took),
                bytes(usage.memory_bytes as u64),
                usage.host_calls
            )],
        ),
    ];
    block(title, &parts)
}

fn describe(title: &str, run: &CaseRun) -> Value {
    json!({
        "case": title,
        "answer": run.answer,
        "backtrace": run.backtrace,
        "logs": run.seen.logs,
        "trace": run.seen.trace,
        "refused": run.denied,
        "usage": run.seen.usage,
    })
}
