//! Messages that wait for a destination that is down.

use super::*;

const RELAY: &str = "relay main";

fn block(due: i64, destinations: &[&str]) -> Settlement {
    let destinations = destinations.iter().map(|name| (*name).to_owned()).collect();
    Settlement::Block { due: at(due), progress: b"{}".to_vec(), destinations }
}

/// Creates a batch and returns its priority class.
async fn batch(queue: &Queue, uuid: u128) -> Priority {
    let batch = queue.create_batch(new_batch(Uuid::from_u128(uuid), b"t".to_vec()), at(1_000)).await;
    batch.expect("created").priority
}

async fn unblock(queue: &Queue, max: usize, in_turn: bool) -> usize {
    queue.unblock(RELAY.to_owned(), max, in_turn).await.expect("unblocked")
}

/// The number of messages that wait for the relay.
fn waiting(queue: &Queue) -> u64 {
    queue.blocked().get(RELAY).copied().unwrap_or_default()
}

pub(super) async fn blocked_messages_are_claimed_when_unblocked_or_when_they_are_due(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=5, ORDINARY).await;
    accept(&queue, 6..=7, TRANSACTIONAL).await;
    settle(&queue, &claim(&queue, 9, 1_000).await, block(9_000, &[RELAY])).await;
    assert_eq!((waiting(&queue), claim(&queue, 9, 8_999).await.len()), (7, 0));
    assert_eq!(unblock(&queue, 3, false).await, 3);
    assert_eq!(numbers(&claim(&queue, 9, 1_002).await), [6, 7, 1], "transactional ones first");
    assert_eq!(waiting(&queue), 4);
    assert_eq!(claim(&queue, 9, 9_000).await.len(), 4);
    assert_eq!((waiting(&queue), queue.blocked().len(), unblock(&queue, 9, false).await), (0, 0, 0));
}

pub(super) async fn blocked_messages_are_tried_in_turn(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=1, TRANSACTIONAL).await;
    accept(&queue, 2..=3, ORDINARY).await;
    settle(&queue, &claim(&queue, 9, 1_000).await, block(9_000, &[RELAY])).await;
    let mut tried = Vec::new();
    for _ in 0..4 {
        assert_eq!(unblock(&queue, 1, true).await, 1);
        let probe = claim(&queue, 9, 1_001).await;
        tried.extend(numbers(&probe));
        settle(&queue, &probe, block(9_000, &[RELAY])).await;
    }
    assert_eq!(tried, [1, 2, 3, 1]);
}

pub(super) async fn only_unblocked_messages_of_a_held_batch_are_claimed(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let (a, b) = (batch(&queue, 100).await, batch(&queue, 200).await);
    accept(&queue, 1..=50, a).await;
    accept(&queue, 51..=52, b).await;
    let first: Vec<Claimed> = claim(&queue, 1, 1_000).await;
    assert_eq!(numbers(&first), [1]);
    settle(&queue, &first, block(9_000, &[RELAY])).await;
    queue.hold(a);
    let claimed_batch = queue.claim(Claim { max: 99, bulk_max: 99 }, at(1_001)).await.expect("claimed");
    assert_eq!(
        (numbers(&claimed_batch.messages), claimed_batch.next),
        (vec![51, 52], None),
        "nothing of the held batch is due"
    );
    assert_eq!(unblock(&queue, 9, true).await, 1);
    assert_eq!(numbers(&claim(&queue, 99, 1_002).await), [1]);
    queue.release(&[a]);
    assert_eq!(claim(&queue, 99, 1_002).await.len(), 49);
}

pub(super) async fn a_message_blocked_by_two_destinations_is_unblocked_once(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=1, ORDINARY).await;
    settle(&queue, &claim(&queue, 9, 1_000).await, block(9_000, &[RELAY, "https://api.example.com"])).await;
    assert_eq!((queue.blocked().len(), unblock(&queue, 9, false).await, queue.blocked().len()), (2, 1, 0));
}

pub(super) async fn blocked_messages_can_be_cancelled_and_erased(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=2, ORDINARY).await;
    settle(&queue, &claim(&queue, 9, 1_000).await, block(9_000, &[RELAY])).await;
    queue.cancel(Uuid::from_u128(1), at(1_002)).await.expect("it waits");
    assert_eq!(waiting(&queue), 1);
    queue.erase(Some("2".to_owned()), None).await.expect("erased");
    assert_eq!((waiting(&queue), unblock(&queue, 9, false).await), (0, 0));
}

pub(super) async fn blocked_messages_survive_a_restart(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    {
        let queue = home.open();
        accept(&queue, 1..=3, ORDINARY).await;
        settle(&queue, &claim(&queue, 9, 1_000).await, block(9_000, &[RELAY])).await;
        unblock(&queue, 1, true).await;
        assert_eq!(claim(&queue, 9, 1_001).await.len(), 1, "this one is in flight when the process ends");
    }
    let queue = home.open();
    assert_eq!(waiting(&queue), 2);
    assert_eq!(numbers(&claim(&queue, 9, 1_002).await), [1], "it was requeued");
    assert_eq!(unblock(&queue, 9, true).await, 2);
}

pub(super) async fn the_age_of_a_retried_message_starts_with_the_retry(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=1, ORDINARY).await;
    settle(&queue, &claim(&queue, 9, 1_000).await, done(State::Expired)).await;
    queue.retry(Uuid::from_u128(1), at(5_000)).await.expect("it can be");
    let claimed = claim(&queue, 9, 5_000).await;
    assert_eq!((claimed[0].accepted, claimed[0].since), (at(1_000), at(5_000)));
}
