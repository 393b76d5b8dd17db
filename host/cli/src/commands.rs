//! The command line: data on stdout, messages for people on stderr, and an exit code for scripts.

mod about;
mod batch;
mod batches;
mod check;
mod client;
mod explain;
mod feedback;
mod import;
mod init;
mod kv;
mod message;
mod plugin;
mod plugins;
mod remote;
mod render;
mod scaffold;
mod send;
mod serve;
mod suppressions;
mod tables;
mod templates;
mod timeline;
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

use crate::shipped;

/// Success.
const OK: u8 = 0;
/// A message failed, or a check found a problem.
const FAILED: u8 = 1;
/// Nothing was started: wrong usage, a configuration with problems, a file that cannot be read.
const NOT_STARTED: u8 = 2;
/// A part of the server that cannot be restarted has ended (EX_SOFTWARE of sysexits.h).
const LOST: u8 = 70;
/// A part of the mail system will accept it later (EX_TEMPFAIL of sysexits.h).
const TRY_LATER: u8 = 75;
/// Interrupted; messages in flight were finished.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "Exit codes:
  0    success
  1    a message failed, or a check found a problem
  2    nothing was started: wrong usage, or a configuration with problems
  70   `ace serve`: a part of the server that cannot be restarted has ended
  75   `ace feedback import -`: the mail was not taken; the mail server tries again
  130  interrupted; messages in flight were finished";

/// The heading of the options that every command has.
const GLOBAL: &str = "Global options";

/// ACE, the automated communication engine.
#[derive(Parser)]
#[command(name = "ace", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// The configuration file
    #[arg(long, short, global = true, help_heading = GLOBAL, env = "ACE_CONFIG", default_value = "ace.toml", value_name = "FILE")]
    config: PathBuf,

    /// What to log on stderr: error, warn, info, debug, or a tracing filter such as "ace=debug,warn"
    /// [default: info for `ace serve`, error for every other command]
    #[arg(long, global = true, help_heading = GLOBAL, env = "ACE_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// The log format: text or json
    #[arg(long, global = true, help_heading = GLOBAL, env = "ACE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,

    /// Write JSON to stdout
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

/// What a server logs by default: its own events, but nothing for each message. Log lines of plugins at `info` may be about each
/// message, so they are left out.
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
    /// Create a configuration and a first message
    #[command(after_help = init::EXAMPLES)]
    Init(init::Args),
    /// Send one JSON message, or many as NDJSON
    Send(send::Args),
    /// Show what would be sent, and why, without sending
    Explain(explain::Args),
    /// Check configuration, plugins and templates for problems
    #[command(after_long_help = check::EXAMPLES)]
    Check,
    /// List the plugins with their grants and state
    #[command(after_long_help = plugins::EXAMPLES)]
    Plugins(plugins::Args),
    /// Render messages: write HTML, text and mail files, or open them in the browser
    Render(render::Args),
    /// List the templates of each message, and those that are missing or override others
    Templates(templates::Args),
    /// Create a message: its templates and a sample
    #[command(subcommand)]
    Message(message::Command),
    /// Run the server: accept messages over HTTP, store them, and send them
    #[command(after_long_help = serve::EXAMPLES)]
    Serve,
    /// Create, list and revoke tokens of the HTTP API
    #[command(after_long_help = token::EXAMPLES)]
    Token(token::Args),
    /// Send one message type to many recipients, through a running server
    #[command(after_long_help = batch::EXAMPLES)]
    Batch(batch::Args),
    /// List the batches of a running server; pause, resume or cancel one
    #[command(after_long_help = batches::EXAMPLES)]
    Batches(batches::Args),
    /// List the messages of a running server; show, retry, cancel or discard them
    #[command(after_long_help = remote::MESSAGES_EXAMPLES)]
    Messages(remote::MessagesArgs),
    /// Show depth, age and throughput of a running server's queue
    Queue(remote::QueueArgs),
    /// Read and write key-value entries of a running server
    #[command(after_long_help = kv::EXAMPLES)]
    Kv(kv::Args),
    /// Read and write the addresses to which a running server sends nothing
    #[command(after_long_help = suppressions::EXAMPLES)]
    Suppressions(suppressions::Args),
    /// Hand a mail that came back to a running server
    #[command(after_long_help = feedback::EXAMPLES)]
    Feedback(feedback::Args),
    /// Erase everything about the messages to a person from a running server
    // `forget` was its name before 0.1.0.
    #[command(alias = "forget")]
    Erase(remote::EraseArgs),
    /// Make a running server reload plugins, templates and ace.toml
    Reload(remote::ReloadArgs),
    /// Create, build, check, test, measure and install a plugin
    #[command(subcommand, after_long_help = plugin::EXAMPLES)]
    Plugin(plugin::Command),
    /// Show the versions of the program, its commit, the plugin interface and wasmtime
    Version,
    /// Print the completions of a shell
    #[command(after_long_help = about::COMPLETIONS_EXAMPLES)]
    Completions(about::CompletionsArgs),
    /// Print the man page, or write those of all commands
    #[command(after_long_help = about::MAN_EXAMPLES)]
    Man(about::ManArgs),
}

/// Runs the command that the process's arguments name.
pub(crate) fn main() -> ExitCode {
    // First, because a process that compiles a plugin limits its resources before it does anything else.
    if let Some(code) = compile_child() {
        return code.into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { not_started() } else { OK }.into();
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            inform(&format!("error: the runtime cannot start: {error}"));
            return not_started().into();
        }
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|error| {
        inform(&format!("error: {}", describe(error.as_ref())));
        not_started()
    });
    // A read of standard input cannot be cancelled, so do not wait for it.
    runtime.shutdown_background();
    code.into()
}

/// The exit code if nothing was done. A mail server that runs `ace feedback import -` must keep the mail, whatever is wrong: the
/// arguments, the server, or the plugin.
fn not_started() -> u8 {
    let is_mail = ["feedback", "import", "-"].iter().all(|word| std::env::args_os().any(|argument| argument == *word));
    if is_mail { TRY_LATER } else { NOT_STARTED }
}

async fn run(cli: Cli) -> anyhow::Result<u8> {
    // These commands work without a configuration.
    match &cli.command {
        Command::Templates(templates::Args { command: Some(templates::Command::Import(args)) }) => {
            let config = cli.config.exists().then(|| read_config(&cli.config));
            return import::run(args, config, cli.json);
        }
        Command::Templates(templates::Args { command: Some(templates::Command::Copy(args)) }) => {
            return templates::copy(|| read_config(&cli.config), args, cli.json);
        }
        _ => {}
    }
    match &cli.command {
        Command::Version => return Ok(about::version(cli.json)),
        Command::Completions(args) => return about::completions(args),
        Command::Man(args) => return about::man(args),
        _ => {}
    }
    let (json, file) = (cli.json, cli.config);
    let config = || read_config(&file);
    let filter = cli.log.as_deref().unwrap_or(match &cli.command {
        Command::Serve => SERVE_LOG,
        _ => "error",
    });
    // A span for each request and message costs time, so a server's log lines have none unless --log is given.
    let with_spans = cli.log.is_some() || !matches!(cli.command, Command::Serve);
    let log = |spans: Option<&Exporter>| start_logging(filter, with_spans, cli.log_format, spans);
    // A server may export spans, which its configuration decides; its logging starts later.
    if !matches!(cli.command, Command::Serve) {
        log(None)?;
    }
    match cli.command {
        Command::Init(args) => init::run(&args, json),
        Command::Message(command) => message::run(&config()?, &command, json),
        Command::Send(args) => match args.server()? {
            Some(client) => send::run_remote(client, args, json).await,
            None => send::run(config()?, args, json).await,
        },
        Command::Explain(args) => explain::run(config()?, args, json).await,
        Command::Check => check::run(config()?, json).await,
        Command::Plugin(command) => plugin::run(&file, command, json).await,
        // Grants are written to ace.toml, whether or not ACE_SERVER names a server.
        Command::Plugins(args) if args.is_grant() => plugins::run(config()?, args, json).await,
        Command::Plugins(args) => match args.server()? {
            Some(client) => plugins::run_remote(client, args, json).await,
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
        Command::Kv(args) => kv::run(args, json).await,
        Command::Suppressions(args) => suppressions::run(args, json).await,
        Command::Feedback(args) => feedback::run(args).await,
        Command::Erase(args) => remote::erase(args, json).await,
        Command::Reload(args) => remote::reload(args, json).await,
        Command::Version | Command::Completions(_) | Command::Man(_) => Ok(OK),
    }
}

fn read_config(file: &Path) -> anyhow::Result<Config> {
    if !file.exists() {
        anyhow::bail!(
            "there is no configuration at {}\nhint: name one with --config or ACE_CONFIG, or create one with `ace init`",
            file.display()
        );
    }
    Ok(of_program(Config::load(file)?))
}

/// Makes this program compile plugins, in separate processes, and adds those that are part of it.
fn of_program(mut config: Config) -> Config {
    config.fixed.compiler.compile = Compile::Command { program: "/proc/self/exe".into(), arguments: Vec::new() };
    config.ship(&shipped::SHIPPED)
}

/// The configuration of a plugin author who has no ace.toml.
fn default_config() -> Config {
    of_program(Config::without_file())
}

/// Writes log lines to stderr, with or without the spans they belong to, and exports spans if there is a collector.
fn start_logging(filter: &str, with_spans: bool, format: LogFormat, spans: Option<&Exporter>) -> anyhow::Result<()> {
    let chosen = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    // With a level hint, so that the combined filter has that of `chosen`. Without one, every span and event is evaluated.
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

/// Opens the messages of a command: a file, or standard input for `-`. The size is known only for files.
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

/// Prints data to stdout, without control characters, because it may come from plugins, servers and input files. If the reader of
/// stdout is gone, the program ends quietly, like any filter.
fn print(text: &str) {
    print_raw(&escaped(text));
}

/// Prints a value unchanged. Not for a terminal.
fn print_raw(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(i32::from(OK));
    }
}

/// An error and its causes as one text. A cause that the text already contains is not repeated.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}

/// "1 message", "2 messages".
fn counted(n: u64, word: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {word}{plural}")
}

/// Prints a message for people to stderr, without control characters.
fn inform(text: &str) {
    // If stderr is closed, nothing can report it.
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
    fn an_error_is_described_with_each_cause_once() {
        let denied = || std::io::Error::other("no space");
        for error in [Nested::Repeats { source: denied() }, Nested::Leaves { source: denied() }] {
            assert_eq!(describe(&error), "it cannot be read: no space");
            assert_eq!(
                describe(anyhow::Error::from(error).context("ace.db").as_ref()),
                "ace.db: it cannot be read: no space"
            );
        }
    }
}
