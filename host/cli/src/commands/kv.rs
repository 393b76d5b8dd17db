//! `ace kv`: the key-value entries of a running server.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, NDJSON, Server, path};
use super::tables::{Table, text};
use super::{OK, print, print_raw};

pub const EXAMPLES: &str = "Examples:
  ace kv list course-optouts
  ace kv set course-optouts 17 '[\"course-v1:OFC+ADS+2026\"]'
  ace kv get course-optouts 17
  ace kv export course-optouts > course-optouts.ndjson
  ace kv import course-optouts.ndjson

A line of NDJSON is {\"bucket\": …, \"key\": …, \"value\": …, \"ttl_ms\": …}; without a value, the key is deleted. An export has no
times of expiry: what is imported from it is kept until it is deleted.";

/// Bytes of a piece of a file.
const PIECE: u64 = 64 * 1024;
/// The number of listed entries without `--limit`.
const LISTED: u64 = 50;
/// The characters of a value in a list.
const SHOWN_MAX: usize = 200;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    server: Server,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the entries of a bucket, by key
    List {
        bucket: String,
        /// List at most this many
        #[arg(long, value_name = "N", default_value_t = LISTED)]
        limit: u64,
    },
    /// Print the value of a key
    Get { bucket: String, key: String },
    /// Set the value of a key
    Set {
        bucket: String,
        key: String,
        value: String,
        /// Expire it after this many seconds
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
    /// Delete a key
    Delete { bucket: String, key: String },
    /// Set and delete the entries of an NDJSON file
    // `load` was its name before 0.1.0.
    #[command(alias = "load")]
    Import { file: PathBuf },
    /// Print all entries of a bucket, as NDJSON for `ace kv import`
    Export { bucket: String },
}

/// Reads and writes key-value entries of a running server.
pub async fn run(args: Args, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let path = |bucket: &str, key: &str| path("/v1/keyvalue", [bucket, key]);
    match args.command {
        Command::List { bucket, limit } => list(&client, &bucket, limit, json).await?,
        Command::Get { bucket, key } => {
            let response = client.send(client.request(Method::GET, &path(&bucket, &key))?).await?;
            let value = response.text().await?;
            if std::io::stdout().is_terminal() { print(&value) } else { print_raw(&value) }
        }
        Command::Set { bucket, key, value, ttl } => {
            let mut request = client.request(Method::PUT, &path(&bucket, &key))?;
            request = request.header("content-type", "application/octet-stream").body(value);
            if let Some(seconds) = ttl {
                request = request.query(&[("ttl_ms", seconds.saturating_mul(1000))]);
            }
            client.send(request).await?;
        }
        Command::Delete { bucket, key } => {
            client.send(client.request(Method::DELETE, &path(&bucket, &key))?).await?;
        }
        Command::Import { file } => {
            let opened = tokio::fs::File::open(&file).await;
            let opened = opened.map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?.into_std().await;
            let request = client.request(Method::POST, "/v1/keyvalue")?;
            let applied: Value = client.upload(request.header("content-type", NDJSON), pieces(file, opened)).await?;
            let applied = applied["applied"].as_u64().unwrap_or_default();
            print(&if applied == 1 { "1 entry".to_owned() } else { format!("{applied} entries") });
        }
        Command::Export { bucket } => {
            each_page(&client, &bucket, u64::MAX, |page| page.iter().try_for_each(|one| export(&bucket, one))).await?
        }
    }
    Ok(OK)
}

/// Prints an entry as a line of an import.
fn export(bucket: &str, entry: &Value) -> anyhow::Result<()> {
    let Some(value) = entry["value"].as_str() else {
        anyhow::bail!("the value of {} is not text, and cannot be exported", text(&entry["key"]))
    };
    print_raw(&json!({"bucket": bucket, "key": entry["key"], "value": value}).to_string());
    Ok(())
}

async fn list(client: &Client, bucket: &str, limit: u64, json: bool) -> anyhow::Result<()> {
    let mut table = Table::new(["key", "value"]);
    let show = |page: &[Value]| {
        for one in page {
            if json {
                print(&one.to_string());
                continue;
            }
            let value = one["value"].as_str().map_or_else(|| format!("{} bytes", one["bytes"]), str::to_owned);
            let shown: String = value.chars().take(SHOWN_MAX).collect();
            let rest = if shown.len() < value.len() { "…" } else { "" };
            table.add_row([text(&one["key"]), shown + rest]);
        }
        Ok(())
    };
    each_page(client, bucket, limit, show).await?;
    if !json {
        table.print();
    }
    Ok(())
}

/// Passes the first `limit` entries of a bucket to `take`, page by page.
async fn each_page(
    client: &Client,
    bucket: &str,
    limit: u64,
    take: impl FnMut(&[Value]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = path("/v1/keyvalue", [bucket]);
    client.each_page(|| client.request(Method::GET, &path), "entries", limit, take).await
}

/// The pieces of a file. An error names the file, and is the last item.
fn pieces(name: PathBuf, mut file: std::fs::File) -> impl Iterator<Item = anyhow::Result<Vec<u8>>> + Send {
    let mut is_over = false;
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let read = file.by_ref().take(PIECE).read_to_end(&mut piece);
        let was_over = std::mem::replace(&mut is_over, read.as_ref().map_or(true, |n| *n == 0));
        let piece = read.map(|_| piece).map_err(|e| anyhow::anyhow!("{}: {e}", name.display()));
        Some(piece).filter(|piece| !was_over && !matches!(piece, Ok(piece) if piece.is_empty()))
    })
}
