//! Secrets: where ace.toml says they are, and how they are read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::reader::{Field, Section};
use super::tree::Value;
use super::values::{self, KIB};
use super::{Secret, SecretSource};

/// The longest file a secret is read from.
const SECRET_BYTES_MAX: usize = 64 * KIB;

pub(super) fn secret(field: Field<'_>) -> Option<Secret> {
    found_secret(field).map(|(secret, _)| secret)
}

/// A secret whose file is read again whenever it is needed.
pub(super) fn secret_source(field: Field<'_>) -> Option<SecretSource> {
    found_secret(field).map(|(secret, file)| file.map_or(SecretSource::Value(secret), SecretSource::File))
}

/// `{ env = "VAR" }` or `{ file = "path" }`, and the file where it is in one. No message holds a value.
fn found_secret(mut field: Field<'_>) -> Option<(Secret, Option<PathBuf>)> {
    if !matches!(field.node().value, Value::Table(_)) {
        field.fail("a secret is never written here; write { env = \"VARIABLE\" } or { file = \"path\" }");
        return None;
    }
    field.section(|s| {
        let variable = s.get("env", values::line);
        let file = s.get("file", values::path(s.folder()));
        match (variable, file) {
            (Some(variable), None) => secret_variable(s, variable).map(|secret| (secret, None)),
            (None, Some(file)) => {
                let secret = read_secret(&file).map_err(|error| s.fail("file", error.to_string())).ok();
                secret.map(|secret| (secret, Some(file)))
            }
            (Some(_), Some(_)) => {
                s.fail("file", "env is set too; a secret has only one source");
                None
            }
            (None, None) => {
                // What is wrong is told better of the key that stands there.
                if s.is_sound() && !s.has_more() {
                    s.fail_whole("needs env = \"VARIABLE\" or file = \"path\"");
                }
                None
            }
        }
    })?
}

fn secret_variable(s: &mut Section<'_>, variable: String) -> Option<Secret> {
    match s.secret_variable(&variable) {
        Some(value) if !value.is_empty() => return Some(Secret::new(value)),
        Some(_) => s.fail("env", format!("the environment variable {variable} is empty")),
        None => s.fail("env", format!("the environment variable {variable} is not set, or is no UTF-8")),
    }
    None
}

/// Why a file has no secret. The text names the file, and nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(pub(super) String);

pub(super) fn read_secret(path: &Path) -> Result<Secret, SecretError> {
    let text = read_bounded(path, SECRET_BYTES_MAX).map_err(SecretError)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError(format!("{} is empty", path.display()))),
        value => Ok(Secret::new(value)),
    }
}

/// A text file of at most `max` bytes. The error names the file.
pub(super) fn read_bounded(path: &Path, max: usize) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max {
        return Err(format!("{} is longer than {}", path.display(), values::show_size(max)));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is no UTF-8 text", path.display()))
}
