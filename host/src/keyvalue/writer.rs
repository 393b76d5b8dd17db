//! The one that changes the store: many changes to a transaction, each with its own answer.

use std::io;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{KeyvalueError, count, no_counter, unavailable};
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
}

/// The count after an increment, 0 after anything else.
type Answer = Result<i64, KeyvalueError>;

/// Holds the connection for writing.
pub(super) struct Writer {
    pub db: Held,
    max_entries: i64,
    /// The file is not the one that was opened any more.
    is_lost: bool,
}

impl Writer {
    pub fn new(db: Held, max_entries: usize) -> Self {
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Writer { db, max_entries: i64::try_from(max_entries).unwrap_or(i64::MAX), is_lost: false }
    }

    /// Writes all in one transaction. Where the database fails nothing of it is written, and every answer says so.
    pub fn commit(&mut self, writes: &[Write]) -> Vec<Answer> {
        let answers = match self.check() {
            Ok(()) => self.try_commit(writes).map_err(unavailable),
            Err(error) => Err(error),
        };
        self.db.renew();
        answers.unwrap_or_else(|error| writes.iter().map(|_| Err(error.clone())).collect())
    }

    /// Whether the file is still the one that was opened. That it is not is logged once.
    fn check(&mut self) -> Result<(), KeyvalueError> {
        match self.db.check() {
            Ok(()) if std::mem::take(&mut self.is_lost) => {
                tracing::warn!("The key-value database is there again as it was; it is written to again.");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(lost) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    tracing::error!("The key-value database cannot be written: {lost}");
                }
                let text =
                    "the key-value store: its file was moved, deleted or changed from outside; ACE's log says more";
                Err(KeyvalueError::Unavailable(text.to_owned()))
            }
        }
    }

    pub fn commit_one(&mut self, write: &Write) -> Answer {
        self.try_commit(std::slice::from_ref(write)).map_err(unavailable)?.remove(0)
    }

    fn try_commit(&mut self, writes: &[Write]) -> rusqlite::Result<Vec<Answer>> {
        let mut batch = self.begin()?;
        if let Some(now) = writes.iter().map(|write| write.now).max() {
            batch.sweep(now, SWEPT_PER_WRITE * writes.len() as i64)?;
        }
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            answers.push(match batch.apply(write) {
                Ok(count) => Ok(count),
                Err(Stop::Refused(error)) => Err(error),
                Err(Stop::Broken(error)) => return Err(error),
            });
        }
        batch.commit()?;
        Ok(answers)
    }

    /// Begins a transaction; dropping it undoes it. Waits while another process writes.
    pub fn begin(&mut self) -> rusqlite::Result<Batch<'_>> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let size = transaction.prepare_cached("SELECT size FROM store")?.query_one([], |row| row.get(0))?;
        Ok(Batch { transaction, size, size_before: size, max_entries: self.max_entries })
    }
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
    size_before: i64,
    max_entries: i64,
}

/// What an entry has besides its name.
struct Entry {
    value: Vec<u8>,
    expires: Option<i64>,
    counter: Option<i64>,
}

impl Batch<'_> {
    pub fn apply(&mut self, write: &Write) -> Result<i64, Stop> {
        let Write { bucket, key, change, now } = write;
        match change {
            Change::Set { value, expires } => self.set(bucket, key, value, *expires).map(|()| 0),
            Change::Delete => Ok(self.remove(bucket, key).map(|()| 0)?),
            Change::Increment { by, expires, once } => {
                self.increment((bucket, key), (*by, once.as_deref()), *expires, *now)
            }
        }
    }

    pub fn set(&mut self, bucket: &str, key: &str, value: &[u8], expires: Option<i64>) -> Result<(), Stop> {
        let sql = "SELECT counter FROM entries WHERE bucket = ?1 AND key = ?2";
        let old: Option<Option<i64>> =
            self.transaction.prepare_cached(sql)?.query_row([bucket, key], |row| row.get(0)).optional()?;
        match old {
            None => self.make_room(1)?,
            Some(counter) => self.forget_tokens(counter)?,
        }
        // What stands there already is not written again: facts loaded at each start cost no disk.
        let sql = "INSERT INTO entries (bucket, key, value, expires) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET value = excluded.value, expires = excluded.expires, counter = NULL
            WHERE value <> excluded.value OR expires IS NOT excluded.expires OR counter IS NOT NULL";
        self.transaction.prepare_cached(sql)?.execute(params![bucket, key, value, expires])?;
        Ok(())
    }

    fn remove(&mut self, bucket: &str, key: &str) -> rusqlite::Result<()> {
        let sql = "DELETE FROM entries WHERE bucket = ?1 AND key = ?2 RETURNING counter";
        let removed: Option<Option<i64>> =
            self.transaction.prepare_cached(sql)?.query_row([bucket, key], |row| row.get(0)).optional()?;
        if let Some(counter) = removed {
            self.size -= 1;
            self.forget_tokens(counter)?;
        }
        Ok(())
    }

    fn increment(
        &mut self,
        (bucket, key): (&str, &str),
        (by, once): (i64, Option<&str>),
        expires: Option<i64>,
        now: i64,
    ) -> Result<i64, Stop> {
        let old = self.live_entry(bucket, key, now)?;
        let before = match &old {
            Some(entry) => count(&entry.value).ok_or_else(|| Stop::Refused(no_counter(bucket, key)))?,
            None => 0,
        };
        let mut counter = old.as_ref().and_then(|entry| entry.counter);
        if (by == 0 && once.is_none()) || self.has_token(counter, once)? {
            return Ok(before);
        }
        self.make_room(i64::from(old.is_none()) + i64::from(once.is_some()))?;
        if let Some(token) = once {
            counter = Some(self.add_token(counter, token)?);
        }
        let after = before.saturating_add(by);
        let sql = "INSERT INTO entries (bucket, key, value, expires, counter) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET value = excluded.value, counter = excluded.counter";
        let digits = after.to_string().into_bytes();
        self.transaction.prepare_cached(sql)?.execute(params![bucket, key, digits, expires, counter])?;
        Ok(after)
    }

    /// The entry; one whose time is over is removed.
    fn live_entry(&mut self, bucket: &str, key: &str, now: i64) -> rusqlite::Result<Option<Entry>> {
        let sql = "SELECT value, expires, counter FROM entries WHERE bucket = ?1 AND key = ?2";
        let read = |row: &rusqlite::Row| Ok(Entry { value: row.get(0)?, expires: row.get(1)?, counter: row.get(2)? });
        let found = self.transaction.prepare_cached(sql)?.query_row([bucket, key], read).optional()?;
        if found.as_ref().is_some_and(|entry| entry.expires.is_some_and(|at| at <= now)) {
            self.remove(bucket, key)?;
            return Ok(None);
        }
        Ok(found)
    }

    fn has_token(&self, counter: Option<i64>, once: Option<&str>) -> rusqlite::Result<bool> {
        let (Some(counter), Some(token)) = (counter, once) else { return Ok(false) };
        let sql = "SELECT 1 FROM tokens WHERE counter = ?1 AND token = ?2";
        self.transaction.prepare_cached(sql)?.exists(params![counter, token])
    }

    /// Notes a token under a counter's number; a counter without one is given the next.
    fn add_token(&self, counter: Option<i64>, token: &str) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO tokens (counter, token)
            VALUES (ifnull(?1, (SELECT ifnull(max(counter), 0) + 1 FROM tokens)), ?2) RETURNING counter";
        self.transaction.prepare_cached(sql)?.query_one(params![counter, token], |row| row.get(0))
    }

    fn forget_tokens(&mut self, counter: Option<i64>) -> rusqlite::Result<()> {
        if let Some(counter) = counter {
            let forgotten =
                self.transaction.prepare_cached("DELETE FROM tokens WHERE counter = ?1")?.execute([counter])?;
            self.size -= forgotten as i64;
        }
        Ok(())
    }

    /// Throws out the longest expired entries; says whether there may be more.
    pub fn sweep(&mut self, now: i64, max: i64) -> rusqlite::Result<bool> {
        let sql = "SELECT bucket, key FROM entries WHERE expires <= ?1 ORDER BY expires LIMIT ?2";
        let expired: Vec<(String, String)> = self
            .transaction
            .prepare_cached(sql)?
            .query_map(params![now, max], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (bucket, key) in &expired {
            self.remove(bucket, key)?;
        }
        Ok(expired.len() as i64 == max)
    }

    /// Counts what will be added, or refuses it.
    fn make_room(&mut self, wanted: i64) -> Result<(), Stop> {
        if wanted > 0 && self.size + wanted > self.max_entries {
            let text = format!("the store is full: {} entries (keyvalue.max-entries)", self.max_entries);
            return Err(Stop::Refused(KeyvalueError::Quota(text)));
        }
        self.size += wanted;
        Ok(())
    }

    pub fn commit(self) -> rusqlite::Result<()> {
        if self.size != self.size_before {
            self.transaction.prepare_cached("UPDATE store SET size = ?1")?.execute([self.size])?;
        }
        self.transaction.commit()
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
