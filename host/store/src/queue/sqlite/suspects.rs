//! Messages that were under way when a process ended as nobody had asked it to. Any of them may have ended it. The first two times
//! they are tried as all others are; from the third on such a message is a suspect: it waits, longer each time, and is then sent
//! with nothing else under way in the whole process. One that comes to anything is a suspect no more, so that only what ends the
//! process by itself is counted on; after `queue.max-interruptions` it is set aside.
//!
//! Only unclean ends count: not a process that was asked to end ([`super::Queue::end`]), and not a lease that ended.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::claims::{Found, WAITING};
use super::damage::Place;
use super::group_commit;
use super::rows::Reading;
use super::writer::{Writer, put_meta};
use super::{Claimed, QueueError, Sqlite, State, moment, ms, ready};

/// The lane that suspects wait in; their own is in their rows.
pub(super) const SUSPECTS: i64 = -1;
/// The interruption that makes a message a suspect.
const FROM: i64 = 3;
/// The pause of a suspect; it doubles with each further interruption.
const PAUSE_MS: i64 = 1_000;
const PAUSE_MAX_MS: i64 = 60_000;
/// Suspects that one claim looks at.
const LOOKED_AT: i64 = 1_000;

/// What `meta` calls whether the process that has the file runs, or was asked to end.
const RUN: &str = "run";
const RUNNING: &str = "running";

impl Sqlite {
    /// One suspect that is due. It is to be sent alone: nothing else is to be claimed or under way until it is settled.
    pub async fn claim_suspect(&self, now: Timestamp) -> Result<Option<Claimed>, QueueError> {
        self.writer.write(move |writer| Ok(writer.claim_suspect(now)?)).await
    }
}

impl Writer {
    pub fn note_shutdown(&self) -> rusqlite::Result<()> {
        put_meta(&self.db, RUN, "ended")
    }

    /// What the last process had under way waits again, in doubt. To be done before anything else.
    pub fn recover(&mut self, now: Timestamp) -> Result<(), QueueError> {
        group_commit::run_now(self, move |writer| Ok(writer.come_back(now)?))
    }

    fn come_back(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let run = self.attempt_part(("the facts of the queue", "crashes may not be counted"), |writer| {
            let mut run = writer.db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            let run = run.query_row([RUN], |row| Ok(Reading::of(row).text(0))).optional()?.flatten();
            put_meta(&writer.db, RUN, RUNNING)?;
            Ok(run)
        })?;
        let is_unclean = run.as_deref() == Some(RUNNING);
        self.tidy_waiting()?;
        let part = ("messages in flight", "they are not sent again");
        let claims = self.attempt_part(part, |writer| {
            let mut claims = writer.db.prepare("SELECT id, lane FROM claims ORDER BY id")?;
            let read = |row: &rusqlite::Row| {
                let mut row = Reading::of(row);
                Ok((row.number_or(0, 0), row.number_or(1, super::ORDINARY)))
            };
            let found = claims.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
            writer.db.execute("DELETE FROM claims", [])?;
            Ok(found)
        })?;
        let mut orphans = Vec::new();
        for (id, lane) in claims {
            let come_back = |writer: &mut Writer| writer.come_back_one(id, lane, is_unclean, now);
            match self.attempt(Place::Message(id), come_back)? {
                Ok(true) => {}
                Ok(false) => orphans.push(id),
                Err(damage) => self.put_aside(id, lane, &damage, now)?,
            }
        }
        self.tell_of_orphans("claims", &orphans);
        self.count_waiting()
    }

    fn count_waiting(&mut self) -> rusqlite::Result<()> {
        let (waiting, suspects) = self.attempt_part((WAITING, "how much it is is not known"), |writer| {
            let sql = "SELECT CAST(total(n) AS INTEGER), CAST(total(n) FILTER (WHERE lane = ?1) AS INTEGER) FROM queue";
            writer.db.query_row(sql, [SUSPECTS], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        })?;
        (self.unsettled, self.suspects) = (waiting.unsigned_abs(), suspects.unsigned_abs());
        if suspects > 0 {
            tracing::warn!(
                "{suspects} messages were being sent when the process ended unexpectedly, {FROM} times or more: each is tried \
                 alone, after a pause that grows."
            );
        }
        Ok(())
    }

    /// Whether the message is there, and not settled.
    fn come_back_one(&mut self, id: i64, lane: i64, is_unclean: bool, now: Timestamp) -> rusqlite::Result<bool> {
        let interruptions = self.doubt(id, is_unclean, now)?;
        let Some(interruptions) = interruptions else { return Ok(false) };
        self.requeue(id, lane, interruptions, now)?;
        Ok(true)
    }

    /// A message that was interrupted waits again: among the others, or as a suspect.
    pub(super) fn requeue(&mut self, id: i64, lane: i64, interruptions: i64, now: Timestamp) -> rusqlite::Result<()> {
        if interruptions < FROM {
            return self.put(lane, ms(now), id);
        }
        // For one that is not tried any more there is nothing to wait for.
        let is_culprit = interruptions >= i64::from(self.settings.max_interruptions);
        let pause = if is_culprit { 0 } else { pause(interruptions) };
        self.suspects += 1;
        self.put(SUSPECTS, ms(now).saturating_add(pause), id)
    }

    /// Rows of the queue that say how many they are for must be right about it: what is claimed goes by that.
    fn tidy_waiting(&mut self) -> rusqlite::Result<()> {
        let part = ("the rows of what waits", "some that are for no message may be there");
        let orphans = self.attempt_part(part, |writer| {
            // Where the last rows cannot be read this fails, and nothing is taken for an orphan that is none.
            let last: i64 = writer.db.query_row("SELECT ifnull(max(id), 0) FROM messages", [], |row| row.get(0))?;
            let sql = "DELETE FROM queue WHERE n < 1 OR id > ?1 RETURNING id";
            let mut gone = writer.db.prepare(sql)?;
            let gone = gone.query_map([last], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            writer.db.execute("UPDATE queue SET n = ?1 - id + 1 WHERE n > ?1 - id + 1", [last])?;
            Ok(gone)
        })?;
        self.tell_of_orphans("rows", &orphans);
        Ok(())
    }

    fn claim_suspect(&mut self, now: Timestamp) -> rusqlite::Result<Option<Claimed>> {
        for (due, id) in self.waiting_suspects()? {
            if due > ms(now) {
                break;
            }
            let lane = self.lane(id)?.unwrap_or(super::ORDINARY);
            if self.paused.contains(&lane) {
                continue;
            }
            ready::take_one(&self.db, SUSPECTS, id)?;
            self.suspects = self.suspects.saturating_sub(1);
            if self.is_cancelled(lane)? {
                match self.attempt(Place::Message(id), |writer| writer.done(id, lane, (State::Cancelled, b""), now))? {
                    Ok(()) => {}
                    Err(damage) => self.put_aside(id, lane, &damage, now)?,
                }
                continue;
            }
            self.last_claim += 1;
            if !self.take(id, lane, self.last_claim)? {
                continue;
            }
            let kind = self.attempt(Place::Batch(lane), |writer| writer.kind(lane))?;
            match self.read_claimed(lane, id, &kind, now)? {
                Found::Message(claimed) => return Ok(Some(*claimed)),
                Found::Nothing => self.tell_of_orphans("rows", &[id]),
                Found::Damaged(damage) => self.put_aside(id, lane, &damage, now)?,
            }
        }
        Ok(None)
    }

    /// When the next suspect is due that may be tried.
    pub fn next_suspect(&mut self) -> rusqlite::Result<Option<Timestamp>> {
        if self.suspects == 0 {
            return Ok(None);
        }
        for (due, id) in self.waiting_suspects()? {
            if self.lane(id)?.is_none_or(|lane| !self.paused.contains(&lane)) {
                return Ok(Some(moment(due)));
            }
        }
        Ok(None)
    }

    /// Takes every suspect of a lane out of the queue; their numbers.
    pub fn take_suspects(&mut self, lane: i64) -> rusqlite::Result<Vec<i64>> {
        let mut ids = Vec::new();
        for (_, id) in self.waiting_suspects()? {
            if self.lane(id)? == Some(lane) && ready::take_one(&self.db, SUSPECTS, id)? {
                self.suspects = self.suspects.saturating_sub(1);
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Takes a message out, wherever it waits; whether it did.
    pub fn take_waiting(&mut self, lane: i64, id: i64) -> rusqlite::Result<bool> {
        if ready::take_one(&self.db, lane, id)? {
            return Ok(true);
        }
        let is_suspect = self.suspects > 0 && ready::take_one(&self.db, SUSPECTS, id)?;
        self.suspects = self.suspects.saturating_sub(u64::from(is_suspect));
        Ok(is_suspect)
    }

    /// Due times and numbers, the earliest first.
    fn waiting_suspects(&mut self) -> rusqlite::Result<Vec<(i64, i64)>> {
        let suspects = self.attempt(Place::Lane(SUSPECTS), |writer| {
            let sql = "SELECT due, id FROM queue WHERE lane = ?1 ORDER BY due, id LIMIT ?2";
            let mut suspects = writer.db.prepare_cached(sql)?;
            suspects.query_map([SUSPECTS, LOOKED_AT], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        Ok(suspects.unwrap_or_default())
    }

    /// The lane that a message has by its row; `None` where that cannot be read.
    fn lane(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        let lane = self.attempt(Place::Message(id), |writer| {
            let mut lane = writer.db.prepare_cached("SELECT lane FROM messages WHERE id = ?1")?;
            lane.query_row([id], |row| Ok(Reading::of(row).number(0))).optional()
        })?;
        Ok(lane.ok().flatten().flatten())
    }
}

/// Of a message with so many interruptions, in milliseconds.
fn pause(interruptions: i64) -> i64 {
    let doubled = u32::try_from(interruptions - FROM).ok().and_then(|n| PAUSE_MS.checked_shl(n.min(30)));
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
