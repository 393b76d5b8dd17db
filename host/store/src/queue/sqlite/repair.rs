//! Repair of the last page of the table of messages, which gets every new row. While it is damaged no message can be accepted, so a
//! start saves a copy of the page and replaces it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::OpenError;
use super::retention::EMPTIED;
use super::rows;
use crate::files::{self, Access, Readers};
use crate::sqlite::{self, Held, Hold, beside};

/// Pages from the root of a table to its rows.
const DEPTH_MAX: usize = 20;
/// The kinds of a table's pages, by their first byte (SQLite's file format, section 1.6).
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;
/// Ids that are skipped, so that none of the replaced page is assigned again.
const GAP: i64 = 1_000;

/// A replaced page: its number, and where its copy is.
pub(super) struct Mended {
    page: u32,
    kept: PathBuf,
    /// The row that the new page holds, as a page of a table cannot be empty.
    row: i64,
}

/// Checks whether a message can be written, and replaces the last page if that is damaged. The caller must then reopen the database.
/// Does nothing if the damage is elsewhere.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn mend(db: &Held, file: &Path, access: Access) -> Result<Option<Mended>, OpenError> {
    let sql = |error: rusqlite::Error| OpenError::of(file, &error);
    let io = |error: io::Error| OpenError::io(file, &error);
    // Other errors are handled where they matter.
    if probe(db).err().is_none_or(|error| sqlite::is_general(&error)) {
        return Ok(None);
    }
    // Write the log into the file first; no other connection reads it yet.
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map_err(sql)?;
    let Some(hold) = db.hold().filter(|_| checkpoint == 0) else { return Ok(None) };
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u32>(0));
    let bytes = number("PRAGMA page_size").map_err(sql)? as usize;
    let root = number("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'messages'").map_err(sql)?;
    let pages = Pages { hold, bytes };
    let Some(page) = pages.damaged_leaf(root).map_err(io)? else { return Ok(None) };
    let kept = beside(file, &format!(".page-{page}"));
    files::replace(&kept, &pages.read(page).map_err(io)?, Readers::Only(access)).map_err(io)?;
    let row = last_number(db).saturating_add(GAP);
    hold.write_at(&leaf(row, bytes), pages.place(page)).map_err(io)?;
    Ok(Some(Mended { page, kept, row }))
}

impl Mended {
    /// Adapts the indexes, over a connection that was opened since, and logs the repair.
    pub(super) fn finish(self, db: &Connection, file: &Path) -> rusqlite::Result<()> {
        let row = "UPDATE messages SET uuid = x'', digest = x'', lane = 0, state = ?2, in_doubt = 0, accepted = 0, name = '' WHERE id = ?1";
        db.execute(row, params![self.row, EMPTIED])?;
        // If another page is damaged too they stay as they are: entries for missing rows are skipped.
        match db.execute_batch("REINDEX settled; REINDEX dead") {
            Err(error) if sqlite::is_general(&error) => return Err(error),
            _ => {}
        }
        tracing::error!(
            page = self.page, kept = %self.kept.display(),
            "The last page of the queue's messages was damaged, so that no message could be accepted. It was copied and replaced: \
             the messages on it are lost, those that waited are not sent, and a message that is submitted again is accepted as new. \
             Check the disk; restore a backup of {} when you can, or inspect the copy of the page.",
            file.display()
        );
        Ok(())
    }
}

/// Writes a message after all others, and rolls that back.
fn probe(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name) VALUES (?1, x'', x'', 0, ?2, 0, 0, '')";
    let written = db.execute(insert, params![i64::MAX, EMPTIED]).map(drop);
    db.execute_batch("ROLLBACK").and(written)
}

/// The highest id of a message in any table.
fn last_number(db: &Connection) -> i64 {
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
    // Messages before the page are readable too; those on it have higher ids.
    let readable = rows::next_id(db, "messages", i64::MAX, rows::Order::Down).ok().flatten();
    KNOWN.iter().filter_map(highest).chain(readable).max().unwrap_or(0)
}

/// The pages of the file, read without SQLite.
struct Pages<'a> {
    hold: &'a Hold,
    bytes: usize,
}

impl Pages<'_> {
    fn place(&self, page: u32) -> u64 {
        u64::from(page.saturating_sub(1)) * self.bytes as u64
    }

    fn read(&self, page: u32) -> io::Result<Vec<u8>> {
        let mut content = vec![0; self.bytes];
        self.hold.read_at(&mut content, self.place(page))?;
        Ok(content)
    }

    /// The last leaf page of a table if it is not a valid leaf; `None` if it is valid or cannot be determined.
    fn damaged_leaf(&self, root: u32) -> io::Result<Option<u32>> {
        // All rows are as far from the root.
        let first = self.walk(root, |page| word(page, word(page, 12, 2) as usize, 4))?;
        let last = self.walk(root, |page| word(page, 8, 4))?;
        Ok(match (first, last) {
            (_, (page, 0, _)) => Some(page),
            ((_, depth, true), (page, last, _)) if depth == last => Some(page),
            _ => None,
        })
    }

    /// Descends from the root to a page that is not interior. Returns its number, its depth, and whether it is a leaf.
    fn walk(&self, root: u32, down: impl Fn(&[u8]) -> u32) -> io::Result<(u32, usize, bool)> {
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

/// A number of so many bytes, the highest first; 0 where it is not on the page.
fn word(page: &[u8], at: usize, bytes: usize) -> u32 {
    let bytes = page.get(at..at + bytes).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A page with one row that has this number and nothing else: SQLite reads a column that a row lacks as NULL.
fn leaf(row: i64, bytes: usize) -> Vec<u8> {
    // The length of what follows the number, the number, a header that is two bytes long, and one column, NULL.
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

/// As SQLite writes numbers below 2^56: seven bits a byte, the highest first, and all bytes but the last marked.
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
    fn numbers_are_written_as_sqlite_reads_them() {
        for (number, bytes) in [(0, &[0][..]), (127, &[127]), (128, &[0x81, 0]), (16_384, &[0x81, 0x80, 0])] {
            assert_eq!(varint(number), bytes);
        }
    }
}
