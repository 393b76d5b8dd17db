//! The one that changes the store: many changes to a transaction, each with its own answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::damage::{Damage, EXPIRING, Place as Damaged, SIZES};
use super::database::{self, PLACES};
use super::places::{Place, Wanted};
use super::{Counted, KeyvalueError, Origin, Settings, count, no_counter, unavailable};
use crate::sqlite;
use crate::sqlite::Held;

/// Writes in one transaction at most.
const BATCH_MAX: usize = 256;

/// Writes that wait at once; a further one waits for its place.
const QUEUE_MAX: usize = 256;

/// Expired entries that each write may throw out: more than it can add, so that they never pile up.
const SWEPT_PER_WRITE: i64 = 4;

/// Statements kept prepared: more than there are.
const STATEMENTS_MAX: usize = 32;

/// One change of one entry.
pub(super) struct Write {
    pub bucket: String,
    pub key: String,
    pub change: Change,
    pub origin: Origin,
    /// Milliseconds since 1970, as all times here.
    pub now: i64,
}

pub(super) enum Change {
    Set {
        value: Vec<u8>,
        expires: Option<i64>,
    },
    Delete,
    Increment {
        by: i64,
        /// Of a counter that is made by it.
        expires: Option<i64>,
        once: Option<String>,
    },
    CountOnce {
        by: i64,
        /// Of a counter that is made by it.
        expires: Option<i64>,
        token: String,
    },
    TakePlace(Wanted),
    GivePlaceBack {
        token: String,
    },
    /// What [`super::Keyvalue::break_writer`] asks for.
    Panic,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Count(i64),
    Counted(Counted),
    Place(Place),
}

type Answer = Result<Reply, KeyvalueError>;

/// Of all entries, one part in so many is for applications alone.
const RESERVED_PART: i64 = 10;
/// Of all entries, one part in so many may be what plugins put into one bucket, where nothing else is set.
const BUCKET_PART: i64 = 4;

/// Holds the connection for writing.
pub(super) struct Writer {
    pub db: Held,
    room: Room,
    damage: Damage,
    /// Shared with the store: the file is not the one that was opened any more.
    is_lost: Arc<AtomicBool>,
}

/// How many entries and tokens there may be.
#[derive(Debug, Clone, Copy)]
struct Room {
    all: i64,
    /// In one bucket, by plugins.
    bucket: i64,
}

impl Room {
    fn new(settings: &Settings) -> Self {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let all = number(settings.max_entries);
        Room { all, bucket: settings.max_bucket_entries.map_or_else(|| (all / BUCKET_PART).max(1), number) }
    }

    /// What plugins leave to applications.
    fn reserve(self) -> i64 {
        self.all / RESERVED_PART
    }
}

impl Writer {
    pub fn new(db: Held, settings: &Settings) -> Self {
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let damage = Damage::of(settings.database.clone());
        Writer { db, room: Room::new(settings), damage, is_lost: Arc::default() }
    }

    /// Writes all in one transaction. Where the database fails nothing of it is written, and every answer says so; damage is the
    /// fault of the entry it is met at alone.
    pub fn commit(&mut self, writes: &[Write]) -> Vec<Answer> {
        let answers = match self.check() {
            Ok(()) => self.try_commit(writes),
            Err(error) => Err(error),
        };
        self.db.renew();
        answers.unwrap_or_else(|error| writes.iter().map(|_| Err(error.clone())).collect())
    }

    /// Whether the file is not the one that was opened any more.
    pub fn lost(&self) -> Arc<AtomicBool> {
        self.is_lost.clone()
    }

    /// Whether the file is still the one that was opened. That it is not is logged once.
    fn check(&mut self) -> Result<(), KeyvalueError> {
        match self.db.check() {
            Ok(()) if self.is_lost.swap(false, Ordering::Relaxed) => {
                tracing::warn!("The key-value database is there again as it was; it is written to again.");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(lost) => {
                if !self.is_lost.swap(true, Ordering::Relaxed) {
                    tracing::error!("The key-value database cannot be written: {lost}");
                }
                let text =
                    "the key-value store: its file was moved, deleted or changed from outside; ACE's log says more";
                Err(KeyvalueError::Unavailable(text.to_owned()))
            }
        }
    }

    pub fn commit_one(&mut self, write: &Write) -> Answer {
        self.try_commit(std::slice::from_ref(write))?.remove(0)
    }

    fn try_commit(&mut self, writes: &[Write]) -> Result<Vec<Answer>, KeyvalueError> {
        let written = self.transact(|batch| {
            if let Some(now) = writes.iter().map(|write| write.now).max() {
                batch.sweep(now, SWEPT_PER_WRITE * writes.len() as i64)?;
            }
            let mut answers = Vec::with_capacity(writes.len());
            for write in writes {
                let place = || Damaged::Entry(write.bucket.clone(), write.key.clone());
                answers.push(match batch.attempt(place, |batch| batch.apply(write)) {
                    Ok(Ok(reply)) => Ok(reply),
                    Ok(Err(damage)) => Err(damaged(write, &damage)),
                    Err(Stop::Refused(error)) => Err(error),
                    Err(Stop::Broken(error)) => return Err(Stop::Broken(error)),
                });
            }
            Ok(answers)
        });
        written.map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Broken(error) => unavailable(error),
        })
    }

    /// Does all of the work in one transaction, or nothing of it. The work is done anew without what turns out to be damaged. Waits
    /// while another process writes.
    pub fn transact<T>(&mut self, mut work: impl FnMut(&mut Batch) -> Result<T, Stop>) -> Result<T, Stop> {
        loop {
            self.damage.begin();
            match self.transact_once(&mut work) {
                Err(Stop::Broken(error)) if !sqlite::is_general(&error) && self.damage.learn() => {}
                done => return done,
            }
        }
    }

    fn transact_once<T>(&mut self, work: impl FnOnce(&mut Batch) -> Result<T, Stop>) -> Result<T, Stop> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (room, damage) = (self.room, &mut self.damage);
        let mut batch = Batch { transaction, size: 0, grown: BTreeMap::new(), room, damage };
        let size = batch.attempt(
            || SIZES,
            |batch| {
                let mut size = batch.transaction.prepare_cached("SELECT size FROM store")?;
                Ok(size.query_one([], |row| row.get(0))?)
            },
        )?;
        batch.size = size.unwrap_or_default();
        let done = work(&mut batch)?;
        batch.commit()?;
        Ok(done)
    }
}

/// What whoever writes to a damaged entry is told.
fn damaged(write: &Write, damage: &str) -> KeyvalueError {
    let Write { bucket, key, .. } = write;
    KeyvalueError::Unavailable(format!("the key-value store: {bucket}/{key} is damaged: {damage}"))
}

/// Why a change was not made.
pub(super) enum Stop {
    /// It alone; nothing was changed by it.
    Refused(KeyvalueError),
    /// The database failed: the whole batch is void.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Broken(error)
    }
}

/// A transaction under way.
pub(super) struct Batch<'a> {
    transaction: Transaction<'a>,
    /// Entries and tokens, in all buckets, the expired ones too.
    size: i64,
    /// By how much each bucket grows.
    grown: BTreeMap<String, i64>,
    room: Room,
    pub(super) damage: &'a mut Damage,
}

/// What an entry has besides its name.
struct Entry {
    value: Vec<u8>,
    expires: Option<i64>,
    counter: Option<i64>,
    kind: Option<i64>,
}

/// What a write is about.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub origin: Origin,
}

impl Batch<'_> {
    pub fn apply(&mut self, write: &Write) -> Result<Reply, Stop> {
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
            Change::Panic => panic!("on purpose"),
            Change::Increment { by, expires, once } => {
                Reply::Count(self.increment(target, (*by, once.as_deref()), *expires, *now)?)
            }
            Change::CountOnce { by, expires, token } => {
                Reply::Counted(self.count_once(target, (*by, token), *expires, *now)?)
            }
            Change::TakePlace(wanted) => Reply::Place(self.take_place(target, wanted, *now)?),
            Change::GivePlaceBack { token } => {
                self.give_place_back(target, token, *now)?;
                Reply::Done
            }
        })
    }

    pub fn set(&mut self, target: Target, value: &[u8], expires: Option<i64>) -> Result<(), Stop> {
        let Target { bucket, key, .. } = target;
        let sql = "SELECT counter FROM entries WHERE bucket = ?1 AND key = ?2";
        let old: Option<Option<i64>> =
            self.transaction.prepare_cached(sql)?.query_row([bucket, key], |row| row.get(0)).optional()?;
        match old {
            None => self.make_room(target, 1)?,
            Some(counter) => self.forget_tokens(bucket, counter)?,
        }
        // What stands there already is not written again: facts loaded at each start cost no disk.
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
            self.forget_tokens(bucket, counter)?;
        }
        Ok(())
    }

    fn increment(
        &mut self,
        target: Target,
        (by, once): (i64, Option<&str>),
        expires: Option<i64>,
        now: i64,
    ) -> Result<i64, Stop> {
        let (before, old) = self.counter(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        let is_counted = once.map_or(Ok(false), |token| self.token(counter, token).map(|token| token.is_some()))?;
        if (by == 0 && once.is_none()) || is_counted {
            return Ok(before);
        }
        let after = before.saturating_add(by);
        self.make_room(target, i64::from(old.is_none()) + i64::from(once.is_some()))?;
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
    ) -> Result<Counted, Stop> {
        let (before, old) = self.counter(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        if let Some(at) = self.token(counter, token)? {
            return Ok(Counted { at: at.unwrap_or(before), total: before, is_first_time: false });
        }
        let after = before.saturating_add(by);
        self.make_room(target, 1 + i64::from(old.is_none()))?;
        let counter = self.add_token(counter, token, Some(after))?;
        self.write_digits(target, after, (expires, Some(counter), None))?;
        Ok(Counted { at: after, total: after, is_first_time: true })
    }

    fn take_place(&mut self, target: Target, wanted: &Wanted, now: i64) -> Result<Place, Stop> {
        let Target { bucket, key, .. } = target;
        let Wanted { token, limit, window_ms } = wanted;
        let old = self.places(target, now)?;
        let counter = old.as_ref().and_then(|entry| entry.counter);
        let since = now.saturating_sub(*window_ms);
        let lapsed = self.drop_lapsed(counter, since, now)?;
        self.grow(bucket, -lapsed);
        let used = database::used(&self.transaction, (bucket, key), (token, i64::from(*limit)), (since, now))?;
        let place = wanted.judge(used);
        if used.is_held || !place.is_granted {
            return Ok(place);
        }
        self.make_room(target, 1 + i64::from(old.is_none()))?;
        let counter = self.add_token(counter, token, Some(now))?;
        let expires = old.and_then(|entry| entry.expires).unwrap_or(i64::MIN).max(now.saturating_add(*window_ms));
        self.write_digits(target, used.n + 1, (Some(expires), Some(counter), Some(PLACES)))?;
        Ok(place)
    }

    fn give_place_back(&mut self, target: Target, token: &str, now: i64) -> Result<(), Stop> {
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

    /// The count of a live counter, 0 where there is none, and its entry.
    fn counter(&mut self, target: Target, now: i64) -> Result<(i64, Option<Entry>), Stop> {
        let Target { bucket, key, .. } = target;
        let Some(entry) = self.live_entry(bucket, key, now)? else { return Ok((0, None)) };
        let before = count(&entry.value).filter(|_| entry.kind.is_none());
        Ok((before.ok_or_else(|| Stop::Refused(no_counter(bucket, key)))?, Some(entry)))
    }

    /// The live entry of places.
    fn places(&mut self, target: Target, now: i64) -> Result<Option<Entry>, Stop> {
        let Target { bucket, key, .. } = target;
        let found = self.live_entry(bucket, key, now)?;
        if found.as_ref().is_some_and(|entry| entry.kind != Some(PLACES)) {
            return Err(Stop::Refused(super::places::no_places(bucket, key)));
        }
        Ok(found)
    }

    /// Drops the places of a window that has moved on; how many those were. A clock that was set back keeps none for longer.
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
        // A counter lives as long as it was to when it was made; places as long as the latest of them.
        let sql = "INSERT INTO entries (bucket, key, value, expires, counter, kind) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET value = excluded.value, counter = excluded.counter,
                expires = iif(excluded.kind = 1, excluded.expires, expires)";
        let digits = digits.to_string().into_bytes();
        let values = params![target.bucket, target.key, digits, expires, counter, kind];
        self.transaction.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// The entry; one whose time is over is removed.
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

    /// A token that was counted, and what it was counted as, where that is known.
    fn token(&self, counter: Option<i64>, token: &str) -> rusqlite::Result<Option<Option<i64>>> {
        let Some(counter) = counter else { return Ok(None) };
        let sql = "SELECT at FROM tokens WHERE counter = ?1 AND token = ?2";
        self.transaction.prepare_cached(sql)?.query_row(params![counter, token], |row| row.get(0)).optional()
    }

    /// Notes a token under a counter's number; a counter without one is given the next.
    fn add_token(&self, counter: Option<i64>, token: &str, at: Option<i64>) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO tokens (counter, token, at)
            VALUES (ifnull(?1, (SELECT ifnull(max(counter), 0) + 1 FROM tokens)), ?2, ?3) RETURNING counter";
        self.transaction.prepare_cached(sql)?.query_one(params![counter, token, at], |row| row.get(0))
    }

    fn forget_tokens(&mut self, bucket: &str, counter: Option<i64>) -> rusqlite::Result<()> {
        if let Some(counter) = counter {
            let forgotten =
                self.transaction.prepare_cached("DELETE FROM tokens WHERE counter = ?1")?.execute([counter])?;
            self.grow(bucket, -(forgotten as i64));
        }
        Ok(())
    }

    /// Throws out the longest expired entries; says whether there may be more. Those that are damaged stay.
    pub fn sweep(&mut self, now: i64, max: i64) -> Result<bool, Stop> {
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
            let place = || Damaged::Entry(text(bucket), text(key));
            let gone = self.attempt(place, |batch| match (std::str::from_utf8(bucket), std::str::from_utf8(key)) {
                (Ok(bucket), Ok(key)) => Ok(batch.remove(bucket, key)?),
                _ => Ok(batch.remove_bytes(bucket, key)?),
            })?;
            removed += i64::from(gone.is_ok());
        }
        Ok(removed > 0 && expired.len() as i64 == max)
    }

    /// Removes an entry whose name is not text: no caller can have written it.
    fn remove_bytes(&mut self, bucket: &[u8], key: &[u8]) -> rusqlite::Result<()> {
        let sql = "DELETE FROM entries WHERE bucket = CAST(?1 AS TEXT) AND key = CAST(?2 AS TEXT)";
        self.transaction.prepare_cached(sql)?.execute([bucket, key]).map(drop)
    }

    /// Counts what will be added, or refuses it.
    fn make_room(&mut self, target: Target, wanted: i64) -> Result<(), Stop> {
        let full = |text: String| Err(Stop::Refused(KeyvalueError::Full(text)));
        let Room { all, bucket: share } = self.room;
        let for_plugins = all - self.room.reserve();
        match target.origin {
            _ if wanted <= 0 => {}
            Origin::Application if self.size + wanted > all => {
                return full(format!("the store is full: {all} entries (keyvalue.max-entries)"));
            }
            Origin::Plugin if self.size + wanted > for_plugins => {
                return full(format!(
                    "the store is full for plugins: {for_plugins} entries, the rest of {all} is for applications (keyvalue.max-entries)"
                ));
            }
            Origin::Plugin if self.bucket_size(target.bucket)? + wanted > share => {
                let bucket = target.bucket;
                return full(format!(
                    "the bucket {bucket} is full for plugins: {share} entries (keyvalue.max-bucket-entries)"
                ));
            }
            Origin::Application | Origin::Plugin => {}
        }
        self.grow(target.bucket, wanted);
        Ok(())
    }

    fn bucket_size(&mut self, bucket: &str) -> Result<i64, Stop> {
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

    fn commit(mut self) -> Result<(), Stop> {
        let grown = std::mem::take(&mut self.grown);
        // Where they are damaged, that was told.
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

/// The way to the thread that holds the [`Writer`] of a file. The thread ends when this is dropped.
pub(super) struct Queue(mpsc::Sender<(Write, oneshot::Sender<Answer>)>);

impl Queue {
    /// Writes; done means that it is on the disk.
    pub async fn commit(&self, write: Write) -> Answer {
        let gone = || KeyvalueError::Unavailable("the key-value store: its writer has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send((write, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Completes when the thread has ended.
    pub async fn ended(&self) {
        self.0.closed().await;
    }
}

/// Starts the thread. It commits whatever waits in one transaction: the next batch gathers while the disk is at work.
pub(super) fn start(mut writer: Writer) -> io::Result<Queue> {
    let (sender, mut requests) = mpsc::channel(QUEUE_MAX);
    std::thread::Builder::new().name("keyvalue".to_owned()).spawn(move || {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        while requests.blocking_recv_many(&mut waiting, BATCH_MAX) > 0 {
            let (writes, waiters): (Vec<Write>, Vec<oneshot::Sender<Answer>>) = waiting.drain(..).unzip();
            for (waiter, answer) in waiters.into_iter().zip(writer.commit(&writes)) {
                // A caller that was cut off waits for no answer.
                let _ = waiter.send(answer);
            }
        }
    })?;
    Ok(Queue(sender))
}
