//! The facts and counters behind the `keyvalue` import: buckets of keys, shared by all plugins that are granted them.
//!
//! An SQLite database keeps them, in a file or in memory. A counter reads as its decimal digits.
//!
//! - [`database`]: opening a file, its tables, reading
//! - [`writer`]: changes, many to a transaction; [`batch`]: one transaction
//! - [`damage`]: a damaged entry affects no other entry
//! - [`facts`]: the NDJSON files loaded at the start
//! - [`places`]: caps over a sliding window
//! - [`overlay`]: writes of calls that must change nothing
//!
//! Reads run on the caller's thread: microseconds, on a connection of their own, never waiting for a writer. Writes to a file
//! go through one thread that commits all waiting writes in one transaction: the caller's thread does no fsync, and a write
//! completes when it is on the disk.

mod batch;
mod damage;
mod database;
mod facts;
mod overlay;
mod places;
mod settings;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::sqlite::Readers;
use places::Wanted;
use writer::{Change, Queue, Reply, Write, Writer};

pub use overlay::Overlay;
pub use places::Place;
pub use settings::{Settings, is_bucket};

/// The longest key and the longest once-token, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 512;

/// Connections for reading one file; a reader that finds none free waits for the first.
const READERS_MAX: usize = 8;

/// Why a call could not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalueError {
    /// A name, token or value that exceeds a limit.
    #[error("{0}")]
    Quota(String),
    /// No further entry fits. Existing entries can still be written and deleted.
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Unavailable(String),
}

/// A database that cannot be opened, or a facts file that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
pub struct FileError {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub message: String,
}

/// How a counter is counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step<'a> {
    /// Nothing is made or changed by 0 without a token.
    pub by: i64,
    /// Starts when the counter is made: a fixed window.
    pub ttl: Option<Duration>,
    /// The same token counts once in the counter's life.
    pub once: Option<&'a str>,
}

/// What a token was counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The count when this token was counted, its own part included. Where that is not known, the count now.
    pub at: i64,
    /// The count now.
    pub total: i64,
    /// This call counted it.
    pub is_first_time: bool,
}

/// Who writes: plugins cannot use the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Application,
    Plugin,
}

/// The store, as applications or as plugins write to it. Dropping a future of a write leaves it open whether it is written.
pub struct Keyvalue {
    store: Arc<Store>,
    max_value_bytes: usize,
    origin: Origin,
}

enum Store {
    /// One connection serves all: nothing it does waits for a disk.
    Memory(Box<Mutex<Writer>>),
    File {
        readers: Readers,
        writer: Queue,
        is_lost: Arc<AtomicBool>,
    },
}

impl Keyvalue {
    /// Opens the database, or creates it, and loads the configured files into it. Blocks; not for an async thread.
    ///
    /// # Errors
    /// The database cannot be opened, or a file cannot be loaded.
    pub fn load(settings: &Settings, now: Timestamp) -> Result<Self, FileError> {
        let opened = |store| {
            let max_value_bytes = settings.max_value_bytes;
            Keyvalue { store: Arc::new(store), max_value_bytes, origin: Origin::Application }
        };
        let Some(file) = &settings.database else {
            let fail = |e| FileError { file: "keyvalue".into(), line: None, message: crate::sqlite::describe(&e) };
            let mut writer = Writer::new(database::in_memory().map_err(fail)?, settings);
            facts::load(&mut writer, settings, now)?;
            return Ok(opened(Store::Memory(Box::new(Mutex::new(writer)))));
        };
        let fail = |message| FileError { file: file.clone(), line: None, message };
        let mut writer = Writer::new(database::open(file, settings.access).map_err(fail)?, settings);
        facts::load(&mut writer, settings, now)?;
        writer.db.renew();
        let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(READERS_MAX));
        let hold = writer.db.hold().cloned().expect("a file is held");
        let readers = Readers::open(count, || database::reader(file, hold.clone()));
        let readers = readers.map_err(|e| fail(crate::sqlite::describe(&e)))?;
        let is_lost = writer.lost();
        let writer = writer::start(writer).map_err(|e| fail(format!("its thread cannot be started: {e}")))?;
        Ok(opened(Store::File { readers, writer, is_lost }))
    }

    /// The same store as plugins write to it: they leave a tenth of it to applications, and have a share of each bucket.
    pub fn for_plugins(&self) -> Keyvalue {
        Keyvalue { store: self.store.clone(), max_value_bytes: self.max_value_bytes, origin: Origin::Plugin }
    }

    /// Why nothing can be written, if that is permanent.
    pub fn fault(&self) -> Option<&'static str> {
        match &*self.store {
            Store::File { is_lost, .. } if is_lost.load(Ordering::Relaxed) => Some(
                "its file was moved, deleted or changed from outside, and nothing is written to it; ACE's log says more",
            ),
            _ => None,
        }
    }

    /// The value of an entry; `None` if there is none or it has expired.
    pub fn get(&self, bucket: &str, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, KeyvalueError> {
        self.check(bucket, key, None)?;
        self.read(|db| database::value(db, bucket, key, now.as_millisecond()))
    }

    /// Whether a counter that is there has counted this token, and as what where that is known.
    fn counted(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<Option<i64>>, KeyvalueError> {
        self.read(|db| database::counted(db, bucket, key, token, now.as_millisecond()))
    }

    /// The places that are in use, of which so many more are in use elsewhere.
    fn used(
        &self,
        bucket: &str,
        key: &str,
        (wanted, elsewhere): (&Wanted, i64),
        now: Timestamp,
    ) -> Result<database::Used, KeyvalueError> {
        let now = now.as_millisecond();
        let span = (now.saturating_sub(wanted.window_ms), now);
        let limit = i64::from(wanted.limit) - elsewhere;
        let mut used = self.read(|db| database::used(db, (bucket, key), (&wanted.token, limit), span))?;
        used.n += elsewhere;
        Ok(used)
    }

    /// Stores a value, for `ttl` or until it is deleted.
    pub async fn set(
        &self,
        bucket: &str,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), KeyvalueError> {
        self.check(bucket, key, Some(&value))?;
        self.write(bucket, key, Change::Set { value, expires: expiry(ttl, now) }, now).await.map(drop)
    }

    /// Deletes a value; none there is no error.
    pub async fn delete(&self, bucket: &str, key: &str, now: Timestamp) -> Result<(), KeyvalueError> {
        self.check(bucket, key, None)?;
        self.write(bucket, key, Change::Delete, now).await.map(drop)
    }

    /// Adds to a counter and returns the new count, atomically. It stops at the ends of 64 bits.
    pub async fn increment(
        &self,
        bucket: &str,
        key: &str,
        step: Step<'_>,
        now: Timestamp,
    ) -> Result<i64, KeyvalueError> {
        self.check_step(bucket, key, step)?;
        let Step { by, ttl, once } = step;
        let change = Change::Increment { by, expires: expiry(ttl, now), once: once.map(str::to_owned) };
        match self.write(bucket, key, change, now).await? {
            Reply::Count(count) => Ok(count),
            other => Err(unexpected(other)),
        }
    }

    /// Adds to a counter once for each token, atomically, and says what the token was counted as.
    ///
    /// # Errors
    ///
    /// [`KeyvalueError::Quota`] for names that are too long, [`KeyvalueError::Full`] where a new token does not fit,
    /// [`KeyvalueError::Unavailable`] where the key holds no counter or the store cannot be written.
    pub async fn count_once(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        (by, ttl): (i64, Option<Duration>),
        now: Timestamp,
    ) -> Result<Counted, KeyvalueError> {
        self.check_step(bucket, key, Step { once: Some(token), ..Step::default() })?;
        let change = Change::CountOnce { by, expires: expiry(ttl, now), token: token.to_owned() };
        match self.write(bucket, key, change, now).await? {
            Reply::Counted(counted) => Ok(counted),
            other => Err(unexpected(other)),
        }
    }

    /// Takes one of `limit` places for a token, where one is free within the last `window`. A token that gets none uses none. All
    /// calls for one key name the same window.
    ///
    /// # Errors
    ///
    /// As [`Keyvalue::count_once`]; also [`KeyvalueError::Quota`] for a limit of 0.
    pub async fn take_place(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        (limit, window): (u32, Duration),
        now: Timestamp,
    ) -> Result<Place, KeyvalueError> {
        let wanted = self.wanted(bucket, key, token, limit, window)?;
        match self.write(bucket, key, Change::TakePlace(wanted), now).await? {
            Reply::Place(place) => Ok(place),
            other => Err(unexpected(other)),
        }
    }

    /// Releases a token's place; none is no error.
    ///
    /// # Errors
    ///
    /// [`KeyvalueError::Quota`] for names that are too long, [`KeyvalueError::Unavailable`] where the key holds no places or the
    /// store cannot be written.
    pub async fn give_place_back(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<(), KeyvalueError> {
        self.check_step(bucket, key, Step { once: Some(token), ..Step::default() })?;
        self.write(bucket, key, Change::GivePlaceBack { token: token.to_owned() }, now).await.map(drop)
    }

    fn wanted(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        limit: u32,
        window: Duration,
    ) -> Result<Wanted, KeyvalueError> {
        self.check_step(bucket, key, Step { once: Some(token), ..Step::default() })?;
        if limit == 0 {
            return Err(KeyvalueError::Quota(format!("{bucket}/{key}: a limit of 0 places leaves none to take")));
        }
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        Ok(Wanted { token: token.to_owned(), limit, window_ms })
    }

    /// Completes when the thread that writes has ended, which it does by itself only after a bug. Never, where there is none.
    pub async fn ended(&self) {
        match &*self.store {
            Store::Memory(_) => std::future::pending().await,
            Store::File { writer, .. } => writer.ended().await,
        }
    }

    /// Ends the thread that writes, as a bug in a change would: for tests of what comes of it.
    #[doc(hidden)]
    pub async fn break_writer(&self) {
        self.write("b", "k", Change::Panic, Timestamp::UNIX_EPOCH).await.expect_err("its thread has ended");
    }

    /// Refuses names and values that exceed a limit.
    fn check(&self, bucket: &str, key: &str, value: Option<&[u8]>) -> Result<(), KeyvalueError> {
        check(bucket, key, value.map_or(0, <[u8]>::len), self.max_value_bytes)
    }

    fn check_step(&self, bucket: &str, key: &str, step: Step) -> Result<(), KeyvalueError> {
        self.check(bucket, key, None)?;
        step.once.map_or(Ok(()), short)
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, KeyvalueError> {
        let answer = match &*self.store {
            Store::Memory(writer) => ask(&lock(writer).db),
            Store::File { readers, .. } => readers.read(ask),
        };
        answer.map_err(unavailable)
    }

    async fn write(&self, bucket: &str, key: &str, change: Change, now: Timestamp) -> Result<Reply, KeyvalueError> {
        let (bucket, key, origin) = (bucket.to_owned(), key.to_owned(), self.origin);
        let write = Write { bucket, key, change, origin, now: now.as_millisecond() };
        match &*self.store {
            Store::Memory(writer) => lock(writer).commit_one(&write),
            Store::File { writer, .. } => writer.commit(write).await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that panicked was rolled back, so the guarded state is valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(bucket: &str, key: &str, value_bytes: usize, max_value_bytes: usize) -> Result<(), KeyvalueError> {
    let quota = |text| Err(KeyvalueError::Quota(text));
    if !is_bucket(bucket) {
        let name = &bucket[..bucket.floor_char_boundary(40)];
        return quota(format!("{name:?} is not a valid bucket name: at most 128 letters, digits, `-`, `_` and `.`"));
    }
    short(key)?;
    if value_bytes > max_value_bytes {
        let limit = format!("the limit is {max_value_bytes} (keyvalue.max-value-bytes)");
        return quota(format!("{bucket}/{key}: {value_bytes} bytes, {limit}"));
    }
    Ok(())
}

/// Refuses a key or a token that is too long.
fn short(name: &str) -> Result<(), KeyvalueError> {
    match name.len() {
        is if is > KEY_BYTES_MAX => {
            Err(KeyvalueError::Quota(format!("a key or token of {is} bytes, the limit is {KEY_BYTES_MAX}")))
        }
        _ => Ok(()),
    }
}

/// The error as a guest sees it: without the file's path.
fn unavailable(error: rusqlite::Error) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("the key-value store: {}", crate::sqlite::describe(&error)))
}

/// The moment of expiry, in milliseconds.
fn expiry(ttl: Option<Duration>, now: Timestamp) -> Option<i64> {
    // A time to live that ends after the last representable moment never ends.
    ttl.and_then(|ttl| now.checked_add(ttl).ok()).map(Timestamp::as_millisecond)
}

/// What a counter's digits say.
fn count(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn unexpected(reply: Reply) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("the key-value store answered {reply:?}"))
}

fn no_counter(bucket: &str, key: &str) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("{bucket}/{key} holds a value that is not a counter"))
}
