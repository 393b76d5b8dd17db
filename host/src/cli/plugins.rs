//! `ace plugins`: all of them, or one in full; and `ace plugins grant`.

mod grant;

use std::io::IsTerminal;
use std::sync::Arc;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FAILED, OK, put, say};
use crate::config::{Config, Grants};
use crate::engine;
use crate::plugin::{Plugin, PluginState};

pub const EXAMPLES: &str = "Examples:
  ace plugins
  ace plugins django_email
  ace plugins grant django_email
  ace plugins --json | jq 'select(.state.state == \"broken\")'

Exit code 1 where a plugin that should serve cannot.";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Only this one, with everything that is known of it
    name: Option<String>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write into ace.toml what a plugin requests and is not granted, after showing it
    Grant(grant::Args),
}

pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let survey = engine::survey(&config, Timestamp::now).await?;
    if let Some(Command::Grant(args)) = args.command {
        return grant::run(&config, named(&survey.registry.plugins, &args.name)?, &args, json);
    }
    for problem in survey.unknown_names(&config) {
        say(&format!("warning: {problem}"));
    }
    let shown: Vec<&Arc<Plugin>> = match &args.name {
        Some(name) => vec![named(&survey.registry.plugins, name)?],
        None => survey.registry.plugins.values().collect(),
    };
    if json {
        shown.iter().for_each(|plugin| put(&describe(plugin).to_string()));
    } else if args.name.is_some() {
        shown.iter().for_each(|plugin| put(&in_full(plugin)));
    } else {
        put(&table(&shown));
    }
    let is_broken = shown.iter().any(|p| matches!(p.state, PluginState::Broken(_)));
    Ok(if is_broken { FAILED } else { OK })
}

fn named<'a>(
    plugins: &'a std::collections::BTreeMap<String, Arc<Plugin>>,
    name: &str,
) -> anyhow::Result<&'a Arc<Plugin>> {
    let names = || plugins.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    plugins.get(name).ok_or_else(|| {
        anyhow::anyhow!(
            "no plugin is called {name:?}\nhint: the plugin folder has {}",
            match names() {
                names if names.is_empty() => "none".to_owned(),
                names => names,
            }
        )
    })
}

/// Columns where there is no terminal to ask.
const WIDTH_ELSEWHERE: u16 = 160;

fn table(plugins: &[&Arc<Plugin>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH_ELSEWHERE);
    }
    table.set_header(["name", "namespace", "version", "granted", "not granted", "state"]);
    for plugin in plugins {
        let namespaces: Vec<String> = plugin.namespaces.iter().map(ToString::to_string).collect();
        table.add_row([
            plugin.name.clone(),
            namespaces.join("\n"),
            plugin.version.clone().unwrap_or_default(),
            granted(&plugin.settings.grants).join("\n"),
            not_granted(plugin).join("\n"),
            state(&plugin.state),
        ]);
    }
    table.to_string()
}

/// What it requests in vain, and what it imports in vain without having requested it.
fn not_granted(plugin: &Plugin) -> Vec<String> {
    let mut out = plugin.missing.lines();
    let told = |import: &String| {
        let capability = import.split(['/', '@']).nth(1).unwrap_or(import);
        out.iter().any(|line| line.split(':').next() == Some(capability))
    };
    let imported: Vec<String> = plugin.ungranted().into_iter().filter(|import| !told(import)).collect();
    out.extend(imported.iter().map(|import| format!("{import} (imported, not requested)")));
    out
}

/// A block of lines, a few for each thing that is known.
fn in_full(plugin: &Plugin) -> String {
    let namespaces: Vec<String> = plugin.namespaces.iter().map(ToString::to_string).collect();
    let channel = plugin.channel.iter().map(|channel| {
        let files: Vec<&str> = channel.template_files.iter().map(|file| file.name.as_str()).collect();
        format!("{} with {}", channel.channel_type, files.join(", "))
    });
    let parts = [
        ("description", plugin.description.iter().cloned().collect()),
        ("file", vec![format!("{}, {} KB", plugin.file.display(), plugin.size.div_ceil(1024))]),
        ("namespace", namespaces),
        ("channel", channel.collect()),
        ("revision", vec![plugin.revision.clone()]),
        ("state", vec![state(&plugin.state)]),
        ("imports", plugin.imports.clone()),
        ("granted", granted(&plugin.settings.grants)),
        ("not granted", not_granted(plugin)),
    ];
    let mut out = format!("{} {}", plugin.name, plugin.version.as_deref().unwrap_or_default()).trim_end().to_owned();
    for (name, lines) in parts {
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            out += &format!("\n  {name:<13}{line}");
        }
    }
    out
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
        "missing": plugin.missing.lines(),
        "imports_not_granted": plugin.ungranted(),
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
    out.extend(grants.keyvalue.iter().map(|grant| format!("keyvalue:{grant}")));
    if grants.mailer {
        out.push("mailer".to_owned());
    }
    out.extend(grants.outbox.iter().map(|dir| format!("outbox:{}", dir.display())));
    out
}
