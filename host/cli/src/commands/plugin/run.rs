//! `ace plugin run`.

use std::path::PathBuf;

use ace::config::Config;
use serde_json::{Value, json};

use super::{block, bytes, duration};
use crate::commands::{FAILED, OK, put};
use crate::kit::case::Table;
use crate::kit::run::{Runner, Tried, World};

pub const EXAMPLES: &str = "Examples:
  ace plugin run quiet_hours.wasm message.json
  ace plugin run --json slack.wasm tests/cases.json | jq .answer

The JSON is a message, a case of a table, or a list of cases. Key-value buckets are kept in memory. HTTP requests that
are granted are really sent, unless the case has answers under \"host\"; mail goes to the relays of ace.toml, if there are any.

The exit code is 1 if the plugin failed or was refused.";

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
    let mut is_sound = true;
    for case in &table.cases {
        let tried = runner.run(case, World::Real).await?;
        is_sound &= !["fault", "refused", "sent_with_fault"].iter().any(|key| tried.answer.get(key).is_some());
        if json { put(&describe(case.title(), &tried).to_string()) } else { put(&in_full(case.title(), &tried)) }
    }
    Ok(if is_sound { OK } else { FAILED })
}

fn in_full(title: &str, tried: &Tried) -> String {
    let usage = &tried.seen.usage;
    let fuel = usage.fuel.map(|fuel| format!(", {fuel} instructions")).unwrap_or_default();
    let parts = [
        ("answer", vec![serde_json::to_string_pretty(&tried.answer).unwrap_or_default()]),
        ("stack", tried.backtrace.iter().map(|trace| trace.trim_end().to_owned()).collect()),
        ("logged", tried.seen.logs.iter().map(|line| format!("{:<5} {}", line.level, line.text)).collect()),
        ("host calls", tried.seen.trace.clone()),
        ("refused", tried.denied.clone()),
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

fn describe(title: &str, tried: &Tried) -> Value {
    json!({
        "case": title,
        "answer": tried.answer,
        "backtrace": tried.backtrace,
        "logs": tried.seen.logs,
        "trace": tried.seen.trace,
        "refused": tried.denied,
        "usage": tried.seen.usage,
    })
}
