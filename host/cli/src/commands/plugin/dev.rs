//! `ace plugin dev`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ace::internals::plugin::{PluginState, PluginView};
use ace::message::Report;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{author_config, block, bytes, duration};
use crate::commands::client::{Client, Server};
use crate::commands::explain::verdict;
use crate::commands::{OK, inform, print};
use crate::kit::KitError;
use crate::kit::build::Project;
use crate::kit::case::{Case, Table};
use crate::kit::dev::{DevBuild, Sources, build, change};
use crate::kit::test::first_case;

pub const EXAMPLES: &str = "Examples:
  ace plugin dev quiet_hours
  ace plugin dev quiet_hours --message message.json --config ace.toml
  ace plugin dev quiet_hours --server http://127.0.0.1:8025

Whenever a source, the message or ace.toml changes, the plugin is built, called with the message, and installed into the plugin
folder of ace.toml, if there is one; a running `ace serve` or `ace send -` reloads it. The answer is compared with the previous
one. The clock is fixed, and HTTP and mail are answered from \"host\" of the case; nothing leaves the machine.

With --server it waits until the server runs the new build, and shows what the server would do with the message.

Ctrl-C stops it.";

/// How long a server may take to compile and activate a plugin.
const ACTIVATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the server is polled meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct Args {
    /// The project's folder
    #[arg(default_value = ".")]
    dir: PathBuf,

    /// A message or a case, in JSON (default: the first case of the project's tests)
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,

    /// Install missing tools
    #[arg(long)]
    install: bool,

    #[command(flatten)]
    server: Server,
}

pub async fn run(config_file: &Path, args: &Args, json: bool) -> anyhow::Result<u8> {
    // A problem that exists at the start ends the command; later ones are only reported.
    let config = author_config(config_file)?;
    let (project, client) = (Project::detect(&args.dir)?, args.server.client()?);
    if client.is_some() && config.fixed.plugin_dir.is_none() {
        anyhow::bail!("ace.toml has no plugin-dir, so the plugin cannot be installed for the server");
    }
    if config.fixed.plugin_dir.is_none() {
        inform("nothing is installed: there is no ace.toml with a plugin-dir");
    }
    let others = args.message.iter().cloned().chain([config_file.to_owned()]);
    let mut sources = Sources::watch(&project, others.collect())?;
    let mut session = Session { config_file, args, project, client, before: None, decision_before: None, json };
    let mut interrupted = signal(SignalKind::interrupt())?;
    for number in 1_u64.. {
        tokio::select! {
            () = session.build_once(number) => {}
            _ = interrupted.recv() => break,
        }
        tokio::select! {
            change = sources.change() => change?,
            _ = interrupted.recv() => break,
        }
    }
    Ok(OK)
}

struct Session<'a> {
    config_file: &'a Path,
    args: &'a Args,
    project: Project,
    client: Option<Client>,
    /// The answer of the previous build.
    before: Option<Value>,
    /// The server's decision with the previous build.
    decision_before: Option<Value>,
    json: bool,
}

impl Session<'_> {
    /// Builds once and prints the result. An error is printed and does not end the session.
    async fn build_once(&mut self, number: u64) {
        match self.build().await {
            Ok((build, case)) => self.report(number, build, case).await,
            Err(error) if self.json => {
                print(&json!({"build": number, "failed": crate::commands::describe(error.as_ref())}).to_string())
            }
            Err(error) => inform(&format!("#{number} failed: {}", crate::commands::describe(error.as_ref()))),
        }
    }

    async fn build(&self) -> anyhow::Result<(DevBuild, Option<Case>)> {
        let config = author_config(self.config_file)?;
        let case = self.case()?;
        let build = build(&self.project, &config, case.as_ref(), self.args.install).await?;
        Ok((build, case))
    }

    fn case(&self) -> Result<Option<Case>, KitError> {
        match &self.args.message {
            Some(file) => Ok(Table::read(file)?.cases.into_iter().next()),
            None => first_case(&self.project.folder),
        }
    }

    async fn report(&mut self, number: u64, build: DevBuild, case: Option<Case>) {
        let title = case.as_ref().map(|case| case.title().to_owned()).unwrap_or_default();
        let answer = build.run.as_ref().map(|run| run.answer.clone());
        if !self.json {
            print(&in_full(number, &build, &title, self.before.as_ref()));
        }
        let served = match &self.client {
            Some(client) => Some(served(client, &build, case.as_ref()).await),
            None => None,
        };
        if self.json {
            print(&describe(number, &build, &title, self.before.as_ref(), served.as_ref()).to_string())
        } else {
            served.iter().for_each(|served| print(&served.in_full(self.decision_before.as_ref())))
        }
        self.before = answer.or(self.before.take());
        self.decision_before = served.and_then(|served| served.decision).or(self.decision_before.take());
    }
}

/// What a server did with a build.
struct Served {
    /// How long the server took to activate it, or why it did not.
    activated: Result<Duration, String>,
    /// What the server would do with the message.
    decision: Option<Value>,
}

impl Served {
    fn in_full(&self, before: Option<&Value>) -> String {
        let heading = match &self.activated {
            Ok(after) => format!("  served        after {}", duration(*after)),
            Err(why) => format!("  not active    {why}"),
        };
        let decision = self.decision.as_ref().map(|decision| ("decides", compared(decision, before)));
        block(&heading, &decision.into_iter().collect::<Vec<_>>())
    }
}

/// Waits until the server activates a build, and gets its decision about the message.
async fn served(client: &Client, build: &DevBuild, case: Option<&Case>) -> Served {
    let activated = activated(client, build).await.map_err(|error| crate::commands::describe(error.as_ref()));
    let decision = match (&activated, case) {
        (Ok(_), Some(case)) if case.resolve.is_none() => Some(decision(client, case).await),
        _ => None,
    };
    match decision.transpose() {
        Ok(decision) => Served { activated, decision },
        Err(error) => Served { activated: Err(crate::commands::describe(error.as_ref())), decision: None },
    }
}

async fn activated(client: &Client, build: &DevBuild) -> anyhow::Result<Duration> {
    let (started, revision) = (Instant::now(), &build.found.plugin.revision);
    if let Some(why) = build.run.as_ref().and_then(|run| run.answer["refused"].as_str()) {
        anyhow::bail!("it was rejected, and the previous revision stays active: {why}");
    }
    let mut rejected = None;
    while started.elapsed() < ACTIVATION_TIMEOUT {
        let plugins: Vec<PluginView> = client.get("/v1/plugins").await?;
        if let Some(plugin) = plugins.into_iter().find(|plugin| plugin.name == build.found.plugin.name) {
            match plugin.state {
                PluginState::Active if &plugin.revision == revision => return Ok(started.elapsed()),
                PluginState::Disabled if &plugin.revision == revision => anyhow::bail!("it is disabled in ace.toml"),
                PluginState::Broken(why) if &plugin.revision == revision => anyhow::bail!("it is broken: {why}"),
                _ => rejected = plugin.rejected,
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    match rejected {
        Some(rejected) => anyhow::bail!("{}", rejected.reason),
        None => anyhow::bail!(
            "the server has not activated revision {revision} within {ACTIVATION_TIMEOUT:?}\nhint: does it use this ace.toml?"
        ),
    }
}

/// What the server would do with a message: each policy's verdict, and the outcome for each channel type.
async fn decision(client: &Client, case: &Case) -> anyhow::Result<Value> {
    let message = case.message.to_string();
    let request = client.request(Method::POST, "/v1/messages")?.query(&[("dry_run", "true")]);
    let response: Value = client.fetch(request.header("content-type", "application/json").body(message)).await?;
    let report: Report = serde_json::from_value(response["report"].clone())?;
    let policies = report.policies.iter().map(|policy| (policy.policy.clone(), verdict(policy).into()));
    let channels = report.channels.iter().map(|channel| {
        let text = format!("{} {}", channel.outcome.state(), channel.detail());
        (channel.channel_type.clone(), text.trim_end().into())
    });
    Ok(json!({
        "policies": policies.collect::<serde_json::Map<_, _>>(),
        "channels": channels.collect::<serde_json::Map<_, _>>(),
    }))
}

fn in_full(number: u64, build: &DevBuild, title: &str, before: Option<&Value>) -> String {
    let plugin = &build.found.plugin;
    let heading = format!(
        "#{number} {} {}, {} in {}",
        plugin.name,
        plugin.revision,
        bytes(plugin.size),
        duration(build.built.took)
    );
    let mut parts = Vec::new();
    match &build.run {
        Some(run) => {
            parts.push(("message", vec![title.to_owned()]));
            parts.push(("answer", compared(&run.answer, before)));
            parts.push(("stack", run.backtrace.iter().map(|trace| trace.trim_end().to_owned()).collect()));
            let logged = run.seen.logs.iter().map(|line| format!("{:<5} {}", line.level, line.text));
            parts.push(("logged", logged.collect()));
            parts.push(("unexpected", run.seen.unexpected.clone()));
        }
        None => {
            parts.push(("answer", vec!["none: the project has no tests; name a message with --message".to_owned()]))
        }
    }
    parts.push(("installed", build.installed.iter().map(|file| file.display().to_string()).collect()));
    if build.installed.is_some() {
        parts.push(("not granted", plugin.missing.lines()));
    }
    block(&heading, &parts)
}

/// An answer, compared with the previous one.
fn compared(answer: &Value, before: Option<&Value>) -> Vec<String> {
    match before.map(|before| change(before, answer)) {
        None => vec![serde_json::to_string_pretty(answer).unwrap_or_default()],
        Some(None) => vec![format!("unchanged: {answer}")],
        Some(Some(diff)) => vec!["changed:".to_owned(), diff],
    }
}

fn describe(number: u64, build: &DevBuild, title: &str, before: Option<&Value>, served: Option<&Served>) -> Value {
    let answer = build.run.as_ref().map(|run| &run.answer);
    let mut described = json!({
        "build": number,
        "plugin": build.found.plugin.name,
        "revision": build.found.plugin.revision,
        "size": build.found.plugin.size,
        "build_ms": build.built.took.as_millis() as u64,
        "message": title,
        "answer": answer,
        "before": before,
        "logs": build.run.as_ref().map(|run| &run.seen.logs),
        "installed": build.installed,
        "not_granted": build.found.plugin.missing.lines(),
    });
    if let Some(served) = served {
        described["served"] = match &served.activated {
            Ok(after) => json!({"after_ms": after.as_millis() as u64, "decided": served.decision}),
            Err(why) => json!({"failed": why}),
        };
    }
    described
}
