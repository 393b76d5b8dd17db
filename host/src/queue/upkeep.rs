//! What is kept, for how long, and what is erased: settled messages by age and number, bodies of dead letters, a person's all.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::recent::RECIPIENTS;
use super::writer::Writer;
use super::{Queue, QueueError, State, hash, hashes, ms, uuid, waiting};

/// Rows that one step takes, so that nobody waits long behind it.
const STEP: i64 = 500;
/// The longest that what was erased stays in the database's log.
const LOG_AGE_MAX: Duration = Duration::from_secs(60);
/// Pages that one step gives back to the disk.
const PAGES: i64 = 256;

/// What was erased of a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// Messages that waited: they will not go out.
    pub waiting: u64,
    /// Messages that a worker had at that moment: they may have gone out, and leave no trace here.
    pub under_way: u64,
    /// Messages that were settled.
    pub settled: u64,
}

impl Queue {
    /// Does a part of what is due by `[queue]`; whether there is more. To be called again and again.
    pub async fn keep_up(&self, now: Timestamp) -> Result<bool, QueueError> {
        self.writer.write(move |writer| Ok(writer.keep_up(now)?)).await
    }

    /// Gives room that is not needed any more back to the disk, a part at a time; whether there is more.
    pub async fn give_room_back(&self) -> Result<bool, QueueError> {
        self.writer
            .write(|writer| {
                let free: i64 = writer.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
                let mut step = writer.db.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
                let mut rows = step.query([])?;
                while rows.next()?.is_some() {}
                drop(rows);
                drop(step);
                // What was erased is in the log until that is folded away.
                let is_log_old = writer.folded.elapsed() > LOG_AGE_MAX;
                writer.wants_checkpoint = (1..=PAGES).contains(&free) || is_log_old;
                Ok(free > PAGES)
            })
            .await
    }

    /// Erases everything about the messages to a user id, or to an address.
    pub async fn forget(&self, user: Option<String>, email: Option<String>) -> Result<Forgotten, QueueError> {
        let people: Vec<(&'static str, &'static str, String)> = [("user:", "user", user), ("email:", "email", email)]
            .into_iter()
            .filter_map(|(kind, column, value)| value.map(|value| (kind, column, value)))
            .collect();
        let mut all = Forgotten::default();
        for (kind, column, value) in people {
            loop {
                let value = value.clone();
                let step = move |writer: &mut Writer| {
                    writer.wants_checkpoint = true;
                    Ok(writer.forget_some(kind, column, &value)?)
                };
                let (some, is_more) = self.writer.write(step).await?;
                all.waiting += some.waiting;
                all.under_way += some.under_way;
                all.settled += some.settled;
                if !is_more {
                    break;
                }
            }
        }
        Ok(all)
    }
}

impl Writer {
    fn keep_up(&mut self, now: Timestamp) -> rusqlite::Result<bool> {
        let before = |age: Duration| ms(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let aged = "SELECT id FROM messages WHERE settled < ?1 ORDER BY settled LIMIT ?2";
        let mut ids = self.ids(aged, before(self.settings.retention))?;
        let surplus = self.settled.saturating_sub(self.settings.max_settled);
        if ids.is_empty() && surplus > 0 {
            let oldest = "SELECT id FROM messages WHERE settled IS NOT NULL AND ?1 > 0 ORDER BY settled LIMIT ?2";
            ids = self.ids(oldest, 1)?;
            ids.truncate(usize::try_from(surplus).unwrap_or(usize::MAX));
        }
        for id in &ids {
            self.erase(*id)?;
        }
        let dead = before(self.settings.dead_letter_retention);
        let erased = self
            .db
            .prepare_cached(
                "UPDATE messages SET body = NULL WHERE id IN (SELECT id FROM messages
                WHERE state IN (4, 5, 6) AND settled < ?1 AND body IS NOT NULL LIMIT ?2)",
            )?
            .execute([dead, STEP])?;
        let told = self.prune_events(before(self.settings.event_retention), STEP)?;
        self.drop_batches(before(self.settings.retention))?;
        let is_surplus_left = self.settled > self.settings.max_settled;
        Ok(is_surplus_left || ids.len() as i64 >= STEP || erased as i64 >= STEP || told >= STEP)
    }

    fn ids(&self, sql: &str, first: i64) -> rusqlite::Result<Vec<i64>> {
        self.db.prepare_cached(sql)?.query_map([first, STEP], |row| row.get(0))?.collect()
    }

    fn forget_some(&mut self, kind: &str, column: &str, value: &str) -> rusqlite::Result<(Forgotten, bool)> {
        // The key is a hash, so what it finds is compared.
        let sql = format!(
            "SELECT id FROM messages WHERE id IN {RECIPIENTS} AND lower(trim({column})) = lower(trim(?3)) LIMIT ?4"
        );
        let hash = hash(kind, value);
        let ids: Vec<i64> = self
            .db
            .prepare_cached(&sql)?
            .query_map(params![hash, self.recent.ids(hash), value, STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut forgotten = Forgotten::default();
        for id in &ids {
            match self.erase(*id)? {
                Some(Held::Waiting) => forgotten.waiting += 1,
                Some(Held::UnderWay) => forgotten.under_way += 1,
                None => forgotten.settled += 1,
            }
        }
        Ok((forgotten, ids.len() as i64 == STEP))
    }

    /// Takes a message out of every table.
    fn erase(&mut self, id: i64) -> rusqlite::Result<Option<Held>> {
        let sql = "DELETE FROM messages WHERE id = ?1 RETURNING lane, state, uuid, user, email";
        let read = |row: &rusqlite::Row| {
            let (user, email): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
            let hashes = hashes(user.as_deref(), email.as_deref());
            Ok((row.get::<_, i64>(0)?, row.get(1)?, uuid(&row.get::<_, Vec<u8>>(2)?), hashes))
        };
        let found = self.db.prepare_cached(sql)?.query_row([id], read).optional()?;
        let Some((lane, state, uuid, hashes)) = found else { return Ok(None) };
        self.recent.erase(&self.db, uuid, id, hashes)?;
        self.db
            .prepare_cached("DELETE FROM calls WHERE event IN (SELECT id FROM events WHERE message = ?1)")?
            .execute([id])?;
        self.db.prepare_cached("DELETE FROM events WHERE message = ?1")?.execute([id])?;
        let state = State::of(state);
        self.tally(lane, state, -1);
        if state != State::Queued {
            self.settled = self.settled.saturating_sub(1);
            return Ok(None);
        }
        self.unsettled = self.unsettled.saturating_sub(1);
        if self.unclaim(id)?.is_some() {
            return Ok(Some(Held::UnderWay));
        }
        self.unpark(id)?;
        waiting::take_one(&self.db, lane, id)?;
        Ok(Some(Held::Waiting))
    }
}

/// Where an unsettled message was.
enum Held {
    Waiting,
    UnderWay,
}
