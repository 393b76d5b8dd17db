//! The one thread that writes. It takes whatever waits into one transaction: while the disk is at work the next one gathers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::clock::Clock;
use super::limits;
use super::meter::{Counted, Meter};
use super::parked;
use super::recent::{self, Recent};
use super::waiting::{self, Run};
use super::{Accepted, Hashes, New, QueueError, State, ms};
use crate::sqlite::Held;
use crate::{config, sqlite};

/// Changes in one transaction at most.
const GROUP_MAX: usize = 512;
/// How long a change that nobody waits for waits for others.
const PATIENCE: Duration = Duration::from_millis(5);
/// Changes of one pace that wait at once; a further one waits for its place.
const WAITING_MAX: usize = 1_024;

/// Why a change was not made.
pub(super) enum Stop {
    /// It alone; nothing was changed by it.
    Refused(QueueError),
    /// The database failed: the whole transaction is void.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Broken(error)
    }
}

/// Tells whoever asked what came of it, once the transaction is on the disk or void.
type Tell = Box<dyn FnOnce(Result<(), &QueueError>) + Send>;
/// Makes a change, and says how to tell. The error voids the transaction.
type Make = Box<dyn FnOnce(&mut Writer) -> (Tell, Result<(), rusqlite::Error>) + Send>;

/// How soon a change goes to the disk.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// With the next transaction, which begins as soon as the one before it has ended.
    AtOnce,
    /// Nobody waits for it: within [`PATIENCE`], with whatever goes before.
    Patient,
}

/// The way to the writer's thread, which ends when this is dropped.
pub(super) struct Sender {
    at_once: mpsc::Sender<Make>,
    patient: mpsc::Sender<Make>,
    broken: Broken,
}

/// Why the last transaction that failed did.
type Broken = Arc<Mutex<String>>;

impl Sender {
    /// Makes a change; done means that it is on the disk. Dropping the future leaves it open whether it is made.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.write_at(Pace::AtOnce, work).await
    }

    /// As [`Sender::write`], at a pace of its own.
    pub async fn write_at<T: Send + 'static>(
        &self,
        pace: Pace,
        work: impl FnOnce(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.begin(pace, work).await?.await
    }

    /// As [`Sender::write`], in two steps: done when the change has its place in the order of all of its pace, and the future it
    /// gives when it is on the disk.
    pub async fn begin<T: Send + 'static>(
        &self,
        pace: Pace,
        work: impl FnOnce(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<impl Future<Output = Result<T, QueueError>>, QueueError> {
        let (answer, answered) = oneshot::channel();
        let make = move |writer: &mut Writer| {
            let (outcome, broken) = match work(writer) {
                Ok(value) => (Ok(value), Ok(())),
                Err(Stop::Refused(error)) => (Err(error), Ok(())),
                Err(Stop::Broken(error)) => (Err(QueueError::Unavailable(sqlite::words(&error))), Err(error)),
            };
            let tell = move |committed: Result<(), &QueueError>| {
                // Whoever was cut off waits for no answer.
                let _ = answer.send(committed.map_err(QueueError::clone).and(outcome));
            };
            (Box::new(tell) as Tell, broken)
        };
        let changes = match pace {
            Pace::AtOnce => &self.at_once,
            Pace::Patient => &self.patient,
        };
        changes.send(Box::new(make)).await.map_err(|_| self.gone())?;
        Ok(async { answered.await.map_err(|_| self.gone())? })
    }

    /// Completes when the thread has ended.
    pub async fn ended(&self) {
        self.at_once.closed().await;
    }

    /// Of a change that was not even tried, which has no error of its own.
    fn gone(&self) -> QueueError {
        let why = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        QueueError::Unavailable(if why.is_empty() { "it could not be written".to_owned() } else { why })
    }
}

/// Starts the thread.
pub(super) fn start(mut writer: Writer) -> io::Result<Sender> {
    let (sender, mut waiting) = channels(writer.broken.clone());
    // For its clock alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("queue".to_owned()).spawn(move || {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while runtime.block_on(waiting.gather(&mut group)) {
            writer.commit(group.drain(..));
        }
    })?;
    Ok(sender)
}

fn channels(broken: Broken) -> (Sender, Waiting) {
    let (at_once, urgent) = mpsc::channel(WAITING_MAX);
    let (patient, others) = mpsc::channel(WAITING_MAX);
    (Sender { at_once, patient, broken }, Waiting { at_once: urgent, patient: others })
}

/// Changes that wait for the thread.
struct Waiting {
    at_once: mpsc::Receiver<Make>,
    patient: mpsc::Receiver<Make>,
}

impl Waiting {
    /// Waits for what makes a transaction; false once nothing more can come.
    async fn gather(&mut self, group: &mut Vec<Make>) -> bool {
        let urgent = tokio::select! {
            biased;
            change = self.at_once.recv() => change,
            change = self.patient.recv() => {
                group.extend(change);
                // Those that come meanwhile do not wake the thread.
                tokio::time::timeout(PATIENCE, self.at_once.recv()).await.ok().flatten()
            }
        };
        group.extend(urgent);
        // Half of it is for the patient, so that however much comes in does not hold them up.
        for (changes, at_most) in [(&mut self.patient, GROUP_MAX / 2), (&mut self.at_once, GROUP_MAX)] {
            while group.len() < at_most
                && let Ok(change) = changes.try_recv()
            {
                group.push(change);
            }
        }
        !group.is_empty()
    }
}

/// Sets a fact of the queue's own.
pub(super) fn remember(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
    db.prepare_cached(sql)?.execute([key, value]).map(drop)
}

/// A message that is under way.
pub(super) struct Lease {
    /// Until when it is good.
    pub until: Instant,
    /// Which claim of the message it is; `None` where that is not known any more.
    pub claim: Option<u64>,
    /// Further channel types were asked for, which its worker does not know of.
    pub is_extended: bool,
}

impl Lease {
    fn new(claim: Option<u64>) -> Self {
        Lease { until: Instant::now() + super::LEASE, claim, is_extended: false }
    }
}

/// Holds the connection for writing, and what it remembers of the tables.
pub(super) struct Writer {
    pub db: Held,
    pub settings: config::Queue,
    /// Messages that are not settled.
    pub unsettled: u64,
    /// Messages that are settled and still kept.
    pub settled: u64,
    /// The number of the message that was accepted last.
    last_id: i64,
    /// What is in no index yet.
    pub recent: Recent,
    /// What each message that is under way is lent by.
    pub leases: HashMap<i64, Lease>,
    /// The number of the claim that was made last.
    pub last_claim: u64,
    /// Lanes of batches that are paused.
    pub paused: BTreeSet<i64>,
    /// What waits for a relay or an origin that is down.
    pub parked: parked::Shared,
    /// Whether the wall clock was set back, and what is being done about it.
    pub clock: Clock,
    /// How many messages each batch has more in each state than its table says. Written with the transaction: a group changes
    /// the same few numbers many times.
    tallies: BTreeMap<(i64, State), i64>,
    /// What was done and is not on the disk yet, for the rates.
    pub counted: Counted,
    meter: Arc<Meter>,
    broken: Broken,
    /// The lane that had its turn last.
    pub turn: i64,
    /// Events and their calls, one for each of these.
    pub hooks: Vec<String>,
    /// The log is to be folded into the database, which ends where its last page in use does.
    pub wants_checkpoint: bool,
    /// When that was done last.
    pub folded: Instant,
}

impl Writer {
    /// What the last process had under way waits again, in doubt.
    pub fn new(db: Held, settings: &config::Queue, meter: Arc<Meter>, now: Timestamp) -> rusqlite::Result<Self> {
        let clock = Clock::new(&db)?;
        let (recent, indexed) = Recent::new(&db)?;
        let mut writer = Writer {
            db,
            settings: settings.clone(),
            unsettled: 0,
            settled: 0,
            last_id: indexed,
            recent,
            leases: HashMap::new(),
            last_claim: super::FIRST_CLAIM,
            paused: BTreeSet::new(),
            parked: parked::Shared::default(),
            clock,
            tallies: BTreeMap::new(),
            counted: Counted::default(),
            meter,
            broken: Broken::default(),
            turn: super::ORDINARY,
            hooks: Vec::new(),
            wants_checkpoint: false,
            folded: Instant::now(),
        };
        let transaction = writer.db.unchecked_transaction()?;
        transaction.execute("UPDATE messages SET in_doubt = 1 WHERE id IN (SELECT id FROM claims)", [])?;
        transaction.execute("INSERT INTO queue (lane, due, id) SELECT lane, ?1, id FROM claims", [ms(now)])?;
        transaction.execute("DELETE FROM claims", [])?;
        transaction.commit()?;
        writer.look()?;
        Ok(writer)
    }

    /// What is kept in memory, from the tables.
    fn look(&mut self) -> rusqlite::Result<()> {
        let number = |sql| self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let unsettled = number("SELECT (SELECT ifnull(sum(n), 0) FROM queue) + (SELECT count(*) FROM claims)")?;
        let settled = number("SELECT count(*) FROM messages WHERE settled IS NOT NULL")?;
        let last_id = number("SELECT ifnull(max(id), 0) FROM messages")?;
        let paused = super::batches::paused(&self.db)?;
        self.parked.load(&self.db)?;
        (self.unsettled, self.settled) = (unsettled.unsigned_abs(), settled.unsigned_abs());
        // Numbers of pruned messages may come again, but not before the process ends, and none that was in the indexes.
        (self.last_id, self.paused) = (self.last_id.max(last_id), paused);
        Ok(())
    }

    /// Every claim has a lease, and no lease is without its claim: what was void has left neither behind. Which claim a lease is
    /// of is forgotten where one after `last` took its place.
    fn lease_anew(&mut self, last: u64) -> rusqlite::Result<()> {
        let mut claims = self.db.prepare_cached("SELECT id FROM claims")?;
        let claims: BTreeSet<i64> = claims.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        self.leases.retain(|id, _| claims.contains(id));
        for id in claims {
            let lease = self.leases.entry(id).or_insert_with(|| Lease::new(None));
            lease.claim = lease.claim.filter(|claim| *claim <= last);
        }
        Ok(())
    }

    /// Makes all changes in one transaction, and tells each what came of it.
    fn commit(&mut self, changes: impl Iterator<Item = Make>) {
        if let Err(lost) = self.db.check() {
            self.refuse(changes, &lost.to_string());
            return;
        }
        let mut tells = Vec::with_capacity(GROUP_MAX);
        let before = (self.unsettled, self.settled, self.paused.clone(), self.clock);
        let last_claim = self.last_claim;
        let mut changes = changes.peekable();
        let result = self.begin().and_then(|()| {
            for change in changes.by_ref() {
                let (tell, broken) = change(self);
                tells.push(tell);
                broken?;
            }
            self.write_tallies()?;
            self.recent.index(&self.db)?;
            self.db.prepare_cached("COMMIT")?.execute([]).map(drop)
        });
        let counted = std::mem::take(&mut self.counted);
        if result.is_ok() {
            self.meter.add(counted);
            self.recent.keep(self.last_id);
        }
        let error = result.err().map(|error| {
            if !self.db.is_autocommit() {
                // Where even this fails the connection is gone, and every later change says so.
                let _ = self.db.execute_batch("ROLLBACK");
            }
            (self.unsettled, self.settled, self.paused, self.clock) = before;
            self.tallies.clear();
            self.recent.undo();
            let _ = self.lease_anew(last_claim);
            let _ = self.parked.load(&self.db);
            tracing::error!("The queue could not be written, and nothing of this was taken: {}", sqlite::words(&error));
            *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = sqlite::words(&error);
            QueueError::Unavailable(sqlite::words(&error))
        });
        if std::mem::take(&mut self.wants_checkpoint) {
            // A reader that is in the way only puts it off.
            let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.folded = Instant::now();
        }
        self.db.renew();
        for tell in tells {
            tell(error.as_ref().map_or(Ok(()), Err));
        }
        // Those that were not tried any more: without an answer they are told that the writer gave them up.
        changes.for_each(drop);
    }

    /// Makes none of the changes; whoever asked is told why.
    fn refuse(&mut self, changes: impl Iterator<Item = Make>, why: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if *broken != why {
            tracing::error!("The queue cannot be written: {why}");
            *broken = why.to_owned();
        }
        drop(broken);
        changes.for_each(drop);
    }

    fn begin(&self) -> rusqlite::Result<()> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)
    }

    pub fn accept(&mut self, new: &[(New, Hashes)], now: Timestamp) -> Result<Vec<Accepted>, Stop> {
        if self.unsettled + new.len() as u64 > self.settings.max_messages {
            return Err(Stop::Refused(QueueError::Full(self.unsettled)));
        }
        let lanes: BTreeSet<i64> = new.iter().map(|(new, _)| new.lane).collect();
        for lane in lanes {
            if self.is_cancelled(lane)? {
                return Err(Stop::Refused(QueueError::State("the batch was cancelled".to_owned())));
            }
        }
        let uuids: Vec<Uuid> = new.iter().map(|(one, _)| one.uuid).collect();
        let indexed = recent::all_indexed(&self.db, &uuids)?;
        let (mut answers, mut run) = (Vec::with_capacity(new.len()), Run::default());
        for (one, hashes) in new {
            let known = self.recent.held(one.uuid).or_else(|| indexed.get(&one.uuid).copied());
            if let Some(id) = known
                && let Some(again) = self.again(one, id, now)?
            {
                answers.push(again);
                continue;
            }
            let id = self.accept_one(one, *hashes, now)?;
            answers.push(Accepted::New(id));
            let waits = Run::one(one.lane, ms(one.not_before.unwrap_or(now).max(now)), id);
            if one.claim {
                self.take(id, one.lane, super::FIRST_CLAIM)?;
            } else if !run.grow(waits) {
                waiting::put(&self.db, std::mem::replace(&mut run, waits))?;
            }
        }
        waiting::put(&self.db, run)?;
        Ok(answers)
    }

    /// Its number.
    fn accept_one(&mut self, new: &New, hashes: Hashes, now: Timestamp) -> rusqlite::Result<i64> {
        let id = self.last_id + 1;
        self.db
            .prepare_cached(
                "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, user, email, trace, body, limits)
                VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                id,
                new.uuid.as_bytes(),
                new.digest,
                new.lane,
                ms(now),
                new.name,
                new.user,
                new.email,
                new.trace,
                new.body,
                new.limit.as_ref().map(|limit| limits::written(&vec![limit.clone()]))
            ])?;
        self.last_id = id;
        self.recent.add(new.uuid, id, hashes);
        self.unsettled += 1;
        self.counted.accepted += 1;
        self.tally(new.lane, State::Queued, 1);
        Ok(id)
    }

    /// A message waits.
    pub fn put(&self, lane: i64, due: i64, id: i64) -> rusqlite::Result<()> {
        waiting::put(&self.db, Run::one(lane, due, id))
    }

    /// A message is under way, by this claim.
    pub fn take(&mut self, id: i64, lane: i64, claim: u64) -> rusqlite::Result<()> {
        self.unpark(id)?;
        self.leases.insert(id, Lease::new(Some(claim)));
        self.db.prepare_cached("INSERT INTO claims (id, lane) VALUES (?1, ?2)")?.execute([id, lane]).map(drop)
    }

    /// Counts a batch's messages by state.
    pub fn tally(&mut self, lane: i64, state: State, by: i64) {
        if lane > super::ORDINARY {
            *self.tallies.entry((lane, state)).or_default() += by;
        }
    }

    /// To be done before the table is looked at.
    pub fn write_tallies(&mut self) -> rusqlite::Result<()> {
        let sql =
            "INSERT INTO tallies (lane, state, n) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET n = n + excluded.n";
        for ((lane, state), by) in std::mem::take(&mut self.tallies) {
            self.db.prepare_cached(sql)?.execute([lane, state as i64, by])?;
        }
        Ok(())
    }

    pub fn remember(&mut self, key: &str, value: &str) -> Result<(), Stop> {
        Ok(remember(&self.db, key, value)?)
    }

    /// The number, lane and state of a message.
    pub fn find(&self, uuid: Uuid) -> rusqlite::Result<Option<(i64, i64, State)>> {
        let Some(id) = self.recent.find(&self.db, uuid)? else { return Ok(None) };
        let mut found = self.db.prepare_cached("SELECT lane, state FROM messages WHERE id = ?1")?;
        found.query_row([id], |row| Ok((id, row.get(0)?, State::of(row.get(1)?)))).optional()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Make {
        Box::new(|_| (Box::new(|_: Result<(), &QueueError>| {}) as Tell, Ok(())))
    }

    #[tokio::test]
    async fn what_is_patient_goes_with_whatever_goes_however_much_that_is() {
        let (sender, mut waiting) = channels(Broken::default());
        for _ in 0..WAITING_MAX {
            sender.at_once.try_send(change()).expect("a place");
            sender.patient.try_send(change()).expect("a place");
        }
        let mut group = Vec::new();
        assert!(waiting.gather(&mut group).await);
        assert_eq!((group.len(), waiting.patient.len()), (GROUP_MAX, WAITING_MAX - GROUP_MAX / 2 + 1));
    }

    #[tokio::test]
    async fn what_is_patient_waits_so_long_and_no_longer() {
        let (sender, mut waiting) = channels(Broken::default());
        sender.patient.try_send(change()).expect("a place");
        let (begun, mut group) = (tokio::time::Instant::now(), Vec::new());
        assert!(waiting.gather(&mut group).await);
        assert!(group.len() == 1 && begun.elapsed() >= PATIENCE, "nothing else came");
        sender.patient.try_send(change()).expect("a place");
        drop(sender);
        group.clear();
        assert!(waiting.gather(&mut group).await, "what was handed in is made");
        assert!(group.len() == 1 && !waiting.gather(&mut Vec::new()).await, "nothing more can come");
    }
}
