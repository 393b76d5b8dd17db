//! `ace plugin test`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ace_store::files::{self, Readers};
use serde_json::json;

use super::duration;
use crate::commands::default_config;
use crate::commands::{FAILED, NOT_STARTED, OK, counted, inform, print};
use crate::kit::test::{self, Plan};

pub const EXAMPLES: &str = "Examples:
  ace plugin test
  ace plugin test quiet_hours --cases shared/quiet_hours.cases.json
  ace plugin test --record
  ace plugin test --junit report.xml

The cases are the JSON files in the folder tests beside the plugin. ace.toml is not used: the limits are the
defaults and the manifest's, the clock and random numbers are fixed, and HTTP and mail are answered from \"host\" of a case.
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
    let started = Instant::now();
    let mut plan = Plan::read(&args.dir, &args.cases)?;
    let results = plan.run(&default_config(), args.record, args.only.as_deref()).await?;
    for result in &results {
        let passed = result.failures.is_empty();
        if json {
            print(&json!({"case": result.title, "location": result.location, "passed": passed, "failures": result.failures,
                "answer": result.answer, "took_us": result.took.as_micros() as u64})
            .to_string())
        } else {
            print(&line(result))
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
    let failed = results.iter().filter(|result| !result.failures.is_empty()).count();
    let all = counted(results.len() as u64, "case");
    inform(&format!("{}: {all}, {failed} failed, {}", plan.name, duration(whole_millis(started.elapsed()))));
    Ok(match (results.is_empty(), failed) {
        (true, _) => NOT_STARTED,
        (false, 0) => OK,
        (false, _) => FAILED,
    })
}

fn line(result: &test::CaseResult) -> String {
    let mut out = if result.failures.is_empty() {
        format!("ok      {}  ({})", result.title, duration(result.took))
    } else {
        format!("FAILED  {}  {}", result.title, result.location)
    };
    for failure in &result.failures {
        out += &format!("\n    {}", failure.replace('\n', "\n    "));
    }
    if !result.failures.is_empty() {
        result.logs.iter().for_each(|line| out += &format!("\n    logged {} {}", line.level, line.text));
    }
    out
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
