//! Upgrades of damaged files with tables of an earlier version.

use rusqlite::Connection;

use super::damage::{send_all, spoil_page};
use super::*;

/// Creates tables of a version with sixty messages, every tenth of which is limited to a channel type.
fn of_version(home: &Home, version: usize) {
    let db = file::open_as(&home.settings().database, &file::VERSIONS[..version]).unwrap_or_else(|e| panic!("{e}"));
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, email, body, progress)
        VALUES (?1, ?2, ?3, 1, 0, 0, 0, 'app.note', 'a@example.com', ?4, ?5)";
    for id in 1..=60_i64 {
        let uuid = Uuid::from_u128(id.unsigned_abs().into());
        let body = format!("body-{id}-{}", "x".repeat(5_000)).into_bytes();
        let limited = r#"{"limit": {"types": ["push"], "channels": []}, "todo": []}"#;
        let progress = (id % 10 == 0).then_some(limited.as_bytes());
        let values = rusqlite::params![id, uuid.as_bytes(), digest(&body), body, progress];
        db.execute(insert, values).expect("a message of before");
        db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, ?1)", [id]).expect("it waits");
        if version > 2 {
            db.execute("INSERT INTO uuids (uuid, id) VALUES (?1, ?2)", rusqlite::params![uuid.as_bytes(), id])
                .expect("set");
        }
    }
    if version > 2 {
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('indexed', '60')", []).expect("set");
    }
}

/// The ids of the readable messages in a file.
fn readable(file: &Path) -> Vec<i64> {
    let db = Connection::open(file).expect("opened");
    (1..=60).filter(|id| db.query_row("SELECT body FROM messages WHERE id = ?1", [id], |_| Ok(())).is_ok()).collect()
}

#[tokio::test]
async fn readable_messages_are_upgraded_and_sent_and_the_rest_is_set_aside() {
    for (version, text) in [(4, "body-30-"), (4, "body-60-"), (3, "body-35-")] {
        let home = Home::new();
        of_version(&home, version);
        spoil_page(&home, text);
        let queue = home.open();
        let copy = home.settings().database.with_file_name(format!("ace.db.version-{version}"));
        let there = readable(&copy);
        assert!((50..60).contains(&there.len()), "the copy has all readable messages: {there:?}");
        let limits: BTreeMap<i64, bool> = {
            let db = Connection::open(home.settings().database).expect("opened");
            let limited =
                |id: &i64| db.query_row("SELECT limits IS NOT NULL FROM messages WHERE id = ?1", [id], |r| r.get(0));
            there.iter().map(|id| (*id, limited(id).expect("it is readable"))).collect()
        };
        let wanted: Vec<i64> = there.iter().copied().filter(|id| id % 10 == 0).collect();
        assert_eq!(limits.into_iter().filter(|(_, is)| *is).map(|(id, _)| id).collect::<Vec<_>>(), wanted, "{text}");
        let wanted: Vec<u128> = there.iter().map(|id| id.unsigned_abs().into()).collect();
        assert_eq!(send_all(&queue).await, wanted, "{text}");
        let stats = queue.stats().await.expect("asked");
        // The last page was replaced.
        let set_aside = if text == "body-60-" { 0 } else { 60 - there.len() as u64 };
        assert_eq!((stats.damaged, stats.waiting_ordinary), (set_aside, 0), "{text}");
    }
}

#[test]
fn tables_that_cannot_be_upgraded_are_not_changed_and_the_error_says_what_to_do() {
    let home = Home::new();
    of_version(&home, 2);
    spoil_page(&home, "body-30-");
    let file = home.settings().database;
    let before = readable(&file);
    for _ in 0..2 {
        let refused = Queue::open(&home.settings(), at(1_000)).err().expect("refused").to_string();
        assert!(refused.starts_with(&format!("{}: its tables have version 2", file.display())), "{refused}");
        for said in ["damaged", "malformed", "ace.db.version-2", ".recover", "Restore a backup"] {
            assert!(refused.contains(said), "{said}: {refused}");
        }
        assert_eq!(
            (readable(&file), readable(&file.with_file_name("ace.db.version-2"))),
            (before.clone(), before.clone())
        );
    }
}
