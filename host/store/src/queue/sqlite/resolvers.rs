//! The progress of batches whose recipients come from a resolver, page by page. After a crash a page is requested again, so its messages
//! must get the same uuids.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::batches;
use super::rows::RowReader;
use super::writer::{WriteError, Writer};
use super::{Batch, BatchState, DuePage, NewBatch, Priority, QueueError, Resolver, ResolverStatus, Sqlite, moment, ms};
use crate::sqlite;

impl Sqlite {
    pub(crate) async fn create_resolved_batch(
        &self,
        batch: NewBatch,
        resolver: Resolver,
        now: Timestamp,
    ) -> Result<Batch, QueueError> {
        let created = self
            .writer
            .write(move |writer| {
                let uuid = batch.uuid;
                if writer.create_batch(&batch, now)? {
                    let sql = "INSERT INTO resolving (lane, plugin, arguments, failures, due)
                        SELECT lane, ?2, ?3, 0, ?4 FROM batches WHERE uuid = ?1";
                    let Resolver { plugin, arguments } = &resolver;
                    writer.db.execute(sql, params![uuid.as_bytes(), plugin, arguments, ms(now)])?;
                }
                writer.batch(uuid)
            })
            .await?;
        self.wakeups.wake_resolver();
        Ok(created)
    }

    pub(crate) async fn due_pages(
        &self,
        max: usize,
        now: Timestamp,
    ) -> Result<(Vec<DuePage>, Option<Timestamp>), QueueError> {
        self.read(move |db| Ok((due(db, max, now)?, next(db, now)?))).await
    }

    pub(crate) async fn page_accepted(
        &self,
        batch: Priority,
        next: Option<String>,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let priority = batch.0;
        self.writer
            .write(move |writer| {
                match &next {
                    Some(next) => {
                        let sql =
                            "UPDATE resolving SET cursor = ?2, failures = 0, due = ?3, error = NULL WHERE lane = ?1";
                        writer.db.execute(sql, params![priority, next, ms(now)])?;
                    }
                    None => {
                        writer.db.execute("DELETE FROM resolving WHERE lane = ?1", [priority])?;
                        let sql = "UPDATE batches SET state = ?2 WHERE lane = ?1 AND state = ?3";
                        let (from, to) = (BatchState::Receiving as i64, BatchState::Sending as i64);
                        writer.db.execute(sql, [priority, to, from])?;
                    }
                }
                Ok(())
            })
            .await
    }

    pub(crate) async fn page_failed(
        &self,
        batch: Priority,
        error: String,
        again: Option<Timestamp>,
    ) -> Result<(), QueueError> {
        let priority = batch.0;
        self.writer
            .write(move |writer| {
                let sql = "UPDATE resolving SET failures = failures + 1, due = ?2, error = ?3 WHERE lane = ?1";
                writer.db.execute(sql, params![priority, ms(again.unwrap_or(Timestamp::MAX)), error])?;
                if again.is_none() {
                    let sql = "UPDATE batches SET state = ?2 WHERE lane = ?1 AND state = ?3";
                    writer.db.execute(sql, [priority, BatchState::Failed as i64, BatchState::Receiving as i64])?;
                }
                Ok(())
            })
            .await
    }
}

impl Writer {
    /// Makes the next page of a resumed batch due now. Returns whether it still has pages.
    pub(super) fn resume_resolving(&self, priority: i64) -> Result<bool, WriteError> {
        Ok(self.db.execute("UPDATE resolving SET failures = 0, due = 0 WHERE lane = ?1", [priority])? > 0)
    }

    pub(super) fn stop_resolving(&self, priority: i64) -> Result<(), WriteError> {
        self.db.execute("DELETE FROM resolving WHERE lane = ?1", [priority])?;
        Ok(())
    }
}

fn due(db: &Connection, max: usize, now: Timestamp) -> rusqlite::Result<Vec<DuePage>> {
    let sql = "SELECT uuid, plugin, arguments, cursor, failures FROM resolving JOIN batches USING (lane)
        WHERE due <= ?1 AND state = ?2 ORDER BY due LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![ms(now), BatchState::Receiving as i64, max as i64], |row| {
        let mut row = RowReader::new(row);
        let (uuid, plugin, arguments) = (row.uuid(0), row.text(1).unwrap_or_default(), row.text(2).unwrap_or_default());
        let (cursor, failures) = (row.text(3), u32::try_from(row.number_or(4, 0)).unwrap_or_default());
        let damage = (!row.faults.is_empty()).then(|| row.faults.join(", "));
        Ok((uuid, Resolver { plugin, arguments }, cursor, failures, damage))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (uuid, resolver, cursor, failures, damage) = row?;
        match batches::read(db, uuid) {
            Ok(Some(batch)) => found.push(DuePage { batch, resolver, cursor, failures, damage }),
            Err(error) if sqlite::is_general(&error) => return Err(error),
            // Its batch was deleted.
            Ok(None) | Err(_) => {}
        }
    }
    Ok(found)
}

fn next(db: &Connection, now: Timestamp) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT min(due) FROM resolving JOIN batches USING (lane) WHERE due > ?1 AND state = ?2";
    let next: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([ms(now), BatchState::Receiving as i64], |row| Ok(RowReader::new(row).number(0)))?;
    Ok(next.map(moment))
}

/// The status of a batch's resolver, until its last page.
pub(super) fn report(db: &Connection, priority: i64) -> rusqlite::Result<Option<ResolverStatus>> {
    let sql = "SELECT plugin, error FROM resolving WHERE lane = ?1";
    let read = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
        Ok(ResolverStatus { plugin: row.text(0).unwrap_or_default(), error: row.text(1) })
    };
    db.prepare_cached(sql)?.query_row([priority], read).optional()
}
