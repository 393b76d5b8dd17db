//! What is read: one message, many by filter, and how full the queue is. Nothing here waits for the writer.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::recent::{RECIPIENTS, Shared, indexed};
use super::writer::{Stop, Writer};
use super::{ORDINARY, Queue, QueueError, State, Stats, TRANSACTIONAL, hashes, moment, ms, uuid, waiting};

/// Messages that are looked at for one page where no index leads to them.
const SCAN_MAX: i64 = 5_000;
/// Messages that one step of a change by filter takes.
const STEP: usize = 500;

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: i64,
    pub uuid: Uuid,
    pub state: State,
    /// It has a worker.
    pub is_under_way: bool,
    /// When it is due, where it waits.
    pub due: Option<Timestamp>,
    pub accepted: Timestamp,
    pub settled: Option<Timestamp>,
    /// `app_label.name`.
    pub name: String,
    pub user: Option<String>,
    pub email: Option<String>,
    /// `None` once it was erased.
    pub body: Option<Vec<u8>>,
    pub progress: Option<Vec<u8>>,
    pub report: Option<Vec<u8>>,
    /// The batch it belongs to.
    pub batch: Option<Uuid>,
}

/// Which messages. All that is named must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: Option<State>,
    /// Failed, expired or corrupt.
    pub is_dead: bool,
    pub name: Option<String>,
    pub user: Option<String>,
    pub email: Option<String>,
    /// Accepted at that moment or later.
    pub since: Option<Timestamp>,
    /// Accepted before that moment.
    pub until: Option<Timestamp>,
}

/// Which messages a change of many is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub filter: Filter,
    /// Where to go on, as in [`Page::next`]; `None`: at the latest message.
    pub cursor: Option<i64>,
    /// Messages that are changed at most; `None`: all that are found.
    pub limit: Option<u64>,
}

/// Some messages, the latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub messages: Vec<Stored>,
    /// Where to go on; `None` at the end. A page may be short, or empty, before the end.
    pub next: Option<i64>,
}

const COLUMNS: &str = "id, uuid, state, accepted, settled, name, user, email, body, progress, report, lane";

impl Queue {
    /// One message.
    pub async fn message(&self, uuid: Uuid) -> Result<Option<Stored>, QueueError> {
        let held = self.recent.id(uuid);
        self.read(move |db| {
            let id = if held.is_some() { held } else { indexed(db, uuid)? };
            let Some(id) = id else { return Ok(None) };
            let sql = format!("SELECT {COLUMNS} FROM messages WHERE id = ?1");
            let found = db.prepare_cached(&sql)?.query_row([id], stored).optional()?;
            found.map(|(stored, lane)| whole(db, stored, lane)).transpose()
        })
        .await
    }

    /// A page of messages before `cursor`, `max` at most. Bodies and progress are left out.
    pub async fn messages(&self, filter: Filter, cursor: Option<i64>, max: usize) -> Result<Page, QueueError> {
        let held = self.recent.clone();
        self.read(move |db| page(db, &held, &filter, cursor, max)).await
    }

    /// How full the queue is.
    pub async fn stats(&self) -> Result<Stats, QueueError> {
        let file = self.file.clone();
        let mut stats = self.read(stats).await?;
        let wal = format!("{}-wal", file.display());
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        stats.bytes = size(&file) + size(wal.as_ref());
        stats.rates = self.meter.rates();
        Ok(stats)
    }

    /// A dead letter is tried again from the beginning.
    pub async fn retry(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| match writer.find(uuid)? {
                None => Err(Stop::Refused(QueueError::Unknown("message"))),
                Some((id, lane, state)) => match writer.try_again(id, lane, state, now)? {
                    true => Ok(()),
                    false => Err(Stop::Refused(QueueError::State(not_dead(state)))),
                },
            })
            .await?;
        self.wake(true);
        Ok(())
    }

    /// Takes a waiting message back. One that is under way cannot be.
    pub async fn cancel(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| {
                let Some((id, lane, _)) = writer.find(uuid)? else {
                    return Err(Stop::Refused(QueueError::Unknown("message")));
                };
                if !waiting::take_one(&writer.db, lane, id)? {
                    let text = "it does not wait: it is under way, or settled already".to_owned();
                    return Err(Stop::Refused(QueueError::State(text)));
                }
                Ok(writer.done(id, lane, (State::Cancelled, b""), now)?)
            })
            .await
    }

    /// Gives a dead letter up; what another attempt would have needed is erased.
    pub async fn discard(&self, uuid: Uuid) -> Result<(), QueueError> {
        self.writer
            .write(move |writer| match writer.find(uuid)? {
                None => Err(Stop::Refused(QueueError::Unknown("message"))),
                Some((id, lane, state)) if state.is_dead() => Ok(writer.give_up(id, lane, state)?),
                Some((.., state)) => Err(Stop::Refused(QueueError::State(not_dead(state)))),
            })
            .await
    }

    /// Retries the dead letters of a selection that can be retried, the latest first; how many that were.
    pub async fn retry_all(&self, selection: Selection, now: Timestamp) -> Result<u64, QueueError> {
        let tried =
            self.each_dead(selection, move |writer, id, lane, state| writer.try_again(id, lane, state, now)).await?;
        self.wake(true);
        Ok(tried)
    }

    /// Discards the dead letters of a selection, the latest first; how many that were.
    pub async fn discard_all(&self, selection: Selection) -> Result<u64, QueueError> {
        self.each_dead(selection, |writer, id, lane, state| writer.give_up(id, lane, state).map(|()| true)).await
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
            // One that cannot be changed counts for nothing, so a page may yield less than it holds, never more.
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
                    for uuid in uuids {
                        // It may have changed since it was looked at.
                        if let Some((id, lane, state)) = writer.find(uuid)?.filter(|(.., state)| state.is_dead()) {
                            n += u64::from(change(writer, id, lane, state)?);
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
    format!("it is {}, and only a message that failed or expired can be tried again or discarded", state.as_str())
}

impl Writer {
    /// Whether it could be: without its body there is nothing to try.
    fn try_again(&mut self, id: i64, lane: i64, state: State, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "UPDATE messages SET state = 0, settled = NULL, report = NULL, progress = NULL, retried = ?2
            WHERE id = ?1 AND state IN (4, 5) AND body IS NOT NULL";
        if self.db.prepare_cached(sql)?.execute([id, ms(now)])? == 0 {
            return Ok(false);
        }
        self.reopened(lane, state);
        self.put(lane, ms(now), id)?;
        Ok(true)
    }

    fn give_up(&mut self, id: i64, lane: i64, state: State) -> rusqlite::Result<()> {
        let sql = "UPDATE messages SET state = ?1, body = NULL WHERE id = ?2";
        self.db.prepare_cached(sql)?.execute([State::Discarded as i64, id])?;
        self.tally(lane, state, -1);
        self.tally(lane, State::Discarded, 1);
        Ok(())
    }
}

fn stored(row: &Row) -> rusqlite::Result<(Stored, i64)> {
    let stored = Stored {
        id: row.get(0)?,
        uuid: uuid(&row.get::<_, Vec<u8>>(1)?),
        state: State::of(row.get(2)?),
        is_under_way: false,
        due: None,
        accepted: moment(row.get(3)?),
        settled: row.get::<_, Option<i64>>(4)?.map(moment),
        name: row.get(5)?,
        user: row.get(6)?,
        email: row.get(7)?,
        body: row.get(8)?,
        progress: row.get(9)?,
        report: row.get(10)?,
        batch: None,
    };
    Ok((stored, row.get(11)?))
}

/// With what stands in other tables.
fn whole(db: &Connection, stored: Stored, lane: i64) -> rusqlite::Result<Stored> {
    let is_queued = stored.state == State::Queued;
    let due = match is_queued {
        true => waiting::due(db, lane, stored.id)?,
        false => None,
    };
    let batch = match lane > ORDINARY {
        true => db
            .prepare_cached("SELECT uuid FROM batches WHERE lane = ?1")?
            .query_row([lane], |row| row.get::<_, Vec<u8>>(0))
            .optional()?,
        false => None,
    };
    let batch = batch.map(|bytes| uuid(&bytes));
    Ok(Stored { is_under_way: is_queued && due.is_none(), due: due.map(moment), batch, ..stored })
}

fn page(db: &Connection, recent: &Shared, filter: &Filter, cursor: Option<i64>, max: usize) -> rusqlite::Result<Page> {
    let people = hashes(filter.user.as_deref(), filter.email.as_deref());
    let mut wheres = vec!["id < ?".to_owned()];
    let mut values: Vec<Value> = vec![cursor.unwrap_or(i64::MAX).into()];
    for hash in people.iter().flatten() {
        wheres.push(format!("id IN {RECIPIENTS}"));
        values.extend([(*hash).into(), recent.ids(*hash).into()]);
    }
    // With an index to go by, every row that is looked at is one of those wanted, or nearly so.
    let has_index = people.iter().any(Option::is_some) || filter.is_dead || filter.state.is_some_and(State::is_dead);
    if has_index && (filter.is_dead || filter.state.is_some_and(State::is_dead)) {
        wheres.push("state IN (4, 5, 6)".to_owned());
    }
    let looked_at = if has_index { max as i64 * 4 + 1 } else { SCAN_MAX };
    values.push(looked_at.into());
    let columns = COLUMNS.replace("body, progress", "NULL, NULL");
    let sql = format!("SELECT {columns} FROM messages WHERE {} ORDER BY id DESC LIMIT ?", wheres.join(" AND "));
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query(rusqlite::params_from_iter(values))?;
    let (mut messages, mut seen, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let (stored, lane) = stored(row)?;
        (seen, last) = (seen + 1, Some(stored.id));
        if filter.holds_for(&stored) {
            messages.push(whole(db, stored, lane)?);
        }
        if messages.len() == max {
            break;
        }
    }
    let is_end = messages.len() < max && seen < looked_at;
    Ok(Page { messages, next: last.filter(|_| !is_end) })
}

impl Filter {
    fn holds_for(&self, stored: &Stored) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                is.as_ref().is_some_and(|is| is.trim().to_lowercase() == wanted.trim().to_lowercase())
            })
        };
        self.state.is_none_or(|state| state == stored.state)
            && (!self.is_dead || stored.state.is_dead())
            && self.name.as_ref().is_none_or(|name| *name == stored.name)
            && same(&self.user, &stored.user)
            && same(&self.email, &stored.email)
            && self.since.is_none_or(|since| stored.accepted >= since)
            && self.until.is_none_or(|until| stored.accepted < until)
    }
}

fn stats(db: &Connection) -> rusqlite::Result<Stats> {
    let number = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let lane = |condition: &str| number(&format!("SELECT ifnull(sum(n), 0) FROM queue WHERE lane {condition}"));
    let oldest = "SELECT accepted FROM messages WHERE id =
        (SELECT min(id) FROM (SELECT min(id) AS id FROM queue UNION ALL SELECT min(id) FROM claims))";
    let oldest: Option<i64> = db.prepare_cached(oldest)?.query_row([], |row| row.get(0)).optional()?;
    Ok(Stats {
        waiting_transactional: lane(&format!("= {TRANSACTIONAL}"))?,
        waiting_ordinary: lane(&format!("= {ORDINARY}"))?,
        waiting_batches: lane(&format!("> {ORDINARY}"))?,
        under_way: number("SELECT count(*) FROM claims")?,
        dead: number("SELECT count(*) FROM messages WHERE state IN (4, 5, 6)")?,
        oldest: oldest.map(moment),
        calls: number("SELECT count(*) FROM calls")?,
        ..Stats::default()
    })
}
