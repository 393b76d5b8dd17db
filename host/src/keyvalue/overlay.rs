//! What calls write that must change nothing (`explain`, shadow): kept beside the store, and read before it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{Keyvalue, KeyvalueError, Step, count, no_counter};

/// The writes of one call. They last no longer than the call, so times to live are not kept.
#[derive(Default)]
pub struct Overlay {
    /// How many bytes of names, values and tokens may be written; none by default.
    pub max_bytes: usize,
    bytes: usize,
    entries: HashMap<(String, String), Entry>,
}

#[derive(Default)]
struct Entry {
    /// `None`: deleted.
    value: Option<Vec<u8>>,
    tokens: HashSet<String>,
    /// It goes on counting from the store's counter, whose tokens hold.
    is_continued: bool,
}

impl Overlay {
    /// As [`Keyvalue::get`], after the writes.
    pub fn get(
        &self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, KeyvalueError> {
        if self.entries.is_empty() {
            return store.get(bucket, key, now);
        }
        match self.entries.get(&place(bucket, key)) {
            Some(entry) => Ok(entry.value.clone()),
            None => store.get(bucket, key, now),
        }
    }

    /// As [`Keyvalue::set`], without the quota of entries.
    pub fn set(&mut self, store: &Keyvalue, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), KeyvalueError> {
        store.check(bucket, key, Some(&value))?;
        self.take(bucket.len() + key.len() + value.len())?;
        self.entries.insert(place(bucket, key), Entry { value: Some(value), ..Entry::default() });
        Ok(())
    }

    /// As [`Keyvalue::delete`].
    pub fn delete(&mut self, store: &Keyvalue, bucket: &str, key: &str) -> Result<(), KeyvalueError> {
        store.check(bucket, key, None)?;
        self.take(bucket.len() + key.len())?;
        self.entries.insert(place(bucket, key), Entry::default());
        Ok(())
    }

    /// As [`Keyvalue::increment`], without the quota of entries: a token that the store has counted counts no more.
    pub fn increment(
        &mut self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        step: Step,
        now: Timestamp,
    ) -> Result<i64, KeyvalueError> {
        store.check_step(bucket, key, step)?;
        let before = match self.get(store, bucket, key, now)? {
            Some(digits) => count(&digits).ok_or_else(|| no_counter(bucket, key))?,
            None => 0,
        };
        let place = place(bucket, key);
        let counted = step.once.map_or(Ok(false), |token| match self.entries.get(&place) {
            Some(entry) if entry.tokens.contains(token) => Ok(true),
            Some(entry) if !entry.is_continued => Ok(false),
            _ => store.has_counted(bucket, key, token, now),
        })?;
        if counted || (step.by == 0 && step.once.is_none()) {
            return Ok(before);
        }
        self.take(bucket.len() + key.len() + step.once.map_or(0, str::len))?;
        let after = before.saturating_add(step.by);
        let entry = self.entries.entry(place).or_insert_with(|| Entry { is_continued: true, ..Entry::default() });
        entry.value = Some(after.to_string().into_bytes());
        entry.tokens.extend(step.once.map(str::to_owned));
        Ok(after)
    }

    fn take(&mut self, bytes: usize) -> Result<(), KeyvalueError> {
        if self.bytes + bytes > self.max_bytes {
            let text = format!("a dry call may write {} bytes (limits.output-bytes)", self.max_bytes);
            return Err(KeyvalueError::Quota(text));
        }
        self.bytes += bytes;
        Ok(())
    }
}

fn place(bucket: &str, key: &str) -> (String, String) {
    (bucket.to_owned(), key.to_owned())
}
