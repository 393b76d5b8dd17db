//! `ace templates import`.

use std::path::PathBuf;

use serde_json::json;

use super::{FAILED, OK, counted, put, say};
use crate::django::folder::{self, Imported};

pub const EXAMPLES: &str = "Examples:
  ace templates import lms/templates --out templates
  ace templates import lms/templates --out templates --json | jq 'select(.weight == \"left\")'

Reads no configuration. Exit code 1 where something was left that somebody has to write anew;
it stands in the files as a comment, {# not translated: … #}.";

#[derive(clap::Args)]
pub struct Args {
    /// A template folder of Django's: what `extends` and `include` name stands below it
    source: PathBuf,

    /// The template folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Write over files that are there already
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args, json: bool) -> anyhow::Result<u8> {
    let Imported { import, catalogs, others } = folder::import(&args.source, &args.out, args.force)?;
    for finding in &import.findings {
        match json {
            true => put(&serde_json::to_string(finding)?),
            false => put(&finding.to_string()),
        }
    }
    let (left, notes) = (import.left(), import.findings.len() - import.left());
    if json {
        let summary = json!({
            "templates": import.files.len(), "catalogs": catalogs, "others": others, "left": left, "notes": notes,
        });
        put(&summary.to_string());
    }
    for other in others {
        say(&format!("{other} is neither a template (.html, .txt) nor a catalogue (.po) and stays behind"));
    }
    say(&format!(
        "{} and {} written to {}: {left} left to write anew, {}",
        counted(import.files.len() as u64, "template"),
        counted(catalogs.len() as u64, "catalogue"),
        args.out.display(),
        counted(notes as u64, "note"),
    ));
    Ok(if left == 0 { OK } else { FAILED })
}
