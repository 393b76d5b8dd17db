//! What is told to the outside: events, written with the settlement they tell of, and the webhook calls that carry them.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Order, Reading};
use super::writer::Writer;
use super::{Queue, QueueError, moment, ms};
use crate::sqlite;

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
                writer.hooks.clone_from(&hooks);
                let part =
                    ("the webhook calls", "some are not made, or are kept for webhooks that are configured no more");
                let hooks = serde_json::to_string(&hooks).expect("texts are written");
                Ok(writer.attempt_part(part, |writer| {
                    let sql = "DELETE FROM calls WHERE hook NOT IN (SELECT value FROM json_each(?1))";
                    writer.db.execute(sql, [hooks]).map(drop)
                })?)
            })
            .await
    }

    /// Calls to a webhook that are due, the oldest event first.
    pub async fn calls(&self, hook: String, max: usize, now: Timestamp) -> Result<Vec<Call>, QueueError> {
        loop {
            let asked = hook.clone();
            let (calls, lost) = self.read(move |db| due_calls(db, &asked, max, now)).await?;
            if lost.is_empty() {
                return Ok(calls);
            }
            let file = self.file.display();
            tracing::error!(
                webhook = %hook, events = ?lost,
                "Stored events cannot be read, and the webhook is not told of them; all others go on. \
                 Look at one with: sqlite3 {file} \"SELECT * FROM events WHERE id = {}\"", lost[0]
            );
            for event in lost {
                self.called(hook.clone(), event).await?;
            }
        }
    }

    /// When the next call to a webhook is due.
    pub async fn next_call(&self, hook: String) -> Result<Option<Timestamp>, QueueError> {
        let sql = "SELECT min(due) FROM calls WHERE hook = ?1";
        let next = move |db: &Connection| {
            let read = |row: &rusqlite::Row| Ok(Reading::of(row).number(0));
            Ok(db.prepare_cached(sql)?.query_row([&hook], read)?.map(moment))
        };
        self.read(next).await
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
            let events = looking
                .prepare_cached("SELECT id, at, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?
                .query_map([after, max as i64], event)?
                .collect::<Result<_, _>>();
            let events = match events {
                Err(error) if !sqlite::is_general(&error) => {
                    let one = "SELECT id, at, body FROM events WHERE id = ?1";
                    rows::each(&looking, ("events", one), (after, Order::Up), max, event)?
                }
                events => events?,
            };
            let number = |row: &rusqlite::Row| Ok(Reading::of(row).number(0).unwrap_or_default());
            let last = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
            let last = looking.prepare_cached(last)?.query_row([], number).optional()?;
            let pruned = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
            let pruned = looking.prepare_cached(pruned)?.query_row([PRUNED], number).optional()?;
            Ok(Events { events, last: last.unwrap_or_default(), pruned: pruned.unwrap_or_default() })
        })
        .await
    }
}

fn event(row: &rusqlite::Row) -> rusqlite::Result<Event> {
    let mut row = Reading::of(row);
    let (id, at, body) = (row.number_or(0, 0), row.number_or(1, 0), row.bytes(2).unwrap_or_default());
    Ok(Event { id, at: moment(at), body })
}

/// Calls that are due, and the numbers of those events that are not there or cannot be read.
fn due_calls(db: &Connection, hook: &str, max: usize, now: Timestamp) -> rusqlite::Result<(Vec<Call>, Vec<i64>)> {
    let sql = "SELECT event, attempts FROM calls WHERE hook = ?1 AND due <= ?2 ORDER BY due, event LIMIT ?3";
    let read = |row: &rusqlite::Row| {
        let mut row = Reading::of(row);
        Ok((row.number_or(0, 0), u32::try_from(row.number_or(1, 0)).unwrap_or_default()))
    };
    let due: Vec<(i64, u32)> =
        db.prepare_cached(sql)?.query_map(params![hook, ms(now), max as i64], read)?.collect::<Result<_, _>>()?;
    let (mut calls, mut lost) = (Vec::new(), Vec::new());
    let mut events = db.prepare_cached("SELECT id, at, body FROM events WHERE id = ?1")?;
    for (id, attempts) in due {
        match events.query_row([id], event).optional() {
            Ok(Some(event)) => calls.push(Call { event, attempts }),
            Err(error) if sqlite::is_general(&error) => return Err(error),
            Ok(None) | Err(_) => lost.push(id),
        }
    }
    Ok((calls, lost))
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
