//! Reads a database of the build of 2026-11-30 (tests/upgrade/queue.sql, as SQL): no message is lost or changed, whether it waits, is in
//! flight or is settled.
//!
//! With `ACE_WRITE_UPGRADE=1` the current build writes the file if it is missing. That is needed only for a new version of the tables,
//! under another name.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::sqlite::dump::dump;

/// Batches, by their uuids.
const RECEIVING: Uuid = Uuid::from_u128(0xb1);
const SENDING: Uuid = Uuid::from_u128(0xb2);
const PAUSED: Uuid = Uuid::from_u128(0xb3);
const CANCELLED: Uuid = Uuid::from_u128(0xb4);
const GIVEN_UP: Uuid = Uuid::from_u128(0xb5);
const RELAY: &str = "relay main";

/// Messages, by the number in their uuids.
const SINGLE: u128 = 1;
const LATER: u128 = 2;
const LIMITED: u128 = 3;
const SUSPECT: u128 = 4;
const IN_FLIGHT: u128 = 5;
const RECORDED: u128 = 6;
const AGAIN: u128 = 7;
const RETRIED: u128 = 8;
/// The first message of each group: waiting with each form of progress, settled with each state, in batches.
const WITH_PROGRESS: u128 = 100;
const SETTLED: u128 = 200;
const MEMBERS: u128 = 300;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/upgrade"))
}

/// The values in a file of stored JSON, in order.
fn stored(name: &str) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(folder().join(name)).expect("it is committed");
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    let bytes = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes();
    all.into_iter().map(|(name, value)| (name, bytes(value))).collect()
}

fn one(file: &str, name: &str) -> Vec<u8> {
    stored(file).into_iter().find(|(known, _)| known == name).expect("it is there").1
}

fn message(number: u128, priority: Priority) -> New {
    let name = if priority > ORDINARY { "personal" } else { "message" };
    let body = one("messages.json", name);
    let (user, email) = (Some("7".to_owned()), Some("Ada@Example.com".to_owned()));
    New { digest: digest(&number.to_le_bytes()), body, user, email, ..new(number, priority) }
}

fn event(number: u128) -> Vec<u8> {
    format!("{{\"type\":\"message.sent\",\"timestamp\":\"1970-01-01T00:16:41Z\",\"data\":{{\"n\":{number}}}}}")
        .into_bytes()
}

/// The states that a worker settles messages with, in the order of their numbers.
const STATES: [State; 6] =
    [State::Sent, State::MaybeSent, State::NotSent, State::Failed, State::Expired, State::Corrupt];

async fn claim_one(queue: &Queue, number: u128) -> Claimed {
    let claimed = claim(queue, 1, 1_000).await;
    assert_eq!(numbers(&claimed), [number]);
    claimed.into_iter().next().expect("one")
}

async fn settle_one(queue: &Queue, new: New, settlement: Settlement) {
    let number = new.uuid.as_u128();
    queue.accept(vec![New { priority: TRANSACTIONAL, ..new }], at(1_000)).await.expect("accepted");
    settle(queue, &[claim_one(queue, number).await], settlement).await;
}

/// Fills a database like a process that finally ends unexpectedly.
async fn fill(home: &Home) {
    // Three processes end while it is in flight.
    for _ in 0..3 {
        let queue = home.open();
        queue.accept(vec![message(SUSPECT, TRANSACTIONAL)], at(1_000)).await.expect("accepted");
        claim_one(&queue, SUSPECT).await;
    }
    let queue = home.open();
    queue.set_webhooks(vec!["crm".to_owned(), "audit".to_owned()]).await.expect("set");
    queue.put_meta("snapshot", "7".to_owned()).await.expect("written");
    fill_settled(&queue).await;
    fill_waiting(&queue).await;
    fill_batches(&queue).await;
    queue.end_webhook_delivery("crm".to_owned(), EventId(1)).await.expect("written");
    queue.retry_webhook_delivery("crm".to_owned(), EventId(2), at(5_000)).await.expect("written");
    let down = br#"{"type":"destination.down","timestamp":"1970-01-01T00:16:40Z","data":{"name":"main"}}"#;
    queue.emit(NewEvent { kind: "destination.down".into(), body: down.to_vec() }, at(1_002)).await.expect("written");
    // Last, so that nothing else is claimed.
    for number in [IN_FLIGHT, RECORDED] {
        queue.accept(vec![message(number, TRANSACTIONAL)], at(1_000)).await.expect("accepted");
        let claimed = claim_one(&queue, number).await;
        if number == RECORDED {
            settle(&queue, &[claimed], Settlement::Record { progress: one("progress.json", "recorded") }).await;
        }
    }
    let single = New { trace: Some("00-01-02-01".to_owned()), ..message(SINGLE, TRANSACTIONAL) };
    queue.accept(vec![single], at(1_000)).await.expect("accepted");
}

async fn fill_settled(queue: &Queue) {
    for (state, number) in STATES.into_iter().zip(SETTLED..) {
        let report = one("reports.json", "all");
        let kept = (state == State::Failed).then(|| one("progress.json", "mailed"));
        let settlement = match state {
            State::Corrupt => Settlement::Corrupt { report },
            _ => Settlement::Done(Done {
                event: Some(NewEvent { kind: "message.sent".into(), body: event(number) }),
                kept,
                ..Done::new(state, report)
            }),
        };
        settle_one(queue, message(number, ORDINARY), settlement).await;
    }
    let failed = || {
        let (report, kept) = (one("reports.json", "plain"), Some(one("progress.json", "mailed")));
        Settlement::Done(Done { kept, ..Done::new(State::Failed, report) })
    };
    let (discarded, cancelled) = (SETTLED + 10, SETTLED + 11);
    settle_one(queue, message(discarded, ORDINARY), failed()).await;
    queue.discard(Uuid::from_u128(discarded)).await.expect("discarded");
    queue.accept(vec![message(cancelled, ORDINARY)], at(1_000)).await.expect("accepted");
    queue.cancel(Uuid::from_u128(cancelled), at(1_001)).await.expect("cancelled");
    settle_one(queue, New { limit: Some(vec!["email".to_owned()]), ..message(AGAIN, ORDINARY) }, done(State::Sent))
        .await;
    let again = New { limit: Some(vec!["sms".to_owned()]), ..message(AGAIN, ORDINARY) };
    assert_eq!(queue.accept(vec![again], at(1_000)).await, Ok(vec![Accepted::Extended]));
    settle(queue, &claim(queue, 1, 1_000).await, Settlement::Release).await;
    queue.cancel(Uuid::from_u128(AGAIN), at(1_001)).await.expect("cancelled");
    settle_one(queue, message(RETRIED, ORDINARY), failed()).await;
}

async fn fill_waiting(queue: &Queue) {
    for ((name, progress), number) in stored("progress.json").into_iter().zip(WITH_PROGRESS..) {
        let destinations = vec![RELAY.to_owned(), "https://api.example.com".to_owned()];
        let settlement = if name.starts_with("waits-for") {
            Settlement::Block { due: at(9_000), progress, destinations }
        } else {
            Settlement::Defer { due: at(8_000), progress }
        };
        settle_one(queue, message(number, ORDINARY), settlement).await;
    }
    queue.retry(Uuid::from_u128(RETRIED), at(7_000)).await.expect("retried");
    let later = New { not_before: Some(at(6_000)), ..message(LATER, ORDINARY) };
    let limited = New { limit: Some(vec!["email".to_owned(), "smtp".to_owned()]), ..message(LIMITED, ORDINARY) };
    queue.accept(vec![later, limited], at(1_000)).await.expect("accepted");
}

async fn fill_batches(queue: &Queue) {
    let kind = one("messages.json", "kind");
    let resolver = Resolver { plugin: "enrolments".to_owned(), arguments: r#"{"course":"a"}"#.to_owned() };
    for uuid in [RECEIVING, GIVEN_UP] {
        let batch = queue
            .create_resolved_batch(new_batch(uuid, kind.clone()), resolver.clone(), at(1_000))
            .await
            .expect("created");
        queue.page_accepted(batch.priority, Some("page 2".to_owned()), at(1_001)).await.expect("written");
        let again = (uuid == RECEIVING).then(|| at(4_000));
        queue.page_failed(batch.priority, "it timed out".to_owned(), again).await.expect("written");
    }
    for (uuid, members) in [SENDING, PAUSED, CANCELLED].into_iter().zip([MEMBERS, MEMBERS + 100, MEMBERS + 200]) {
        let batch = queue.create_batch(new_batch(uuid, kind.clone()), at(1_000)).await.expect("created");
        let members: Vec<New> = (members..members + 5).map(|number| message(number, batch.priority)).collect();
        queue.accept(members, at(1_000)).await.expect("accepted");
    }
    queue.complete_batch(SENDING).await.expect("complete");
    queue.pause_batch(PAUSED).await.expect("paused");
    queue.cancel_batch(CANCELLED, at(1_001)).await.expect("cancelled");
}

/// The earlier database, in a folder of its own.
async fn earlier_home() -> Home {
    let sql = folder().join("queue.sql");
    if std::env::var_os("ACE_WRITE_UPGRADE").is_some() && !sql.exists() {
        let home = Home::new();
        fill(&home).await;
        std::fs::write(&sql, dump(&home.settings().database)).expect("written");
    }
    let home = Home::new();
    let db = Connection::open(home.settings().database).expect("opened");
    db.execute_batch(&std::fs::read_to_string(sql).expect("it is committed")).expect("loaded");
    home
}

async fn kept(queue: &Queue, number: u128) -> Stored {
    queue.message(Uuid::from_u128(number)).await.expect("asked").unwrap_or_else(|| panic!("{number} is not there"))
}

#[tokio::test]
async fn settled_messages_are_unchanged() {
    let (home, report) = (earlier_home().await, one("reports.json", "all"));
    let queue = home.open();
    for (state, number) in STATES.into_iter().zip(SETTLED..) {
        let kept = kept(&queue, number).await;
        assert_eq!((kept.state, kept.report), (state, Some(report.clone())), "{number}");
        assert_eq!((kept.accepted, kept.settled), (at(1_000), Some(at(1_001))));
        assert_eq!(kept.body.is_some(), state.is_dead());
        let wanted = (state == State::Failed).then(|| one("progress.json", "mailed"));
        assert_eq!(kept.progress, wanted, "{number}");
        assert_eq!(
            (kept.name.as_str(), kept.user.as_deref(), kept.email.as_deref()),
            ("app.note", Some("7"), Some("Ada@Example.com"))
        );
    }
    let discarded = kept(&queue, SETTLED + 10).await;
    assert_eq!((discarded.state, discarded.report), (State::Discarded, Some(one("reports.json", "plain"))));
    for number in [SETTLED + 11, AGAIN] {
        assert_eq!(kept(&queue, number).await.state, State::Cancelled);
    }
    assert_eq!(queue.get_meta("snapshot").await, Ok(Some("7".to_owned())));
    let filter = Filter { email: Some("ada@example.com".to_owned()), ..Filter::default() };
    let found = queue.messages(filter, None, 100).await.expect("asked").messages.len();
    assert_eq!(found, 6 + 8 + stored("progress.json").len() + 2 + 15, "all her messages");
    let same = queue.accept(vec![message(SETTLED, ORDINARY)], at(2_000)).await;
    assert_eq!(same, Ok(vec![Accepted::Same(State::Sent)]));
    let discarded = queue.accept(vec![New { limit: Some(Vec::new()), ..message(AGAIN, ORDINARY) }], at(2_000)).await;
    assert_eq!(discarded, Ok(vec![Accepted::Ended(State::Cancelled)]));
}

#[tokio::test]
async fn waiting_messages_are_unchanged() {
    let home = earlier_home().await;
    let queue = home.open();
    assert_eq!(queue.blocked(), [(RELAY.to_owned(), 2), ("https://api.example.com".to_owned(), 2)].into());
    for ((name, progress), number) in stored("progress.json").into_iter().zip(WITH_PROGRESS..) {
        let kept = kept(&queue, number).await;
        let due = if name.starts_with("waits-for") { 9_000 } else { 8_000 };
        assert_eq!((kept.state, kept.due, kept.progress), (State::Queued, Some(at(due)), Some(progress)), "{name}");
    }
    assert_eq!(kept(&queue, LATER).await.due, Some(at(6_000)));
    assert_eq!(kept(&queue, RETRIED).await.progress, Some(one("progress.json", "mailed")));
    assert_eq!(queue.unblock(RELAY.to_owned(), 10, false).await, Ok(2));
    let suspect = queue.claim_suspect(at(2_000)).await.expect("claimed").expect("it is due");
    assert_eq!((suspect.uuid.as_u128(), suspect.interruptions, suspect.interrupted.len()), (SUSPECT, 3, 3));
    let claimed: BTreeMap<u128, Claimed> =
        claim(&queue, 100, 10_000).await.into_iter().map(|claimed| (claimed.uuid.as_u128(), claimed)).collect();
    let waited = [SINGLE, LATER, LIMITED, IN_FLIGHT, RECORDED, RETRIED].into_iter();
    let wanted = waited.chain(WITH_PROGRESS..WITH_PROGRESS + 10).chain(MEMBERS..MEMBERS + 5);
    assert_eq!(claimed.keys().copied().collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    assert!(claimed.values().all(|claimed| claimed.damage.is_none()));
    let (body, personal) = (one("messages.json", "message"), one("messages.json", "personal"));
    for (number, claimed) in &claimed {
        let wanted = if *number >= MEMBERS { (&personal, Some(one("messages.json", "kind"))) } else { (&body, None) };
        assert_eq!((&claimed.body, claimed.kind.as_deref().map(<[u8]>::to_vec)), wanted, "{number}");
        assert_eq!(claimed.is_in_doubt(), [IN_FLIGHT, RECORDED].contains(number), "{number}");
    }
    assert_eq!(claimed[&RECORDED].progress, Some(one("progress.json", "recorded")));
    assert_eq!(claimed[&SINGLE].trace.as_deref(), Some("00-01-02-01"));
    assert_eq!(claimed[&LIMITED].limits, Some(vec![vec!["email".to_owned(), "smtp".to_owned()]]));
    assert_eq!((claimed[&RETRIED].since, claimed[&RETRIED].accepted), (at(7_000), at(1_000)));
}

#[tokio::test]
async fn batches_resolvers_events_and_webhook_deliveries_are_unchanged() {
    let home = earlier_home().await;
    let queue = home.open();
    let states =
        [BatchState::Receiving, BatchState::Sending, BatchState::Paused, BatchState::Cancelled, BatchState::Failed];
    for (uuid, state) in [RECEIVING, SENDING, PAUSED, CANCELLED, GIVEN_UP].into_iter().zip(states) {
        let batch = queue.batch(uuid).await.expect("asked").expect("it is there");
        assert_eq!((batch.state, batch.created), (state, at(1_000)));
        let of = |state| (state, 5);
        let wanted = match batch.state {
            BatchState::Sending | BatchState::Paused => [of(State::Queued)].into(),
            BatchState::Cancelled => [of(State::Cancelled)].into(),
            _ => BTreeMap::new(),
        };
        assert_eq!(batch.by_state.into_iter().filter(|(_, n)| *n > 0).collect::<BTreeMap<_, _>>(), wanted);
    }
    let (pages, next) = queue.due_pages(10, at(4_000)).await.expect("asked");
    assert_eq!((pages.len(), next), (1, None));
    assert_eq!((pages[0].batch.uuid, pages[0].failures, pages[0].cursor.as_deref()), (RECEIVING, 1, Some("page 2")));
    assert_eq!((&*pages[0].resolver.plugin, &*pages[0].resolver.arguments), ("enrolments", r#"{"course":"a"}"#));
    let events = queue.events(EventId::START, 100).await.expect("asked");
    assert_eq!((events.events.len(), events.last, events.pruned), (6, EventId(6), EventId(0)));
    assert_eq!((&events.events[2].body, events.events[2].at), (&event(SETTLED + 2), at(1_001)));
    let kinds: Vec<&str> = events.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, [["message.sent"; 5].as_slice(), &["destination.down"]].concat(), "in the new column");
    let calls = |hook: &str, second| queue.webhook_deliveries(hook.to_owned(), 100, at(second));
    assert_eq!(calls("audit", 2_000).await.expect("asked").len(), 6);
    assert_eq!(calls("crm", 2_000).await.expect("asked").len(), 4);
    let crm = calls("crm", 5_000).await.expect("asked");
    let again = crm.iter().find(|call| call.event.id == EventId(2)).expect("it is retried");
    assert_eq!((crm.len(), again.attempts, &again.event.body), (5, 1, &event(SETTLED + 1)));
}
