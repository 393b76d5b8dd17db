//! The queue in an SQLite database.
//!
//! - [`mod@file`]: opening the file, and its tables; [`upgrade`]: upgrading damaged files; [`repair`]: replacing a damaged last page
//! - [`operations`]: sending changes to the writer thread; [`writer`]: its transactions
//! - [`ready`]: waiting messages, in ranges
//! - [`claims`]: claiming and settling messages
//! - [`limits`]: messages that are submitted again for other channel types
//! - [`blocked`]: messages that wait for a destination that is down
//! - [`batches`]: batches; [`resolvers`]: batches whose recipients come from a resolver
//! - [`clock_jump`]: a wall clock that was set back
//! - [`queries`]: reading; [`deferred_index`]: messages that are not indexed yet; [`recipients`]: the index of recipients
//! - [`rows`]: reading rows that may be damaged; [`damage`]: setting messages aside
//! - [`suspects`]: messages that were in flight when several processes ended unexpectedly
//! - [`disk_reserve`]: disk space for accepted messages on a full disk
//! - [`retention`]: clean-up, erasure, vacuum
//! - [`events`]: events for webhooks and streams
//! - [`feedback`]: what providers report, and the deliveries that it is matched with
//!
//! A priority class is the column `lane` of the tables.

mod batches;
mod blocked;
mod claims;
mod clock_jump;
mod damage;
mod deferred_index;
mod disk_reserve;
mod events;
mod feedback;
mod file;
mod limits;
mod operations;
mod queries;
mod ready;
mod recipients;
mod repair;
mod resolvers;
mod retention;
mod rows;
mod suspects;
#[cfg(test)]
mod tests;
mod upgrade;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::Connection;

use super::health::{self, HealthTracker};
use super::meter::{self, Meter};
use super::wakeups::Wakeups;
use super::{
    Accepted, Batch, BatchState, Claim, ClaimNo, Claimed, ClaimedBatch, Done, DuePage, Erased, Event, EventId, Events,
    Filter, Health, LEASE, Limits, MessageId, New, NewBatch, NewEvent, OpenError, Page, Priority, QueueError, Resolver,
    ResolverStatus, Selection, Settings, Settled, Settlement, State, Stats, Stored, WebhookDelivery,
};
use crate::sqlite::Readers;
use crate::sqlite::group_commit::Urgency;
use disk_reserve::DiskReserve;
use writer::Writer;

/// The column `lane` of transactional messages.
const TRANSACTIONAL: i64 = Priority::TRANSACTIONAL.0;
/// The column `lane` of other single messages; those of batches are above it.
const ORDINARY: i64 = Priority::ORDINARY.0;
/// The number of a claim that is made when the message is accepted.
const FIRST_CLAIM: u64 = ClaimNo::FIRST.0;
/// Connections for reading.
const READERS: usize = 4;

/// The engine.
pub(super) struct Sqlite {
    writer: operations::Sender,
    readers: Arc<Readers>,
    deferred_index: deferred_index::Shared,
    blocked: blocked::Shared,
    file: PathBuf,
    wakeups: Arc<Wakeups>,
    meter: Arc<Meter>,
    health: Arc<HealthTracker>,
    /// There may be recipients that an earlier version indexed by its own rule.
    is_rehashing: AtomicBool,
    #[cfg(any(test, feature = "conformance"))]
    fails_next: Arc<AtomicBool>,
}

impl Sqlite {
    pub(super) fn open(settings: &Settings, wakeups: Arc<Wakeups>, now: Timestamp) -> Result<Self, OpenError> {
        match Sqlite::open_file(settings, wakeups.clone(), now) {
            Err(OpenError::Full { .. }) if DiskReserve::of(settings).release() => {
                Sqlite::open_file(settings, wakeups, now)
            }
            opened => opened,
        }
    }

    fn open_file(settings: &Settings, wakeups: Arc<Wakeups>, now: Timestamp) -> Result<Self, OpenError> {
        let file = settings.database.clone();
        let failed = |reason: String| OpenError::Database { file: file.clone(), reason };
        let db = file::open(&file, settings.access)?;
        let lock = db.lock().expect("a file is held");
        let readers = Readers::open(READERS, || file::open_reader(&file, lock.clone()));
        let readers = Arc::new(readers.map_err(|e| OpenError::of(&file, &e))?);
        let (meter, health) = (Arc::new(Meter::new(Instant::now())), Arc::new(HealthTracker::default()));
        let writer = Writer::new(db, settings, (meter.clone(), health.clone()));
        let mut writer = writer.map_err(|e| OpenError::of(&file, &e))?;
        writer.db.renew();
        writer.has_room();
        writer.recover(now).map_err(|error| match error {
            QueueError::NoRoom(reason) => OpenError::Full { file: file.clone(), reason },
            other => failed(other.to_string()),
        })?;
        let (deferred_index, blocked) = (writer.deferred_index.shared(), writer.blocked.clone());
        let is_rehashing = AtomicBool::new(recipients::is_rehashing(&writer.db));
        #[cfg(any(test, feature = "conformance"))]
        let fails_next = writer.fails_next.clone();
        let writer =
            operations::start(writer).map_err(|e| failed(format!("its writer thread cannot be started: {e}")))?;
        Ok(Sqlite {
            writer,
            readers,
            deferred_index,
            blocked,
            file,
            wakeups,
            meter,
            health,
            is_rehashing,
            #[cfg(any(test, feature = "conformance"))]
            fails_next,
        })
    }

    pub(super) async fn start_accept(
        &self,
        new: Vec<New>,
        now: Timestamp,
    ) -> Result<impl Future<Output = Result<Vec<Accepted>, QueueError>>, QueueError> {
        let waiting = || new.iter().filter(|new| !new.claim);
        let (wakes, is_urgent) = (waiting().next().is_some(), waiting().any(|new| new.priority.is_transactional()));
        let new = recipients::with_hashes(new);
        let answer = self.writer.start(Urgency::Immediate, move |writer| writer.accept(&new, now)).await?;
        Ok(async move {
            let answer = answer.await;
            match &answer {
                Ok(_) => self.health.accepted(),
                Err(QueueError::Damaged(reason)) => self.health.accept_failed(reason),
                Err(_) => {}
            }
            let answer = answer?;
            let is_extended = answer.contains(&Accepted::Extended);
            if wakes || is_extended {
                self.wakeups.wake(is_urgent || is_extended);
            }
            Ok(answer)
        })
    }

    pub(super) async fn note_shutdown(&self) -> Result<(), QueueError> {
        self.writer.write(|writer| Ok(writer.note_shutdown()?)).await
    }

    pub(super) async fn put_meta(&self, key: &'static str, value: String) -> Result<(), QueueError> {
        self.writer.write(move |writer| Ok(writer::put_meta(&writer.db, key, &value)?)).await
    }

    pub(super) async fn get_meta(&self, key: &'static str) -> Result<Option<String>, QueueError> {
        self.read(move |db| {
            use rusqlite::OptionalExtension;
            let mut value = db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            value.query_row([key], |row| Ok(rows::RowReader::new(row).text(0))).optional()
        })
        .await
        .map(Option::flatten)
    }

    pub(super) fn health(&self) -> Health {
        self.health.health()
    }

    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        self.read(|db| db.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))).await
    }

    pub(super) async fn ping_writer(&self) -> Result<(), QueueError> {
        self.writer.write(|_| Ok(())).await
    }

    pub(super) async fn block_writer(&self, until: std::sync::mpsc::Receiver<()>) {
        let blocked = self.writer.write(move |_| {
            let _ = until.recv();
            Ok(())
        });
        let _ = blocked.await;
    }

    pub(super) async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    pub(super) async fn end_writer(&self) {
        let ended: Result<(), _> = self.writer.write(|_| panic!("injected fault")).await;
        ended.expect_err("its thread has ended");
    }

    /// Makes every lease that much older.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) async fn age_leases(&self, by: std::time::Duration) {
        let age = move |writer: &mut Writer| {
            writer.age_leases(by);
            Ok(())
        };
        self.writer.write(age).await.expect("aged");
    }

    /// Makes the next transaction fail at its end.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn fail_next_write(&self) {
        self.fails_next.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let readers = self.readers.clone();
        let answer = tokio::task::spawn_blocking(move || readers.read(read)).await;
        answer.map_err(|e| QueueError::Unavailable(e.to_string()))?.map_err(|e| operations::queue_error(&e))
    }
}

fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The time in milliseconds, rounded up, so that a message is never claimed before it is due.
fn ms_due(at: Timestamp) -> i64 {
    ms(at) + i64::from(moment(ms(at)) < at)
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
