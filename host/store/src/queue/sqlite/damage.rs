//! Handling of damage: a message whose row cannot be read or written is set aside, logged once, and delays no other message.
//! Operations that may meet damage are *attempted* ([`Met`]).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::writer::Writer;
use super::{State, ms};
use crate::sqlite::damage::Met;

/// Ids that one log line names.
const NAMED_MAX: usize = 10;

/// SQL for the ids of the messages that were set aside.
pub(super) const SET_ASIDE: &str = "(SELECT id FROM damaged)";

/// What may be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A message's row, by its id.
    Message(i64),
    /// What is beside a message's row, and is touched when the row is deleted.
    Beside(i64),
    /// The destinations that a message waits for, by its id.
    Blocked(i64),
    /// The index entry of a message, by its uuid.
    Uuid(Uuid),
    /// The event about a message, by the message's id.
    Event(i64),
    /// A batch's row, by its priority class.
    Batch(i64),
    /// The waiting messages of a priority class.
    Priority(i64),
    Part(&'static str),
}

/// The damage that was met.
#[derive(Default)]
pub(super) struct Damage {
    met: Met<Place>,
    /// What is logged once the transaction is committed: the id of a message, and a line.
    lines: Vec<(Option<i64>, String)>,
}

impl Damage {
    /// Whether some rows could not be deleted because of what is beside them.
    pub fn is_beside(&self) -> bool {
        self.met.places().any(|place| matches!(place, Place::Beside(_)))
    }

    /// A transaction starts.
    pub fn start(&mut self) {
        self.met.start();
        self.lines.clear();
    }

    /// The transaction was committed: logs what it found.
    pub fn log(&mut self) {
        for (message, line) in self.lines.drain(..) {
            match message {
                Some(message) => tracing::error!(message, "{line}"),
                None => tracing::error!("{line}"),
            }
        }
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part.
    pub fn exclude(&mut self) -> bool {
        self.met.exclude(|_, _| {})
    }
}

impl Writer {
    /// Does `work`, which may meet damage. The inner error is the damage; nothing was done then.
    pub fn attempt<T>(
        &mut self,
        place: Place,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Result<T, String>> {
        if let Some(reason) = self.damage.met.reason(&place) {
            return Ok(Err(reason.to_owned()));
        }
        let done = work(self);
        if let Err(error) = &done {
            self.damage.met.meet(|| place, error);
        }
        done.map(Ok)
    }

    /// As [`Writer::attempt`], for a part of the file that is not essential: damage there is logged once.
    pub fn attempt_part<T: Default>(
        &mut self,
        (part, consequence): (&'static str, &str),
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        Ok(self.attempt(Place::Part(part), work)?.unwrap_or_else(|damage| {
            self.pulse.damaged(part, consequence, &damage);
            T::default()
        }))
    }

    /// Sets aside a message whose row cannot be read or written: it neither waits nor is in flight. The row stays as it is.
    pub fn set_aside(&mut self, id: i64, priority: i64, damage: &str, now: Timestamp) -> rusqlite::Result<()> {
        self.unclaim(id)?;
        self.take_waiting(priority, id)?;
        if self.note_damaged(id, damage, now)? {
            self.unsettled = self.unsettled.saturating_sub(1);
            self.counted.settled += 1;
            self.counted.failed += 1;
            self.tally(priority, State::Queued, -1);
            self.tally(priority, State::Corrupt, 1);
        }
        Ok(())
    }

    /// Records that a message's row is damaged, so that periodic work skips it. Returns whether that is new.
    pub fn note_damaged(&mut self, id: i64, damage: &str, now: Timestamp) -> rusqlite::Result<bool> {
        if !self.leave_out(id, damage, now)? {
            return Ok(false);
        }
        let file = self.settings.database.display();
        let line = format!(
            "The stored row of a message is damaged; it is set aside, all others are processed: {damage}. \
             Inspect it with: sqlite3 {file} \"SELECT * FROM messages WHERE id = {id}\""
        );
        self.damage.lines.push((Some(id), line));
        Ok(true)
    }

    /// As [`Writer::note_damaged`], without logging.
    pub fn leave_out(&mut self, id: i64, why: &str, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "INSERT OR IGNORE INTO damaged (id, at, reason) VALUES (?1, ?2, ?3)";
        Ok(self.db.prepare_cached(sql)?.execute(params![id, ms(now), why])? > 0)
    }

    /// Logs that rows of the queue without a waiting message were removed.
    pub fn log_orphans(&mut self, what: &str, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<String> = ids.iter().take(NAMED_MAX).map(i64::to_string).collect();
        let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
        let (n, file, named) = (ids.len(), self.settings.database.display(), named.join(", "));
        let line = format!(
            "{n} {what} in the queue had no waiting message, and were removed; all others are kept: ids {named}{more}. \
             Search for them with: sqlite3 {file} \"SELECT * FROM messages WHERE id IN ({named})\""
        );
        self.damage.lines.push((None, line));
    }
}

/// When and why a message was set aside because of its row.
pub(super) fn set_aside(db: &Connection, id: i64) -> rusqlite::Result<Option<(i64, String)>> {
    let sql = "SELECT at, CAST(reason AS BLOB) FROM damaged WHERE id = ?1";
    let read =
        |row: &rusqlite::Row| Ok((row.get(0)?, String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned()));
    db.prepare_cached(sql)?.query_row([id], read).optional()
}
