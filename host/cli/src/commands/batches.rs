//! `ace batches`: lists the batches of a running server; pauses, resumes or cancels one.

use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use super::client::Server;
use super::tables::{Table, text, time};
use super::{OK, print};

pub const EXAMPLES: &str = "Examples:
  ace batches
  ace batches 7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01 --pause";

#[derive(clap::Args)]
pub struct Args {
    /// Show this batch
    uuid: Option<Uuid>,

    /// Pause the batch; messages in flight are finished
    #[arg(long, requires = "uuid", conflicts_with_all = ["resume", "cancel"])]
    pause: bool,

    /// Resume a paused batch
    #[arg(long, requires = "uuid", conflicts_with = "cancel")]
    resume: bool,

    /// Cancel all of its messages that were not sent
    #[arg(long, requires = "uuid")]
    cancel: bool,

    /// List at most this many of the latest batches (default: 100, at most 500)
    #[arg(long, value_name = "N", conflicts_with = "uuid")]
    limit: Option<u64>,

    #[command(flatten)]
    server: Server,
}

/// Lists the latest batches, shows one, or changes its state.
pub async fn run(args: Args, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let change = [(args.pause, "pause"), (args.resume, "resume"), (args.cancel, "cancel")];
    let change = change.into_iter().find_map(|(is, name)| is.then_some(name));
    let batches: Vec<Value> = match (args.uuid, change) {
        (None, _) => {
            let limit = args.limit.map(|limit| ("limit", limit));
            client.fetch(client.request(Method::GET, "/v1/batches")?.query(limit.as_slice())).await?
        }
        (Some(uuid), None) => vec![client.get(&format!("/v1/batches/{uuid}")).await?],
        (Some(uuid), Some(change)) => {
            // Without a timeout, because cancelling a large batch may take long.
            vec![client.fetch(client.request(Method::POST, &format!("/v1/batches/{uuid}/{change}"))?).await?]
        }
    };
    if json {
        batches.iter().for_each(|batch| print(&batch.to_string()))
    } else {
        show(&batches)
    }
    Ok(OK)
}

/// Prints a table of batches.
pub fn show(batches: &[Value]) {
    let mut table = Table::new(["batch", "state", "messages", "by state", "created"]);
    for batch in batches {
        let [uuid, state, messages] = ["uuid", "state", "messages"].map(|key| text(&batch[key]));
        table.add_row([uuid, state, messages, by_state(batch), time(&batch["created"])]);
    }
    table.print();
}

/// `3 failed, 120 sent`.
pub fn by_state(batch: &Value) -> String {
    let by_state = batch["by_state"].as_object().into_iter().flatten();
    let by_state: Vec<String> = by_state.map(|(state, n)| format!("{n} {}", state.replace('_', " "))).collect();
    by_state.join(", ")
}
