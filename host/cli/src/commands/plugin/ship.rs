//! `ace plugin install`, `remove`, `sign`, `verify` and `key`.

use std::path::{Path, PathBuf};

use ace::config::Config;
use serde_json::json;

use crate::commands::{FAILED, OK, inform, print};
use crate::kit;
use crate::kit::ship;

pub const INSTALL_EXAMPLES: &str = "Examples:
  ace plugin install build/quiet_hours.wasm
  ace plugin install quiet_hours.wasm --revision 4740ca3c1d7b --replace
  ace plugins grant quiet_hours

Nothing is granted: the missing grants are shown, and `ace plugins grant` writes them to ace.toml.";

#[derive(clap::Args)]
pub struct InstallArgs {
    /// The component; its manifest and signature are the files beside it
    file: PathBuf,

    /// Install the component only if it has this revision, as shown by `ace plugin check`
    #[arg(long)]
    revision: Option<String>,

    /// Replace an installed plugin with the same name
    #[arg(long)]
    replace: bool,
}

#[derive(clap::Args)]
pub struct RemoveArgs {
    /// The plugin's name
    name: String,
}

#[derive(clap::Args)]
pub struct SignArgs {
    /// The component; its manifest is signed with it
    file: PathBuf,

    /// The secret key, created by `ace plugin key` or minisign
    #[arg(long)]
    key: PathBuf,

    /// A file with the secret key's password, if it has one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The component
    file: PathBuf,

    /// A public key to trust, in addition to those in ace.toml; may be repeated
    #[arg(long)]
    key: Vec<String>,
}

#[derive(clap::Args)]
pub struct KeyArgs {
    /// Where to write the secret key; the public key goes beside it, with the extension .pub
    file: PathBuf,
}

pub async fn install(config: &Config, args: &InstallArgs, json: bool) -> anyhow::Result<u8> {
    let folder = plugin_dir(config)?;
    let found = kit::inspect(config, &args.file).await?;
    let file = args.file.display();
    if let Some(why) = &found.mismatch {
        inform(&format!("{file}: nothing was installed, because this host cannot run it: {why}"));
        return Ok(FAILED);
    }
    let (name, revision) = (&found.plugin.name, &found.plugin.revision);
    if let Some(wanted) = args.revision.as_ref().filter(|wanted| *wanted != revision) {
        anyhow::bail!("{file}: it is revision {revision}, not {wanted}; nothing was installed");
    }
    let target = ship::install(&args.file, folder, args.replace)?;
    let missing = found.plugin.missing.lines();
    if json {
        print(&json!({"plugin": name, "revision": revision, "file": target, "not_granted": missing}).to_string())
    } else {
        print(&format!("{} {revision}", target.display()))
    }
    for line in &missing {
        inform(&format!("requested but not granted: {line}"));
    }
    if !missing.is_empty() {
        inform(&format!("hint: `ace plugins grant {name}` writes grants to ace.toml"));
    }
    Ok(OK)
}

pub fn remove(config: &Config, args: &RemoveArgs, json: bool) -> anyhow::Result<u8> {
    for file in ship::remove(&args.name, plugin_dir(config)?)? {
        if json { print(&json!({"removed": file}).to_string()) } else { print(&file.display().to_string()) }
    }
    if config.plugins.contains_key(&args.name) {
        inform(&format!(
            "warning: ace.toml names {0}: a policy that is named but missing is broken, and its on-error applies\n\
             hint: remove [plugins.{0}] from ace.toml",
            args.name
        ));
    }
    Ok(OK)
}

pub fn sign(args: &SignArgs, json: bool) -> anyhow::Result<u8> {
    let password = args.password_file.as_deref().map(read_line).transpose()?;
    let file = ship::sign(&args.file, &args.key, password)?;
    if json {
        print(&json!({"signature": file}).to_string())
    } else {
        print(&file.display().to_string())
    }
    Ok(OK)
}

pub fn verify(config: &Config, args: &VerifyArgs, json: bool) -> anyhow::Result<u8> {
    let keys: Vec<String> = args.key.iter().chain(&config.fixed.signatures.keys).cloned().collect();
    if keys.is_empty() {
        anyhow::bail!("there is no trusted key\nhint: name one with --key, or under [plugin-signatures] in ace.toml");
    }
    match ship::verify(&args.file, &keys) {
        Ok(key) => {
            if json {
                print(&json!({"file": args.file, "signed_by": key}).to_string())
            } else {
                print(&format!("{}: signed by {key}", args.file.display()))
            }
            Ok(OK)
        }
        Err(error) => {
            inform(&error.to_string());
            Ok(FAILED)
        }
    }
}

pub fn key(args: &KeyArgs, json: bool) -> anyhow::Result<u8> {
    let public = ship::new_key(&args.file)?;
    if json {
        print(&json!({"public_key": public, "secret_key_file": args.file}).to_string())
    } else {
        print(&public)
    }
    inform(&format!("hint: in ace.toml: [plugin-signatures] required = true, keys = [\"{public}\"]"));
    Ok(OK)
}

fn plugin_dir(config: &Config) -> anyhow::Result<&Path> {
    config
        .fixed
        .plugin_dir
        .as_deref()
        .ok_or_else(|| anyhow::anyhow!("ace.toml has no plugin-dir\nhint: plugin-dir = \"plugins\""))
}

fn read_line(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
