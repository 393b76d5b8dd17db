//! `ace plugins`: lists the plugins, or shows one in full; and `ace plugins grant`.

mod grant;
mod shadow;

use ace::config::Config;
use ace::internals::engine;
use ace::internals::plugin::{PluginState, PluginView};
use jiff::Timestamp;
use serde_json::Value;

use super::client::{Client, Server};
use super::tables::Table;
use super::{FAILED, OK, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace plugins
  ace plugins django_email
  ace plugins grant django_email
  ace plugins --server http://127.0.0.1:8025
  ace plugins --server http://127.0.0.1:8025 --shadow
  ace plugins --json | jq 'select(.state.state == \"broken\")'

The exit code is 1 if a plugin is broken, or would be after a restart of the server, because its
files were rejected and an earlier revision is active.";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Show all details of this plugin
    name: Option<String>,

    /// Compare the policies in shadow mode with the decisions (with --server)
    #[arg(long, requires = "server")]
    shadow: bool,

    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the missing grants of a plugin and write them to ace.toml
    Grant(grant::Args),
}

impl Args {
    /// Whether grants are written, which needs the configuration.
    pub fn is_grant(&self) -> bool {
        self.command.is_some()
    }

    /// The client of a running server, if one is named. No configuration is needed then.
    pub fn server(&self) -> anyhow::Result<Option<Client>> {
        self.server.client()
    }
}

/// Lists the plugins of the configured plugin folder.
pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let preflight = engine::preflight(&config, Timestamp::now).await?;
    let plugins = &preflight.registry.plugins;
    let names = || plugins.keys().cloned().collect::<Vec<_>>();
    if let Some(Command::Grant(grant)) = args.command {
        let plugin = plugins.get(&grant.name).ok_or_else(|| unknown(&grant.name, &names()))?;
        return grant::run(&config, plugin, &grant, json);
    }
    for problem in preflight.unknown_names(&config) {
        inform(&format!("warning: {problem}"));
    }
    let shown = plugins.values().map(|plugin| plugin.view()).collect();
    list(shown, args.name.as_deref(), json)
}

/// Lists the plugins of a running server.
pub async fn run_remote(client: Client, args: Args, json: bool) -> anyhow::Result<u8> {
    if args.shadow {
        let comparisons: Vec<Value> = client.get("/v1/shadow").await?;
        if json {
            comparisons.iter().for_each(|one| print(&one.to_string()))
        } else {
            shadow::show(&comparisons)
        }
        return Ok(OK);
    }
    list(client.get("/v1/plugins").await?, args.name.as_deref(), json)
}

fn list(mut shown: Vec<PluginView>, name: Option<&str>, json: bool) -> anyhow::Result<u8> {
    if let Some(name) = name {
        let names: Vec<String> = shown.iter().map(|plugin| plugin.name.clone()).collect();
        shown.retain(|plugin| plugin.name == name);
        if shown.is_empty() {
            return Err(unknown(name, &names));
        }
    }
    if json {
        for plugin in &shown {
            print(&serde_json::to_string(plugin)?);
        }
    } else if name.is_some() {
        shown.iter().for_each(|plugin| print(&in_full(plugin)));
    } else {
        show(&shown);
    }
    let is_broken = shown.iter().any(|p| matches!(p.state, PluginState::Broken(_)) || p.rejected.is_some());
    Ok(if is_broken { FAILED } else { OK })
}

fn unknown(name: &str, names: &[String]) -> anyhow::Error {
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    anyhow::anyhow!("there is no plugin {name:?}\nhint: the plugin folder has {names}")
}

fn show(plugins: &[PluginView]) {
    let mut table = Table::new(["name", "version", "state", "granted", "not granted", "namespace"]);
    for plugin in plugins {
        table.add_row([
            plugin.name.clone(),
            plugin.version.clone().unwrap_or_default(),
            state(plugin),
            plugin.granted.join("\n"),
            plugin.not_granted().join("\n"),
            plugin.namespaces.join("\n"),
        ]);
    }
    table.print();
}

/// All details of a plugin.
fn in_full(plugin: &PluginView) -> String {
    let channel = plugin.channel.iter().map(|channel| {
        let files: Vec<&str> = channel.template_files.iter().map(|file| file.name.as_str()).collect();
        format!("{} with {}", channel.channel_type, files.join(", "))
    });
    let parts = [
        ("description", plugin.description.iter().cloned().collect()),
        ("file", vec![format!("{}, {} KB", plugin.file, plugin.size.div_ceil(1024))]),
        ("namespace", plugin.namespaces.clone()),
        ("channel", channel.collect()),
        ("revision", vec![plugin.revision.clone()]),
        ("state", vec![state(plugin)]),
        ("imports", plugin.imports.clone()),
        ("granted", plugin.granted.clone()),
        ("not granted", plugin.not_granted()),
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

fn state(plugin: &PluginView) -> String {
    let state = match &plugin.state {
        PluginState::Active => "active".to_owned(),
        PluginState::Disabled => "disabled".to_owned(),
        PluginState::Broken(reason) => format!("broken: {reason}"),
        PluginState::AwaitingFile => "awaiting its file".to_owned(),
    };
    let shadow = if plugin.shadow { " in shadow mode" } else { "" };
    let circuit = match plugin.circuit_breaker {
        Some(circuit) if circuit.open => format!("; circuit breaker open after {} faults", circuit.faults),
        Some(circuit) if circuit.faults > 0 => format!("; {} faults", circuit.faults),
        _ => String::new(),
    };
    let rejected = plugin.rejected.as_ref().map(|rejected| format!("; {rejected}"));
    format!("{state}{shadow}{circuit}{}", rejected.unwrap_or_default())
}
