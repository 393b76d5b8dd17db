//! `ace plugin new` and `ace plugin build`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::{bytes, duration};
use crate::commands::default_config;
use crate::commands::{FAILED, OK, inform, print};
use crate::kit;
use crate::kit::build::Project;
use crate::kit::project;

pub const EXAMPLES: &str = "Examples:
  ace plugin new quiet_hours --kind policy --lang rust
  ace plugin new slack --kind channel --lang python --dir ~/plugins/slack";

pub const BUILD_EXAMPLES: &str = "Examples:
  ace plugin build quiet_hours
  ace plugin build --install

Writes NAME.wasm beside NAME.toml. With --install, missing tools are installed into the project's folder with npm and pip, and
the Rust target with rustup.";

#[derive(clap::Args)]
pub struct Args {
    /// The name of the component, its crate and its module: lower-case letters, digits and "_"
    name: String,

    /// What the plugin is
    #[arg(long, value_enum)]
    kind: Kind,

    /// The language of the project
    #[arg(long, value_enum)]
    lang: Lang,

    /// The folder of the project (default: a new folder with the plugin's name)
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Policy,
    Channel,
    Resolver,
    Feedback,
}

#[derive(Clone, Copy, ValueEnum)]
enum Lang {
    Rust,
    Js,
    Ts,
    Python,
    C,
    Go,
}

#[derive(clap::Args)]
pub struct BuildArgs {
    /// The project's folder
    #[arg(default_value = ".")]
    dir: PathBuf,

    /// Install missing tools
    #[arg(long)]
    install: bool,
}

pub fn run(args: &Args, json: bool) -> anyhow::Result<u8> {
    let kind = match args.kind {
        Kind::Policy => project::Kind::Policy,
        Kind::Channel => project::Kind::Channel,
        Kind::Resolver => project::Kind::Resolver,
        Kind::Feedback => project::Kind::Feedback,
    };
    let language = match args.lang {
        Lang::Rust => project::Language::Rust,
        Lang::Js => project::Language::JavaScript,
        Lang::Ts => project::Language::TypeScript,
        Lang::Python => project::Language::Python,
        Lang::C => project::Language::C,
        Lang::Go => project::Language::Go,
    };
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = project::create(&folder, &args.name, kind, language)?;
    if json {
        files.iter().for_each(|file| print(&json!({"file": folder.join(file)}).to_string()))
    } else {
        let own = files.iter().filter(|file| !["wit", "vendor", "gen"].iter().any(|other| file.starts_with(other)));
        own.for_each(|file| print(&folder.join(file).display().to_string()));
    }
    inform(&format!("next: ace plugin build {0} && ace plugin test {0}", folder.display()));
    Ok(OK)
}

pub async fn build(args: &BuildArgs, json: bool) -> anyhow::Result<u8> {
    let project = Project::detect(&args.dir)?;
    let built = project.build(args.install).await?;
    let found = kit::inspect(&default_config(), &built.file).await?;
    let file = relative(&built.file);
    if json {
        print(
            &json!({"file": built.file, "language": project.language.name(), "revision": found.plugin.revision,
            "size": found.plugin.size, "took_ms": built.took.as_millis() as u64, "compatible": found.mismatch.is_none()})
            .to_string(),
        )
    } else {
        print(&format!("{file}  {}  in {}", bytes(found.plugin.size), duration(built.took)))
    }
    if let Some(why) = found.mismatch {
        inform(&format!("{file}: this host cannot run it: {why}"));
        return Ok(FAILED);
    }
    Ok(OK)
}

/// A path relative to the working directory, if it is below it.
fn relative(file: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    file.strip_prefix(here).unwrap_or(file).display().to_string()
}
