//! The messages that were accepted last, which are in no index yet. Uuids and recipients fall all over their indexes: a message that
//! was put there at once would cost three pages. They are held here as well as in their rows, and go into the indexes in
//! order, a few with each transaction, once there are many of them. A start finds what was held by its numbers, which are above
//! `meta`'s [`INDEXED`], and puts all of it there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::writer::remember;
use super::{hashes, uuid};
use crate::sqlite;

/// What `meta` calls the number of the last message that is in the indexes, and with it all before it.
const INDEXED: &str = "indexed";
/// So many are held before they go into the indexes: the more, the fewer pages each costs there.
const HELD_MAX: usize = if cfg!(test) { 6 } else { 16_384 };
/// Entries that go into the indexes with one transaction, beside [`KEYS`] for each message that it accepts.
const STEP: usize = if cfg!(test) { 2 } else { 512 };
/// Entries of one message: a uuid, a user id, an address.
const KEYS: usize = 3;

/// The numbers of a recipient's messages, in SQL: of a hash, and the list of those that are held.
pub(super) const RECIPIENTS: &str = "(SELECT id FROM recipients WHERE hash = ? UNION SELECT value FROM json_each(?))";

/// What leads to messages.
#[derive(Debug, Default)]
struct Keys {
    uuids: BTreeMap<Uuid, i64>,
    /// (hash, number).
    recipients: BTreeSet<(i64, i64)>,
}

/// What is held, for those who read.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// In no index.
    young: Keys,
    /// On their way into the indexes, up to the message of this number.
    old: Keys,
    old_last: i64,
}

/// Shared by the writer, which alone changes it, and the readers.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<RwLock<Held>>);

/// The writer's side: what the transaction under way adds and takes out, and how far the old ones are.
#[derive(Debug)]
pub(super) struct Recent {
    shared: Shared,
    added: Keys,
    erased: HashMap<i64, (Uuid, Vec<i64>)>,
    done: Done,
    /// `done` once the transaction is on the disk.
    next: Done,
}

/// How far the old ones are in the indexes.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    uuid: Option<Uuid>,
    recipient: Option<(i64, i64)>,
    /// All of them are there.
    is_all: bool,
}

impl Keys {
    fn add(&mut self, uuid: Uuid, id: i64, hashes: impl Iterator<Item = i64>) {
        self.uuids.insert(uuid, id);
        self.recipients.extend(hashes.map(|hash| (hash, id)));
    }

    fn remove(&mut self, uuid: Uuid, id: i64, hashes: &[i64]) {
        // Another message may have its uuid by now.
        if self.uuids.get(&uuid) == Some(&id) {
            self.uuids.remove(&uuid);
        }
        for hash in hashes {
            self.recipients.remove(&(*hash, id));
        }
    }

    fn is_empty(&self) -> bool {
        self.uuids.is_empty() && self.recipients.is_empty()
    }

    /// Puts all of them into the indexes; `last` is the number of the last message.
    fn index_all(&self, db: &Connection, last: i64) -> rusqlite::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let transaction = db.unchecked_transaction()?;
        self.uuids.iter().try_for_each(|(uuid, id)| index_uuid(&transaction, *uuid, *id))?;
        self.recipients.iter().try_for_each(|(hash, id)| index_recipient(&transaction, *hash, *id))?;
        set_indexed(&transaction, last)?;
        transaction.commit()
    }

    fn ids(&self, hash: i64) -> impl Iterator<Item = i64> {
        self.recipients.range((hash, i64::MIN)..=(hash, i64::MAX)).map(|(_, id)| *id)
    }
}

impl Held {
    fn ids(&self, hash: i64) -> impl Iterator<Item = i64> {
        self.old.ids(hash).chain(self.young.ids(hash))
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a message that is held. To be asked before the tables: what leaves here is in the indexes already.
    pub fn id(&self, uuid: Uuid) -> Option<i64> {
        let held = self.read();
        held.young.uuids.get(&uuid).or(held.old.uuids.get(&uuid)).copied()
    }

    /// The numbers of a recipient's messages that are held, as a list in JSON. To be asked before the tables.
    pub fn ids(&self, hash: i64) -> String {
        let held = self.read();
        list(held.ids(hash))
    }
}

fn index_uuid(db: &Connection, uuid: Uuid, id: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO uuids (uuid, id) VALUES (?1, ?2)";
    db.prepare_cached(sql)?.execute(params![uuid.as_bytes(), id]).map(drop)
}

fn index_recipient(db: &Connection, hash: i64, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO recipients (hash, id) VALUES (?1, ?2)")?.execute([hash, id]).map(drop)
}

fn set_indexed(db: &Connection, last: i64) -> rusqlite::Result<()> {
    remember(db, INDEXED, &last.to_string())
}

/// The number of the message of that uuid, as the index has it.
pub(super) fn indexed(db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
    let mut found = db.prepare_cached("SELECT id FROM uuids WHERE uuid = ?1")?;
    found.query_row([uuid.as_bytes()], |row| row.get(0)).optional()
}

fn list(ids: impl Iterator<Item = i64>) -> String {
    serde_json::to_string(&ids.collect::<Vec<_>>()).expect("numbers are written")
}

impl Recent {
    /// Puts what the last process held into the indexes; also the number of the last message that is there.
    pub fn new(db: &Connection) -> rusqlite::Result<(Self, i64)> {
        let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
        let indexed: i64 = db.query_row(sql, [INDEXED], |row| row.get(0)).optional()?.unwrap_or(0);
        let mut young = Keys::default();
        let mut rows = db.prepare("SELECT id, uuid, user, email FROM messages WHERE id > ?1")?;
        let mut rows = rows.query([indexed])?;
        while let Some(row) = rows.next()? {
            let (user, email): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
            young.add(uuid(&row.get::<_, Vec<u8>>(1)?), row.get(0)?, hashes(user.as_deref(), email.as_deref()));
        }
        let last = young.uuids.values().max().copied().unwrap_or(indexed);
        if let Err(error) = young.index_all(db, last) {
            tracing::warn!("Messages are not in their indexes yet, and are held: {}", sqlite::words(&error));
        } else {
            young = Keys::default();
        }
        let shared = Shared(Arc::new(RwLock::new(Held { young, ..Held::default() })));
        let (added, erased) = (Keys::default(), HashMap::new());
        Ok((Recent { shared, added, erased, done: Done::default(), next: Done::default() }, last))
    }

    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// A message was accepted.
    pub fn add(&mut self, uuid: Uuid, id: i64, hashes: impl Iterator<Item = i64>) {
        self.added.add(uuid, id, hashes);
    }

    /// The number of the message of that uuid; whether it is there its row tells.
    pub fn find(&self, db: &Connection, uuid: Uuid) -> rusqlite::Result<Option<i64>> {
        let held = self.added.uuids.get(&uuid).copied().or_else(|| self.shared.id(uuid));
        match held.filter(|id| !self.erased.contains_key(id)) {
            Some(id) => Ok(Some(id)),
            None => indexed(db, uuid),
        }
    }

    /// The numbers of a recipient's messages that are held, as a list in JSON; some may be erased.
    pub fn ids(&self, hash: i64) -> String {
        let held = self.shared.read();
        list(held.ids(hash).chain(self.added.ids(hash)))
    }

    /// A message was erased.
    pub fn erase(&mut self, db: &Connection, uuid: Uuid, id: i64, hashes: Vec<i64>) -> rusqlite::Result<()> {
        db.prepare_cached("DELETE FROM uuids WHERE uuid = ?1 AND id = ?2")?.execute(params![uuid.as_bytes(), id])?;
        for hash in &hashes {
            db.prepare_cached("DELETE FROM recipients WHERE hash = ?1 AND id = ?2")?.execute([*hash, id])?;
        }
        self.added.remove(uuid, id, &hashes);
        self.erased.insert(id, (uuid, hashes));
        Ok(())
    }

    /// Puts the next few of the old ones into the indexes. To be done last in a transaction.
    pub fn index(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let held = self.shared.read();
        let mut left = STEP + KEYS * self.added.uuids.len();
        if held.old.is_empty() {
            return Ok(());
        }
        let from = self.done.uuid.map_or(Unbounded, Excluded);
        for (uuid, id) in held.old.uuids.range((from, Unbounded)).take(left) {
            if !self.erased.contains_key(id) {
                index_uuid(db, *uuid, *id)?;
            }
            (self.next.uuid, left) = (Some(*uuid), left - 1);
        }
        let from = self.done.recipient.map_or(Unbounded, Excluded);
        for (hash, id) in held.old.recipients.range((from, Unbounded)).take(left) {
            if !self.erased.contains_key(id) {
                index_recipient(db, *hash, *id)?;
            }
            (self.next.recipient, left) = (Some((*hash, *id)), left - 1);
        }
        if left > 0 {
            set_indexed(db, held.old_last)?;
            self.next.is_all = true;
        }
        Ok(())
    }

    /// The transaction is on the disk; `last_id` is the number of the last message that was accepted.
    pub fn keep(&mut self, last_id: i64) {
        self.done = self.next;
        if self.added.uuids.is_empty() && self.erased.is_empty() && !self.done.is_all {
            return;
        }
        let mut held = self.shared.write();
        for (id, (uuid, hashes)) in self.erased.drain() {
            held.young.remove(uuid, id, &hashes);
            held.old.remove(uuid, id, &hashes);
        }
        let added = std::mem::take(&mut self.added);
        held.young.uuids.extend(added.uuids);
        held.young.recipients.extend(added.recipients);
        if self.done.is_all || held.old.is_empty() {
            held.old = Keys::default();
            (self.done, self.next) = (Done::default(), Done::default());
            if held.young.uuids.len() >= HELD_MAX {
                (held.old, held.old_last) = (std::mem::take(&mut held.young), last_id);
            }
        }
    }

    /// The transaction is void.
    pub fn undo(&mut self) {
        self.added = Keys::default();
        self.erased.clear();
        self.next = self.done;
    }
}
