//! `ace templates`.

mod copy;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ace::config::Config;
use ace::internals::engine::{self, Preflight, texts};
use jiff::Timestamp;
use serde_json::json;

use super::tables::Table;
use super::{FAILED, OK, counted, import, inform, print};
pub use copy::run as copy;

const EXAMPLES: &str = "Examples:
  ace templates
  ace templates --json | jq 'select(.overrides)'
  ace templates extract --language fr
  ace templates extract --check
  ace templates copy base_body.html

The exit code is 1 if a template is broken, or if one that a channel needs is missing.";

#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(clap::Subcommand)]
pub enum Command {
    /// Collect the translatable texts of a template folder into locale/, for translators
    Extract(ExtractArgs),
    /// Copy a template that is part of this program, to change it
    #[command(after_help = copy::EXAMPLES)]
    Copy(copy::Args),
    /// Convert a folder of Django templates, with its catalogues
    #[command(after_long_help = import::EXAMPLES)]
    Import(import::Args),
}

#[derive(clap::Args)]
pub struct ExtractArgs {
    /// The template folder (default: the first of template-dirs)
    dir: Option<PathBuf>,

    /// Start a catalogue for this language; may be repeated. Existing catalogues are always merged
    #[arg(long, value_name = "LANGUAGE")]
    language: Vec<String>,

    /// Write nothing; the exit code is 1 if a text is missing, stale or fuzzy
    #[arg(long)]
    check: bool,
}

pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    match args.command {
        None => list(&config, json).await,
        Some(Command::Extract(args)) => extract(&config, args, json).await,
        Some(Command::Copy(args)) => copy::run(|| Ok(config), &args, json),
        Some(Command::Import(args)) => import::run(&args, Some(Ok(config)), json),
    }
}

/// Lists the templates of each message, which are missing, and which override others.
async fn list(config: &Config, json: bool) -> anyhow::Result<u8> {
    let preflight = engine::preflight(config, Timestamp::now).await?;
    let missing_files = missing_files(&preflight);
    let mut is_broken = false;
    let mut table = Table::new(["message", "type", "theme", "file", "from", "overrides"]);
    for file in preflight.presentation.files() {
        is_broken |= file.broken.is_some();
        if json {
            print(&serde_json::to_string(&file)?);
            continue;
        }
        let source = match file.broken {
            Some(why) => format!("broken: {why}"),
            None => file.source.to_owned(),
        };
        let overrides: Vec<String> = file.overrides.iter().map(|path| path.display().to_string()).collect();
        table.add_row([
            format!("{}.{}", file.app_label, file.name),
            file.channel_type.to_owned(),
            file.theme.unwrap_or_default().to_owned(),
            file.file.to_owned(),
            source,
            overrides.join("\n"),
        ]);
    }
    for ((message, channel_type, file), channels) in &missing_files {
        let channels = channels.join(", ");
        if json {
            print(
                &json!({"message": message, "channel_type": channel_type, "file": file, "needed_by": channels})
                    .to_string(),
            );
        } else {
            let missing = format!("missing: {channels} needs it");
            table.add_row([message, channel_type, "", file, &missing, ""]);
        }
    }
    for (message, channel_type) in preflight.absent_types() {
        if json {
            print(&json!({"message": message, "channel_type": channel_type, "absent": true}).to_string())
        } else {
            table.add_row([&message, &channel_type, "", "", "no templates: it is not sent over this type", ""]);
        }
    }
    if !json {
        table.print();
    }
    Ok(if is_broken || !missing_files.is_empty() { FAILED } else { OK })
}

/// Files that channels need and that are missing, by message, channel type and file name, with the channels.
fn missing_files(preflight: &Preflight) -> BTreeMap<(String, String, String), Vec<String>> {
    let mut missing_files: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for missing in preflight.missing_files() {
        for file in missing.files {
            let key = (missing.message.clone(), missing.channel_type.clone(), file);
            missing_files.entry(key).or_default().push(missing.channel.clone());
        }
    }
    missing_files
}

async fn extract(config: &Config, args: ExtractArgs, json: bool) -> anyhow::Result<u8> {
    let dir = args.dir.or_else(|| config.template_dirs.first().cloned()).ok_or_else(|| {
        anyhow::anyhow!("there is no template folder\nhint: name one, or list it in template-dirs of ace.toml")
    })?;
    let (languages, write) = (args.language, !args.check);
    let extracted = tokio::task::spawn_blocking(move || texts::extract(&dir, &languages, write)).await??;
    let mut unfinished = 0;
    for catalog in &extracted {
        let Some(language) = &catalog.language else {
            inform(&format!("{} in the templates", counted(catalog.messages as u64, "text")));
            continue;
        };
        unfinished += catalog.missing.len() + catalog.fuzzy.len() + catalog.stale.len();
        if json {
            print(&serde_json::to_string(catalog)?);
            continue;
        }
        for (what, texts) in [("missing", &catalog.missing), ("fuzzy", &catalog.fuzzy), ("stale", &catalog.stale)] {
            texts.iter().for_each(|text| print(&format!("{language}\t{what}\t{}", text.escape_debug())));
        }
        let written = match (catalog.changed, write) {
            (true, true) => "written",
            (true, false) => "would change",
            (false, _) => "unchanged",
        };
        let (missing, fuzzy, stale) = (catalog.missing.len(), catalog.fuzzy.len(), catalog.stale.len());
        inform(&format!("{}: {written}; {missing} missing, {fuzzy} fuzzy, {stale} stale", catalog.file.display()));
    }
    Ok(if args.check && unfinished > 0 { FAILED } else { OK })
}
