//! Accepting, claiming and settling messages.

use super::*;

pub(super) async fn a_message_is_accepted_claimed_and_settled_once(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let claimed = claim(&queue, 10, 1_000).await;
    assert_eq!(claimed[0].body, b"{\"n\": 1}");
    assert!(!claimed[0].is_in_doubt() && claimed[0].progress.is_none());
    assert!(claim(&queue, 10, 2_000).await.is_empty(), "it is in flight");
    settle(&queue, &claimed, done(State::Sent)).await;
    assert!(claim(&queue, 10, 9_000).await.is_empty());
    let kept = queue.message(Uuid::from_u128(1)).await.expect("asked").expect("it is kept");
    assert_eq!((kept.state, kept.settled), (State::Sent, Some(at(1_001))));
    assert_eq!((kept.report.as_deref(), kept.body), (Some(&b"{\"report\": 1}"[..]), None), "its context is erased");
}

pub(super) async fn a_repeated_message_is_the_same_and_a_different_one_a_conflict(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
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
    assert_eq!(answers, [Accepted::Same(State::Sent)], "it is recognized while it is stored");
    assert!(claim(&queue, 10, 1_000).await.is_empty());
}

pub(super) async fn transactional_messages_come_first_and_no_batch_starves_another(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let batch = async |uuid| {
        let batch = new_batch(Uuid::from_u128(uuid), b"t".to_vec());
        queue.create_batch(batch, at(1_000)).await.expect("created").priority
    };
    let (first_batch, second_batch) = (batch(1_001).await, batch(1_002).await);
    accept(&queue, 100..300, first_batch).await;
    accept(&queue, 300..500, second_batch).await;
    accept(&queue, 500..520, ORDINARY).await;
    accept(&queue, 1..5, TRANSACTIONAL).await;
    let first = claim(&queue, 52, 1_000).await;
    assert_eq!(numbers(&first[..4]), [1, 2, 3, 4]);
    let of = |priority: Priority| first.iter().filter(|c| c.priority == priority).count();
    assert_eq!((of(ORDINARY), of(first_batch), of(second_batch)), (16, 16, 16), "each in its turn");
    accept(&queue, [5], TRANSACTIONAL).await;
    let none_of_bulk = queue.claim(Claim { max: 10, bulk_max: 0 }, at(1_000)).await.expect("claimed").messages;
    assert_eq!(numbers(&none_of_bulk), [5], "a reserved slot claims only transactional messages");
}

pub(super) async fn a_message_waits_for_its_time(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let later = New { not_before: Some(at(1_500)), ..new(1, ORDINARY) };
    queue.accept(vec![later], at(1_000)).await.expect("accepted");
    let ClaimedBatch { messages: claimed, next, .. } =
        queue.claim(Claim { max: 5, bulk_max: 5 }, at(1_499)).await.expect("claimed");
    assert_eq!((claimed.len(), next), (0, Some(at(1_500))));
    let claimed = claim(&queue, 5, 1_500).await;
    settle(&queue, &claimed, again(1_600)).await;
    assert!(claim(&queue, 5, 1_599).await.is_empty());
    let claimed = claim(&queue, 5, 1_600).await;
    assert_eq!(claimed[0].progress.as_deref(), Some(&b"half-way"[..]));
    assert!(!claimed[0].is_in_doubt());
}

/// Due times are stored in milliseconds. Rounded down, a message would be claimed before it is due, and released again.
pub(super) async fn a_message_is_not_claimed_a_fraction_of_a_millisecond_early(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
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

pub(super) async fn accepted_messages_survive_the_process_and_those_in_flight_are_in_doubt(
    new_harness: NewHarness<'_>,
) {
    let home = Home::new(new_harness);
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
    assert!(claim(&queue, 10, 2_000).await.iter().all(|c| !c.is_in_doubt()), "reported once");
}

pub(super) async fn a_lease_ends_and_late_settlements_are_ignored(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let first = claim(&queue, 1, 1_000).await;
    assert_eq!(numbers(&first), [1]);
    assert!(claim(&queue, 1, 1_000_000).await.is_empty(), "a clock jump does not end a lease");
    home.age_leases(&queue).await;
    let again = claim(&queue, 1, 1_000).await;
    assert!(again[0].is_in_doubt());
    // A late settlement of the first worker is ignored, and it must not continue.
    let late = |settlement| vec![Settled { id: again[0].id, claim: first[0].claim, settlement }];
    queue.settle(late(done(State::Failed)), at(1_000)).await.expect("ignored");
    let record = Settlement::Record { progress: b"late".to_vec() };
    assert!(matches!(queue.settle(late(record), at(1_000)).await, Err(QueueError::State(_))));
    settle(&queue, &again, done(State::Sent)).await;
    assert_eq!(state(&queue, 1).await, State::Sent);
}

pub(super) async fn a_full_queue_rejects_messages(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let settings = Settings { max_messages: 3, ..home.settings() };
    let queue = home.open_with(settings, at(0));
    accept(&queue, [1, 2], ORDINARY).await;
    let refused = queue.accept(vec![new(3, ORDINARY), new(4, ORDINARY)], at(1_000)).await;
    assert_eq!(refused, Err(QueueError::Full(2)));
    accept(&queue, [3], ORDINARY).await;
    let claimed = claim(&queue, 1, 1_000).await;
    assert_eq!(queue.accept(vec![new(4, ORDINARY)], at(1_000)).await, Err(QueueError::Full(3)), "in flight counts");
    settle(&queue, &claimed, done(State::Sent)).await;
    accept(&queue, [4], ORDINARY).await;
}

pub(super) async fn after_a_failed_write_every_claim_has_a_lease(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    assert_eq!(claim(&queue, 1, 1_000).await.len(), 1);
    // The lease ends and the message is requeued, but that transaction fails.
    home.age_leases(&queue).await;
    home.fail_next_write(&queue);
    assert!(queue.claim(Claim { max: 0, bulk_max: 0 }, at(1_000)).await.is_err());
    assert!(claim(&queue, 1, 1_000).await.is_empty());
    home.age_leases(&queue).await;
    assert_eq!(numbers(&claim(&queue, 1, 1_000).await), [1]);
}
