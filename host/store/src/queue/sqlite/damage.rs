//! What is done about damage: a message whose row cannot be read or written is set aside, told of once, and holds nobody up.
//! What may be damaged is *attempted* ([`Met`]).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::writer::Writer;
use super::{State, ms};
use crate::sqlite::damage::Met;

/// Numbers that one line of the log names.
const NAMED_MAX: usize = 10;

/// The numbers of the messages that were set aside, in SQL.
pub(super) const SET_ASIDE: &str = "(SELECT id FROM damaged)";

/// What may be damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A message's row, by its number.
    Message(i64),
    /// What is beside a message's row, and is met when that is taken out of its table.
    Beside(i64),
    /// What a message waits for, by its number.
    Parked(i64),
    /// What leads to a message by its uuid.
    Uuid(Uuid),
    /// The event that tells of a message.
    Event(i64),
    /// A batch's row, by its lane.
    Batch(i64),
    /// What waits in a lane.
    Lane(i64),
    Part(&'static str),
}

/// The damage that was met.
#[derive(Default)]
pub(super) struct Damage {
    met: Met<Place>,
    /// What is told to the operator once the transaction is on the disk: the number of a message, and a line.
    lines: Vec<(Option<i64>, String)>,
}

impl Damage {
    /// Whether rows could not be taken out for what is beside them.
    pub fn is_beside(&self) -> bool {
        self.met.places().any(|place| matches!(place, Place::Beside(_)))
    }

    /// A transaction begins.
    pub fn begin(&mut self) {
        self.met.begin();
        self.lines.clear();
    }

    /// It is on the disk.
    pub fn tell(&mut self) {
        for (message, line) in self.lines.drain(..) {
            match message {
                Some(message) => tracing::error!(message, "{line}"),
                None => tracing::error!("{line}"),
            }
        }
    }

    /// It is void. Whether it may be made again, with what was met left out.
    pub fn learn(&mut self) -> bool {
        self.met.learn(|_, _| {})
    }
}

impl Writer {
    /// Does what damage may stop; the inner error is the damage, and nothing was done then.
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

    /// As [`Writer::attempt`], of a part of the file that can be done without: that it is damaged is told of once.
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

    /// A message whose row cannot be read or written: it does not wait any more, and is not under way. The row stays as it is.
    pub fn put_aside(&mut self, id: i64, lane: i64, damage: &str, now: Timestamp) -> rusqlite::Result<()> {
        self.unclaim(id)?;
        self.take_waiting(lane, id)?;
        if self.note_damaged(id, damage, now)? {
            self.unsettled = self.unsettled.saturating_sub(1);
            self.counted.settled += 1;
            self.counted.failed += 1;
            self.tally(lane, State::Queued, -1);
            self.tally(lane, State::Corrupt, 1);
        }
        Ok(())
    }

    /// A message's row is damaged: nothing that is done again and again is to meet it again. Whether that is new.
    pub fn note_damaged(&mut self, id: i64, damage: &str, now: Timestamp) -> rusqlite::Result<bool> {
        if !self.leave_out(id, damage, now)? {
            return Ok(false);
        }
        let file = self.settings.database.display();
        let line = format!(
            "The stored row of a message is damaged; it is set aside, and all others go on: {damage}. \
             Look at it with: sqlite3 {file} \"SELECT * FROM messages WHERE id = {id}\""
        );
        self.damage.lines.push((Some(id), line));
        Ok(true)
    }

    /// As [`Writer::note_damaged`], of which the operator was told before.
    pub fn leave_out(&mut self, id: i64, why: &str, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "INSERT OR IGNORE INTO damaged (id, at, reason) VALUES (?1, ?2, ?3)";
        Ok(self.db.prepare_cached(sql)?.execute(params![id, ms(now), why])? > 0)
    }

    /// Rows of the queue that stand for no message that waits. They are gone.
    pub fn tell_of_orphans(&mut self, what: &str, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let named: Vec<String> = ids.iter().take(NAMED_MAX).map(i64::to_string).collect();
        let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
        let (n, file, named) = (ids.len(), self.settings.database.display(), named.join(", "));
        let line = format!(
            "{n} {what} in the queue had no message that waits, and were removed; all others go on: ids {named}{more}. \
             Look for them with: sqlite3 {file} \"SELECT * FROM messages WHERE id IN ({named})\""
        );
        self.damage.lines.push((None, line));
    }
}

/// Why a message was set aside for its row's sake, and when.
pub(super) fn set_aside(db: &Connection, id: i64) -> rusqlite::Result<Option<(i64, String)>> {
    let sql = "SELECT at, CAST(reason AS BLOB) FROM damaged WHERE id = ?1";
    let read =
        |row: &rusqlite::Row| Ok((row.get(0)?, String::from_utf8_lossy(&row.get::<_, Vec<u8>>(1)?).into_owned()));
    db.prepare_cached(sql)?.query_row([id], read).optional()
}
