//! `ace batch`: many recipients of one message type, to a running server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

use super::client::{Client, NDJSON, Server};
use super::{FAILED, OK, put, say};

pub const EXAMPLES: &str = "Examples:
  ace batch --type weekly.json --recipients users.ndjson
  ace batch --type weekly.json --recipients users.csv --wait
  ace batch --type weekly.json --resolver enrolled --arguments '{\"course\": \"demo\"}'

A line of NDJSON is {\"key\": …, \"recipient\": {…}, \"language\": …, \"user_context\": {…}}. A CSV file has a
header; its columns lms_user_id, email_address, language and key are what they are called, and
every other one goes into user_context.

A batch that was cut off is sent again with --uuid and the same files: each message comes about once.

Exit code 1 where a message, or the batch itself, failed (with --wait).";

/// Bytes of one line.
const LINE_MAX: usize = 1 << 20;
/// How often progress is asked for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Args {
    /// A file with the message type, in edx-ace's JSON form
    #[arg(long = "type", value_name = "FILE")]
    kind: PathBuf,

    /// The recipients: a file that ends in .ndjson or .csv
    #[arg(long, value_name = "FILE", required_unless_present = "resolver", conflicts_with = "resolver")]
    recipients: Option<PathBuf>,

    /// The plugin of the server that names the recipients
    #[arg(long, value_name = "PLUGIN")]
    resolver: Option<String>,

    /// What that plugin is told: a JSON object
    #[arg(long, value_name = "JSON", requires = "resolver")]
    arguments: Option<String>,

    /// The batch's uuid; a new one where it is left out
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
    say(&format!("batch {uuid}"));
    let kind = std::fs::read(&args.kind).map_err(|e| anyhow::anyhow!("{}: {e}", args.kind.display()))?;
    let kind: Value = serde_json::from_slice(&kind).map_err(|e| anyhow::anyhow!("{}: {e}", args.kind.display()))?;
    let mut head = json!({"uuid": uuid, "message_type": kind});
    if let Some(plugin) = &args.resolver {
        let arguments = args.arguments.as_deref().unwrap_or("{}");
        let arguments: Value = serde_json::from_str(arguments).map_err(|e| anyhow::anyhow!("--arguments: {e}"))?;
        head["resolver"] = json!({"plugin": plugin, "arguments": arguments});
    }
    let bar = bar();
    let body = match &args.recipients {
        None => Body::from(head.to_string()),
        Some(file) => streamed(head.to_string(), Recipients::open(file).await?, bar.clone()),
    };
    let request = client.request(Method::POST, "/v1/batches")?.header("content-type", NDJSON);
    let mut batch: Value = client.ask(request.body(body)).await?;
    if args.wait {
        batch = settled(&client, uuid, &bar).await?;
    }
    bar.finish_and_clear();
    put(&if json { batch.to_string() } else { serde_json::to_string_pretty(&batch)? });
    let has_failed = batch["state"] == "failed";
    let failed = ["failed", "expired", "corrupt"].iter().any(|state| batch["by_state"][*state].as_u64() > Some(0));
    Ok(if failed || has_failed { FAILED } else { OK })
}

fn streamed(head: String, lines: Recipients, bar: ProgressBar) -> Body {
    Body::wrap_stream(stream::try_unfold((Some(head), lines, bar), async |(head, mut lines, bar)| {
        if let Some(head) = head {
            return Ok(Some((format!("{head}\n"), (None, lines, bar))));
        }
        let chunk = lines.chunk().await?;
        bar.inc(chunk.1);
        Ok::<_, std::io::Error>((!chunk.0.is_empty()).then_some((chunk.0, (None, lines, bar))))
    }))
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} recipients, {per_sec}, {elapsed} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

async fn settled(client: &Client, uuid: Uuid, bar: &ProgressBar) -> anyhow::Result<Value> {
    loop {
        let batch: Value = client.get(&format!("/v1/batches/{uuid}")).await?;
        bar.set_message(batch["by_state"].to_string());
        if matches!(batch["state"].as_str(), Some("done" | "cancelled" | "failed")) {
            return Ok(batch);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lines of NDJSON, whatever the file holds.
struct Recipients {
    lines: tokio::io::Lines<BufReader<tokio::fs::File>>,
    /// Of a CSV file.
    columns: Option<Vec<String>>,
    number: u64,
}

impl Recipients {
    async fn open(file: &Path) -> anyhow::Result<Self> {
        let opened = tokio::fs::File::open(file).await.map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        let mut lines = BufReader::new(opened).lines();
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        let columns = match extension.to_str() {
            Some("csv") => {
                let header = lines.next_line().await?.unwrap_or_default();
                let columns = fields(header.trim_start_matches('\u{feff}'));
                if !columns.iter().any(|c| c == "lms_user_id") {
                    anyhow::bail!("{}:1: a CSV file needs a header with the column lms_user_id", file.display());
                }
                Some(columns)
            }
            Some("ndjson" | "jsonl") => None,
            _ => anyhow::bail!("{}: recipients are in a file that ends in .ndjson or .csv", file.display()),
        };
        Ok(Recipients { lines, columns, number: 1 })
    }

    /// Some lines, and how many they are; none at the end.
    async fn chunk(&mut self) -> std::io::Result<(String, u64)> {
        let (mut chunk, mut n) = (String::new(), 0);
        while chunk.len() < 64 * 1024 {
            let Some(line) = self.lines.next_line().await? else { break };
            self.number += 1;
            if line.len() > LINE_MAX {
                return Err(std::io::Error::other(format!("line {} is longer than {LINE_MAX} bytes", self.number)));
            }
            match &self.columns {
                _ if line.trim().is_empty() => continue,
                None => chunk.push_str(&line),
                Some(columns) => chunk.push_str(&member(columns, &fields(&line)).to_string()),
            }
            chunk.push('\n');
            n += 1;
        }
        Ok((chunk, n))
    }
}

/// A row of a CSV file as a line of NDJSON.
fn member(columns: &[String], row: &[String]) -> Value {
    let mut member = json!({"recipient": {"lms_user_id": null, "email_address": null}, "user_context": {}});
    for (column, value) in columns.iter().zip(row).filter(|(_, value)| !value.is_empty()) {
        match column.as_str() {
            "lms_user_id" => {
                member["recipient"]["lms_user_id"] = value.parse::<i64>().map_or_else(|_| json!(value), |id| json!(id));
            }
            "email_address" => member["recipient"]["email_address"] = json!(value),
            "language" | "key" => member[column] = json!(value),
            _ => member["user_context"][column] = json!(value),
        }
    }
    member
}

/// The fields of one line (RFC 4180, without line breaks within a field).
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_csv_is_a_recipient() {
        let columns = fields("lms_user_id,email_address,language,course,\"a, b\"");
        let row = fields("7,zoe@example.com,fr,\"He said \"\"hi\"\"\",");
        let expected = json!({"recipient": {"lms_user_id": 7, "email_address": "zoe@example.com"}, "language": "fr",
            "user_context": {"course": "He said \"hi\""}});
        assert_eq!(member(&columns, &row), expected);
        assert_eq!(columns[4], "a, b");
    }
}
