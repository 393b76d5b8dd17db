//! Queries: one message, messages by filter, and statistics; and changes by operators. Queries do not wait for the writer.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::damage::{Location, set_aside};
use super::deferred_index::{RECIPIENTS, Shared, indexed, list};
use super::health::HealthTracker;
use super::recipients::hashes_to_search;
use super::rows::{self, Order, RowReader};
use super::suspects::SUSPECTS;
use super::writer::{WriteError, Writer};
use super::{
    Filter, MessageId, ORDINARY, Page, QueueError, Selection, Sqlite, State, Stats, Stored, TRANSACTIONAL, moment, ms,
    ready,
};
use crate::person::{normal_address, normal_user};
use crate::sqlite;

/// Rows that are scanned for one page when no index applies.
const SCAN_MAX: i64 = 5_000;
/// Messages that one step of a change of a selection covers.
const STEP: usize = 500;

const COLUMNS: &str = "id, uuid, state, accepted, settled, name, user, email, body, progress, report, lane";

impl Sqlite {
    pub(crate) async fn message(&self, uuid: Uuid) -> Result<Option<Stored>, QueueError> {
        let held = self.deferred_index.id(uuid);
        self.read(move |db| {
            let id = if held.is_some() { held } else { indexed(db, uuid)? };
            let Some(id) = id else { return Ok(None) };
            let sql = format!("SELECT {COLUMNS} FROM messages WHERE id = ?1 AND state >= 0");
            let found = db.prepare_cached(&sql)?.query_row([id], stored).optional();
            match set_aside(db, id)? {
                Some((at, reason)) => Ok(Some(damaged(id, uuid, (at, &reason), found.ok().flatten()))),
                None => found?.map(|(stored, priority)| complete(db, stored, priority)).transpose(),
            }
        })
        .await
    }

    pub(crate) async fn messages(
        &self,
        filter: Filter,
        cursor: Option<MessageId>,
        max: usize,
    ) -> Result<Page, QueueError> {
        let (held, is_rehashing) = (self.deferred_index.clone(), self.is_rehashing.load(Ordering::Acquire));
        self.read(move |db| {
            let people = People::of(&filter, &held, is_rehashing);
            let cursor = cursor.map(|cursor| cursor.0);
            match page(db, &people, &filter, cursor, max) {
                Err(error) if !sqlite::is_general(&error) => page_around(db, &people, &filter, cursor, max),
                page => page,
            }
        })
        .await
    }

    pub(crate) async fn stats(&self) -> Result<Stats, QueueError> {
        let file = self.file.clone();
        let health = self.health.clone();
        let mut stats = self.read(move |db| stats(db, &health)).await?;
        let wal = format!("{}-wal", file.display());
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        stats.bytes = size(&file) + size(wal.as_ref());
        stats.rates = self.meter.rates();
        Ok(stats)
    }

    pub(crate) async fn retry(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| match writer.find(uuid)? {
                None => Err(WriteError::Rejected(QueueError::Unknown("message"))),
                Some((id, priority, state)) if writer.retry(id, priority, state, now)? => Ok(()),
                Some((.., state)) => Err(WriteError::Rejected(QueueError::State(not_dead(state)))),
            })
            .await?;
        self.wakeups.wake(true);
        Ok(())
    }

    pub(crate) async fn cancel(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let Some((id, priority, _)) = writer.find(uuid)? else {
                    return Err(WriteError::Rejected(QueueError::Unknown("message")));
                };
                if !writer.take_waiting(priority, id)? {
                    let text = "cannot cancel: the message is being sent or is already settled".to_owned();
                    return Err(WriteError::Rejected(QueueError::State(text)));
                }
                Ok(writer.set_settled(id, priority, (State::Cancelled, b""), now)?)
            })
            .await
    }

    pub(crate) async fn discard(&self, uuid: Uuid) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| match writer.find(uuid)? {
                None => Err(WriteError::Rejected(QueueError::Unknown("message"))),
                Some((id, priority, state)) if state.is_dead() => Ok(writer.discard(id, priority, state)?),
                Some((.., state)) => Err(WriteError::Rejected(QueueError::State(not_dead(state)))),
            })
            .await
    }

    pub(crate) async fn retry_all(&self, selection: Selection, now: Timestamp) -> Result<u64, QueueError> {
        let tried = self
            .each_dead(selection, move |writer, id, priority, state| writer.retry(id, priority, state, now))
            .await?;
        self.wakeups.wake(true);
        Ok(tried)
    }

    pub(crate) async fn discard_all(&self, selection: Selection) -> Result<u64, QueueError> {
        self.each_dead(selection, |writer, id, priority, state| writer.discard(id, priority, state).map(|()| true))
            .await
    }

    async fn each_dead(
        &self,
        selection: Selection,
        change: impl Fn(&mut Writer, i64, i64, State) -> rusqlite::Result<bool> + Clone + Send + 'static,
    ) -> Result<u64, QueueError> {
        let Selection { filter, mut cursor, limit } = selection;
        let filter = Filter { is_dead: true, ..filter };
        let mut changed = 0;
        loop {
            let left = limit.map_or(u64::MAX, |limit| limit - changed);
            // Messages that cannot be changed do not count, so a step changes at most as many as it reads.
            let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
            if step == 0 {
                return Ok(changed);
            }
            let page = self.messages(filter.clone(), cursor, step).await?;
            let (uuids, change) = (page.messages.into_iter().map(|m| m.uuid).collect::<Vec<_>>(), change.clone());
            changed += self
                .writer
                .write(move |writer| {
                    let mut n = 0;
                    for uuid in &uuids {
                        let changed = writer.attempt(Location::Uuid(*uuid), |writer| {
                            // Its state may have changed since it was read.
                            match writer.find(*uuid)?.filter(|(.., state)| state.is_dead()) {
                                Some((id, priority, state)) => change(writer, id, priority, state),
                                None => Ok(false),
                            }
                        })?;
                        match changed {
                            Ok(changed) => n += u64::from(changed),
                            Err(damage) => {
                                tracing::error!(message_uuid = %uuid, "A message is damaged and was not changed: {damage}");
                            }
                        }
                    }
                    Ok(n)
                })
                .await?;
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(changed),
            }
        }
    }
}

fn not_dead(state: State) -> String {
    format!("it is {}; only a message that failed or expired can be retried or discarded", state.as_str())
}

impl Writer {
    /// Retries a message. Returns false if it is not a dead letter or its body was erased.
    fn retry(&mut self, id: i64, priority: i64, state: State, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "UPDATE messages SET state = 0, settled = NULL, report = NULL, retried = ?2,
            in_doubt = 0, doubts = NULL, interruptions = 0
            WHERE id = ?1 AND state IN (4, 5) AND body IS NOT NULL";
        if self.db.prepare_cached(sql)?.execute([id, ms(now)])? == 0 {
            return Ok(false);
        }
        self.count_reopened(priority, state);
        self.put(priority, ms(now), id)?;
        Ok(true)
    }

    fn discard(&mut self, id: i64, priority: i64, state: State) -> rusqlite::Result<()> {
        let sql = "UPDATE messages SET state = ?1, body = NULL, progress = NULL WHERE id = ?2";
        self.db.prepare_cached(sql)?.execute([State::Discarded as i64, id])?;
        self.tally(priority, state, -1);
        self.tally(priority, State::Discarded, 1);
        Ok(())
    }
}

fn stored(row: &Row) -> rusqlite::Result<(Stored, i64)> {
    let mut row = RowReader::new(row);
    let stored = Stored {
        id: MessageId(row.number_or(0, 0)),
        uuid: row.uuid(1),
        state: State::of(row.number_or(2, State::Corrupt as i64)),
        is_in_flight: false,
        due: None,
        accepted: moment(row.number_or(3, 0)),
        settled: row.number(4).map(moment),
        name: row.text(5).unwrap_or_default(),
        user: row.text(6),
        email: row.text(7),
        body: row.bytes(8),
        progress: row.bytes(9),
        report: row.bytes(10),
        batch: None,
    };
    Ok((stored, row.number_or(11, ORDINARY)))
}

/// A message that was set aside because its row is damaged, with the values that are readable.
fn damaged(id: i64, uuid: Uuid, (at, reason): (i64, &str), found: Option<(Stored, i64)>) -> Stored {
    let report = serde_json::json!({"uuid": uuid, "error": reason}).to_string().into_bytes();
    let unreadable = Stored {
        id: MessageId(id),
        uuid,
        state: State::Corrupt,
        is_in_flight: false,
        due: None,
        accepted: moment(at),
        settled: None,
        name: String::new(),
        user: None,
        email: None,
        body: None,
        progress: None,
        report: None,
        batch: None,
    };
    let stored = found.map_or(unreadable, |(stored, _)| stored);
    match stored.state {
        State::Queued | State::Corrupt => {
            Stored { state: State::Corrupt, settled: Some(moment(at)), report: Some(report), ..stored }
        }
        _ => stored,
    }
}

/// Adds the values from other tables.
fn complete(db: &Connection, stored: Stored, priority: i64) -> rusqlite::Result<Stored> {
    let is_queued = stored.state == State::Queued;
    if is_queued && let Some((at, reason)) = set_aside(db, stored.id.0)? {
        return Ok(damaged(stored.id.0, stored.uuid, (at, &reason), Some((stored, priority))));
    }
    let due = if is_queued { due(db, priority, stored.id.0)? } else { None };
    let batch = if priority > ORDINARY { batch_uuid(db, priority)? } else { None };
    Ok(Stored { is_in_flight: is_queued && due.is_none(), due: due.map(moment), batch, ..stored })
}

/// When a message is due, in its priority class or as a suspect.
fn due(db: &Connection, priority: i64, id: i64) -> rusqlite::Result<Option<i64>> {
    match ready::due(db, priority, id)? {
        None => ready::due(db, SUSPECTS, id),
        due => Ok(due),
    }
}

fn batch_uuid(db: &Connection, priority: i64) -> rusqlite::Result<Option<Uuid>> {
    let mut uuid = db.prepare_cached("SELECT uuid FROM batches WHERE lane = ?1")?;
    uuid.query_row([priority], |row| Ok(RowReader::new(row).uuid(0))).optional()
}

/// The index keys of a filter's user id and address, each with the ids of messages that are not indexed yet.
struct People(Vec<(String, String)>);

impl People {
    fn of(filter: &Filter, recent: &Shared, is_rehashing: bool) -> People {
        let asked = hashes_to_search(filter.user.as_deref(), filter.email.as_deref(), is_rehashing);
        let keys = |hashes: Vec<i64>| (list(hashes.iter().copied()), recent.ids(&hashes));
        People(asked.into_iter().filter(|hashes| !hashes.is_empty()).map(keys).collect())
    }

    /// The SQL conditions that select their messages, and the parameters.
    fn conditions(&self) -> (Vec<String>, Vec<Value>) {
        let conditions = self.0.iter().map(|_| format!("id IN {RECIPIENTS}")).collect();
        (conditions, self.0.iter().flat_map(|(hashes, held)| [hashes.clone().into(), held.clone().into()]).collect())
    }

    /// The ids of their messages before one, the latest first, without reading messages.
    fn ids(&self, db: &Connection, before: i64) -> rusqlite::Result<Vec<i64>> {
        let mut all: Option<Vec<i64>> = None;
        for (hashes, held) in &self.0 {
            let sql = format!("SELECT id FROM {RECIPIENTS} WHERE id < ? ORDER BY id DESC");
            let values = rusqlite::params![hashes, held, before];
            let ids = db.prepare_cached(&sql)?.query_map(values, |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
            all = Some(match all {
                None => ids,
                Some(before) => before.into_iter().filter(|id| ids.contains(id)).collect(),
            });
        }
        Ok(all.unwrap_or_default())
    }
}

/// Whether only dead letters match, which have an index.
fn are_dead(filter: &Filter) -> bool {
    filter.is_dead || filter.state.is_some_and(State::is_dead)
}

fn page(db: &Connection, people: &People, filter: &Filter, cursor: Option<i64>, max: usize) -> rusqlite::Result<Page> {
    let (mut wheres, mut values) = people.conditions();
    // With an index, nearly all rows that are read match.
    let has_index = !wheres.is_empty() || are_dead(filter);
    wheres.insert(0, "id < ? AND state >= 0".to_owned());
    values.insert(0, cursor.unwrap_or(i64::MAX).into());
    if are_dead(filter) {
        wheres.push("state IN (4, 5, 6)".to_owned());
    }
    let limit = if has_index { max as i64 * 4 + 1 } else { SCAN_MAX };
    values.push(limit.into());
    let columns = COLUMNS.replace("body", "NULL");
    let sql = format!("SELECT {columns} FROM messages WHERE {} ORDER BY id DESC LIMIT ?", wheres.join(" AND "));
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query(rusqlite::params_from_iter(values))?;
    let (mut messages, mut seen, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let (stored, priority) = stored(row)?;
        (seen, last) = (seen + 1, Some(stored.id.0));
        if filter.holds_for(&stored) {
            messages.push(complete(db, stored, priority)?);
        }
        if messages.len() == max {
            break;
        }
    }
    let is_end = messages.len() < max && seen < limit;
    Ok(Page { messages, next: last.filter(|_| !is_end).map(MessageId) })
}

/// As [`page`], if there are damaged rows: reads each row separately, and skips unreadable ones.
fn page_around(
    db: &Connection,
    people: &People,
    filter: &Filter,
    cursor: Option<i64>,
    max: usize,
) -> rusqlite::Result<Page> {
    let from = cursor.unwrap_or(i64::MAX);
    let ids = match (people.0.is_empty(), are_dead(filter)) {
        (true, false) => {
            rows::each(db, ("messages", "SELECT ?1"), (from, Order::Down), SCAN_MAX as usize, |row| row.get(0))?
        }
        (true, true) => {
            let dead = "SELECT id FROM messages WHERE state IN (4, 5, 6) AND id < ?1 ORDER BY id DESC LIMIT ?2";
            db.prepare_cached(dead)?.query_map([from, SCAN_MAX], |row| row.get(0))?.collect::<Result<_, _>>()?
        }
        (false, _) => people.ids(db, from)?,
    };
    let columns = COLUMNS.replace("body", "NULL");
    let sql = format!("SELECT {columns} FROM messages WHERE id = ?1 AND state >= 0");
    let (mut messages, mut last) = (Vec::new(), None);
    for id in &ids {
        last = Some(*id);
        let found = db.prepare_cached(&sql)?.query_row([id], stored).optional();
        match found {
            Ok(Some((stored, priority))) if filter.holds_for(&stored) => messages.push(complete(db, stored, priority)?),
            Err(error) if sqlite::is_general(&error) => return Err(error),
            _ => {}
        }
        if messages.len() == max {
            break;
        }
    }
    let is_end = messages.len() < max && ids.len() < SCAN_MAX as usize;
    Ok(Page { messages, next: last.filter(|_| !is_end).map(MessageId) })
}

impl Filter {
    fn holds_for(&self, stored: &Stored) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>, form: fn(&str) -> String| {
            wanted.as_ref().is_none_or(|wanted| is.as_ref().is_some_and(|is| form(is) == form(wanted)))
        };
        self.state.is_none_or(|state| state == stored.state)
            && (!self.is_dead || stored.state.is_dead())
            && self.name.as_ref().is_none_or(|name| *name == stored.name)
            && same(&self.user, &stored.user, normal_user)
            && same(&self.email, &stored.email, normal_address)
            && self.since.is_none_or(|since| stored.accepted >= since)
            && self.until.is_none_or(|until| stored.accepted < until)
    }
}

fn stats(db: &Connection, health: &HealthTracker) -> rusqlite::Result<Stats> {
    let count = |number: rusqlite::Result<i64>| match number {
        Err(error) if !sqlite::is_general(&error) => {
            health.damaged(
                "the counts",
                "the reported depth and age of the queue are wrong",
                &sqlite::describe(&error),
            );
            Ok(0)
        }
        number => number.map(i64::unsigned_abs),
    };
    let number = |sql: &str| count(db.prepare_cached(sql).and_then(|mut n| n.query_row([], |row| row.get(0))));
    let suspects = |condition: &str| {
        number(&format!(
            "SELECT count(*) FROM queue q JOIN messages m ON m.id = q.id WHERE q.lane = {SUSPECTS} AND m.lane {condition}"
        ))
    };
    let all = number(&format!("SELECT count(*) FROM queue WHERE lane = {SUSPECTS}"))?;
    let priority = |condition: &str| {
        let waiting = number(&format!("SELECT CAST(total(n) AS INTEGER) FROM queue WHERE lane {condition}"))?;
        Ok::<_, rusqlite::Error>(waiting + if all > 0 { suspects(condition)? } else { 0 })
    };
    let oldest = "SELECT accepted FROM messages WHERE id =
        (SELECT min(id) FROM (SELECT min(id) AS id FROM queue UNION ALL SELECT min(id) FROM claims))";
    let oldest = db.prepare_cached(oldest)?.query_row([], |row| Ok(RowReader::new(row).number(0))).optional();
    Ok(Stats {
        waiting_transactional: priority(&format!("= {TRANSACTIONAL}"))?,
        waiting_ordinary: priority(&format!("= {ORDINARY}"))?,
        waiting_batches: priority(&format!("> {ORDINARY}"))?,
        in_flight: number("SELECT count(*) FROM claims")?,
        suspects: all,
        dead: number("SELECT count(*) FROM messages WHERE state IN (4, 5, 6)")?,
        damaged: number("SELECT count(*) FROM damaged")?,
        oldest: oldest.ok().flatten().flatten().map(moment),
        webhook_deliveries: number("SELECT count(*) FROM calls")?,
        ..Stats::default()
    })
}
