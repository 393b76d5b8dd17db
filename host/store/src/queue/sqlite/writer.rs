//! The writer: the connection for writing, cached values from the tables, and transactions of many changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::blocked;
use super::claims::Lease;
use super::clock_jump::Clock;
use super::damage::{Damage, Location};
use super::deferred_index::{self, DeferredIndex};
use super::disk_reserve::DiskReserve;
use super::file::{CHECKPOINT_PAGES, PAGE_BYTES};
use super::health::HealthTracker;
use super::limits;
use super::meter::{Counted, Meter};
use super::operations::{self, WriteOp};
use super::ready::{self, Range};
use super::recipients::Hashes;
use super::rows::{self, RowReader};
use super::{Accepted, MessageId, New, QueueError, Settings, State, ms, ms_due};
use crate::sqlite;
use crate::sqlite::Database;

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

/// The error for which a transaction was rolled back.
struct RolledBack {
    error: rusqlite::Error,
    /// A change failed, not the transaction as a whole.
    is_of_one_change: bool,
}

/// The connection for writing, and cached values from the tables.
pub(super) struct Writer {
    pub db: Database,
    pub settings: Settings,
    /// Unsettled messages.
    pub unsettled: u64,
    /// Settled messages that are still stored.
    pub settled: u64,
    /// Stored feedback.
    pub feedback: u64,
    /// The id of the last message that was accepted.
    pub last_id: i64,
    /// Messages that are not indexed yet.
    pub deferred_index: DeferredIndex,
    /// The lease of each message in flight.
    pub leases: HashMap<i64, Lease>,
    /// The number of the latest claim.
    pub last_claim: u64,
    /// Priority classes of batches that are paused.
    pub paused: BTreeSet<i64>,
    /// Messages that wait for a relay or an origin that is down.
    pub blocked: blocked::Shared,
    /// The wall clock, and the work to do after it was set back.
    pub clock: Clock,
    /// Changes of the numbers of messages by batch and state. They are written once per transaction, because a group changes the same
    /// few numbers many times.
    pub tallies: BTreeMap<(i64, State), i64>,
    /// Messages accepted and settled in the current transaction, for the rates.
    pub counted: Counted,
    meter: Arc<Meter>,
    pub health: Arc<HealthTracker>,
    /// Disk space for accepted messages, used when the disk is full.
    pub reserve: DiskReserve,
    /// Whether there is room for new messages; `None` if not checked yet.
    has_room: Option<bool>,
    pub damage: Damage,
    /// Messages with an extended lease whose claims the current transaction ends.
    pub extended: Vec<i64>,
    /// Waiting suspects.
    pub suspects: u64,
    /// The priority class that had the last turn.
    pub turn: i64,
    /// The webhooks that every event is delivered to.
    pub webhooks: Vec<String>,
    /// A checkpoint is due. It also truncates the database.
    pub wants_checkpoint: bool,
    /// When the last checkpoint was.
    pub checkpointed: Instant,
    /// Makes the next transaction fail at its end.
    #[cfg(any(test, feature = "conformance"))]
    pub fails_next: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    /// Must be followed by [`Writer::recover`].
    pub(super) fn new(
        db: Database,
        settings: &Settings,
        (meter, health): (Arc<Meter>, Arc<HealthTracker>),
    ) -> rusqlite::Result<Self> {
        let clock = Clock::new(&db)?;
        let (deferred_index, indexed, damage) = DeferredIndex::new(&db)?;
        let mut writer = Writer {
            db,
            settings: settings.clone(),
            unsettled: 0,
            settled: 0,
            feedback: 0,
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
            health,
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

    /// Stops writing to the damaged indexes of uuids and recipients. Messages are still accepted.
    fn stop_indexing(&mut self, damage: &str) {
        let consequence =
            "new messages are indexed in memory only, which grows with them, until the next start tries again";
        self.health.damaged(INDEXES, consequence, damage);
        self.deferred_index.disable();
    }

    /// Loads the cached values. Waiting messages are counted later, after those in flight were requeued.
    fn load_counts(&mut self) -> rusqlite::Result<()> {
        let number = |part, sql| {
            let number = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
            self.or_default(part, "the number of messages is unknown", number)
        };
        let settled =
            number("the index of settled messages", "SELECT count(*) FROM messages WHERE settled IS NOT NULL")?;
        let last_id = rows::next_id(&self.db, "messages", i64::MAX, rows::Order::Down)?.unwrap_or(0);
        let feedback = super::feedback::count(&self.db);
        let feedback = self.or_default("the index of feedback", "its limit does not apply", feedback)?;
        let paused = super::batches::paused(&self.db);
        let paused = self.or_default("the batches", "paused batches may be sent", paused)?;
        let blocked = self.blocked.load(&self.db);
        self.or_default("messages that wait for a relay", "they wait for the maximum time", blocked)?;
        self.settled = settled.unsigned_abs();
        // Ids of deleted messages may be assigned again, but only after a restart, and none that was in the indexes.
        (self.last_id, self.paused, self.feedback) = (self.last_id.max(last_id), paused, feedback);
        Ok(())
    }

    /// Makes the leases match the claims after a rollback. A lease loses its claim number if that is higher than `last`.
    fn restore_leases(&mut self, last: u64) -> rusqlite::Result<()> {
        let mut claims = self.db.prepare_cached("SELECT id FROM claims")?;
        let claims: BTreeSet<i64> = claims.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        self.leases.retain(|id, _| claims.contains(id));
        for id in claims {
            let lease = self.leases.entry(id).or_insert_with(|| Lease::new(None));
            lease.claim = lease.claim.filter(|claim| *claim <= last);
        }
        Ok(())
    }

    /// Commits all changes in one transaction, and replies to each. If one of them fails, the transaction is rolled back and each change
    /// is committed separately, so that only the caller of the faulty one gets an error.
    pub(super) fn commit(&mut self, changes: &mut [Box<dyn WriteOp>]) {
        if let Err(lost) = self.db.check() {
            let why = lost.to_string();
            self.health.write_failed(&why);
            let error = QueueError::Unavailable(why);
            return changes.iter_mut().for_each(|change| change.reply(Err(&error)));
        }
        let mut result = self.transact_without_damage(changes);
        if matches!(&result, Err(rolled_back) if sqlite::is_full(&rolled_back.error)) && self.make_room() {
            result = self.transact_without_damage(changes);
        }
        if let Err(RolledBack { error, is_of_one_change }) = &result
            && changes.len() > 1
            && (*is_of_one_change && !sqlite::is_general(error) || sqlite::is_full(error))
        {
            return self.commit_each(changes);
        }
        self.reply_all(changes, result);
    }

    /// Releases the reserve because the disk is full. Returns whether that freed space.
    fn make_room(&mut self) -> bool {
        let is_released = self.reserve.release();
        self.limit_log();
        // A checkpoint frees the log.
        let log = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.db.renew();
        is_released || log == Ok(0)
    }

    /// Whether there is room for new messages besides the reserve.
    pub(super) fn has_room(&mut self) -> bool {
        let has = self.reserve.ensure();
        if self.has_room.replace(has) != Some(has) {
            self.limit_log();
            if has {
                self.health.has_room();
            }
        }
        if !has {
            self.health.no_room(&self.reserve.reason());
        }
        has
    }

    fn limit_log(&self) {
        let pages = self.reserve.log_pages(PAGE_BYTES, CHECKPOINT_PAGES);
        // An error only means that the log keeps its length.
        let _ = self.db.pragma_update(None, "wal_autocheckpoint", pages);
    }

    fn commit_each(&mut self, changes: &mut [Box<dyn WriteOp>]) {
        for i in 0..changes.len() {
            let result = self.transact_without_damage(&mut changes[i..=i]);
            if matches!(&result, Err(RolledBack { error, .. }) if sqlite::is_general(error) && !sqlite::is_full(error))
            {
                // The others would fail too, after waiting for a lock again.
                return self.reply_all(&mut changes[i..], result);
            }
            self.reply_all(&mut changes[i..=i], result);
        }
    }

    /// Runs one transaction, and repeats it without the parts that are found to be damaged.
    fn transact_without_damage(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), RolledBack> {
        loop {
            self.damage.start();
            match self.transact(changes) {
                Ok(()) => {
                    self.damage.log();
                    return Ok(());
                }
                Err(rolled_back) if sqlite::is_general(&rolled_back.error) || !self.damage.exclude() => {
                    return Err(rolled_back);
                }
                Err(_) => {}
            }
        }
    }

    fn reply_all(&mut self, changes: &mut [Box<dyn WriteOp>], result: Result<(), RolledBack>) {
        if std::mem::take(&mut self.wants_checkpoint) {
            // It fails if there is a concurrent reader, and is repeated later.
            let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.checkpointed = Instant::now();
        }
        self.db.renew();
        let error = result.err().map(|rolled_back| {
            let reason = sqlite::describe(&rolled_back.error);
            if rolled_back.is_of_one_change && !sqlite::is_general(&rolled_back.error) {
                tracing::debug!("A change could not be written: {reason}");
            } else {
                self.health.write_failed(&reason);
            }
            operations::queue_error(&rolled_back.error)
        });
        for change in changes {
            change.reply(error.as_ref().map_or(Ok(()), Err));
        }
    }

    /// Runs one transaction. After a rollback the cached values are restored.
    fn transact(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), RolledBack> {
        let before = (self.unsettled, self.settled, self.last_id, self.suspects, self.paused.clone(), self.clock);
        let (feedback, last_claim, changed) = (self.feedback, self.last_claim, self.db.total_changes());
        let result = self.run_all(changes);
        let counted = std::mem::take(&mut self.counted);
        if result.is_ok() {
            self.meter.add(counted);
            self.deferred_index.commit(self.last_id);
            self.extended.clear();
            if self.db.total_changes() != changed {
                self.health.written();
            }
            return Ok(());
        }
        if !self.db.is_autocommit() {
            // If this fails, the connection is unusable, and every later change fails too.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        (self.unsettled, self.settled, self.last_id, self.suspects, self.paused, self.clock) = before;
        self.feedback = feedback;
        self.tallies.clear();
        self.deferred_index.roll_back();
        let _ = self.restore_leases(last_claim);
        let _ = self.blocked.load(&self.db);
        for id in std::mem::take(&mut self.extended) {
            self.leases.entry(id).and_modify(|lease| lease.is_extended = true);
        }
        result
    }

    fn run_all(&mut self, changes: &mut [Box<dyn WriteOp>]) -> Result<(), RolledBack> {
        let by_one = |error| RolledBack { error, is_of_one_change: true };
        let of_all = |error| RolledBack { error, is_of_one_change: false };
        self.start_transaction().map_err(of_all)?;
        for change in changes {
            change.run(self).map_err(by_one)?;
        }
        self.write_tallies().map_err(by_one)?;
        let indexed =
            self.attempt(Location::Part(INDEXES), |writer| writer.deferred_index.index(&writer.db)).map_err(of_all)?;
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

    pub(super) fn accept(&mut self, new: &[(New, Hashes)], now: Timestamp) -> Result<Vec<Accepted>, WriteError> {
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
        let (mut answers, mut range) = (Vec::with_capacity(new.len()), Range::default());
        for (one, hashes) in new {
            let known = self.deferred_index.in_memory(one.uuid).or_else(|| indexed.get(&one.uuid).copied());
            if let Some(id) = known
                && let Some(again) = self.resubmitted(one, id, now)?
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
            } else if !range.grow(waits) {
                ready::put(&self.db, std::mem::replace(&mut range, waits))?;
            }
        }
        ready::put(&self.db, range)?;
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
                new.limit.as_ref().map(|limit| limits::to_text(&vec![limit.clone()]))
            ])?;
        self.last_id = id;
        self.deferred_index.add(new.uuid, id, hashes);
        self.unsettled += 1;
        self.counted.accepted += 1;
        self.tally(new.priority.0, State::Queued, 1);
        Ok(id)
    }

    /// A value that was read outside of a transaction, or the default if it is damaged, which is logged once.
    fn or_default<T: Default>(
        &self,
        part: &'static str,
        consequence: &str,
        read: rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        match read {
            Err(error) if !sqlite::is_general(&error) => {
                self.health.damaged(part, consequence, &sqlite::describe(&error));
                Ok(T::default())
            }
            read => read,
        }
    }

    /// Adds a waiting message.
    pub(super) fn put(&self, priority: i64, due: i64, id: i64) -> rusqlite::Result<()> {
        ready::put(&self.db, Range::one(priority, due, id))
    }

    /// Claims a message. Returns false if it was claimed already.
    pub(super) fn start_claim(&mut self, id: i64, priority: i64, claim: u64) -> rusqlite::Result<bool> {
        let mut claims = self.db.prepare_cached("INSERT OR IGNORE INTO claims (id, lane) VALUES (?1, ?2)")?;
        if claims.execute([id, priority])? == 0 {
            return Ok(false);
        }
        drop(claims);
        self.unblock(id)?;
        self.leases.insert(id, Lease::new(Some(claim)));
        Ok(true)
    }

    /// Changes the number of a batch's messages in a state.
    pub(super) fn tally(&mut self, priority: i64, state: State, by: i64) {
        if priority > super::ORDINARY {
            *self.tallies.entry((priority, state)).or_default() += by;
        }
    }

    /// Writes the changed numbers. Must be called before the table is read.
    pub(super) fn write_tallies(&mut self) -> rusqlite::Result<()> {
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
    pub(super) fn find(&self, uuid: Uuid) -> rusqlite::Result<Option<(i64, i64, State)>> {
        let Some(id) = self.deferred_index.find(&self.db, uuid)? else { return Ok(None) };
        let mut found = self.db.prepare_cached("SELECT lane, state FROM messages WHERE id = ?1 AND state >= 0")?;
        let read = |row: &rusqlite::Row| {
            let mut row = RowReader::new(row);
            Ok((id, row.number_or(0, super::ORDINARY), State::of(row.number_or(1, State::Corrupt as i64))))
        };
        found.query_row([id], read).optional()
    }
}
