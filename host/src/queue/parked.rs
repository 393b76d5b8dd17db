//! Messages that wait for a relay or an origin that is down. They stay in their lanes, due when their waiting ends, so that
//! nobody claims them in vain; the table `parked` says what each waits for, and leads to them when some are to be tried.
//!
//! A batch of which a message waits so can be held as a whole: its lane is passed over, and its messages cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

use super::writer::Writer;
use super::{ORDINARY, Queue, QueueError, TRANSACTIONAL, waiting};

/// When a message is due that is to be tried although its batch is held: before all others of its lane.
pub(super) const RELEASED: i64 = 0;

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
        let mut counts = db.prepare_cached("SELECT destination, count(*) FROM parked GROUP BY destination")?;
        let read = |row: &rusqlite::Row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()));
        let counts = counts.query_map([], read)?.collect::<Result<_, _>>()?;
        let last = db.query_row("SELECT ifnull(max(seq), 0) FROM parked", [], |row| row.get(0))?;
        let mut state = self.lock();
        (state.counts, state.last) = (counts, last);
        self.count(&state);
        Ok(())
    }
}

impl Queue {
    /// How many messages wait for each relay and origin that is, or was, down.
    pub fn parked(&self) -> BTreeMap<String, u64> {
        self.parked.lock().counts.clone()
    }

    /// Has at most so many of them tried now; how many that are. The transactional ones go first; `in_turn`: the one that has not
    /// been tried for longest.
    pub async fn unpark(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        let released = self.writer.write(move |writer| Ok(writer.unpark_some(&destination, max, in_turn)?)).await?;
        if !released.is_empty() {
            self.wake(released.contains(&TRANSACTIONAL));
        }
        Ok(released.len())
    }

    /// Claims nothing of a batch's lane until [`Queue::free`], except what [`Queue::unpark`] brings back.
    pub fn hold(&self, lane: i64) {
        if lane > ORDINARY {
            self.parked.lock().held.insert(lane);
        }
    }

    /// Claims of these lanes again.
    pub fn free(&self, lanes: &[i64]) {
        let mut state = self.parked.lock();
        state.held.retain(|lane| !lanes.contains(lane));
        drop(state);
        self.wake(false);
    }
}

impl Writer {
    /// A message waits for these, until then at most.
    pub fn park(&mut self, id: i64, lane: i64, due: i64, destinations: &[String]) -> rusqlite::Result<()> {
        self.put(lane, due, id)?;
        for destination in destinations {
            let seq = self.parked.add(destination);
            let sql = "INSERT INTO parked (destination, lane, seq, id) VALUES (?1, ?2, ?3, ?4)";
            self.db.prepare_cached(sql)?.execute(params![destination, lane, seq, id])?;
        }
        Ok(())
    }

    /// A message does not wait any more, for whatever reason.
    pub fn unpark(&mut self, id: i64) -> rusqlite::Result<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let gone: Vec<String> = self
            .db
            .prepare_cached("DELETE FROM parked WHERE id = ?1 RETURNING destination")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        gone.iter().for_each(|destination| self.parked.remove(destination));
        Ok(())
    }

    /// The lanes of those that are due now. What belongs to a batch that someone has paused goes on waiting.
    fn unpark_some(&mut self, destination: &str, max: usize, in_turn: bool) -> rusqlite::Result<Vec<i64>> {
        let order = if in_turn { "seq" } else { "lane, seq" };
        let sql = format!("SELECT lane, id FROM parked WHERE destination = ?1 ORDER BY {order}");
        let (mut found, mut query) = (Vec::new(), self.db.prepare_cached(&sql)?);
        let mut rows = query.query([destination])?;
        while found.len() < max
            && let Some(row) = rows.next()?
        {
            let (lane, id): (i64, i64) = (row.get(0)?, row.get(1)?);
            if !self.paused.contains(&lane) {
                found.push((lane, id));
            }
        }
        drop(rows);
        drop(query);
        let mut lanes = Vec::with_capacity(found.len());
        for (lane, id) in found {
            self.unpark(id)?;
            if waiting::take_one(&self.db, lane, id)? {
                self.put(lane, RELEASED, id)?;
                lanes.push(lane);
            }
        }
        Ok(lanes)
    }
}
