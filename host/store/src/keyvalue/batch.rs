//! One transaction, and its changes of entries, counters and places.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::damage::{Damage, EXPIRING, Location, SIZES};
use super::database::{self, PLACES};
use super::places::{Place, PlaceRequest};
use super::writer::{Capacity, Change, Reply, Write, WriteError};
use super::{Counted, KeyvalueError, Origin, count, not_a_counter};

/// An open transaction.
pub(super) struct Batch<'a> {
    pub(super) transaction: Transaction<'a>,
    /// The number of entries and tokens in all buckets, including expired ones.
    pub(super) size: i64,
    /// The change of the size of each bucket.
    grown: BTreeMap<String, i64>,
    capacity: Capacity,
    pub(super) damage: &'a mut Damage,
}

/// An entry, without its name.
struct Entry {
    value: Vec<u8>,
    expires: Option<i64>,
    counter: Option<i64>,
    kind: Option<i64>,
}

/// The entry that a write changes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub origin: Origin,
}

impl<'a> Batch<'a> {
    pub(super) fn new(transaction: Transaction<'a>, capacity: Capacity, damage: &'a mut Damage) -> Self {
        Batch { transaction, size: 0, grown: BTreeMap::new(), capacity, damage }
    }
}

impl Batch<'_> {
    pub(super) fn apply(&mut self, write: &Write) -> Result<Reply, WriteError> {
        let Write { bucket, key, change, origin, now } = write;
        let target = Target { bucket, key, origin: *origin };
        Ok(match change {
            Change::Set { value, expires } => {
                self.set(target, value, *expires)?;
                Reply::Done
            }
            Change::Delete => {
                self.remove(bucket, key)?;
                Reply::Done
            }
            Change::Panic => panic!("injected fault"),
            Change::Increment { by, expires, once } => {
                Reply::Count(self.increment(target, (*by, once.as_deref()), *expires, *now)?)
            }
            Change::CountOnce { by, expires, token } => {
                Reply::Counted(self.count_once(target, (*by, token), *expires, *now)?)
            }
            Change::TakePlace(request) => Reply::Place(self.take_place(target, request, *now)?),
            Change::GivePlaceBack { token } => {
                self.give_place_back(target, token, *now)?;
                Reply::Done
            }
        })
    }

    pub(super) fn set(&mut self, target: Target, value: &[u8], expires: Option<i64>) -> Result<(), WriteError> {
        let Target { bucket, key, .. } = target;
        let sql = "SELECT counter FROM entries WHERE bucket = ?1 AND key = ?2";
        let old: Option<Option<i64>> =
            self.transaction.prepare_cached(sql)?.query_row([bucket, key], |row| row.get(0)).optional()?;
        match old {
            None => self.add_entries(target, 1)?,
            Some(counter) => self.delete_tokens(bucket, counter)?,
        }
        // An unchanged value is not written, so loading the same files at each start costs no writes.
        let sql = "INSERT INTO entries (bucket, key, value, expires) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET value = excluded.value, expires = excluded.expires, counter = NULL, kind = NULL
            WHERE value <> excluded.value OR expires IS NOT excluded.expires OR counter IS NOT NULL";
        self.transaction.prepare_cached(sql)?.execute(params![bucket, key, value, expires])?;
        Ok(())
    }

    fn remove(&mut self, bucket: &str, key: &str) -> rusqlite::Result<()> {
        let sql = "DELETE FROM entries WHERE bucket = ?1 AND key = ?2 RETURNING counter";
        let removed: Option<Option<i64>> =
            self.transaction.prepare_cached(sql)?.query_row([bucket, key], |row| row.get(0)).optional()?;
        if let Some(counter) = removed {
            self.grow(bucket, -1);
            self.delete_tokens(bucket, counter)?;
        }
        Ok(())
    }

    fn increment(
        &mut self,
        target: Target,
        (by, once): (i64, Option<&str>),
        expires: Option<i64>,
        now: i64,
    ) -> Result<i64, WriteError> {
        let (before, old) = self.counter(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        let is_counted = once.map_or(Ok(false), |token| self.token(counter, token).map(|token| token.is_some()))?;
        if (by == 0 && once.is_none()) || is_counted {
            return Ok(before);
        }
        let after = before.saturating_add(by);
        self.add_entries(target, i64::from(old.is_none()) + i64::from(once.is_some()))?;
        let counter = once.map_or(Ok(counter), |token| self.add_token(counter, token, None).map(Some))?;
        self.write_digits(target, after, (expires, counter, None))?;
        Ok(after)
    }

    fn count_once(
        &mut self,
        target: Target,
        (by, token): (i64, &str),
        expires: Option<i64>,
        now: i64,
    ) -> Result<Counted, WriteError> {
        let (before, old) = self.counter(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        if let Some(at) = self.token(counter, token)? {
            return Ok(Counted { at: at.unwrap_or(before), total: before, is_first_time: false });
        }
        let after = before.saturating_add(by);
        self.add_entries(target, 1 + i64::from(old.is_none()))?;
        let counter = self.add_token(counter, token, Some(after))?;
        self.write_digits(target, after, (expires, Some(counter), None))?;
        Ok(Counted { at: after, total: after, is_first_time: true })
    }

    fn take_place(&mut self, target: Target, request: &PlaceRequest, now: i64) -> Result<Place, WriteError> {
        let Target { bucket, key, .. } = target;
        let PlaceRequest { token, limit, window_ms } = request;
        let old = self.places(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        let since = now.saturating_sub(*window_ms);
        let lapsed = self.drop_lapsed(counter, since, now)?;
        self.grow(bucket, -lapsed);
        let used = database::used(&self.transaction, (bucket, key), (token, i64::from(*limit)), (since, now))?;
        let place = request.decide(used);
        if used.is_held || !place.is_granted {
            return Ok(place);
        }
        self.add_entries(target, 1 + i64::from(old.is_none()))?;
        let counter = self.add_token(counter, token, Some(now))?;
        let expires = old.and_then(|entry| entry.expires).unwrap_or(i64::MIN).max(now.saturating_add(*window_ms));
        self.write_digits(target, used.n + 1, (Some(expires), Some(counter), Some(PLACES)))?;
        Ok(place)
    }

    fn give_place_back(&mut self, target: Target, token: &str, now: i64) -> Result<(), WriteError> {
        let Some(Entry { counter: Some(counter), expires, .. }) = self.places(target, now)? else { return Ok(()) };
        let sql = "DELETE FROM tokens WHERE counter = ?1 AND token = ?2";
        let given_back = self.transaction.prepare_cached(sql)?.execute(params![counter, token])?;
        self.grow(target.bucket, -(given_back as i64));
        let sql = "SELECT count(*) FROM tokens WHERE counter = ?1";
        let left: i64 = self.transaction.prepare_cached(sql)?.query_one([counter], |row| row.get(0))?;
        match left {
            0 => self.remove(target.bucket, target.key)?,
            left => self.write_digits(target, left, (expires, Some(counter), Some(PLACES)))?,
        }
        Ok(())
    }

    /// The count of a counter that has not expired, 0 if there is none, and its entry.
    fn counter(&mut self, target: Target, now: i64) -> Result<(i64, Option<Entry>), WriteError> {
        let Target { bucket, key, .. } = target;
        let Some(entry) = self.live_entry(bucket, key, now)? else { return Ok((0, None)) };
        let before = count(&entry.value).filter(|_| entry.kind.is_none());
        Ok((before.ok_or_else(|| WriteError::Rejected(not_a_counter(bucket, key)))?, Some(entry)))
    }

    /// The entry of places, if it has not expired.
    fn places(&mut self, target: Target, now: i64) -> Result<Option<Entry>, WriteError> {
        let Target { bucket, key, .. } = target;
        let found = self.live_entry(bucket, key, now)?;
        if found.as_ref().is_some_and(|entry| entry.kind != Some(PLACES)) {
            return Err(WriteError::Rejected(super::places::not_places(bucket, key)));
        }
        Ok(found)
    }

    /// Deletes places outside the window. Returns how many. Times in the future, after the clock was set back, become `now`.
    fn drop_lapsed(&self, counter: Option<i64>, since: i64, now: i64) -> rusqlite::Result<i64> {
        let Some(counter) = counter else { return Ok(0) };
        let sql = "UPDATE tokens SET at = ?2 WHERE counter = ?1 AND at > ?2";
        self.transaction.prepare_cached(sql)?.execute([counter, now])?;
        let sql = "DELETE FROM tokens WHERE counter = ?1 AND at <= ?2";
        self.transaction.prepare_cached(sql)?.execute([counter, since]).map(|n| n as i64)
    }

    fn write_digits(
        &self,
        target: Target,
        digits: i64,
        (expires, counter, kind): (Option<i64>, Option<i64>, Option<i64>),
    ) -> rusqlite::Result<()> {
        // A counter keeps its first time of expiry; places expire with the latest of them.
        let sql = "INSERT INTO entries (bucket, key, value, expires, counter, kind) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET value = excluded.value, counter = excluded.counter,
                expires = iif(excluded.kind = 1, excluded.expires, expires)";
        let digits = digits.to_string().into_bytes();
        let values = params![target.bucket, target.key, digits, expires, counter, kind];
        self.transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// An entry that has not expired. An expired one is deleted.
    fn live_entry(&mut self, bucket: &str, key: &str, now: i64) -> rusqlite::Result<Option<Entry>> {
        let sql = "SELECT value, expires, counter, kind FROM entries WHERE bucket = ?1 AND key = ?2";
        let read = |row: &rusqlite::Row| {
            Ok(Entry { value: row.get(0)?, expires: row.get(1)?, counter: row.get(2)?, kind: row.get(3)? })
        };
        let found = self.transaction.prepare_cached(sql)?.query_row([bucket, key], read).optional()?;
        if found.as_ref().is_some_and(|entry| entry.expires.is_some_and(|at| at <= now)) {
            self.remove(bucket, key)?;
            return Ok(None);
        }
        Ok(found)
    }

    /// Whether a token was counted, and the count at that time if known.
    fn token(&self, counter: Option<i64>, token: &str) -> rusqlite::Result<Option<Option<i64>>> {
        let Some(counter) = counter else { return Ok(None) };
        let sql = "SELECT at FROM tokens WHERE counter = ?1 AND token = ?2";
        self.transaction.prepare_cached(sql)?.query_row(params![counter, token], |row| row.get(0)).optional()
    }

    /// Stores a token under the number of a counter, or under a new number, and returns the number.
    fn add_token(&self, counter: Option<i64>, token: &str, at: Option<i64>) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO tokens (counter, token, at)
            VALUES (ifnull(?1, (SELECT ifnull(max(counter), 0) + 1 FROM tokens)), ?2, ?3) RETURNING counter";
        self.transaction.prepare_cached(sql)?.query_one(params![counter, token, at], |row| row.get(0))
    }

    fn delete_tokens(&mut self, bucket: &str, counter: Option<i64>) -> rusqlite::Result<()> {
        if let Some(counter) = counter {
            let deleted =
                self.transaction.prepare_cached("DELETE FROM tokens WHERE counter = ?1")?.execute([counter])?;
            self.grow(bucket, -(deleted as i64));
        }
        Ok(())
    }

    /// Deletes the entries that expired first. Returns whether there may be more. Damaged ones remain.
    pub(super) fn delete_expired(&mut self, now: i64, max: i64) -> Result<bool, WriteError> {
        let max = max + self.damage.len() as i64;
        let expired = self.attempt(
            || EXPIRING,
            |batch| {
                let sql = "SELECT bucket, key FROM entries WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
                let name = |row: &rusqlite::Row, i| Ok::<_, rusqlite::Error>(row.get_ref(i)?.as_bytes()?.to_vec());
                let mut expired = batch.transaction.prepare_cached(sql)?;
                let expired = expired.query_map(params![now, max], |row| Ok((name(row, 0)?, name(row, 1)?)))?;
                Ok(expired.collect::<rusqlite::Result<Vec<_>>>()?)
            },
        )?;
        let (expired, mut removed) = (expired.unwrap_or_default(), 0);
        for (bucket, key) in &expired {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let place = || Location::Entry(text(bucket), text(key));
            let gone = self.attempt(place, |batch| match (std::str::from_utf8(bucket), std::str::from_utf8(key)) {
                (Ok(bucket), Ok(key)) => Ok(batch.remove(bucket, key)?),
                _ => Ok(batch.remove_bytes(bucket, key)?),
            })?;
            removed += i64::from(gone.is_ok());
        }
        Ok(removed > 0 && expired.len() as i64 == max)
    }

    /// Deletes an entry whose name is not valid UTF-8.
    fn remove_bytes(&mut self, bucket: &[u8], key: &[u8]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM entries WHERE bucket = CAST(?1 AS TEXT) AND key = CAST(?2 AS TEXT)";
        self.transaction.prepare_cached(sql)?.execute([bucket, key]).map(drop)
    }

    /// Checks the limits for new entries and tokens, and counts them.
    fn add_entries(&mut self, target: Target, added: i64) -> Result<(), WriteError> {
        let full = |text: String| Err(WriteError::Rejected(KeyvalueError::Full(text)));
        let Capacity { all, bucket: share } = self.capacity;
        let for_plugins = all - self.capacity.reserved();
        match target.origin {
            _ if added <= 0 => {}
            Origin::Application if self.size + added > all => {
                return full(format!("the store is full: {all} entries (keyvalue.max-entries)"));
            }
            Origin::Plugin if self.size + added > for_plugins => {
                return full(format!(
                    "the store is full for plugins: {for_plugins} entries, the rest of {all} is for applications (keyvalue.max-entries)"
                ));
            }
            Origin::Plugin if self.bucket_size(target.bucket)? + added > share => {
                let bucket = target.bucket;
                return full(format!(
                    "the bucket {bucket} is full for plugins: {share} entries (keyvalue.max-bucket-entries)"
                ));
            }
            Origin::Application | Origin::Plugin => {}
        }
        self.grow(target.bucket, added);
        Ok(())
    }

    fn bucket_size(&mut self, bucket: &str) -> Result<i64, WriteError> {
        let stored = self.attempt(
            || SIZES,
            |batch| {
                let mut size = batch.transaction.prepare_cached("SELECT size FROM buckets WHERE bucket = ?1")?;
                Ok(size.query_row([bucket], |row| row.get::<_, i64>(0)).optional()?)
            },
        )?;
        let stored = stored.ok().flatten().unwrap_or_default();
        Ok(stored + self.grown.get(bucket).copied().unwrap_or_default())
    }

    fn grow(&mut self, bucket: &str, by: i64) {
        if by != 0 {
            self.size += by;
            match self.grown.get_mut(bucket) {
                Some(grown) => *grown += by,
                None => drop(self.grown.insert(bucket.to_owned(), by)),
            }
        }
    }

    pub(super) fn commit(mut self) -> Result<(), WriteError> {
        let grown = std::mem::take(&mut self.grown);
        // Damage was logged.
        let _ = self.attempt(
            || SIZES,
            |batch| {
                let sql = "INSERT INTO buckets (bucket, size) VALUES (?1, ?2)
                ON CONFLICT DO UPDATE SET size = size + excluded.size";
                for (bucket, by) in grown.iter().filter(|(_, by)| **by != 0) {
                    batch.transaction.prepare_cached(sql)?.execute(params![bucket, by])?;
                }
                if grown.values().any(|by| *by != 0) {
                    batch.transaction.prepare_cached("UPDATE store SET size = ?1")?.execute([batch.size])?;
                }
                Ok(())
            },
        )?;
        Ok(self.transaction.commit()?)
    }
}
