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
use crate::commands::send::detail;
use crate::commands::{OK, put, say};
use crate::kit::KitError;
use crate::kit::build::Project;
use crate::kit::case::{Case, Table};
use crate::kit::dev::{Round, Sources, change, round};
use crate::kit::test::first_case;

pub const EXAMPLES: &str = "Examples:
  ace plugin dev quiet_hours
  ace plugin dev quiet_hours --message message.json --config ace.toml
  ace plugin dev quiet_hours --server http://127.0.0.1:8025

Whenever a source, the message or ace.toml changes, the plugin is built, called with the message, and installed into the plugin
folder of ace.toml, if there is one; a running `ace serve` or `ace send -` reloads it. The answer is shown beside the previous
one. The clock is fixed, and HTTP and mail are answered with what the case has under \"host\"; nothing leaves the machine.

With --server it waits until the server runs the new build, and shows what the server would do with the message.

Ctrl-C stops it.";

/// How long a server may take to compile a plugin and take it up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

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
    // What is wrong from the beginning is no part of the work.
    let config = author_config(config_file)?;
    let (project, client) = (Project::detect(&args.dir)?, args.server.client()?);
    if client.is_some() && config.fixed.plugin_dir.is_none() {
        anyhow::bail!("ace.toml has no plugin-dir, so the plugin cannot be installed for the server");
    }
    if config.fixed.plugin_dir.is_none() {
        say("nothing is installed: there is no ace.toml with a plugin-dir");
    }
    let others = args.message.iter().cloned().chain([config_file.to_owned()]);
    let mut sources = Sources::watch(&project, others.collect())?;
    let mut session = Session { config_file, args, project, client, before: None, decided: None, json };
    let mut interrupted = signal(SignalKind::interrupt())?;
    for number in 1_u64.. {
        tokio::select! {
            () = session.round(number) => {}
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
    /// What the build before answered.
    before: Option<Value>,
    /// What the server decided with the build before.
    decided: Option<Value>,
    json: bool,
}

impl Session<'_> {
    /// Builds once and tells what came of it. Nothing that is wrong ends the work.
    async fn round(&mut self, number: u64) {
        match self.build().await {
            Ok((round, case)) => self.tell(number, round, case).await,
            Err(error) if self.json => {
                put(&json!({"build": number, "failed": crate::commands::once(error.as_ref())}).to_string())
            }
            Err(error) => say(&format!("#{number} failed: {}", crate::commands::once(error.as_ref()))),
        }
    }

    async fn build(&self) -> anyhow::Result<(Round, Option<Case>)> {
        let config = author_config(self.config_file)?;
        let case = self.case()?;
        let round = round(&self.project, &config, case.as_ref(), self.args.install).await?;
        Ok((round, case))
    }

    fn case(&self) -> Result<Option<Case>, KitError> {
        match &self.args.message {
            Some(file) => Ok(Table::read(file)?.cases.into_iter().next()),
            None => first_case(&self.project.folder),
        }
    }

    async fn tell(&mut self, number: u64, round: Round, case: Option<Case>) {
        let title = case.as_ref().map(|case| case.title().to_owned()).unwrap_or_default();
        let answer = round.tried.as_ref().map(|tried| tried.answer.clone());
        if !self.json {
            put(&in_full(number, &round, &title, self.before.as_ref()));
        }
        let served = match &self.client {
            Some(client) => Some(served(client, &round, case.as_ref()).await),
            None => None,
        };
        if self.json {
            put(&describe(number, &round, &title, self.before.as_ref(), served.as_ref()).to_string())
        } else {
            served.iter().for_each(|served| put(&served.in_full(self.decided.as_ref())))
        }
        self.before = answer.or(self.before.take());
        self.decided = served.and_then(|served| served.decided).or(self.decided.take());
    }
}

/// What a server made of a build.
struct Served {
    /// How long it took, or why it does not serve it.
    taken_up: Result<Duration, String>,
    /// What it would do with the message.
    decided: Option<Value>,
}

impl Served {
    fn in_full(&self, before: Option<&Value>) -> String {
        let heading = match &self.taken_up {
            Ok(after) => format!("  served        after {}", duration(*after)),
            Err(why) => format!("  not served    {why}"),
        };
        let decided = self.decided.as_ref().map(|decided| ("decides", compared(decided, before)));
        block(&heading, &decided.into_iter().collect::<Vec<_>>())
    }
}

/// Waits until the server serves a build, and asks it about the message.
async fn served(client: &Client, round: &Round, case: Option<&Case>) -> Served {
    let taken_up = taken_up(client, round).await.map_err(|error| crate::commands::once(error.as_ref()));
    let asked = match (&taken_up, case) {
        (Ok(_), Some(case)) if case.resolve.is_none() => Some(decided(client, case).await),
        _ => None,
    };
    match asked.transpose() {
        Ok(decided) => Served { taken_up, decided },
        Err(error) => Served { taken_up: Err(crate::commands::once(error.as_ref())), decided: None },
    }
}

async fn taken_up(client: &Client, round: &Round) -> anyhow::Result<Duration> {
    let (begun, revision) = (Instant::now(), &round.found.plugin.revision);
    if let Some(why) = round.tried.as_ref().and_then(|tried| tried.answer["refused"].as_str()) {
        anyhow::bail!("it is refused, and what served before goes on: {why}");
    }
    let mut rejected = None;
    while begun.elapsed() < PATIENCE {
        let plugins: Vec<PluginView> = client.get("/v1/plugins").await?;
        if let Some(plugin) = plugins.into_iter().find(|plugin| plugin.name == round.found.plugin.name) {
            match plugin.state {
                PluginState::Active if &plugin.revision == revision => return Ok(begun.elapsed()),
                PluginState::Disabled if &plugin.revision == revision => anyhow::bail!("ace.toml does not enable it"),
                PluginState::Broken(why) if &plugin.revision == revision => anyhow::bail!("it is broken: {why}"),
                _ => rejected = plugin.rejected,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    match rejected {
        Some(rejected) => anyhow::bail!("{}", rejected.reason),
        None => anyhow::bail!(
            "the server has not taken revision {revision} up in {PATIENCE:?}\nhint: does it run with this ace.toml?"
        ),
    }
}

/// What the server would do: each policy's verdict, and what would become of each channel type.
async fn decided(client: &Client, case: &Case) -> anyhow::Result<Value> {
    let message = case.message.to_string();
    let request = client.request(Method::POST, "/v1/messages")?.query(&[("dry_run", "true")]);
    let answer: Value = client.ask(request.header("content-type", "application/json").body(message)).await?;
    let report: Report = serde_json::from_value(answer["report"].clone())?;
    let policies = report.policies.iter().map(|policy| (policy.policy.clone(), verdict(policy).into()));
    let channels = report.channels.iter().map(|channel| {
        let text = format!("{} {}", channel.outcome.state(), detail(channel));
        (channel.channel_type.clone(), text.trim_end().into())
    });
    Ok(json!({
        "policies": policies.collect::<serde_json::Map<_, _>>(),
        "channels": channels.collect::<serde_json::Map<_, _>>(),
    }))
}

fn in_full(number: u64, round: &Round, title: &str, before: Option<&Value>) -> String {
    let plugin = &round.found.plugin;
    let heading = format!(
        "#{number} {} {}, {} in {}",
        plugin.name,
        plugin.revision,
        bytes(plugin.size),
        duration(round.built.took)
    );
    let mut parts = Vec::new();
    match &round.tried {
        Some(tried) => {
            parts.push(("message", vec![title.to_owned()]));
            parts.push(("answer", compared(&tried.answer, before)));
            parts.push(("stack", tried.backtrace.iter().map(|trace| trace.trim_end().to_owned()).collect()));
            let logged = tried.seen.logs.iter().map(|line| format!("{:<5} {}", line.level, line.text));
            parts.push(("logged", logged.collect()));
            parts.push(("unexpected", tried.seen.unexpected.clone()));
        }
        None => {
            parts.push(("answer", vec!["none: the project has no tests; name a message with --message".to_owned()]))
        }
    }
    parts.push(("installed", round.installed.iter().map(|file| file.display().to_string()).collect()));
    if round.installed.is_some() {
        parts.push(("not granted", plugin.missing.lines()));
    }
    block(&heading, &parts)
}

/// An answer beside the one before.
fn compared(answer: &Value, before: Option<&Value>) -> Vec<String> {
    match before.map(|before| change(before, answer)) {
        None => vec![serde_json::to_string_pretty(answer).unwrap_or_default()],
        Some(None) => vec![format!("as before: {answer}")],
        Some(Some(diff)) => vec!["changed:".to_owned(), diff],
    }
}

fn describe(number: u64, round: &Round, title: &str, before: Option<&Value>, served: Option<&Served>) -> Value {
    let answer = round.tried.as_ref().map(|tried| &tried.answer);
    let mut described = json!({
        "build": number,
        "plugin": round.found.plugin.name,
        "revision": round.found.plugin.revision,
        "size": round.found.plugin.size,
        "build_ms": round.built.took.as_millis() as u64,
        "message": title,
        "answer": answer,
        "before": before,
        "logs": round.tried.as_ref().map(|tried| &tried.seen.logs),
        "installed": round.installed,
        "not_granted": round.found.plugin.missing.lines(),
    });
    if let Some(served) = served {
        described["served"] = match &served.taken_up {
            Ok(after) => json!({"after_ms": after.as_millis() as u64, "decided": served.decided}),
            Err(why) => json!({"failed": why}),
        };
    }
    described
}
