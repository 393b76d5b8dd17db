//! What is told to the outside: events, written with the settlement they tell of, and the webhook calls that carry them.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::writer::Writer;
use super::{Queue, QueueError, moment, ms};

/// What `meta` calls the number of the latest event that was thrown out.
const PRUNED: &str = "events-pruned";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    pub at: Timestamp,
    /// JSON.
    pub body: Vec<u8>,
}

/// A part of the events that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub events: Vec<Event>,
    /// The number of the latest event there ever was.
    pub last: i64,
    /// Of the events up to this one some were thrown out for their age.
    pub pruned: i64,
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub event: Event,
    /// Calls that failed before.
    pub attempts: u32,
}

impl Queue {
    /// The webhooks that are told of every event from now on. Calls to others are dropped.
    pub async fn set_hooks(&self, hooks: Vec<String>) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let mut known = writer.db.prepare("SELECT DISTINCT hook FROM calls")?;
                let known: Vec<String> = known.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
                for gone in known.iter().filter(|hook| !hooks.contains(hook)) {
                    writer.db.execute("DELETE FROM calls WHERE hook = ?1", [gone])?;
                }
                writer.hooks = hooks;
                Ok(())
            })
            .await
    }

    /// Calls to a webhook that are due, the oldest event first.
    pub async fn calls(&self, hook: String, max: usize, now: Timestamp) -> Result<Vec<Call>, QueueError> {
        self.read(move |db| {
            let sql = "SELECT e.id, e.at, e.body, c.attempts FROM calls c JOIN events e ON e.id = c.event
                WHERE c.hook = ?1 AND c.due <= ?2 ORDER BY c.due, c.event LIMIT ?3";
            let read = |row: &rusqlite::Row| {
                let event = Event { id: row.get(0)?, at: moment(row.get(1)?), body: row.get(2)? };
                Ok(Call { event, attempts: row.get(3)? })
            };
            db.prepare_cached(sql)?.query_map(params![hook, ms(now), max as i64], read)?.collect()
        })
        .await
    }

    /// Keeps an event that is about no message.
    pub async fn tell(&self, body: Vec<u8>, now: Timestamp) -> Result<(), QueueError> {
        self.writer.write(move |writer| Ok(writer.tell(0, &body, now)?)).await
    }

    /// A call was taken, or given up.
    pub async fn called(&self, hook: String, event: i64) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let sql = "DELETE FROM calls WHERE hook = ?1 AND event = ?2";
                writer.db.prepare_cached(sql)?.execute(params![hook, event])?;
                Ok(())
            })
            .await
    }

    /// A call failed, and is made again then.
    pub async fn call_again(&self, hook: String, event: i64, due: Timestamp) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let sql = "UPDATE calls SET due = ?3, attempts = attempts + 1 WHERE hook = ?1 AND event = ?2";
                writer.db.prepare_cached(sql)?.execute(params![hook, event, ms(due)])?;
                Ok(())
            })
            .await
    }

    /// Events after that one, the earliest first: for a stream that was interrupted.
    pub async fn events(&self, after: i64, max: usize) -> Result<Events, QueueError> {
        self.read(move |db| {
            // One look at both, so that what is thrown out in between is not overlooked.
            let looking = db.unchecked_transaction()?;
            let read = |row: &rusqlite::Row| Ok(Event { id: row.get(0)?, at: moment(row.get(1)?), body: row.get(2)? });
            let events = looking
                .prepare_cached("SELECT id, at, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?
                .query_map([after, max as i64], read)?
                .collect::<Result<_, _>>()?;
            let last = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
            let last = looking.prepare_cached(last)?.query_row([], |row| row.get(0)).optional()?;
            let pruned = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
            let pruned = looking.prepare_cached(pruned)?.query_row([PRUNED], |row| row.get(0)).optional()?;
            Ok(Events { events, last: last.unwrap_or_default(), pruned: pruned.unwrap_or_default() })
        })
        .await
    }
}

impl Writer {
    /// Throws out events that are older than that and not to be called any more, some at a time; how many that were.
    pub fn prune_events(&mut self, before: i64, max: i64) -> rusqlite::Result<i64> {
        let gone: Vec<i64> = self
            .db
            .prepare_cached(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ?1
                AND NOT EXISTS (SELECT 1 FROM calls WHERE event = events.id) ORDER BY id LIMIT ?2) RETURNING id",
            )?
            .query_map([before, max], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if let Some(latest) = gone.iter().max() {
            let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE
                SET value = excluded.value WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)";
            self.db.prepare_cached(sql)?.execute(params![PRUNED, latest.to_string()])?;
        }
        Ok(gone.len() as i64)
    }

    /// Keeps an event, and a call for each webhook.
    pub fn tell(&mut self, message: i64, body: &[u8], now: Timestamp) -> rusqlite::Result<()> {
        self.db.prepare_cached("INSERT INTO events (at, message, body) VALUES (?1, ?2, ?3)")?.execute(params![
            ms(now),
            message,
            body
        ])?;
        let event = self.db.last_insert_rowid();
        for hook in &self.hooks {
            self.db
                .prepare_cached("INSERT INTO calls (hook, event, due, attempts) VALUES (?1, ?2, ?3, 0)")?
                .execute(params![hook, event, ms(now)])?;
        }
        Ok(())
    }
}
