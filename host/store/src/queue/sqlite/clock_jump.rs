//! Handling of a wall clock that was set back. Messages that were due stay due, and pauses keep their length; only messages with a
//! scheduled time (`not_before`) wait for that time. Without this, a clock that is set back an hour would delay mail by an hour.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::ms;
use super::rows::Reading;
use super::suspects::SUSPECTS;
use super::writer::Writer;
use crate::sqlite;

/// Smaller corrections of the clock are ignored.
const SLACK_MS: i64 = 2_000;
/// A pause between attempts is never longer; a started message that waits longer has a scheduled time.
const PAUSE_MAX_MS: i64 = 3_600_000;
/// Waiting rows that one step reads, so that no write waits long behind it.
const STEP: i64 = 1_000;

/// The last reading of the wall clock, and whether rows still use the time from before it was set back.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    last: i64,
    behind: Option<Behind>,
}

#[derive(Clone, Copy)]
struct Behind {
    /// The readings before and after the clock was set back.
    was: i64,
    is: i64,
    /// The row that was read last.
    seen: (i64, i64, i64),
}

impl Clock {
    /// The latest time in the tables.
    pub fn new(db: &Connection) -> rusqlite::Result<Self> {
        let latest = |sql| match db.query_row(sql, [], |row| Ok(Reading::of(row).number(0))).optional() {
            Err(error) if !sqlite::is_general(&error) => Ok(None),
            latest => latest,
        };
        let accepted = latest("SELECT accepted FROM messages ORDER BY id DESC LIMIT 1")?;
        let settled = latest("SELECT max(settled) FROM messages WHERE settled IS NOT NULL")?;
        Ok(Clock { last: accepted.flatten().max(settled.flatten()).unwrap_or(i64::MIN), behind: None })
    }

    fn notice(&mut self, now: i64) {
        let last = std::mem::replace(&mut self.last, now);
        if now.saturating_add(SLACK_MS) < last {
            tracing::warn!(
                back_ms = last.saturating_sub(now),
                "The clock was set back; messages that were due stay due."
            );
            let was = self.behind.take().map_or(last, |behind| behind.was.max(last));
            self.behind = Some(Behind { was, is: now, seen: (i64::MIN, i64::MIN, i64::MIN) });
        }
    }
}

impl Writer {
    /// Moves due times after the clock was set back, so that no message is delayed. Returns whether there is more to do.
    pub fn follow_clock(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        self.clock.notice(ms(now));
        let Some(behind) = self.clock.behind else { return Ok(false) };
        let part = (
            "the due times of waiting messages",
            "since the clock was set back, some messages are sent later than they should be",
        );
        let behind = self.attempt_part(part, |writer| writer.move_some(behind))?;
        self.clock.behind = behind;
        Ok(behind.is_some())
    }

    /// Moves the due times of some waiting messages. Returns what is left to do.
    fn move_some(&mut self, Behind { was, is, seen }: Behind) -> rusqlite::Result<Option<Behind>> {
        if seen.0 == i64::MIN {
            let sql = "UPDATE calls SET due = max(?1, due - ?2) WHERE due > ?1";
            self.db.execute(sql, [is, was - is])?;
        }
        // No message of a range was started.
        let sql = "SELECT q.lane, q.due, q.id, q.lane = ?5 OR m.progress IS NOT NULL FROM queue q JOIN messages m ON m.id = q.id
            WHERE (q.lane, q.due, q.id) > (?1, ?2, ?3) ORDER BY q.lane, q.due, q.id LIMIT ?4";
        let rows: Vec<(i64, i64, i64, bool)> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![seen.0, seen.1, seen.2, STEP, SUSPECTS], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<Result<_, _>>()?;
        for (priority, due, id, is_started) in &rows {
            let moved = match *due {
                due if due <= is => continue,
                due if due <= was => is,
                due if *is_started && due - was <= PAUSE_MAX_MS => due - (was - is),
                _ => continue,
            };
            let sql = "UPDATE queue SET due = ?4 WHERE lane = ?1 AND due = ?2 AND id = ?3";
            self.db.prepare_cached(sql)?.execute([*priority, *due, *id, moved])?;
        }
        let is_more = rows.len() as i64 == STEP;
        Ok(rows.last().filter(|_| is_more).map(|(priority, due, id, _)| Behind {
            was,
            is,
            seen: (*priority, *due, *id),
        }))
    }
}
