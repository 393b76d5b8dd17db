//! `ace batch`: sends one message type to many recipients, through a running server.

pub mod checked;
mod columns;
pub mod recipients;
pub mod text;

use std::path::PathBuf;
use std::time::Duration;

use ace::message::without_bom;
use indicatif::{ProgressBar, ProgressStyle};
use recipients::{Reading, Recipients};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, NDJSON, Server};
use super::{FAILED, OK, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace batch --type weekly.json --recipients users.ndjson
  ace batch --type weekly.json --recipients users.csv --wait
  ace batch --type weekly.json --recipients export.csv --column email_address=email --typed
  ace batch --type weekly.json --resolver enrolled --arguments '{\"course\": \"demo\"}'

A line of NDJSON is {\"key\": …, \"recipient\": {…}, \"language\": …, \"user_context\": {…}}. A CSV file has a
header; the columns lms_user_id, email_address, language and key have the meaning of their names, and
every other column goes into user_context. Fields are separated by `,`, `;`, tabs or `|`.

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

    #[command(flatten)]
    server: Server,
}

pub async fn run(args: Args, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let uuid = args.uuid.unwrap_or_else(Uuid::new_v4);
    inform(&format!("batch {uuid}"));
    let head = head(&args, uuid)?;
    let bar = progress_bar();
    let request = client.request(Method::POST, "/v1/batches")?.header("content-type", NDJSON);
    let mut batch: Value = match &args.recipients {
        None => client.fetch(request.body(head)).await?,
        Some(file) => {
            let recipients = Recipients::new(file, args.reading)?;
            let counting = bar.clone();
            let pieces = tokio::task::spawn_blocking(move || {
                recipients.check()?;
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
    print(&if json { batch.to_string() } else { serde_json::to_string_pretty(&batch)? });
    let has_failed = batch["state"] == "failed";
    let failed = ["failed", "expired", "corrupt"].iter().any(|state| batch["by_state"][*state].as_u64() > Some(0));
    Ok(if failed || has_failed { FAILED } else { OK })
}

/// The first line of the request: the batch and its message type.
fn head(args: &Args, uuid: Uuid) -> anyhow::Result<String> {
    let name = args.kind.display();
    let kind = std::fs::read(&args.kind).map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
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

async fn wait_until_settled(client: &Client, uuid: Uuid, bar: &ProgressBar) -> anyhow::Result<Value> {
    loop {
        let batch: Value = client.get(&format!("/v1/batches/{uuid}")).await?;
        bar.set_message(batch["by_state"].to_string());
        if matches!(batch["state"].as_str(), Some("done" | "cancelled" | "failed")) {
            return Ok(batch);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
