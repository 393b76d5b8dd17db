//! `ace token`.

use std::path::PathBuf;

use ace::config::Config;
use ace_server::tokens::{Scope, TokenFile};
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::json;

use super::tables::Table;
use super::{OK, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace token create lms --scope send,read
  ace token create lms --scope send --expires 90d
  ace token list
  ace token rotate lms --overlap 1h
  ace token revoke lms";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Create a token and print it; it is shown only once
    Create {
        /// The name of its owner
        name: String,
        /// A scope: send, read or admin; may be repeated, or separated by commas
        #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPE")]
        scope: Vec<Scope>,
        /// When it stops being valid: a time (ISO 8601), or how long it is valid, as in 90d
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires: Option<Timestamp>,
    },
    /// Replace the secret of a token and print the new one; the old one stays valid for a while
    Rotate {
        /// The name of the token
        name: String,
        /// How long the old secret stays valid, as in 2h or 30m. An older one ends at once
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = moment)]
        overlap: Timestamp,
        /// When the token stops being valid (default: as before)
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires: Option<Timestamp>,
    },
    /// List the tokens
    List,
    /// Revoke a token; a running server notices within seconds
    Revoke {
        /// The name of the token
        name: String,
    },
}

pub fn run(config: &Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let file = file(config)?;
    let tokens = TokenFile::new(&file);
    match args.command {
        Command::Create { name, scope, expires } => {
            let secret = tokens.create(&name, scope, expires, Timestamp::now())?;
            inform(&format!(
                "a token for {name}; it is shown only once, because {} stores only its hash",
                file.display()
            ));
            print(&secret);
        }
        Command::Rotate { name, overlap, expires } => {
            let secret = tokens.rotate(&name, overlap, expires)?;
            inform(&format!(
                "a new secret for {name}, shown only once; the old one is valid until {}",
                second(overlap)
            ));
            print(&secret);
        }
        Command::List => {
            let uses = tokens.last_uses();
            let mut table = Table::new(["name", "scopes", "last used", "expires", "created"]);
            for token in tokens.list()? {
                let scopes: Vec<String> =
                    token.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
                let used = uses.get(&token.name).filter(|at| **at >= second(token.created));
                let old_until = token.previous.as_ref().map(|previous| previous.expires);
                if json {
                    let (name, created, expires) = (&token.name, token.created, token.expires);
                    let line = json!({"name": name, "scopes": scopes, "created": created, "expires": expires,
                        "last_used": used, "old_secret_until": old_until});
                    print(&line.to_string());
                } else {
                    let [used, expires, created] = [used.copied(), token.expires, Some(token.created)].map(shown);
                    table.add_row([token.name, scopes.join(", "), used, expires, created]);
                }
            }
            if !json {
                table.print();
            }
        }
        Command::Revoke { name } => tokens.revoke(&name)?,
    }
    Ok(OK)
}

/// A time, or how long it is until then.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let failed =
        |_| format!("{text:?} is neither a time, as in 2027-01-01T00:00:00Z, nor a duration, as in 90d or 12h");
    let span: Span = text.parse().map_err(failed)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(failed)?;
    Timestamp::now().checked_add(duration).map_err(failed)
}

fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn shown(at: Option<Timestamp>) -> String {
    at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

fn file(config: &Config) -> anyhow::Result<PathBuf> {
    config.fixed.server.tokens_file.clone().ok_or_else(|| {
        anyhow::anyhow!("ace.toml has no server.tokens-file\nhint: tokens-file = \"tokens.json\" under [server]")
    })
}
