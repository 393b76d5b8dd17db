//! Messages that are submitted again for other channel types. The limits of all requests are stored with the message, and a worker
//! processes all of them. A message that is already settled is requeued for the new channel types.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::damage::Location;
use super::rows::RowReader;
use super::writer::Writer;
use super::{Accepted, Limits, New, ORDINARY, State, ms, ready};

/// The limits as they are stored.
pub(super) fn to_text(limits: &Limits) -> String {
    serde_json::to_string(limits).expect("lists of strings")
}

/// Reads stored limits.
pub(super) fn read(text: &str) -> serde_json::Result<Limits> {
    serde_json::from_str(text)
}

/// A stored message.
struct Known {
    digest: Vec<u8>,
    state: State,
    priority: i64,
    limits: Option<Limits>,
    is_started: bool,
}

impl Writer {
    /// Handles a message whose uuid is already stored under `id`: it is the same message, the same for other channel types, or a different
    /// one. `None` if the stored message was deleted.
    pub(super) fn resubmitted(&mut self, new: &New, id: i64, now: Timestamp) -> rusqlite::Result<Option<Accepted>> {
        let known = match self.attempt(Location::Message(id), |writer| writer.known(id))? {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(None),
            // It is stored but cannot be read: do not create another one.
            Err(_) => return Ok(Some(Accepted::Same(State::Corrupt))),
        };
        if known.digest != new.digest {
            return Ok(Some(Accepted::Conflict));
        }
        let wanted = new.limit.clone().unwrap_or_default();
        let is_covered = known.limits.as_ref().is_none_or(|limits| limits.iter().any(|l| l.is_empty() || *l == wanted));
        if is_covered {
            return Ok(Some(Accepted::Same(known.state)));
        }
        if matches!(known.state, State::Corrupt | State::Cancelled | State::Discarded) {
            return Ok(Some(Accepted::Ended(known.state)));
        }
        let limits: Limits = known.limits.clone().into_iter().flatten().chain([wanted]).collect();
        self.extend(id, &known, &limits, new, now)?;
        Ok(Some(Accepted::Extended))
    }

    fn known(&self, id: i64) -> rusqlite::Result<Option<Known>> {
        let sql = "SELECT digest, state, lane, limits, progress IS NOT NULL FROM messages WHERE id = ?1 AND state >= 0";
        let read = |row: &rusqlite::Row| {
            let mut row = RowReader::new(row);
            let (digest, state) = (row.bytes(0).unwrap_or_default(), row.number_or(1, State::Corrupt as i64));
            let (priority, limits, is_started) = (row.number_or(2, ORDINARY), row.text(3), row.number_or(4, 0) != 0);
            // A message whose limits cannot be read is set aside when it is claimed.
            let limits = limits.and_then(|text| read(&text).ok());
            Ok(Known { digest, state: State::of(state), priority, limits, is_started })
        };
        self.db.prepare_cached(sql)?.query_row([id], read).optional()
    }

    fn extend(&mut self, id: i64, known: &Known, limits: &Limits, new: &New, now: Timestamp) -> rusqlite::Result<()> {
        let sql = "UPDATE messages SET limits = ?1, state = 0, settled = NULL, body = ?2 WHERE id = ?3";
        self.db.prepare_cached(sql)?.execute(params![to_text(limits), new.body, id])?;
        if known.state != State::Queued {
            self.count_reopened(known.priority, known.state);
            return self.put(known.priority, ms(now), id);
        }
        match self.leases.get_mut(&id) {
            Some(lease) => lease.is_extended = true,
            // The new channel types do not wait for the retry of the others. A message that was not started waits for its time.
            None if known.is_started && ready::take_one(&self.db, known.priority, id)? => {
                self.put(known.priority, ms(now), id)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Counts a settled message as unsettled.
    pub(super) fn count_reopened(&mut self, priority: i64, state: State) {
        self.unsettled += 1;
        self.settled = self.settled.saturating_sub(1);
        self.tally(priority, state, -1);
        self.tally(priority, State::Queued, 1);
    }
}
