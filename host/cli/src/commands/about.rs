//! `ace version`, `ace completions` and `ace man`: what the program says about itself. They need no configuration.

use std::io::Write;
use std::path::{Path, PathBuf};

use ace::internals::plugin::INTERFACE_VERSION;
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::{Cli, OK, counted, inform, print};

pub const COMPLETIONS_EXAMPLES: &str = "Examples:
  source <(ace completions bash)
  ace completions bash > ~/.local/share/bash-completion/completions/ace
  ace completions zsh > ~/.zfunc/_ace
  ace completions fish > ~/.config/fish/completions/ace.fish";

pub const MAN_EXAMPLES: &str = "Examples:
  ace man | man -l -
  ace man --out /usr/local/share/man/man1";

#[derive(clap::Args)]
pub struct CompletionsArgs {
    shell: Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Write the page of each command into this folder (default: print the first page)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the versions of the program and of what it is made of.
pub fn version(json: bool) -> u8 {
    let (version, commit, wasmtime) = (env!("CARGO_PKG_VERSION"), env!("ACE_COMMIT"), env!("ACE_WASMTIME"));
    if json {
        let versions =
            json!({"version": version, "commit": commit, "interface": INTERFACE_VERSION, "wasmtime": wasmtime});
        print(&versions.to_string());
    } else {
        print(&format!("ace {version}\ncommit {commit}\nopenedx:ace {INTERFACE_VERSION}\nwasmtime {wasmtime}"));
    }
    OK
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ace", &mut text);
    write(&text)
}

/// Prints the man page, or writes the pages of all commands.
pub fn man(args: &ManArgs) -> anyhow::Result<u8> {
    let command = Cli::command();
    let Some(folder) = &args.out else {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text)?;
        return write(&text);
    };
    let pages = write_pages(command, folder).with_context(|| format!("--out {}", folder.display()))?;
    inform(&format!("{} in {}", counted(pages, "page"), folder.display()));
    Ok(OK)
}

/// Writes a page for each command, and returns their number.
fn write_pages(mut command: clap::Command, folder: &Path) -> std::io::Result<u64> {
    std::fs::create_dir_all(folder)?;
    command.build();
    let mut left = vec![command];
    let mut pages = 0;
    while let Some(command) = left.pop() {
        let subcommands = command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help");
        left.extend(subcommands.cloned());
        clap_mangen::Man::new(command).generate_to(folder)?;
        pages += 1;
    }
    Ok(pages)
}

/// Writes generated text to stdout. A reader that is gone is not an error.
fn write(text: &[u8]) -> anyhow::Result<u8> {
    match std::io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(OK),
    }
}
