//! Dumps a database as SQL, for tests that read databases of an earlier build.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// A database as SQL, for `execute_batch` on an empty file.
pub(crate) fn dump(file: &Path) -> String {
    let db = Connection::open(file).expect("opened");
    let number =
        |pragma: &str| db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).expect("asked");
    let mut text = String::new();
    for pragma in ["page_size", "auto_vacuum", "application_id", "user_version"] {
        text += &format!("PRAGMA {pragma} = {};\n", number(pragma));
    }
    let mut schema =
        db.prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid").expect("asked");
    let read = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let all: Vec<(String, String, String)> =
        schema.query_map([], read).expect("asked").collect::<Result<_, _>>().expect("read");
    let own = || all.iter().filter(|(_, name, _)| !name.starts_with("sqlite_"));
    for (.., sql) in own() {
        text += &format!("{sql};\n");
    }
    for (_, table, _) in all.iter().filter(|(kind, ..)| kind == "table") {
        let mut rows = db.prepare(&format!("SELECT * FROM {table}")).expect("asked");
        let n = rows.column_count();
        let mut rows = rows.query([]).expect("asked");
        while let Some(row) = rows.next().expect("read") {
            let values: Vec<String> = (0..n).map(|i| literal(row.get_ref(i).expect("a value"))).collect();
            text += &format!("INSERT INTO {table} VALUES ({});\n", values.join(", "));
        }
    }
    text
}

fn literal(value: ValueRef) -> String {
    let quoted = |text: &[u8]| format!("'{}'", std::str::from_utf8(text).expect("text").replace('\'', "''"));
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(n) => n.to_string(),
        ValueRef::Text(text) => quoted(text),
        // Keeps stored JSON readable.
        ValueRef::Blob(bytes) if bytes.starts_with(b"{") || bytes.starts_with(b"[") => {
            format!("CAST({} AS BLOB)", quoted(bytes))
        }
        ValueRef::Blob(bytes) => format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}
