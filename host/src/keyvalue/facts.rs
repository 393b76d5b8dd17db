//! The facts files: NDJSON, loaded at every start over what is in the store.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::writer::{Batch, Stop, Target, Writer};
use super::{FileError, KEY_BYTES_MAX, Origin, check};
use crate::config;

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
pub(super) fn load(writer: &mut Writer, settings: &config::Keyvalue, now: Timestamp) -> Result<(), FileError> {
    let Some(first) = settings.files.first() else { return Ok(()) };
    let file = settings.database.as_ref().unwrap_or(first);
    let broken = |e: rusqlite::Error| FileError { file: file.clone(), line: None, message: crate::sqlite::words(&e) };
    let mut batch = writer.begin().map_err(broken)?;
    while batch.sweep(now.as_millisecond(), SWEPT_AT_ONCE).map_err(broken)? {}
    for file in &settings.files {
        load_file(&mut batch, file, settings.max_value_bytes)?;
    }
    batch.commit().map_err(broken)
}

fn load_file(batch: &mut Batch, file: &Path, max_value_bytes: usize) -> Result<(), FileError> {
    let fail = |line, message: String| FileError { file: file.to_owned(), line, message };
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
            _ => load_line(batch, &line, max_value_bytes).map_err(|message| fail(Some(number), message))?,
        }
    }
    Ok(())
}

fn load_line(batch: &mut Batch, line: &[u8], max_value_bytes: usize) -> Result<(), String> {
    let fact: Fact = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let value = match fact.value {
        serde_json::Value::String(s) => s.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    check(&fact.bucket, &fact.key, value.len(), max_value_bytes).map_err(|e| e.to_string())?;
    let target = Target { bucket: &fact.bucket, key: &fact.key, origin: Origin::Application };
    batch.set(target, &value, None).map_err(|stop| match stop {
        Stop::Refused(error) => error.to_string(),
        Stop::Broken(error) => format!("the database: {}", crate::sqlite::words(&error)),
    })
}
