//! Reading rows that may be partly damaged, by a failing disk or by hand edits. A value of the wrong type is read as well as
//! possible and reported; a row that cannot be read at all is skipped. Neither affects the rows beside it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::sqlite;

/// Ids that are tried one by one after the last readable row; from then on the step doubles.
const STEPS: u32 = 4_096;

/// One row, and what is wrong with it.
pub(super) struct Reading<'a> {
    row: &'a Row<'a>,
    /// Columns that do not hold what they should.
    pub faults: Vec<String>,
}

impl<'a> Reading<'a> {
    pub fn of(row: &'a Row<'a>) -> Self {
        Reading { row, faults: Vec::new() }
    }

    fn fault(&mut self, column: usize, what: &str) {
        let name = self.row.as_ref().column_name(column).unwrap_or("a column").to_owned();
        self.faults.push(format!("{name} {what}"));
    }

    fn value(&mut self, column: usize) -> ValueRef<'a> {
        self.row.get_ref(column).unwrap_or(ValueRef::Null)
    }

    /// A string; invalid UTF-8 in it is replaced.
    pub fn text(&mut self, column: usize) -> Option<String> {
        let bytes = match self.value(column) {
            ValueRef::Null => return None,
            ValueRef::Text(bytes) => bytes,
            ValueRef::Blob(bytes) => {
                self.fault(column, "is no text");
                bytes
            }
            ValueRef::Integer(_) | ValueRef::Real(_) => {
                self.fault(column, "is no text");
                return None;
            }
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => {
                self.fault(column, "is not UTF-8");
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        }
    }

    pub fn number(&mut self, column: usize) -> Option<i64> {
        match self.value(column) {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number),
            _ => {
                self.fault(column, "is no number");
                None
            }
        }
    }

    /// A number that must be there.
    pub fn number_or(&mut self, column: usize, default: i64) -> i64 {
        let is_null = matches!(self.value(column), ValueRef::Null);
        if is_null {
            self.fault(column, "is missing");
        }
        self.number(column).unwrap_or(default)
    }

    pub fn bytes(&mut self, column: usize) -> Option<Vec<u8>> {
        match self.value(column) {
            ValueRef::Null => None,
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes.to_vec()),
            ValueRef::Integer(_) | ValueRef::Real(_) => {
                self.fault(column, "is no sequence of bytes");
                None
            }
        }
    }

    /// A uuid that must be there; the nil uuid where it is not.
    pub fn uuid(&mut self, column: usize) -> Uuid {
        match self.bytes(column).map(|bytes| Uuid::from_slice(&bytes)) {
            Some(Ok(uuid)) => uuid,
            _ => {
                self.fault(column, "is no uuid");
                Uuid::nil()
            }
        }
    }
}

/// The order in which rows are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Up,
    Down,
}

/// The id of a table's next readable row. Unreadable rows are skipped: rows that share a damaged page have neighbouring ids.
pub(super) fn next_id(db: &Connection, table: &str, from: i64, order: Order) -> rusqlite::Result<Option<i64>> {
    let sql = match order {
        Order::Up => format!("SELECT id FROM {table} WHERE id >= ?1 ORDER BY id LIMIT 1"),
        Order::Down => format!("SELECT id FROM {table} WHERE id <= ?1 ORDER BY id DESC LIMIT 1"),
    };
    let mut next = db.prepare_cached(&sql)?;
    let on = |at: i64, step: i64| match order {
        Order::Up => at.checked_add(step),
        Order::Down => at.checked_sub(step),
    };
    let (Some(mut at), mut tries) = (on(from, 1), 0_u32) else { return Ok(None) };
    loop {
        match next.query_row([at], |row| row.get(0)).optional() {
            Err(error) if !sqlite::is_general(&error) => {
                tries += 1;
                let step = 1_i64.checked_shl(tries.saturating_sub(STEPS)).filter(|step| *step > 0);
                let Some(next) = step.and_then(|step| on(at, step)) else { return Ok(None) };
                at = next;
            }
            found => return found,
        }
    }
}

/// Rows of a table after that id, without the damaged ones. `sql` selects one row by its id.
pub(super) fn each<T>(
    db: &Connection,
    (table, sql): (&str, &str),
    (from, order): (i64, Order),
    max: usize,
    mut read: impl FnMut(&Row) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let (mut found, mut at) = (Vec::new(), from);
    while found.len() < max
        && let Some(id) = next_id(db, table, at, order)?
    {
        at = id;
        match db.prepare_cached(sql)?.query_row([id], &mut read) {
            Ok(row) => found.push(row),
            Err(error) if sqlite::is_general(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}
