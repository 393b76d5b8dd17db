//! Batches: many messages of one type, in a priority class of their own, and their progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::damage::Location;
use super::resolvers;
use super::rows::RowReader;
use super::writer::{WriteError, Writer};
use super::{Batch, BatchState, NewBatch, ORDINARY, Priority, QueueError, Sqlite, State, moment, ms, ready};
use crate::sqlite;

/// Messages that one step of a cancellation covers.
const STEP: usize = 500;

impl Sqlite {
    pub(crate) async fn create_batch(&self, batch: NewBatch, now: Timestamp) -> Result<Batch, QueueError> {
        self.writer
            .write(move |writer| {
                writer.create_batch(&batch, now)?;
                writer.batch(batch.uuid)
            })
            .await
    }

    pub(crate) async fn complete_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        self.change_batch(uuid, |state| (state == BatchState::Receiving).then_some(BatchState::Sending)).await
    }

    pub(crate) async fn pause_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        self.change_batch(uuid, |state| {
            matches!(state, BatchState::Receiving | BatchState::Sending).then_some(BatchState::Paused)
        })
        .await
    }

    pub(crate) async fn resume_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        let batch = self
            .change_batch(uuid, |state| {
                matches!(state, BatchState::Paused | BatchState::Failed).then_some(BatchState::Sending)
            })
            .await?;
        self.wakeups.wake(false);
        self.wakeups.wake_resolver();
        Ok(batch)
    }

    pub(crate) async fn cancel_batch(&self, uuid: Uuid, now: Timestamp) -> Result<Batch, QueueError> {
        let batch = self.change_batch(uuid, |_| Some(BatchState::Cancelled)).await?;
        let priority = batch.priority.0;
        while self.writer.write(move |writer| Ok(writer.cancel_some(priority, now)?)).await? {}
        self.batch(uuid).await?.ok_or(QueueError::Unknown("batch"))
    }

    async fn change_batch(&self, uuid: Uuid, next: fn(BatchState) -> Option<BatchState>) -> Result<Batch, QueueError> {
        self.writer
            .write(move |writer| {
                let batch = writer.batch(uuid)?;
                if let Some(next) = next(batch.state) {
                    let state = match next {
                        BatchState::Sending if writer.resume_resolving(batch.priority.0)? => BatchState::Receiving,
                        other => other,
                    };
                    if state == BatchState::Cancelled {
                        writer.stop_resolving(batch.priority.0)?;
                    }
                    let sql = "UPDATE batches SET state = ?1 WHERE lane = ?2";
                    writer.db.execute(sql, [state as i64, batch.priority.0])?;
                    match state {
                        BatchState::Paused => writer.paused.insert(batch.priority.0),
                        _ => writer.paused.remove(&batch.priority.0),
                    };
                }
                writer.batch(uuid)
            })
            .await
    }

    pub(crate) async fn batch(&self, uuid: Uuid) -> Result<Option<Batch>, QueueError> {
        self.read(move |db| read(db, uuid)).await
    }

    pub(crate) async fn batches(&self, max: usize) -> Result<Vec<Batch>, QueueError> {
        self.read(move |db| {
            let mut latest = db.prepare_cached("SELECT uuid FROM batches ORDER BY lane DESC LIMIT ?1")?;
            let uuids = latest.query_map([max as i64], |row| Ok(RowReader::new(row).uuid(0)))?;
            let uuids = uuids.collect::<rusqlite::Result<Vec<Uuid>>>()?;
            let found = uuids.into_iter().filter_map(|uuid| read(db, uuid).transpose());
            // A damaged batch is left out of the list; a query for it fails.
            found.filter(|batch| batch.as_ref().err().is_none_or(sqlite::is_general)).collect()
        })
        .await
    }
}

impl Writer {
    /// Creates a batch, unless it exists. Returns whether it is new.
    pub(super) fn create_batch(&self, batch: &NewBatch, now: Timestamp) -> Result<bool, WriteError> {
        let NewBatch { uuid, digest, kind } = batch;
        let sql = "INSERT INTO batches (lane, uuid, digest, state, begun, kind)
            SELECT max(ifnull(max(lane), 0) + 1, ?1), ?2, ?3, 0, ?4, ?5 FROM batches
            WHERE true ON CONFLICT (uuid) DO NOTHING";
        let values = params![ORDINARY + 1, uuid.as_bytes(), digest, ms(now), kind];
        let is_new = self.db.prepare_cached(sql)?.execute(values)? > 0;
        let sql = "SELECT digest FROM batches WHERE uuid = ?1";
        let is = self.db.query_row(sql, [uuid.as_bytes()], |row| Ok(RowReader::new(row).bytes(0)))?;
        if is.as_deref() != Some(digest) {
            let text = "another batch has this uuid; its message type or resolver is different".to_owned();
            return Err(WriteError::Rejected(QueueError::State(text)));
        }
        Ok(is_new)
    }

    pub(super) fn batch(&mut self, uuid: Uuid) -> Result<Batch, WriteError> {
        self.write_tallies()?;
        read(&self.db, uuid)?.ok_or(WriteError::Rejected(QueueError::Unknown("batch")))
    }

    /// Whether a priority class is that of a cancelled batch, which accepts and retries no messages.
    pub(super) fn is_cancelled(&mut self, priority: i64) -> rusqlite::Result<bool> {
        if priority <= ORDINARY {
            return Ok(false);
        }
        let state = self.attempt(Location::Batch(priority), |writer| {
            let mut state = writer.db.prepare_cached("SELECT state FROM batches WHERE lane = ?1")?;
            state.query_row([priority], |row| Ok(RowReader::new(row).number(0))).optional()
        })?;
        Ok(state.ok().flatten().flatten() == Some(BatchState::Cancelled as i64))
    }

    /// The message type that the messages of a batch share.
    pub(super) fn kind(&self, priority: i64) -> rusqlite::Result<Option<Arc<[u8]>>> {
        if priority <= ORDINARY {
            return Ok(None);
        }
        let mut kind = self.db.prepare_cached("SELECT kind FROM batches WHERE lane = ?1")?;
        kind.query_row([priority], |row| row.get::<_, Vec<u8>>(0).map(Arc::from)).optional()
    }

    /// Deletes batches that were created before a time and have no messages left.
    pub(super) fn drop_batches(&mut self, before: i64) -> rusqlite::Result<()> {
        self.write_tallies()?;
        let sql = "DELETE FROM batches WHERE begun < ?1 AND NOT EXISTS
            (SELECT 1 FROM tallies WHERE tallies.lane = batches.lane AND n > 0) AND NOT EXISTS
            (SELECT 1 FROM resolving WHERE resolving.lane = batches.lane AND batches.state = 0) RETURNING lane";
        let gone: Vec<i64> =
            self.db.prepare_cached(sql)?.query_map([before], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for priority in gone {
            // The priority class may be assigned again.
            self.paused.remove(&priority);
            self.db.prepare_cached("DELETE FROM tallies WHERE lane = ?1")?.execute([priority])?;
            self.db.prepare_cached("DELETE FROM resolving WHERE lane = ?1")?.execute([priority])?;
        }
        Ok(())
    }

    /// Cancels a few messages of a batch. Returns whether there may be more.
    fn cancel_some(&mut self, priority: i64, now: Timestamp) -> rusqlite::Result<bool> {
        let ids = ready::take_due(&self.db, priority, i64::MAX, STEP)?;
        let is_more = ids.len() == STEP;
        for id in ids.into_iter().chain(self.take_suspects(priority)?) {
            match self.attempt(Location::Message(id), |writer| {
                writer.set_settled(id, priority, (State::Cancelled, b""), now)
            })? {
                Ok(()) => {}
                Err(damage) => self.set_aside(id, priority, &damage, now)?,
            }
        }
        Ok(is_more)
    }
}

pub(super) fn read(db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<Batch>> {
    let sql = "SELECT lane, state, begun, kind FROM batches WHERE uuid = ?1";
    let read = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
        let (priority, state) = (row.number_or(0, ORDINARY), row.number_or(1, BatchState::Sending as i64));
        Ok((priority, state, row.number_or(2, 0), row.bytes(3).unwrap_or_default()))
    };
    let Some((priority, state, created, kind)) =
        db.prepare_cached(sql)?.query_row([uuid.as_bytes()], read).optional()?
    else {
        return Ok(None);
    };
    let mut by_state = BTreeMap::new();
    let mut tallies = db.prepare_cached("SELECT state, n FROM tallies WHERE lane = ?1")?;
    let tally = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
        Ok((row.number_or(0, State::Corrupt as i64), row.number_or(1, 0)))
    };
    for tally in tallies.query_map([priority], tally)? {
        let (state, n) = tally?;
        if n > 0 {
            by_state.insert(State::of(state), n.unsigned_abs());
        }
    }
    let state = match BatchState::of(state) {
        BatchState::Sending if !by_state.contains_key(&State::Queued) => BatchState::Done,
        other => other,
    };
    let messages = by_state.values().sum();
    let resolver = resolvers::report(db, priority)?;
    let (priority, created) = (Priority(priority), moment(created));
    Ok(Some(Batch { uuid, priority, state, created, messages, by_state, resolver, kind }))
}

/// The priority classes of paused batches.
pub(super) fn paused(db: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    let mut paused = db.prepare_cached("SELECT lane FROM batches WHERE state = ?1")?;
    let priorities = paused.query_map([BatchState::Paused as i64], |row| Ok(RowReader::new(row).number(0)))?;
    priorities.filter_map(Result::transpose).collect()
}
