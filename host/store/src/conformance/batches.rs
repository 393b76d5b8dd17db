//! Batches.

use super::*;

pub(super) async fn a_repeated_batch_contains_each_message_once(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("created");
    accept(&queue, 1..=30, batch.priority).await;
    let again = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("found again");
    assert_eq!((again.priority, again.state, again.messages), (batch.priority, BatchState::Receiving, 30));
    let news: Vec<New> = (1..=50).map(|n| new(n, batch.priority)).collect();
    queue.accept(news, at(1_000)).await.expect("accepted");
    assert_eq!(queue.complete_batch(uuid).await.expect("complete").messages, 50);
    assert!(queue.create_batch(new_batch(uuid, b"u".to_vec()), at(0)).await.is_err(), "another type");

    let other = queue.create_batch(new_batch(Uuid::from_u128(78), b"t".to_vec()), at(0)).await.expect("created");
    assert_ne!(other.priority, batch.priority);
    let claimed = claim(&queue, 100, 1_000).await;
    assert_eq!(claimed.len(), 50);
    settle(&queue, &claimed, done(State::Sent)).await;
    let batch = queue.batch(uuid).await.expect("asked").expect("it is there");
    assert_eq!((batch.state, batch.by_state), (BatchState::Done, BTreeMap::from([(State::Sent, 50)])));
}

pub(super) async fn a_batch_is_paused_resumed_and_cancelled(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let uuid = Uuid::from_u128(77);
    let batch = queue.create_batch(new_batch(uuid, b"t".to_vec()), at(1_000)).await.expect("created");
    accept(&queue, 1..=1_200, batch.priority).await;
    queue.complete_batch(uuid).await.expect("complete");
    queue.pause_batch(uuid).await.expect("paused");
    assert!(claim(&queue, 10, 1_000).await.is_empty());
    drop(queue);
    let queue = home.open();
    assert!(claim(&queue, 10, 1_000).await.is_empty(), "also after a restart");
    queue.resume_batch(uuid).await.expect("resumed");
    let claimed = claim(&queue, 10, 1_000).await;
    assert_eq!(claimed.len(), 10);
    let cancelled = queue.cancel_batch(uuid, at(1_000)).await.expect("cancelled");
    assert_eq!(cancelled.by_state, BTreeMap::from([(State::Queued, 10), (State::Cancelled, 1_190)]));
    settle(&queue, &claimed, done(State::Sent)).await;
    let batch = queue.batch(uuid).await.expect("asked").expect("there");
    assert_eq!(batch.by_state, BTreeMap::from([(State::Sent, 10), (State::Cancelled, 1_190)]));
}
