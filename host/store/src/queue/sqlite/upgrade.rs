//! Upgrading tables of an earlier version in a damaged file: readable rows are upgraded; the rest is left as it is, and set aside when it
//! is read.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::OpenError;
use super::file::{self, EVENT_KINDS, MOVED_LIMITS, REHASH_THROUGH};
use super::ready;
use super::rows::{self, Order};
use crate::files::{self, Access, Readers};
use crate::sqlite::{self, Database};

/// The oldest version that can be upgraded around damage. Upgrades of earlier versions copy the whole table of messages.
const AROUND_DAMAGE_FROM: usize = 3;
/// The version that added the column for limits and changed the index of recipients.
const LIMITS_VERSION: usize = 5;
/// The version that added the tables of feedback. SQLite moves other pages to make room for a new table, and cannot move a damaged one.
const FEEDBACK_VERSION: usize = 7;
/// Rows that cannot be upgraded, at most.
const FAULTS_MAX: usize = 1_000;

/// Upgrades the tables, around damaged rows if possible.
pub(super) fn migrate(db: &mut Connection, from: usize, versions: &[&str]) -> rusqlite::Result<()> {
    match file::migrate(db, from, versions) {
        Err(error) if !sqlite::is_general(&error) && from >= AROUND_DAMAGE_FROM => {
            migrate_around_damage(db, from, versions)?;
            tracing::error!(
                "The queue's file is damaged ({error}). Its tables were upgraded without the damaged rows; messages that cannot be read are \
                 set aside, and logged, when they are due. Restore a backup when possible."
            );
            Ok(())
        }
        done => done,
    }
}

/// The error if tables cannot be upgraded.
pub(super) fn refusal(file: &Path, copy: &Path, version: usize, error: &rusqlite::Error) -> String {
    let (file, copy) = (file.display(), copy.display());
    format!(
        "its tables have version {version} and cannot be upgraded, because a part of it is damaged ({error}). It was not changed, \
         and {copy} is a copy. Restore a backup, or recover what is readable: sqlite3 {file} .recover | sqlite3 recovered.db"
    )
}

/// A row that cannot be upgraded.
enum Faulty {
    Message(i64, String),
    Event(i64),
    /// The tables of feedback cannot be created.
    Feedback,
}

/// The rows that an upgrade changes one by one.
struct Rows {
    /// Messages whose limits are moved to the new column.
    limited: Vec<i64>,
    /// Events whose type is copied to the new column.
    events: Vec<i64>,
    /// The last message to be indexed again.
    rehash_through: Option<i64>,
}

impl Rows {
    fn find(db: &Connection, from: usize) -> rusqlite::Result<Rows> {
        let readable = |table, sql: &str| rows::each(db, (table, sql), (0, Order::Up), usize::MAX, |row| row.get(0));
        let mut found = Rows { limited: Vec::new(), events: Vec::new(), rehash_through: None };
        if from < LIMITS_VERSION {
            let (_, condition) = MOVED_LIMITS.split_once("WHERE").unwrap_or_default();
            found.limited = readable("messages", &format!("SELECT id FROM messages WHERE id = ?1 AND {condition}"))?;
            found.rehash_through = rows::next_id(db, "messages", i64::MAX, Order::Down)?;
        }
        found.events = readable("events", "SELECT id FROM events WHERE id = ?1")?;
        Ok(found)
    }

    /// Upgrades each row. The error comes with the row that caused it, if it was one.
    fn migrate(
        &self,
        db: &Connection,
        faults: &BTreeMap<i64, String>,
    ) -> Result<(), (rusqlite::Error, Option<Faulty>)> {
        let without_row = |error| (error, None);
        for id in self.limited.iter().filter(|id| !faults.contains_key(*id)) {
            let mut moved = db.prepare_cached(&format!("{MOVED_LIMITS} AND id = ?1")).map_err(without_row)?;
            let fault = |error| {
                let fault = Faulty::Message(*id, sqlite::describe(&error));
                (error, Some(fault))
            };
            moved.execute([id]).map_err(fault)?;
        }
        for id in &self.events {
            let mut kind = db.prepare_cached(&format!("{EVENT_KINDS} WHERE id = ?1")).map_err(without_row)?;
            kind.execute([id]).map_err(|error| (error, Some(Faulty::Event(*id))))?;
        }
        faults.iter().try_for_each(|(id, fault)| set_aside(db, *id, fault)).map_err(without_row)?;
        let through = "INSERT INTO meta (key, value) SELECT 'rehash-through', ?1 WHERE ?1 IS NOT NULL";
        db.execute(through, [self.rehash_through]).map(drop).map_err(without_row)
    }
}

/// As [`migrate`], but changes each row separately.
fn migrate_around_damage(db: &mut Connection, from: usize, versions: &[&str]) -> rusqlite::Result<()> {
    let without_rows = |tables: &&str| {
        [MOVED_LIMITS, REHASH_THROUGH, EVENT_KINDS].iter().fold((*tables).to_owned(), |all, one| all.replace(one, ""))
    };
    let tables: Vec<String> = versions[from..].iter().map(without_rows).collect();
    let (tables, feedback) = tables.split_at(tables.len().min((FEEDBACK_VERSION - 1).saturating_sub(from)));
    let mut has_feedback = true;
    let mut rows = Rows::find(db, from)?;
    let (mut faults, mut left_out) = (BTreeMap::new(), 0);
    loop {
        let mut met = None;
        let done = file::migrate_with(db, &[] as &[&str], versions.len(), |db| {
            run_statements(db, tables)?;
            if has_feedback {
                run_statements(db, feedback).inspect_err(|_| met = Some(Faulty::Feedback))?;
            }
            rows.migrate(db, &faults).map_err(|(error, faulty)| {
                met = faulty;
                error
            })
        });
        left_out += 1;
        match (done, met) {
            (Err(error), Some(faulty)) if !sqlite::is_general(&error) && left_out <= FAULTS_MAX => match faulty {
                Faulty::Message(id, fault) => drop(faults.insert(id, fault)),
                // If it is readable, readers take its type from its body. Otherwise that is logged when it is due.
                Faulty::Event(id) => rows.events.retain(|event| *event != id),
                Faulty::Feedback => {
                    tracing::error!("Feedback of providers cannot be stored until a backup is restored: {error}");
                    has_feedback = false;
                }
            },
            (done, _) => return done,
        }
    }
}

fn run_statements(db: &Connection, tables: &[String]) -> rusqlite::Result<()> {
    tables.iter().flat_map(|tables| tables.split(';')).try_for_each(|one| run_statement(db, one.trim()))
}

/// Runs one statement. To add a column SQLite reads the whole strict table, so columns are added in the schema instead.
fn run_statement(db: &Connection, statement: &str) -> rusqlite::Result<()> {
    let added = ["messages", "events"].into_iter().find_map(|table| {
        let column = statement.strip_prefix(&format!("ALTER TABLE {table} ADD COLUMN "))?;
        Some((table, column))
    });
    let Some((table, column)) = added else { return db.execute_batch(statement) };
    let number: i64 = db.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let schema: String = db.query_row(sql, [table], |row| row.get(0))?;
    let (columns, rest) = schema.rsplit_once(')').unwrap_or((&schema, ""));
    db.execute_batch("PRAGMA writable_schema = ON")?;
    let sql = "UPDATE sqlite_schema SET sql = ?1 WHERE type = 'table' AND name = ?2";
    db.execute(sql, [&format!("{}, {column}){rest}", columns.trim_end()), table])?;
    db.pragma_update(None, "schema_version", number + 1)?;
    db.execute_batch("PRAGMA writable_schema = RESET")
}

/// Sets aside a message whose limits cannot be moved: without them it would be sent over too many channels.
fn set_aside(db: &Connection, id: i64, fault: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO damaged (id, at, reason) VALUES (?1, unixepoch() * 1000, ?2)";
    db.execute(sql, params![id, format!("its limits could not be upgraded: {fault}")])?;
    db.execute("DELETE FROM claims WHERE id = ?1", [id])?;
    let priority = db.query_row("SELECT lane FROM messages WHERE id = ?1", [id], |row| row.get(0)).optional()?;
    priority.map_or(Ok(false), |priority| ready::take_one(db, priority, id)).map(drop)
}

/// Copies a database byte by byte, because SQLite cannot read all of it. The file must be locked exclusively.
pub(super) fn copy_pages(db: &Database, to: &Path, access: Access) -> Result<(), OpenError> {
    let failed = |error: std::io::Error| OpenError::io(to, &error);
    // Write the log into the file first.
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    let is_busy = checkpoint.map_err(|e| OpenError::of(to, &e))? != 0;
    let Some(lock) = db.lock().filter(|_| !is_busy) else {
        return Err(failed(std::io::Error::other("another program reads the database; stop it first")));
    };
    tracing::warn!(copy = %to.display(), "The queue's file is damaged; it is backed up byte by byte, including the damage.");
    files::replace(to, b"", Readers::Only(access)).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).open(to).map_err(failed)?;
    lock.copy_database(&mut file).and_then(|()| file.sync_all()).map_err(failed)
}
