//! `ace feedback import`: hands a mail that came back to a plugin of a running server. A mail server runs it for each mail to the
//! addresses for bounces and complaints, so its exit code is one that mail servers understand.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};

use super::client::{self, Server};
use super::{OK, print};

pub const EXAMPLES: &str = "Examples:
  ace feedback import bounce.eml
  ace feedback import --server http://127.0.0.1:8025 --secret-file /etc/ace/reports.secret - < bounce.eml

With - the exit code is 0 or 75 (EX_TEMPFAIL): a mail server keeps a mail with 75, and tries again. It is 0 for a mail that is
not a report, so that nobody gets an answer to it.";

/// How much of a mail is sent. The report comes first; what follows is the mail that came back.
const MAIL_BYTES_MAX: u64 = 512 * 1024;
/// Mail servers end a command that takes longer than a few minutes.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Hand over one mail: a delivery report or a complaint
    Import(ImportArgs),
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The mail, or - for standard input
    file: PathBuf,

    /// The plugin that reads it
    #[arg(long, value_name = "NAME", default_value = "mail_reports")]
    plugin: String,

    /// A file with the secret at the end of the plugin's path; without it, the variable ACE_FEEDBACK_SECRET is used
    #[arg(long, env = "ACE_FEEDBACK_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,

    #[command(flatten)]
    server: Server,
}

/// Hands mails to a running server.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    let Command::Import(args) = args.command;
    print(import(args).await?.trim_end());
    Ok(OK)
}

/// Sends a mail, and returns what the plugin says of it.
async fn import(args: ImportArgs) -> anyhow::Result<String> {
    let file = args.file;
    let mail = tokio::task::spawn_blocking(move || read(&file)).await??;
    let client = args.server.without_token()?;
    let secret = client::secret("--secret-file", args.secret_file.as_deref(), "ACE_FEEDBACK_SECRET")?
        .ok_or_else(|| anyhow::anyhow!("no secret given\nhint: use --secret-file FILE, or set ACE_FEEDBACK_SECRET"))?;
    let path = client::path("/v1/feedback", [args.plugin.as_str(), secret.as_str()]);
    let request = client.request(Method::POST, &path)?.header("content-type", "message/rfc822");
    let response = client.send_unchecked(request.body(mail).timeout(TIMEOUT)).await?;
    match response.status() {
        // The same mail will never be read.
        StatusCode::BAD_REQUEST if is_problem(&response) => {
            Ok(format!("The plugin {} cannot read this mail.", args.plugin))
        }
        StatusCode::PAYLOAD_TOO_LARGE => anyhow::bail!(
            "the server refuses a mail of this length\nhint: `feedback.max-body`, and the limit of a proxy, must be at least 512 KiB"
        ),
        StatusCode::NOT_FOUND => anyhow::bail!(
            "no plugin {:?} of the server reads feedback\nhint: `ace plugins` shows what it is granted",
            args.plugin
        ),
        StatusCode::UNAUTHORIZED => {
            anyhow::bail!("the plugin {:?} refused the secret\nhint: it must be the plugin's own", args.plugin)
        }
        // The URL contains the secret.
        _ => Ok(client.check(response).await?.text().await.map_err(reqwest::Error::without_url)?),
    }
}

/// Whether a response is a problem of the server. A proxy answers with other content types.
fn is_problem(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"))
}

/// The start of a mail. The rest is read too, because mail servers take it for an error if nobody does.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = |error: io::Error| anyhow::anyhow!("{}: {error}", file.display());
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let mut mail = Vec::new();
    source.by_ref().take(MAIL_BYTES_MAX).read_to_end(&mut mail).map_err(failed)?;
    io::copy(&mut source, &mut io::sink()).map_err(failed)?;
    Ok(mail)
}
