//! `ace message new`.

use std::path::{Path, PathBuf};

use ace::config::Config;
use serde_json::json;

use super::{OK, inform, print, scaffold};

pub const EXAMPLES: &str = "Examples:
  ace message new orderconfirmation
  ace message new reminder --channels email,push,sms
  ace send --to me@example.com reminder

It writes a template for each file that a channel type needs, and sample.json, which `ace check` and
`ace render` render in every language and theme. Files that exist are never overwritten.";

#[derive(clap::Subcommand)]
pub enum Command {
    /// Create the templates and the sample of a message
    #[command(after_help = EXAMPLES)]
    New(NewArgs),
}

#[derive(clap::Args)]
pub struct NewArgs {
    /// The name of the message: lower-case letters, digits, "_" and "-"
    name: String,

    /// The channel types, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "email", value_name = "TYPES")]
    channels: Vec<String>,

    /// The template folder [default: the first of template-dirs]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn run(config: &Config, command: &Command, json: bool) -> anyhow::Result<u8> {
    let Command::New(args) = command;
    let dir: &Path = args.dir.as_ref().or(config.template_dirs.first()).ok_or_else(|| {
        anyhow::anyhow!(
            "there is no template folder\nhint: name one with --dir, or list it in template-dirs of ace.toml"
        )
    })?;
    let files = scaffold::message(&args.name, &args.channels, &config.presentation.default_language)?;
    scaffold::write(dir, &files)?;
    for (path, _) in &files {
        let file = dir.join(path);
        print(&if json { json!({ "file": file }).to_string() } else { file.display().to_string() });
    }
    inform(&format!("\nNext:\n  ace check\n  ace render --open\n  ace send --to you@example.com {}", args.name));
    Ok(OK)
}
