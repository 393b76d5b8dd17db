//! Deferred index maintenance: new uuids and recipients are kept in memory and inserted into their indexes in sorted batches, because
//! random inserts would dirty about three B-tree pages per message. A start finds what was in memory by the messages' numbers, which
//! are above [`INDEXED`] in `meta`, and inserts all of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::recipients::{Hashes, hashes};
use super::rows::{self, Reading};
use super::writer::put_meta;
use crate::sqlite;

/// The key in `meta` of the id of the last message in the indexes; all before it are there too.
const INDEXED: &str = "indexed";
/// Messages whose keys are kept in memory before they are inserted: the more, the fewer pages each costs.
const ACTIVE_MAX: usize = if cfg!(test) { 6 } else { 65_536 };
/// Entries that one transaction inserts, besides [`KEYS`] for each message that it accepts.
const STEP: usize = if cfg!(test) { 2 } else { 512 };
/// Entries of one message: a uuid, a user id, an address.
const KEYS: usize = 3;

/// SQL for the ids of a recipient's messages. Its parameters are a list of hashes, and the ids that are in memory.
pub(super) const RECIPIENTS: &str = "(SELECT id FROM recipients WHERE hash IN (SELECT value FROM json_each(?))
    UNION SELECT value FROM json_each(?))";

/// SQL for the id of a uuid's message.
const NUMBER: &str = "SELECT id FROM uuids WHERE uuid = ?1";

/// The keys that messages are found by.
#[derive(Debug, Default)]
struct Keys {
    uuids: HashMap<Uuid, i64>,
    /// (hash, id). A message that was erased may still have entries here.
    recipients: Vec<(i64, i64)>,
}

/// The keys in memory.
#[derive(Debug, Default)]
pub(super) struct Memtables {
    /// Keys that are not in the indexes.
    active: Keys,
    /// Keys that are being inserted into the indexes.
    flushing: Keys,
}

/// Shared by the readers and the writer, which alone changes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<RwLock<Memtables>>);

/// The writer's side: what the current transaction adds and erases, and how far the insertion is.
#[derive(Debug)]
pub(super) struct DeferredIndex {
    shared: Shared,
    added: Keys,
    erased: HashMap<i64, Uuid>,
    /// The keys that are being inserted, in the order of the indexes.
    batch: SortedBatch,
    /// Entries of it that were inserted.
    done: usize,
    /// `done` once the transaction is on the disk.
    next: usize,
    /// Messages up to this number are in the indexes.
    indexed: i64,
    /// Later ones that were erased.
    gone: HashSet<i64>,
    /// The indexes are damaged: nothing more is inserted, and all keys stay in memory.
    is_disabled: bool,
}

/// Entries of the two indexes, one after the other.
#[derive(Debug, Default)]
struct SortedBatch {
    uuids: Vec<(Uuid, i64)>,
    recipients: Vec<(i64, i64)>,
    /// The id of the last message among them.
    last: i64,
    is_sorted: bool,
}

impl Keys {
    fn add(&mut self, uuid: Uuid, id: i64, hashes: Hashes) {
        self.uuids.insert(uuid, id);
        self.recipients.extend(hashes.into_iter().flatten().map(|hash| (hash, id)));
    }

    fn remove(&mut self, uuid: Uuid, id: i64) {
        // Another message may have its uuid by now.
        if self.uuids.get(&uuid) == Some(&id) {
            self.uuids.remove(&uuid);
        }
    }

    fn ids(&self, hashes: &[i64]) -> impl Iterator<Item = i64> {
        self.recipients.iter().filter(|(known, _)| hashes.contains(known)).map(|(_, id)| *id)
    }
}

impl Memtables {
    fn ids(&self, hashes: &[i64]) -> impl Iterator<Item = i64> {
        self.flushing.ids(hashes).chain(self.active.ids(hashes))
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Memtables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memtables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a message whose keys are in memory. Query this before the tables: keys that leave the memory are in the indexes
    /// already.
    pub fn id(&self, uuid: Uuid) -> Option<i64> {
        let held = self.read();
        held.active.uuids.get(&uuid).or(held.flushing.uuids.get(&uuid)).copied()
    }

    /// The ids of a recipient's messages that are in memory, as a JSON list. Query this before the tables.
    pub fn ids(&self, hashes: &[i64]) -> String {
        let held = self.read();
        list(held.ids(hashes))
    }
}

impl SortedBatch {
    fn of(keys: &Keys, last: i64) -> Self {
        let uuids = keys.uuids.iter().map(|(uuid, id)| (*uuid, *id)).collect();
        SortedBatch { uuids, recipients: keys.recipients.clone(), last, is_sorted: false }
    }

    fn len(&self) -> usize {
        self.uuids.len() + self.recipients.len()
    }

    /// Puts the entries from one to another into the indexes, as far as their messages are there.
    fn index(
        &mut self,
        db: &Connection,
        (from, to): (usize, usize),
        is_there: impl Fn(&i64) -> bool,
    ) -> rusqlite::Result<()> {
        if !std::mem::replace(&mut self.is_sorted, true) {
            self.uuids.sort_unstable();
            self.recipients.sort_unstable();
        }
        let n = self.uuids.len();
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO uuids (uuid, id) VALUES (?1, ?2)")?;
        for (uuid, id) in self.uuids[from.min(n)..to.min(n)].iter().filter(|(_, id)| is_there(id)) {
            insert.execute(params![uuid.as_bytes(), id])?;
        }
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO recipients (hash, id) VALUES (?1, ?2)")?;
        let recipients = &self.recipients[from.saturating_sub(n)..to.saturating_sub(n)];
        for (hash, id) in recipients.iter().filter(|(_, id)| is_there(id)) {
            insert.execute([*hash, *id])?;
        }
        if to == self.len() { put_meta(db, INDEXED, &self.last.to_string()) } else { Ok(()) }
    }
}

/// The id of the message with that uuid, by the index alone.
pub(super) fn indexed(db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(NUMBER)?.query_row([uuid.as_bytes()], |row| row.get(0)).optional()
}

/// As [`indexed`], for many uuids, searched in the order of the index so that neighbours share pages.
pub(super) fn all_indexed(db: &Connection, uuids: &[Uuid]) -> rusqlite::Result<HashMap<Uuid, i64>> {
    let mut sorted = uuids.to_vec();
    sorted.sort_unstable();
    let mut found = db.prepare_cached(NUMBER)?;
    let mut all = HashMap::new();
    for uuid in sorted {
        let id = found.query_row([uuid.as_bytes()], |row| row.get(0)).optional()?;
        all.extend(id.map(|id| (uuid, id)));
    }
    Ok(all)
}

pub(super) fn list(ids: impl Iterator<Item = i64>) -> String {
    serde_json::to_string(&ids.collect::<Vec<_>>()).expect("numbers are written")
}

/// The keys that the last process had in memory, and the id of the last message that it had indexed.
fn left(db: &Connection) -> rusqlite::Result<(Keys, i64)> {
    let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
    let indexed: i64 = db.query_row(sql, [INDEXED], |row| row.get(0)).optional()?.unwrap_or(0);
    let read = |row: &rusqlite::Row| {
        // A damaged value is as good a key as any: the damage is logged when the message is claimed.
        let mut row = Reading::of(row);
        let (id, uuid, user, email) = (row.number_or(0, 0), row.uuid(1), row.text(2), row.text(3));
        Ok((uuid, id, hashes(user.as_deref(), email.as_deref())))
    };
    let found = db
        .prepare("SELECT id, uuid, user, email FROM messages WHERE id > ?1 AND state >= 0")?
        .query_map([indexed], read)?
        .collect::<rusqlite::Result<Vec<_>>>();
    let found = match found {
        Err(error) if !sqlite::is_general(&error) => {
            let sql = "SELECT id, uuid, user, email FROM messages WHERE id = ?1 AND state >= 0";
            rows::each(db, ("messages", sql), (indexed, rows::Order::Up), usize::MAX, read)?
        }
        found => found?,
    };
    let mut keys = Keys::default();
    for (uuid, id, hashes) in found {
        keys.add(uuid, id, hashes);
    }
    Ok((keys, indexed))
}

/// Inserts all keys into the indexes.
fn index_all(db: &Connection, keys: &Keys, last: i64) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    let mut batch = SortedBatch::of(keys, last);
    let all = (0, batch.len());
    batch.index(&transaction, all, |_| true)?;
    transaction.commit()
}

impl DeferredIndex {
    /// Indexes what the last process had in memory. Also returns the id of the last message there, and the damage of the indexes.
    pub fn new(db: &Connection) -> rusqlite::Result<(Self, i64, Option<rusqlite::Error>)> {
        let (mut active, mut indexed) = left(db)?;
        let mut damage = None;
        if let Some(last) = active.uuids.values().max().copied() {
            match index_all(db, &active, last) {
                Ok(()) => (active, indexed) = (Keys::default(), last),
                Err(error) if sqlite::is_general(&error) => {
                    tracing::warn!(
                        "Some messages cannot be indexed now and stay in the in-memory index: {}",
                        sqlite::describe(&error)
                    )
                }
                Err(error) => damage = Some(error),
            }
        }
        let last = active.uuids.values().max().copied().unwrap_or(indexed);
        let recent = DeferredIndex {
            shared: Shared(Arc::new(RwLock::new(Memtables { active, ..Memtables::default() }))),
            added: Keys::default(),
            erased: HashMap::new(),
            batch: SortedBatch::default(),
            done: 0,
            next: 0,
            indexed,
            gone: HashSet::new(),
            is_disabled: damage.is_some(),
        };
        Ok((recent, last, damage))
    }

    /// The indexes are damaged: all keys stay in memory, and the next start tries again.
    pub fn disable(&mut self) {
        self.is_disabled = true;
    }

    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// A message was accepted.
    pub fn add(&mut self, uuid: Uuid, id: i64, hashes: Hashes) {
        self.added.add(uuid, id, hashes);
    }

    /// The id of the message with that uuid. Its row may be gone.
    pub fn find(&self, db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
        self.held(uuid).map_or_else(|| indexed(db, uuid), |id| Ok(Some(id)))
    }

    /// As [`DeferredIndex::find`], for messages that are not in the indexes.
    pub fn held(&self, uuid: Uuid) -> Option<i64> {
        let held = self.added.uuids.get(&uuid).copied().or_else(|| self.shared.id(uuid));
        held.filter(|id| !self.erased.contains_key(id))
    }

    /// The ids of a recipient's messages that are in memory, as a JSON list; some may be erased.
    pub fn ids(&self, hashes: &[i64]) -> String {
        let held = self.shared.read();
        list(held.ids(hashes).chain(self.added.ids(hashes)))
    }

    /// A message was erased.
    pub fn erase(&mut self, uuid: Uuid, id: i64) {
        self.added.remove(uuid, id);
        self.erased.insert(id, uuid);
    }

    /// Inserts the next few entries. Must be the last step of a transaction.
    pub fn index(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let step = STEP + KEYS * self.added.uuids.len();
        let next = self.batch.len().min(self.done + step);
        if next > self.done && !self.is_disabled {
            let is_there = |id: &i64| !self.gone.contains(id) && !self.erased.contains_key(id);
            self.batch.index(db, (self.done, next), is_there)?;
            self.next = next;
        }
        Ok(())
    }

    /// The transaction was committed; `last_id` is the number of the last message that was accepted.
    pub fn keep(&mut self, last_id: i64) {
        self.done = self.next;
        let is_all = self.done == self.batch.len();
        if self.added.uuids.is_empty() && self.erased.is_empty() && !(is_all && self.done > 0) {
            return;
        }
        let mut held = self.shared.write();
        for (id, uuid) in self.erased.drain().filter(|(id, _)| *id > self.indexed) {
            held.active.remove(uuid, id);
            held.flushing.remove(uuid, id);
            self.gone.insert(id);
        }
        let added = std::mem::take(&mut self.added);
        held.active.uuids.extend(added.uuids);
        held.active.recipients.extend(added.recipients);
        if !is_all {
            return;
        }
        if self.done > 0 {
            self.indexed = self.batch.last;
            self.gone.retain(|id| *id > self.indexed);
            held.flushing = Keys::default();
        }
        (self.batch, self.done, self.next) = (SortedBatch::default(), 0, 0);
        if held.active.uuids.len() >= ACTIVE_MAX && !self.is_disabled {
            held.flushing = std::mem::take(&mut held.active);
            self.batch = SortedBatch::of(&held.flushing, last_id);
        }
    }

    /// The transaction was rolled back.
    pub fn undo(&mut self) {
        self.added = Keys::default();
        self.erased.clear();
        self.next = self.done;
    }
}
