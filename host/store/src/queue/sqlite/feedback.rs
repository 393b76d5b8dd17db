//! Feedback, and the deliveries that it is matched with.
//!
//! `deliveries` has a row for each name of a delivery: its channel, the provider's id, the Message-ID. Feedback whose message was not
//! settled yet waits under the same names in `awaited`, and is matched when the message is settled. `feedback.due` is when it is
//! announced: once it is matched, or when its time to wait is over.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::rows::RowReader;
use super::writer::{WriteError, Writer};
use super::{QueueError, Sqlite, moment, ms};
use crate::queue::feedback::{Delivery, FEEDBACK_WAIT, Feedback, FeedbackEvent, Lookup, NewFeedback};
use crate::sqlite::group_commit::Urgency;

/// The time at which feedback is announced that waits for nothing, whatever the clock says.
const NOW: i64 = 0;
/// Rows that one step deletes.
const STEP: i64 = 500;
/// How a log line names these tables when they are damaged.
const PART: (&str, &str) = ("the index of feedback", "feedback about some messages is not matched with them");

impl Sqlite {
    pub(crate) async fn accept_feedback(&self, new: Vec<NewFeedback>, now: Timestamp) -> Result<usize, QueueError> {
        self.writer.write_at(Urgency::Immediate, move |writer| writer.accept_feedback(&new, now)).await
    }

    pub(crate) async fn is_feedback_known(&self, ids: Vec<(String, String)>) -> Result<Vec<bool>, QueueError> {
        self.read(move |db| {
            let mut known = db.prepare_cached("SELECT 1 FROM feedback WHERE digest = ?1")?;
            ids.iter().map(|(plugin, id)| known.exists([digest(plugin, id)])).collect()
        })
        .await
    }

    pub(crate) async fn announce_feedback(
        &self,
        event: Option<FeedbackEvent>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Feedback>, QueueError> {
        let is_due = self
            .read(move |db| db.prepare_cached("SELECT 1 FROM feedback WHERE due <= ?1 LIMIT 1")?.exists([ms(now)]))
            .await?;
        if !is_due {
            return Ok(Vec::new());
        }
        self.writer.write(move |writer| Ok(writer.announce_feedback(event, max, now)?)).await
    }

    pub(crate) async fn feedback(&self, message: Uuid, max: usize) -> Result<Vec<Feedback>, QueueError> {
        let in_memory = self.deferred_index.id(message);
        self.read(move |db| {
            let id = match in_memory {
                Some(id) => Some(id),
                None => super::deferred_index::indexed(db, message)?,
            };
            let sql = "SELECT at, body FROM feedback WHERE message = ?1 ORDER BY id LIMIT ?2";
            let read = |row: &rusqlite::Row| {
                let mut row = RowReader::new(row);
                let (at, body) = (moment(row.number_or(0, 0)), row.bytes(1).unwrap_or_default());
                Ok(Feedback { message: Some(message), at, body })
            };
            let Some(id) = id else { return Ok(Vec::new()) };
            db.prepare_cached(sql)?.query_map(params![id, max as i64], read)?.collect()
        })
        .await
    }
}

impl Writer {
    /// Stores new feedback, and returns how much of it was new.
    fn accept_feedback(&mut self, new: &[NewFeedback], now: Timestamp) -> Result<usize, WriteError> {
        if !self.has_room() {
            return Err(WriteError::Rejected(QueueError::NoRoom(self.reserve.reason())));
        }
        if self.feedback + new.len() as u64 > self.settings.max_feedback {
            return Err(WriteError::Rejected(QueueError::FeedbackFull(self.feedback)));
        }
        let mut stored = 0;
        for one in new {
            stored += usize::from(self.accept_one_feedback(one, now)?);
        }
        Ok(stored)
    }

    fn accept_one_feedback(&mut self, new: &NewFeedback, now: Timestamp) -> rusqlite::Result<bool> {
        let message = self.find_delivered(&new.lookup)?;
        let awaited = if message.is_some() { Vec::new() } else { new.lookup.names() };
        let wait = i64::try_from(FEEDBACK_WAIT.as_millis()).unwrap_or(i64::MAX);
        let due = if awaited.is_empty() { NOW } else { ms(now).saturating_add(wait) };
        let sql =
            "INSERT OR IGNORE INTO feedback (digest, at, message, due, address, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values =
            params![digest(&new.plugin, &new.id), ms(now), message.unwrap_or_default(), due, new.address, new.body];
        if self.db.prepare_cached(sql)?.execute(values)? == 0 {
            return Ok(false);
        }
        self.feedback += 1;
        let id = self.db.last_insert_rowid();
        for name in awaited {
            let sql = "INSERT OR IGNORE INTO awaited (name, feedback) VALUES (?1, ?2)";
            self.db.prepare_cached(sql)?.execute([name, id])?;
        }
        Ok(true)
    }

    /// The message that a lookup leads to, if it was delivered over one of the channels.
    fn find_delivered(&self, lookup: &Lookup) -> rusqlite::Result<Option<i64>> {
        let by_uuid = match lookup.uuid {
            Some(uuid) => self.deferred_index.find(&self.db, uuid)?,
            None => None,
        };
        let mut is_over = self.db.prepare_cached("SELECT 1 FROM deliveries WHERE message = ?1 AND name = ?2")?;
        for channel in lookup.channels.iter().filter(|_| by_uuid.is_some()) {
            if is_over.exists(params![by_uuid, name("channel", channel, "")])? {
                return Ok(by_uuid);
            }
        }
        let mut latest = self.db.prepare_cached("SELECT max(message) FROM deliveries WHERE name = ?1")?;
        for name in lookup.given_names() {
            if let Some(message) = latest.query_row([name], |row| row.get::<_, Option<i64>>(0))? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Stores the names of a settled message's deliveries, and matches feedback that waits for them.
    pub(super) fn note_deliveries(&mut self, id: i64, deliveries: &[Delivery]) -> rusqlite::Result<()> {
        if deliveries.is_empty() {
            return Ok(());
        }
        self.attempt_part(PART, |writer| {
            let sql = "INSERT OR IGNORE INTO deliveries (message, name) VALUES (?1, ?2)";
            for name in deliveries.iter().flat_map(Delivery::names) {
                writer.db.prepare_cached(sql)?.execute([id, name])?;
            }
            let is_awaited = writer.db.prepare_cached("SELECT 1 FROM awaited LIMIT 1")?.exists([])?;
            if is_awaited { writer.match_awaited(id, deliveries) } else { Ok(()) }
        })
    }

    fn match_awaited(&mut self, id: i64, deliveries: &[Delivery]) -> rusqlite::Result<()> {
        let read = |row: &rusqlite::Row| Ok(RowReader::new(row).uuid(0));
        let uuid =
            self.db.prepare_cached("SELECT uuid FROM messages WHERE id = ?1")?.query_row([id], read).optional()?;
        for delivery in deliveries {
            let by_uuid = uuid.map(|uuid| name("uuid", &delivery.channel, &uuid.to_string()));
            for name in delivery.names().into_iter().chain(by_uuid) {
                let sql = "UPDATE feedback SET message = ?2, due = ?3
                    WHERE id IN (SELECT feedback FROM awaited WHERE name = ?1) AND message = 0 RETURNING id";
                let mut matched = self.db.prepare_cached(sql)?;
                let matched = matched.query_map(params![name, id, NOW], |row| row.get(0))?;
                let matched: Vec<i64> = matched.collect::<Result<_, _>>()?;
                for feedback in matched {
                    self.stop_awaiting(feedback)?;
                }
            }
        }
        Ok(())
    }

    fn stop_awaiting(&self, feedback: i64) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM awaited WHERE feedback = ?1")?.execute([feedback]).map(drop)
    }

    /// Stores the events of feedback that is due, and returns it.
    fn announce_feedback(
        &mut self,
        event: Option<FeedbackEvent>,
        max: usize,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<Feedback>> {
        let sql =
            "SELECT f.id, f.message, m.uuid, f.at, f.body FROM feedback f LEFT JOIN messages m ON m.id = f.message
            WHERE f.due <= ?1 ORDER BY f.due, f.id LIMIT ?2";
        let read = |row: &rusqlite::Row| {
            let mut row = RowReader::new(row);
            let (id, message) = (row.number_or(0, 0), row.number_or(1, 0));
            let uuid = row.bytes(2).and_then(|bytes| Uuid::from_slice(&bytes).ok());
            let (at, body) = (moment(row.number_or(3, 0)), row.bytes(4).unwrap_or_default());
            Ok((id, message, Feedback { message: uuid, at, body }))
        };
        let due = self.db.prepare_cached(sql)?.query_map(params![ms(now), max as i64], read)?.collect::<Vec<_>>();
        let mut announced = Vec::with_capacity(due.len());
        for row in due {
            let (id, message, feedback) = row?;
            self.db.prepare_cached("UPDATE feedback SET due = NULL WHERE id = ?1")?.execute([id])?;
            if message == 0 {
                self.stop_awaiting(id)?;
            }
            if let Some(event) = event {
                // An event without a message is erased with its feedback.
                self.emit(if message == 0 { -id } else { message }, &event(&feedback), now)?;
            }
            announced.push(feedback);
        }
        Ok(announced)
    }

    /// Deletes what is stored about the deliveries of a message.
    pub(super) fn erase_deliveries(&mut self, message: i64) -> rusqlite::Result<()> {
        let part = (PART.0, "feedback about erased messages remains there");
        self.attempt_part(part, |writer| {
            writer.db.prepare_cached("DELETE FROM deliveries WHERE message = ?1")?.execute([message])?;
            let sql = "DELETE FROM feedback WHERE message = ?1";
            let erased = writer.db.prepare_cached(sql)?.execute([message])?;
            writer.feedback = writer.feedback.saturating_sub(erased as u64);
            Ok(())
        })
    }

    /// Deletes some feedback about an address. Returns whether there is more.
    pub(super) fn erase_feedback(&mut self, address: &str) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM feedback WHERE id IN (SELECT id FROM feedback WHERE address = ?1 LIMIT ?2) RETURNING id";
        let erased =
            self.db.prepare_cached(sql)?.query_map(params![address, STEP], |row| row.get(0))?.collect::<Vec<_>>();
        self.forget_feedback(erased)
    }

    /// Deletes some feedback without a message from before a time. Returns whether there is more.
    pub(super) fn prune_feedback(&mut self, before: i64) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM feedback WHERE id IN
            (SELECT id FROM feedback WHERE message = 0 AND at < ?1 ORDER BY at LIMIT ?2) RETURNING id";
        let pruned = self.db.prepare_cached(sql)?.query_map([before, STEP], |row| row.get(0))?.collect::<Vec<_>>();
        self.forget_feedback(pruned)
    }

    /// Deletes what other tables contain about deleted feedback.
    fn forget_feedback(&mut self, deleted: Vec<rusqlite::Result<i64>>) -> rusqlite::Result<bool> {
        let count = deleted.len();
        for id in deleted {
            let id = id?;
            self.stop_awaiting(id)?;
            self.erase_events(-id)?;
        }
        self.feedback = self.feedback.saturating_sub(count as u64);
        Ok(count as i64 >= STEP)
    }
}

/// The number of stored events.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT count(*) FROM feedback", [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

impl Delivery {
    fn names(&self) -> Vec<i64> {
        let provider_id = self.provider_id.as_ref().map(|id| name("provider", &self.channel, id));
        let message_id = self.message_id.as_ref().map(|id| name("mail", &self.channel, id));
        [Some(name("channel", &self.channel, "")), provider_id, message_id].into_iter().flatten().collect()
    }
}

impl Lookup {
    /// The names that a delivery has for each of the ids except the uuid, in the order in which they are tried.
    fn given_names(&self) -> impl Iterator<Item = i64> {
        let ids = [("provider", &self.provider_id), ("mail", &self.message_id)];
        let ids = ids.into_iter().filter_map(|(kind, id)| Some((kind, id.as_ref()?)));
        ids.flat_map(|(kind, id)| self.channels.iter().map(move |channel| name(kind, channel, id)))
    }

    /// All names under which it waits.
    fn names(&self) -> Vec<i64> {
        let uuid = self
            .uuid
            .iter()
            .flat_map(|uuid| self.channels.iter().map(move |channel| name("uuid", channel, &uuid.to_string())));
        uuid.chain(self.given_names()).collect()
    }
}

fn name(kind: &str, channel: &str, id: &str) -> i64 {
    let hash = hash([kind, channel, id]);
    i64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// Identifies feedback by its plugin and its id.
fn digest(plugin: &str, id: &str) -> [u8; 16] {
    let hash = hash([plugin, id, ""]);
    std::array::from_fn(|i| hash[i])
}

fn hash(parts: [&str; 3]) -> sha2::digest::Output<Sha256> {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}
