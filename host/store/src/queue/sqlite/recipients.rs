//! The index of recipients, by hashes of the normal forms of user ids and addresses ([`crate::person`]). Up to version 4 of the tables
//! the normal form was simpler (trimmed, in lower case), so messages from then are indexed again in steps after the start. Until that
//! is complete, queries use both forms, and erasing a person completes it first.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::rows::{self, RowReader};
use super::writer::put_meta;
use super::{New, QueueError, Sqlite};
use crate::person::{normal_address, normal_user};

/// The keys in `meta` of the id of the last message that was indexed again, and of the last one that has to be. Without them, all are.
const REHASHED: &str = "rehashed";
const REHASH_THROUGH: &str = "rehash-through";
/// Messages that one step reads.
const STEP: usize = if cfg!(test) { 3 } else { 2_000 };

/// The keys of a user id and of an address.
pub(super) type Hashes = [Option<i64>; 2];

pub(super) fn with_hashes(new: Vec<New>) -> Vec<(New, Hashes)> {
    let hashed = |new: New| {
        let hashes = hashes(new.user.as_deref(), new.email.as_deref());
        (new, hashes)
    };
    new.into_iter().map(hashed).collect()
}

pub(super) fn hashes(user: Option<&str>, email: Option<&str>) -> Hashes {
    [user.map(|user| hash("user:", &normal_user(user))), email.map(|email| hash("email:", &normal_address(email)))]
}

/// The keys by the rule up to version 4.
pub(super) fn legacy_hashes(user: Option<&str>, email: Option<&str>) -> Hashes {
    let before = |kind, text: &str| hash(kind, &text.trim().to_lowercase());
    [user.map(|user| before("user:", user)), email.map(|email| before("email:", email))]
}

fn hash(kind: &str, form: &str) -> i64 {
    let hash = Sha256::new().chain_update(kind).chain_update(form).finalize();
    i64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

/// An index entry by the earlier rule, and its replacement.
struct Moved {
    id: i64,
    from: i64,
    to: i64,
}

/// One step: the entries to replace, the last message that was read, and whether it is the last step.
struct Step {
    moved: Vec<Moved>,
    through: i64,
    is_last: bool,
}

impl Sqlite {
    /// Indexes again some messages that were indexed by the earlier rule. Returns whether there are more.
    pub(super) async fn rehash(&self) -> Result<bool, QueueError> {
        if !self.is_rehashing.load(Ordering::Acquire) {
            return Ok(false);
        }
        let Some(step) = self.read(next_step).await? else {
            self.is_rehashing.store(false, Ordering::Release);
            return Ok(false);
        };
        let is_last = step.is_last;
        let write = move |writer: &mut super::writer::Writer| {
            for Moved { id, from, to } in &step.moved {
                writer.db.prepare_cached("DELETE FROM recipients WHERE hash = ?1 AND id = ?2")?.execute([from, id])?;
                // It may have been erased since it was read.
                let sql = "INSERT OR IGNORE INTO recipients (hash, id) SELECT ?1, id FROM messages WHERE id = ?2";
                writer.db.prepare_cached(sql)?.execute([to, id])?;
            }
            if step.is_last {
                writer.db.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [REHASHED, REHASH_THROUGH])?;
            } else {
                put_meta(&writer.db, REHASHED, &step.through.to_string())?;
            }
            Ok(())
        };
        self.writer.write(write).await?;
        if is_last {
            self.is_rehashing.store(false, Ordering::Release);
        }
        Ok(!is_last)
    }
}

/// Whether there are messages that were indexed by the earlier rule.
pub(super) fn is_rehashing(db: &Connection) -> bool {
    matches!(number(db, REHASH_THROUGH), Ok(Some(_)))
}

fn number(db: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1";
    db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}

fn next_step(db: &Connection) -> rusqlite::Result<Option<Step>> {
    let Some(last) = number(db, REHASH_THROUGH)? else { return Ok(None) };
    let from = number(db, REHASHED)?.unwrap_or(0);
    let sql = "SELECT id, user, email FROM messages WHERE id = ?1";
    let read = |row: &rusqlite::Row| {
        let mut row = RowReader::new(row);
        let (id, user, email) = (row.number_or(0, 0), row.text(1), row.text(2));
        let (is, was) = (hashes(user.as_deref(), email.as_deref()), legacy_hashes(user.as_deref(), email.as_deref()));
        let moved = was.into_iter().zip(is).filter_map(|(from, to)| Some((from?, to?))).filter(|(from, to)| from != to);
        Ok((id, moved.map(|(from, to)| Moved { id, from, to }).collect::<Vec<_>>()))
    };
    let found = rows::each(db, ("messages", sql), (from, rows::Order::Up), STEP, read)?;
    let through = found.last().map_or(last, |(id, _)| *id);
    let is_last = found.len() < STEP || through >= last;
    let moved = found.into_iter().filter(|(id, _)| *id <= last).flat_map(|(_, moved)| moved).collect();
    Ok(Some(Step { moved, through, is_last }))
}

/// The hashes to search for; while messages are indexed again, those by the earlier rule too.
pub(super) fn hashes_to_search(user: Option<&str>, email: Option<&str>, is_rehashing: bool) -> [Vec<i64>; 2] {
    let (is, was) = (hashes(user, email), legacy_hashes(user, email));
    [0, 1].map(|i| {
        let mut all: Vec<i64> = is[i].into_iter().chain(was[i].filter(|_| is_rehashing)).collect();
        all.dedup();
        all
    })
}

/// All hashes that a message may have in the index.
pub(super) fn all_hashes(user: Option<&str>, email: Option<&str>) -> Vec<i64> {
    let [mut users, emails] = hashes_to_search(user, email, true);
    users.extend(emails);
    users
}
