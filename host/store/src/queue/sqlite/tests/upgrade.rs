//! Upgrades of damaged files with tables of an earlier version.

use rusqlite::Connection;

use super::damage::{send_all, spoil_page};
use super::log::Errors;
use super::*;
use crate::queue::{Delivery, Lookup, NewFeedback};
use crate::sqlite::damage::testing::spoil_leaf;

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

const EVENTS: i64 = 200;
/// The last page of events, counted from 0.
const LAST: i64 = 8;

/// Of such a size that pages are full, and grow by the upgrade.
fn event_body(id: i64) -> Vec<u8> {
    format!("{{\"type\":\"message.sent\",\"data\":{{\"n\":{id},\"pad\":\"{}\"}}}}", "x".repeat(621)).into_bytes()
}

/// Adds events with a pending webhook delivery each.
fn with_events(home: &Home) {
    let db = Connection::open(home.settings().database).expect("opened");
    for id in 1..=EVENTS {
        let values = rusqlite::params![id, id % 60 + 1, event_body(id)];
        db.execute("INSERT INTO events (id, at, message, body) VALUES (?1, 0, ?2, ?3)", values).expect("an event");
        db.execute("INSERT INTO calls (hook, event, due, attempts) VALUES ('audit', ?1, 0, 0)", [id]).expect("pending");
    }
}

fn readable_events(file: &Path) -> Vec<i64> {
    let db = Connection::open(file).expect("opened");
    let mut body = db.prepare("SELECT body FROM events WHERE id = ?1").expect("prepared");
    (1..=EVENTS).filter(|id| body.query_row([id], |row| row.get::<_, Vec<u8>>(0)).is_ok()).collect()
}

#[tokio::test]
async fn an_upgrade_with_damaged_events_keeps_the_others_and_the_queue_works() {
    // The first page of events, one in the middle, and the last one.
    for page in [0, 4, LAST] {
        let home = Home::new();
        of_version(&home, 5);
        with_events(&home);
        let file = home.settings().database;
        spoil_leaf(&file, "events", page);
        let (queue, errors) = Errors::during(|| home.open());
        let wanted = if page == LAST { 2 } else { 1 };
        assert_eq!(errors.len(), wanted, "{errors:?}");
        assert!(
            errors[0].contains("The queue's file is damaged") && errors[0].contains("Restore a backup"),
            "{errors:?}"
        );
        let readable = readable_events(&file.with_file_name("ace.db.version-5"));
        assert!((150..EVENTS as usize).contains(&readable.len()), "{page}: {readable:?}");

        let events = queue.events(EventId::START, 1_000).await.expect("read").events;
        assert_eq!(events.iter().map(|event| event.id.0).collect::<Vec<_>>(), readable, "{page}");
        for event in &events {
            assert_eq!((event.kind.as_str(), &event.body), ("message.sent", &event_body(event.id.0)), "{page}");
        }
        let without_type = "SELECT count(*) FROM events WHERE id = ?1 AND kind = ''";
        let db = Connection::open(&file).expect("opened");
        let unchanged = |id: &&i64| db.query_row(without_type, [id], |row| row.get::<_, bool>(0)).expect("read");
        assert!(
            page == LAST || readable.iter().filter(unchanged).count() > 5,
            "{page}: some are next to the damaged page"
        );
        drop(db);
        queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
        let deliveries = queue.webhook_deliveries("audit".to_owned(), 1_000, at(2_000)).await.expect("read");
        assert_eq!(deliveries.iter().map(|delivery| delivery.event.id.0).collect::<Vec<_>>(), readable, "{page}");
        assert!(deliveries.iter().all(|delivery| delivery.event.kind == "message.sent"), "{page}");
        let stats = queue.stats().await.expect("read");
        assert_eq!((stats.webhook_deliveries, stats.damaged), (readable.len() as u64, 0), "lost ones are dropped");

        let one = claim(&queue, 1, 2_000).await;
        let event = Some(NewEvent { kind: "message.sent".into(), body: event_body(EVENTS + 1) });
        settle(&queue, &one, Settlement::Done(Done { event, ..Done::new(State::Sent, b"{}".to_vec()) })).await;
        assert_eq!(state(&queue, one[0].uuid.as_u128()).await, State::Sent, "{page}");
        let last = queue.events(EventId(EVENTS), 10).await.expect("read").events;
        assert_eq!(last.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["message.sent"], "{page}");
        assert_eq!(send_all(&queue).await.len(), 59, "{page}");
        drop(queue);
        let (queue, errors) = Errors::during(|| home.open());
        assert_eq!(errors, [""; 0], "{page}: the upgrade is done once");
        assert_eq!(queue.stats().await.expect("read").waiting_ordinary, 0, "{page}");
    }
}

/// Messages of a version without feedback are found by it once they are settled.
#[tokio::test]
async fn feedback_finds_messages_of_earlier_versions() {
    let home = Home::new();
    of_version(&home, 6);
    let queue = home.open();
    let claimed = claim(&queue, 1, 1_000).await;
    let delivery = Delivery { channel: "ses_email".to_owned(), provider_id: None, message_id: None };
    let sent = Settlement::Done(Done { deliveries: vec![delivery], ..Done::new(State::Sent, b"{}".to_vec()) });
    settle(&queue, &claimed, sent).await;
    let lookup = Lookup { channels: vec!["ses_email".to_owned()], uuid: Some(claimed[0].uuid), ..Lookup::default() };
    let (plugin, id, body) = ("ses".to_owned(), "1".to_owned(), b"{}".to_vec());
    let new = NewFeedback { plugin, id, lookup, address: None, body };
    assert_eq!(queue.accept_feedback(vec![new], at(1_000)).await, Ok(1));
    assert_eq!(queue.feedback(claimed[0].uuid, 10).await.expect("asked").len(), 1);
}
