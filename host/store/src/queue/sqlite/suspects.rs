//! Messages that were in flight when a process ended unexpectedly. Any of them may have caused it. The first two times they are
//! requeued as usual; from the third time on such a message is a suspect: it waits, longer each time, and is then sent alone, with
//! nothing else in flight. When an attempt finishes it is no longer a suspect. So only a message that crashes the process by itself
//! continues to count; after `queue.max-interruptions` it is set aside.
//!
//! Only unexpected ends are counted: not an orderly shutdown ([`crate::queue::Queue::note_shutdown`]), and not a lease that ended.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::claims::{Found, WAITING};
use super::damage::Location;
use super::operations;
use super::rows::RowReader;
use super::writer::{Writer, put_meta};
use super::{Claimed, QueueError, Sqlite, State, moment, ms, ready};

/// The priority class that suspects wait in; their original one is in their rows.
pub(super) const SUSPECTS: i64 = -1;
/// The number of interruptions from which on a message is a suspect.
const SUSPECT_FROM: i64 = 3;
/// The first pause of a suspect. It doubles with each further interruption.
const PAUSE_MS: i64 = 1_000;
const PAUSE_MAX_MS: i64 = 60_000;
/// Suspects that one claim considers.
const SUSPECTS_MAX: i64 = 1_000;

/// The key in `meta` that tells whether the process that uses the file runs or was shut down.
const RUN: &str = "run";
const RUNNING: &str = "running";

impl Sqlite {
    pub(crate) async fn claim_suspect(&self, now: Timestamp) -> Result<Option<Claimed>, QueueError> {
        self.writer.write(move |writer| Ok(writer.claim_suspect(now)?)).await
    }
}

impl Writer {
    pub(super) fn note_shutdown(&self) -> rusqlite::Result<()> {
        put_meta(&self.db, RUN, "ended")
    }

    /// Requeues messages that were in flight in the last process, in doubt. Must be called first.
    pub(super) fn recover(&mut self, now: Timestamp) -> Result<(), QueueError> {
        operations::run_now(self, move |writer| Ok(writer.requeue_claimed(now)?))
    }

    fn requeue_claimed(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let run = self.attempt_part(("the queue's metadata", "crashes may not be counted"), |writer| {
            let mut run = writer.db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            let run = run.query_row([RUN], |row| Ok(RowReader::new(row).text(0))).optional()?.flatten();
            put_meta(&writer.db, RUN, RUNNING)?;
            Ok(run)
        })?;
        let is_unclean = run.as_deref() == Some(RUNNING);
        self.correct_ranges()?;
        let part = ("messages in flight", "they are not sent again");
        let claims = self.attempt_part(part, |writer| {
            let mut claims = writer.db.prepare("SELECT id, lane FROM claims ORDER BY id")?;
            let read = |row: &rusqlite::Row| {
                let mut row = RowReader::new(row);
                Ok((row.number_or(0, 0), row.number_or(1, super::ORDINARY)))
            };
            let found = claims.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
            writer.db.execute("DELETE FROM claims", [])?;
            Ok(found)
        })?;
        let mut orphans = Vec::new();
        for (id, priority) in claims {
            let requeue_claimed = |writer: &mut Writer| writer.requeue_one(id, priority, is_unclean, now);
            match self.attempt(Location::Message(id), requeue_claimed)? {
                Ok(true) => {}
                Ok(false) => orphans.push(id),
                Err(damage) => self.set_aside(id, priority, &damage, now)?,
            }
        }
        self.log_orphans("claims", &orphans);
        self.count_waiting()
    }

    fn count_waiting(&mut self) -> rusqlite::Result<()> {
        let (waiting, suspects) = self.attempt_part((WAITING, "their number is unknown"), |writer| {
            let sql = "SELECT CAST(total(n) AS INTEGER), CAST(total(n) FILTER (WHERE lane = ?1) AS INTEGER) FROM queue";
            writer.db.query_row(sql, [SUSPECTS], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        })?;
        (self.unsettled, self.suspects) = (waiting.unsigned_abs(), suspects.unsigned_abs());
        if suspects > 0 {
            tracing::warn!(
                "{suspects} messages were in flight when the process ended unexpectedly, {SUSPECT_FROM} times or more; each is retried \
                 alone, after an increasing pause."
            );
        }
        Ok(())
    }

    /// Requeues one message. Returns false if it does not exist or is settled.
    fn requeue_one(&mut self, id: i64, priority: i64, is_unclean: bool, now: Timestamp) -> rusqlite::Result<bool> {
        let interruptions = self.mark_in_doubt(id, is_unclean, now)?;
        let Some(interruptions) = interruptions else { return Ok(false) };
        self.requeue(id, priority, interruptions, now)?;
        Ok(true)
    }

    /// Requeues a message that was interrupted: among the others, or as a suspect.
    pub(super) fn requeue(
        &mut self,
        id: i64,
        priority: i64,
        interruptions: i64,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        if interruptions < SUSPECT_FROM {
            return self.put(priority, ms(now), id);
        }
        // A message that will not be sent need not wait.
        let is_culprit = interruptions >= i64::from(self.settings.max_interruptions);
        let pause = if is_culprit { 0 } else { pause(interruptions) };
        self.suspects += 1;
        self.put(SUSPECTS, ms(now).saturating_add(pause), id)
    }

    /// Deletes or corrects rows of the queue with invalid ranges, because claims rely on them.
    fn correct_ranges(&mut self) -> rusqlite::Result<()> {
        let part = ("the rows of waiting messages", "some may refer to no message");
        let orphans = self.attempt_part(part, |writer| {
            // This fails if the last message cannot be read, so that no row is deleted by mistake.
            let last: i64 = writer.db.query_row("SELECT ifnull(max(id), 0) FROM messages", [], |row| row.get(0))?;
            let sql = "DELETE FROM queue WHERE n < 1 OR id > ?1 RETURNING id";
            let mut gone = writer.db.prepare(sql)?;
            let gone = gone.query_map([last], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            writer.db.execute("UPDATE queue SET n = ?1 - id + 1 WHERE n > ?1 - id + 1", [last])?;
            Ok(gone)
        })?;
        self.log_orphans("rows", &orphans);
        Ok(())
    }

    fn claim_suspect(&mut self, now: Timestamp) -> rusqlite::Result<Option<Claimed>> {
        for (due, id) in self.waiting_suspects()? {
            if due > ms(now) {
                break;
            }
            let priority = self.priority(id)?.unwrap_or(super::ORDINARY);
            if self.paused.contains(&priority) {
                continue;
            }
            ready::take_one(&self.db, SUSPECTS, id)?;
            self.suspects = self.suspects.saturating_sub(1);
            if self.is_cancelled(priority)? {
                match self.attempt(Location::Message(id), |writer| {
                    writer.set_settled(id, priority, (State::Cancelled, b""), now)
                })? {
                    Ok(()) => {}
                    Err(damage) => self.set_aside(id, priority, &damage, now)?,
                }
                continue;
            }
            self.last_claim += 1;
            if !self.start_claim(id, priority, self.last_claim)? {
                continue;
            }
            let kind = self.attempt(Location::Batch(priority), |writer| writer.kind(priority))?;
            match self.read_claimed(priority, id, &kind, now)? {
                Found::Message(claimed) => return Ok(Some(*claimed)),
                Found::Nothing => self.log_orphans("rows", &[id]),
                Found::Damaged(damage) => self.set_aside(id, priority, &damage, now)?,
            }
        }
        Ok(None)
    }

    /// When the next suspect that is not paused is due.
    pub(super) fn next_suspect(&mut self) -> rusqlite::Result<Option<Timestamp>> {
        if self.suspects == 0 {
            return Ok(None);
        }
        for (due, id) in self.waiting_suspects()? {
            if self.priority(id)?.is_none_or(|priority| !self.paused.contains(&priority)) {
                return Ok(Some(moment(due)));
            }
        }
        Ok(None)
    }

    /// Removes every suspect of a priority class from the queue. Returns their ids.
    pub(super) fn take_suspects(&mut self, priority: i64) -> rusqlite::Result<Vec<i64>> {
        let mut ids = Vec::new();
        for (_, id) in self.waiting_suspects()? {
            if self.priority(id)? == Some(priority) && ready::take_one(&self.db, SUSPECTS, id)? {
                self.suspects = self.suspects.saturating_sub(1);
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Removes a message from the queue. Returns whether it waited.
    pub(super) fn take_waiting(&mut self, priority: i64, id: i64) -> rusqlite::Result<bool> {
        if ready::take_one(&self.db, priority, id)? {
            return Ok(true);
        }
        let is_suspect = self.suspects > 0 && ready::take_one(&self.db, SUSPECTS, id)?;
        self.suspects = self.suspects.saturating_sub(u64::from(is_suspect));
        Ok(is_suspect)
    }

    /// Due times and ids of waiting suspects, the earliest first.
    fn waiting_suspects(&mut self) -> rusqlite::Result<Vec<(i64, i64)>> {
        let suspects = self.attempt(Location::Priority(SUSPECTS), |writer| {
            let sql = "SELECT due, id FROM queue WHERE lane = ?1 ORDER BY due, id LIMIT ?2";
            let mut suspects = writer.db.prepare_cached(sql)?;
            suspects.query_map([SUSPECTS, SUSPECTS_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        Ok(suspects.unwrap_or_default())
    }

    /// The priority class in a message's row; `None` if that cannot be read.
    fn priority(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        let priority = self.attempt(Location::Message(id), |writer| {
            let mut priority = writer.db.prepare_cached("SELECT lane FROM messages WHERE id = ?1")?;
            priority.query_row([id], |row| Ok(RowReader::new(row).number(0))).optional()
        })?;
        Ok(priority.ok().flatten().flatten())
    }
}

/// The pause of a message with that many interruptions, in milliseconds.
fn pause(interruptions: i64) -> i64 {
    let doubled = u32::try_from(interruptions - SUSPECT_FROM).ok().and_then(|n| PAUSE_MS.checked_shl(n.min(30)));
    doubled.unwrap_or(PAUSE_MAX_MS).clamp(PAUSE_MS, PAUSE_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_waits_longer_each_time_up_to_a_minute() {
        let pauses: Vec<i64> = (3..12).map(|n| pause(n) / 1_000).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(1_000), PAUSE_MAX_MS);
    }
}
