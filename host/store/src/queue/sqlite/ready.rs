//! Waiting messages: the table `queue`. A row is a message, or a range of messages with consecutive ids that were accepted together,
//! have the same due time and were not started yet. So a batch needs one row per chunk, not one per recipient.

use rusqlite::{Connection, OptionalExtension, Row};

/// Messages of one priority class and due time: `n` with consecutive ids, starting with `first`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    pub priority: i64,
    pub due: i64,
    pub first: i64,
    pub n: i64,
}

impl Range {
    /// One message.
    pub(super) fn one(priority: i64, due: i64, id: i64) -> Self {
        Range { priority, due, first: id, n: 1 }
    }

    /// Extends the range by `next` if that follows directly. Returns whether it does.
    pub(super) fn grow(&mut self, next: Range) -> bool {
        let is_next = (next.priority, next.due, next.first) == (self.priority, self.due, self.first + self.n);
        self.n += if is_next { next.n } else { 0 };
        is_next
    }

    /// The range without its first `n` messages.
    fn after(self, n: i64) -> Range {
        Range { first: self.first + n, n: self.n - n, ..self }
    }
}

/// Adds a range to the waiting messages. An empty one is ignored.
pub(super) fn put(db: &Connection, range: Range) -> rusqlite::Result<()> {
    if range.n <= 0 {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO queue (lane, due, id, n) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute([range.priority, range.due, range.first, range.n]).map(drop)
}

/// Deletes a row: its messages no longer wait.
fn drop_row(db: &Connection, range: Range) -> rusqlite::Result<()> {
    let sql = "DELETE FROM queue WHERE lane = ?1 AND due = ?2 AND id = ?3";
    db.prepare_cached(sql)?.execute([range.priority, range.due, range.first]).map(drop)
}

/// Removes messages of a priority class that are due at `by`, the earliest first, and returns their ids.
pub(super) fn take_due(db: &Connection, priority: i64, by: i64, max: usize) -> rusqlite::Result<Vec<i64>> {
    let (mut ids, mut left) = (Vec::new(), max as i64);
    let sql = "SELECT lane, due, id, n FROM queue WHERE lane = ?1 AND due <= ?2 ORDER BY due, id";
    let (mut found, mut ranges) = (db.prepare_cached(sql)?, Vec::new());
    let mut rows = found.query([priority, by])?;
    while left > 0
        && let Some(row) = rows.next()?
    {
        let range = read(row)?;
        let n = range.n.min(left);
        ranges.push((range, n));
        left -= n;
    }
    // The table must not be read while it is changed.
    drop(rows);
    for (range, n) in ranges {
        drop_row(db, range)?;
        put(db, range.after(n))?;
        ids.extend(range.first..range.first + n);
    }
    Ok(ids)
}

/// Removes one message. Returns whether it waited.
pub(super) fn take_one(db: &Connection, priority: i64, id: i64) -> rusqlite::Result<bool> {
    let Some(row) = find(db, priority, id)? else { return Ok(false) };
    drop_row(db, row)?;
    put(db, Range { n: id - row.first, ..row })?;
    put(db, row.after(id + 1 - row.first))?;
    Ok(true)
}

/// When a message is due, if it waits.
pub(super) fn due(db: &Connection, priority: i64, id: i64) -> rusqlite::Result<Option<i64>> {
    Ok(find(db, priority, id)?.map(|row| row.due))
}

/// When the first message of a priority class is due.
pub(super) fn next_due(db: &Connection, priority: i64) -> rusqlite::Result<Option<i64>> {
    let mut first = db.prepare_cached("SELECT due FROM queue WHERE lane = ?1 ORDER BY due LIMIT 1")?;
    first.query_row([priority], |row| row.get(0)).optional()
}

/// The next priority class with waiting messages.
pub(super) fn next_priority(db: &Connection, after: i64) -> rusqlite::Result<Option<i64>> {
    let mut next = db.prepare_cached("SELECT lane FROM queue WHERE lane > ?1 ORDER BY lane LIMIT 1")?;
    next.query_row([after], |row| row.get(0)).optional()
}

/// The row whose range contains a message.
fn find(db: &Connection, priority: i64, id: i64) -> rusqlite::Result<Option<Range>> {
    let sql = "SELECT lane, due, id, n FROM queue WHERE lane = ?1 AND id <= ?2 AND ?2 < id + n";
    db.prepare_cached(sql)?.query_row([priority, id], read).optional()
}

fn read(row: &Row) -> rusqlite::Result<Range> {
    Ok(Range { priority: row.get(0)?, due: row.get(1)?, first: row.get(2)?, n: row.get(3)? })
}
