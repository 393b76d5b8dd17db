//! The writer: one connection, what it caches of the tables, and the transactions that it makes of groups of changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::blocked;
use super::clock_jump::Clock;
use super::damage::{Damage, Place};
use super::deferred_index::{self, DeferredIndex};
use super::disk_reserve::DiskReserve;
use super::file::{CHECKPOINT_PAGES, PAGE_BYTES};
use super::group_commit::{self, WriteOp};
use super::health::Pulse;
use super::limits;
use super::meter::{Counted, Meter};
use super::ready::{self, Range};
use super::recipients::Hashes;
use super::rows::{self, Reading};
use super::{Accepted, MessageId, New, QueueError, Settings, State, ms, ms_due};
use crate::sqlite;
use crate::sqlite::Held;

/// Why a change was not made.
pub(super) enum WriteError {
    /// This change alone is rejected; it changed nothing.
    Rejected(QueueError),
    /// The database failed: the whole transaction is rolled back.
    Aborted(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        WriteError::Aborted(error)
    }
}

/// How a log line names the indexes when they are damaged.
pub(super) const INDEXES: &str = "the index of uuids and recipients";

/// Sets a value in `meta`.
pub(super) fn put_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
    db.prepare_cached(sql)?.execute([key, value]).map(drop)
}

/// Why a transaction was rolled back.
struct Void {
    error: rusqlite::Error,
    /// One of the changes failed, not the transaction as a whole.
    is_by_one: bool,
}

/// The lease of a message that is in flight.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    /// When it ends.
    pub until: Instant,
    /// The claim it belongs to; `None` if that is no longer known.
    pub claim: Option<u64>,
    /// More channel types were requested after the claim; its worker does not know of them.
    pub is_extended: bool,
}

impl Lease {
    fn new(claim: Option<u64>) -> Self {
        Lease { until: Instant::now() + super::LEASE, claim, is_extended: false }
    }
}

/// The connection for writing, and what is cached of the tables.
pub(super) struct Writer {
    pub db: Held,
    pub settings: Settings,
    /// Messages that are not settled.
    pub unsettled: u64,
    /// Messages that are settled and still kept.
    pub settled: u64,
    /// The id of the message that was accepted last.
    pub last_id: i64,
    /// Messages that are not in the indexes yet.
    pub deferred_index: DeferredIndex,
    /// The lease of each message in flight.
    pub leases: HashMap<i64, Lease>,
    /// The number of the latest claim.
    pub last_claim: u64,
    /// Priority classes of batches that are paused.
    pub paused: BTreeSet<i64>,
    /// Messages that wait for a relay or an origin that is down.
    pub blocked: blocked::Shared,
    /// Whether the wall clock was set back, and what is being done about it.
    pub clock: Clock,
    /// How many more messages each batch has in each state than its table says. Written once per transaction, because a group
    /// changes the same few numbers many times.
    pub tallies: BTreeMap<(i64, State), i64>,
    /// Changes that are not committed yet, for the rates.
    pub counted: Counted,
    meter: Arc<Meter>,
    pub pulse: Arc<Pulse>,
    /// Disk space for messages that were accepted, used when the disk is full.
    reserve: DiskReserve,
    /// Whether there is room for new messages; `None` if not checked yet.
    has_room: Option<bool>,
    pub damage: Damage,
    /// Messages with further channel types requested, whose claims this transaction ends.
    pub extended: Vec<i64>,
    /// Messages that wait to be tried alone.
    pub suspects: u64,
    /// The priority class that had its turn last.
    pub turn: i64,
    /// The webhooks that every event is delivered to.
    pub webhooks: Vec<String>,
    /// A checkpoint is due: it also truncates the database after its last page in use.
    pub wants_checkpoint: bool,
    /// When the last checkpoint was.
    pub checkpointed: Instant,
    /// The next transaction fails at its end.
    #[cfg(any(test, feature = "conformance"))]
    pub fails_next: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    /// Must be followed by [`Writer::recover`].
    pub fn new(db: Held, settings: &Settings, (meter, pulse): (Arc<Meter>, Arc<Pulse>)) -> rusqlite::Result<Self> {
        let clock = Clock::new(&db)?;
        let (deferred_index, indexed, damage) = DeferredIndex::new(&db)?;
        let mut writer = Writer {
            db,
            settings: settings.clone(),
            unsettled: 0,
            settled: 0,
            last_id: indexed,
            deferred_index,
            leases: HashMap::new(),
            last_claim: super::FIRST_CLAIM,
            paused: BTreeSet::new(),
            blocked: blocked::Shared::default(),
            clock,
            tallies: BTreeMap::new(),
            counted: Counted::default(),
            meter,
            pulse,
            reserve: DiskReserve::of(settings),
            has_room: None,
            damage: Damage::default(),
            extended: Vec::new(),
            suspects: 0,
            turn: super::ORDINARY,
            webhooks: Vec::new(),
            wants_checkpoint: false,
            checkpointed: Instant::now(),
            #[cfg(any(test, feature = "conformance"))]
            fails_next: Arc::default(),
        };
        if let Some(damage) = damage {
            writer.stop_indexing(&sqlite::describe(&damage));
        }
        writer.load_counts()?;
        Ok(writer)
    }

    /// Stops maintaining the damaged indexes of uuids and recipients; messages are still accepted.
    fn stop_indexing(&mut self, damage: &str) {
        let consequence =
            "new messages are indexed in memory only, which grows with them, until the next start tries again";
        self.pulse.damaged(INDEXES, consequence, damage);
        self.deferred_index.disable();
    }

    /// Loads what is cached from the tables. Waiting messages are counted later, when all of them wait.
    fn load_counts(&mut self) -> rusqlite::Result<()> {
        let number = |part, sql| {
            let number = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
            self.or_log(part, "how many messages there are is not known", number)
        };
        let settled =
            number("the index of settled messages", "SELECT count(*) FROM messages WHERE settled IS NOT NULL")?;
        let last_id = rows::next_id(&self.db, "messages", i64::MAX, rows::Order::Down)?.unwrap_or(0);
        let paused = super::batches::paused(&self.db);
        let paused = self.or_log("the batches", "batches that were paused may go on", paused)?;
        let blocked = self.blocked.load(&self.db);
        self.or_log("messages that wait for a relay", "they wait until their time is over", blocked)?;
        self.settled = settled.unsigned_abs();
        // Ids of pruned messages may be assigned again, but only after the process ends, and none that was in the indexes.
        (self.last_id, self.paused) = (self.last_id.max(last_id), paused);
        Ok(())
    }

    /// Makes leases match claims after a rollback: every claim has a lease, and every lease a claim. A lease whose claim is later
    /// than `last` loses its claim number.
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

    /// Makes all changes in one transaction, and replies to each. If one fails for a reason of its own, the transaction is rolled back
    /// and each change is made in a transaction of its own, so that only the caller of the faulty one gets its error.
    pub fn commit(&mut self, changes: &mut [Box<dyn WriteOp>]) {
        if let Err(lost) = self.db.check() {
            let why = lost.to_string();
            self.pulse.write_failed(&why);
            let error = QueueError::Unavailable(why);
            return changes.iter_mut().for_each(|change| change.reply(Err(&error)));
        }
        let mut result = self.transact_around(changes);
        if matches!(&result, Err(void) if sqlite::is_full(&void.error)) && self.make_room() {
            result = self.transact_around(changes);
        }
        if let Err(Void { error, is_by_one }) = &result
            && changes.len() > 1
            && (*is_by_one && !sqlite::is_general(error) || sqlite::is_full(error))
        {
            return self.commit_each(changes);
        }
        self.answer(changes, result);
    }

    /// The disk is full: releases the reserve for messages that were accepted. Returns whether that freed space.
    fn make_room(&mut self) -> bool {
        let is_released = self.reserve.release();
        self.limit_log();
        // What is in the database already need not stay in the log.
        let log = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.db.renew();
        is_released || log == Ok(0)
    }

    /// Whether there is room for new messages, besides the reserve for those that were accepted.
    pub fn has_room(&mut self) -> bool {
        let has = self.reserve.is_there();
        if self.has_room.replace(has) != Some(has) {
            self.limit_log();
            if has {
                self.pulse.has_room();
            }
        }
        if !has {
            self.pulse.no_room(&self.reserve.reason());
        }
        has
    }

    fn limit_log(&self) {
        let pages = self.reserve.log_pages(PAGE_BYTES, CHECKPOINT_PAGES);
        // It cannot fail; if it did, the log would keep its length.
        let _ = self.db.pragma_update(None, "wal_autocheckpoint", pages);
    }

    fn commit_each(&mut self, changes: &mut [Box<dyn WriteOp>]) {
        for i in 0..changes.len() {
            let result = self.transact_around(&mut changes[i..=i]);
            if matches!(&result, Err(Void { error, .. }) if sqlite::is_general(error) && !sqlite::is_full(error)) {
                // The others would fail too, and each might wait as long for a lock.
                return self.answer(&mut changes[i..], result);
            }
            self.answer(&mut changes[i..=i], result);
        }
    }

    /// One transaction, repeated without what turns out to be damaged.
    fn transact_around(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), Void> {
        loop {
            self.damage.start();
            match self.transact(changes) {
                Ok(()) => {
                    self.damage.log();
                    return Ok(());
                }
                Err(void) if sqlite::is_general(&void.error) || !self.damage.exclude() => return Err(void),
                Err(_) => {}
            }
        }
    }

    fn answer(&mut self, changes: &mut [Box<dyn WriteOp>], result: Result<(), Void>) {
        if std::mem::take(&mut self.wants_checkpoint) {
            // A concurrent reader only postpones it.
            let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.checkpointed = Instant::now();
        }
        self.db.renew();
        let error = result.err().map(|void| {
            let reason = sqlite::describe(&void.error);
            if void.is_by_one && !sqlite::is_general(&void.error) {
                tracing::debug!("A change could not be written: {reason}");
            } else {
                self.pulse.write_failed(&reason);
            }
            group_commit::void(&void.error)
        });
        for change in changes {
            change.reply(error.as_ref().map_or(Ok(()), Err));
        }
    }

    /// One transaction, committed or rolled back. After a rollback the caches are as they were before.
    fn transact(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), Void> {
        let before = (self.unsettled, self.settled, self.last_id, self.suspects, self.paused.clone(), self.clock);
        let (last_claim, changed) = (self.last_claim, self.db.total_changes());
        let result = self.make(changes);
        let counted = std::mem::take(&mut self.counted);
        if result.is_ok() {
            self.meter.add(counted);
            self.deferred_index.keep(self.last_id);
            self.extended.clear();
            if self.db.total_changes() != changed {
                self.pulse.written();
            }
            return Ok(());
        }
        if !self.db.is_autocommit() {
            // If even this fails the connection is lost, and every later change fails with that error.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        (self.unsettled, self.settled, self.last_id, self.suspects, self.paused, self.clock) = before;
        self.tallies.clear();
        self.deferred_index.undo();
        let _ = self.lease_anew(last_claim);
        let _ = self.blocked.load(&self.db);
        for id in std::mem::take(&mut self.extended) {
            self.leases.entry(id).and_modify(|lease| lease.is_extended = true);
        }
        result
    }

    fn make(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), Void> {
        let by_one = |error| Void { error, is_by_one: true };
        let of_all = |error| Void { error, is_by_one: false };
        self.start_transaction().map_err(of_all)?;
        for change in changes {
            change.run(self).map_err(by_one)?;
        }
        self.write_tallies().map_err(by_one)?;
        let indexed =
            self.attempt(Place::Part(INDEXES), |writer| writer.deferred_index.index(&writer.db)).map_err(of_all)?;
        if let Err(damage) = indexed {
            self.stop_indexing(&damage);
        }
        #[cfg(any(test, feature = "conformance"))]
        if self.fails_next.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(by_one(rusqlite::Error::InvalidQuery));
        }
        self.db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).map(drop).map_err(of_all)
    }

    fn start_transaction(&self) -> rusqlite::Result<()> {
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop)
    }

    pub fn accept(&mut self, new: &[(New, Hashes)], now: Timestamp) -> Result<Vec<Accepted>, WriteError> {
        if !self.has_room() {
            return Err(WriteError::Rejected(QueueError::NoRoom(self.reserve.reason())));
        }
        if self.unsettled + new.len() as u64 > self.settings.max_messages {
            return Err(WriteError::Rejected(QueueError::Full(self.unsettled)));
        }
        let priorities: BTreeSet<i64> = new.iter().map(|(new, _)| new.priority.0).collect();
        for priority in priorities {
            if self.is_cancelled(priority)? {
                return Err(WriteError::Rejected(QueueError::State("the batch was cancelled".to_owned())));
            }
        }
        let uuids: Vec<Uuid> = new.iter().map(|(one, _)| one.uuid).collect();
        let indexed = deferred_index::all_indexed(&self.db, &uuids)?;
        let (mut answers, mut run) = (Vec::with_capacity(new.len()), Range::default());
        for (one, hashes) in new {
            let known = self.deferred_index.held(one.uuid).or_else(|| indexed.get(&one.uuid).copied());
            if let Some(id) = known
                && let Some(again) = self.again(one, id, now)?
            {
                answers.push(again);
                continue;
            }
            let id = self.accept_one(one, *hashes, now)?;
            answers.push(Accepted::New(MessageId(id)));
            let due = one.not_before.map_or(ms(now), |at| ms_due(at).max(ms(now)));
            let waits = Range::one(one.priority.0, due, id);
            if one.claim {
                self.start_claim(id, one.priority.0, super::FIRST_CLAIM)?;
            } else if !run.grow(waits) {
                ready::put(&self.db, std::mem::replace(&mut run, waits))?;
            }
        }
        ready::put(&self.db, run)?;
        Ok(answers)
    }

    /// Stores a new message and returns its id.
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
                new.priority.0,
                ms(now),
                new.name,
                new.user,
                new.email,
                new.trace,
                new.body,
                new.limit.as_ref().map(|limit| limits::written(&vec![limit.clone()]))
            ])?;
        self.last_id = id;
        self.deferred_index.add(new.uuid, id, hashes);
        self.unsettled += 1;
        self.counted.accepted += 1;
        self.tally(new.priority.0, State::Queued, 1);
        Ok(id)
    }

    /// A value read outside of a transaction; the default if damage prevents reading it, which is logged once.
    fn or_log<T: Default>(
        &self,
        part: &'static str,
        consequence: &str,
        read: rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        match read {
            Err(error) if !sqlite::is_general(&error) => {
                self.pulse.damaged(part, consequence, &sqlite::describe(&error));
                Ok(T::default())
            }
            read => read,
        }
    }

    /// Adds a message to those that wait.
    pub fn put(&self, priority: i64, due: i64, id: i64) -> rusqlite::Result<()> {
        ready::put(&self.db, Range::one(priority, due, id))
    }

    /// Claims a message. Returns false if it was claimed already.
    pub fn start_claim(&mut self, id: i64, priority: i64, claim: u64) -> rusqlite::Result<bool> {
        let mut claims = self.db.prepare_cached("INSERT OR IGNORE INTO claims (id, lane) VALUES (?1, ?2)")?;
        if claims.execute([id, priority])? == 0 {
            return Ok(false);
        }
        drop(claims);
        self.unblock(id)?;
        self.leases.insert(id, Lease::new(Some(claim)));
        Ok(true)
    }

    /// Counts a batch's messages by state.
    pub fn tally(&mut self, priority: i64, state: State, by: i64) {
        if priority > super::ORDINARY {
            *self.tallies.entry((priority, state)).or_default() += by;
        }
    }

    /// Writes the tallies. Must be called before the table is read.
    pub fn write_tallies(&mut self) -> rusqlite::Result<()> {
        let sql =
            "INSERT INTO tallies (lane, state, n) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET n = n + excluded.n";
        let tallies = std::mem::take(&mut self.tallies);
        if tallies.is_empty() {
            return Ok(());
        }
        self.attempt_part(("the tallies of batches", "progress of batches is reported wrongly"), |writer| {
            for ((priority, state), by) in &tallies {
                writer.db.prepare_cached(sql)?.execute([*priority, *state as i64, *by])?;
            }
            Ok(())
        })
    }

    /// The id, priority class and state of a message.
    pub fn find(&self, uuid: Uuid) -> rusqlite::Result<Option<(i64, i64, State)>> {
        let Some(id) = self.deferred_index.find(&self.db, uuid)? else { return Ok(None) };
        let mut found = self.db.prepare_cached("SELECT lane, state FROM messages WHERE id = ?1 AND state >= 0")?;
        let read = |row: &rusqlite::Row| {
            let mut row = Reading::of(row);
            Ok((id, row.number_or(0, super::ORDINARY), State::of(row.number_or(1, State::Corrupt as i64))))
        };
        found.query_row([id], read).optional()
    }
}
