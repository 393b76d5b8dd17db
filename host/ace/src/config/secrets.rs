//! Decodes and reads secrets.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::reader::{Field, TableDecoder};
use super::tree::Value;
use super::values::{self, KIB};
use super::{Secret, SecretSource};

/// The longest file of a secret.
const SECRET_BYTES_MAX: usize = 64 * KIB;
/// One secret that is used, and one that it replaces.
const SOURCES_MAX: usize = 2;

pub(super) fn secret(field: Field<'_>) -> Option<Secret> {
    found_secret(field, |_| Ok(())).map(|(secret, _)| secret)
}

/// The source of a secret whose file is read each time it is needed.
pub(super) fn secret_source(field: Field<'_>) -> Option<SecretSource> {
    checked_source(field, |_| Ok(()))
}

/// As [`secret_source`], for a secret of a certain form. The error says what the secret must be, and contains no part of it.
pub(super) fn checked_source(field: Field<'_>, check: impl Fn(&str) -> Result<(), String>) -> Option<SecretSource> {
    found_secret(field, check).map(|(secret, file)| file.map_or(SecretSource::Value(secret), SecretSource::File))
}

/// One or two sources of a secret, of which the first replaces the second. `None` if the key is absent.
pub(super) fn sources(
    s: &mut TableDecoder<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<Vec<SecretSource>> {
    let found = s.field(key)?.each(|field| checked_source(field, &check));
    if found.len() > SOURCES_MAX {
        s.fail(key, format!("must be one secret, or two while one replaces the other, not {}", found.len()));
    }
    Some(found)
}

/// Decodes `{ env = "VAR" }` or `{ file = "path" }`. Returns the secret, and its file if it has one. No message contains a value.
fn found_secret(mut field: Field<'_>, check: impl Fn(&str) -> Result<(), String>) -> Option<(Secret, Option<PathBuf>)> {
    if !matches!(field.node().value, Value::Table(_)) {
        field.fail("a secret must not be in this file; write { env = \"VARIABLE\" } or { file = \"path\" }");
        return None;
    }
    field.section(|s| {
        let variable = s.get("env", values::line);
        let file = s.get("file", values::path(s.folder()));
        let found = match (variable, file) {
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
                // A key that is present gets a better message.
                if s.is_valid() && !s.has_more() {
                    s.fail_whole("needs env = \"VARIABLE\" or file = \"path\"");
                }
                None
            }
        };
        let (secret, file) = found?;
        check(secret.expose()).map_err(|message| s.fail_whole(message)).ok()?;
        Some((secret, file))
    })?
}

fn secret_variable(s: &mut TableDecoder<'_>, variable: String) -> Option<Secret> {
    match s.secret_variable(&variable) {
        Some(value) if !value.is_empty() => return Some(Secret::new(value)),
        Some(_) => s.fail("env", format!("the environment variable {variable} is empty")),
        None => s.fail("env", format!("the environment variable {variable} is not set, or is not UTF-8")),
    }
    None
}

/// Why a file has no secret. The text contains the file's name, but not its content.
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

/// Reads a text file of at most `max` bytes. The error contains the file's name.
pub(super) fn read_bounded(path: &Path, max: usize) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max {
        return Err(format!("{} is longer than {}", path.display(), values::show_size(max)));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}
