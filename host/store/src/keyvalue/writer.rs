//! The writer: commits many changes in one transaction, each with its own reply.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::TransactionBehavior;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::damage::{Damage, Location, SIZES};
use super::places::{Place, PlaceRequest};
use super::{Counted, KeyvalueError, Origin, Settings, unavailable};
use crate::sqlite::group_commit::{self, Ended, Urgency};
use crate::sqlite::{self, Database};

/// Expired entries that are deleted per write: more than a write can add, so that they do not accumulate.
const EXPIRED_PER_WRITE: i64 = 4;

/// The cache of prepared statements: more than there are.
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
        /// Only for a new counter.
        expires: Option<i64>,
        once: Option<String>,
    },
    CountOnce {
        by: i64,
        /// Only for a new counter.
        expires: Option<i64>,
        token: String,
    },
    TakePlace(PlaceRequest),
    GivePlaceBack {
        token: String,
    },
    /// For [`crate::faults`].
    Panic,
}

/// The result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    Count(i64),
    Counted(Counted),
    Place(Place),
}

type Answer = Result<Reply, KeyvalueError>;

/// The fraction of all entries that is reserved for applications.
const RESERVED_FRACTION: i64 = 10;
/// The fraction of all entries that plugins may store in one bucket, by default.
const BUCKET_FRACTION: i64 = 4;

/// Holds the connection for writing.
pub(super) struct Writer {
    pub db: Database,
    capacity: Capacity,
    damage: Damage,
    /// The file is no longer the one that was opened. Shared with the store.
    is_lost: Arc<AtomicBool>,
}

/// The limits of entries and tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub all: i64,
    /// For plugins, in one bucket.
    pub bucket: i64,
}

impl Capacity {
    fn new(settings: &Settings) -> Self {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let all = number(settings.max_entries);
        Capacity { all, bucket: settings.max_bucket_entries.map_or_else(|| (all / BUCKET_FRACTION).max(1), number) }
    }

    /// Entries and tokens that are reserved for applications.
    pub(super) fn reserved(self) -> i64 {
        self.all / RESERVED_FRACTION
    }
}

impl Writer {
    pub(super) fn new(db: Database, settings: &Settings) -> Self {
        db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let damage = Damage::of(settings.database.clone());
        Writer { db, capacity: Capacity::new(settings), damage, is_lost: Arc::default() }
    }

    /// Commits all writes in one transaction. If the database fails, nothing is written and every write fails. Damage fails only the
    /// writes of the damaged entries.
    pub(super) fn commit(&mut self, writes: &[Write]) -> Vec<Answer> {
        let answers = match self.check() {
            Ok(()) => self.try_commit(writes),
            Err(error) => Err(error),
        };
        self.db.renew();
        answers.unwrap_or_else(|error| writes.iter().map(|_| Err(error.clone())).collect())
    }

    /// A flag that is set while the file is not the one that was opened.
    pub(super) fn lost(&self) -> Arc<AtomicBool> {
        self.is_lost.clone()
    }

    /// Checks that the file is still the one that was opened. A change is logged once.
    fn check(&mut self) -> Result<(), KeyvalueError> {
        match self.db.check() {
            Ok(()) if self.is_lost.swap(false, Ordering::Relaxed) => {
                tracing::warn!("The key-value database is available again; writing resumes.");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(lost) => {
                if !self.is_lost.swap(true, Ordering::Relaxed) {
                    tracing::error!("The key-value database cannot be written: {lost}");
                }
                let text =
                    "the key-value store: its file was moved, deleted or overwritten by something else; see ACE's log";
                Err(KeyvalueError::Unavailable(text.to_owned()))
            }
        }
    }

    pub(super) fn commit_one(&mut self, write: &Write) -> Answer {
        self.try_commit(std::slice::from_ref(write))?.remove(0)
    }

    fn try_commit(&mut self, writes: &[Write]) -> Result<Vec<Answer>, KeyvalueError> {
        let written = self.transact(|batch| {
            if let Some(now) = writes.iter().map(|write| write.now).max() {
                batch.delete_expired(now, EXPIRED_PER_WRITE * writes.len() as i64)?;
            }
            let mut answers = Vec::with_capacity(writes.len());
            for write in writes {
                let place = || Location::Entry(write.bucket.clone(), write.key.clone());
                answers.push(match batch.attempt(place, |batch| batch.apply(write)) {
                    Ok(Ok(reply)) => Ok(reply),
                    Ok(Err(damage)) => Err(damaged(write, &damage)),
                    Err(WriteError::Rejected(error)) => Err(error),
                    Err(WriteError::Aborted(error)) => return Err(WriteError::Aborted(error)),
                });
            }
            Ok(answers)
        });
        written.map_err(|stop| match stop {
            WriteError::Rejected(error) => error,
            WriteError::Aborted(error) => unavailable(error),
        })
    }

    /// Runs `work` in one transaction, and repeats it without the parts that are found to be damaged. Waits while another process writes.
    pub(super) fn transact<T>(
        &mut self,
        mut work: impl FnMut(&mut Batch) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        loop {
            self.damage.start();
            match self.transact_once(&mut work) {
                Err(WriteError::Aborted(error)) if !sqlite::is_general(&error) && self.damage.exclude() => {}
                done => return done,
            }
        }
    }

    fn transact_once<T>(&mut self, work: impl FnOnce(&mut Batch) -> Result<T, WriteError>) -> Result<T, WriteError> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (capacity, damage) = (self.capacity, &mut self.damage);
        let mut batch = Batch::new(transaction, capacity, damage);
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

/// The error of a write to a damaged entry.
fn damaged(write: &Write, damage: &str) -> KeyvalueError {
    let Write { bucket, key, .. } = write;
    KeyvalueError::Unavailable(format!("the key-value store: {bucket}/{key} is damaged: {damage}"))
}

/// Why a change was not made.
pub(super) enum WriteError {
    /// This change alone is rejected; it changed nothing.
    Rejected(KeyvalueError),
    /// The database failed: the whole transaction is rolled back.
    Aborted(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        WriteError::Aborted(error)
    }
}

/// A write, and where its answer goes.
type Request = (Write, oneshot::Sender<Answer>);

/// Sends writes to the thread with the [`Writer`] of a file. The thread ends when this is dropped.
pub(super) struct Sender(group_commit::Sender<Request>);

impl Sender {
    /// Sends a write. Completes when it is committed.
    pub(super) async fn commit(&self, write: Write) -> Answer {
        let ended = || KeyvalueError::Unavailable("the key-value store: its writer thread has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send(Urgency::Immediate, (write, answer)).await.map_err(|Ended| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Completes when the thread has ended.
    pub(super) async fn ended(&self) {
        self.0.ended().await;
    }
}

/// Starts the thread.
pub(super) fn start(mut writer: Writer) -> io::Result<Sender> {
    let commit = move |group: &mut Vec<Request>| {
        let (writes, answers): (Vec<Write>, Vec<oneshot::Sender<Answer>>) = group.drain(..).unzip();
        for (sender, answer) in answers.into_iter().zip(writer.commit(&writes)) {
            // The caller may have been cancelled.
            let _ = sender.send(answer);
        }
    };
    group_commit::start("keyvalue", commit).map(Sender)
}
