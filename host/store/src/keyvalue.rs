//! The key-value store behind the `keyvalue` import: entries and counters in buckets, shared by all plugins with a grant.
//!
//! They are stored in an SQLite database, in a file or in memory. The value of a counter is its decimal digits.
//!
//! - [`database`]: opening the file, its tables, and queries
//! - [`writer`]: group commit of changes; [`batch`]: one transaction
//! - [`damage`]: damaged entries, which affect no other entry
//! - [`entry_files`]: NDJSON files with entries, loaded at the start
//! - [`places`]: limits over a sliding window
//! - [`overlay`]: writes of dry calls, which must not change the store
//!
//! A read runs on the caller's thread: it takes microseconds on a separate connection and never waits for a writer. Writes to a file go
//! through one thread, which commits all waiting writes in one transaction. A write completes when it is on the disk.

mod batch;
mod damage;
mod database;
mod entry_files;
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
use places::PlaceRequest;
use writer::{Change, Reply, Sender, Write, Writer};

pub use overlay::Overlay;
pub use places::Place;
pub use settings::{Settings, is_bucket};

/// The longest key and the longest token, in bytes of UTF-8.
const KEY_BYTES_MAX: usize = 512;

/// The bucket of the host itself. It is not a valid name for a bucket, so no grant, file or request can name it.
const HOST_BUCKET: &str = "ace:host";

/// Connections for reading, at most.
const READERS_MAX: usize = 8;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalueError {
    /// A name, token or value exceeds a limit.
    #[error("{0}")]
    Quota(String),
    /// The store is full. Existing entries can still be changed and deleted.
    #[error("{0}")]
    Full(String),
    /// The store cannot be read or written, or the entry does not hold what the operation needs.
    #[error("{0}")]
    Unavailable(String),
}

/// A database that cannot be opened, or a file with entries that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
pub struct FileError {
    /// The database, or the file with entries.
    pub file: PathBuf,
    /// The line with the error, from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// A change of a counter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step<'a> {
    /// The amount to add. 0 without a token only reads the counter.
    pub by: i64,
    /// When the counter expires, from its creation: a fixed window.
    pub ttl: Option<Duration>,
    /// A token that is counted once while the counter exists.
    pub once: Option<&'a str>,
}

/// The result of counting a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The count after this token was first counted; if that is not known, the current count.
    pub at: i64,
    /// The current count.
    pub total: i64,
    /// The token was counted by this call.
    pub is_first_time: bool,
}

/// Who writes. Plugins cannot use the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Application,
    Plugin,
}

/// A handle to the store, for applications or for plugins. If the future of a write is dropped, the write may or may not happen.
pub struct Keyvalue {
    store: Arc<Store>,
    max_value_bytes: usize,
    origin: Origin,
}

enum Store {
    /// One connection for everything, because it never waits for a disk.
    Memory(Box<Mutex<Writer>>),
    File {
        readers: Readers,
        writer: Sender,
        is_lost: Arc<AtomicBool>,
    },
}

impl Keyvalue {
    /// Opens or creates the database, and loads the configured files into it. Blocks; must not be called on an async thread.
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
            entry_files::load(&mut writer, settings, now)?;
            return Ok(opened(Store::Memory(Box::new(Mutex::new(writer)))));
        };
        let fail = |message| FileError { file: file.clone(), line: None, message };
        let mut writer = Writer::new(database::open(file, settings.access).map_err(fail)?, settings);
        entry_files::load(&mut writer, settings, now)?;
        writer.db.renew();
        let count = std::thread::available_parallelism().map_or(1, |n| n.get().min(READERS_MAX));
        let lock = writer.db.lock().cloned().expect("a file is held");
        let readers = Readers::open(count, || database::open_reader(file, lock.clone()));
        let readers = readers.map_err(|e| fail(crate::sqlite::describe(&e)))?;
        let is_lost = writer.lost();
        let writer = writer::start(writer).map_err(|e| fail(format!("its writer thread cannot be started: {e}")))?;
        Ok(opened(Store::File { readers, writer, is_lost }))
    }

    /// A handle for plugins: they cannot use the tenth of the store that is reserved for applications, and have a limited share of each
    /// bucket.
    pub fn for_plugins(&self) -> Keyvalue {
        Keyvalue { store: self.store.clone(), max_value_bytes: self.max_value_bytes, origin: Origin::Plugin }
    }

    /// Why nothing can be written until an operator intervenes, if so.
    pub fn fault(&self) -> Option<&'static str> {
        match &*self.store {
            Store::File { is_lost, .. } if is_lost.load(Ordering::Relaxed) => Some(
                "its file was moved, deleted or overwritten by something else, and nothing is written to it; see ACE's log",
            ),
            _ => None,
        }
    }

    /// The value of an entry; `None` if there is none or it has expired.
    ///
    /// # Errors
    /// [`KeyvalueError::Quota`] for names that are too long, [`KeyvalueError::Unavailable`].
    pub fn get(&self, bucket: &str, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, KeyvalueError> {
        self.check(bucket, key, None)?;
        self.read(|db| database::value(db, bucket, key, now.as_millisecond()))
    }

    /// The first entries of a bucket after a key that have not expired, in the order of their keys; at most `limit`. Counters are
    /// entries, too. Blocks longer than other reads.
    ///
    /// # Errors
    /// As [`Keyvalue::get`].
    pub fn list(
        &self,
        bucket: &str,
        after: &str,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<(String, Vec<u8>)>, KeyvalueError> {
        self.check(bucket, after, None)?;
        self.read(|db| database::list(db, (bucket, after), limit, now.as_millisecond()))
    }

    /// Whether a counter has counted this token, and the count at that time if known.
    fn counted(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<Option<i64>>, KeyvalueError> {
        self.read(|db| database::counted(db, bucket, key, token, now.as_millisecond()))
    }

    /// The places in use, in the store and `elsewhere`.
    fn used(
        &self,
        bucket: &str,
        key: &str,
        (request, elsewhere): (&PlaceRequest, i64),
        now: Timestamp,
    ) -> Result<database::PlaceUsage, KeyvalueError> {
        let now = now.as_millisecond();
        let span = (now.saturating_sub(request.window_ms), now);
        let limit = i64::from(request.limit) - elsewhere;
        let mut used = self.read(|db| database::used(db, (bucket, key), (&request.token, limit), span))?;
        used.n += elsewhere;
        Ok(used)
    }

    /// Stores a value, for `ttl` or until it is deleted.
    ///
    /// # Errors
    /// [`KeyvalueError::Quota`] for names and values that are too long, [`KeyvalueError::Full`], [`KeyvalueError::Unavailable`].
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

    /// Deletes an entry, if there is one.
    ///
    /// # Errors
    /// As [`Keyvalue::get`].
    pub async fn delete(&self, bucket: &str, key: &str, now: Timestamp) -> Result<(), KeyvalueError> {
        self.check(bucket, key, None)?;
        self.write(bucket, key, Change::Delete, now).await.map(drop)
    }

    /// The value of an entry of the host itself, which no plugin can have a grant for.
    ///
    /// # Errors
    /// As [`Keyvalue::get`].
    pub fn host_entry(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, KeyvalueError> {
        check_length(key)?;
        self.read(|db| database::value(db, HOST_BUCKET, key, now.as_millisecond()))
    }

    /// Stores a value for the host itself, for `ttl` or until it is replaced.
    ///
    /// # Errors
    /// As [`Keyvalue::set`].
    pub async fn set_host_entry(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), KeyvalueError> {
        check_length(key)?;
        self.write(HOST_BUCKET, key, Change::Set { value, expires: expiry(ttl, now) }, now).await.map(drop)
    }

    /// Adds to a counter and returns the new count, atomically. The count saturates at the limits of 64 bits.
    ///
    /// # Errors
    /// As [`Keyvalue::count_once`].
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

    /// Adds to a counter once for each token, atomically.
    ///
    /// # Errors
    /// [`KeyvalueError::Quota`] for names that are too long, [`KeyvalueError::Full`] if there is no room for a new token,
    /// [`KeyvalueError::Unavailable`] if the entry is not a counter or the store cannot be written.
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

    /// Takes one of `limit` places within a sliding `window` for a token, if one is free. All calls for a key must use the same window.
    ///
    /// # Errors
    /// As [`Keyvalue::count_once`]; also [`KeyvalueError::Quota`] for a limit of 0.
    pub async fn take_place(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        (limit, window): (u32, Duration),
        now: Timestamp,
    ) -> Result<Place, KeyvalueError> {
        let request = self.request(bucket, key, token, limit, window)?;
        match self.write(bucket, key, Change::TakePlace(request), now).await? {
            Reply::Place(place) => Ok(place),
            other => Err(unexpected(other)),
        }
    }

    /// Releases a token's place, if it has one.
    ///
    /// # Errors
    /// [`KeyvalueError::Quota`] for names that are too long, [`KeyvalueError::Unavailable`] if the entry does not hold places or the
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

    fn request(
        &self,
        bucket: &str,
        key: &str,
        token: &str,
        limit: u32,
        window: Duration,
    ) -> Result<PlaceRequest, KeyvalueError> {
        self.check_step(bucket, key, Step { once: Some(token), ..Step::default() })?;
        if limit == 0 {
            return Err(KeyvalueError::Quota(format!("{bucket}/{key}: the limit of places must be at least 1")));
        }
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        Ok(PlaceRequest { token: token.to_owned(), limit, window_ms })
    }

    /// Completes when the writer thread has ended, which happens only after a bug. Never completes for a store in memory.
    pub async fn ended(&self) {
        match &*self.store {
            Store::Memory(_) => std::future::pending().await,
            Store::File { writer, .. } => writer.ended().await,
        }
    }

    /// For [`crate::faults`].
    pub(crate) async fn end_writer(&self) {
        self.write("b", "k", Change::Panic, Timestamp::UNIX_EPOCH).await.expect_err("its thread has ended");
    }

    /// Rejects names and values that exceed a limit.
    fn check(&self, bucket: &str, key: &str, value: Option<&[u8]>) -> Result<(), KeyvalueError> {
        check(bucket, key, value.map_or(0, <[u8]>::len), self.max_value_bytes)
    }

    fn check_step(&self, bucket: &str, key: &str, step: Step) -> Result<(), KeyvalueError> {
        self.check(bucket, key, None)?;
        step.once.map_or(Ok(()), check_length)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, KeyvalueError> {
        let answer = match &*self.store {
            Store::Memory(writer) => query(&lock(writer).db),
            Store::File { readers, .. } => readers.read(query),
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
    // A transaction that panicked was rolled back, so the state is valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(bucket: &str, key: &str, value_bytes: usize, max_value_bytes: usize) -> Result<(), KeyvalueError> {
    let quota = |text| Err(KeyvalueError::Quota(text));
    if !is_bucket(bucket) {
        let name = &bucket[..bucket.floor_char_boundary(40)];
        return quota(format!("{name:?} is not a valid bucket name: at most 128 letters, digits, `-`, `_` and `.`"));
    }
    check_length(key)?;
    if value_bytes > max_value_bytes {
        let limit = format!("the limit is {max_value_bytes} (keyvalue.max-value-bytes)");
        return quota(format!("{bucket}/{key}: {value_bytes} bytes, {limit}"));
    }
    Ok(())
}

/// Rejects a key or token that is too long.
fn check_length(name: &str) -> Result<(), KeyvalueError> {
    let bytes = name.len();
    if bytes > KEY_BYTES_MAX {
        return Err(KeyvalueError::Quota(format!("a key or token of {bytes} bytes, the limit is {KEY_BYTES_MAX}")));
    }
    Ok(())
}

/// The error as guests see it: without the file's path.
fn unavailable(error: rusqlite::Error) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("the key-value store: {}", crate::sqlite::describe(&error)))
}

/// The time of expiry, in milliseconds since 1970.
fn expiry(ttl: Option<Duration>, now: Timestamp) -> Option<i64> {
    // A time after the last representable one is never.
    ttl.and_then(|ttl| now.checked_add(ttl).ok()).map(Timestamp::as_millisecond)
}

/// The count in a counter's value.
fn count(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn unexpected(reply: Reply) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("the key-value store sent an unexpected reply: {reply:?}"))
}

fn not_a_counter(bucket: &str, key: &str) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("{bucket}/{key} is not a counter"))
}
