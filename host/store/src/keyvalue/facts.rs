//! The facts files: NDJSON, loaded at every start over what is in the store.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::batch::{Batch, Target};
use super::damage::Place;
use super::writer::{WriteError, Writer};
use super::{FileError, KEY_BYTES_MAX, KeyvalueError, Origin, Settings, check};

/// Expired entries thrown out at a time.
const SWEPT_AT_ONCE: i64 = 1000;

/// One line of a facts file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    bucket: String,
    key: String,
    /// A string is stored as its bytes, anything else as JSON text.
    value: serde_json::Value,
}

/// Puts every fact in place of what is under its key, in one transaction: all files, or none.
pub(super) fn load(writer: &mut Writer, settings: &Settings, now: Timestamp) -> Result<(), FileError> {
    let Some(first) = settings.files.first() else { return Ok(()) };
    let file = settings.database.as_ref().unwrap_or(first);
    let mut refused = None;
    let loaded = writer.transact(|batch| {
        while batch.sweep(now.as_millisecond(), SWEPT_AT_ONCE)? {}
        let mut files = settings.files.iter();
        match files.try_for_each(|file| load_file(batch, file, settings.max_value_bytes)) {
            Ok(()) => Ok(()),
            Err(Failed::Database(error)) => Err(WriteError::Aborted(error)),
            Err(Failed::File(error)) => {
                let stop = WriteError::Rejected(KeyvalueError::Unavailable(error.to_string()));
                refused = Some(error);
                Err(stop)
            }
        }
    });
    let fail = |message| FileError { file: file.clone(), line: None, message };
    loaded.map_err(|stop| match (refused, stop) {
        (Some(error), _) => error,
        (None, WriteError::Aborted(error)) => fail(crate::sqlite::describe(&error)),
        (None, WriteError::Rejected(error)) => fail(error.to_string()),
    })
}

/// Why facts are not loaded.
enum Failed {
    File(FileError),
    Database(rusqlite::Error),
}

fn load_file(batch: &mut Batch, file: &Path, max_value_bytes: usize) -> Result<(), Failed> {
    let fail = |line, message: String| Failed::File(FileError { file: file.to_owned(), line, message });
    let mut reader = BufReader::new(File::open(file).map_err(|e| fail(None, e.to_string()))?);
    // JSON writes a byte in six at most.
    let max = 6 * (max_value_bytes + 2 * KEY_BYTES_MAX);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = reader.by_ref().take(max as u64 + 1).read_until(b'\n', &mut line);
        match length.map_err(|e| fail(Some(number), e.to_string()))? {
            0 => break,
            length if length > max => return Err(fail(Some(number), format!("is longer than {max} bytes"))),
            _ if line.trim_ascii().is_empty() => continue,
            _ => {
                let (fact, value) = read(&line, max_value_bytes).map_err(|message| fail(Some(number), message))?;
                let place = || Place::Entry(fact.bucket.clone(), fact.key.clone());
                let target = Target { bucket: &fact.bucket, key: &fact.key, origin: Origin::Application };
                match batch.attempt(place, |batch| batch.set(target, &value, None)) {
                    // What stands under a damaged key stays there, and was named.
                    Ok(_) => {}
                    Err(WriteError::Rejected(error)) => return Err(fail(Some(number), error.to_string())),
                    Err(WriteError::Aborted(error)) => return Err(Failed::Database(error)),
                }
            }
        }
    }
    Ok(())
}

/// A fact, and its value as it is stored.
fn read(line: &[u8], max_value_bytes: usize) -> Result<(Fact, Vec<u8>), String> {
    let mut fact: Fact =
        serde_json::from_slice(line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)).map_err(|e| e.to_string())?;
    let value = match fact.value.take() {
        serde_json::Value::String(s) => s.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    check(&fact.bucket, &fact.key, value.len(), max_value_bytes).map_err(|e| e.to_string())?;
    Ok((fact, value))
}
