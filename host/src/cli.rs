//! The command line: data on stdout, words on stderr, and an exit code for scripts.

mod check;
mod explain;
mod plugin;
mod plugins;
mod send;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::io::{AsyncBufRead, BufReader};

use crate::config::Config;
use crate::dispatch::Lines;

/// Everything went as asked.
const OK: u8 = 0;
/// Something did not: a message failed, a check found a problem.
const FAILED: u8 = 1;
/// Nothing was begun: wrong usage, a configuration with problems, a file that cannot be read.
const NOT_BEGUN: u8 = 2;
/// Interrupted; what was under way was finished.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "Exit codes:
  0    everything went as asked
  1    a message failed, or a check found a problem
  2    nothing was begun: wrong usage, or a configuration with problems
  130  interrupted; what was under way was finished";

/// ACE, the automated communication engine.
#[derive(Parser)]
#[command(name = "ace", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// The configuration file
    #[arg(long, short, global = true, env = "ACE_CONFIG", default_value = "ace.toml", value_name = "FILE")]
    config: PathBuf,

    /// What to log on stderr: error, warn, info, debug, or a tracing filter such as "ace=debug,warn"
    #[arg(long, global = true, env = "ACE_LOG", default_value = "error", value_name = "FILTER")]
    log: String,

    /// Write JSON on stdout, for machines
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send one JSON message, or NDJSON of many
    Send(send::Args),
    /// Do everything short of delivering, and say why each thing was done
    Explain(explain::Args),
    /// Look for problems in configuration, plugins and templates
    #[command(after_help = check::EXAMPLES)]
    Check,
    /// List the plugins: what they are, what they may reach, and whether they serve
    #[command(after_help = plugins::EXAMPLES)]
    Plugins(plugins::Args),
    /// Write a plugin: begin, build, check, test, measure and install it
    #[command(subcommand, after_help = plugin::EXAMPLES)]
    Plugin(plugin::Command),
}

/// Runs the program named by the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = start_logging(&cli.log) {
        say(&format!("error: --log {:?}: {error}", cli.log));
        return NOT_BEGUN.into();
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: the runtime cannot start: {error}"));
            return NOT_BEGUN.into();
        }
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        NOT_BEGUN
    });
    // A read of standard input cannot be cut off; do not wait for it.
    runtime.shutdown_background();
    code.into()
}

async fn run(cli: Cli) -> anyhow::Result<u8> {
    let config = || read_config(&cli.config);
    match cli.command {
        Command::Send(args) => send::run(config()?, args, cli.json).await,
        Command::Explain(args) => explain::run(config()?, args, cli.json).await,
        Command::Check => check::run(config()?, cli.json).await,
        Command::Plugins(args) => plugins::run(config()?, args, cli.json).await,
        Command::Plugin(command) => plugin::run(&cli.config, command, cli.json).await,
    }
}

fn read_config(file: &Path) -> anyhow::Result<Config> {
    if !file.exists() {
        anyhow::bail!(
            "there is no configuration at {}\nhint: name one with --config or ACE_CONFIG; `make demo` leaves one at target/demo/ace.toml",
            file.display()
        );
    }
    Ok(Config::load(file)?)
}

fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
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

/// Data, on stdout. A reader that has gone away ends the program quietly, as it does for every filter.
fn put(text: &str) {
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(i32::from(OK));
    }
}

/// "1 message", "2 messages".
fn counted(n: u64, word: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {word}{plural}")
}

/// Words, on stderr.
fn say(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
