//! Damage of every kind: it affects one row, and all others are processed.

use rusqlite::Connection;

use super::*;
use crate::sqlite::damage::testing;

/// Damages the file, which must not be open.
fn spoil(home: &Home, sql: &str) {
    testing::spoil(&home.settings().database, sql);
}

/// Makes a table accept values of any type.
fn loosen(home: &Home, table: &str) {
    spoil(home, &format!("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = '{table}'"));
    spoil(home, &format!("UPDATE sqlite_schema SET sql = rtrim(sql, ' ,') WHERE name = '{table}'"));
}

/// Overwrites the page that contains `text`.
pub(super) fn spoil_page(home: &Home, text: &str) {
    spoil_page_with(home, text.as_bytes());
}

fn spoil_page_with(home: &Home, part: &[u8]) {
    const PAGE: usize = 16 * 1024;
    let file = home.settings().database;
    spoil(home, "");
    let mut bytes = std::fs::read(&file).expect("read");
    let at = memchr::memmem::find(&bytes, part).unwrap_or_else(|| panic!("{} is not in the file", part.escape_ascii()));
    let page = at / PAGE * PAGE;
    assert!(page > 0, "not the first page, which has the header");
    bytes[page..page + PAGE].fill(0x5a);
    std::fs::write(&file, bytes).expect("written");
}

/// Sends all messages that can be claimed, and returns their numbers. Damaged ones are set aside.
pub(super) async fn send_all(queue: &Queue) -> Vec<u128> {
    let mut sent = Vec::new();
    for _ in 0..50 {
        let claimed = claim(queue, 20, 2_000).await;
        if claimed.is_empty() {
            sent.sort_unstable();
            return sent;
        }
        for one in claimed {
            let damage = one.damage.clone();
            let how = match &damage {
                Some(why) => Settlement::Corrupt { report: why.clone().into_bytes() },
                None => done(State::Sent),
            };
            sent.extend(damage.is_none().then_some(one.uuid.as_u128()));
            settle(queue, &[one], how).await;
        }
    }
    panic!("it does not terminate: {sent:?}");
}

/// A message with a long body, so that a page holds few of them.
fn long(number: u128, priority: Priority) -> New {
    let body = format!("body-{number}-{}", "x".repeat(5_000)).into_bytes();
    New { digest: digest(&body), body, ..new(number, priority) }
}

async fn stop_and(queue: Queue, home: &Home, spoil_it: impl FnOnce(&Home)) -> Queue {
    drop(queue);
    // The thread closes the file soon after that.
    let file = home.settings().database;
    for _ in 0..500 {
        if !file.with_file_name("ace.db-wal").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    spoil_it(home);
    home.open()
}

#[tokio::test]
async fn a_value_of_a_wrong_type_affects_only_its_message() {
    let spoils = [
        "UPDATE messages SET email = CAST(x'ff40' AS TEXT) WHERE id = 3",
        "UPDATE messages SET user = CAST(x'c328' AS TEXT) WHERE id = 3",
        "UPDATE messages SET name = CAST(x'fe' AS TEXT) WHERE id = 3",
        "UPDATE messages SET trace = CAST(x'80' AS TEXT) WHERE id = 3",
        "UPDATE messages SET uuid = x'00' WHERE id = 3",
        "UPDATE messages SET body = NULL WHERE id = 3",
        "UPDATE messages SET accepted = 'yesterday' WHERE id = 3",
        "UPDATE messages SET in_doubt = 'perhaps' WHERE id = 3",
        "UPDATE messages SET interruptions = x'01' WHERE id = 3",
        "UPDATE messages SET email = x'6162' WHERE id = 3",
    ];
    for spoil_it in spoils {
        for is_in_flight in [false, true] {
            let home = Home::new();
            let queue = home.open();
            accept(&queue, 1..=5, ORDINARY).await;
            if is_in_flight {
                claim(&queue, 5, 1_000).await;
            }
            let queue = stop_and(queue, &home, |home| {
                loosen(home, "messages");
                spoil(home, spoil_it);
            })
            .await;
            accept(&queue, [6], ORDINARY).await;
            let sent = send_all(&queue).await;
            // These columns are overwritten when the message is requeued.
            let is_healed = is_in_flight && (spoil_it.contains("in_doubt") || spoil_it.contains("interruptions"));
            let is_readable = spoil_it.contains("body") || is_healed;
            assert_eq!(sent.iter().filter(|n| **n != 3).copied().collect::<Vec<_>>(), [1, 2, 4, 5, 6], "{spoil_it}");
            assert_eq!(sent.contains(&3), is_readable, "{spoil_it}: the worker sees that there is no body");
            let listed = queue.messages(Filter::default(), None, 10).await.expect("listed").messages;
            assert_eq!(listed.len(), 6, "{spoil_it}");
            let state = listed.iter().find(|m| m.id == MessageId(3)).expect("it is listed").state;
            assert_eq!(state, if is_readable { State::Sent } else { State::Corrupt }, "{spoil_it}");
            queue.maintain(at(40 * 86_400)).await.expect("maintained");
            assert_eq!(queue.messages(Filter::default(), None, 10).await.expect("listed").messages, [], "{spoil_it}");
            assert_eq!(queue.stats().await.expect("asked").waiting_ordinary, 0, "{spoil_it}");
        }
    }
}

#[tokio::test]
async fn rows_without_a_waiting_message_are_removed() {
    let spoils = [
        "DELETE FROM messages WHERE id = 3",
        "INSERT INTO queue (lane, due, id, n) VALUES (1, 0, 900, 1)",
        "INSERT INTO queue (lane, due, id, n) VALUES (1, 0, 4, 9000000000000000000)",
        "INSERT INTO queue (lane, due, id, n) VALUES (1, 0, 2, -5)",
        "INSERT INTO queue (lane, due, id, n) VALUES (7, 0, 901, 3)",
        "INSERT INTO queue (lane, due, id, n) VALUES (-1, 0, 902, 1)",
        "INSERT INTO claims (id, lane) VALUES (903, 1)",
        "INSERT INTO claims (id, lane) VALUES (2, 1)",
        "UPDATE messages SET state = 1, settled = 5 WHERE id = 3",
        "DELETE FROM uuids WHERE id = 3; DELETE FROM recipients",
        "DELETE FROM meta",
        "INSERT INTO recipients VALUES (1, 904)",
        "DELETE FROM tallies; INSERT INTO tallies VALUES (2, 99, 5)",
    ];
    for spoil_it in spoils {
        let home = Home::new();
        let queue = home.open();
        accept(&queue, 1..=5, ORDINARY).await;
        let queue = stop_and(queue, &home, |home| spoil(home, spoil_it)).await;
        accept(&queue, [6], TRANSACTIONAL).await;
        let mut sent = send_all(&queue).await;
        let suspect = queue.claim_suspect(at(9_000)).await.expect("asked");
        assert_eq!(suspect, None, "{spoil_it}");
        sent.retain(|n| *n != 3);
        assert_eq!(sent, [1, 2, 4, 5, 6], "{spoil_it}");
        let stats = queue.stats().await.expect("asked");
        let left = (stats.waiting_transactional, stats.waiting_ordinary, stats.waiting_batches, stats.in_flight);
        assert_eq!(left, (0, 0, 0, 0), "{spoil_it}: {stats:?}");
        assert_eq!(queue.health().claims, None, "{spoil_it}");
    }
}

#[tokio::test]
async fn a_damaged_page_affects_only_its_messages() {
    let home = Home::new();
    let queue = home.open();
    let news = (1..=60).map(|n| long(n, ORDINARY)).collect();
    queue.accept(news, at(1_000)).await.expect("accepted");
    // A start indexes all messages, so an unreadable one is found by its uuid.
    let queue = stop_and(queue, &home, |_| {}).await;
    let queue = stop_and(queue, &home, |home| spoil_page(home, "body-30-")).await;
    let lost: Vec<u128> = {
        let listed = queue.messages(Filter::default(), None, 500).await.expect("listed").messages;
        let there: Vec<u128> = listed.iter().map(|m| m.uuid.as_u128()).collect();
        (1..=60).filter(|n| !there.contains(n)).collect()
    };
    assert!(lost.contains(&30) && lost.len() < 10, "{lost:?}");
    assert_eq!(send_all(&queue).await, (1..=60).filter(|n| !lost.contains(n)).collect::<Vec<_>>());
    accept(&queue, [100], ORDINARY).await;
    assert_eq!(send_all(&queue).await, [100]);
    let stats = queue.stats().await.expect("asked");
    assert_eq!((stats.damaged, stats.waiting_ordinary, stats.in_flight), (lost.len() as u64, 0, 0));
    let one = queue.message(Uuid::from_u128(30)).await.expect("asked").expect("it is known");
    assert_eq!(one.state, State::Corrupt);
    assert!(String::from_utf8_lossy(&one.report.expect("why")).contains("damaged"));
    let pruned = maintain_until_done(&queue).await;
    assert_eq!(pruned, lost.len() as u64, "all others are deleted, also those on pages next to the damaged one");
    // A row that could not be deleted was emptied: it is not listed, and the same message can be submitted again.
    let queue = stop_and(queue, &home, |_| {}).await;
    let listed = queue.messages(Filter::default(), None, 500).await.expect("listed").messages;
    assert_eq!(listed, [], "damaged rows are skipped");
    accept(&queue, (31..=40).chain([100]), ORDINARY).await;
    assert_eq!(send_all(&queue).await, (31..=40).chain([100]).collect::<Vec<_>>());
    assert_eq!(maintain_until_done(&queue).await, lost.len() as u64);
    assert_eq!((queue.health().writes, queue.health().claims), (None, None));
}

/// Runs maintenance until nothing is left to do. Returns the number of damaged messages.
async fn maintain_until_done(queue: &Queue) -> u64 {
    let maintained = tokio::time::timeout(Duration::from_secs(60), queue.maintain(at(40 * 86_400))).await;
    maintained.expect("it terminates").expect("damage does not stop it");
    let left = queue.messages(Filter::default(), None, 500).await.expect("listed").messages;
    assert_eq!(left, []);
    queue.stats().await.expect("asked").damaged
}

#[tokio::test]
async fn erasure_counts_messages_on_a_damaged_page() {
    for is_settled in [false, true] {
        let home = Home::new();
        let queue = home.open();
        let name = |n| New { email: Some(format!("user{}@example.com", n % 2)), user: None, ..long(n, ORDINARY) };
        queue.accept((1..=60).map(name).collect(), at(1_000)).await.expect("accepted");
        if is_settled {
            let claimed = claim(&queue, 60, 1_000).await;
            settle(&queue, &claimed, done(State::Failed)).await;
        }
        let queue = stop_and(queue, &home, |_| {}).await;
        let queue = stop_and(queue, &home, |home| spoil_page(home, "body-30-")).await;
        let listed = queue.messages(Filter::default(), None, 500).await.expect("listed").messages;
        let there: Vec<u128> = listed.iter().map(|m| m.uuid.as_u128()).collect();
        let (lost, readable) = ((1..=60).filter(|n| n % 2 == 0 && !there.contains(n)).count() as u64, there.len());
        let erased = queue.erase(None, Some("user0@example.com".to_owned())).await.expect("erased");
        assert!((1..5).contains(&lost), "{lost}");
        assert_eq!((erased.waiting + erased.settled, erased.damaged), (30 - lost, lost), "{is_settled}");
        let listed = queue.messages(Filter::default(), None, 500).await.expect("listed").messages;
        assert_eq!(listed.len() as u64, readable as u64 - (30 - lost), "those of others are there: {is_settled}");
        assert!(listed.iter().all(|m| m.uuid.as_u128() % 2 == 1));
        let again = queue.erase(None, Some("user0@example.com".to_owned())).await.expect("erased");
        assert_eq!((again.waiting, again.settled, again.damaged), (0, 0, lost), "no more than before");
        // Nothing of them is on the disk, not even on pages next to the damaged one.
        queue.maintain(at(1_000)).await.expect("maintained");
        let queue = stop_and(queue, &home, |home| spoil(home, "")).await;
        drop(queue);
        let bytes = std::fs::read(home.settings().database).expect("read");
        let found = |n: &u128| memchr::memmem::find(&bytes, format!("body-{n}-").as_bytes()).is_some();
        assert_eq!((1..=60).filter(|n| n % 2 == 0).filter(found).collect::<Vec<_>>(), [0_u128; 0], "{is_settled}");
        assert!(found(&1) && found(&59));
    }
}

#[tokio::test]
async fn damage_in_the_table_of_blocked_messages_delays_no_other_message() {
    let down = || vec!["relay:main".to_owned()];
    let block = |second| Settlement::Block { due: at(second), progress: b"half".to_vec(), destinations: down() };
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=5, ORDINARY).await;
    let claimed = claim(&queue, 5, 1_000).await;
    settle(&queue, &claimed, block(9_000)).await;
    let queue = stop_and(queue, &home, |home| {
        loosen(home, "parked");
        spoil(home, "UPDATE parked SET destination = CAST(x'ff' AS TEXT) WHERE id = 2; UPDATE parked SET lane = 'x' WHERE id = 3");
    })
    .await;
    assert_eq!(queue.blocked().get("relay:main"), Some(&4));
    assert_eq!(queue.unblock("relay:main".to_owned(), 10, false).await.expect("brought back"), 3);
    assert_eq!(numbers(&claim(&queue, 9, 1_100).await), [1, 4, 5]);
    assert_eq!(numbers(&claim(&queue, 9, 9_000).await), [2, 3], "when their time is over");

    let home = Home::new();
    let queue = home.open();
    // So many that the table has several pages.
    let many = 1..=900_u128;
    queue.accept(many.clone().map(|n| new(n, ORDINARY)).collect(), at(1_000)).await.expect("accepted");
    let claimed = claim(&queue, 900, 1_000).await;
    let long = format!("relay:{}", "x".repeat(200));
    let settled = |one: &Claimed| {
        let settlement =
            Settlement::Block { due: at(9_000), progress: b"half".to_vec(), destinations: vec![long.clone()] };
        Settled { id: one.id, claim: one.claim, settlement }
    };
    queue.settle(claimed.iter().map(settled).collect(), at(1_000)).await.expect("blocked");
    let queue = stop_and(queue, &home, |home| testing::spoil_leaf(&home.settings().database, "parked", 1)).await;
    let mut back = Vec::new();
    for in_turn in [true, false, true, false, true, false] {
        queue.unblock(long.clone(), 200, in_turn).await.expect("brought back");
        let claimed = claim(&queue, 900, 1_100).await;
        settle(&queue, &claimed, done(State::Sent)).await;
        back.extend(numbers(&claimed));
    }
    back.sort_unstable();
    assert_eq!(back, many.collect::<Vec<_>>(), "the index leads to them all, once");
    accept(&queue, [1_000], ORDINARY).await;
    let claimed = claim(&queue, 9, 1_200).await;
    settle(
        &queue,
        &claimed,
        Settlement::Block { due: at(9_000), progress: b"half".to_vec(), destinations: vec![long] },
    )
    .await;
    assert_eq!(queue.stats().await.expect("asked").damaged, 0);
    assert!(numbers(&claim(&queue, 9, 9_000).await).contains(&1_000), "it was blocked all the same");
}

#[tokio::test]
async fn a_message_whose_settlement_cannot_be_written_is_not_sent_again() {
    let home = Home::new();
    let queue = home.open();
    queue.accept((1..=60).map(|n| long(n, ORDINARY)).collect(), at(1_000)).await.expect("accepted");
    let claimed = claim(&queue, 60, 1_000).await;
    // The page is damaged while they are in flight. SQLite drops its cache after another connection wrote.
    spoil(&home, "");
    spoil_page_below(&home, "body-30-").await;
    settle(&queue, &claimed, done(State::Sent)).await;
    let stats = queue.stats().await.expect("asked");
    assert_eq!((stats.in_flight, stats.waiting_ordinary), (0, 0));
    assert!((1..10).contains(&stats.damaged), "{stats:?}");
    for number in [1, 10, 50, 60] {
        assert_eq!(state(&queue, number).await, State::Sent);
    }
    drop(queue);
    let queue = home.open();
    assert_eq!(send_all(&queue).await, [0_u128; 0], "also after a new start");
}

/// As [`spoil_page`], for an open queue.
async fn spoil_page_below(home: &Home, text: &str) {
    spoil_page(home, text);
    let db = Connection::open(home.settings().database).expect("opened");
    db.execute_batch("INSERT OR REPLACE INTO meta VALUES ('spoilt', '1')").expect("written");
}

#[tokio::test]
async fn damaged_batches_and_events_affect_nothing_else() {
    let home = Home::new();
    let queue = home.open();
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("created");
    let other = queue.create_batch(new_batch(Uuid::from_u128(78), b"t".to_vec()), at(1_000)).await.expect("created");
    accept(&queue, 1..=3, batch.priority).await;
    accept(&queue, 4..=6, other.priority).await;
    accept(&queue, 7..=9, ORDINARY).await;
    let claimed = claim(&queue, 3, 1_000).await;
    let event = |n: u8| Some(vec![b'0' + n]);
    for (n, one) in claimed.iter().enumerate() {
        let done = Settlement::Done(Done {
            event: event(n as u8).map(|body| NewEvent { kind: "message.sent".into(), body }),
            ..Done::new(State::Sent, b"{}".to_vec())
        });
        settle(&queue, std::slice::from_ref(one), done).await;
    }
    let queue = stop_and(queue, &home, |home| {
        loosen(home, "batches");
        loosen(home, "events");
        loosen(home, "calls");
        spoil(home, "UPDATE batches SET kind = 5, state = 'x' WHERE lane = 2");
        spoil(home, "UPDATE events SET body = 7 WHERE id = 2");
        spoil(home, "DELETE FROM events WHERE id = 1");
        spoil(home, "INSERT INTO calls (hook, event, due, attempts) VALUES (CAST(x'ff' AS TEXT), 3, 0, 0)");
        spoil(home, "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'run'");
    })
    .await;
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    let calls = queue.webhook_deliveries("audit".to_owned(), 10, at(9_000)).await.expect("asked");
    assert_eq!(calls.iter().map(|call| call.event.id.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(queue.stats().await.expect("asked").webhook_deliveries, 2, "one that has no event is dropped");
    assert_eq!(queue.events(EventId::START, 10).await.expect("asked").events.len(), 2);
    let sent = send_all(&queue).await;
    assert_eq!(sent.iter().filter(|n| **n > 3).count() + claimed.iter().filter(|c| c.uuid.as_u128() > 3).count(), 6);
    assert_eq!(queue.batches(10).await.expect("listed").len(), 2);
}

#[tokio::test]
async fn a_damaged_resolver_is_reported_and_others_are_not_affected() {
    let home = Home::new();
    let queue = home.open();
    let resolver = Resolver { plugin: "enrolled".to_owned(), arguments: "{}".to_owned() };
    for number in 1..=3_u128 {
        let batch = new_batch(Uuid::from_u128(number), b"t".to_vec());
        queue.create_resolved_batch(batch, resolver.clone(), at(1_000)).await.expect("created");
    }
    let queue = stop_and(queue, &home, |home| {
        spoil(
            home,
            "UPDATE resolving SET cursor = CAST(x'ff' AS TEXT) WHERE lane = 2; DELETE FROM batches WHERE lane = 3",
        );
    })
    .await;
    let (due, _) = queue.due_pages(10, at(2_000)).await.expect("asked");
    let damage: Vec<_> = due.iter().map(|one| (one.batch.uuid.as_u128(), one.damage.clone())).collect();
    assert_eq!(damage, [(1, Some("cursor is not UTF-8".to_owned())), (3, None)]);
}

#[tokio::test]
async fn a_failed_change_affects_only_its_caller() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let hold = sqlite(&queue).writer.write(|_| {
        // The next writes gather meanwhile.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    });
    let fail = sqlite(&queue).writer.write(|writer| {
        writer.db.execute("INSERT INTO messages (id, uuid) VALUES (1, x'00')", [])?;
        Ok(())
    });
    let (one, two) = (queue.accept(vec![new(2, ORDINARY)], at(1_000)), queue.accept(vec![new(3, ORDINARY)], at(1_000)));
    let (hold, one, fail, two) = tokio::join!(hold, one, fail, two);
    assert!(hold.is_ok() && matches!(fail, Err(QueueError::Damaged(_))), "{fail:?}");
    assert!(matches!(one.as_deref(), Ok([Accepted::New(_)])) && matches!(two.as_deref(), Ok([Accepted::New(_)])));
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2, 3]);
    let health = queue.health();
    assert!(health.writes.is_none() && health.last_write.is_some() && health.last_claim.is_some(), "{health:?}");
}

#[tokio::test]
async fn failed_writes_are_reported_until_they_work_again() {
    let home = Home::new();
    let queue = home.open();
    let other = Connection::open(home.settings().database).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    assert!(queue.accept(vec![new(1, ORDINARY)], at(1_000)).await.is_err());
    assert!(queue.claim(Claim { max: 1, bulk_max: 1 }, at(1_000)).await.is_err());
    let health = queue.health();
    assert!(health.writes.is_some_and(|f| f.reason.contains("locked")) && health.claims.is_some());
    assert!(queue.maintain(at(1_000)).await.is_err());
    other.execute_batch("ROLLBACK").expect("let go");
    queue.maintain(at(1_000)).await.expect("written");
    claim(&queue, 1, 1_000).await;
    assert_eq!((queue.health().writes, queue.health().claims), (None, None));
}

/// A message whose row is damaged is submitted again.
#[tokio::test]
async fn submitting_a_damaged_message_again_fails_and_other_messages_are_accepted() {
    let home = Home::new();
    let queue = home.open();
    queue.accept((1..=60).map(|n| long(n, ORDINARY)).collect(), at(1_000)).await.expect("accepted");
    let queue = stop_and(queue, &home, |_| {}).await;
    let queue = stop_and(queue, &home, |home| spoil_page(home, "body-30-")).await;
    for round in 0..5 {
        let hold = sqlite(&queue).writer.write(|_| {
            // The next writes gather meanwhile, and are committed together.
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        let again = queue.accept(vec![long(30, ORDINARY)], at(1_000));
        let other = queue.accept(vec![new(100 + round, ORDINARY)], at(1_000));
        let (hold, again, other) = tokio::join!(hold, again, other);
        assert!(hold.is_ok());
        assert_eq!(again.as_deref(), Ok(&[Accepted::Same(State::Corrupt)][..]));
        assert!(matches!(other.as_deref(), Ok([Accepted::New(_)])), "{other:?}");
    }
    assert_eq!(queue.health().writes, None, "the store accepts messages");
    let sent = send_all(&queue).await;
    assert!((100..105).all(|number| sent.contains(&number)) && sent.len() > 55, "{sent:?}");
}

/// Rows of new messages are added to the last page. If it is damaged, the start replaces it.
#[tokio::test]
async fn a_damaged_last_page_is_replaced() {
    for (count, is_sent) in [(1, false), (8, false), (60, true), (400, false)] {
        let home = Home::new();
        let queue = home.open();
        queue.accept((1..=count).map(|n| long(n, ORDINARY)).collect(), at(1_000)).await.expect("accepted");
        if is_sent {
            assert_eq!(send_all(&queue).await.len() as u128, count);
        }
        let queue = stop_and(queue, &home, |_| {}).await;
        let queue = stop_and(queue, &home, |home| spoil_page_with(home, &long(count, ORDINARY).digest)).await;
        let answer = queue.accept((1_000..1_003).map(|n| new(n, ORDINARY)).collect(), at(1_000)).await;
        let answer = answer.expect("accepted");
        assert!(answer.iter().all(|one| matches!(one, Accepted::New(id) if id.0 > count as i64)), "{answer:?}");
        let sent = send_all(&queue).await;
        let lost = (1..=count).filter(|number| !is_sent && !sent.contains(number)).count();
        assert!(lost <= 15 && (is_sent || lost > 0) && sent.ends_with(&[1_000, 1_001, 1_002]), "{count}: {sent:?}");
        assert!(queue.health().writes.is_none(), "the queue is healthy");
        queue.maintain(at(40 * 86_400)).await.expect("maintained");
        assert_eq!(queue.messages(Filter::default(), None, 500).await.expect("listed").messages, []);
        let kept = std::fs::read_dir(home.settings().database.parent().expect("a folder")).expect("read").flatten();
        assert_eq!(kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("ace.db.page-")).count(), 1);
        // The file is valid after that.
        let queue = stop_and(queue, &home, |_| {}).await;
        queue.accept(vec![new(2_000, ORDINARY)], at(50 * 86_400)).await.expect("accepted");
        let db = Connection::open(home.settings().database).expect("opened");
        let rows: i64 =
            db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("every page is read");
        assert_eq!(rows, 2, "the new message, and the row of the new page");
    }
}
