//! Repair of the last page of the tables of messages and events, to which new rows are added. While it is damaged no message can be
//! accepted, or no event stored, so the start copies the page to a file and replaces it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::OpenError;
use super::retention::EMPTIED;
use super::rows;
use crate::files::{self, Access, Readers};
use crate::sqlite::{self, Database, FileLock, beside};

/// The depth of a table's tree, at most.
const DEPTH_MAX: usize = 20;
/// The types of a table's pages, in their first byte (SQLite's file format, section 1.6).
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;
/// Ids that are skipped, so that none on the replaced page is assigned again.
const GAP: i64 = 1_000;

/// A table whose last page is repaired.
pub(super) struct Table {
    name: &'static str,
    /// SQL that inserts a row with an id; a message has the state [`EMPTIED`].
    insert: &'static str,
    /// SQL for ids of rows that may be on the last page.
    ids: &'static [&'static str],
    /// Completes the row of the new page, and updates the indexes.
    finish: fn(&Connection, i64) -> rusqlite::Result<()>,
    /// What was not possible with the damaged page.
    problem: &'static str,
    /// What was on the page.
    loss: &'static str,
}

pub(super) const TABLES: [Table; 2] = [
    Table {
        name: "messages",
        insert: "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name) VALUES (?1, x'', x'', 0, -1, 0, 0, '')",
        ids: &[
            "SELECT max(id + n) FROM queue",
            "SELECT max(id) FROM claims",
            "SELECT max(id) FROM uuids",
            "SELECT max(id) FROM recipients",
            "SELECT max(id) FROM parked",
            "SELECT max(message) FROM events",
            "SELECT max(id) FROM messages WHERE settled IS NOT NULL",
        ],
        finish: finish_messages,
        problem: "no message could be accepted",
        loss: "the messages on it are lost, those that waited are not sent, and a message that is submitted again is accepted as new",
    },
    Table {
        name: "events",
        insert: "INSERT INTO events (id, at, message, kind, body) VALUES (?1, 0, 0, '', x'')",
        ids: &["SELECT seq FROM sqlite_sequence WHERE name = 'events'", "SELECT max(event) FROM calls"],
        finish: finish_events,
        problem: "no event could be stored",
        loss: "the events on it are lost, and are not delivered to webhooks",
    },
];

fn finish_messages(db: &Connection, row: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE messages SET uuid = x'', digest = x'', lane = 0, state = ?2, in_doubt = 0, accepted = 0, name = '' WHERE id = ?1";
    db.execute(sql, params![row, EMPTIED])?;
    db.execute_batch("REINDEX settled; REINDEX dead")
}

fn finish_events(db: &Connection, row: i64) -> rusqlite::Result<()> {
    db.execute_batch("REINDEX events_of")?;
    db.execute("DELETE FROM events WHERE id = ?1", [row]).map(drop)
}

/// A page that was replaced.
pub(super) struct Repaired {
    table: &'static Table,
    page: u32,
    copy: PathBuf,
    /// The id of the row on the new page, because a page cannot be empty.
    row: i64,
}

/// Replaces the last page of a table if it is damaged. The caller must then reopen the database.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn repair_last_page(
    db: &Database,
    file: &Path,
    access: Access,
    table: &'static Table,
) -> Result<Option<Repaired>, OpenError> {
    let sql = |error: rusqlite::Error| OpenError::of(file, &error);
    let io = |error: io::Error| OpenError::io(file, &error);
    // Other errors are handled where they matter.
    if probe(db, table).err().is_none_or(|error| sqlite::is_general(&error)) {
        return Ok(None);
    }
    // Copies the log into the file; no other connection is open yet.
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map_err(sql)?;
    let Some(lock) = db.lock().filter(|_| checkpoint == 0) else { return Ok(None) };
    let bytes = db.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).map_err(sql)? as usize;
    let root = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let root = db.query_row(root, [table.name], |row| row.get::<_, u32>(0)).map_err(sql)?;
    let pages = Pages { lock, bytes };
    let Some(page) = pages.damaged_leaf(root).map_err(io)? else { return Ok(None) };
    let copy = beside(file, &format!(".page-{page}"));
    files::replace(&copy, &pages.read(page).map_err(io)?, Readers::Only(access)).map_err(io)?;
    let row = last_id(db, table).saturating_add(GAP);
    lock.write_at(&leaf(row, bytes), pages.offset(page)).map_err(io)?;
    Ok(Some(Repaired { table, page, copy, row }))
}

impl Repaired {
    /// Completes the repair over a new connection, and logs it.
    pub(super) fn finish(self, db: &Connection, file: &Path) -> rusqlite::Result<()> {
        let Table { name, problem, loss, finish, .. } = self.table;
        // If another page is damaged too, the indexes cannot be rebuilt; entries without a row are skipped.
        match finish(db, self.row) {
            Err(error) if sqlite::is_general(&error) => return Err(error),
            _ => {}
        }
        tracing::error!(
            page = self.page, copy = %self.copy.display(),
            "The last page of the queue's {name} was damaged, so {problem}. It was copied and replaced: {loss}. Check the disk; restore a \
             backup of {} when possible, or inspect the copy of the page.",
            file.display()
        );
        Ok(())
    }
}

/// Tries to insert a row after all others, and rolls that back.
fn probe(db: &Connection, table: &Table) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let inserted = db.execute(table.insert, [i64::MAX]).map(drop);
    db.execute_batch("ROLLBACK").and(inserted)
}

/// The highest known id of a row.
fn last_id(db: &Connection, table: &Table) -> i64 {
    let highest = |sql: &&str| db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
    // Rows on the damaged page have higher ids than all readable ones.
    let readable = rows::next_id(db, table.name, i64::MAX, rows::Order::Down).ok().flatten();
    table.ids.iter().filter_map(highest).chain(readable).max().unwrap_or(0)
}

/// The pages of the file, read without SQLite.
struct Pages<'a> {
    lock: &'a FileLock,
    bytes: usize,
}

impl Pages<'_> {
    fn offset(&self, page: u32) -> u64 {
        u64::from(page.saturating_sub(1)) * self.bytes as u64
    }

    fn read(&self, page: u32) -> io::Result<Vec<u8>> {
        let mut content = vec![0; self.bytes];
        self.lock.read_at(&mut content, self.offset(page))?;
        Ok(content)
    }

    /// The last leaf of a table, if it is not a valid leaf page. `None` also if that cannot be determined.
    fn damaged_leaf(&self, root: u32) -> io::Result<Option<u32>> {
        // All leaves have the same depth.
        let first = self.descend(root, |page| big_endian(page, big_endian(page, 12, 2) as usize, 4))?;
        let last = self.descend(root, |page| big_endian(page, 8, 4))?;
        Ok(match (first, last) {
            (_, (page, 0, _)) => Some(page),
            ((_, depth, true), (page, last, _)) if depth == last => Some(page),
            _ => None,
        })
    }

    /// Descends from the root to a page that is not interior. Returns its number, its depth, and whether it is a leaf.
    fn descend(&self, root: u32, down: impl Fn(&[u8]) -> u32) -> io::Result<(u32, usize, bool)> {
        let mut page = root;
        for depth in 0..DEPTH_MAX {
            let content = self.read(page)?;
            match content[0] {
                INTERIOR => page = down(&content),
                kind => return Ok((page, depth, kind == LEAF)),
            }
        }
        Ok((page, DEPTH_MAX, false))
    }
}

/// A big-endian number; 0 if it is outside the page.
fn big_endian(page: &[u8], at: usize, bytes: usize) -> u32 {
    let bytes = page.get(at..at + bytes).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A page with one row that has this id and no columns: SQLite reads missing columns as NULL.
fn leaf(row: i64, bytes: usize) -> Vec<u8> {
    // The length of the record, the id, and the record: a header of two bytes, with one column, NULL.
    let cell = [&[2][..], &varint(row.unsigned_abs()), &[2, 0]].concat();
    let at = bytes - cell.len();
    let mut page = vec![0; bytes];
    page[0] = LEAF;
    page[4] = 1;
    let place = (at as u16).to_be_bytes();
    page[5..7].copy_from_slice(&place);
    page[8..10].copy_from_slice(&place);
    page[at..].copy_from_slice(&cell);
    page
}

/// SQLite's encoding of numbers below 2^56: seven bits per byte, the highest first, and the top bit set in all bytes except the last.
fn varint(number: u64) -> Vec<u8> {
    let mut groups: Vec<u8> = (0..8).map(|group| (number >> (7 * group)) as u8 & 0x7f).collect();
    while groups.len() > 1 && groups.last() == Some(&0) {
        groups.pop();
    }
    groups.reverse();
    let last = groups.len() - 1;
    groups[..last].iter_mut().for_each(|group| *group |= 0x80);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_varints() {
        for (number, bytes) in [(0, &[0][..]), (127, &[127]), (128, &[0x81, 0]), (16_384, &[0x81, 0x80, 0])] {
            assert_eq!(varint(number), bytes);
        }
    }
}
