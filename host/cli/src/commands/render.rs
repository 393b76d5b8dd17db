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

use super::{FAILED, OK, counted, open, put, say};

const EXAMPLES: &str = "Examples:
  ace render message.json --open
  ace render message.json --language pl --theme blue --out previews
  ace render --matrix --out previews

Without a file, every sample.json beside templates is rendered. No policy is evaluated and nothing is delivered.
The exit code is 1 if something cannot be rendered.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A file with one JSON message, one per line, or a sample.json beside templates; "-" for standard input
    file: Option<PathBuf>,

    /// Only for this channel or channel type; default: each type that the message has templates for
    #[arg(long, value_name = "TYPE|CHANNEL")]
    channel: Option<String>,

    /// In this language instead of the message's own
    #[arg(long)]
    language: Option<String>,

    /// In this theme instead of the message's own
    #[arg(long)]
    theme: Option<String>,

    /// In every language that has a catalogue and in every theme
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
struct Look {
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
    for look in looks(&ace, messages, &args) {
        let previews = ace.preview(&look.message, args.channel.as_deref()).await;
        for preview in previews.map_err(|e| anyhow::anyhow!("--channel: {e}"))? {
            match &preview.rendered {
                Err(fault) => {
                    failures += 1;
                    tell_failure(&look, &preview, fault, json);
                }
                Ok(files) => {
                    rendered += 1;
                    let written = match &out {
                        Some(dir) => write(&config, &look, &preview, files, dir).await?,
                        None => Vec::new(),
                    };
                    tell(&look, &preview, files, &written, json);
                    if args.open {
                        show(&written)?;
                    }
                }
            }
        }
    }
    say(&format!("{}, {}", counted(rendered, "preview"), counted(failures, "failure")));
    Ok(if failures == 0 { OK } else { FAILED })
}

/// The messages to be shown, and how many there are that cannot be read.
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
                say(&format!("line {}: {errors}", line.number));
            }
        }
    }
    Ok((messages, failures))
}

/// The messages of the samples beside templates, and how many there are that cannot be read: of all, or of the one that is this file.
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
                say(&format!("{}: {why}", path.display()));
            }
        }
    }
    (messages, failures)
}

fn looks(ace: &Ace, messages: Vec<Message>, args: &Args) -> Vec<Look> {
    let variants = if args.matrix {
        preview::matrix(&ace.snapshot().presentation)
    } else {
        vec![(args.theme.clone(), args.language.clone())]
    };
    let looks = messages.iter().flat_map(|message| {
        variants.iter().map(|(theme, language)| Look {
            message: Arc::new(preview::variant(message, theme.as_deref(), language.as_deref())),
            theme: theme.clone(),
            language: language.clone(),
        })
    });
    looks.collect()
}

impl Look {
    /// A file's name: letters, digits and hyphens, the parts told apart by a double one.
    fn file_stem(&self, preview: &Preview) -> String {
        let name = self.message.unique_name();
        let parts = [Some(name.as_str()), Some(&preview.channel_type), self.theme.as_deref(), self.language.as_deref()];
        let safe = |part: &str| part.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
        parts.into_iter().flatten().map(safe).collect::<Vec<_>>().join("--")
    }
}

/// Writes what there is to look at: a page, a text and a mail for e-mail, else each file by itself.
async fn write(
    config: &Config,
    look: &Look,
    preview: &Preview,
    rendered: &Rendered,
    dir: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let stem = look.file_stem(preview);
    let text = |name: &str| rendered.files.iter().find(|file| file.name == name).map(|file| file.text.as_str());
    let mut pages = Vec::new();
    match text("body.html") {
        Some(body) => {
            pages.push((format!("{stem}.html"), preview::page(text("head.html").unwrap_or_default(), body)));
            pages.extend(text("body.txt").map(|text| (format!("{stem}.txt"), text.to_owned())));
        }
        None => pages.extend(rendered.files.iter().map(|file| (format!("{stem}--{}", file.name), file.text.clone()))),
    }
    // What is rendered shows what the message says of its recipient.
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
        match preview::write_eml(config, &look.message, &rendered.files, dir, &stem).await {
            Ok(_) => written.push(dir.join(format!("{stem}.eml"))),
            Err(why) => say(&format!("{stem}.eml: {why}")),
        }
    }
    Ok(written)
}

fn tell(look: &Look, preview: &Preview, rendered: &Rendered, written: &[PathBuf], json: bool) {
    if json {
        return put(&json!({
            "message": look.message.unique_name(),
            "channel": preview.channel,
            "channel_type": preview.channel_type,
            "theme": look.theme,
            "language": rendered.language,
            "language_note": rendered.note,
            "written": written,
            "rendered": rendered.files,
        })
        .to_string());
    }
    if written.is_empty() {
        let files = rendered.files.iter().map(|file| format!("--- {} ---\n{}", file.name, file.text.trim_end()));
        put(&files.collect::<Vec<_>>().join("\n"));
    }
    written.iter().for_each(|file| put(&file.display().to_string()));
    if let Some(note) = &rendered.note {
        say(&format!("{}: {note}", look.message.unique_name()));
    }
}

fn tell_failure(look: &Look, preview: &Preview, fault: &str, json: bool) {
    let name = look.message.unique_name();
    if json {
        put(&json!({
            "message": name,
            "channel": preview.channel,
            "channel_type": preview.channel_type,
            "theme": look.theme,
            "language": look.language,
            "failed": fault,
        })
        .to_string())
    } else {
        let variant = [look.theme.as_deref(), look.language.as_deref()];
        let variant: Vec<&str> =
            [name.as_str(), &preview.channel].into_iter().chain(variant.into_iter().flatten()).collect();
        say(&format!("{}: {fault}", variant.join(" ")));
    }
}

/// Hands the page to whatever shows pages here.
fn show(written: &[PathBuf]) -> anyhow::Result<()> {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    for page in written.iter().filter(|file| file.extension().is_some_and(|e| e == "html")) {
        std::process::Command::new(opener)
            .arg(page)
            .spawn()
            .with_context(|| format!("{opener} cannot be started\nhint: open {} yourself", page.display()))?;
    }
    Ok(())
}
