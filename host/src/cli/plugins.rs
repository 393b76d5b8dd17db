//! `ace plugins`.

use std::sync::Arc;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FAILED, OK, put, say, table_width};
use crate::app;
use crate::config::{Config, Grants};
use crate::plugin::{Plugin, PluginState};

pub const EXAMPLES: &str = "Examples:
  ace plugins
  ace plugins --json | jq 'select(.state.state == \"broken\")'

Exit code 1 where a plugin that should serve cannot.";

pub async fn run(config: Config, json: bool) -> anyhow::Result<u8> {
    let survey = app::survey(&config, Timestamp::now).await?;
    for problem in survey.unknown_names(&config) {
        say(&format!("warning: {problem}"));
    }
    let plugins = survey.registry.plugins.values();
    let is_broken = plugins.clone().any(|p| matches!(p.state, PluginState::Broken(_)));
    if json {
        plugins.for_each(|plugin| put(&describe(plugin).to_string()));
    } else {
        put(&table(plugins));
    }
    Ok(if is_broken { FAILED } else { OK })
}

fn table<'a>(plugins: impl Iterator<Item = &'a Arc<Plugin>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table_width(&mut table);
    table.set_header(["name", "namespace", "version", "revision", "size", "granted", "not granted", "state"]);
    for plugin in plugins {
        let namespaces: Vec<String> = plugin.namespaces.iter().map(ToString::to_string).collect();
        table.add_row([
            plugin.name.clone(),
            namespaces.join("\n"),
            plugin.version.clone().unwrap_or_default(),
            plugin.revision.clone(),
            format!("{} KB", plugin.size.div_ceil(1024)),
            granted(&plugin.settings.grants).join("\n"),
            plugin.missing.join("\n"),
            state(&plugin.state),
        ]);
    }
    table.to_string()
}

fn describe(plugin: &Plugin) -> Value {
    json!({
        "name": plugin.name,
        "file": plugin.file,
        "namespaces": plugin.namespaces,
        "version": plugin.version,
        "description": plugin.description,
        "revision": plugin.revision,
        "size": plugin.size,
        "imports": plugin.imports,
        "granted": granted(&plugin.settings.grants),
        "missing": plugin.missing,
        "channel": plugin.channel,
        "state": plugin.state,
    })
}

fn state(state: &PluginState) -> String {
    match state {
        PluginState::Active => "active".to_owned(),
        PluginState::Disabled => "disabled".to_owned(),
        PluginState::Broken(reason) => format!("broken: {reason}"),
    }
}

fn granted(grants: &Grants) -> Vec<String> {
    let mut out: Vec<String> = grants.http.iter().map(|url| format!("http:{url}")).collect();
    for grant in &grants.keyvalue {
        let access = match (grant.read, grant.write) {
            (true, true) => "read-write",
            (false, true) => "write",
            _ => "read",
        };
        out.push(format!("keyvalue:{}:{access}", grant.bucket));
    }
    if grants.mailer {
        out.push("mailer".to_owned());
    }
    out.extend(grants.outbox.iter().map(|dir| format!("outbox:{}", dir.display())));
    out
}
