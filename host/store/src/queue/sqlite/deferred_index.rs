//! Deferred index maintenance: new uuids and recipients are kept in memory and inserted into their indexes in sorted batches, because
//! random inserts would dirty about three B-tree pages per message. At the start, messages with ids above [`INDEXED`] in `meta` are
//! inserted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::recipients::{Hashes, hashes};
use super::rows::{self, RowReader};
use super::writer::put_meta;
use crate::sqlite;

/// The key in `meta` of the id of the last indexed message; all earlier ones are indexed too.
const INDEXED: &str = "indexed";
/// Messages whose keys are kept in memory before they are inserted. The more, the fewer pages each insert costs.
const ACTIVE_MAX: usize = if cfg!(test) { 6 } else { 65_536 };
/// Entries that one transaction inserts, besides [`KEYS`] for each message that it accepts.
const STEP: usize = if cfg!(test) { 2 } else { 512 };
/// Entries per message: uuid, user id and address.
const KEYS: usize = 3;

/// SQL for the ids of a recipient's messages. Its parameters are a list of hashes, and the ids in memory.
pub(super) const RECIPIENTS: &str = "(SELECT id FROM recipients WHERE hash IN (SELECT value FROM json_each(?))
    UNION SELECT value FROM json_each(?))";

/// SQL for the id of a message by its uuid.
const ID_OF_UUID: &str = "SELECT id FROM uuids WHERE uuid = ?1";

/// The keys of messages.
#[derive(Debug, Default)]
struct Keys {
    uuids: HashMap<Uuid, i64>,
    /// (hash, id). There may be entries of erased messages.
    recipients: Vec<(i64, i64)>,
}

/// The keys in memory.
#[derive(Debug, Default)]
pub(super) struct Memtables {
    /// Keys that are not indexed.
    active: Keys,
    /// Keys that are being inserted.
    flushing: Keys,
}

/// Shared by readers and writer. Only the writer changes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<RwLock<Memtables>>);

/// The writer's part: the changes of the current transaction, and the progress of the insertion.
#[derive(Debug)]
pub(super) struct DeferredIndex {
    shared: Shared,
    added: Keys,
    erased: HashMap<i64, Uuid>,
    /// The keys that are being inserted, sorted.
    batch: SortedBatch,
    /// The number of its entries that were inserted.
    done: usize,
    /// `done` after the current transaction is committed.
    next: usize,
    /// Messages up to this id are indexed.
    indexed: i64,
    /// Later messages that were erased.
    gone: HashSet<i64>,
    /// The indexes are damaged: nothing is inserted, and all keys stay in memory.
    is_disabled: bool,
}

/// Entries of both indexes, those of uuids first.
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
        // The uuid may belong to another message meanwhile.
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

    /// The id of a message whose keys are in memory. Must be queried before the tables: keys are removed from memory after they are
    /// indexed.
    pub(super) fn id(&self, uuid: Uuid) -> Option<i64> {
        let memtables = self.read();
        memtables.active.uuids.get(&uuid).or(memtables.flushing.uuids.get(&uuid)).copied()
    }

    /// The ids of a recipient's messages in memory, as a JSON list. Must be queried before the tables.
    pub(super) fn ids(&self, hashes: &[i64]) -> String {
        let memtables = self.read();
        list(memtables.ids(hashes))
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

    /// Inserts a range of the entries, except those of erased messages.
    fn index(
        &mut self,
        db: &Connection,
        (from, to): (usize, usize),
        exists: impl Fn(&i64) -> bool,
    ) -> rusqlite::Result<()> {
        if !std::mem::replace(&mut self.is_sorted, true) {
            self.uuids.sort_unstable();
            self.recipients.sort_unstable();
        }
        let n = self.uuids.len();
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO uuids (uuid, id) VALUES (?1, ?2)")?;
        for (uuid, id) in self.uuids[from.min(n)..to.min(n)].iter().filter(|(_, id)| exists(id)) {
            insert.execute(params![uuid.as_bytes(), id])?;
        }
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO recipients (hash, id) VALUES (?1, ?2)")?;
        let recipients = &self.recipients[from.saturating_sub(n)..to.saturating_sub(n)];
        for (hash, id) in recipients.iter().filter(|(_, id)| exists(id)) {
            insert.execute([*hash, *id])?;
        }
        if to == self.len() { put_meta(db, INDEXED, &self.last.to_string()) } else { Ok(()) }
    }
}

/// The id of the message with a uuid, if it is indexed.
pub(super) fn indexed(db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(ID_OF_UUID)?.query_row([uuid.as_bytes()], |row| row.get(0)).optional()
}

/// As [`indexed`], for many uuids. They are looked up in the order of the index, so that neighbours share pages.
pub(super) fn all_indexed(db: &Connection, uuids: &[Uuid]) -> rusqlite::Result<HashMap<Uuid, i64>> {
    let mut sorted = uuids.to_vec();
    sorted.sort_unstable();
    let mut found = db.prepare_cached(ID_OF_UUID)?;
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

/// The keys that the last process had in memory, and the id of the last indexed message.
fn unindexed(db: &Connection) -> rusqlite::Result<(Keys, i64)> {
    let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
    let indexed: i64 = db.query_row(sql, [INDEXED], |row| row.get(0)).optional()?.unwrap_or(0);
    let read = |row: &rusqlite::Row| {
        // Damage does not matter here; it is logged when the message is claimed.
        let mut row = RowReader::new(row);
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
    /// Inserts the keys that the last process had in memory. Also returns the id of the last message, and the error if the indexes are
    /// damaged.
    pub(super) fn new(db: &Connection) -> rusqlite::Result<(Self, i64, Option<rusqlite::Error>)> {
        let (mut active, mut indexed) = unindexed(db)?;
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
        let index = DeferredIndex {
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
        Ok((index, last, damage))
    }

    /// Stops inserting, because the indexes are damaged. The next start tries again.
    pub(super) fn disable(&mut self) {
        self.is_disabled = true;
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// A message was accepted.
    pub(super) fn add(&mut self, uuid: Uuid, id: i64, hashes: Hashes) {
        self.added.add(uuid, id, hashes);
    }

    /// The id of the message with a uuid. Its row may have been deleted.
    pub(super) fn find(&self, db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
        self.in_memory(uuid).map_or_else(|| indexed(db, uuid), |id| Ok(Some(id)))
    }

    /// As [`DeferredIndex::find`], for messages that are not indexed.
    pub(super) fn in_memory(&self, uuid: Uuid) -> Option<i64> {
        let memtables = self.added.uuids.get(&uuid).copied().or_else(|| self.shared.id(uuid));
        memtables.filter(|id| !self.erased.contains_key(id))
    }

    /// The ids of a recipient's messages in memory, as a JSON list. Some may have been erased.
    pub(super) fn ids(&self, hashes: &[i64]) -> String {
        let memtables = self.shared.read();
        list(memtables.ids(hashes).chain(self.added.ids(hashes)))
    }

    /// A message was erased.
    pub(super) fn erase(&mut self, uuid: Uuid, id: i64) {
        self.added.remove(uuid, id);
        self.erased.insert(id, uuid);
    }

    /// Inserts some entries. Must be the last step of a transaction.
    pub(super) fn index(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let step = STEP + KEYS * self.added.uuids.len();
        let next = self.batch.len().min(self.done + step);
        if next > self.done && !self.is_disabled {
            let exists = |id: &i64| !self.gone.contains(id) && !self.erased.contains_key(id);
            self.batch.index(db, (self.done, next), exists)?;
            self.next = next;
        }
        Ok(())
    }

    /// The transaction was committed. `last_id`: the id of the last message that was accepted.
    pub(super) fn commit(&mut self, last_id: i64) {
        self.done = self.next;
        let is_all = self.done == self.batch.len();
        if self.added.uuids.is_empty() && self.erased.is_empty() && !(is_all && self.done > 0) {
            return;
        }
        let mut memtables = self.shared.write();
        for (id, uuid) in self.erased.drain().filter(|(id, _)| *id > self.indexed) {
            memtables.active.remove(uuid, id);
            memtables.flushing.remove(uuid, id);
            self.gone.insert(id);
        }
        let added = std::mem::take(&mut self.added);
        memtables.active.uuids.extend(added.uuids);
        memtables.active.recipients.extend(added.recipients);
        if !is_all {
            return;
        }
        if self.done > 0 {
            self.indexed = self.batch.last;
            self.gone.retain(|id| *id > self.indexed);
            memtables.flushing = Keys::default();
        }
        (self.batch, self.done, self.next) = (SortedBatch::default(), 0, 0);
        if memtables.active.uuids.len() >= ACTIVE_MAX && !self.is_disabled {
            memtables.flushing = std::mem::take(&mut memtables.active);
            self.batch = SortedBatch::of(&memtables.flushing, last_id);
        }
    }

    /// The transaction was rolled back.
    pub(super) fn roll_back(&mut self) {
        self.added = Keys::default();
        self.erased.clear();
        self.next = self.done;
    }
}
