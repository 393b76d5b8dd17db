//! Handling of a wall clock that was set back. Messages that were due stay due, and pauses keep their length; only messages with a
//! scheduled time (`not_before`) wait for that time. Without this, setting the clock back by an hour would delay mail by an hour.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::ms;
use super::rows::RowReader;
use super::suspects::SUSPECTS;
use super::writer::Writer;
use crate::sqlite;

/// Smaller corrections of the clock are ignored.
const SLACK_MS: i64 = 2_000;
/// The longest pause between attempts; a started message that waits longer has a scheduled time.
const PAUSE_MAX_MS: i64 = 3_600_000;
/// Rows that one step reads, so that other writes do not wait long.
const STEP: i64 = 1_000;

/// The last time that was read, and the work to do after the clock was set back.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    last: i64,
    shift: Option<Shift>,
}

#[derive(Clone, Copy)]
struct Shift {
    /// The time before the clock was set back.
    before: i64,
    /// The time after that.
    after: i64,
    /// The last row that was read.
    cursor: (i64, i64, i64),
}

impl Clock {
    /// Starts with the latest time in the tables.
    pub(super) fn new(db: &Connection) -> rusqlite::Result<Self> {
        let latest = |sql| match db.query_row(sql, [], |row| Ok(RowReader::new(row).number(0))).optional() {
            Err(error) if !sqlite::is_general(&error) => Ok(None),
            latest => latest,
        };
        let accepted = latest("SELECT accepted FROM messages ORDER BY id DESC LIMIT 1")?;
        let settled = latest("SELECT max(settled) FROM messages WHERE settled IS NOT NULL")?;
        Ok(Clock { last: accepted.flatten().max(settled.flatten()).unwrap_or(i64::MIN), shift: None })
    }

    fn notice(&mut self, now: i64) {
        let last = std::mem::replace(&mut self.last, now);
        if now.saturating_add(SLACK_MS) < last {
            tracing::warn!(
                back_ms = last.saturating_sub(now),
                "The clock was set back; messages that were due stay due."
            );
            let before = self.shift.take().map_or(last, |shift| shift.before.max(last));
            self.shift = Some(Shift { before, after: now, cursor: (i64::MIN, i64::MIN, i64::MIN) });
        }
    }
}

impl Writer {
    /// Moves due times after the clock was set back, so that no message is delayed. Returns whether there is more to do.
    pub(super) fn follow_clock(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        self.clock.notice(ms(now));
        let Some(shift) = self.clock.shift else { return Ok(false) };
        let part = ("the due times of waiting messages", "the clock was set back, and some messages are sent too late");
        let shift = self.attempt_part(part, |writer| writer.shift_some(shift))?;
        self.clock.shift = shift;
        Ok(shift.is_some())
    }

    /// Moves the due times of some waiting messages. Returns the remaining work.
    fn shift_some(&mut self, Shift { before, after, cursor }: Shift) -> rusqlite::Result<Option<Shift>> {
        if cursor.0 == i64::MIN {
            let sql = "UPDATE calls SET due = max(?1, due - ?2) WHERE due > ?1";
            self.db.execute(sql, [after, before - after])?;
        }
        // Messages in a range were not started, so the first one stands for all.
        let sql = "SELECT q.lane, q.due, q.id, q.lane = ?5 OR m.progress IS NOT NULL FROM queue q JOIN messages m ON m.id = q.id
            WHERE (q.lane, q.due, q.id) > (?1, ?2, ?3) ORDER BY q.lane, q.due, q.id LIMIT ?4";
        let rows: Vec<(i64, i64, i64, bool)> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![cursor.0, cursor.1, cursor.2, STEP, SUSPECTS], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<Result<_, _>>()?;
        for (priority, due, id, is_started) in &rows {
            let moved = match *due {
                due if due <= after => continue,
                due if due <= before => after,
                due if *is_started && due - before <= PAUSE_MAX_MS => due - (before - after),
                _ => continue,
            };
            let sql = "UPDATE queue SET due = ?4 WHERE lane = ?1 AND due = ?2 AND id = ?3";
            self.db.prepare_cached(sql)?.execute([*priority, *due, *id, moved])?;
        }
        let is_more = rows.len() as i64 == STEP;
        Ok(rows.last().filter(|_| is_more).map(|(priority, due, id, _)| Shift {
            before,
            after,
            cursor: (*priority, *due, *id),
        }))
    }
}
