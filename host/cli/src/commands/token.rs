//! `ace token`.

use std::path::PathBuf;

use ace::config::Config;
use ace_server::tokens::{Scope, TokenFile};
use jiff::Timestamp;
use serde_json::json;

use super::tables::{Table, time};
use super::{OK, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace token create lms --scope send,read
  ace token list
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
        Command::Create { name, scope } => {
            let secret = tokens.create(&name, scope, Timestamp::now())?;
            inform(&format!(
                "a token for {name}; it is shown only once, because {} stores only its hash",
                file.display()
            ));
            print(&secret);
        }
        Command::List => {
            let mut table = Table::new(["name", "scopes", "created"]);
            for token in tokens.list()? {
                let scopes: Vec<String> =
                    token.scopes.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
                let line = json!({"name": token.name, "scopes": scopes, "created": token.created});
                if json {
                    print(&line.to_string());
                } else {
                    table.add_row([token.name, scopes.join(", "), time(&line["created"])]);
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

fn file(config: &Config) -> anyhow::Result<PathBuf> {
    config.fixed.server.tokens_file.clone().ok_or_else(|| {
        anyhow::anyhow!("ace.toml has no server.tokens-file\nhint: tokens-file = \"tokens.json\" under [server]")
    })
}
