//! `ace suppressions`: the addresses to which a running server sends nothing.

mod file;

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{self, Client, NDJSON, Server};
use super::tables::{Table, text, time};
use super::{OK, counted, print, print_raw};
use file::COLUMNS;

pub const EXAMPLES: &str = "Examples:
  ace suppressions list
  ace suppressions add zoe@learner.example --reason unsubscribe
  ace suppressions get '+49 30 123456'
  ace suppressions import old-provider.csv
  ace suppressions export --csv > suppressed.csv

An address other than an e-mail address or a phone number with + has its kind before it: push-token:…

A CSV file has a header with the column address; kind, reason, scope, source, time and detail are optional. A line
of NDJSON is an object with these keys. The server applies the lines before the first invalid one.";

/// The number of listed addresses without `--limit`.
const LISTED: u64 = 50;
/// The path of all of them.
const ALL: &str = "/v1/suppressions";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    server: Server,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List suppressed addresses
    List {
        /// List at most this many
        #[arg(long, value_name = "N", default_value_t = LISTED)]
        limit: u64,
    },
    /// Show why an address is suppressed; the exit code is 2 if it is not
    Get { address: String },
    /// Suppress an address
    Add {
        address: String,
        /// hard-bounce, complaint, unsubscribe or manual
        #[arg(long, default_value = "manual")]
        reason: String,
        /// all, or bulk for messages that are not transactional
        /// [default: bulk for complaint and unsubscribe, otherwise all]
        #[arg(long)]
        scope: Option<String>,
        /// A note for operators
        #[arg(long, value_name = "TEXT")]
        detail: Option<String>,
    },
    /// Send to an address again
    Remove { address: String },
    /// Suppress the addresses of a file with the extension .csv, .ndjson or .jsonl
    Import { file: PathBuf },
    /// Print all suppressed addresses, as NDJSON
    Export {
        /// Print CSV
        #[arg(long)]
        csv: bool,
    },
}

/// Reads and writes the suppressed addresses of a running server.
pub async fn run(args: Args, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let path = |address: &str| client::path(ALL, [address]);
    match args.command {
        Command::List { limit } => {
            let mut listed = Vec::new();
            let take = |page: &[Value]| {
                listed.extend_from_slice(page);
                Ok(())
            };
            each_page(&client, limit, take).await?;
            if json { listed.iter().for_each(|one| print(&one.to_string())) } else { show(&listed) }
        }
        Command::Get { address } => {
            let found: Value = client.get(&path(&address)).await?;
            if json { print(&found.to_string()) } else { show(&[found]) }
        }
        Command::Add { address, reason, scope, detail } => {
            let mut body = json!({ "reason": reason });
            for (key, value) in [("scope", scope), ("detail", detail)] {
                if let Some(value) = value {
                    body[key] = value.into();
                }
            }
            let added: Value = client.fetch(client.request(Method::PUT, &path(&address))?.json(&body)).await?;
            if json { print(&added.to_string()) } else { show(&[added]) }
        }
        Command::Remove { address } => {
            client.send(client.request(Method::DELETE, &path(&address))?).await?;
        }
        Command::Import { file } => {
            let lines = file::lines(&file)?;
            let request = client.request(Method::POST, ALL)?.header("content-type", NDJSON);
            let applied: Value = client.upload(request, lines).await?;
            print(&counted(applied["applied"].as_u64().unwrap_or_default(), "line"));
        }
        Command::Export { csv } => export(&client, csv).await?,
    }
    Ok(OK)
}

async fn export(client: &Client, csv: bool) -> anyhow::Result<()> {
    if csv {
        print_raw(&file::csv_line(COLUMNS)?);
    }
    let show = |page: &[Value]| {
        for one in page {
            if csv {
                print_raw(&file::csv_line(COLUMNS.map(|key| one[key].as_str().unwrap_or_default()))?);
            } else {
                print_raw(&one.to_string());
            }
        }
        Ok(())
    };
    each_page(client, u64::MAX, show).await
}

/// Passes the first `limit` addresses to `take`, page by page.
async fn each_page(
    client: &Client,
    limit: u64,
    take: impl FnMut(&[Value]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    client.each_page(|| client.request(Method::GET, ALL), "suppressions", limit, take).await
}

fn show(suppressions: &[Value]) {
    let mut table = Table::new(["kind", "address", "reason", "scope", "since", "source", "detail"]);
    for one in suppressions {
        let [kind, address, reason, scope, source, detail] =
            ["kind", "address", "reason", "scope", "source", "detail"].map(|key| text(&one[key]));
        table.add_row([kind, address, reason, scope, time(&one["time"]), source, detail]);
    }
    table.print();
}
