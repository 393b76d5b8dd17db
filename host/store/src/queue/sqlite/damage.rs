//! Handling of damage. A message whose row cannot be read or written is set aside and logged once; it delays no other message.
//! Operations that may find damage are *attempted* ([`KnownDamage`]).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::writer::Writer;
use super::{State, ms};
use crate::sqlite::damage::KnownDamage;

/// Ids in one log line, at most.
const NAMED_MAX: usize = 10;

/// SQL for the ids of the messages that were set aside.
pub(super) const SET_ASIDE: &str = "(SELECT id FROM damaged)";

/// What may be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Location {
    /// A message's row, by its id.
    Message(i64),
    /// A page next to a message's row, which SQLite changes when the row is deleted.
    Neighbour(i64),
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
    /// Another part of the file, by a name for the log.
    Part(&'static str),
}

/// The damage that was found.
#[derive(Default)]
pub(super) struct Damage {
    known: KnownDamage<Location>,
    /// Log lines for when the transaction is committed, with the id of the message that they concern.
    lines: Vec<(Option<i64>, String)>,
}

impl Damage {
    /// Whether some rows could not be deleted because of damage next to them.
    pub(super) fn has_damaged_neighbours(&self) -> bool {
        self.known.locations().any(|location| matches!(location, Location::Neighbour(_)))
    }

    /// A transaction starts.
    pub(super) fn start(&mut self) {
        self.known.start();
        self.lines.clear();
    }

    /// The transaction was committed: logs the damage that it found.
    pub(super) fn log(&mut self) {
        for (message, line) in self.lines.drain(..) {
            match message {
                Some(message) => tracing::error!(message, "{line}"),
                None => tracing::error!("{line}"),
            }
        }
    }

    /// The transaction was rolled back. Returns whether it may be repeated without the damaged part.
    pub(super) fn exclude(&mut self) -> bool {
        self.known.exclude(|_, _| {})
    }
}

impl Writer {
    /// Runs `work`, which may find damage. The inner error is the damage; in that case nothing was done.
    pub(super) fn attempt<T>(
        &mut self,
        location: Location,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Result<T, String>> {
        if let Some(reason) = self.damage.known.reason(&location) {
            return Ok(Err(reason.to_owned()));
        }
        let done = work(self);
        if let Err(error) = &done {
            self.damage.known.note(|| location, error);
        }
        done.map(Ok)
    }

    /// As [`Writer::attempt`], for a part of the file that is not essential: damage is logged once, and the default is returned.
    pub(super) fn attempt_part<T: Default>(
        &mut self,
        (part, consequence): (&'static str, &str),
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        Ok(self.attempt(Location::Part(part), work)?.unwrap_or_else(|damage| {
            self.health.damaged(part, consequence, &damage);
            T::default()
        }))
    }

    /// Sets aside a message whose row cannot be read or written: it no longer waits or is in flight. The row is not changed.
    pub(super) fn set_aside(&mut self, id: i64, priority: i64, damage: &str, now: Timestamp) -> rusqlite::Result<()> {
        self.end_claim(id)?;
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

    /// Records and logs that a message's row is damaged, so that maintenance skips it. Returns whether that is new.
    pub(super) fn note_damaged(&mut self, id: i64, damage: &str, now: Timestamp) -> rusqlite::Result<bool> {
        if !self.leave_out(id, damage, now)? {
            return Ok(false);
        }
        let file = self.settings.database.display();
        let line = format!(
            "The row of a message is damaged; the message is set aside, all others are processed: {damage}. \
             Inspect it with: sqlite3 {file} \"SELECT * FROM messages WHERE id = {id}\""
        );
        self.damage.lines.push((Some(id), line));
        Ok(true)
    }

    /// As [`Writer::note_damaged`], without logging.
    pub(super) fn leave_out(&mut self, id: i64, why: &str, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "INSERT OR IGNORE INTO damaged (id, at, reason) VALUES (?1, ?2, ?3)";
        Ok(self.db.prepare_cached(sql)?.execute(params![id, ms(now), why])? > 0)
    }

    /// Logs that rows without a waiting message were removed.
    pub(super) fn log_orphans(&mut self, what: &str, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<String> = ids.iter().take(NAMED_MAX).map(i64::to_string).collect();
        let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
        let (n, file, named) = (ids.len(), self.settings.database.display(), named.join(", "));
        let line = format!(
            "{n} {what} of the queue had no waiting message and were removed: ids {named}{more}. \
             Search for the messages with: sqlite3 {file} \"SELECT * FROM messages WHERE id IN ({named})\""
        );
        self.damage.lines.push((None, line));
    }
}

/// When and why a message was set aside.
pub(super) fn set_aside(db: &Connection, id: i64) -> rusqlite::Result<Option<(i64, String)>> {
    let sql = "SELECT at, CAST(reason AS BLOB) FROM damaged WHERE id = ?1";
    let read =
        |row: &rusqlite::Row| Ok((row.get(0)?, String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned()));
    db.prepare_cached(sql)?.query_row([id], read).optional()
}
