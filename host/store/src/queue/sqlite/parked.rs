//! Messages that wait for a relay or an origin that is down. They stay in their lanes, due when their waiting ends, so that
//! nobody claims them in vain; the table `parked` says what each waits for, and leads to them when some are to be tried.
//!
//! A batch of which a message waits so can be held as a whole: its lane is passed over, and its messages cost nothing.

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

/// When a message is due that is to be tried although its batch is held: before all others of its lane.
pub(super) const RELEASED: i64 = 0;

/// What the operator reads of the table `parked` where it is damaged.
const PARKED: (&str, &str) = ("what waits for a relay", "some of it waits until its time is over");
/// The table as its index by number has it, which holds all of it once more.
const BY_NUMBER: &str = "parked INDEXED BY parked_ids";
/// Entries that are passed over since nothing waits behind them: more than a damaged page has.
const PASSED_OVER_MAX: usize = 2_000;

/// How long a message waits that could not be entered there.
const UNLED_MS: i64 = 60_000;

/// What is kept in memory of them.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Kept>);

#[derive(Default)]
struct Kept {
    /// How many entries there are, so that nobody takes the lock where there is none.
    entries: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many wait, by what they wait for.
    counts: BTreeMap<String, u64>,
    /// Of the entry that was written last: they are tried in this order.
    last: i64,
    /// Lanes of which only what was released is claimed.
    held: BTreeSet<i64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything waits so.
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

    /// Lanes of which only what was released is claimed.
    pub fn held(&self) -> BTreeSet<i64> {
        self.lock().held.clone()
    }

    /// Reads what is there from the table.
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
    pub fn parked(&self) -> BTreeMap<String, u64> {
        self.parked.lock().counts.clone()
    }

    /// Has at most so many of them tried now; how many that are. The transactional ones go first; `in_turn`: the one that has not
    /// been tried for longest.
    pub async fn unpark(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        let released = self.writer.write(move |writer| Ok(writer.unpark_some(&destination, max, in_turn)?)).await?;
        if !released.is_empty() {
            self.wakeups.wake(released.contains(&TRANSACTIONAL));
        }
        Ok(released.len())
    }

    pub fn hold(&self, batch: Priority) {
        if batch.is_batch() {
            self.parked.lock().held.insert(batch.0);
        }
    }

    pub fn release(&self, batches: &[Priority]) {
        let mut state = self.parked.lock();
        state.held.retain(|priority| !batches.contains(&Priority(*priority)));
        drop(state);
        self.wakeups.wake(false);
    }
}

impl Writer {
    /// A message waits for these, until then at most.
    pub fn park(
        &mut self,
        (id, priority): (i64, i64),
        due: i64,
        destinations: &[String],
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let parked = self.attempt(Place::Parked(id), |writer| {
            for destination in destinations {
                let seq = writer.parked.add(destination);
                let sql = "INSERT INTO parked (destination, lane, seq, id) VALUES (?1, ?2, ?3, ?4)";
                writer.db.prepare_cached(sql)?.execute(params![destination, priority, seq, id])?;
            }
            Ok(())
        })?;
        let due = match parked {
            Ok(()) => due,
            // Nothing leads to it: it sees for itself.
            Err(damage) => {
                self.pulse.damaged(PARKED.0, PARKED.1, &damage);
                due.min(ms(now).saturating_add(UNLED_MS))
            }
        };
        self.put(priority, due, id)
    }

    /// A message does not wait any more, for whatever reason.
    pub fn unpark(&mut self, id: i64) -> rusqlite::Result<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let gone = self.attempt(Place::Parked(id), |writer| {
            let mut gone = writer.db.prepare_cached("DELETE FROM parked WHERE id = ?1 RETURNING destination")?;
            let gone = gone.query_map([id], |row| Ok(Reading::of(row).text(0).unwrap_or_default()))?;
            gone.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        match gone {
            Ok(gone) => gone.iter().for_each(|destination| self.parked.remove(destination)),
            // An entry that stays leads to nothing that waits.
            Err(damage) => self.pulse.damaged(PARKED.0, PARKED.1, &damage),
        }
        Ok(())
    }

    /// The lanes of those that are due now. What belongs to a batch that someone has paused goes on waiting.
    fn unpark_some(&mut self, destination: &str, max: usize, in_turn: bool) -> rusqlite::Result<Vec<i64>> {
        let order = if in_turn { "seq" } else { "lane, seq" };
        let found = self.attempt(Place::Part(PARKED.0), |writer| writer.parked("parked", destination, order, max))?;
        let found = match found {
            Ok(found) => found,
            Err(damage) => {
                self.pulse.damaged(PARKED.0, PARKED.1, &damage);
                let part = ("the index of what waits for a relay", PARKED.1);
                let all = max.saturating_add(PASSED_OVER_MAX);
                self.attempt_part(part, |writer| writer.parked(BY_NUMBER, destination, order, all))?
            }
        };
        let mut priorities = Vec::with_capacity(found.len().min(max));
        for (priority, id) in found {
            if priorities.len() == max {
                break;
            }
            self.unpark(id)?;
            if ready::due(&self.db, priority, id)?.is_some_and(|due| due > RELEASED) {
                ready::take_one(&self.db, priority, id)?;
                self.put(priority, RELEASED, id)?;
                priorities.push(priority);
            }
        }
        Ok(priorities)
    }

    /// Lanes and numbers of those that wait for that, without what belongs to a batch that someone has paused.
    fn parked(&self, table: &str, destination: &str, order: &str, max: usize) -> rusqlite::Result<Vec<(i64, i64)>> {
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

/// How many wait, by what they wait for, and the number of the entry that was written last.
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
