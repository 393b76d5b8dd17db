//! Commands for a running server: `ace reload`, `messages`, `queue`, `erase`.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::Value;

use super::client::{Client, Server};
use super::tables::{Table, text, time};
use super::{OK, counted, print, timeline};

/// The number of listed messages without `--limit`.
const LISTED: u64 = 50;

#[derive(clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    server: Server,
}

/// Reloads plugins, templates and ace.toml.
pub async fn reload(args: ReloadArgs, json: bool) -> anyhow::Result<u8> {
    let reload: Value = args.server.required()?.post("/v1/reload").await?;
    if json {
        print(&reload.to_string());
        return Ok(OK);
    }
    let changes = reload["changes"].as_array().cloned().unwrap_or_default();
    if changes.is_empty() {
        print("nothing changed");
    }
    for change in changes {
        let detail =
            ["reason", "to", "revision", "active_revision"].iter().filter_map(|key| change[*key].as_str()).next();
        print(&format!("{} {}  {}", text(&change["plugin"]), text(&change["change"]), detail.unwrap_or_default()));
    }
    Ok(OK)
}

pub const MESSAGES_EXAMPLES: &str = "Examples:
  ace messages --email zoe@learner.example
  ace messages --state dead --since 2026-11-30T00:00:00Z
  ace messages 7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01
  ace messages --state failed --name ace_demo.weeklynews --retry";

#[derive(clap::Args)]
pub struct MessagesArgs {
    /// Show this message and its timeline
    #[arg(conflicts_with_all = ["state", "name", "user", "email", "since", "until", "limit"])]
    uuid: Option<uuid::Uuid>,

    /// queued, sent, maybe_sent, not_sent, failed, expired, corrupt, cancelled, discarded, or dead (failed, expired or corrupt)
    #[arg(long)]
    state: Option<String>,

    /// app_label.name
    #[arg(long)]
    name: Option<String>,

    /// The recipient's lms_user_id
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// The recipient's address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,

    /// Accepted at this time or later (ISO 8601)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Accepted before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,

    /// The maximum number of messages, latest first (default: 50 when listing, all when changing; 0: none)
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Retry the message, or the failed messages that match the filters
    #[arg(long, conflicts_with_all = ["cancel", "discard"])]
    retry: bool,

    /// Cancel the queued message
    #[arg(long, requires = "uuid", conflicts_with = "discard")]
    cancel: bool,

    /// Discard the message, or the failed messages that match the filters
    #[arg(long)]
    discard: bool,

    #[command(flatten)]
    server: Server,
}

/// Lists messages, shows one, or retries, cancels or discards them.
pub async fn messages(args: MessagesArgs, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let change = [(args.retry, "retry"), (args.cancel, "cancel"), (args.discard, "discard")];
    let change = change.into_iter().find_map(|(is, name)| is.then_some(name));
    match (args.uuid, change) {
        (Some(uuid), Some(change)) => {
            let path = format!("/v1/messages/{uuid}/{change}");
            client.send(client.request(Method::POST, &path)?).await?;
        }
        (Some(uuid), None) => {
            let message: Value = client.get(&format!("/v1/messages/{uuid}")).await?;
            print(&if json { message.to_string() } else { timeline::lines(&message).join("\n") });
        }
        (None, Some(change)) => {
            let path = format!("/v1/dead-letters/{change}");
            let mut request = client.request(Method::POST, &path)?.query(&args.filter());
            if let Some(limit) = args.limit {
                request = request.query(&[("limit", limit)]);
            }
            let changed: Value = client.fetch(request).await?;
            if json {
                print(&changed.to_string())
            } else {
                print(&counted(changed["changed"].as_u64().unwrap_or_default(), "message"))
            }
        }
        (None, None) => list(&client, &args, json).await?,
    }
    Ok(OK)
}

impl MessagesArgs {
    fn filter(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("state", &self.state),
            ("name", &self.name),
            ("user", &self.user),
            ("email", &self.email),
            ("since", &self.since),
            ("until", &self.until),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

async fn list(client: &Client, args: &MessagesArgs, json: bool) -> anyhow::Result<()> {
    let mut table = Table::new(["uuid", "message", "state", "reason", "accepted", "user"]);
    let request = || Ok(client.request(Method::GET, "/v1/messages")?.query(&args.filter()));
    let show = |messages: &[Value]| {
        for message in messages {
            if json {
                print(&message.to_string());
                continue;
            }
            let [uuid, name, state, reason] = ["uuid", "name", "state", "reason"].map(|key| text(&message[key]));
            let user = text(&message["recipient"]["lms_user_id"]);
            table.add_row([uuid, name, state, reason, time(&message["accepted"]), user]);
        }
        Ok(())
    };
    client.each_page(request, "messages", args.limit.unwrap_or(LISTED), show).await?;
    if !json {
        table.print();
    }
    Ok(())
}

#[derive(clap::Args)]
pub struct QueueArgs {
    #[command(flatten)]
    server: Server,
}

/// Shows depth, age and throughput of the queue.
pub async fn queue(args: QueueArgs, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let stats: Value = client.get("/v1/queue").await?;
    let batches: Vec<Value> = client.get("/v1/batches").await?;
    if json {
        print(&serde_json::json!({"queue": stats, "batches": batches}).to_string());
        return Ok(OK);
    }
    let mut table = Table::new(["", ""]);
    for (key, value) in
        stats.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "rates" | "destinations"))
    {
        let age = if key == "oldest" { age(value) } else { String::new() };
        let value = if key == "oldest" { time(value) } else { text(value) };
        table.add_row([key.replace('_', " "), value + &age]);
    }
    for key in ["accepted", "settled", "failed"] {
        let rate = |span: &str| stats["rates"][span][key].as_f64().unwrap_or_default();
        let (minute, five) = (rate("minute"), rate("five_minutes"));
        let rates = format!("{minute:.1} in the last minute, {five:.1} in the last five minutes");
        table.add_row([format!("{key} per second"), rates]);
    }
    table.print();
    if let Some(destinations) = stats["destinations"].as_array().filter(|all| !all.is_empty()) {
        show_destinations(destinations);
    }
    if !batches.is_empty() {
        print("");
        super::batches::show(&batches);
    }
    Ok(OK)
}

/// Relays, origins and channels that are down or recovering.
fn show_destinations(destinations: &[Value]) {
    let mut table = Table::new(["destination", "state", "waiting", "reason", "since", "next attempt"]);
    for one in destinations {
        let name = format!("{} {}", text(&one["kind"]), text(&one["name"]));
        let since = time(&one["since"]) + &age(&one["since"]);
        let [state, waiting, reason] = ["state", "waiting", "reason"].map(|key| text(&one[key]));
        table.add_row([name, state, waiting, reason, since, time(&one["next_attempt"])]);
    }
    print("");
    table.print();
}

#[derive(clap::Args)]
pub struct EraseArgs {
    /// The person's lms_user_id
    #[arg(long, value_name = "ID", required_unless_present = "email")]
    user: Option<String>,

    /// The person's address, in upper or lower case
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,

    #[command(flatten)]
    server: Server,
}

/// Erases all data about messages to a person.
pub async fn erase(args: EraseArgs, json: bool) -> anyhow::Result<u8> {
    let client = args.server.required()?;
    let people = [("user", &args.user), ("email", &args.email)];
    let people: Vec<_> = people.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
    let erased: Value = client.fetch(client.request(Method::POST, "/v1/erase")?.query(&people)).await?;
    if json {
        print(&erased.to_string());
    } else {
        let n = |key: &str| erased[key].as_u64().unwrap_or_default();
        print(&format!("{} waiting, {} in flight, {} settled", n("waiting"), n("in_flight"), n("settled")));
        if n("damaged") > 0 {
            print(&format!(
                "{} could not be erased because their rows are damaged; see the server's log",
                n("damaged")
            ));
        }
    }
    Ok(OK)
}

/// How long ago a time was, such as " (2h ago)".
fn age(value: &Value) -> String {
    let Some(at) = value.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else { return String::new() };
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0);
    format!(" ({:#} ago)", SignedDuration::from_secs(seconds))
}
