//! Blocked messages, which wait for a relay or an origin that is down. They stay in their priority class with the due time of their
//! longest wait, so that they are not claimed before; the table `parked` lists the destinations that each waits for.
//!
//! A batch with a blocked message can be held as a whole: claims skip its priority class, and its messages cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::damage::Location;
use super::rows::RowReader;
use super::writer::Writer;
use super::{Priority, QueueError, Sqlite, TRANSACTIONAL, ms, ready};
use crate::sqlite;

/// The due time of a message that is claimed even if its batch is held: before all others of its priority class.
pub(super) const RELEASED: i64 = 0;

/// The name of the table `parked` in log lines about damage, and the consequence.
const BLOCKED: (&str, &str) = ("messages that wait for a relay", "some of them wait for the maximum time");
/// The table by its index by id, which contains a second copy of every entry.
const BY_ID: &str = "parked INDEXED BY parked_ids";
/// Entries without a waiting message that are skipped, at most: more than there are on a damaged page.
const SKIPPED_MAX: usize = 2_000;

/// How long a message waits if it could not be added to the table.
const UNLISTED_PAUSE_MS: i64 = 60_000;

/// Cached values from the table.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Default)]
struct Inner {
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
    /// Priority classes that are held: only released messages of these are claimed.
    held: BTreeSet<i64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no message is blocked.
    pub(super) fn is_empty(&self) -> bool {
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

    /// The priority classes that are held.
    pub(super) fn held(&self) -> BTreeSet<i64> {
        self.lock().held.clone()
    }

    /// Loads the cached values from the table.
    pub(super) fn load(&self, db: &Connection) -> rusqlite::Result<()> {
        let (counts, last) = match counts(db, "parked") {
            Err(error) if !sqlite::is_general(&error) => counts(db, BY_ID)?,
            found => found?,
        };
        let mut state = self.lock();
        (state.counts, state.last) = (counts, last);
        self.count(&state);
        Ok(())
    }
}

impl Sqlite {
    /// The number of messages that wait for each destination.
    pub(crate) fn blocked(&self) -> BTreeMap<String, u64> {
        self.blocked.lock().counts.clone()
    }

    /// Makes messages that wait for a destination due.
    pub(crate) async fn unblock(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        let released = self.writer.write(move |writer| Ok(writer.unblock_some(&destination, max, in_turn)?)).await?;
        if !released.is_empty() {
            self.wakeups.wake(released.contains(&TRANSACTIONAL));
        }
        Ok(released.len())
    }

    pub(crate) fn hold(&self, batch: Priority) {
        if batch.is_batch() {
            self.blocked.lock().held.insert(batch.0);
        }
    }

    pub(crate) fn release(&self, batches: &[Priority]) {
        let mut state = self.blocked.lock();
        state.held.retain(|priority| !batches.contains(&Priority(*priority)));
        drop(state);
        self.wakeups.wake(false);
    }
}

impl Writer {
    /// Blocks a message until one of the destinations is up, or until `due`.
    pub(super) fn block(
        &mut self,
        (id, priority): (i64, i64),
        due: i64,
        destinations: &[String],
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let blocked = self.attempt(Location::Blocked(id), |writer| {
            for destination in destinations {
                let seq = writer.blocked.add(destination);
                let sql = "INSERT INTO parked (destination, lane, seq, id) VALUES (?1, ?2, ?3, ?4)";
                writer.db.prepare_cached(sql)?.execute(params![destination, priority, seq, id])?;
            }
            Ok(())
        })?;
        let due = match blocked {
            Ok(()) => due,
            // It is not in the table, so it is retried soon.
            Err(damage) => {
                self.health.damaged(BLOCKED.0, BLOCKED.1, &damage);
                due.min(ms(now).saturating_add(UNLISTED_PAUSE_MS))
            }
        };
        self.put(priority, due, id)
    }

    /// Removes a message from the table.
    pub(super) fn unblock(&mut self, id: i64) -> rusqlite::Result<()> {
        if self.blocked.is_empty() {
            return Ok(());
        }
        let gone = self.attempt(Location::Blocked(id), |writer| {
            let mut gone = writer.db.prepare_cached("DELETE FROM parked WHERE id = ?1 RETURNING destination")?;
            let gone = gone.query_map([id], |row| Ok(RowReader::new(row).text(0).unwrap_or_default()))?;
            gone.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        match gone {
            Ok(gone) => gone.iter().for_each(|destination| self.blocked.remove(destination)),
            // An entry without a waiting message is skipped later.
            Err(damage) => self.health.damaged(BLOCKED.0, BLOCKED.1, &damage),
        }
        Ok(())
    }

    /// Makes messages due, and returns their priority classes. Messages of paused batches are left out.
    fn unblock_some(&mut self, destination: &str, max: usize, in_turn: bool) -> rusqlite::Result<Vec<i64>> {
        let order = if in_turn { "seq" } else { "lane, seq" };
        let found =
            self.attempt(Location::Part(BLOCKED.0), |writer| writer.blocked("parked", destination, order, max))?;
        let found = match found {
            Ok(found) => found,
            Err(damage) => {
                self.health.damaged(BLOCKED.0, BLOCKED.1, &damage);
                let part = ("the index of messages that wait for a relay", BLOCKED.1);
                let all = max.saturating_add(SKIPPED_MAX);
                self.attempt_part(part, |writer| writer.blocked(BY_ID, destination, order, all))?
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

    /// The priority classes and ids of messages that wait for a destination, without those of paused batches.
    fn blocked(&self, table: &str, destination: &str, order: &str, max: usize) -> rusqlite::Result<Vec<(i64, i64)>> {
        let sql = format!("SELECT lane, id FROM {table} WHERE destination = ?1 ORDER BY {order}");
        let (mut found, mut query) = (Vec::new(), self.db.prepare_cached(&sql)?);
        let mut rows = query.query([destination])?;
        while found.len() < max
            && let Some(row) = rows.next()?
        {
            let mut row = RowReader::new(row);
            if let (Some(priority), Some(id)) = (row.number(0), row.number(1))
                && !self.paused.contains(&priority)
            {
                found.push((priority, id));
            }
        }
        Ok(found)
    }
}

/// The number of messages by destination, and the highest sequence number.
fn counts(db: &Connection, table: &str) -> rusqlite::Result<(BTreeMap<String, u64>, i64)> {
    let read = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
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
