//! `ace plugin`: tools for plugin authors.

mod bench;
mod check;
mod dev;
mod list;
mod new;
mod run;
mod ship;
mod test;

use std::path::Path;

use clap::Subcommand;

use ace::config::Config;

pub const EXAMPLES: &str = "Examples:
  ace plugin new quiet_hours --kind policy --lang python
  ace plugin build quiet_hours
  ace plugin dev quiet_hours
  ace plugin check quiet_hours.wasm
  ace plugin run quiet_hours.wasm message.json
  ace plugin test .
  ace plugin bench quiet_hours.wasm message.json

If there is an ace.toml, `check`, `run` and `bench` use its limits and its settings for the plugin. Without one, the defaults
apply and a plugin is granted what its manifest requests.";

#[derive(Subcommand)]
pub enum Command {
    /// Create a project that builds and passes its tests
    #[command(after_long_help = new::EXAMPLES)]
    New(new::Args),
    /// Build a plugin's component
    #[command(after_long_help = new::BUILD_EXAMPLES)]
    Build(new::BuildArgs),
    /// Check whether this host can run a component, and show what it needs, without running it
    #[command(after_long_help = check::EXAMPLES)]
    Check(check::Args),
    /// Print everything about a component and its manifest as JSON, without running it
    Inspect(check::Args),
    /// Call a plugin once, and show its answer, its logs and its resource usage
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::Args),
    /// Build, run and install a plugin each time its sources change
    #[command(after_long_help = dev::EXAMPLES)]
    Dev(dev::Args),
    /// Run the test cases of a plugin
    #[command(after_long_help = test::EXAMPLES)]
    Test(test::Args),
    /// Measure the cost of calling a plugin
    #[command(after_long_help = bench::EXAMPLES)]
    Bench(bench::Args),
    /// List the plugins that are part of this program
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Install a plugin into the plugin folder of ace.toml, and show what it requests
    #[command(after_long_help = ship::INSTALL_EXAMPLES)]
    Install(ship::InstallArgs),
    /// Remove a plugin from the plugin folder of ace.toml
    Remove(ship::RemoveArgs),
    /// Sign a component and its manifest, in minisign's format
    Sign(ship::SignArgs),
    /// Show which trusted key signed a component and its manifest
    Verify(ship::VerifyArgs),
    /// Create a key pair for signing
    Key(ship::KeyArgs),
}

pub async fn run(config_file: &Path, command: Command, json: bool) -> anyhow::Result<u8> {
    match command {
        Command::New(args) => new::run(&args, json),
        Command::Build(args) => new::build(&args, json).await,
        Command::Check(args) => check::check(&author_config(config_file)?, &args, json).await,
        Command::Inspect(args) => check::inspect(&author_config(config_file)?, &args).await,
        Command::Run(args) => run::run(&author_config(config_file)?, &args, json).await,
        Command::Dev(args) => dev::run(config_file, &args, json).await,
        Command::Test(args) => test::run(&args, json).await,
        Command::Bench(args) => bench::run(&author_config(config_file)?, &args, json).await,
        Command::List(args) => list::run(&args, json),
        Command::Install(args) => ship::install(&super::read_config(config_file)?, &args, json).await,
        Command::Remove(args) => ship::remove(&super::read_config(config_file)?, &args, json),
        Command::Sign(args) => ship::sign(&args, json),
        Command::Verify(args) => ship::verify(&author_config(config_file)?, &args, json),
        Command::Key(args) => ship::key(&args, json),
    }
}

/// The configuration if there is one, otherwise the defaults.
///
/// # Errors
/// The configuration has problems, or the file that was named does not exist.
fn author_config(file: &Path) -> anyhow::Result<Config> {
    let is_default = file == Path::new("ace.toml");
    if file.exists() {
        super::read_config(file)
    } else if is_default {
        Ok(super::default_config())
    } else {
        anyhow::bail!("there is no configuration at {}", file.display())
    }
}

/// "12.3 us", "4.56 ms": three digits, whatever the size.
fn duration(duration: std::time::Duration) -> String {
    let us = duration.as_nanos() as f64 / 1_000.0;
    match us {
        us if us < 100.0 => format!("{us:.1} us"),
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1_000.0),
        us => format!("{:.0} ms", us / 1_000.0),
    }
}

/// "41 KB", "1.6 MiB".
fn bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes < 1 << 20 => format!("{} KB", bytes.div_ceil(1024)),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// Formats parts under a heading, with the name of each part before its first line.
fn block(heading: &str, parts: &[(&str, Vec<String>)]) -> String {
    let mut out = heading.to_owned();
    for (name, lines) in parts {
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            out += &format!("\n  {name:<14}{}", line.replace('\n', "\n                "));
        }
    }
    out
}
