//! `ace plugin check` and `ace plugin inspect`.

use std::path::{Path, PathBuf};

use ace::config::{Config, granted};
use ace::internals::plugin::inspection::Inspection;
use ace::internals::plugin::{INTERFACE_VERSION, grants};
use serde_json::{Value, json};

use super::{block, bytes, duration};
use crate::commands::{FAILED, OK, inform, print};
use crate::kit;

pub const EXAMPLES: &str = "Examples:
  ace plugin check quiet_hours.wasm
  ace plugin inspect quiet_hours.wasm | jq .imports

The exit code is 1 if this host cannot run the component.";

#[derive(clap::Args)]
pub struct Args {
    /// The component; its manifest is the file beside it with the same name and the extension .toml
    file: PathBuf,
}

pub async fn check(config: &Config, args: &Args, json: bool) -> anyhow::Result<u8> {
    let found = kit::inspect(config, &args.file).await?;
    if json {
        print(&describe(&found).to_string())
    } else {
        print(&in_full(&found))
    }
    if let Some(why) = &found.mismatch {
        inform(&format!("{}: this host cannot run it: {why}", args.file.display()));
    }
    Ok(if found.mismatch.is_none() { OK } else { FAILED })
}

pub async fn inspect(config: &Config, args: &Args) -> anyhow::Result<u8> {
    let found = kit::inspect(config, &args.file).await?;
    print(&serde_json::to_string_pretty(&describe(&found))?);
    Ok(if found.mismatch.is_none() { OK } else { FAILED })
}

fn in_full(found: &Inspection) -> String {
    let plugin = &found.plugin;
    let own = |name: &str| found.metadata.fields.get(name).cloned();
    let text = |manifest: &Option<String>, field: &str| manifest.clone().or_else(|| own(field)).into_iter().collect();
    let producers = found.metadata.producers.iter();
    let limits = &found.limits;
    let runs = match &found.mismatch {
        None => format!("yes: it is within openedx:ace@{INTERFACE_VERSION}"),
        Some(why) => format!("no: {why}"),
    };
    let parts = [
        ("description", text(&found.manifest.description, "description")),
        ("license", text(&found.manifest.license, "licenses")),
        ("source", own("source").into_iter().chain(found.manifest.homepage.clone()).collect()),
        ("made by", producers.map(|(field, values)| format!("{field}: {}", values.join(", "))).collect()),
        ("revision", vec![plugin.revision.clone()]),
        ("size", vec![bytes(plugin.size)]),
        ("is", plugin.namespaces.iter().map(ToString::to_string).collect()),
        ("exports", found.exports.clone()),
        ("imports", plugin.imports.clone()),
        ("requests", found.manifest.requests.lines()),
        ("not requested", unrequested(found)),
        ("to grant", to_grant(found)),
        (
            "limits",
            vec![format!(
                "memory {}, time {}, call-timeout {}",
                bytes(limits.memory as u64),
                duration(limits.time),
                duration(limits.call_timeout)
            )],
        ),
        ("runs here", vec![runs]),
    ];
    let version = plugin.version.clone().or_else(|| own("version")).unwrap_or_default();
    block(format!("{} {version}", plugin.name).trim_end(), &parts)
}

/// Imports that will answer "not granted", because the manifest does not request the capability. That is not a problem by itself:
/// plugins in JavaScript and Python import everything that their world names.
fn unrequested(found: &Inspection) -> Vec<String> {
    grants::ungranted(&found.plugin.imports, &kit::as_requested(&found.manifest.requests, Path::new("FOLDER")))
}

/// The grants as the operator would write them into ace.toml.
fn to_grant(found: &Inspection) -> Vec<String> {
    let requests = &found.manifest.requests;
    if requests.lines().is_empty() {
        return vec!["nothing".to_owned()];
    }
    let text = granted("", &found.plugin.name, requests, Some(Path::new("FOLDER"))).unwrap_or_default();
    let secrets = requests.secrets.iter().map(|name| format!("secrets = {{ {name} = {{ env = \"…\" }} }}"));
    let credentials = requests.credentials.iter().map(|own| format!("credentials = {{ {own} = \"NAME\" }}"));
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).chain(secrets).chain(credentials).collect()
}

fn describe(found: &Inspection) -> Value {
    let plugin = &found.plugin;
    json!({
        "name": plugin.name,
        "file": plugin.file,
        "version": plugin.version,
        "description": plugin.description,
        "license": found.manifest.license,
        "homepage": found.manifest.homepage,
        "revision": plugin.revision,
        "size": plugin.size,
        "namespaces": plugin.namespaces,
        "exports": found.exports,
        "imports": plugin.imports,
        "requests": found.manifest.requests.lines(),
        "imports_not_requested": unrequested(found),
        "limits": {
            "memory_bytes": found.limits.memory,
            "time_ms": found.limits.time.as_millis() as u64,
            "call_timeout_ms": found.limits.call_timeout.as_millis() as u64,
        },
        "metadata": found.metadata,
        "interface": format!("openedx:ace@{INTERFACE_VERSION}"),
        "compatible": found.mismatch.is_none(),
        "reason": found.mismatch,
    })
}
