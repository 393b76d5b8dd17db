//! `ace plugins grant`: writes the missing grants of a plugin to ace.toml, after the operator has confirmed them.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use ace::config::{self, Config};
use ace::internals::plugin::Plugin;
use ace_store::files::{self, Readers};
use serde_json::json;

use crate::commands::{FAILED, OK, inform, print};
use crate::kit::diff;

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
        inform(&format!(
            "hint: the plugin reads the secret {secret:?}; add it under [{key}]: {secret} = {{ env = \"…\" }}"
        ));
    }
    for own in &missing.credentials {
        inform(&format!(
            "hint: the plugin uses the credential {own:?}; define one as [credentials.NAME], and assign it under [plugins.{}]: \
             credentials = {{ {own} = \"NAME\" }}",
            plugin.name
        ));
    }
    if missing.outbox && args.outbox.is_none() {
        anyhow::bail!("the plugin requests a folder to write files to\nhint: name one with --outbox FOLDER");
    }
    let text = std::fs::read_to_string(file)?;
    let new = config::granted(&text, &plugin.name, missing, args.outbox.as_deref())?;
    if new == text {
        inform(&format!("{} has all the grants it requests", plugin.name));
        return Ok(OK);
    }
    let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Config::read(&new, Some(file), variables)?;
    let difference = diff::of_texts(&text, &new);
    if !json {
        print(&format!("--- {0}\n+++ {0}\n{difference}", file.display()));
    }
    if !args.yes && !is_confirmed(file)? {
        return Ok(FAILED);
    }
    if std::fs::read_to_string(file)? != text {
        anyhow::bail!("{} has changed meanwhile, and nothing was written; run the command again", file.display());
    }
    files::replace_linked(file, new.as_bytes(), Readers::AsBefore)?;
    if json {
        print(&json!({"plugin": plugin.name, "file": file, "diff": difference}).to_string());
    }
    Ok(OK)
}

/// Asks for confirmation.
///
/// # Errors
/// Standard input is not a terminal.
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
