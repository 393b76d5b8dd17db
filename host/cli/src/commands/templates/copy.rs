//! `ace templates copy`: files of the templates that are part of this program, to be changed.

use std::io::Write;
use std::path::{Path, PathBuf};

use ace::config::{Config, ShippedFile};
use serde_json::json;

use crate::commands::{NOT_STARTED, OK, inform, print};
use crate::shipped;

pub const EXAMPLES: &str = "Examples:
  ace templates copy
  ace templates copy base_body.html
  ace templates copy passwordreset my-templates

NAME is a file, a folder or a message: base_body.html, ace_common, passwordreset. Without it, the
names of all files are listed. A copy in a template folder is used instead of the shipped file.
Files that exist are not overwritten.";

#[derive(clap::Args)]
pub struct Args {
    /// What to copy
    name: Option<String>,

    /// The template folder to copy to (default: the first of template-dirs)
    dir: Option<PathBuf>,
}

/// Copies what was named, or lists the names.
pub fn run(config: impl FnOnce() -> anyhow::Result<Config>, args: &Args, json: bool) -> anyhow::Result<u8> {
    if shipped::templates().next().is_none() {
        inform(&format!("error: {}", shipped::ABSENCE));
        return Ok(NOT_STARTED);
    }
    let Some(name) = &args.name else {
        shipped::templates().for_each(|file| print(&shown(json, "name", file.path)));
        return Ok(OK);
    };
    let files: Vec<&ShippedFile> = shipped::templates().filter(|file| is_named(file.path, name)).collect();
    if files.is_empty() {
        anyhow::bail!("there is no shipped template {name:?}\nhint: `ace templates copy` lists all of them");
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => config()?.template_dirs.first().cloned().ok_or_else(|| {
            anyhow::anyhow!("there is no template folder\nhint: name one, or list it in template-dirs of ace.toml")
        })?,
    };
    for file in files {
        let target = dir.join(file.path);
        match write_new(&target, file.text) {
            Ok(()) => print(&shown(json, "file", &target.display().to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                inform(&format!("{}: exists, and was not changed", target.display()));
            }
            Err(error) => anyhow::bail!("{}: {error}", target.display()),
        }
    }
    Ok(OK)
}

fn shown(json: bool, key: &str, value: &str) -> String {
    if json { json!({ key: value }).to_string() } else { value.to_owned() }
}

/// Whether a path is this one, is below it, or has a folder or file of this name.
fn is_named(path: &str, name: &str) -> bool {
    let name = name.trim_end_matches('/');
    path == name || path.starts_with(&format!("{name}/")) || path.split('/').any(|part| part == name)
}

/// Writes a file that does not exist, with its folders.
fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    std::fs::File::create_new(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_path_a_folder_or_its_name() {
        let path = "ace_demo/edx_ace/passwordreset/email/body.html";
        for name in [path, "ace_demo", "ace_demo/", "ace_demo/edx_ace/passwordreset", "passwordreset", "body.html"] {
            assert!(is_named(path, name), "{name}");
        }
        for name in ["ace", "password", "edx_ace/passwordreset", "body", "email/body.html/x"] {
            assert!(!is_named(path, name), "{name}");
        }
    }
}
