//! Writes of dry calls (`explain`, shadow mode), which must not change the store. Reads see them before the store.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::database::PlaceUsage;
use super::places::{Place, not_places};
use super::{Counted, Keyvalue, KeyvalueError, Step, count, not_a_counter};

/// The writes of one call. They end with the call, so times to live are ignored.
#[derive(Default)]
pub struct Overlay {
    /// How many bytes of names, values and tokens may be written; 0 by default.
    pub max_bytes: usize,
    bytes: usize,
    entries: HashMap<(String, String), Entry>,
}

#[derive(Default)]
struct Entry {
    /// `None`: deleted.
    value: Option<Vec<u8>>,
    /// Tokens that were counted, and the count after each.
    tokens: HashMap<String, i64>,
    /// If it holds places: those that were taken and released.
    places: Option<Places>,
    /// It continues the entry in the store, whose tokens are still valid.
    is_continued: bool,
}

#[derive(Default)]
struct Places {
    taken: HashSet<String>,
    given_back: HashSet<String>,
}

impl Overlay {
    /// As [`Keyvalue::get`], with the writes applied.
    ///
    /// # Errors
    /// As [`Keyvalue::get`].
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
        match self.entries.get(&entry_key(bucket, key)) {
            Some(entry) => Ok(entry.value.clone()),
            None => store.get(bucket, key, now),
        }
    }

    /// As [`Keyvalue::set`], without the limit of entries.
    ///
    /// # Errors
    /// As [`Keyvalue::set`]; [`KeyvalueError::Quota`] beyond [`Overlay::max_bytes`].
    pub fn set(&mut self, store: &Keyvalue, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), KeyvalueError> {
        store.check(bucket, key, Some(&value))?;
        self.charge(bucket.len() + key.len() + value.len())?;
        self.entries.insert(entry_key(bucket, key), Entry { value: Some(value), ..Entry::default() });
        Ok(())
    }

    /// As [`Keyvalue::delete`].
    ///
    /// # Errors
    /// As [`Overlay::set`].
    pub fn delete(&mut self, store: &Keyvalue, bucket: &str, key: &str) -> Result<(), KeyvalueError> {
        store.check(bucket, key, None)?;
        self.charge(bucket.len() + key.len())?;
        self.entries.insert(entry_key(bucket, key), Entry::default());
        Ok(())
    }

    /// As [`Keyvalue::increment`], without the limit of entries. A token that the store has counted is not counted again.
    ///
    /// # Errors
    /// As [`Keyvalue::increment`]; [`KeyvalueError::Quota`] beyond [`Overlay::max_bytes`].
    pub fn increment(
        &mut self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        step: Step,
        now: Timestamp,
    ) -> Result<i64, KeyvalueError> {
        let (before, counted) = self.counted(store, bucket, key, step, now)?;
        if counted.is_some() || (step.by == 0 && step.once.is_none()) {
            return Ok(before);
        }
        self.count(bucket, key, step, before)
    }

    /// As [`Keyvalue::count_once`], without the limit of entries.
    ///
    /// # Errors
    /// As [`Overlay::increment`].
    pub fn count_once(
        &mut self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        (token, by): (&str, i64),
        now: Timestamp,
    ) -> Result<Counted, KeyvalueError> {
        let step = Step { by, ttl: None, once: Some(token) };
        let (total, counted) = self.counted(store, bucket, key, step, now)?;
        if let Some(at) = counted {
            return Ok(Counted { at: at.unwrap_or(total), total, is_first_time: false });
        }
        let total = self.count(bucket, key, step, total)?;
        Ok(Counted { at: total, total, is_first_time: true })
    }

    /// As [`Keyvalue::take_place`], without the limit of entries.
    ///
    /// # Errors
    /// As [`Keyvalue::take_place`]; [`KeyvalueError::Quota`] beyond [`Overlay::max_bytes`].
    pub fn take_place(
        &mut self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        (token, limit, window): (&str, u32, Duration),
        now: Timestamp,
    ) -> Result<Place, KeyvalueError> {
        let request = store.request(bucket, key, token, limit, window)?;
        let place = entry_key(bucket, key);
        let entry = self.entries.get(&place);
        if entry.is_some_and(|entry| entry.value.is_some() && entry.places.is_none()) {
            return Err(not_places(bucket, key));
        }
        let places = entry.and_then(|entry| entry.places.as_ref());
        let elsewhere = places.map_or(0, |places| places.taken.len() as i64 - places.given_back.len() as i64);
        let mut used = match entry {
            Some(entry) if !entry.is_continued => PlaceUsage { n: elsewhere, ..PlaceUsage::default() },
            _ => store.used(bucket, key, (&request, elsewhere), now)?,
        };
        if let Some(places) = places {
            used.is_held = places.taken.contains(token) || (used.is_held && !places.given_back.contains(token));
        }
        let answer = request.decide(used);
        if answer.is_granted && !used.is_held {
            self.charge(bucket.len() + key.len() + token.len())?;
            let is_continued = self.entries.get(&place).is_none_or(|entry| entry.is_continued);
            let entry = self.entries.entry(place).or_default();
            entry.is_continued = is_continued;
            entry.value = Some(answer.used.to_string().into_bytes());
            let places = entry.places.get_or_insert_default();
            if !places.given_back.remove(token) {
                places.taken.insert(token.to_owned());
            }
        }
        Ok(answer)
    }

    /// As [`Keyvalue::give_place_back`].
    ///
    /// # Errors
    /// As [`Keyvalue::give_place_back`]; [`KeyvalueError::Quota`] beyond [`Overlay::max_bytes`].
    pub fn give_place_back(
        &mut self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<(), KeyvalueError> {
        // With a window of all times, the store tells whether the token has a place at all.
        let request = store.request(bucket, key, token, 1, Duration::MAX)?;
        let Some(held) = self.get(store, bucket, key, now)? else { return Ok(()) };
        self.charge(bucket.len() + key.len() + token.len())?;
        let entry = self.entries.entry(entry_key(bucket, key)).or_insert_with(|| Entry {
            value: Some(held),
            is_continued: true,
            ..Entry::default()
        });
        let is_stored = entry.is_continued && store.used(bucket, key, (&request, 0), now)?.is_held;
        let places = entry.places.get_or_insert_default();
        if !places.taken.remove(token) && is_stored {
            places.given_back.insert(token.to_owned());
        }
        Ok(())
    }

    /// The count of a counter, whether it has counted the step's token, and the count at that time if known.
    fn counted(
        &self,
        store: &Keyvalue,
        bucket: &str,
        key: &str,
        step: Step,
        now: Timestamp,
    ) -> Result<(i64, Option<Option<i64>>), KeyvalueError> {
        store.check_step(bucket, key, step)?;
        let before = match self.get(store, bucket, key, now)? {
            Some(digits) => count(&digits).ok_or_else(|| not_a_counter(bucket, key))?,
            None => 0,
        };
        let Some(token) = step.once else { return Ok((before, None)) };
        let counted = match self.entries.get(&entry_key(bucket, key)) {
            Some(entry) if entry.tokens.contains_key(token) => entry.tokens.get(token).map(|at| Some(*at)),
            Some(entry) if !entry.is_continued => None,
            _ => store.counted(bucket, key, token, now)?,
        };
        Ok((before, counted))
    }

    fn count(&mut self, bucket: &str, key: &str, step: Step, before: i64) -> Result<i64, KeyvalueError> {
        self.charge(bucket.len() + key.len() + step.once.map_or(0, str::len))?;
        let after = before.saturating_add(step.by);
        let entry = self
            .entries
            .entry(entry_key(bucket, key))
            .or_insert_with(|| Entry { is_continued: true, ..Entry::default() });
        entry.value = Some(after.to_string().into_bytes());
        entry.tokens.extend(step.once.map(|token| (token.to_owned(), after)));
        Ok(after)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), KeyvalueError> {
        if self.bytes + bytes > self.max_bytes {
            let text = format!("a dry call may write {} bytes (limits.output-bytes)", self.max_bytes);
            return Err(KeyvalueError::Quota(text));
        }
        self.bytes += bytes;
        Ok(())
    }
}

fn entry_key(bucket: &str, key: &str) -> (String, String) {
    (bucket.to_owned(), key.to_owned())
}
