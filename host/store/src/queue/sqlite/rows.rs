//! Reading rows that may be damaged, by a failing disk or by manual edits. A value of the wrong type is converted if possible and
//! reported; a row that cannot be read is skipped. Neither affects other rows.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::sqlite;

/// Ids that are tried one by one after an unreadable row; then the step doubles.
const STEPS: u32 = 4_096;

/// Reads a row, and collects its faults.
pub(super) struct RowReader<'a> {
    row: &'a Row<'a>,
    /// What is wrong with its columns.
    pub faults: Vec<String>,
}

impl<'a> RowReader<'a> {
    pub(super) fn new(row: &'a Row<'a>) -> Self {
        RowReader { row, faults: Vec::new() }
    }

    fn fault(&mut self, column: usize, what: &str) {
        let name = self.row.as_ref().column_name(column).unwrap_or("a column").to_owned();
        self.faults.push(format!("{name} {what}"));
    }

    fn value(&mut self, column: usize) -> ValueRef<'a> {
        self.row.get_ref(column).unwrap_or(ValueRef::Null)
    }

    /// A string, with invalid UTF-8 replaced.
    pub(super) fn text(&mut self, column: usize) -> Option<String> {
        let bytes = match self.value(column) {
            ValueRef::Null => return None,
            ValueRef::Text(bytes) => bytes,
            ValueRef::Blob(bytes) => {
                self.fault(column, "is not text");
                bytes
            }
            ValueRef::Integer(_) | ValueRef::Real(_) => {
                self.fault(column, "is not text");
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

    pub(super) fn number(&mut self, column: usize) -> Option<i64> {
        match self.value(column) {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number),
            _ => {
                self.fault(column, "is not a number");
                None
            }
        }
    }

    /// A required number.
    pub(super) fn number_or(&mut self, column: usize, default: i64) -> i64 {
        let is_null = matches!(self.value(column), ValueRef::Null);
        if is_null {
            self.fault(column, "is missing");
        }
        self.number(column).unwrap_or(default)
    }

    pub(super) fn bytes(&mut self, column: usize) -> Option<Vec<u8>> {
        match self.value(column) {
            ValueRef::Null => None,
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes.to_vec()),
            ValueRef::Integer(_) | ValueRef::Real(_) => {
                self.fault(column, "is not a blob");
                None
            }
        }
    }

    /// A required uuid; the nil uuid if it is missing.
    pub(super) fn uuid(&mut self, column: usize) -> Uuid {
        match self.bytes(column).map(|bytes| Uuid::from_slice(&bytes)) {
            Some(Ok(uuid)) => uuid,
            _ => {
                self.fault(column, "is not a uuid");
                Uuid::nil()
            }
        }
    }
}

/// The order of ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Up,
    Down,
}

/// The id of a table's next readable row. Unreadable rows are skipped; those on a damaged page have neighbouring ids.
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

/// The readable rows of a table after an id. `sql` selects one row by its id.
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
