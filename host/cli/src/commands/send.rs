//! `ace send`.

mod remote;
mod sample;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ace::Ace;
use ace::config::Config;
use ace::dispatch::{self, Done, Limits, Sink};
use ace::internals::tasks::{Pauses, Tasks};
use ace::message::{ChannelReport, FieldErrors, Outcome, Report};
use ace::watch::Watch;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Server};
use super::tables::Table;
use super::{FAILED, INTERRUPTED, OK, counted, inform, open, print};
pub use remote::run as run_remote;

const EXAMPLES: &str = "Examples:
  ace send message.json
  ace send --json messages.ndjson > outcomes.ndjson
  my-application | ace send -
  ace send --limit-to email message.json
  ace send --server http://127.0.0.1:8025 messages.ndjson
  ace send --to me@example.com passwordreset

Messages are in edx-ace's JSON form, one per line if there are many. The outcome for each channel
type of a message is printed as soon as it is settled; with --json, one line per message.
Temporary failures are retried until the message expires.

The exit code is 1 if a message failed, 130 if the program was interrupted.";

#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A file with one JSON message, or one per line; "-" for standard input. With --to, the name of a message
    file: PathBuf,

    /// Send the sample of this message (sample.json beside its templates) to this address
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,

    /// Send only over this channel type or channel; may be repeated
    #[arg(long, value_name = "TYPE|CHANNEL")]
    limit_to: Vec<String>,

    /// Messages in flight at once (default: delivery.concurrency)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,

    /// Stop waiting for a message whose next attempt is more than this many seconds after its start (default:
    /// delivery.max-expiration-delay)
    // `--patience` was its name before 0.1.0.
    #[arg(long, value_name = "SECONDS", alias = "patience")]
    max_delay: Option<u64>,

    #[command(flatten)]
    server: Server,
}

impl Args {
    /// The client of a running server, if one is named.
    pub fn server(&self) -> anyhow::Result<Option<Client>> {
        if self.to.is_some() { Ok(None) } else { self.server.client() }
    }
}

pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let delivery = &config.delivery;
    let concurrency = args.concurrency.map_or(delivery.concurrency, usize::from);
    let (waiting_max, bytes_max) = (delivery.max_waiting, delivery.max_message_bytes);
    let max_delay = args.max_delay.map_or_else(|| delivery.max_window(false), Duration::from_secs);
    let ace = Ace::builder(config).start().await?;
    let limit_to_channels = ace.limit(&args.limit_to).map_err(|e| anyhow::anyhow!("--limit-to: {e}"))?;
    let limits = Limits { concurrency, waiting_max, max_delay, limit_to_channels };
    let (input, size) = match &args.to {
        Some(to) => (sample::lines(&ace.snapshot().presentation, &args.file, to, bytes_max)?, Some(0)),
        None => open(&args.file, bytes_max).await?,
    };

    let tally = Arc::new(Tally::new(json, size));
    let interrupted = AtomicBool::new(false);
    let stop = async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => interrupted.store(true, Ordering::Relaxed),
            Err(_) => std::future::pending().await,
        }
    };
    let ace = Arc::new(ace);
    let tasks = Tasks::new(Pauses::default(), CancellationToken::new());
    let watched = ace.clone();
    let watching = tasks.keep("watch", move || Watch::start(watched.clone()).run());
    let current = ace.clone();
    let read = dispatch::run(move || current.snapshot(), input, limits, stop, tally.clone()).await;
    watching.abort();
    ace.close().await;
    let code = tally.finish();
    read.map_err(|e| anyhow::anyhow!("{}: {e}", args.file.display()))?;
    Ok(if interrupted.into_inner() { INTERRUPTED } else { code })
}

/// Prints the outcomes and counts them.
struct Tally {
    json: bool,
    started: Instant,
    progress: Option<ProgressBar>,
    counts: Mutex<Counts>,
}

struct Counts {
    messages: u64,
    failed: u64,
    states: BTreeMap<&'static str, u64>,
    /// Lines and rows that are not written yet, because a write for each one would be expensive, and their size.
    lines: Vec<String>,
    rows: Table<COLUMNS>,
    bytes: usize,
    written: Option<Instant>,
}

/// The columns of the outcomes.
const COLUMNS: usize = 6;
/// The input length from which a progress bar is shown.
const LONG_INPUT_BYTES: u64 = 256 * 1024;
/// Lines are buffered up to this size, and up to this time while further messages are settled.
const BUFFER_BYTES_MAX: usize = 32 * 1024;
const BUFFER_TIME_MAX: Duration = Duration::from_millis(50);

impl Tally {
    fn new(json: bool, size: Option<u64>) -> Self {
        let is_long = size.is_none_or(|bytes| bytes > LONG_INPUT_BYTES);
        // If the terminal shows the outcomes too, a bar would disturb them.
        let is_alone = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        let progress = (is_long && is_alone).then(|| {
            let style = ProgressStyle::with_template("{spinner} {human_pos} messages, {per_sec}, {elapsed} {msg}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        if !json {
            rows().print();
        }
        let counts = Counts {
            messages: 0,
            failed: 0,
            states: BTreeMap::new(),
            lines: Vec::new(),
            rows: rows().without_header(),
            bytes: 0,
            written: None,
        };
        Tally { json, started: Instant::now(), progress, counts: Mutex::new(counts) }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the outcome of a message to what is written next.
    fn add(&self, counts: &mut Counts, done: &Done, is_failure: bool) {
        let line = done.line;
        match (&done.result, self.json) {
            (Ok(report), true) => {
                counts.add_line(&OutputLine { line, failed: is_failure, report: Some(report), refused: None })
            }
            (Err(errors), true) => {
                counts.add_line(&OutputLine { line, failed: true, report: None, refused: Some(errors) })
            }
            (Ok(report), false) => {
                for c in listed(report, is_failure) {
                    let channel = c.channel.as_deref().unwrap_or("-");
                    let (uuid, detail) = (report.uuid.to_string(), c.detail());
                    counts.add_row([&uuid, &c.channel_type, channel, c.outcome.state(), &report.name, &detail]);
                }
            }
            (Err(errors), false) => {
                counts.add_row([&format!("line {line}"), "-", "-", "refused", "-", &errors.to_string()]);
            }
        }
    }

    fn finish(&self) -> u8 {
        self.flush();
        if let Some(progress) = &self.progress {
            progress.finish_and_clear();
        }
        let counts = self.lock();
        let states: Vec<String> = counts.states.iter().map(|(state, n)| format!("{n} {state}")).collect();
        let (messages, seconds) = (counted(counts.messages, "message"), self.started.elapsed().as_secs_f64());
        let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
        inform(&format!("{messages} in {seconds:.1} s{states}; {} failed", counts.failed));
        if counts.failed == 0 { OK } else { FAILED }
    }
}

impl Sink for Tally {
    fn done(&self, done: Done) {
        let is_failure = done.result.as_ref().map_or(true, Report::is_failure);
        let mut counts = self.lock();
        counts.messages += 1;
        counts.failed += u64::from(is_failure);
        match &done.result {
            Err(_) => *counts.states.entry("refused").or_default() += 1,
            Ok(report) => {
                report.channels.iter().for_each(|c| *counts.states.entry(c.outcome.state()).or_default() += 1)
            }
        }
        self.add(&mut counts, &done, is_failure);
        let is_old = counts.written.get_or_insert_with(Instant::now).elapsed() > BUFFER_TIME_MAX;
        if is_old || counts.bytes > BUFFER_BYTES_MAX {
            counts.write();
        }
        if let Some(progress) = &self.progress {
            progress.set_position(counts.messages);
            if counts.failed > 0 {
                progress.set_message(format!("({} failed)", counts.failed));
            }
        }
    }

    fn flush(&self) {
        self.lock().write();
    }
}

impl Counts {
    fn add_line(&mut self, line: &OutputLine) {
        let line = serde_json::to_string(line).expect("a report has only string keys and finite numbers");
        self.bytes += line.len();
        self.lines.push(line);
    }

    fn add_row(&mut self, row: [&str; COLUMNS]) {
        self.bytes += row.iter().map(|cell| cell.len()).sum::<usize>();
        self.rows.add_row(row);
    }

    fn write(&mut self) {
        if self.bytes == 0 {
            return;
        }
        if !self.lines.is_empty() {
            print(&std::mem::take(&mut self.lines).join("\n"));
        }
        std::mem::replace(&mut self.rows, rows().without_header()).print();
        self.bytes = 0;
        self.written = Some(Instant::now());
    }
}

/// The table of outcomes, which is printed in pieces.
fn rows() -> Table<COLUMNS> {
    Table::new(["uuid", "type", "channel", "state", "message", "detail"]).with_widths([36, 8, 18, 8, 24, 0])
}

/// A line of `--json`.
#[derive(serde::Serialize)]
struct OutputLine<'a> {
    line: u64,
    failed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a FieldErrors>,
}

/// The channel types that get a row: unless the message failed, not those without a channel or excluded by the request.
fn listed(report: &Report, is_failure: bool) -> impl Iterator<Item = &ChannelReport> {
    let is_empty = |o: &Outcome| matches!(o, Outcome::Unsupported { .. } | Outcome::Excluded);
    report.channels.iter().filter(move |c| is_failure || !is_empty(&c.outcome))
}
