//! The same message handed in again for other channel types. What each request limited it to is kept with the message, and a
//! worker asks for all of it; a message that is settled already goes on with what was not asked before.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::damage::Place;
use super::rows::Reading;
use super::writer::Writer;
use super::{Accepted, Limits, New, ORDINARY, State, ms, ready};

/// As it is stored. `None` (never limited) is nothing.
pub(super) fn written(limits: &Limits) -> String {
    serde_json::to_string(limits).expect("lists of strings")
}

/// As it was stored.
pub(super) fn read(text: &str) -> serde_json::Result<Limits> {
    serde_json::from_str(text)
}

/// A message that is in the store already.
struct Known {
    digest: Vec<u8>,
    state: State,
    lane: i64,
    limits: Option<Limits>,
    is_begun: bool,
}

impl Writer {
    /// What becomes of a message whose uuid has number `id` already, where that is still kept: the same once more, the same for
    /// further channel types, or another one.
    pub(super) fn again(&mut self, new: &New, id: i64, now: Timestamp) -> rusqlite::Result<Option<Accepted>> {
        let known = match self.attempt(Place::Message(id), |writer| writer.known(id))? {
            Ok(Some(known)) => known,
            Ok(None) => return Ok(None),
            // It is there, and cannot be read: another one is not made.
            Err(_) => return Ok(Some(Accepted::Same(State::Corrupt))),
        };
        if known.digest != new.digest {
            return Ok(Some(Accepted::Conflict));
        }
        let wanted = new.limit.clone().unwrap_or_default();
        let asked = known.limits.as_ref().is_none_or(|limits| limits.iter().any(|l| l.is_empty() || *l == wanted));
        if asked {
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
            let mut row = Reading::of(row);
            let (digest, state) = (row.bytes(0).unwrap_or_default(), row.number_or(1, State::Corrupt as i64));
            let (lane, limits, is_begun) = (row.number_or(2, ORDINARY), row.text(3), row.number_or(4, 0) != 0);
            // What is limited by something that cannot be read is set aside when it is taken up.
            let limits = limits.and_then(|text| read(&text).ok());
            Ok(Known { digest, state: State::of(state), lane, limits, is_begun })
        };
        self.db.prepare_cached(sql)?.query_row([id], read).optional()
    }

    fn extend(&mut self, id: i64, known: &Known, limits: &Limits, new: &New, now: Timestamp) -> rusqlite::Result<()> {
        let sql = "UPDATE messages SET limits = ?1, state = 0, settled = NULL, body = ?2 WHERE id = ?3";
        self.db.prepare_cached(sql)?.execute(params![written(limits), new.body, id])?;
        if known.state != State::Queued {
            self.reopened(known.lane, known.state);
            return self.put(known.lane, ms(now), id);
        }
        match self.leases.get_mut(&id) {
            Some(lease) => lease.is_extended = true,
            // What it waits for need not hold the further types up. One that was not begun waits for its own moment.
            None if known.is_begun && ready::take_one(&self.db, known.lane, id)? => {
                self.put(known.lane, ms(now), id)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Counts a settled message as one that is not.
    pub(super) fn reopened(&mut self, lane: i64, state: State) {
        self.unsettled += 1;
        self.settled = self.settled.saturating_sub(1);
        self.tally(lane, state, -1);
        self.tally(lane, State::Queued, 1);
    }
}
