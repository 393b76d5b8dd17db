//! What waits: the table `queue`. A row stands for one message or for a run of messages with numbers in a row that came in
//! together, have the same due time and have not been begun; a batch takes a row a chunk, not a row a recipient.

use rusqlite::{Connection, OptionalExtension, Row};

/// Messages of one lane that are due at one moment: `n` from the number `first` on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    pub lane: i64,
    pub due: i64,
    pub first: i64,
    pub n: i64,
}

impl Range {
    /// One message.
    pub fn one(lane: i64, due: i64, id: i64) -> Self {
        Range { lane, due, first: id, n: 1 }
    }

    /// Takes the message in where it is the next one of the run; whether it is.
    pub fn grow(&mut self, next: Range) -> bool {
        let is_next = (next.lane, next.due, next.first) == (self.lane, self.due, self.first + self.n);
        self.n += if is_next { next.n } else { 0 };
        is_next
    }

    /// Without its first few.
    fn after(self, n: i64) -> Range {
        Range { first: self.first + n, n: self.n - n, ..self }
    }
}

/// They wait. A run of none is none.
pub(super) fn put(db: &Connection, run: Range) -> rusqlite::Result<()> {
    if run.n <= 0 {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO queue (lane, due, id, n) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute([run.lane, run.due, run.first, run.n]).map(drop)
}

/// A row's messages do not wait any more.
fn drop_row(db: &Connection, run: Range) -> rusqlite::Result<()> {
    let sql = "DELETE FROM queue WHERE lane = ?1 AND due = ?2 AND id = ?3";
    db.prepare_cached(sql)?.execute([run.lane, run.due, run.first]).map(drop)
}

/// Takes messages out of a lane that are due by then, the earliest first.
pub(super) fn take_due(db: &Connection, lane: i64, by: i64, max: usize) -> rusqlite::Result<Vec<i64>> {
    let (mut ids, mut left) = (Vec::new(), max as i64);
    let sql = "SELECT lane, due, id, n FROM queue WHERE lane = ?1 AND due <= ?2 ORDER BY due, id";
    let (mut found, mut runs) = (db.prepare_cached(sql)?, Vec::new());
    let mut rows = found.query([lane, by])?;
    while left > 0
        && let Some(row) = rows.next()?
    {
        let run = read(row)?;
        let n = run.n.min(left);
        runs.push((run, n));
        left -= n;
    }
    // Nothing reads the table while it is changed.
    drop(rows);
    for (run, n) in runs {
        drop_row(db, run)?;
        put(db, run.after(n))?;
        ids.extend(run.first..run.first + n);
    }
    Ok(ids)
}

/// Takes one message out, whenever it is due; whether it waited.
pub(super) fn take_one(db: &Connection, lane: i64, id: i64) -> rusqlite::Result<bool> {
    let Some(row) = find(db, lane, id)? else { return Ok(false) };
    drop_row(db, row)?;
    put(db, Range { n: id - row.first, ..row })?;
    put(db, row.after(id + 1 - row.first))?;
    Ok(true)
}

/// When a message is due, where it waits.
pub(super) fn due(db: &Connection, lane: i64, id: i64) -> rusqlite::Result<Option<i64>> {
    Ok(find(db, lane, id)?.map(|row| row.due))
}

/// When the first message of a lane is due.
pub(super) fn next_due(db: &Connection, lane: i64) -> rusqlite::Result<Option<i64>> {
    let mut first = db.prepare_cached("SELECT due FROM queue WHERE lane = ?1 ORDER BY due LIMIT 1")?;
    first.query_row([lane], |row| row.get(0)).optional()
}

/// The next lane after that one in which something waits.
pub(super) fn next_lane(db: &Connection, after: i64) -> rusqlite::Result<Option<i64>> {
    let mut next = db.prepare_cached("SELECT lane FROM queue WHERE lane > ?1 ORDER BY lane LIMIT 1")?;
    next.query_row([after], |row| row.get(0)).optional()
}

/// The row that a message stands in.
fn find(db: &Connection, lane: i64, id: i64) -> rusqlite::Result<Option<Range>> {
    let sql = "SELECT lane, due, id, n FROM queue WHERE lane = ?1 AND id <= ?2 AND ?2 < id + n";
    db.prepare_cached(sql)?.query_row([lane, id], read).optional()
}

fn read(row: &Row) -> rusqlite::Result<Range> {
    Ok(Range { lane: row.get(0)?, due: row.get(1)?, first: row.get(2)?, n: row.get(3)? })
}
