//! The command line: data on stdout, words on stderr, and an exit code for scripts.

mod batch;
mod batches;
mod check;
mod client;
mod explain;
mod import;
mod plugin;
mod plugins;
mod remote;
mod render;
mod send;
mod serve;
mod tables;
mod templates;
mod token;
mod windows;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::io::{AsyncBufRead, BufReader};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;

use ace::compile_child;
use ace::config::{Compile, Config};
use ace::dispatch::Lines;
use ace::internals::monitoring::otlp::Exporter;
use ace::message::text::escaped;

/// Success.
const OK: u8 = 0;
/// A message failed, or a check found a problem.
const FAILED: u8 = 1;
/// Nothing was started: wrong usage, a configuration with problems, a file that cannot be read.
const NOT_BEGUN: u8 = 2;
/// A part of the server ended that cannot be restarted (EX_SOFTWARE of sysexits.h).
const LOST: u8 = 70;
/// Interrupted; messages in flight were finished.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "Exit codes:
  0    success
  1    a message failed, or a check found a problem
  2    nothing was started: wrong usage, or a configuration with problems
  70   `ace serve`: a part of the server ended that cannot be restarted
  130  interrupted; messages in flight were finished";

/// ACE, the automated communication engine.
#[derive(Parser)]
#[command(name = "ace", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// The configuration file
    #[arg(long, short, global = true, env = "ACE_CONFIG", default_value = "ace.toml", value_name = "FILE")]
    config: PathBuf,

    /// What to log on stderr: error, warn, info, debug, or a tracing filter such as "ace=debug,warn"
    /// [default: info for `ace serve`, error for every other command]
    #[arg(long, global = true, env = "ACE_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// The log format: text or json
    #[arg(long, global = true, env = "ACE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,

    /// Write JSON to stdout
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// What a server logs: what it is about, once, and nothing of each message. What plugins say at info may be of each message.
const SERVE_LOG: &str = "info,ace::plugin::imports::logging=warn";

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// One readable line per event
    Text,
    /// One JSON object per event
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Send one JSON message, or many as NDJSON
    Send(send::Args),
    /// Show what would be sent, and why, without sending
    Explain(explain::Args),
    /// Check configuration, plugins and templates for problems
    #[command(after_help = check::EXAMPLES)]
    Check,
    /// List the plugins with their grants and state
    #[command(after_help = plugins::EXAMPLES)]
    Plugins(plugins::Args),
    /// Render messages: write HTML, text and mail files, or open them in the browser
    Render(render::Args),
    /// List the templates of each message, and those that are missing or override others
    Templates(templates::Args),
    /// Run the server: accept messages over HTTP, store them, and send them
    #[command(after_help = serve::EXAMPLES)]
    Serve,
    /// Create, list and revoke tokens of the HTTP API
    Token(token::Args),
    /// Send one message type to many recipients, through a running server
    #[command(after_help = batch::EXAMPLES)]
    Batch(batch::Args),
    /// List the batches of a running server; pause, resume or cancel one
    Batches(batches::Args),
    /// List the messages of a running server; retry, cancel or discard them
    Messages(remote::MessagesArgs),
    /// Show depth, age and throughput of a running server's queue
    Queue(remote::QueueArgs),
    /// Read and write key-value entries of a running server
    Kv(remote::KvArgs),
    /// Erase everything about the messages to a person from a running server
    // `forget`: its name before 0.1.0.
    #[command(alias = "forget")]
    Erase(remote::EraseArgs),
    /// Make a running server reload plugins, templates and ace.toml
    Reload(remote::ReloadArgs),
    /// Create, build, check, test, measure and install a plugin
    #[command(subcommand, after_help = plugin::EXAMPLES)]
    Plugin(plugin::Command),
}

/// Runs the program named by the process's arguments.
pub(crate) fn main() -> ExitCode {
    // First of all: a process that compiles a plugin bounds itself before anything else is begun.
    if let Some(code) = compile_child() {
        return code.into();
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: the runtime cannot start: {error}"));
            return NOT_BEGUN.into();
        }
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|error| {
        say(&format!("error: {}", once(error.as_ref())));
        NOT_BEGUN
    });
    // A read of standard input cannot be cut off; do not wait for it.
    runtime.shutdown_background();
    code.into()
}

async fn run(cli: Cli) -> anyhow::Result<u8> {
    // Comes before there is a configuration.
    if let Command::Templates(templates::Args { command: Some(templates::Command::Import(args)) }) = &cli.command {
        let config = cli.config.exists().then(|| read_config(&cli.config));
        return import::run(args, config, cli.json);
    }
    let (json, file) = (cli.json, cli.config);
    let config = || read_config(&file);
    let filter = cli.log.as_deref().unwrap_or(match &cli.command {
        Command::Serve => SERVE_LOG,
        _ => "error",
    });
    // A span of each request and message costs time, and a server's lines do without unless more is asked for.
    let with_spans = cli.log.is_some() || !matches!(cli.command, Command::Serve);
    let log = |spans: Option<&Exporter>| start_logging(filter, with_spans, cli.log_format, spans);
    // A server may export spans, and only its configuration says so.
    if !matches!(cli.command, Command::Serve) {
        log(None)?;
    }
    match cli.command {
        Command::Send(args) => match args.server()? {
            Some(client) => send::remote(client, args, json).await,
            None => send::run(config()?, args, json).await,
        },
        Command::Explain(args) => explain::run(config()?, args, json).await,
        Command::Check => check::run(config()?, json).await,
        Command::Plugin(command) => plugin::run(&file, command, json).await,
        Command::Plugins(args) => match args.server()? {
            Some(client) => plugins::ask(client, args, json).await,
            None => plugins::run(config()?, args, json).await,
        },
        Command::Render(args) => render::run(config()?, args, json).await,
        Command::Templates(args) => templates::run(config()?, args, json).await,
        Command::Serve => {
            let config = config()?;
            let spans = config.fixed.otlp.as_ref().map(Exporter::start).transpose()?;
            log(spans.as_ref())?;
            serve::run(config, spans).await
        }
        Command::Token(args) => token::run(&config()?, args, json),
        Command::Batch(args) => batch::run(args, json).await,
        Command::Batches(args) => batches::run(args, json).await,
        Command::Messages(args) => remote::messages(args, json).await,
        Command::Queue(args) => remote::queue(args, json).await,
        Command::Kv(args) => remote::kv(args).await,
        Command::Erase(args) => remote::erase(args, json).await,
        Command::Reload(args) => remote::reload(args, json).await,
    }
}

fn read_config(file: &Path) -> anyhow::Result<Config> {
    if !file.exists() {
        anyhow::bail!(
            "there is no configuration at {}\nhint: name one with --config or ACE_CONFIG; `make demo` creates target/demo/ace.toml",
            file.display()
        );
    }
    Ok(with_compiler(Config::load(file)?))
}

/// This program compiles plugins itself, in processes of its own.
fn with_compiler(mut config: Config) -> Config {
    config.fixed.compiler.compile = Compile::Command { program: "/proc/self/exe".into(), arguments: Vec::new() };
    config
}

/// What holds for the author of a plugin where there is no ace.toml.
fn without_file() -> Config {
    with_compiler(Config::without_file())
}

/// Lines on stderr, with the spans they are in or without, and spans to a collector where there is one.
fn start_logging(filter: &str, with_spans: bool, format: LogFormat, spans: Option<&Exporter>) -> anyhow::Result<()> {
    let chosen = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    // With a hint of its own, so that the whole has the chosen one's: without, every span and event of every crate is looked at.
    let wanted = filter_fn(move |metadata| with_spans || metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let chosen = chosen.and(wanted);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(chosen)).with(spans.map(Exporter::layer)).init();
    Ok(())
}

/// Opens the messages of a command: a file, or standard input for `-`. The size is known for files alone.
async fn open(
    file: &Path,
    bytes_max: usize,
) -> anyhow::Result<(Lines<Box<dyn AsyncBufRead + Unpin + Send>>, Option<u64>)> {
    const BUFFER: usize = 256 * 1024;
    if file == Path::new("-") {
        let input: Box<dyn AsyncBufRead + Unpin + Send> =
            Box::new(BufReader::with_capacity(BUFFER, tokio::io::stdin()));
        return Ok((Lines::new(input, bytes_max), None));
    }
    let opened = tokio::fs::File::open(file)
        .await
        .map_err(|e| anyhow::anyhow!("{}: {e}\nhint: \"-\" reads standard input", file.display()))?;
    let size = opened.metadata().await.ok().filter(|m| m.is_file()).map(|m| m.len());
    let input: Box<dyn AsyncBufRead + Unpin + Send> = Box::new(BufReader::with_capacity(BUFFER, opened));
    Ok((Lines::new(input, bytes_max), size))
}

/// Data, on stdout. A reader that has gone away ends the program quietly, as it does for every filter. Plugins, servers and people's
/// files have a say in it, so that nothing in it may steer a terminal.
fn put(text: &str) {
    put_as_it_is(&escaped(text));
}

/// A value of somebody's own, byte for byte; not for a terminal.
fn put_as_it_is(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(i32::from(OK));
    }
}

/// An error with its causes, of which each text is told once: many errors repeat their cause in their own words.
fn once(error: &dyn std::error::Error) -> String {
    let mut told = String::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let text = cause.to_string();
        if told.is_empty() {
            told = text
        } else if told.contains(&text) {
        } else {
            told.push_str(&format!(": {text}"))
        }
    }
    told
}

/// Columns where there is no terminal to ask.
const WIDTH_ELSEWHERE: u16 = 160;

fn table_width(table: &mut comfy_table::Table) {
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH_ELSEWHERE);
    }
}

/// "1 message", "2 messages".
fn counted(n: u64, word: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {word}{plural}")
}

/// Words, on stderr, as harmless to a terminal as data.
fn say(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("it cannot be read: {source}")]
        Repeats { source: std::io::Error },
        #[error("it cannot be read")]
        Leaves { source: std::io::Error },
    }

    #[test]
    fn an_error_tells_each_cause_once() {
        let denied = || std::io::Error::other("no space");
        for error in [Nested::Repeats { source: denied() }, Nested::Leaves { source: denied() }] {
            assert_eq!(once(&error), "it cannot be read: no space");
            assert_eq!(
                once(anyhow::Error::from(error).context("ace.db").as_ref()),
                "ace.db: it cannot be read: no space"
            );
        }
    }
}
