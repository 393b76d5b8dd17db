//! `ace batch`: sends one message type to many recipients, through a running server.

pub mod checked;
mod columns;
mod dry_run;
pub mod recipients;
pub mod text;

use std::path::PathBuf;
use std::time::Duration;

use ace::message::{MessageType, without_bom};
use indicatif::{ProgressBar, ProgressStyle};
use recipients::{Counted, Reading, Recipients};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, NDJSON, Server};
use super::{FAILED, OK, batches, counted, inform, print, tables};

pub const EXAMPLES: &str = "Examples:
  ace batch --type weekly.json --recipients users.ndjson
  ace batch --type weekly.json --recipients users.csv --dry-run --sample 100
  ace batch --type weekly.json --recipients users.csv --test-send me@example.com
  ace batch --type weekly.json --recipients users.csv --dedupe email --wait
  ace batch --type weekly.json --recipients export.csv --column email_address=email --typed
  ace batch --type weekly.json --resolver enrolled --arguments '{\"course\": \"demo\"}'

A line of NDJSON is {\"key\": …, \"recipient\": {…}, \"language\": …, \"user_context\": {…}}. A CSV file has a
header; the columns lms_user_id, email_address, language and key have the meaning of their names, and
every other column goes into user_context. One of lms_user_id and email_address is enough. Fields are separated by `,`, `;`, tabs or `|`.

The whole file is read before anything is sent; if it has an error, nothing is sent.

To resume an interrupted batch, repeat the command with --uuid and the same files: no message is created twice.

With --wait, the exit code is 1 if a message or the batch itself failed.";

/// How often progress is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Args {
    /// A file with the message type, in edx-ace's JSON form
    #[arg(long = "type", value_name = "FILE")]
    kind: PathBuf,

    /// A file of recipients, with the extension .ndjson, .csv or .tsv
    #[arg(long, value_name = "FILE", required_unless_present = "resolver", conflicts_with = "resolver")]
    recipients: Option<PathBuf>,

    #[command(flatten)]
    reading: Reading,

    /// The plugin of the server that names the recipients
    #[arg(long, value_name = "PLUGIN")]
    resolver: Option<String>,

    /// The arguments for this plugin, a JSON object
    #[arg(long, value_name = "JSON", requires = "resolver")]
    arguments: Option<String>,

    /// The batch's uuid (default: a new one)
    #[arg(long)]
    uuid: Option<Uuid>,

    /// Wait until every message is settled
    #[arg(long)]
    wait: bool,

    /// Show how many messages would be sent or denied, why, and which rows are faulty; send nothing
    #[arg(long, requires = "recipients", conflicts_with_all = ["wait", "test_send"])]
    dry_run: bool,

    /// With --dry-run: ask only about this many rows, spread over the file
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,

    /// Send only the message of the first row, to this address
    #[arg(long, value_name = "ADDRESS", requires = "recipients", conflicts_with = "wait")]
    test_send: Option<String>,

    #[command(flatten)]
    server: Server,
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let uuid = args.uuid.unwrap_or_else(Uuid::new_v4);
    let head = head(&args, uuid)?;
    let recipients = args.recipients.as_deref().map(|file| Recipients::new(file, args.reading.clone())).transpose()?;
    let bar = progress_bar();
    if let Some(recipients) = recipients.clone() {
        if args.dry_run {
            return dry_run::run(&client, &kind(&args)?, recipients, args.sample, &bar).await;
        }
        if let Some(address) = args.test_send.clone() {
            return dry_run::test_send(&client, &kind(&args)?, recipients, address).await;
        }
    }
    let request = client.request(Method::POST, "/v1/batches")?.header("content-type", NDJSON);
    let mut batch: Value = match recipients {
        None => {
            inform(&format!("batch {uuid}"));
            client.fetch(request.body(head)).await?
        }
        Some(recipients) => {
            let checking = recipients.clone();
            let checked = tokio::task::spawn_blocking(move || checking.check()).await??;
            announce(uuid, checked, &bar);
            let counting = bar.clone();
            let pieces = tokio::task::spawn_blocking(move || {
                let lines = recipients.chunks()?.map(move |chunk| {
                    let (text, n) = chunk?;
                    counting.inc(n);
                    Ok::<_, text::FileFault>(text)
                });
                anyhow::Ok(std::iter::once(Ok(format!("{head}\n").into_bytes())).chain(lines))
            });
            client.upload(request, pieces.await??).await?
        }
    };
    if args.wait {
        batch = wait_until_settled(&client, uuid, &bar).await?;
    }
    bar.finish_and_clear();
    print(&if json { batch.to_string() } else { described(&batch) });
    let has_failed = batch["state"] == "failed";
    let failed = ["failed", "expired", "corrupt"].iter().any(|state| batch["by_state"][*state].as_u64() > Some(0));
    Ok(if failed || has_failed { FAILED } else { OK })
}

/// Says what will be sent, once the file has been checked.
fn announce(uuid: Uuid, checked: Option<Counted>, bar: &ProgressBar) {
    let Some(Counted { recipients, duplicates }) = checked else { return inform(&format!("batch {uuid}")) };
    let duplicates =
        if duplicates > 0 { format!(", {} left out", counted(duplicates, "duplicate")) } else { String::new() };
    inform(&format!("batch {uuid}: {}{duplicates}", counted(recipients, "recipient")));
    show_share(bar, recipients);
}

/// The state of a batch, in a sentence.
fn described(batch: &Value) -> String {
    let (uuid, state) = (tables::text(&batch["uuid"]), tables::text(&batch["state"]));
    let by_state = batches::by_state(batch);
    let by_state = if by_state.is_empty() { String::new() } else { format!(": {by_state}") };
    let error = batch["resolver"]["error"].as_str().map(|error| format!("; {error}")).unwrap_or_default();
    let messages = counted(batch["messages"].as_u64().unwrap_or_default(), "message");
    format!("batch {uuid} is {state}, {messages}{by_state}{error}")
}

fn read_kind(args: &Args) -> anyhow::Result<Vec<u8>> {
    std::fs::read(&args.kind).map_err(|e| anyhow::anyhow!("{}: {e}", args.kind.display()))
}

/// The message type.
fn kind(args: &Args) -> anyhow::Result<MessageType> {
    MessageType::from_json(without_bom(&read_kind(args)?))
        .map_err(|errors| anyhow::anyhow!("{}: {errors}", args.kind.display()))
}

/// The first line of the request: the batch and its message type.
fn head(args: &Args, uuid: Uuid) -> anyhow::Result<String> {
    let (name, kind) = (args.kind.display(), read_kind(args)?);
    let kind: Box<RawValue> = serde_json::from_slice(without_bom(&kind)).map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
    let mut head = format!("{{\"uuid\":\"{uuid}\",\"message_type\":{}", on_one_line(kind.get()));
    if let Some(plugin) = &args.resolver {
        let arguments = args.arguments.as_deref().unwrap_or("{}");
        let arguments: Value = serde_json::from_str(arguments).map_err(|e| anyhow::anyhow!("--arguments: {e}"))?;
        let resolver = json!({"plugin": plugin, "arguments": arguments});
        head.push_str(&format!(",\"resolver\":{resolver}"));
    }
    Ok(head + "}")
}

/// Puts JSON on one line. Strings in JSON contain no line breaks, so all of them are between values.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} recipients, {per_sec}, {elapsed} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Shows the share that is done, the rate of the last seconds, and when it ends at this rate.
fn show_share(bar: &ProgressBar, length: u64) {
    let style = ProgressStyle::with_template("{percent} % {human_pos} of {human_len}, {per_sec}, {eta} left {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_length(length);
}

async fn wait_until_settled(client: &Client, uuid: Uuid, bar: &ProgressBar) -> anyhow::Result<Value> {
    bar.reset();
    loop {
        let batch: Value = client.get(&format!("/v1/batches/{uuid}")).await?;
        let by_state = batch["by_state"].as_object().into_iter().flatten();
        let settled: u64 = by_state.filter(|(state, _)| *state != "queued").filter_map(|(_, n)| n.as_u64()).sum();
        show_share(bar, batch["messages"].as_u64().unwrap_or_default());
        bar.set_position(settled);
        bar.set_message(batches::by_state(&batch));
        if matches!(batch["state"].as_str(), Some("done" | "cancelled" | "failed")) {
            return Ok(batch);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
