//! `ace plugin list --shipped`: the plugins that are part of this program.

use ace::config::{Manifest, ShippedPlugin};
use serde_json::json;

use crate::commands::{NOT_STARTED, OK, inform, print};
use crate::shipped;

pub const EXAMPLES: &str = "Examples:
  ace plugin list --shipped
  ace plugin list --shipped --json | jq .name

A shipped plugin is active only if ace.toml names it: in a table [plugins.NAME], in enabled-channels
or in enabled-policies. A file of its name in plugin-dir is used instead of it. `ace plugins` lists
the plugins that a configuration uses.";

#[derive(clap::Args)]
pub struct Args {
    /// List the plugins that are part of this program
    #[arg(long, required = true)]
    shipped: bool,
}

pub fn run(args: &Args, json: bool) -> anyhow::Result<u8> {
    debug_assert!(args.shipped, "clap requires it");
    if shipped::SHIPPED.plugins.is_empty() {
        inform(&format!("error: {}", shipped::ABSENCE));
        return Ok(NOT_STARTED);
    }
    for plugin in shipped::SHIPPED.plugins {
        let manifest = Manifest::read(plugin.manifest, None)?;
        print(&if json { entry(plugin, &manifest).to_string() } else { line(plugin, &manifest) });
    }
    Ok(OK)
}

fn entry(plugin: &ShippedPlugin, manifest: &Manifest) -> serde_json::Value {
    json!({
        "name": plugin.name,
        "kind": kind(plugin),
        "version": manifest.version,
        "description": manifest.description,
        "requests": manifest.requests.lines(),
    })
}

fn line(plugin: &ShippedPlugin, manifest: &Manifest) -> String {
    format!("{:<18} {:<9} {}", plugin.name, kind(plugin), manifest.description.as_deref().unwrap_or_default())
}

fn kind(plugin: &ShippedPlugin) -> &'static str {
    match shipped::kind(plugin.name) {
        "policies" => "policy",
        "channels" => "channel",
        other => other,
    }
}
