//! Blocked messages: they wait for a relay or an origin that is down. They stay in their priority class, due when their waiting
//! ends, so that no claim returns them before; the table `parked` lists the destinations that each waits for.
//!
//! A batch with a blocked message can be held as a whole: claims skip its priority class, and its messages cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::damage::Place;
use super::rows::Reading;
use super::writer::Writer;
use super::{Priority, QueueError, Sqlite, TRANSACTIONAL, ms, ready};
use crate::sqlite;

/// The due time of a message that is sent although its batch is held: before all others of its priority class.
pub(super) const RELEASED: i64 = 0;

/// How a log line names the table `parked` when it is damaged, and the consequence.
const BLOCKED: (&str, &str) = ("messages that wait for a relay", "some of them wait until their time is over");
/// The table through its index by id, which holds a second copy of every entry.
const BY_NUMBER: &str = "parked INDEXED BY parked_ids";
/// Entries without a waiting message that are skipped: more than a damaged page has.
const PASSED_OVER_MAX: usize = 2_000;

/// How long a message waits that could not be listed in the table.
const UNLED_MS: i64 = 60_000;

/// What is cached of the table.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Kept>);

#[derive(Default)]
struct Kept {
    /// The number of entries, so that the lock is not needed while there are none.
    entries: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of messages by destination.
    counts: BTreeMap<String, u64>,
    /// The sequence number of the latest entry: messages are tried in this order.
    last: i64,
    /// Priority classes of which only released messages are claimed.
    held: BTreeSet<i64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no message is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.entries.load(Ordering::Relaxed) == 0
    }

    fn add(&self, destination: &str) -> i64 {
        let mut state = self.lock();
        state.last += 1;
        *state.counts.entry(destination.to_owned()).or_default() += 1;
        self.count(&state);
        state.last
    }

    fn remove(&self, destination: &str) {
        let mut state = self.lock();
        let left = state.counts.get_mut(destination).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            state.counts.remove(destination);
        }
        self.count(&state);
    }

    fn count(&self, state: &State) {
        self.0.entries.store(state.counts.values().sum(), Ordering::Relaxed);
    }

    /// Priority classes of which only released messages are claimed.
    pub fn held(&self) -> BTreeSet<i64> {
        self.lock().held.clone()
    }

    /// Loads the cache from the table.
    pub fn load(&self, db: &Connection) -> rusqlite::Result<()> {
        let (counts, last) = match counts(db, "parked") {
            Err(error) if !sqlite::is_general(&error) => counts(db, BY_NUMBER)?,
            found => found?,
        };
        let mut state = self.lock();
        (state.counts, state.last) = (counts, last);
        self.count(&state);
        Ok(())
    }
}

impl Sqlite {
    /// How many messages wait for each relay and origin that is, or was, down.
    pub fn blocked(&self) -> BTreeMap<String, u64> {
        self.blocked.lock().counts.clone()
    }

    /// Makes at most `max` of the messages that wait for a destination due. Returns how many were. Transactional messages go first;
    /// `in_turn`: the one that has not been tried for longest.
    pub async fn unblock(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        let released = self.writer.write(move |writer| Ok(writer.unblock_some(&destination, max, in_turn)?)).await?;
        if !released.is_empty() {
            self.wakeups.wake(released.contains(&TRANSACTIONAL));
        }
        Ok(released.len())
    }

    pub fn hold(&self, batch: Priority) {
        if batch.is_batch() {
            self.blocked.lock().held.insert(batch.0);
        }
    }

    pub fn release(&self, batches: &[Priority]) {
        let mut state = self.blocked.lock();
        state.held.retain(|priority| !batches.contains(&Priority(*priority)));
        drop(state);
        self.wakeups.wake(false);
    }
}

impl Writer {
    /// Blocks a message until one of the destinations is up, or until `due`.
    pub fn block(
        &mut self,
        (id, priority): (i64, i64),
        due: i64,
        destinations: &[String],
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let blocked = self.attempt(Place::Blocked(id), |writer| {
            for destination in destinations {
                let seq = writer.blocked.add(destination);
                let sql = "INSERT INTO parked (destination, lane, seq, id) VALUES (?1, ?2, ?3, ?4)";
                writer.db.prepare_cached(sql)?.execute(params![destination, priority, seq, id])?;
            }
            Ok(())
        })?;
        let due = match blocked {
            Ok(()) => due,
            // It is not listed, so it is retried soon.
            Err(damage) => {
                self.pulse.damaged(BLOCKED.0, BLOCKED.1, &damage);
                due.min(ms(now).saturating_add(UNLED_MS))
            }
        };
        self.put(priority, due, id)
    }

    /// Removes a message from the table, whatever the reason.
    pub fn unblock(&mut self, id: i64) -> rusqlite::Result<()> {
        if self.blocked.is_empty() {
            return Ok(());
        }
        let gone = self.attempt(Place::Blocked(id), |writer| {
            let mut gone = writer.db.prepare_cached("DELETE FROM parked WHERE id = ?1 RETURNING destination")?;
            let gone = gone.query_map([id], |row| Ok(Reading::of(row).text(0).unwrap_or_default()))?;
            gone.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        match gone {
            Ok(gone) => gone.iter().for_each(|destination| self.blocked.remove(destination)),
            // An entry that stays refers to no waiting message.
            Err(damage) => self.pulse.damaged(BLOCKED.0, BLOCKED.1, &damage),
        }
        Ok(())
    }

    /// Makes messages due; returns their priority classes. Messages of a paused batch keep waiting.
    fn unblock_some(&mut self, destination: &str, max: usize, in_turn: bool) -> rusqlite::Result<Vec<i64>> {
        let order = if in_turn { "seq" } else { "lane, seq" };
        let found = self.attempt(Place::Part(BLOCKED.0), |writer| writer.blocked("parked", destination, order, max))?;
        let found = match found {
            Ok(found) => found,
            Err(damage) => {
                self.pulse.damaged(BLOCKED.0, BLOCKED.1, &damage);
                let part = ("the index of messages that wait for a relay", BLOCKED.1);
                let all = max.saturating_add(PASSED_OVER_MAX);
                self.attempt_part(part, |writer| writer.blocked(BY_NUMBER, destination, order, all))?
            }
        };
        let mut priorities = Vec::with_capacity(found.len().min(max));
        for (priority, id) in found {
            if priorities.len() == max {
                break;
            }
            self.unblock(id)?;
            if ready::due(&self.db, priority, id)?.is_some_and(|due| due > RELEASED) {
                ready::take_one(&self.db, priority, id)?;
                self.put(priority, RELEASED, id)?;
                priorities.push(priority);
            }
        }
        Ok(priorities)
    }

    /// Priority classes and ids of the messages that wait for a destination, without those of paused batches.
    fn blocked(&self, table: &str, destination: &str, order: &str, max: usize) -> rusqlite::Result<Vec<(i64, i64)>> {
        let sql = format!("SELECT lane, id FROM {table} WHERE destination = ?1 ORDER BY {order}");
        let (mut found, mut query) = (Vec::new(), self.db.prepare_cached(&sql)?);
        let mut rows = query.query([destination])?;
        while found.len() < max
            && let Some(row) = rows.next()?
        {
            let mut row = Reading::of(row);
            if let (Some(priority), Some(id)) = (row.number(0), row.number(1))
                && !self.paused.contains(&priority)
            {
                found.push((priority, id));
            }
        }
        Ok(found)
    }
}

/// The number of messages by destination, and the sequence number of the latest entry.
fn counts(db: &Connection, table: &str) -> rusqlite::Result<(BTreeMap<String, u64>, i64)> {
    let read = |row: &rusqlite::Row| {
        let mut row = Reading::of(row);
        Ok((row.text(0).unwrap_or_default(), row.number_or(1, 0).unsigned_abs(), row.number_or(2, 0)))
    };
    let sql = format!("SELECT destination, count(*), ifnull(max(seq), 0) FROM {table} GROUP BY destination");
    let (mut counts, mut last) = (BTreeMap::new(), 0);
    for row in db.prepare_cached(&sql)?.query_map([], read)? {
        let (destination, n, seq) = row?;
        *counts.entry(destination).or_default() += n;
        last = last.max(seq);
    }
    Ok((counts, last))
}
