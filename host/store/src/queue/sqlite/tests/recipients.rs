//! One rule for whom a message is for: in the index, in lists, in erasure; and what was indexed by the rule of version 4.

use super::*;
use crate::person::normal_address;

fn to(number: u128, user: Option<&str>, email: Option<&str>) -> New {
    New { user: user.map(str::to_owned), email: email.map(str::to_owned), ..new(number, ORDINARY) }
}

async fn listed(queue: &Queue, email: &str) -> Vec<u128> {
    let filter = Filter { email: Some(email.to_owned()), ..Filter::default() };
    let mut found: Vec<u128> =
        queue.messages(filter, None, 100).await.expect("listed").messages.iter().map(|m| m.uuid.as_u128()).collect();
    found.sort_unstable();
    found
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

#[tokio::test]
async fn who_is_listed_is_forgotten_however_the_address_is_written() {
    for held in [true, false] {
        let home = Home::new();
        let queue = home.open();
        let news = FORMS.iter().enumerate().map(|(n, (stored, _))| to(n as u128 + 1, None, Some(stored))).collect();
        queue.accept(news, at(1_000)).await.expect("accepted");
        queue.accept(vec![to(50, None, Some("other@example.com"))], at(1_000)).await.expect("accepted");
        // Both what is held in memory and what is in the index.
        let queue = match held {
            true => queue,
            false => {
                drop(queue);
                home.open()
            }
        };
        for (stored, asked) in FORMS {
            let is_one = |form: &str| normal_address(form) == normal_address(asked);
            let all: Vec<u128> = (1..).zip(FORMS).filter(|(_, (stored, _))| is_one(stored)).map(|(n, _)| n).collect();
            let before = listed(&queue, asked).await;
            let forgotten = queue.erase(None, Some(asked.to_owned())).await.expect("forgotten");
            assert_eq!(forgotten.waiting as usize, before.len(), "{stored} asked for as {asked}");
            assert!(before == all || before.is_empty(), "{stored} asked for as {asked}: {before:?}, not {all:?}");
            assert_eq!(listed(&queue, asked).await, [0_u128; 0]);
        }
        let left = queue.messages(Filter::default(), None, 100).await.expect("listed").messages;
        assert_eq!(left.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), [50], "and nobody else");
    }
}

#[tokio::test]
async fn what_was_indexed_by_the_rule_of_version_4_is_found_at_once_and_indexed_anew() {
    for is_forgotten_at_once in [true, false] {
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
                for hash in super::super::recipients::hashes_before(new.user.as_deref(), new.email.as_deref())
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
        // Before anything is indexed anew what was found before is found.
        assert_eq!(listed(&queue, "a@example.com").await, [4]);
        if !is_forgotten_at_once {
            queue.maintain(at(2_000)).await.expect("maintained");
            assert_eq!(listed(&queue, "c@xn--bcher-kva.example").await, [6]);
            let left = queue.get_meta("rehash-through").await.expect("asked");
            assert_eq!(left, None, "it is done, once");
        }
        let forgotten = queue.erase(None, Some("c@xn--bcher-kva.example".to_owned())).await.expect("forgotten");
        assert_eq!(forgotten.waiting, 1);
        let all = queue.erase(Some("ÜNÏ".to_owned()), None).await.expect("forgotten");
        assert_eq!(all.waiting as usize, FORMS.len() - 1);
        let rows = sqlite(&queue).writer.write(|writer| {
            let sql = "SELECT (SELECT count(*) FROM recipients) + (SELECT count(*) FROM uuids)";
            Ok(writer.db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(rows.await, Ok(0), "and no key of theirs is left");
    }
}
