//! Events, which are written in the same transaction as the settlement that they report, and their webhook deliveries.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;

use super::rows::{self, Order, RowReader};
use super::writer::Writer;
use super::{Event, EventId, Events, NewEvent, QueueError, Sqlite, WebhookDelivery, moment, ms};
use crate::sqlite;

/// The key in `meta` of the id of the latest event that was pruned.
const PRUNED: &str = "events-pruned";

impl Sqlite {
    pub(crate) async fn set_webhooks(&self, webhooks: Vec<String>) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                writer.webhooks.clone_from(&webhooks);
                let part = (
                    "the webhook deliveries",
                    "some are not made, or are kept for webhooks that are no longer configured",
                );
                let webhooks = serde_json::to_string(&webhooks).expect("strings serialize");
                Ok(writer.attempt_part(part, |writer| {
                    let sql = "DELETE FROM calls WHERE hook NOT IN (SELECT value FROM json_each(?1))";
                    writer.db.execute(sql, [webhooks]).map(drop)
                })?)
            })
            .await
    }

    pub(crate) async fn webhook_deliveries(
        &self,
        webhook: String,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<WebhookDelivery>, QueueError> {
        loop {
            let name = webhook.clone();
            let (due, lost) = self.read(move |db| due_deliveries(db, &name, max, now)).await?;
            if lost.is_empty() {
                return Ok(due);
            }
            let file = self.file.display();
            tracing::error!(
                %webhook, events = ?lost,
                "Stored events cannot be read and are not delivered to the webhook; all others are. \
                 Inspect one with: sqlite3 {file} \"SELECT * FROM events WHERE id = {}\"", lost[0]
            );
            for event in lost {
                self.end_webhook_delivery(webhook.clone(), EventId(event)).await?;
            }
        }
    }

    pub(crate) async fn next_webhook_delivery(&self, webhook: String) -> Result<Option<Timestamp>, QueueError> {
        let sql = "SELECT min(due) FROM calls WHERE hook = ?1";
        let next = move |db: &Connection| {
            let read = |row: &rusqlite::Row| Ok(RowReader::new(row).number(0));
            Ok(db.prepare_cached(sql)?.query_row([&webhook], read)?.map(moment))
        };
        self.read(next).await
    }

    pub(crate) async fn emit(&self, event: NewEvent, now: Timestamp) -> Result<(), QueueError> {
        self.writer.write(move |writer| Ok(writer.emit(0, &event, now)?)).await
    }

    pub(crate) async fn end_webhook_delivery(&self, webhook: String, event: EventId) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let sql = "DELETE FROM calls WHERE hook = ?1 AND event = ?2";
                writer.db.prepare_cached(sql)?.execute(params![webhook, event.0])?;
                Ok(())
            })
            .await
    }

    pub(crate) async fn retry_webhook_delivery(
        &self,
        webhook: String,
        event: EventId,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let sql = "UPDATE calls SET due = ?3, attempts = attempts + 1 WHERE hook = ?1 AND event = ?2";
                writer.db.prepare_cached(sql)?.execute(params![webhook, event.0, ms(due)])?;
                Ok(())
            })
            .await
    }

    pub(crate) async fn events(&self, after: EventId, max: usize) -> Result<Events, QueueError> {
        self.read(move |db| {
            // One snapshot, so that events that are pruned meanwhile are reported.
            let snapshot = db.unchecked_transaction()?;
            let events = snapshot
                .prepare_cached("SELECT id, at, body, kind FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?
                .query_map([after.0, max as i64], event)?
                .collect::<Result<_, _>>();
            let events = match events {
                Err(error) if !sqlite::is_general(&error) => {
                    let one = "SELECT id, at, body, kind FROM events WHERE id = ?1";
                    rows::each(&snapshot, ("events", one), (after.0, Order::Up), max, event)?
                }
                events => events?,
            };
            let number = |row: &rusqlite::Row| Ok(RowReader::new(row).number(0).unwrap_or_default());
            let last = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
            let last = snapshot.prepare_cached(last)?.query_row([], number).optional()?;
            let pruned = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
            let pruned = snapshot.prepare_cached(pruned)?.query_row([PRUNED], number).optional()?;
            let number = |number: Option<i64>| EventId(number.unwrap_or_default());
            Ok(Events { events, last: number(last), pruned: number(pruned) })
        })
        .await
    }
}

fn event(row: &rusqlite::Row) -> rusqlite::Result<Event> {
    let mut row = RowReader::new(row);
    let (id, at, body) = (row.number_or(0, 0), row.number_or(1, 0), row.bytes(2).unwrap_or_default());
    let kind = row.text(3).filter(|kind| !kind.is_empty()).unwrap_or_else(|| kind_in(&body));
    Ok(Event { id: EventId(id), at: moment(at), kind, body })
}

/// The type in an event's body, for an event that an upgrade could not change because it is next to a damaged page.
fn kind_in(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_slice(body).map_or_else(|_| String::new(), |typed: Typed| typed.r#type)
}

/// Due deliveries, and the ids of events that are missing or cannot be read.
fn due_deliveries(
    db: &Connection,
    webhook: &str,
    max: usize,
    now: Timestamp,
) -> rusqlite::Result<(Vec<WebhookDelivery>, Vec<i64>)> {
    let sql = "SELECT event, attempts FROM calls WHERE hook = ?1 AND due <= ?2 ORDER BY due, event LIMIT ?3";
    let read = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
        Ok((row.number_or(0, 0), u32::try_from(row.number_or(1, 0)).unwrap_or_default()))
    };
    let due: Vec<(i64, u32)> =
        db.prepare_cached(sql)?.query_map(params![webhook, ms(now), max as i64], read)?.collect::<Result<_, _>>()?;
    let (mut deliveries, mut lost) = (Vec::new(), Vec::new());
    let mut events = db.prepare_cached("SELECT id, at, body, kind FROM events WHERE id = ?1")?;
    for (id, attempts) in due {
        match events.query_row([id], event).optional() {
            Ok(Some(event)) => deliveries.push(WebhookDelivery { event, attempts }),
            Err(error) if sqlite::is_general(&error) => return Err(error),
            Ok(None) | Err(_) => lost.push(id),
        }
    }
    Ok((deliveries, lost))
}

impl Writer {
    /// Deletes some events from before a time that have no pending delivery. Returns their number.
    pub(super) fn prune_events(&mut self, before: i64, max: i64) -> rusqlite::Result<i64> {
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

    /// Deletes the events of a message, and their deliveries.
    pub(super) fn erase_events(&mut self, message: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM calls WHERE event IN (SELECT id FROM events WHERE message = ?1)";
        self.db.prepare_cached(sql)?.execute([message])?;
        self.db.prepare_cached("DELETE FROM events WHERE message = ?1")?.execute([message]).map(drop)
    }

    /// Stores an event, and a delivery to each webhook.
    pub(super) fn emit(&mut self, message: i64, event: &NewEvent, now: Timestamp) -> rusqlite::Result<()> {
        let sql = "INSERT INTO events (at, message, kind, body) VALUES (?1, ?2, ?3, ?4)";
        self.db.prepare_cached(sql)?.execute(params![ms(now), message, event.kind, event.body])?;
        let event = self.db.last_insert_rowid();
        for webhook in &self.webhooks {
            self.db
                .prepare_cached("INSERT INTO calls (hook, event, due, attempts) VALUES (?1, ?2, ?3, 0)")?
                .execute(params![webhook, event, ms(now)])?;
        }
        Ok(())
    }
}
