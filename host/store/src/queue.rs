//! The durable queue: a message that was accepted is kept on the disk until it is settled, and for a while after that.
//!
//! This is the one front of the store, and all that the rest of the host knows of it; another engine can take its place behind the
//! same words (`tests.rs` is the suite for whichever stands here). What a message *is* stays outside: bodies, progress and reports
//! are bytes here.
//!
//! - [`database`]: the file, its lock, its tables; [`upgrade`]: earlier versions of these, in a file that is damaged
//! - [`changes`]: the way to the one thread that writes; [`writer`]: its transactions, of many changes each
//! - [`health`]: whether that works
//! - [`waiting`]: what waits, in rows of many
//! - [`claims`]: handing messages out and taking them back
//! - [`limits`]: the same message for further channel types
//! - [`parked`]: waiting for a relay or an origin that is down
//! - [`batches`]: many messages of one kind, and how far they are
//! - [`resolving`]: batches whose recipients a resolver names
//! - [`clock`]: a wall clock that was set back; [`meter`]: how fast the queue moves
//! - [`look`]: what is read; [`recent`]: finding what is in no index yet
//! - [`rows`]: reading rows that may be damaged; [`damage`]: setting them aside
//! - [`suspects`]: messages that processes ended with, one after the other
//! - [`people`]: whom messages are for, as they are looked for
//! - [`reserve`]: room for what was accepted, on a disk that is full otherwise
//! - [`upkeep`]: retention, erasure, room
//! - [`outgoing`]: events for webhooks and streams
//!
//! Delivery is at least once. A claim is kept on the disk, so that after a crash every message that was under way is known: it
//! comes back *in doubt*. Within a process a claim is a lease: a worker that dies gives its messages back when it runs out.

mod batches;
mod changes;
mod claims;
mod clock;
mod damage;
mod database;
mod health;
mod limits;
mod look;
mod mending;
mod meter;
mod outgoing;
mod parked;
mod people;
mod recent;
mod reserve;
mod resolving;
mod rows;
mod settings;
mod suspects;
#[cfg(test)]
mod tests;
mod upgrade;
mod upkeep;
mod waiting;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::sqlite::Held;
pub use batches::{Batch, BatchState};
use changes::Pace;
pub use claims::{Claim, Claimed, Handed, Settled, Settlement};
pub use database::OpenError;
pub use health::{Failing, Health};
pub use limits::Limits;
pub use look::{Filter, Page, Selection, Stored};
pub use meter::{Rate, Rates};
pub use outgoing::{Call, Event, Events};
pub use resolving::{Resolver, ResolverReport, Resolving};
pub use settings::Settings;
pub use upkeep::Forgotten;
use writer::Writer;

/// Lane of transactional messages: always before the others.
pub const TRANSACTIONAL: i64 = 0;
/// Lane of other single messages. Each batch has a lane of its own after it.
pub const ORDINARY: i64 = 1;
/// The claim that a message is accepted with, where it has a worker already.
pub const FIRST_CLAIM: u64 = 0;
/// Connections for reading.
const READERS: usize = 4;

/// Where a message stands, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting, or under way.
    Queued = 0,
    /// At least one channel delivered it.
    Sent = 1,
    /// It may have been delivered, and nothing more is known.
    MaybeSent = 2,
    /// Nobody got it, and that is as it should be: policies forbade it, or there was nothing to do.
    NotSent = 3,
    /// Nobody got it although someone should have: a channel, a template or the routing failed.
    Failed = 4,
    /// Its time was over before it could be delivered.
    Expired = 5,
    /// What is kept of it cannot be read any more; it was set aside.
    Corrupt = 6,
    /// Someone took it back.
    Cancelled = 7,
    /// It had failed, and someone gave it up.
    Discarded = 8,
}

impl State {
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Sent,
        State::MaybeSent,
        State::NotSent,
        State::Failed,
        State::Expired,
        State::Corrupt,
        State::Cancelled,
        State::Discarded,
    ];

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Sent => "sent",
            State::MaybeSent => "maybe_sent",
            State::NotSent => "not_sent",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Corrupt => "corrupt",
            State::Cancelled => "cancelled",
            State::Discarded => "discarded",
        }
    }

    /// A dead letter can be tried again or discarded.
    pub fn is_dead(self) -> bool {
        matches!(self, State::Failed | State::Expired | State::Corrupt)
    }

    fn of(number: i64) -> State {
        usize::try_from(number).ok().and_then(|n| State::ALL.get(n)).copied().unwrap_or(State::Corrupt)
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Why the store did not do what it was asked, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Come back when something has gone out.
    #[error("the queue is full: {0} messages wait (queue.max-messages)")]
    Full(u64),
    /// The disk is full, the file is locked or damaged: it may pass. Nothing was changed.
    #[error("the queue: {0}")]
    Unavailable(String),
    /// The disk is full. Nothing was changed, and what was accepted is still sent.
    #[error("the queue: {0}")]
    NoRoom(String),
    /// What was asked for met a damaged part of the file. Nothing was changed, and everything else goes on.
    #[error("a part of the queue is damaged: {0}")]
    Damaged(String),
    /// There is no such message or batch.
    #[error("there is no {0}")]
    Unknown(&'static str),
    /// It is not in a state for that.
    #[error("{0}")]
    State(String),
}

/// A message to be accepted.
#[derive(Debug, Clone)]
pub struct New {
    pub uuid: Uuid,
    /// Of the message's content: what has the same is the same message.
    pub digest: [u8; 16],
    pub lane: i64,
    /// `app_label.name`.
    pub name: String,
    pub user: Option<String>,
    pub email: Option<String>,
    /// Not before that moment. `None`: at once.
    pub not_before: Option<Timestamp>,
    /// The W3C trace context of the request.
    pub trace: Option<String>,
    pub body: Vec<u8>,
    /// The channel types or channel names that its request limited it to, sorted. `None`: it had no limit.
    pub limit: Option<Vec<String>>,
    /// It has a worker that begins as soon as it is accepted: it is claimed with the same write.
    pub claim: bool,
}

/// The digest of a message's content.
pub fn digest(body: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(body);
    std::array::from_fn(|i| hash[i])
}

/// What became of a message that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is on the disk.
    New(i64),
    /// It has been there; that is its state now.
    Same(State),
    /// It has been there, and goes on with the channel types of this request.
    Extended,
    /// It has been there, and nothing can be added to it: someone took it back or gave it up, or it cannot be read any more.
    Ended(State),
    /// Another message has this uuid.
    Conflict,
}

/// How full the queue is, and how fast it moves.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Messages that wait, by kind of lane.
    pub waiting_transactional: u64,
    pub waiting_ordinary: u64,
    pub waiting_batches: u64,
    /// Messages with a worker.
    pub under_way: u64,
    /// Those that wait that are tried alone, since several processes ended while they were being sent.
    pub suspects: u64,
    /// Messages by state, the settled ones that are still kept.
    pub dead: u64,
    /// Messages that were set aside because their rows are damaged.
    pub damaged: u64,
    /// When the message that has waited longest was accepted.
    pub oldest: Option<Timestamp>,
    /// Bytes of the database, its log included.
    pub bytes: u64,
    /// Webhook calls that wait.
    pub calls: u64,
    pub rates: Rates,
}

/// The store. One process has it open.
pub struct Queue {
    writer: changes::Sender,
    readers: Vec<Arc<Mutex<Held>>>,
    recent: recent::Shared,
    parked: parked::Shared,
    file: PathBuf,
    /// Something can be claimed that could not before.
    changed: Notify,
    /// That may be transactional.
    urgent: watch::Sender<()>,
    /// A page of recipients may be due that was not before.
    resolving: Notify,
    meter: Arc<meter::Meter>,
    pulse: Arc<health::Pulse>,
    /// Recipients that were indexed by the rule of an earlier version may be there.
    is_rehashing: AtomicBool,
}

impl Queue {
    /// Opens the database, or begins one. What was under way when the last process ended waits again, in doubt. Blocks.
    pub fn open(settings: &Settings, now: Timestamp) -> Result<Self, OpenError> {
        match Queue::open_file(settings, now) {
            Err(OpenError::Full { .. }) if reserve::Reserve::of(settings).release() => Queue::open_file(settings, now),
            opened => opened,
        }
    }

    fn open_file(settings: &Settings, now: Timestamp) -> Result<Self, OpenError> {
        let file = settings.database.clone();
        let failed = |reason: String| OpenError::Database { file: file.clone(), reason };
        let db = database::open(&file, settings.access)?;
        let hold = db.hold().expect("a file is held");
        let reader = |_| database::reader(&file, hold.clone()).map(|db| Arc::new(Mutex::new(db)));
        let readers = (0..READERS).map(reader).collect::<Result<_, _>>().map_err(|e| OpenError::of(&file, &e))?;
        let meter = Arc::new(meter::Meter::new(Instant::now()));
        let pulse = Arc::new(health::Pulse::default());
        let writer = Writer::new(db, settings, (meter.clone(), pulse.clone()));
        let mut writer = writer.map_err(|e| OpenError::of(&file, &e))?;
        writer.db.renew();
        writer.has_room();
        writer.recover(now).map_err(|error| match error {
            QueueError::NoRoom(reason) => OpenError::Full { file: file.clone(), reason },
            other => failed(other.to_string()),
        })?;
        let (recent, parked) = (writer.recent.shared(), writer.parked.clone());
        let is_rehashing = AtomicBool::new(people::is_rehashing(&writer.db));
        let writer = changes::start(writer).map_err(|e| failed(format!("its thread cannot be started: {e}")))?;
        let (changed, urgent, resolving) = (Notify::new(), watch::Sender::new(()), Notify::new());
        Ok(Queue { writer, readers, recent, parked, file, changed, urgent, resolving, meter, pulse, is_rehashing })
    }

    /// Accepts all of them with one durable write; an answer for each, in order. `Full` accepts none.
    pub async fn accept(&self, new: Vec<New>, now: Timestamp) -> Result<Vec<Accepted>, QueueError> {
        self.begin_accept(new, now).await?.await
    }

    /// As [`Queue::accept`], in two steps: done when they have their place in the order of all that is written, and the future it
    /// gives when they are on the disk. They are accepted whether that is awaited or not.
    pub async fn begin_accept(
        &self,
        new: Vec<New>,
        now: Timestamp,
    ) -> Result<impl Future<Output = Result<Vec<Accepted>, QueueError>>, QueueError> {
        let waiting = || new.iter().filter(|new| !new.claim);
        let (wakes, is_urgent) = (waiting().next().is_some(), waiting().any(|new| new.lane == TRANSACTIONAL));
        let new = people::with_hashes(new);
        let answer = self.writer.begin(Pace::AtOnce, move |writer| writer.accept(&new, now)).await?;
        Ok(async move {
            let answer = answer.await;
            match &answer {
                Ok(_) => self.pulse.accepted(),
                Err(QueueError::Damaged(reason)) => self.pulse.accept_failed(reason),
                Err(_) => {}
            }
            let answer = answer?;
            let is_extended = answer.contains(&Accepted::Extended);
            if wakes || is_extended {
                self.wake(is_urgent || is_extended);
            }
            Ok(answer)
        })
    }

    /// Completes when something may be there to claim that was not before. Ask for it before looking.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Tells of transactional messages that may be there to claim and were not before. Ask for it before looking.
    pub fn urgent(&self) -> watch::Receiver<()> {
        self.urgent.subscribe()
    }

    /// Something can be claimed that could not before.
    fn wake(&self, is_urgent: bool) {
        if is_urgent {
            self.urgent.send_replace(());
        }
        self.changed.notify_waiters();
    }

    /// The process ends as it was asked to: what is under way at its end did not end it.
    pub async fn end(&self) -> Result<(), QueueError> {
        self.writer.write(|writer| Ok(writer.note_end()?)).await
    }

    /// A remembered fact of the host's own.
    pub async fn remember(&self, key: &'static str, value: String) -> Result<(), QueueError> {
        self.writer.write(move |writer| writer.remember(key, &value)).await
    }

    /// What was remembered.
    pub async fn recall(&self, key: &'static str) -> Result<Option<String>, QueueError> {
        self.read(move |db| {
            use rusqlite::OptionalExtension;
            let mut value = db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            value.query_row([key], |row| Ok(rows::Reading::of(row).text(0))).optional()
        })
        .await
        .map(Option::flatten)
    }

    /// Whether the store works, as far as it has been used.
    pub fn health(&self) -> Health {
        self.pulse.told()
    }

    /// Where nothing could be written, sees whether that works again: nobody hands messages in to a server that is not ready.
    pub async fn probe(&self, now: Timestamp) -> Result<(), QueueError> {
        match self.pulse.wants_probe() {
            true => self.remember("probed", now.to_string()).await,
            false => Ok(()),
        }
    }

    /// Whether the store can be read.
    pub async fn answers(&self) -> Result<(), QueueError> {
        self.read(|db| db.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))).await
    }

    /// Completes when the thread that writes has ended, which it does by itself only after a bug: nothing can be written any more.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// Ends the thread that writes, as a bug in a change would: for tests of what comes of it.
    #[doc(hidden)]
    pub async fn break_writer(&self) {
        let broken: Result<(), _> = self.writer.write(|_| panic!("on purpose")).await;
        broken.expect_err("its thread has ended");
    }

    /// Asks on a thread where waiting is allowed.
    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let free = self.readers.iter().find(|reader| reader.try_lock().is_ok()).unwrap_or(&self.readers[0]).clone();
        let asked = tokio::task::spawn_blocking(move || {
            let db = free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            ask(&db)
        });
        let answer = asked.await.map_err(|e| QueueError::Unavailable(e.to_string()))?;
        answer.map_err(|e| changes::void(&e))
    }
}

fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The first millisecond at which `at` has come: what is claimed then is due.
fn ms_due(at: Timestamp) -> i64 {
    ms(at) + i64::from(moment(ms(at)) < at)
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Long enough for any call into a channel, and for the waiting around it.
pub const LEASE: Duration = Duration::from_secs(15 * 60);
