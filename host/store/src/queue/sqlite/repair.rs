//! Repair of the last page of the table of messages, to which new rows are added. While it is damaged no message can be accepted, so the
//! start copies the page to a file and replaces it.

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

/// A page that was replaced.
pub(super) struct Repaired {
    page: u32,
    copy: PathBuf,
    /// The id of the row on the new page, because a page cannot be empty.
    row: i64,
}

/// Replaces the last page if it is damaged. The caller must then reopen the database.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn repair_last_page(db: &Database, file: &Path, access: Access) -> Result<Option<Repaired>, OpenError> {
    let sql = |error: rusqlite::Error| OpenError::of(file, &error);
    let io = |error: io::Error| OpenError::io(file, &error);
    // Other errors are handled where they matter.
    if probe(db).err().is_none_or(|error| sqlite::is_general(&error)) {
        return Ok(None);
    }
    // Copies the log into the file; no other connection is open yet.
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map_err(sql)?;
    let Some(lock) = db.lock().filter(|_| checkpoint == 0) else { return Ok(None) };
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u32>(0));
    let bytes = number("PRAGMA page_size").map_err(sql)? as usize;
    let root = number("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'messages'").map_err(sql)?;
    let pages = Pages { lock, bytes };
    let Some(page) = pages.damaged_leaf(root).map_err(io)? else { return Ok(None) };
    let copy = beside(file, &format!(".page-{page}"));
    files::replace(&copy, &pages.read(page).map_err(io)?, Readers::Only(access)).map_err(io)?;
    let row = last_id(db).saturating_add(GAP);
    lock.write_at(&leaf(row, bytes), pages.offset(page)).map_err(io)?;
    Ok(Some(Repaired { page, copy, row }))
}

impl Repaired {
    /// Updates the indexes over a new connection, and logs the repair.
    pub(super) fn finish(self, db: &Connection, file: &Path) -> rusqlite::Result<()> {
        let row = "UPDATE messages SET uuid = x'', digest = x'', lane = 0, state = ?2, in_doubt = 0, accepted = 0, name = '' WHERE id = ?1";
        db.execute(row, params![self.row, EMPTIED])?;
        // If another page is damaged too, they cannot be rebuilt; entries without a row are skipped.
        match db.execute_batch("REINDEX settled; REINDEX dead") {
            Err(error) if sqlite::is_general(&error) => return Err(error),
            _ => {}
        }
        tracing::error!(
            page = self.page, copy = %self.copy.display(),
            "The last page of the queue's messages was damaged, so no message could be accepted. It was copied and replaced: the messages \
             on it are lost, those that waited are not sent, and a message that is submitted again is accepted as new. Check the disk; \
             restore a backup of {} when possible, or inspect the copy of the page.",
            file.display()
        );
        Ok(())
    }
}

/// Tries to insert a message after all others, and rolls that back.
fn probe(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name) VALUES (?1, x'', x'', 0, ?2, 0, 0, '')";
    let written = db.execute(insert, params![i64::MAX, EMPTIED]).map(drop);
    db.execute_batch("ROLLBACK").and(written)
}

/// The highest id of a message, in any table.
fn last_id(db: &Connection) -> i64 {
    const KNOWN: [&str; 7] = [
        "SELECT max(id + n) FROM queue",
        "SELECT max(id) FROM claims",
        "SELECT max(id) FROM uuids",
        "SELECT max(id) FROM recipients",
        "SELECT max(id) FROM parked",
        "SELECT max(message) FROM events",
        "SELECT max(id) FROM messages WHERE settled IS NOT NULL",
    ];
    let highest = |sql: &&str| db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
    // Messages on the damaged page have higher ids than all readable ones.
    let readable = rows::next_id(db, "messages", i64::MAX, rows::Order::Down).ok().flatten();
    KNOWN.iter().filter_map(highest).chain(readable).max().unwrap_or(0)
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
