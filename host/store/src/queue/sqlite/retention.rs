//! Retention and erasure: settled messages by age and number, bodies of dead letters, and everything about a person.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::damage::{Place, SET_ASIDE};
use super::deferred_index::{RECIPIENTS, list};
use super::recipients::{all_hashes, asked};
use super::rows::Reading;
use super::writer::Writer;
use super::{Erased, ORDINARY, QueueError, Sqlite, State, ms};
use crate::person::{normal_address, normal_user};

/// Rows that one step deletes, so that no write waits long behind it.
const STEP: i64 = 500;
/// Rows that one step deletes when some are beside a damaged page: each of those repeats the transaction.
const STEP_BESIDE: i64 = 16;
/// How long erased data may stay in the write-ahead log.
const LOG_AGE_MAX: Duration = Duration::from_secs(60);
/// Pages that one step returns to the file system.
const PAGES: i64 = 256;

/// What identifies a person.
#[derive(Clone, Copy)]
enum Known {
    User,
    Email,
}

impl Known {
    fn column(self) -> &'static str {
        match self {
            Known::User => "user",
            Known::Email => "email",
        }
    }

    fn form(self, text: &str) -> String {
        match self {
            Known::User => normal_user(text),
            Known::Email => normal_address(text),
        }
    }

    fn hashes(self, text: &str) -> Vec<i64> {
        let [users, emails] = match self {
            Known::User => asked(Some(text), None, false),
            Known::Email => asked(None, Some(text), false),
        };
        users.into_iter().chain(emails).collect()
    }
}

impl Sqlite {
    /// Each step is a write of its own, so that no other write waits long behind it.
    pub async fn maintain(&self, now: Timestamp) -> Result<(), QueueError> {
        if self.pulse.wants_probe() {
            self.put_meta("probed", now.to_string()).await?;
        }
        while self.prune(now).await? {}
        let part = ("pages that are to be moved", "free space in the file is not returned to the file system");
        while self.writer.write(move |writer| Ok(writer.attempt_part(part, Writer::vacuum)?)).await? {}
        Ok(())
    }

    async fn prune(&self, now: Timestamp) -> Result<bool, QueueError> {
        let is_rehash_left = self.rehash().await?;
        Ok(self.writer.write(move |writer| Ok(writer.prune(now)?)).await? || is_rehash_left)
    }

    /// Erases everything about the messages to a user id, or to an address.
    pub async fn erase(&self, user: Option<String>, email: Option<String>) -> Result<Erased, QueueError> {
        // Messages that were indexed by the earlier rule are found only after they are indexed again.
        while self.rehash().await? {}
        let people = [(Known::User, user), (Known::Email, email)];
        let people = people.into_iter().filter_map(|(known, value)| Some((known, value?)));
        let mut all = Erased::default();
        for (known, value) in people {
            let mut after = Some(0);
            while let Some(from) = after {
                let value = value.clone();
                let step = move |writer: &mut Writer| {
                    writer.wants_checkpoint = true;
                    Ok(writer.erase_some(known, &value, from)?)
                };
                let (some, next) = self.writer.write(step).await?;
                all.waiting += some.waiting;
                all.in_flight += some.in_flight;
                all.settled += some.settled;
                all.damaged += some.damaged;
                after = next;
            }
        }
        Ok(all)
    }
}

impl Writer {
    fn prune(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        self.has_room();
        let before = |age: Duration| ms(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let (aged, dead) = (before(self.settings.retention), before(self.settings.dead_letter_retention));
        let events = before(self.settings.event_retention);
        let is_more = self.prune_messages(aged, now)?;
        let erased = self.erase_bodies(dead, now)?;
        let part = ("the events", "events are kept longer than queue.event-retention");
        let pruned = self.attempt_part(part, |writer| writer.prune_events(events, STEP))?;
        let part = ("the batches", "batches are kept longer than queue.retention");
        self.attempt_part(part, |writer| writer.drop_batches(aged))?;
        Ok(is_more || erased >= STEP || pruned >= STEP)
    }

    fn vacuum(&mut self) -> rusqlite::Result<bool> {
        let free: i64 = self.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        let mut step = self.db.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut rows = step.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(step);
        // Erased data stays in the write-ahead log until a checkpoint.
        let is_log_old = self.checkpointed.elapsed() > LOG_AGE_MAX;
        self.wants_checkpoint = (1..=PAGES).contains(&free) || is_log_old;
        Ok(free > PAGES)
    }

    /// Erases settled messages that are old or too many; whether there are more.
    fn prune_messages(&mut self, before: i64, now: Timestamp) -> rusqlite::Result<bool> {
        let part = ("the index of settled messages", "messages are kept longer than queue.retention");
        let surplus = self.settled.saturating_sub(self.settings.max_settled);
        let step = if self.damage.is_beside() { STEP_BESIDE } else { STEP };
        let ids = self.attempt_part(part, |writer| {
            let aged = format!(
                "SELECT id FROM messages WHERE settled < ?1 AND id NOT IN {SET_ASIDE} ORDER BY settled LIMIT ?2"
            );
            let mut ids = writer.ids(&aged, before, step)?;
            if ids.is_empty() && surplus > 0 {
                let oldest = format!(
                    "SELECT id FROM messages WHERE settled IS NOT NULL AND ?1 > 0 AND id NOT IN {SET_ASIDE}
                    ORDER BY settled LIMIT ?2"
                );
                ids = writer.ids(&oldest, 1, step)?;
                ids.truncate(usize::try_from(surplus).unwrap_or(usize::MAX));
            }
            Ok(ids)
        })?;
        for id in &ids {
            match self.attempt(Place::Message(*id), |writer| writer.erase(*id))? {
                Ok(Some(_)) => {}
                Ok(None) => self.leave_out(*id, "the index refers to a row that does not exist", now).map(drop)?,
                Err(damage) => drop(self.note_damaged(*id, &damage, now)?),
            }
        }
        Ok(!ids.is_empty() && (self.settled > self.settings.max_settled || ids.len() as i64 >= step))
    }

    /// Erases what only another attempt of a dead letter would need. Returns the number of messages.
    fn erase_bodies(&mut self, before: i64, now: Timestamp) -> rusqlite::Result<i64> {
        let all = self.attempt(Place::Part("the contexts of dead letters"), |writer| {
            let sql = format!(
                "UPDATE messages SET body = NULL, progress = NULL WHERE id IN (SELECT id FROM messages
                WHERE state IN (4, 5, 6) AND settled < ?1 AND body IS NOT NULL AND id NOT IN {SET_ASIDE} LIMIT ?2)"
            );
            writer.db.prepare_cached(&sql)?.execute([before, STEP])
        })?;
        if let Ok(erased) = all {
            return Ok(erased as i64);
        }
        // One of them is damaged: go through them one by one, by the index of dead letters.
        let part = ("the index of dead letters", "their contexts are kept longer than queue.dead-letter-retention");
        let ids =
            format!("SELECT id FROM messages WHERE state IN (4, 5, 6) AND id NOT IN {SET_ASIDE} AND ?1 > 0 LIMIT ?2");
        let ids = self.attempt_part(part, |writer| writer.ids(&ids, 1, STEP))?;
        let sql =
            "UPDATE messages SET body = NULL, progress = NULL WHERE id = ?1 AND settled < ?2 AND body IS NOT NULL";
        let mut erased = 0;
        for id in ids {
            let erase = |writer: &mut Writer| writer.db.prepare_cached(sql)?.execute([id, before]);
            match self.attempt(Place::Message(id), erase)? {
                Ok(n) => erased += n as i64,
                Err(damage) => drop(self.note_damaged(id, &damage, now)?),
            }
        }
        Ok(erased)
    }

    fn ids(&self, sql: &str, first: i64, max: i64) -> rusqlite::Result<Vec<i64>> {
        self.db.prepare_cached(sql)?.query_map([first, max], |row| row.get(0))?.collect()
    }

    /// Erases some of a person's messages with ids above `after`. Also returns where to continue, unless that was all.
    fn erase_some(&mut self, known: Known, value: &str, after: i64) -> rusqlite::Result<(Erased, Option<i64>)> {
        let hashes = known.hashes(value);
        let sql = format!("SELECT id FROM {RECIPIENTS} WHERE id > ? ORDER BY id LIMIT ?");
        let step = if self.damage.is_beside() { STEP_BESIDE } else { STEP };
        let values = params![list(hashes.iter().copied()), self.deferred_index.ids(&hashes), after, step];
        let ids =
            self.db.prepare_cached(&sql)?.query_map(values, |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        let is_last = (ids.len() as i64) < step;
        let (mut erased, form) = (Erased::default(), known.form(value));
        for id in &ids {
            match self.attempt(Place::Message(*id), |writer| writer.erase_if(*id, known, &form))? {
                Ok(None) => {}
                Ok(Some(Held::Waiting)) => erased.waiting += 1,
                Ok(Some(Held::InFlight)) => erased.in_flight += 1,
                Ok(Some(Held::Settled)) => erased.settled += 1,
                Err(_) => erased.damaged += 1,
            }
        }
        Ok((erased, ids.last().copied().filter(|_| !is_last)))
    }

    /// Erases a message if it is the person's: the index key is only a hash.
    fn erase_if(&mut self, id: i64, known: Known, form: &str) -> rusqlite::Result<Option<Held>> {
        let sql = format!("SELECT {} FROM messages WHERE id = ?1", known.column());
        let found = self.db.prepare_cached(&sql)?.query_row([id], |row| Ok(Reading::of(row).text(0))).optional()?;
        match found.flatten() {
            Some(text) if known.form(&text) == form => self.erase(id),
            _ => Ok(None),
        }
    }

    /// Deletes a message from every table.
    fn erase(&mut self, id: i64) -> rusqlite::Result<Option<Held>> {
        let Some(ErasedRow { priority, state, uuid, hashes }) = self.erase_row(id)? else { return Ok(None) };
        self.deferred_index.erase(uuid, id);
        // An entry that stays in a damaged index refers to no message.
        let part = ("the keys of erased messages", "hashes of erased messages stay there");
        self.attempt_part(part, |writer| writer.erase_keys(id, uuid, &hashes))?;
        let part = ("the events of erased messages", "they are kept until queue.event-retention");
        self.attempt_part(part, |writer| {
            let sql = "DELETE FROM calls WHERE event IN (SELECT id FROM events WHERE message = ?1)";
            writer.db.prepare_cached(sql)?.execute([id])?;
            writer.db.prepare_cached("DELETE FROM events WHERE message = ?1")?.execute([id]).map(drop)
        })?;
        self.tally(priority, state, -1);
        if state != State::Queued {
            self.settled = self.settled.saturating_sub(1);
            return Ok(Some(Held::Settled));
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        if self.unclaim(id)?.is_some() {
            return Ok(Some(Held::InFlight));
        }
        self.unblock(id)?;
        self.take_waiting(priority, id)?;
        Ok(Some(Held::Waiting))
    }

    /// Deletes a message's row. SQLite merges pages that have become small, and a neighbouring page may be damaged: then the row
    /// stays, emptied.
    fn erase_row(&mut self, id: i64) -> rusqlite::Result<Option<ErasedRow>> {
        let columns = "lane, state, uuid, user, email";
        let take_out = |writer: &mut Writer| {
            let sql = format!("DELETE FROM messages WHERE id = ?1 AND state >= 0 RETURNING {columns}");
            writer.db.prepare_cached(&sql)?.query_row([id], ErasedRow::of).optional()
        };
        if let Ok(erased) = self.attempt(Place::Beside(id), take_out)? {
            return Ok(erased);
        }
        let sql = format!("SELECT {columns} FROM messages WHERE id = ?1 AND state >= 0");
        let erased = self.db.prepare_cached(&sql)?.query_row([id], ErasedRow::of).optional()?;
        let sql = "UPDATE messages SET uuid = x'', digest = x'', lane = 0, state = ?2, in_doubt = 0, accepted = 0, settled = NULL, name = '',
            user = NULL, email = NULL, trace = NULL, body = NULL, progress = NULL, report = NULL, limits = NULL, retried = NULL,
            interruptions = 0, doubts = NULL WHERE id = ?1";
        self.db.prepare_cached(sql)?.execute([id, EMPTIED])?;
        Ok(erased)
    }

    fn erase_keys(&mut self, id: i64, uuid: Uuid, hashes: &[i64]) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("DELETE FROM uuids WHERE uuid = ?1 AND id = ?2")?
            .execute(params![uuid.as_bytes(), id])?;
        for hash in hashes {
            self.db.prepare_cached("DELETE FROM recipients WHERE hash = ?1 AND id = ?2")?.execute([*hash, id])?;
        }
        Ok(())
    }
}

/// The state of a row that was emptied because it could not be deleted. No message has this state, and no index refers to the row.
pub(super) const EMPTIED: i64 = -1;

/// What the other tables need to know of an erased message.
struct ErasedRow {
    priority: i64,
    state: State,
    uuid: Uuid,
    hashes: Vec<i64>,
}

impl ErasedRow {
    fn of(row: &rusqlite::Row) -> rusqlite::Result<ErasedRow> {
        let mut row = Reading::of(row);
        let (priority, state) = (row.number_or(0, ORDINARY), State::of(row.number_or(1, State::Corrupt as i64)));
        let (uuid, user, email) = (row.uuid(2), row.text(3), row.text(4));
        Ok(ErasedRow { priority, state, uuid, hashes: all_hashes(user.as_deref(), email.as_deref()) })
    }
}

/// Where a message was.
enum Held {
    Waiting,
    InFlight,
    Settled,
}
