//! `ace check`.

use ace::config::{Config, Problem, shared_domain};
use ace::internals::engine::{self, Preflight};
use ace::internals::plugin::PluginState;
use jiff::Timestamp;
use serde_json::json;

use super::{FAILED, OK, counted, inform, print, windows};

pub const EXAMPLES: &str = "Examples:
  ace check
  ace check --json | jq .message

How long messages are retried, and where that is set, is printed to stderr.

The exit code is 1 if there is a problem.";

/// A problem of any kind.
struct Found {
    location: String,
    message: String,
}

pub async fn run(config: Config, json: bool) -> anyhow::Result<u8> {
    let preflight = engine::preflight(&config, Timestamp::now).await?;
    let found = problems(&config, &preflight);
    for problem in &found {
        if json {
            print(&json!({"location": problem.location, "message": problem.message}).to_string())
        } else {
            print(&format!("{}: {}", problem.location, problem.message))
        }
    }
    for setting in windows::effective(&config) {
        inform(&setting.line());
    }
    for warning in shared_domains(&config) {
        inform(&warning);
    }
    for problem in config.unaligned_signatures() {
        inform(&format!("warning: {problem}"));
    }
    let plugins = counted(preflight.registry.plugins.len() as u64, "plugin");
    let templates = counted(preflight.presentation.messages().count() as u64, "message template");
    inform(&format!("{plugins}, {templates}: {}", counted(found.len() as u64, "problem")));
    Ok(if found.is_empty() { OK } else { FAILED })
}

/// Grants whose pattern covers hosts of people that nobody chose.
fn shared_domains(config: &Config) -> impl Iterator<Item = String> {
    config.plugins.iter().flat_map(|(name, plugin)| {
        plugin.grants.http.iter().filter_map(move |prefix| {
            let domain = shared_domain(prefix)?;
            Some(format!(
                "warning: plugins.{name}.grants.http: anybody can get a host under {domain}, and {prefix} lets the plugin send to \
                 all of them; grant the hosts that it needs"
            ))
        })
    })
}

fn problems(config: &Config, preflight: &Preflight) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for problem in preflight.unknown_names(config).into_iter().chain(config.unwritable()) {
        found.push(Found { location: location(&problem), message: format!("{}: {}", problem.key, problem.message) });
    }
    for plugin in preflight.registry.plugins.values() {
        let location = plugin.file.display().to_string();
        if let PluginState::Broken(reason) = &plugin.state {
            found.push(Found { location: location.clone(), message: reason.clone() });
        }
        let missing = plugin.missing.lines().join(", ");
        if plugin.state == PluginState::Active && !missing.is_empty() {
            let message = format!("requested but not granted in ace.toml: {missing}");
            found.push(Found { location, message });
        }
    }
    for problem in preflight.presentation.problems().iter().chain(&preflight.presentation.relative_links()) {
        let line = problem.line.map(|l| format!(":{l}")).unwrap_or_default();
        found.push(Found { location: format!("{}{line}", problem.file.display()), message: problem.message.clone() });
    }
    found.extend(missing_files(preflight));
    found.extend(preflight.sample_problems().into_iter().map(|(location, message)| Found { location, message }));
    found
}

/// Where a problem of the configuration is.
pub fn location(problem: &Problem) -> String {
    match (&problem.variable, &problem.file) {
        (Some(variable), _) => variable.clone(),
        (None, Some(file)) => format!("{}:{}", file.display(), problem.line),
        (None, None) => "configuration".to_owned(),
    }
}

/// Messages that have some, but not all, of the files that a channel of their type needs.
fn missing_files(preflight: &Preflight) -> impl Iterator<Item = Found> {
    preflight.missing_files().into_iter().map(|missing| Found {
        message: format!(
            "{} needs files that no template folder contains: {}",
            missing.channel,
            missing.files.join(", ")
        ),
        location: missing.place,
    })
}
