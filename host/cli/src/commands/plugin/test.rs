//! `ace plugin test`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ace_store::files::{self, Readers};
use serde_json::json;

use super::duration;
use crate::commands::without_file;
use crate::commands::{FAILED, NOT_BEGUN, OK, counted, put, say};
use crate::kit::test::{self, Plan};

pub const EXAMPLES: &str = "Examples:
  ace plugin test
  ace plugin test quiet_hours --cases shared/quiet_hours.cases.json
  ace plugin test --record
  ace plugin test --junit report.xml

The cases are the JSON files in the folder tests beside the plugin. ace.toml is not used: the limits are the
defaults and the manifest's, the clock and random numbers are fixed, HTTP and mail are answered with what a case has under \"host\".
With --record, real services are used, and the file is rewritten with their answers, the time and, if a case has
no expectation yet, the plugin's answer.

The exit code is 1 if a case fails.";

#[derive(clap::Args)]
pub struct Args {
    /// The plugin's folder, or a component
    #[arg(default_value = ".")]
    dir: PathBuf,

    /// A file or folder of cases to run instead of the tests beside the plugin; may be repeated
    #[arg(long, value_name = "PATH")]
    cases: Vec<PathBuf>,

    /// Only cases whose name or location contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Use real services, and record their answers
    #[arg(long)]
    record: bool,

    /// Write a JUnit report to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub async fn run(args: &Args, json: bool) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let mut plan = Plan::read(&args.dir, &args.cases)?;
    let results = plan.run(&without_file(), args.record, args.only.as_deref()).await?;
    for result in &results {
        let is_sound = result.faults.is_empty();
        if json {
            put(&json!({"case": result.title, "location": result.place, "passed": is_sound, "failures": result.faults,
                "answer": result.answer, "took_us": result.took.as_micros() as u64})
            .to_string())
        } else {
            put(&line(result))
        }
    }
    if let Some(file) = &args.junit {
        let report = test::junit(&plan.name, &results);
        files::replace_linked(file, report.as_bytes(), Readers::AsBefore)
            .map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    }
    if args.record {
        plan.write()?;
    }
    let failed = results.iter().filter(|result| !result.faults.is_empty()).count();
    let all = counted(results.len() as u64, "case");
    say(&format!("{}: {all}, {failed} failed, {}", plan.name, duration(round(begun.elapsed()))));
    Ok(match (results.is_empty(), failed) {
        (true, _) => NOT_BEGUN,
        (false, 0) => OK,
        (false, _) => FAILED,
    })
}

fn line(result: &test::CaseResult) -> String {
    let mut out = if result.faults.is_empty() {
        format!("ok      {}  ({})", result.title, duration(result.took))
    } else {
        format!("FAILED  {}  {}", result.title, result.place)
    };
    for fault in &result.faults {
        out += &format!("\n    {}", fault.replace('\n', "\n    "));
    }
    if !result.faults.is_empty() {
        result.logs.iter().for_each(|line| out += &format!("\n    logged {} {}", line.level, line.text));
    }
    out
}

fn round(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
