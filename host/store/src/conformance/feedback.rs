//! Feedback: stored once, matched with messages by any of its names, announced once, and erased with its message or person.

use super::*;
use crate::person::address_key;
use crate::queue::{Delivery, FEEDBACK_WAIT, Feedback, Lookup, NewFeedback};

const CHANNEL: &str = "ses_email";

fn delivered(provider_id: &str) -> Settlement {
    let (provider_id, message_id) = (Some(provider_id.to_owned()), Some(format!("{provider_id}@example.com")));
    let delivery = Delivery { channel: CHANNEL.to_owned(), provider_id, message_id };
    Settlement::Done(Done { deliveries: vec![delivery], ..Done::new(State::Sent, b"{}".to_vec()) })
}

/// An event without a message.
fn alone(id: &str) -> NewFeedback {
    let lookup = Lookup { channels: vec![CHANNEL.to_owned()], ..Lookup::default() };
    NewFeedback { plugin: "ses".to_owned(), id: id.to_owned(), lookup, address: None, body: id.as_bytes().to_vec() }
}

fn by_uuid(id: &str, number: u128) -> NewFeedback {
    let mut new = alone(id);
    new.lookup.uuid = Some(Uuid::from_u128(number));
    new
}

fn by_provider_id(id: &str, provider_id: &str) -> NewFeedback {
    let mut new = alone(id);
    new.lookup.provider_id = Some(provider_id.to_owned());
    new
}

fn by_message_id(id: &str, message_id: &str) -> NewFeedback {
    let mut new = alone(id);
    new.lookup.message_id = Some(message_id.to_owned());
    new
}

async fn report(queue: &Queue, new: Vec<NewFeedback>) -> usize {
    queue.accept_feedback(new, at(1_002)).await.expect("stored")
}

/// The ids of the feedback about a message.
async fn about(queue: &Queue, number: u128) -> Vec<String> {
    let found = queue.feedback(Uuid::from_u128(number), 100).await.expect("asked");
    found.into_iter().map(|feedback| String::from_utf8(feedback.body).expect("text")).collect()
}

fn event_of(feedback: &Feedback) -> NewEvent {
    NewEvent { kind: "message.feedback".into(), body: feedback.body.clone() }
}

/// The announced feedback: its message, and its id.
async fn announced(queue: &Queue, second: i64) -> Vec<(Option<u128>, String)> {
    let found = queue.announce_feedback(Some(event_of), 100, at(second)).await.expect("announced");
    let number = |uuid: Option<Uuid>| uuid.map(|uuid| uuid.as_u128());
    let body = |body: Vec<u8>| String::from_utf8(body).expect("text");
    found.into_iter().map(|feedback| (number(feedback.message), body(feedback.body))).collect()
}

async fn send(queue: &Queue, number: u128, provider_id: &str) {
    accept(queue, [number], TRANSACTIONAL).await;
    settle(queue, &claim(queue, 1, 1_001).await, delivered(provider_id)).await;
}

async fn event_bodies(queue: &Queue) -> Vec<Vec<u8>> {
    queue.events(EventId::START, 100).await.expect("asked").events.into_iter().map(|event| event.body).collect()
}

pub(super) async fn feedback_is_stored_once_and_found_by_each_of_its_names(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    send(&queue, 1, "p-1").await;
    send(&queue, 2, "p-2").await;
    let all = || vec![by_uuid("a", 1), by_provider_id("b", "p-1"), by_message_id("c", "p-1@example.com"), alone("d")];
    assert_eq!(report(&queue, all()).await, 4);
    assert_eq!(report(&queue, all()).await, 0, "they are known");
    let of_another_plugin = NewFeedback { plugin: "other".to_owned(), ..by_uuid("a", 2) };
    assert_eq!(report(&queue, vec![of_another_plugin, by_uuid("e", 1), by_uuid("e", 1)]).await, 2);
    // The uuid comes first.
    let mut both = by_uuid("f", 2);
    both.lookup.provider_id = Some("p-1".to_owned());
    assert_eq!(report(&queue, vec![both]).await, 1);
    let ids = |plugin: &str, ids: &[&str]| ids.iter().map(|id| (plugin.to_owned(), (*id).to_owned())).collect();
    assert_eq!(queue.is_feedback_known(ids("ses", &["a", "z", "d"])).await, Ok(vec![true, false, true]));
    drop(queue);
    let queue = home.open();
    assert_eq!(about(&queue, 1).await, ["a", "b", "c", "e"]);
    assert_eq!(about(&queue, 2).await, ["a", "f"]);
    assert_eq!(about(&queue, 3).await, [""; 0]);
    assert_eq!(report(&queue, all()).await, 0, "they are known in the next process");
    let first = announced(&queue, 1_003).await;
    let (one, two) = (Some(1), Some(2));
    let wanted = [(one, "a"), (one, "b"), (one, "c"), (None, "d"), (two, "a"), (one, "e"), (two, "f")];
    assert_eq!(first, wanted.map(|(number, id)| (number, id.to_owned())));
    assert!(announced(&queue, 9_000).await.is_empty(), "each once");
    assert_eq!(event_bodies(&queue).await.len(), 7);
}

pub(super) async fn feedback_reaches_only_messages_that_were_delivered_over_its_channels(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    send(&queue, 1, "p-1").await;
    accept(&queue, [2], TRANSACTIONAL).await;
    settle(&queue, &claim(&queue, 1, 1_001).await, done(State::Sent)).await;
    let of_others = [by_uuid("a", 1), by_provider_id("b", "p-1"), by_message_id("c", "p-1@example.com")];
    let of_others = of_others.map(|mut new| {
        new.lookup.channels = vec!["braze_email".to_owned()];
        new
    });
    assert_eq!(report(&queue, of_others.into()).await, 3);
    assert_eq!(report(&queue, vec![by_uuid("d", 2), by_provider_id("e", "p-2")]).await, 2);
    assert_eq!((about(&queue, 1).await, about(&queue, 2).await), (Vec::new(), Vec::new()));
    let mut several = by_provider_id("f", "p-1");
    several.lookup.channels.insert(0, "braze_email".to_owned());
    assert_eq!(report(&queue, vec![several]).await, 1);
    assert_eq!(about(&queue, 1).await, ["f"]);
}

pub(super) async fn feedback_waits_for_its_message_and_is_announced_then(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1, 2], ORDINARY).await;
    let mut twice = by_uuid("a", 1);
    twice.lookup.provider_id = Some("p-1".to_owned());
    let new = vec![twice, by_provider_id("b", "p-2"), by_message_id("c", "p-2@example.com"), by_uuid("d", 3)];
    assert_eq!(report(&queue, new).await, 4);
    assert!(announced(&queue, 1_003).await.is_empty(), "they wait");
    drop(queue);
    let queue = home.open();
    let claimed = claim(&queue, 2, 1_003).await;
    settle(&queue, &claimed[..1], again(1_003)).await;
    assert_eq!(about(&queue, 1).await, [""; 0], "it is not settled");
    settle(&queue, &claimed[1..], delivered("p-2")).await;
    settle(&queue, &claim(&queue, 1, 1_004).await, delivered("p-1")).await;
    assert_eq!((about(&queue, 1).await, about(&queue, 2).await.len()), (vec!["a".to_owned()], 2));
    let found = announced(&queue, 1_005).await;
    let of = |number| found.iter().filter(|(is, _)| *is == Some(number)).count();
    assert_eq!((found.len(), of(1), of(2)), (3, 1, 2));
    let end = 1_002 + i64::try_from(FEEDBACK_WAIT.as_secs()).expect("an hour");
    assert!(announced(&queue, end - 1).await.is_empty());
    assert_eq!(announced(&queue, end).await, [(None, "d".to_owned())], "its time to wait is over");
    // Too late: it is about an address alone.
    accept(&queue, [3], TRANSACTIONAL).await;
    settle(&queue, &claim(&queue, 1, 9_000).await, delivered("p-3")).await;
    assert_eq!(about(&queue, 3).await, [""; 0]);
}

pub(super) async fn feedback_is_erased_with_its_message_its_person_and_its_age(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let settings = Settings { retention: Duration::from_secs(100), ..home.settings() };
    let queue = home.open_with(settings, at(1_000));
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    for number in [1, 2] {
        send(&queue, number, &format!("p-{number}")).await;
    }
    let to = |id: &str, address: &str| NewFeedback { address: Some(address_key("email", address)), ..alone(id) };
    let new =
        vec![by_uuid("a", 1), by_uuid("b", 2), to("c", "User1@Example.com"), to("d", "x@example.com"), alone("e")];
    assert_eq!(report(&queue, new).await, 5);
    assert_eq!(announced(&queue, 1_003).await.len(), 5);
    let erased = queue.erase(None, Some("user1@EXAMPLE.com".to_owned())).await.expect("erased");
    assert_eq!(erased.settled, 1);
    let ids = |ids: &[&str]| ids.iter().map(|id| ("ses".to_owned(), (*id).to_owned())).collect::<Vec<_>>();
    let known = queue.is_feedback_known(ids(&["a", "b", "c", "d", "e"])).await;
    assert_eq!(known, Ok(vec![false, true, false, true, true]));
    assert_eq!(event_bodies(&queue).await, [b"b", b"d", b"e"]);
    assert_eq!(queue.webhook_deliveries("audit".to_owned(), 10, at(1_004)).await.expect("asked").len(), 3);
    // A message that is submitted again has no feedback of the one before.
    send(&queue, 1, "p-1").await;
    assert_eq!(about(&queue, 1).await, [""; 0]);
    queue.maintain(at(1_050)).await.expect("maintained");
    assert_eq!(queue.is_feedback_known(ids(&["b", "d", "e"])).await, Ok(vec![true; 3]));
    queue.maintain(at(1_103)).await.expect("maintained");
    assert_eq!(
        queue.is_feedback_known(ids(&["b", "d", "e"])).await,
        Ok(vec![false; 3]),
        "it is as old as messages may be"
    );
}

pub(super) async fn feedback_beyond_the_limit_is_rejected_as_a_whole(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let settings = Settings { max_feedback: 3, ..home.settings() };
    let queue = home.open_with(settings.clone(), at(1_000));
    send(&queue, 1, "p-1").await;
    assert_eq!(report(&queue, vec![by_uuid("a", 1), alone("b")]).await, 2);
    let two = || vec![alone("c"), alone("d")];
    assert_eq!(queue.accept_feedback(two(), at(1_002)).await, Err(QueueError::FeedbackFull(2)));
    home.fail_next_write(&queue);
    assert!(queue.accept_feedback(vec![alone("c")], at(1_002)).await.is_err());
    drop(queue);
    let queue = home.open_with(settings, at(1_000));
    assert_eq!(queue.accept_feedback(two(), at(1_002)).await, Err(QueueError::FeedbackFull(2)));
    assert_eq!(report(&queue, vec![alone("c")]).await, 1);
    queue.erase(None, Some("user1@example.com".to_owned())).await.expect("erased");
    assert_eq!(report(&queue, vec![alone("d")]).await, 1, "there is room again");
}
