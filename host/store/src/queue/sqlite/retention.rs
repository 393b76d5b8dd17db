//! Retention and erasure: deletes settled messages by age and number, bodies of dead letters, and all data about a person.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::damage::{Location, SET_ASIDE};
use super::deferred_index::{RECIPIENTS, list};
use super::recipients::{all_hashes, hashes_to_search};
use super::rows::RowReader;
use super::writer::Writer;
use super::{Erased, ORDINARY, QueueError, Sqlite, State, ms};
use crate::person::{address_key, normal_address, normal_user};

/// Rows that one step deletes, so that other writes do not wait long.
const STEP: i64 = 500;
/// Rows that one step deletes if some are next to a damaged page: each of those repeats the transaction.
const STEP_NEAR_DAMAGE: i64 = 16;
/// How long erased data may stay in the write-ahead log.
const LOG_AGE_MAX: Duration = Duration::from_secs(60);
/// Pages that one vacuum step returns to the file system.
const PAGES: i64 = 256;

/// A key that identifies a person.
#[derive(Clone, Copy)]
enum PersonKey {
    User,
    Email,
}

impl PersonKey {
    fn column(self) -> &'static str {
        match self {
            PersonKey::User => "user",
            PersonKey::Email => "email",
        }
    }

    fn normal_form(self, text: &str) -> String {
        match self {
            PersonKey::User => normal_user(text),
            PersonKey::Email => normal_address(text),
        }
    }

    fn hashes(self, text: &str) -> Vec<i64> {
        let [users, emails] = match self {
            PersonKey::User => hashes_to_search(Some(text), None, false),
            PersonKey::Email => hashes_to_search(None, Some(text), false),
        };
        users.into_iter().chain(emails).collect()
    }
}

impl Sqlite {
    /// Runs in small steps, so that other writes do not wait long.
    pub(crate) async fn maintain(&self, now: Timestamp) -> Result<(), QueueError> {
        if self.health.wants_probe() {
            self.put_meta("probed", now.to_string()).await?;
        }
        while self.prune(now).await? {}
        let part = ("pages that vacuum moves", "free space in the file is not returned to the file system");
        while self.writer.write(move |writer| Ok(writer.attempt_part(part, Writer::vacuum)?)).await? {}
        Ok(())
    }

    async fn prune(&self, now: Timestamp) -> Result<bool, QueueError> {
        let is_rehash_left = self.rehash().await?;
        Ok(self.writer.write(move |writer| Ok(writer.prune(now)?)).await? || is_rehash_left)
    }

    pub(crate) async fn erase(&self, user: Option<String>, email: Option<String>) -> Result<Erased, QueueError> {
        // Messages that were indexed by an earlier rule must be indexed again first, to be found.
        while self.rehash().await? {}
        let people = [(PersonKey::User, user), (PersonKey::Email, email)];
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
            self.erase_feedback_about(known, &value).await?;
        }
        Ok(all)
    }
}

impl Sqlite {
    /// Erases feedback about an address, whether it has a message or not.
    async fn erase_feedback_about(&self, known: PersonKey, value: &str) -> Result<(), QueueError> {
        let PersonKey::Email = known else { return Ok(()) };
        let address = address_key("email", value);
        while {
            let address = address.clone();
            let erase = move |writer: &mut Writer| {
                writer.wants_checkpoint = true;
                let part = ("the feedback", "feedback about erased people is stored until queue.retention");
                Ok(writer.attempt_part(part, |writer| writer.erase_feedback(&address))?)
            };
            self.writer.write(erase).await?
        } {}
        Ok(())
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
        let part = ("the events", "events are stored longer than queue.event-retention");
        let pruned = self.attempt_part(part, |writer| writer.prune_events(events, STEP))?;
        let part = ("the feedback", "feedback without a message is stored longer than queue.retention");
        let is_more = self.attempt_part(part, |writer| writer.prune_feedback(aged))? || is_more;
        let part = ("the batches", "batches are stored longer than queue.retention");
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

    /// Deletes settled messages that are too old or too many. Returns whether there are more.
    fn prune_messages(&mut self, before: i64, now: Timestamp) -> rusqlite::Result<bool> {
        let part = ("the index of settled messages", "messages are stored longer than queue.retention");
        let surplus = self.settled.saturating_sub(self.settings.max_settled);
        let step = if self.damage.has_damaged_neighbours() { STEP_NEAR_DAMAGE } else { STEP };
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
            match self.attempt(Location::Message(*id), |writer| writer.erase(*id))? {
                Ok(Some(_)) => {}
                Ok(None) => self.leave_out(*id, "the index refers to a row that does not exist", now).map(drop)?,
                Err(damage) => drop(self.note_damaged(*id, &damage, now)?),
            }
        }
        Ok(!ids.is_empty() && (self.settled > self.settings.max_settled || ids.len() as i64 >= step))
    }

    /// Erases bodies and progress of old dead letters. Returns the number of messages.
    fn erase_bodies(&mut self, before: i64, now: Timestamp) -> rusqlite::Result<i64> {
        let all = self.attempt(Location::Part("the contexts of dead letters"), |writer| {
            let sql = format!(
                "UPDATE messages SET body = NULL, progress = NULL WHERE id IN (SELECT id FROM messages
                WHERE state IN (4, 5, 6) AND settled < ?1 AND body IS NOT NULL AND id NOT IN {SET_ASIDE} LIMIT ?2)"
            );
            writer.db.prepare_cached(&sql)?.execute([before, STEP])
        })?;
        if let Ok(erased) = all {
            return Ok(erased as i64);
        }
        // One of them is damaged: erase them one by one, by the index of dead letters.
        let part = ("the index of dead letters", "their contexts are stored longer than queue.dead-letter-retention");
        let ids =
            format!("SELECT id FROM messages WHERE state IN (4, 5, 6) AND id NOT IN {SET_ASIDE} AND ?1 > 0 LIMIT ?2");
        let ids = self.attempt_part(part, |writer| writer.ids(&ids, 1, STEP))?;
        let sql =
            "UPDATE messages SET body = NULL, progress = NULL WHERE id = ?1 AND settled < ?2 AND body IS NOT NULL";
        let mut erased = 0;
        for id in ids {
            let erase = |writer: &mut Writer| writer.db.prepare_cached(sql)?.execute([id, before]);
            match self.attempt(Location::Message(id), erase)? {
                Ok(n) => erased += n as i64,
                Err(damage) => drop(self.note_damaged(id, &damage, now)?),
            }
        }
        Ok(erased)
    }

    fn ids(&self, sql: &str, first: i64, max: i64) -> rusqlite::Result<Vec<i64>> {
        self.db.prepare_cached(sql)?.query_map([first, max], |row| row.get(0))?.collect()
    }

    /// Erases some of a person's messages with ids above `after`. Also returns the id to continue after, if there may be more.
    fn erase_some(&mut self, known: PersonKey, value: &str, after: i64) -> rusqlite::Result<(Erased, Option<i64>)> {
        let hashes = known.hashes(value);
        let sql = format!("SELECT id FROM {RECIPIENTS} WHERE id > ? ORDER BY id LIMIT ?");
        let step = if self.damage.has_damaged_neighbours() { STEP_NEAR_DAMAGE } else { STEP };
        let values = params![list(hashes.iter().copied()), self.deferred_index.ids(&hashes), after, step];
        let ids =
            self.db.prepare_cached(&sql)?.query_map(values, |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        let is_last = (ids.len() as i64) < step;
        let (mut erased, form) = (Erased::default(), known.normal_form(value));
        for id in &ids {
            match self.attempt(Location::Message(*id), |writer| writer.erase_if(*id, known, &form))? {
                Ok(None) => {}
                Ok(Some(Stage::Waiting)) => erased.waiting += 1,
                Ok(Some(Stage::InFlight)) => erased.in_flight += 1,
                Ok(Some(Stage::Settled)) => erased.settled += 1,
                Err(_) => erased.damaged += 1,
            }
        }
        Ok((erased, ids.last().copied().filter(|_| !is_last)))
    }

    /// Erases a message if it belongs to the person, because different people may have the same hash.
    fn erase_if(&mut self, id: i64, known: PersonKey, form: &str) -> rusqlite::Result<Option<Stage>> {
        let sql = format!("SELECT {} FROM messages WHERE id = ?1", known.column());
        let found = self.db.prepare_cached(&sql)?.query_row([id], |row| Ok(RowReader::new(row).text(0))).optional()?;
        match found.flatten() {
            Some(text) if known.normal_form(&text) == form => self.erase(id),
            _ => Ok(None),
        }
    }

    /// Deletes a message from every table.
    fn erase(&mut self, id: i64) -> rusqlite::Result<Option<Stage>> {
        let Some(ErasedRow { priority, state, uuid, hashes }) = self.erase_row(id)? else { return Ok(None) };
        self.deferred_index.erase(uuid, id);
        // An entry that remains in a damaged index refers to no message.
        let part = ("the keys of erased messages", "hashes of erased messages remain there");
        self.attempt_part(part, |writer| writer.erase_keys(id, uuid, &hashes))?;
        let part = ("the events of erased messages", "they are stored until queue.event-retention");
        self.attempt_part(part, |writer| writer.erase_events(id))?;
        self.erase_deliveries(id)?;
        self.tally(priority, state, -1);
        if state != State::Queued {
            self.settled = self.settled.saturating_sub(1);
            return Ok(Some(Stage::Settled));
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        if self.end_claim(id)?.is_some() {
            return Ok(Some(Stage::InFlight));
        }
        self.unblock(id)?;
        self.take_waiting(priority, id)?;
        Ok(Some(Stage::Waiting))
    }

    /// Deletes a message's row. If SQLite would merge its page with a damaged one, the row is emptied instead.
    fn erase_row(&mut self, id: i64) -> rusqlite::Result<Option<ErasedRow>> {
        let columns = "lane, state, uuid, user, email";
        let take_out = |writer: &mut Writer| {
            let sql = format!("DELETE FROM messages WHERE id = ?1 AND state >= 0 RETURNING {columns}");
            writer.db.prepare_cached(&sql)?.query_row([id], ErasedRow::of).optional()
        };
        if let Ok(erased) = self.attempt(Location::Neighbour(id), take_out)? {
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

/// The state of a row that was emptied because it could not be deleted. No message has this state, and no index contains the row.
pub(super) const EMPTIED: i64 = -1;

/// The values of an erased row that other tables depend on.
struct ErasedRow {
    priority: i64,
    state: State,
    uuid: Uuid,
    hashes: Vec<i64>,
}

impl ErasedRow {
    fn of(row: &rusqlite::Row) -> rusqlite::Result<ErasedRow> {
        let mut row = RowReader::new(row);
        let (priority, state) = (row.number_or(0, ORDINARY), State::of(row.number_or(1, State::Corrupt as i64)));
        let (uuid, user, email) = (row.uuid(2), row.text(3), row.text(4));
        Ok(ErasedRow { priority, state, uuid, hashes: all_hashes(user.as_deref(), email.as_deref()) })
    }
}

/// Where an erased message was.
enum Stage {
    Waiting,
    InFlight,
    Settled,
}
