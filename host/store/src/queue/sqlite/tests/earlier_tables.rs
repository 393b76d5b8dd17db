//! Tables of earlier versions with messages in them are upgraded without loss.

use super::*;

fn lists(lists: &[&[&str]]) -> Option<Limits> {
    Some(lists.iter().map(|list| list.iter().map(|name| (*name).to_owned()).collect()).collect())
}

const RELAY: &str = "relay main";

async fn unblock(queue: &Queue, max: usize, in_turn: bool) -> usize {
    queue.unblock(RELAY.to_owned(), max, in_turn).await.expect("brought back")
}

fn block(due: i64, destinations: &[&str]) -> Settlement {
    let destinations = destinations.iter().map(|name| (*name).to_owned()).collect();
    Settlement::Block { due: at(due), progress: b"{}".to_vec(), destinations }
}

/// How addresses are stored, how they are asked for.
const FORMS: [(&str, &str); 9] = [
    ("éva@example.com", "ÉVA@example.com"),
    ("ÉVA@example.com", "éva@example.com"),
    ("E\u{301}va@example.com", "éva@EXAMPLE.com"),
    ("a@example.com\u{a0}", "a@example.com"),
    ("\u{feff}b@example.com", "\u{a0}b@example.com "),
    ("c@bücher.example", "c@xn--bcher-kva.example"),
    ("d@XN--BCHER-KVA.example", "D@bücher.example"),
    ("Zoë <e@example.com>", "e@example.com"),
    ("\"john doe\"@example.com", "\"John Doe\"@example.com"),
];

async fn listed(queue: &Queue, email: &str) -> Vec<u128> {
    let filter = Filter { email: Some(email.to_owned()), ..Filter::default() };
    let mut found: Vec<u128> =
        queue.messages(filter, None, 100).await.expect("listed").messages.iter().map(|m| m.uuid.as_u128()).collect();
    found.sort_unstable();
    found
}

fn to(number: u128, user: Option<&str>, email: Option<&str>) -> New {
    New { user: user.map(str::to_owned), email: email.map(str::to_owned), ..new(number, ORDINARY) }
}

fn open_at(home: &Home, second: i64) -> Queue {
    Queue::open(&home.settings(), at(second)).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn limits_of_waiting_messages_are_moved_by_an_upgrade() {
    let home = Home::new();
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, body, progress)
        VALUES (?1, ?2, ?3, 1, 0, 0, 0, 'app.note', ?4, ?5)";
    let progress = [
        Some(r#"{"limit": {"types": ["push", "email"], "channels": ["smtp"]}, "todo": []}"#),
        Some(r#"{"limit": {"types": [], "channels": []}, "todo": []}"#),
        Some("no JSON"),
        None,
    ];
    {
        let db = file::open_as(&home.settings().database, &file::VERSIONS[..4]).unwrap_or_else(|e| panic!("{e}"));
        for (id, progress) in (1i64..).zip(progress) {
            let new = new(id.unsigned_abs().into(), ORDINARY);
            let progress = progress.map(str::as_bytes);
            let values = rusqlite::params![id, new.uuid.as_bytes(), new.digest, new.body, progress];
            db.execute(insert, values).expect("a message of before");
            db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, ?1)", [id]).expect("it waits");
        }
    }
    let queue = home.open();
    let claimed = claim(&queue, 9, 1_000).await;
    assert_eq!(numbers(&claimed), [1, 2, 3, 4]);
    let limits: Vec<_> = claimed.iter().map(|claimed| claimed.limits.clone()).collect();
    assert_eq!(limits, [lists(&[&["email", "push", "smtp"]]), None, None, None]);
}

#[tokio::test]
async fn waiting_messages_stay_blocked_when_tables_are_upgraded() {
    let home = Home::new();
    {
        let file = home.settings().database;
        let db = file::open_as(&file, &file::VERSIONS[..4]).unwrap_or_else(|e| panic!("{e}"));
        let new = new(1, ORDINARY);
        let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, body)
            VALUES (1, ?1, ?2, 1, 0, 0, 900000, 'app.note', ?3)";
        db.execute(insert, rusqlite::params![new.uuid.as_bytes(), new.digest, new.body]).expect("of before");
        db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, 1)", []).expect("it waits");
    }
    let queue = home.open();
    let claimed = claim(&queue, 9, 1_000).await;
    assert_eq!((numbers(&claimed), claimed[0].since), (vec![1], at(900)));
    settle(&queue, &claimed, block(9_000, &[RELAY])).await;
    assert_eq!(unblock(&queue, 1, true).await, 1);
}

#[tokio::test]
async fn tables_of_version_4_with_messages_in_flight_are_upgraded() {
    let home = Home::new();
    {
        let file = home.settings().database;
        let db = file::open_as(&file, &file::VERSIONS[..4]).unwrap_or_else(|e| panic!("{e}"));
        let sql = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, user, email, body)
            VALUES (?1, ?2, ?3, 1, 0, ?4, 0, 'app.note', ?5, ?6, ?7)";
        for number in 1..=3 {
            let new = new(number, ORDINARY);
            let (id, in_doubt) = (number as i64, number == 2);
            let values =
                rusqlite::params![id, new.uuid.as_bytes(), new.digest, in_doubt, new.user, new.email, new.body];
            db.execute(sql, values).expect("a message of before");
            let table = if number == 3 {
                "INSERT INTO claims (id, lane) VALUES (?1, 1)"
            } else {
                "INSERT INTO queue VALUES (1, 0, ?1, 1)"
            };
            db.execute(table, [id]).expect("its place");
        }
    }
    let queue = open_at(&home, 2_000);
    let claimed = claim(&queue, 9, 3_000).await;
    let interruptions: Vec<_> =
        claimed.iter().map(|c| (c.uuid.as_u128(), c.interrupted.clone(), c.interruptions)).collect();
    // It is not known whether the earlier version was shut down orderly, so this is not counted as a crash.
    assert_eq!(interruptions, [(1, vec![], 0), (2, vec![at(3_000)], 0), (3, vec![at(2_000)], 0)]);
}

#[tokio::test]
async fn messages_indexed_by_the_rule_of_version_4_are_found_and_indexed_again() {
    for is_erased_at_once in [true, false] {
        let home = Home::new();
        {
            let file = home.settings().database;
            let db = file::open_as(&file, &file::VERSIONS[..4]).unwrap_or_else(|e| panic!("{e}"));
            let sql =
                "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, user, email, body)
                VALUES (?1, ?2, ?3, 1, 0, 0, 0, 'app.note', ?4, ?5, ?6)";
            for (number, (stored, _)) in (1_i64..).zip(FORMS) {
                let new = to(number as u128, Some(" Ünï "), Some(stored));
                let values = rusqlite::params![number, new.uuid.as_bytes(), new.digest, new.user, new.email, new.body];
                db.execute(sql, values).expect("a message of before");
                db.execute("INSERT INTO queue VALUES (1, 0, ?1, 1)", [number]).expect("it waits");
                for hash in crate::queue::sqlite::recipients::legacy_hashes(new.user.as_deref(), new.email.as_deref())
                    .into_iter()
                    .flatten()
                {
                    db.execute("INSERT INTO recipients VALUES (?1, ?2)", [hash, number]).expect("indexed");
                }
                db.execute("INSERT INTO uuids VALUES (?1, ?2)", rusqlite::params![new.uuid.as_bytes(), number])
                    .expect("indexed");
            }
            db.execute("INSERT OR REPLACE INTO meta VALUES ('indexed', ?1)", [FORMS.len().to_string()])
                .expect("all are");
        }
        let queue = home.open();
        // Messages are found before they are indexed again.
        assert_eq!(listed(&queue, "a@example.com").await, [4]);
        if !is_erased_at_once {
            queue.maintain(at(2_000)).await.expect("maintained");
            assert_eq!(listed(&queue, "c@xn--bcher-kva.example").await, [6]);
            let left = queue.get_meta("rehash-through").await.expect("asked");
            assert_eq!(left, None, "it is complete");
        }
        let erased = queue.erase(None, Some("c@xn--bcher-kva.example".to_owned())).await.expect("erased");
        assert_eq!(erased.waiting, 1);
        let all = queue.erase(Some("ÜNÏ".to_owned()), None).await.expect("erased");
        assert_eq!(all.waiting as usize, FORMS.len() - 1);
        let rows = sqlite(&queue).writer.write(|writer| {
            let sql = "SELECT (SELECT count(*) FROM recipients) + (SELECT count(*) FROM uuids)";
            Ok(writer.db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(rows.await, Ok(0), "none of their keys is left");
    }
}
