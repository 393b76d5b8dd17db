//! Files with entries (`keyvalue.files`): NDJSON, loaded at every start. They replace entries in the store.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::batch::{Batch, Target};
use super::damage::Location;
use super::writer::{WriteError, Writer};
use super::{FileError, KEY_BYTES_MAX, KeyvalueError, Origin, Settings, check};
use crate::lines::{Line, LineError, LineReader, TooLong};

/// Expired entries that one step deletes.
const EXPIRED_PER_STEP: i64 = 1000;

/// One line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    bucket: String,
    key: String,
    /// A string is stored as its bytes, any other value as JSON text.
    value: serde_json::Value,
}

/// Loads all files in one transaction.
pub(super) fn load(writer: &mut Writer, settings: &Settings, now: Timestamp) -> Result<(), FileError> {
    let Some(first) = settings.files.first() else { return Ok(()) };
    let file = settings.database.as_ref().unwrap_or(first);
    let mut refused = None;
    let loaded = writer.transact(|batch| {
        while batch.delete_expired(now.as_millisecond(), EXPIRED_PER_STEP)? {}
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

/// Why a file cannot be loaded.
enum Failed {
    File(FileError),
    Database(rusqlite::Error),
}

fn load_file(batch: &mut Batch, file: &Path, max_value_bytes: usize) -> Result<(), Failed> {
    let fail = |line, message: String| Failed::File(FileError { file: file.to_owned(), line, message });
    let input = BufReader::new(File::open(file).map_err(|e| fail(None, e.to_string()))?);
    // A byte takes up to six in JSON.
    let mut lines = LineReader::new(input, 6 * (max_value_bytes + 2 * KEY_BYTES_MAX));
    loop {
        let Line { number, text } = match lines.next_line() {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => line,
            Err(LineError::Io { number, error }) => return Err(fail(Some(number), error.to_string())),
            Err(LineError::TooLong(TooLong { number, max })) => {
                return Err(fail(Some(number), format!("the line is longer than {max} bytes")));
            }
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        let (entry, value) = parse(&text, max_value_bytes).map_err(|message| fail(Some(number), message))?;
        let location = || Location::Entry(entry.bucket.clone(), entry.key.clone());
        let target = Target { bucket: &entry.bucket, key: &entry.key, origin: Origin::Application };
        match batch.attempt(location, |batch| batch.set(target, &value, None)) {
            // A damaged entry is not changed; that was logged.
            Ok(_) => {}
            Err(WriteError::Rejected(error)) => return Err(fail(Some(number), error.to_string())),
            Err(WriteError::Aborted(error)) => return Err(Failed::Database(error)),
        }
    }
}

/// Parses a line. Also returns the value as it is stored.
fn parse(line: &[u8], max_value_bytes: usize) -> Result<(EntryLine, Vec<u8>), String> {
    let mut entry: EntryLine = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let value = match entry.value.take() {
        serde_json::Value::String(s) => s.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    check(&entry.bucket, &entry.key, value.len(), max_value_bytes).map_err(|e| e.to_string())?;
    Ok((entry, value))
}
