//! `ace templates import`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use ace::config::{self, Config, Routes};
use ace_django::folder::{self, Imported};
use ace_django::{Options, Severity, Tag};
use ace_store::files::{self, Readers};
use anyhow::Context;
use serde_json::json;

use super::{FAILED, OK, counted, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace templates import lms/templates --out templates
  ace templates import conf/locale --out templates
  ace templates import lms/templates --out templates --stub --json | jq 'select(.severity == \"stub\")'

If there is a configuration, its section [templates] is used: the replacements for the project's own tags and filters, and
the addresses of its pages. Pages without an address are written to routes.toml, to be filled in.
The exit code is 1 if a file could not be read, or if something was not translated and has to be rewritten by
hand; it is a comment in the files, {# not translated: … #}.";

/// Where the addresses of pages are filled in, in the folder that is written.
const ROUTES: &str = "routes.toml";

#[derive(clap::Args)]
pub struct Args {
    /// A Django template folder (`extends` and `include` name files below it), or a folder of catalogues
    source: PathBuf,

    /// The template folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Overwrite existing files
    #[arg(long)]
    force: bool,

    /// Omit unknown tags and filters, and list them: the content of blocks and the values are kept
    #[arg(long)]
    stub: bool,
}

/// Imports templates. `config` is the configuration, if there is one.
pub fn run(args: &Args, config: Option<anyhow::Result<Config>>, json: bool) -> anyhow::Result<u8> {
    let known = templates(config);
    let options = options(&known, args.stub);
    let Imported { import, catalogs, others } =
        folder::import(&args.source, &args.out, args.force, &options, &replace)?;
    let routes = write_routes(&args.out.join(ROUTES), &known.routes, &import.routes)?;
    for finding in &import.findings {
        if json { print(&serde_json::to_string(finding)?) } else { print(&finding.to_string()) }
    }
    let count = |severity| import.count(severity);
    let (unread, left) = (count(Severity::Unreadable), count(Severity::Untranslated));
    if json {
        let summary = json!({
            "templates": import.files.len(), "catalogs": catalogs, "skipped": others, "unreadable": unread, "untranslated": left,
            "stubs": count(Severity::Stub), "notes": count(Severity::Note), "routes": routes,
        });
        print(&summary.to_string());
    }
    for other in others {
        inform(&format!("{other} is neither a template nor a catalogue of Django's templates and is skipped"));
    }
    if !routes.is_empty() {
        let pages = counted(routes.len() as u64, "page");
        inform(&format!("{}: fill in the address of {pages} there", args.out.join(ROUTES).display()));
    }
    let mut summary = format!(
        "{} and {} written to {}: {left} left to rewrite, {}",
        counted(import.files.len() as u64, "template"),
        counted(catalogs.len() as u64, "catalogue"),
        args.out.display(),
        counted(count(Severity::Note) as u64, "note"),
    );
    for (number, words) in [(count(Severity::Stub), "left out as stubs"), (unread, "not read")] {
        if number > 0 {
            // Writing into a String cannot fail.
            write!(summary, ", {number} {words}").unwrap_or_default();
        }
    }
    inform(&summary);
    Ok(if unread + left == 0 { OK } else { FAILED })
}

/// The section [templates] of ace.toml. If the configuration is invalid, that is reported, and templates are imported without it.
fn templates(config: Option<anyhow::Result<Config>>) -> config::Templates {
    match config {
        None => config::Templates::default(),
        Some(Ok(config)) => config.templates,
        Some(Err(error)) => {
            inform(&format!(
                "warning: [templates] of the configuration is not used, because of these problems:\n{error:#}"
            ));
            config::Templates::default()
        }
    }
}

fn options(known: &config::Templates, stub: bool) -> Options {
    let tag = |tag: &config::Tag| match tag {
        config::Tag::Text(text) => Tag::Text(text.clone()),
        config::Tag::Context(value) => Tag::Value(value.clone()),
        config::Tag::Setting(name) => Tag::Setting(name.clone()),
    };
    let tags = known.tags.iter().map(|(name, known)| (name.clone(), tag(known))).collect();
    Options { stub, tags, filters: known.filters.clone() }
}

/// Adds the pages that have no route yet to the file, and returns their names.
fn write_routes(
    file: &Path,
    known: &Routes,
    requested: &BTreeMap<String, BTreeSet<String>>,
) -> anyhow::Result<Vec<String>> {
    let mut text = if file.exists() { fs::read_to_string(file)? } else { String::new() };
    let mut routes = Routes::read(&text).map_err(|wrong| {
        let (line, why) = wrong.into_iter().next().unwrap_or_default();
        anyhow::anyhow!("{}:{line}: {why}", file.display())
    })?;
    let to_write: Vec<&String> = requested
        .keys()
        .filter(|name| known.get(name).is_none() && !routes.names().any(|known| known == *name))
        .collect();
    routes.add_missing(known.clone());
    let missing = requested.keys().filter(|name| routes.get(name).is_none()).cloned().collect();
    if to_write.is_empty() {
        return Ok(missing);
    }
    if text.is_empty() {
        text.push_str(
            "# The addresses of the application's pages, as {% url %} names them: \"/orders/{number}/\", a list of such, or false\n\
             # where the application has no such page. docs/templates.md has a script that prints them all.\n",
        );
    }
    for name in to_write {
        let forms: Vec<&str> = requested[name].iter().map(String::as_str).filter(|form| !form.is_empty()).collect();
        let comment = if forms.is_empty() { String::new() } else { format!("  # with {}", forms.join(", or with ")) };
        writeln!(text, "{} = \"\"{comment}", quoted(name)).unwrap_or_default();
    }
    fs::create_dir_all(file.parent().unwrap_or(file))
        .and_then(|()| replace(file, text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(missing)
}

fn replace(file: &Path, text: &[u8]) -> std::io::Result<()> {
    files::replace_linked(file, text, Readers::AsBefore)
}

/// A quoted key of TOML.
fn quoted(name: &str) -> String {
    json!(name).to_string()
}
