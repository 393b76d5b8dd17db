//! `ace plugins grant`: what a plugin requests, written into ace.toml once the operator has seen it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use ace::config::{self, Config};
use ace::internals::plugin::Plugin;
use ace_store::files::{self, Readers};
use serde_json::json;

use crate::commands::{FAILED, OK, put, say};

#[derive(clap::Args)]
pub struct Args {
    /// The plugin
    pub name: String,

    /// The folder it may write to, if it requests one
    #[arg(long, value_name = "FOLDER")]
    outbox: Option<PathBuf>,

    /// Write without asking for confirmation
    #[arg(long, short)]
    yes: bool,
}

pub fn run(config: &Config, plugin: &Plugin, args: &Args, json: bool) -> anyhow::Result<u8> {
    let file = config.file.as_deref().ok_or_else(|| anyhow::anyhow!("there is no ace.toml to write to"))?;
    let missing = &plugin.missing;
    for secret in &missing.secrets {
        let key = format!("plugins.{}.secrets", plugin.name);
        say(&format!(
            "hint: it reads the secret {secret:?}, which you write under [{key}] yourself: {secret} = {{ env = \"…\" }}"
        ));
    }
    if missing.outbox && args.outbox.is_none() {
        anyhow::bail!("it requests a folder to write files to\nhint: name one with --outbox FOLDER");
    }
    let text = std::fs::read_to_string(file)?;
    let new = config::granted(&text, &plugin.name, missing, args.outbox.as_deref())?;
    if new == text {
        say(&format!("{} has all the grants it requests", plugin.name));
        return Ok(OK);
    }
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Config::read(&new, Some(file), variables)?;
    let difference = difference(&text, &new);
    if !json {
        put(&format!("--- {}\n+++ {}\n{difference}", file.display(), file.display()));
    }
    if !args.yes && !is_confirmed(file)? {
        return Ok(FAILED);
    }
    if std::fs::read_to_string(file)? != text {
        anyhow::bail!("{} has changed meanwhile; nothing was written", file.display());
    }
    files::replace_linked(file, new.as_bytes(), Readers::AsBefore)?;
    if json {
        put(&json!({"plugin": plugin.name, "file": file, "diff": difference}).to_string());
    }
    Ok(OK)
}

/// Asks on a terminal; where there is none nobody can say yes.
fn is_confirmed(file: &Path) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nothing was written\nhint: --yes writes without asking for confirmation");
    }
    let mut out = std::io::stderr().lock();
    write!(out, "Write this to {}? [y/N] ", file.display()).and_then(|()| out.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Lines of context around what changes.
const CONTEXT: usize = 3;

/// Grants stand in one place of the text, so that one part of it differs: lines before, lines out, lines in, lines after.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let before = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.iter().skip(before).rev().zip(new.iter().skip(before).rev());
    let after = rest.take_while(|(a, b)| a == b).count();
    let (out, into) = (&old[before..old.len() - after], &new[before..new.len() - after]);
    let around = |lines: &[&str]| lines.iter().map(|line| format!(" {line}")).collect::<Vec<_>>();
    let mut shown = vec![format!("@@ line {} @@", before + 1)];
    shown.extend(around(&old[before.saturating_sub(CONTEXT)..before]));
    shown.extend(out.iter().map(|line| format!("-{line}")));
    shown.extend(into.iter().map(|line| format!("+{line}")));
    shown.extend(around(&old[old.len() - after..][..after.min(CONTEXT)]));
    shown.join("\n")
}
