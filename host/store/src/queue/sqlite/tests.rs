//! What any engine behind [`Queue`] must do: written against its front alone. A process that dies is a queue that is dropped
//! and opened anew.
//!
//! - [`properties`]: random work beside a model
//! - [`clocks`]: a wall clock that jumps
//! - [`damage`]: files as no ACE writes them
//! - [`earlier`]: a database of an earlier build
//! - [`files`]: what happens to the file from outside
//! - [`parked`]: messages that wait for a relay that is down
//! - [`limits`]: the same message for further channel types
//! - [`recipients`]: one rule for whom a message is for
//! - [`suspects`]: processes that end with messages under way
//! - [`upgrade`]: tables of an earlier version in a damaged file

mod clocks;
mod damage;
mod earlier;
mod files;
mod limits;
mod parked;
mod properties;
mod recipients;
mod suspects;
mod upgrade;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::queue::{Queue, Store, digest};

const TRANSACTIONAL: Priority = Priority::TRANSACTIONAL;
const ORDINARY: Priority = Priority::ORDINARY;

/// The engine behind the front.
fn sqlite(queue: &Queue) -> &Sqlite {
    let Store::Sqlite(sqlite) = &queue.store;
    sqlite
}

fn new_batch(uuid: Uuid, kind: Vec<u8>) -> NewBatch {
    NewBatch { uuid, digest: digest(&kind), kind }
}

fn event(kind: &'static str) -> NewEvent {
    NewEvent { kind: kind.into(), body: b"{}".to_vec() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// A queue in a folder of its own; the folder goes with it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().expect("a folder"))
    }

    fn settings(&self) -> Settings {
        Settings { database: self.0.path().join("ace.db"), disk_reserve: 0, ..Default::default() }
    }

    fn open(&self) -> Queue {
        Queue::open(&self.settings(), at(1_000)).unwrap_or_else(|e| panic!("{e}"))
    }
}

fn new(number: u128, priority: Priority) -> New {
    let body = format!("{{\"n\": {number}}}").into_bytes();
    New {
        uuid: Uuid::from_u128(number),
        digest: digest(&body),
        priority,
        name: "app.note".to_owned(),
        user: Some(format!("{}", number % 7)),
        email: Some(format!("user{}@example.com", number % 7)),
        not_before: None,
        trace: None,
        body,
        limit: None,
        claim: false,
    }
}

async fn accept(queue: &Queue, numbers: impl IntoIterator<Item = u128>, priority: Priority) {
    let news: Vec<New> = numbers.into_iter().map(|n| new(n, priority)).collect();
    let accepted = queue.accept(news, at(1_000)).await.expect("accepted");
    assert!(accepted.iter().all(|a| matches!(a, Accepted::New(_))), "{accepted:?}");
}

async fn claim(queue: &Queue, max: usize, second: i64) -> Vec<Claimed> {
    queue.claim(Claim { max, bulk_max: max }, at(second)).await.expect("claimed").messages
}

fn numbers(claimed: &[Claimed]) -> Vec<u128> {
    claimed.iter().map(|c| c.uuid.as_u128()).collect()
}

async fn settle(queue: &Queue, claimed: &[Claimed], settlement: Settlement) {
    let settled =
        claimed.iter().map(|c| Settled { id: c.id, claim: c.claim, settlement: settlement.clone() }).collect();
    queue.settle(settled, at(1_001)).await.expect("settled");
}

fn done(state: State) -> Settlement {
    Settlement::Done { state, report: b"{\"report\": 1}".to_vec(), event: None, kept: None }
}

fn again(second: i64) -> Settlement {
    Settlement::Defer { due: at(second), progress: b"half-way".to_vec() }
}

async fn state(queue: &Queue, number: u128) -> State {
    queue.message(Uuid::from_u128(number)).await.expect("asked").expect("it is there").state
}

#[tokio::test]
async fn a_message_is_accepted_claimed_and_settled_once() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let claimed = claim(&queue, 10, 1_000).await;
    assert_eq!(claimed[0].body, b"{\"n\": 1}");
    assert!(!claimed[0].is_in_doubt() && claimed[0].progress.is_none());
    assert!(claim(&queue, 10, 2_000).await.is_empty(), "it is under way");
    settle(&queue, &claimed, done(State::Sent)).await;
    assert!(claim(&queue, 10, 9_000).await.is_empty());
    let kept = queue.message(Uuid::from_u128(1)).await.expect("asked").expect("it is kept");
    assert_eq!((kept.state, kept.settled), (State::Sent, Some(at(1_001))));
    assert_eq!((kept.report.as_deref(), kept.body), (Some(&b"{\"report\": 1}"[..]), None), "its context is erased");
}

#[tokio::test]
async fn the_same_message_again_is_the_same_and_another_under_its_uuid_is_a_conflict() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let mut other = new(1, ORDINARY);
    other.digest = digest(b"other");
    let answers = queue.accept(vec![new(1, ORDINARY), other, new(2, ORDINARY)], at(1_000)).await.expect("accepted");
    assert!(
        matches!(answers[..], [Accepted::Same(State::Queued), Accepted::Conflict, Accepted::New(_)]),
        "{answers:?}"
    );
    let claimed = claim(&queue, 10, 1_000).await;
    settle(&queue, &claimed, done(State::Sent)).await;
    let answers = queue.accept(vec![new(1, ORDINARY)], at(1_000)).await.expect("accepted");
    assert_eq!(answers, [Accepted::Same(State::Sent)], "remembered while it is kept");
    assert!(claim(&queue, 10, 1_000).await.is_empty());
}

#[tokio::test]
async fn transactional_goes_first_and_no_batch_starves_another() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 100..300, Priority(2)).await;
    accept(&queue, 300..500, Priority(3)).await;
    accept(&queue, 500..520, ORDINARY).await;
    accept(&queue, 1..5, TRANSACTIONAL).await;
    let first = claim(&queue, 52, 1_000).await;
    assert_eq!(numbers(&first[..4]), [1, 2, 3, 4]);
    let of = |priority: Priority| first.iter().filter(|c| c.priority == priority).count();
    assert_eq!((of(ORDINARY), of(Priority(2)), of(Priority(3))), (16, 16, 16), "each in its turn");
    accept(&queue, [5], TRANSACTIONAL).await;
    let none_of_bulk = queue.claim(Claim { max: 10, bulk_max: 0 }, at(1_000)).await.expect("claimed").messages;
    assert_eq!(numbers(&none_of_bulk), [5], "a worker that is kept for them takes nothing else");
}

#[tokio::test]
async fn a_message_waits_for_its_time() {
    let home = Home::new();
    let queue = home.open();
    let later = New { not_before: Some(at(1_500)), ..new(1, ORDINARY) };
    queue.accept(vec![later], at(1_000)).await.expect("accepted");
    let ClaimedBatch { messages: claimed, next, .. } =
        queue.claim(Claim { max: 5, bulk_max: 5 }, at(1_499)).await.expect("claimed");
    assert_eq!((claimed.len(), next), (0, Some(at(1_500))));
    let claimed = claim(&queue, 5, 1_500).await;
    settle(&queue, &claimed, again(1_600)).await;
    assert!(claim(&queue, 5, 1_599).await.is_empty());
    let taken_up = claim(&queue, 5, 1_600).await;
    assert_eq!(taken_up[0].progress.as_deref(), Some(&b"half-way"[..]));
    assert!(!taken_up[0].is_in_doubt());
}

/// The store keeps milliseconds: rounded down, a message would be handed out before its moment, and put back for nothing.
#[tokio::test]
async fn a_message_is_not_handed_out_within_the_millisecond_before_its_moment() {
    let home = Home::new();
    let queue = home.open();
    let ms = |ms| at(1_500) + jiff::SignedDuration::from_millis(ms);
    let due = ms(7) + jiff::SignedDuration::from_micros(300);
    let later = New { not_before: Some(due), ..new(1, ORDINARY) };
    queue.accept(vec![later], at(1_000)).await.expect("accepted");
    let ask = async |now| queue.claim(Claim { max: 5, bulk_max: 5 }, now).await.expect("claimed");
    let early = ask(ms(7)).await;
    assert_eq!((early.messages.len(), early.next), (0, Some(ms(8))));
    let claimed = ask(ms(8)).await.messages;
    let due = due + jiff::SignedDuration::from_millis(10);
    settle(&queue, &claimed, Settlement::Defer { due, progress: b"half-way".to_vec() }).await;
    assert!(ask(ms(17)).await.messages.is_empty());
    assert_eq!(ask(ms(18)).await.messages.len(), 1);
}

#[tokio::test]
async fn nothing_accepted_is_lost_with_the_process_and_what_was_under_way_comes_back_in_doubt() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=6, ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    settle(&queue, &claimed[..1], done(State::Sent)).await;
    settle(&queue, &claimed[1..2], again(1_000)).await;
    let at_once = New { claim: true, ..new(7, ORDINARY) };
    queue.accept(vec![at_once], at(1_000)).await.expect("accepted");
    drop(queue);

    let queue = home.open();
    let claimed = claim(&queue, 10, 2_000).await;
    let doubtful: Vec<u128> = claimed.iter().filter(|c| c.is_in_doubt()).map(|c| c.uuid.as_u128()).collect();
    let mut all = numbers(&claimed);
    all.sort_unstable();
    assert_eq!((all, doubtful), (vec![2, 3, 4, 5, 6, 7], vec![3, 4, 7]));
    settle(&queue, &claimed, again(2_000)).await;
    assert!(claim(&queue, 10, 2_000).await.iter().all(|c| !c.is_in_doubt()), "told once");
}

#[tokio::test]
async fn a_worker_that_is_not_heard_of_any_more_loses_its_lease() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let first = claim(&queue, 1, 1_000).await;
    assert_eq!(numbers(&first), [1]);
    assert!(claim(&queue, 1, 1_000_000).await.is_empty(), "a clock that jumps ends no lease");
    sqlite(&queue).age_leases(LEASE).await;
    let again = claim(&queue, 1, 1_000).await;
    assert!(again[0].is_in_doubt());
    // What the first worker did after all counts no more, and it must not go on.
    let late = |settlement| vec![Settled { id: again[0].id, claim: first[0].claim, settlement }];
    queue.settle(late(done(State::Failed)), at(1_000)).await.expect("passed over");
    let record = Settlement::Record { progress: b"late".to_vec() };
    assert!(matches!(queue.settle(late(record), at(1_000)).await, Err(QueueError::State(_))));
    settle(&queue, &again, done(State::Sent)).await;
    assert_eq!(state(&queue, 1).await, State::Sent);
}

#[tokio::test]
async fn two_processes_never_have_one_file() {
    let home = Home::new();
    let _queue = home.open();
    let refused = Queue::open(&home.settings(), at(0)).err().expect("taken").to_string();
    assert!(refused.contains("another ace (process ") && refused.contains("queue.database"), "{refused}");
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
}

#[tokio::test]
async fn a_full_queue_takes_none_and_says_so() {
    let home = Home::new();
    let settings = Settings { max_messages: 3, ..home.settings() };
    let queue = Queue::open(&settings, at(0)).expect("opened");
    accept(&queue, [1, 2], ORDINARY).await;
    let refused = queue.accept(vec![new(3, ORDINARY), new(4, ORDINARY)], at(1_000)).await;
    assert_eq!(refused, Err(QueueError::Full(2)));
    accept(&queue, [3], ORDINARY).await;
    let claimed = claim(&queue, 1, 1_000).await;
    assert_eq!(queue.accept(vec![new(4, ORDINARY)], at(1_000)).await, Err(QueueError::Full(3)), "under way counts");
    settle(&queue, &claimed, done(State::Sent)).await;
    accept(&queue, [4], ORDINARY).await;
}

#[tokio::test]
async fn dead_letters_are_kept_whole_tried_again_and_discarded() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=4, ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    settle(&queue, &claimed[..2], done(State::Failed)).await;
    settle(&queue, &claimed[2..3], done(State::Expired)).await;
    settle(&queue, &claimed[3..], done(State::Sent)).await;
    let dead = queue.messages(Filter { is_dead: true, ..Filter::default() }, None, 10).await.expect("asked");
    assert_eq!(dead.messages.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), [3, 2, 1]);

    queue.retry(Uuid::from_u128(1), at(1_100)).await.expect("it was dead");
    assert_eq!(claim(&queue, 5, 1_100).await[0].body, b"{\"n\": 1}");
    let sent = queue.retry(Uuid::from_u128(4), at(1_100)).await.expect_err("it was sent").to_string();
    assert!(sent.starts_with("it is sent, and only"), "{sent}");
    assert_eq!(queue.retry(Uuid::from_u128(9), at(0)).await, Err(QueueError::Unknown("message")));
    assert_eq!(queue.discard_all(Selection::default()).await, Ok(2));
    assert_eq!(state(&queue, 2).await, State::Discarded);
    assert!(queue.retry(Uuid::from_u128(2), at(0)).await.is_err());
}

#[tokio::test]
async fn what_a_dead_letter_was_settled_with_is_there_when_it_is_tried_again_and_goes_with_its_body() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=4, ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    let failed = |state| Settlement::Done { state, report: b"{}".to_vec(), event: None, kept: Some(b"kept".to_vec()) };
    settle(&queue, &claimed[..3], failed(State::Failed)).await;
    settle(&queue, &claimed[3..], failed(State::Sent)).await;
    queue.retry(Uuid::from_u128(1), at(1_100)).await.expect("it was dead");
    let again = claim(&queue, 5, 1_100).await.remove(0);
    assert_eq!((again.progress.as_deref(), again.report), (Some(&b"kept"[..]), None));
    // Request for a further channel type it goes on from its report, and still has it.
    let limited = New { limit: Some(vec!["push".to_owned()]), ..new(2, ORDINARY) };
    sqlite(&queue)
        .writer
        .write(|w| Ok(w.db.execute("UPDATE messages SET limits = '[[\"email\"]]'", []).map(drop)?))
        .await
        .expect("set");
    assert_eq!(queue.accept(vec![limited], at(1_200)).await.expect("accepted"), [Accepted::Extended]);
    let extended = claim(&queue, 5, 1_200).await.remove(0);
    assert_eq!((extended.progress.as_deref(), extended.report.as_deref()), (Some(&b"kept"[..]), Some(&b"{}"[..])));
    queue.discard(Uuid::from_u128(3)).await.expect("it was dead");
    for number in [3, 4] {
        assert_eq!(queue.message(Uuid::from_u128(number)).await.expect("asked").expect("there").progress, None);
    }
}

#[tokio::test]
async fn a_change_of_many_changes_no_more_than_its_limit() {
    let home = Home::new();
    let queue = home.open();
    // More than one step takes, and among the latest one that cannot be retried.
    accept(&queue, 1..=1_200, ORDINARY).await;
    let claimed = claim(&queue, 1_200, 1_000).await;
    settle(&queue, &claimed[..1_198], done(State::Failed)).await;
    settle(&queue, &claimed[1_198..1_199], done(State::Corrupt)).await;
    settle(&queue, &claimed[1_199..], done(State::Failed)).await;
    let of = |limit| Selection { limit: Some(limit), ..Selection::default() };
    assert_eq!(queue.retry_all(of(0), at(1_100)).await, Ok(0));
    assert_eq!(queue.discard_all(of(0)).await, Ok(0));
    assert_eq!(queue.retry_all(of(2), at(1_100)).await, Ok(2), "the corrupt one counts for nothing");
    assert_eq!((state(&queue, 1_200).await, state(&queue, 1_198).await), (State::Queued, State::Queued));
    assert_eq!((state(&queue, 1_199).await, state(&queue, 1_197).await), (State::Corrupt, State::Failed));
    assert_eq!(queue.retry_all(of(1_001), at(1_100)).await, Ok(1_001));
    assert_eq!(queue.discard_all(Selection { cursor: Some(MessageId(101)), ..of(1) }).await, Ok(1));
    assert_eq!((state(&queue, 100).await, state(&queue, 101).await), (State::Discarded, State::Failed));
    assert_eq!(queue.discard_all(Selection::default()).await, Ok(196), "all that are left");
}

#[tokio::test]
async fn a_waiting_message_can_be_taken_back_and_one_under_way_cannot() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1, 2], ORDINARY).await;
    let claimed = claim(&queue, 1, 1_000).await;
    assert_eq!(numbers(&claimed), [1]);
    assert!(matches!(queue.cancel(Uuid::from_u128(1), at(0)).await, Err(QueueError::State(_))));
    queue.cancel(Uuid::from_u128(2), at(0)).await.expect("it waits");
    assert_eq!(state(&queue, 2).await, State::Cancelled);
    assert!(claim(&queue, 5, 9_000).await.is_empty());
}

#[tokio::test]
async fn a_batch_that_is_sent_again_yields_each_message_once() {
    let home = Home::new();
    let queue = home.open();
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("begun");
    accept(&queue, 1..=30, batch.priority).await;
    let again = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("found again");
    assert_eq!((again.priority, again.state, again.messages), (batch.priority, BatchState::Receiving, 30));
    let news: Vec<New> = (1..=50).map(|n| new(n, batch.priority)).collect();
    queue.accept(news, at(1_000)).await.expect("accepted");
    assert_eq!(queue.complete_batch(uuid).await.expect("complete").messages, 50);
    assert!(queue.create_batch(new_batch(uuid, b"u".to_vec()), at(0)).await.is_err(), "another type");

    let other = queue.create_batch(new_batch(Uuid::from_u128(78), b"t".to_vec()), at(0)).await.expect("begun");
    assert_ne!(other.priority, batch.priority);
    let claimed = claim(&queue, 100, 1_000).await;
    assert_eq!(claimed.len(), 50);
    settle(&queue, &claimed, done(State::Sent)).await;
    let batch = queue.batch(uuid).await.expect("asked").expect("it is there");
    assert_eq!((batch.state, batch.by_state), (BatchState::Done, BTreeMap::from([(State::Sent, 50)])));
}

#[tokio::test]
async fn a_batch_is_paused_resumed_and_cancelled() {
    let home = Home::new();
    let queue = home.open();
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("begun");
    accept(&queue, 1..=1_200, batch.priority).await;
    queue.complete_batch(uuid).await.expect("complete");
    queue.pause_batch(uuid).await.expect("paused");
    assert!(claim(&queue, 10, 1_000).await.is_empty());
    drop(queue);
    let queue = home.open();
    assert!(claim(&queue, 10, 1_000).await.is_empty(), "also after a new start");
    queue.resume_batch(uuid).await.expect("resumed");
    let claimed = claim(&queue, 10, 1_000).await;
    assert_eq!(claimed.len(), 10);
    let cancelled = queue.cancel_batch(uuid, at(1_000)).await.expect("cancelled");
    assert_eq!(cancelled.by_state, BTreeMap::from([(State::Queued, 10), (State::Cancelled, 1_190)]));
    settle(&queue, &claimed, done(State::Sent)).await;
    let batch = queue.batch(uuid).await.expect("asked").expect("there");
    assert_eq!(batch.by_state, BTreeMap::from([(State::Sent, 10), (State::Cancelled, 1_190)]));
}

#[tokio::test]
async fn messages_are_found_by_person_name_state_and_time() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=20, ORDINARY).await;
    let other = New { name: "app.other".to_owned(), ..new(21, ORDINARY) };
    queue.accept(vec![other], at(5_000)).await.expect("accepted");
    let find = async |filter: Filter| {
        let page = queue.messages(filter, None, 100).await.expect("asked");
        assert_eq!(page.next, None);
        page.messages.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>()
    };
    let user = |user: &str| Filter { user: Some(user.to_owned()), ..Filter::default() };
    assert_eq!(find(user("3")).await, [17, 10, 3]);
    let email = Filter { email: Some("USER3@example.com ".to_owned()), ..Filter::default() };
    assert_eq!(find(email).await, [17, 10, 3]);
    assert_eq!(find(Filter { name: Some("app.other".to_owned()), ..Filter::default() }).await, [21]);
    assert_eq!(find(Filter { since: Some(at(5_000)), ..Filter::default() }).await, [21]);
    assert_eq!(find(Filter { until: Some(at(5_000)), state: Some(State::Queued), ..user("0") }).await, [14, 7]);
    assert_eq!(find(Filter { state: Some(State::Sent), ..Filter::default() }).await, [0_u128; 0]);

    let first = queue.messages(Filter::default(), None, 8).await.expect("asked");
    let second = queue.messages(Filter::default(), first.next, 8).await.expect("asked");
    let third = queue.messages(Filter::default(), second.next, 8).await.expect("asked");
    let all = [first.messages, second.messages, third.messages].concat();
    assert_eq!(all.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), (1..=21).rev().collect::<Vec<_>>());
    assert_eq!(third.next, None);
}

#[tokio::test]
async fn a_person_is_forgotten_everywhere() {
    let home = Home::new();
    let queue = home.open();
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    accept(&queue, 1..=21, ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    let event = Some(event("message.sent"));
    settle(&queue, &claimed[..3], Settlement::Done { state: State::Sent, report: b"{}".to_vec(), event, kept: None })
        .await;
    let forgotten = queue.erase(Some("3".to_owned()), None).await.expect("forgotten");
    assert_eq!(forgotten, Erased { waiting: 2, in_flight: 0, settled: 1, damaged: 0 });
    let forgotten = queue.erase(None, Some("User4@Example.com".to_owned())).await.expect("forgotten");
    assert_eq!(forgotten, Erased { waiting: 2, in_flight: 1, settled: 0, damaged: 0 });
    settle(&queue, &claimed[3..], done(State::Sent)).await;
    for number in [3, 4, 10, 11, 17, 18] {
        assert_eq!(queue.message(Uuid::from_u128(number)).await.expect("asked"), None, "{number}");
    }
    let left = claim(&queue, 100, 9_000).await;
    assert_eq!(left.len(), 21 - 4 - 4, "and nobody else");
    assert_eq!(
        queue.webhook_deliveries("audit".to_owned(), 10, at(9_000)).await.expect("asked").len(),
        2,
        "nor of events"
    );
}

#[tokio::test]
async fn what_is_old_goes_and_gives_its_room_back() {
    let home = Home::new();
    let settings = Settings { max_settled: 100, ..home.settings() };
    let queue = Queue::open(&settings, at(0)).expect("opened");
    for round in 0..10 {
        let news = (0..50).map(|n| New { body: vec![b'x'; 20_000], ..new(round * 50 + n + 1, ORDINARY) }).collect();
        queue.accept(news, at(1_000)).await.expect("accepted");
    }
    let claimed = claim(&queue, 500, 1_000).await;
    settle(&queue, &claimed[..499], done(State::Failed)).await;
    let before = queue.stats().await.expect("asked").bytes;
    queue.maintain(at(1_002)).await.expect("maintained");
    let kept = queue.messages(Filter { is_dead: true, ..Filter::default() }, None, 1_000).await.expect("asked");
    assert_eq!(kept.messages.len(), 100, "the number");
    let day = 86_400;
    queue.maintain(at(8 * day)).await.expect("maintained");
    let dead = queue.message(kept.messages[0].uuid).await.expect("asked").expect("kept");
    assert_eq!((dead.state, dead.body), (State::Failed, None), "the body goes before the record");
    queue.maintain(at(31 * day)).await.expect("maintained");
    queue.maintain(at(31 * day)).await.expect("maintained");
    let all = queue.messages(Filter::default(), None, 10).await.expect("asked");
    assert_eq!(all.messages.len(), 1, "what is not settled stays, however old");
    let file = std::fs::metadata(home.0.path().join("ace.db")).expect("there").len();
    assert!(file < before / 4, "{file} of {before}");
}

#[tokio::test]
async fn webhook_calls_are_kept_until_they_are_taken() {
    let home = Home::new();
    let queue = home.open();
    queue.set_webhooks(vec!["a".to_owned(), "b".to_owned()]).await.expect("set");
    accept(&queue, [1, 2], ORDINARY).await;
    let claimed = claim(&queue, 2, 1_000).await;
    let event = Some(event("message.sent"));
    settle(&queue, &claimed, Settlement::Done { state: State::Sent, report: b"{}".to_vec(), event, kept: None }).await;
    let calls =
        async |hook: &str, second| queue.webhook_deliveries(hook.to_owned(), 10, at(second)).await.expect("asked");
    let first = calls("a", 1_001).await;
    assert_eq!(first.len(), 2);
    queue.end_webhook_delivery("a".to_owned(), first[0].event.id).await.expect("noted");
    queue.retry_webhook_delivery("a".to_owned(), first[1].event.id, at(1_060)).await.expect("noted");
    assert!(calls("a", 1_059).await.is_empty());
    assert_eq!(queue.next_webhook_delivery("a".to_owned()).await.expect("asked"), Some(at(1_060)));
    assert_eq!(queue.next_webhook_delivery("c".to_owned()).await.expect("asked"), None);
    assert_eq!(calls("a", 1_060).await[0].attempts, 1);
    assert_eq!(calls("b", 1_001).await.len(), 2);
    assert_eq!(queue.events(first[0].event.id, 10).await.expect("asked").events.len(), 1);
    queue.set_webhooks(vec!["b".to_owned()]).await.expect("set");
    assert!(calls("a", 9_000).await.is_empty(), "nobody is called who is not configured any more");
}

#[tokio::test]
async fn a_row_that_is_damaged_is_handed_out_to_be_set_aside_and_stops_nothing() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1, 2], ORDINARY).await;
    sqlite(&queue)
        .writer
        .write(|writer| Ok(writer.db.execute("UPDATE messages SET body = NULL WHERE id = 1", [])?))
        .await
        .expect("damaged");
    let claimed = claim(&queue, 2, 1_000).await;
    assert_eq!((claimed.len(), claimed[0].body.len()), (2, 0));
    settle(&queue, &claimed[..1], Settlement::Corrupt { report: b"{}".to_vec() }).await;
    settle(&queue, &claimed[1..], done(State::Sent)).await;
    assert_eq!((state(&queue, 1).await, state(&queue, 2).await), (State::Corrupt, State::Sent));
}

/// Whether any file of the queue holds this text.
fn is_on_disk(home: &Home, text: &str) -> bool {
    let files = std::fs::read_dir(home.0.path()).expect("a folder");
    let mut files = files.map(|file| std::fs::read(file.expect("an entry").path()).expect("read"));
    files.any(|bytes| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
}

#[tokio::test]
async fn what_is_erased_is_on_the_disk_no_more() {
    let home = Home::new();
    let queue = home.open();
    let secret = |n| New { body: format!("reset-link-{n}-{}", "x".repeat(9_000)).into_bytes(), ..new(n, ORDINARY) };
    queue.accept((1..=7).map(secret).collect(), at(1_000)).await.expect("accepted");
    assert!(is_on_disk(&home, "reset-link-1-") && is_on_disk(&home, "user3@"));
    let claimed = claim(&queue, 5, 1_000).await;
    settle(&queue, &claimed, done(State::Sent)).await;
    queue.erase(Some("3".to_owned()), None).await.expect("forgotten");
    for number in 1..=5 {
        assert!(!is_on_disk(&home, &format!("reset-link-{number}-")), "{number}, which was sent");
    }
    assert!(!is_on_disk(&home, "user3@"), "nor is a person who was forgotten");
    assert!(is_on_disk(&home, "reset-link-6-"), "what waits is");
}

#[tokio::test]
async fn a_locked_file_is_an_answer_and_passes() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let other = Connection::open(home.0.path().join("ace.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let refused = queue.accept(vec![new(2, ORDINARY)], at(1_000)).await;
    let Err(QueueError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("lock"), "{reason}");
    assert_eq!(queue.stats().await.expect("it can be read").waiting_ordinary, 1);
    other.execute_batch("ROLLBACK").expect("let go");
    accept(&queue, [2], ORDINARY).await;
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2]);
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_claim_that_never_ends() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    assert_eq!(claim(&queue, 1, 1_000).await.len(), 1);
    // The lease ends, the message waits, and nothing of it reaches the disk.
    sqlite(&queue).age_leases(LEASE).await;
    sqlite(&queue).fail_next_write();
    assert!(queue.claim(Claim { max: 0, bulk_max: 0 }, at(1_000)).await.is_err());
    assert!(claim(&queue, 1, 1_000).await.is_empty());
    sqlite(&queue).age_leases(LEASE).await;
    assert_eq!(numbers(&claim(&queue, 1, 1_000).await), [1]);
}

#[tokio::test]
async fn a_copy_is_a_queue() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=20, ORDINARY).await;
    let claimed = claim(&queue, 5, 1_000).await;
    // As `sqlite3 ace.db ".backup COPY"` makes it, while the queue is in use.
    let copy = tempfile::tempdir().expect("a folder");
    let from = Connection::open(home.0.path().join("ace.db")).expect("opened");
    let to = copy.path().join("ace.db");
    from.execute("VACUUM INTO ?1", [to.to_string_lossy()]).expect("copied");
    settle(&queue, &claimed, done(State::Sent)).await;
    let settings = Settings { database: to, ..home.settings() };
    let copied = Queue::open(&settings, at(2_000)).expect("opened");
    let mut all = numbers(&claim(&copied, 100, 2_000).await);
    all.sort_unstable();
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn tables_whose_uuids_were_unique_by_themselves_are_brought_forward_with_all_they_hold() {
    let home = Home::new();
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, user, body)
        VALUES (?1, ?2, ?3, 1, 0, 0, 0, 'app.note', ?4, ?5)";
    {
        let db = file::open_as(&home.settings().database, &file::VERSIONS[..2]).unwrap_or_else(|e| panic!("{e}"));
        for number in 1..=3 {
            let new = new(number, ORDINARY);
            let user = new.user.as_deref();
            let values = rusqlite::params![number as i64, new.uuid.as_bytes(), new.digest, user, new.body];
            db.execute(insert, values).expect("a message of before");
            db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, ?1)", [number as i64]).expect("it waits");
            let [hash, _] = super::recipients::hashes_before(user, None);
            db.execute("INSERT INTO recipients VALUES (?1, ?2)", [hash, Some(number as i64)]).expect("its recipient");
        }
    }
    let queue = home.open();
    let again = queue.accept(vec![new(2, ORDINARY), new(4, ORDINARY)], at(1_000)).await.expect("accepted");
    assert_eq!(again, [Accepted::Same(State::Queued), Accepted::New(MessageId(4))]);
    let filter = Filter { user: Some("2".to_owned()), ..Filter::default() };
    let found = queue.messages(filter, None, 10).await.expect("a page").messages;
    assert_eq!(found.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), [2]);
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_file_of_another_program_or_of_a_later_ace_is_left_alone() {
    let home = Home::new();
    let refused = |sql: &str| {
        let file = home.0.path().join("ace.db");
        let _ = std::fs::remove_file(&file);
        Connection::open(&file).and_then(|db| db.execute_batch(sql)).expect("made");
        Queue::open(&home.settings(), at(0)).err().expect("refused").to_string()
    };
    assert!(refused("CREATE TABLE theirs (a)").contains("the database of another program"));
    assert!(refused("PRAGMA application_id = 1094927729; PRAGMA user_version = 99").contains("a later ACE wrote it"));
    std::fs::write(home.0.path().join("ace.db"), "x".repeat(10_000)).expect("written");
    let text = Queue::open(&home.settings(), at(0)).err().expect("refused").to_string();
    assert!(text.contains("it is not a SQLite database"), "{text}");
}

/// A file system of a few hundred KiB, where this process may mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        let size = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = std::process::Command::new("mount").args(args).arg(at).output().ok()?;
        mounted.status.success().then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_answer_and_nothing_that_was_accepted_is_lost() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(home.0.path(), "600k") else {
        assert_ne!(unsafe { libc::geteuid() }, 0, "root can mount a small disk");
        return;
    };
    let queue = home.open();
    let (mut accepted, mut refused) = (Vec::new(), None);
    for number in 1..500 {
        let one = New { body: vec![b'x'; 4_000], ..new(number, ORDINARY) };
        match queue.accept(vec![one], at(1_000)).await {
            Ok(_) => accepted.push(number),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let Some(QueueError::NoRoom(reason)) = refused else { panic!("{refused:?} after {}", accepted.len()) };
    assert!(reason.contains("the disk is full"), "{reason}");
    drop(queue);
    let _ = std::process::Command::new("mount").args(["-o", "remount,size=8m"]).arg(&disk.0).output();
    let queue = home.open();
    let mut found = Vec::new();
    loop {
        let claimed = claim(&queue, 100, 1_000).await;
        if claimed.is_empty() {
            break;
        }
        found.extend(numbers(&claimed));
        settle(&queue, &claimed, done(State::Sent)).await;
    }
    assert_eq!(found, accepted);
    drop(queue);
    drop(disk);
}
