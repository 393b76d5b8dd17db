//! `ace render`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ace::Ace;
use ace::config::Config;
use ace::internals::engine::preview::{self, Preview};
use ace::message::{Message, Rendered};
use ace_store::files::{self, Readers};
use anyhow::Context;
use serde_json::json;

use super::{FAILED, OK, counted, inform, open, print};

const EXAMPLES: &str = "Examples:
  ace render message.json --open
  ace render message.json --language pl --theme blue --out previews
  ace render --matrix --out previews

Without a file, every sample.json beside templates is rendered. No policy is evaluated and nothing is delivered.
The exit code is 1 if something cannot be rendered.";

#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A file with one JSON message, one per line, or a sample.json beside templates; "-" for standard input
    file: Option<PathBuf>,

    /// Render only for this channel or channel type (default: each type that the message has templates for)
    #[arg(long, value_name = "TYPE|CHANNEL")]
    channel: Option<String>,

    /// Render in this language instead of the message's own
    #[arg(long)]
    language: Option<String>,

    /// Render in this theme instead of the message's own
    #[arg(long)]
    theme: Option<String>,

    /// Render in every language that has a catalogue, and in every theme
    #[arg(long, conflicts_with_all = ["language", "theme"])]
    matrix: bool,

    /// Write HTML, text and .eml files into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Open the HTML in the browser
    #[arg(long)]
    open: bool,
}

/// A message in one theme and language.
struct Variant {
    message: Arc<Message>,
    theme: Option<String>,
    language: Option<String>,
}

pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let ace = Ace::builder(config.clone()).start().await?;
    let (messages, mut failures) = messages(&config, &ace, &args).await?;
    let out = match (&args.out, args.open) {
        (Some(dir), _) => Some(dir.clone()),
        (None, true) => Some(std::env::temp_dir().join(format!("ace-render-{}", std::process::id()))),
        (None, false) => None,
    };
    let mut rendered = 0;
    for variant in variants(&ace, messages, &args) {
        let previews = ace.preview(&variant.message, args.channel.as_deref()).await;
        for preview in previews.map_err(|e| anyhow::anyhow!("--channel: {e}"))? {
            match &preview.rendered {
                Err(fault) => {
                    failures += 1;
                    print_failure(&variant, &preview, fault, json);
                }
                Ok(files) => {
                    rendered += 1;
                    let written = match &out {
                        Some(dir) => write(&config, &variant, &preview, files, dir).await?,
                        None => Vec::new(),
                    };
                    print_preview(&variant, &preview, files, &written, json);
                    if args.open {
                        open_in_browser(&written)?;
                    }
                }
            }
        }
    }
    inform(&format!("{}, {}", counted(rendered, "preview"), counted(failures, "failure")));
    Ok(if failures == 0 { OK } else { FAILED })
}

/// The messages to render, and the number of those that cannot be read.
async fn messages(config: &Config, ace: &Ace, args: &Args) -> anyhow::Result<(Vec<Message>, u64)> {
    let (mut messages, mut failures) = samples(ace, args.file.as_deref());
    let Some(file) = &args.file else {
        if messages.is_empty() && failures == 0 {
            anyhow::bail!("no templates have a sample.json beside them\nhint: name a file with a message");
        }
        return Ok((messages, failures));
    };
    if !messages.is_empty() || failures > 0 {
        return Ok((messages, failures));
    }
    let (mut input, _) = open(file, config.delivery.max_message_bytes).await?;
    while let Some(line) = input.next().await? {
        match line.text.and_then(|text| Message::from_json(&text)) {
            Ok(message) => messages.push(message),
            Err(errors) => {
                failures += 1;
                inform(&format!("line {}: {errors}", line.number));
            }
        }
    }
    Ok((messages, failures))
}

/// The messages of the samples beside templates, or of one sample, and the number of those that cannot be read.
fn samples(ace: &Ace, only: Option<&Path>) -> (Vec<Message>, u64) {
    let real = |path: &Path| path.canonicalize().ok();
    let (mut messages, mut failures) = (Vec::new(), 0);
    let presentation = ace.snapshot().presentation.clone();
    for (path, sample) in presentation.samples() {
        if only.is_some_and(|only| real(only).is_none() || real(only) != real(path)) {
            continue;
        }
        match sample {
            Ok(message) => messages.push(message),
            Err(why) => {
                failures += 1;
                inform(&format!("{}: {why}", path.display()));
            }
        }
    }
    (messages, failures)
}

fn variants(ace: &Ace, messages: Vec<Message>, args: &Args) -> Vec<Variant> {
    let selected = if args.matrix {
        preview::matrix(&ace.snapshot().presentation)
    } else {
        vec![(args.theme.clone(), args.language.clone())]
    };
    let variants = messages.iter().flat_map(|message| {
        selected.iter().map(|(theme, language)| Variant {
            message: Arc::new(preview::variant(message, theme.as_deref(), language.as_deref())),
            theme: theme.clone(),
            language: language.clone(),
        })
    });
    variants.collect()
}

impl Variant {
    /// The stem of file names: letters, digits and hyphens, with two hyphens between the parts.
    fn file_stem(&self, preview: &Preview) -> String {
        let name = self.message.unique_name();
        let parts = [Some(name.as_str()), Some(&preview.channel_type), self.theme.as_deref(), self.language.as_deref()];
        let safe = |part: &str| part.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
        parts.into_iter().flatten().map(safe).collect::<Vec<_>>().join("--")
    }
}

/// Writes the files of a preview: for e-mail a page, a text and a mail; otherwise each rendered file.
async fn write(
    config: &Config,
    variant: &Variant,
    preview: &Preview,
    rendered: &Rendered,
    dir: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let stem = variant.file_stem(preview);
    let text = |name: &str| rendered.files.iter().find(|file| file.name == name).map(|file| file.text.as_str());
    let mut pages = Vec::new();
    match text("body.html") {
        Some(body) => {
            pages.push((format!("{stem}.html"), preview::page(text("head.html").unwrap_or_default(), body)));
            pages.extend(text("body.txt").map(|text| (format!("{stem}.txt"), text.to_owned())));
        }
        None => pages.extend(rendered.files.iter().map(|file| (format!("{stem}--{}", file.name), file.text.clone()))),
    }
    // Rendered files contain personal data.
    let access = config.fixed.mailer.access;
    let readers = Readers::Only(access);
    access.create_folder(dir).with_context(|| dir.display().to_string())?;
    let mut written = Vec::new();
    for (name, page) in pages {
        let file = dir.join(name);
        files::replace(&file, page.as_bytes(), readers).with_context(|| file.display().to_string())?;
        written.push(file);
    }
    if text("body.html").is_some() {
        match preview::write_eml(config, &variant.message, &rendered.files, dir, &stem).await {
            Ok(_) => written.push(dir.join(format!("{stem}.eml"))),
            Err(why) => inform(&format!("{stem}.eml: {why}")),
        }
    }
    Ok(written)
}

fn print_preview(variant: &Variant, preview: &Preview, rendered: &Rendered, written: &[PathBuf], json: bool) {
    if json {
        return print(
            &json!({
                "message": variant.message.unique_name(),
                "channel": preview.channel,
                "channel_type": preview.channel_type,
                "theme": variant.theme,
                "language": rendered.language,
                "language_note": rendered.note,
                "written": written,
                "rendered": rendered.files,
            })
            .to_string(),
        );
    }
    if written.is_empty() {
        let files = rendered.files.iter().map(|file| format!("--- {} ---\n{}", file.name, file.text.trim_end()));
        print(&files.collect::<Vec<_>>().join("\n"));
    }
    written.iter().for_each(|file| print(&file.display().to_string()));
    if let Some(note) = &rendered.note {
        inform(&format!("{}: {note}", variant.message.unique_name()));
    }
}

fn print_failure(variant: &Variant, preview: &Preview, fault: &str, json: bool) {
    let name = variant.message.unique_name();
    if json {
        print(
            &json!({
                "message": name,
                "channel": preview.channel,
                "channel_type": preview.channel_type,
                "theme": variant.theme,
                "language": variant.language,
                "failed": fault,
            })
            .to_string(),
        )
    } else {
        let optional = [variant.theme.as_deref(), variant.language.as_deref()];
        let parts: Vec<&str> =
            [name.as_str(), &preview.channel].into_iter().chain(optional.into_iter().flatten()).collect();
        inform(&format!("{}: {fault}", parts.join(" ")));
    }
}

/// Opens pages in the browser.
fn open_in_browser(written: &[PathBuf]) -> anyhow::Result<()> {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    for page in written.iter().filter(|file| file.extension().is_some_and(|e| e == "html")) {
        std::process::Command::new(opener)
            .arg(page)
            .spawn()
            .with_context(|| format!("{opener} cannot be started\nhint: open {} yourself", page.display()))?;
    }
    Ok(())
}
