//! `ace init`: a configuration and a first message, in a new folder.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use ace::config::Config;
use ace::internals::engine::texts;
use serde_json::json;

use super::scaffold::{self, NewFile};
use super::{OK, inform, print};

pub const EXAMPLES: &str = "Examples:
  ace init shop
  ace init shop --brand \"River Shop\" --from \"River Shop <no-reply@shop.example>\" --languages en,fr
  ace init shop --relay smtp.shop.example:587 --color \"#00693e\"

On a terminal it asks for what no option says. Files that exist are never overwritten.";

/// The message that is created.
const MESSAGE: &str = "welcome";
const GITIGNORE: &str =
    "# Mails of the relay that is a folder, and the databases of `ace serve`.\n/outbox/\n*.db\n*.db-*\n*.db.*\n";

#[derive(clap::Args)]
pub struct Args {
    /// The folder to create
    #[arg(default_value = ".")]
    folder: PathBuf,

    /// The sender's name, which mails show [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    brand: Option<String>,

    /// The sender of mails [default: the brand and no-reply@example.com]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,

    /// The mail server, or a folder that mails are written to [default: outbox]
    #[arg(long, value_name = "HOST:PORT|FOLDER")]
    relay: Option<String>,

    /// Language codes, separated by commas; the first is that of the templates [default: en]
    #[arg(long, value_name = "CODES")]
    languages: Option<String>,

    /// The color of buttons and links [default: #1f4fd8]
    #[arg(long, value_name = "#RRGGBB")]
    color: Option<String>,

    /// The address of a logo [default: none, the name is shown]
    #[arg(long, value_name = "URL")]
    logo: Option<String>,
}

/// What is asked for, the answer without one, and the lines of ace.toml that check an answer.
struct Question {
    asks: &'static str,
    default: String,
    toml: fn(&str) -> anyhow::Result<String>,
}

pub fn run(args: &Args, json: bool) -> anyhow::Result<u8> {
    let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let (text, languages) = configuration(args, asks)?;
    let mut files: Vec<NewFile> = vec![("ace.toml".into(), text), (".gitignore".into(), GITIGNORE.to_owned())];
    let message = scaffold::message(MESSAGE, &["email".to_owned()], &languages[0])?;
    files.extend(message.into_iter().map(|(path, text)| (Path::new("templates").join(path), text)));
    scaffold::write(&args.folder, &files)?;
    let catalogs = texts::extract(&args.folder.join("templates"), &languages[1..], true)?;
    let catalogs = catalogs.into_iter().map(|catalog| catalog.file);
    let written: Vec<PathBuf> = files.iter().map(|(path, _)| args.folder.join(path)).chain(catalogs).collect();
    for file in &written {
        print(&if json { json!({ "file": file }).to_string() } else { file.display().to_string() });
    }
    let enter = if args.folder == Path::new(".") { String::new() } else { format!("  cd {}\n", args.folder.display()) };
    inform(&format!("\nNext:\n{enter}  ace check\n  ace render --open\n  ace send --to you@example.com {MESSAGE}"));
    Ok(OK)
}

/// The text of ace.toml, and the languages.
fn configuration(args: &Args, asks: bool) -> anyhow::Result<(String, Vec<String>)> {
    let ask = |given: &Option<String>, asks_for, default: String, toml: fn(&str) -> anyhow::Result<String>| {
        answer(given.as_deref(), &Question { asks: asks_for, default, toml }, asks)
    };
    let folder = std::path::absolute(&args.folder)?;
    let name = folder.file_name().map_or_else(|| "Example".to_owned(), |name| name.to_string_lossy().into_owned());
    let brand = ask(&args.brand, "Name of the sender", name, |name| line("presentation.brand", "name", name))?;
    let is_plain = brand.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    let from = if is_plain { format!("{brand} <no-reply@example.com>") } else { "no-reply@example.com".to_owned() };
    let from = ask(&args.from, "Sender of mails", from, |from| line("mailer", "default-from", from))?;
    let to = ask(&args.relay, "Mail server (host:port), or a folder for mails", "outbox".to_owned(), relay)?;
    let languages = ask(&args.languages, "Languages", "en".to_owned(), |codes| {
        let mut codes = codes.split(',').map(|code| line("presentation", "default-language", code.trim()));
        codes.try_for_each(|code| check(&code?))?;
        Ok(String::new())
    })?;
    let color = ask(&args.color, "Color of buttons and links", "#1f4fd8".to_owned(), |color| {
        line("presentation.brand", "color", color)
    })?;
    let logo =
        ask(&args.logo, "Address of a logo", String::new(), |logo| line("presentation.brand", "logo-url", logo))?;
    let logo = if logo.is_empty() {
        "# logo-url = \"https://example.com/logo.png\"".to_owned()
    } else {
        format!("logo-url = {}", quoted(&logo))
    };
    let languages: Vec<String> = languages.split(',').map(|code| code.trim().to_owned()).collect();
    let text = include_str!("init/ace.toml")
        .replace("{language}", &quoted(&languages[0]))
        .replace("{relay}", relay(&to)?.trim_end())
        .replace("{color}", &quoted(&color))
        .replace("{logo}", &logo)
        .replace("{from}", &quoted(&from))
        .replace("{brand}", &quoted(&brand));
    Ok((text, languages))
}

/// The given answer, or that of the terminal, or the default. A wrong answer of the terminal is asked for again.
fn answer(given: Option<&str>, question: &Question, asks: bool) -> anyhow::Result<String> {
    let is_valid = |answer: &str| if answer.is_empty() { Ok(()) } else { check(&(question.toml)(answer)?) };
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        is_valid(given).map_err(|why| anyhow::anyhow!("{}: {why}", question.asks))?;
        return Ok(given.to_owned());
    }
    while asks {
        let hint = if question.default.is_empty() { "none" } else { &question.default };
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{} [{hint}]: ", question.asks)?;
        stderr.flush()?;
        drop(stderr);
        let mut typed = String::new();
        if std::io::stdin().lock().read_line(&mut typed)? == 0 {
            anyhow::bail!("nothing was written");
        }
        let typed = typed.trim();
        match is_valid(typed) {
            Ok(()) if typed.is_empty() => break,
            Ok(()) => return Ok(typed.to_owned()),
            Err(why) => inform(&why.to_string()),
        }
    }
    Ok(question.default.clone())
}

/// Checks lines of ace.toml.
fn check(toml: &str) -> anyhow::Result<()> {
    match Config::read(toml, None, []) {
        Ok(_) => Ok(()),
        Err(problems) => Err(anyhow::anyhow!("{}", problems.0.first().map_or("", |problem| &problem.message))),
    }
}

/// One key of a table of ace.toml.
fn line(table: &str, key: &str, value: &str) -> anyhow::Result<String> {
    Ok(format!("[{table}]\n{key} = {}\n", quoted(value)))
}

/// The table of a relay.
fn relay(answer: &str) -> anyhow::Result<String> {
    let Some((host, port)) = answer.rsplit_once(':').filter(|(host, _)| !host.contains('/')) else {
        if answer.contains('.') && !answer.contains('/') {
            anyhow::bail!("{answer:?} has no port: write {answer}:587 for a mail server, or ./{answer} for a folder");
        }
        return Ok(format!("[relays.main]\nkind = \"file\"\ndir = {}\n", quoted(answer)));
    };
    let port: u16 = port.parse().map_err(|_| anyhow::anyhow!("{port:?} is not a port"))?;
    let tls = match port {
        25 => "none",
        465 => "implicit",
        _ => "starttls",
    };
    Ok(format!(
        "[relays.main]\nkind = \"smtp\"\nhost = {}\nport = {port}\ntls = \"{tls}\"\n\
         # username = \"ace\"\n# password = {{ env = \"SMTP_PASSWORD\" }}\n",
        quoted(host)
    ))
}

/// A string of TOML, which is written like one of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
