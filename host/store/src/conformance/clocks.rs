//! A wall clock that jumps by hours: no message is delayed, and none is sent too early.

use super::*;

const HOUR: i64 = 3_600;

/// Claims all due messages, and returns their sorted numbers.
async fn due(queue: &Queue, second: i64) -> Vec<u128> {
    let mut numbers = numbers(&claim(queue, 100, second).await);
    numbers.sort_unstable();
    numbers
}

async fn accept_at(queue: &Queue, number: u128, second: i64, not_before: Option<i64>) {
    let new = New { not_before: not_before.map(at), ..new(number, ORDINARY) };
    queue.accept(vec![new], at(second)).await.expect("accepted");
}

pub(super) async fn a_clock_that_is_set_back_delays_only_scheduled_messages(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let noon = 100 * HOUR;
    accept_at(&queue, 1, noon, None).await;
    accept_at(&queue, 2, noon, Some(noon + HOUR)).await;
    accept_at(&queue, 3, noon, None).await;
    let claimed = queue.claim(Claim { max: 1, bulk_max: 1 }, at(noon)).await.expect("claimed").messages;
    settle(&queue, &claimed, again(noon + 60)).await;

    let earlier = noon - 3 * HOUR;
    assert_eq!(due(&queue, earlier).await, [3], "it was due");
    assert_eq!(due(&queue, earlier + 59).await, [0_u128; 0]);
    assert_eq!(due(&queue, earlier + 60).await, [1], "a pause keeps its length");
    assert_eq!(due(&queue, noon + HOUR - 1).await, [0_u128; 0], "this one is scheduled");
    assert_eq!(due(&queue, noon + HOUR).await, [2]);
}

pub(super) async fn a_clock_that_is_set_back_between_processes_delays_nothing(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let noon = 100 * HOUR;
    for number in 1..=2 {
        accept_at(&queue, number, noon, None).await;
    }
    accept_at(&queue, 3, noon, Some(noon + HOUR)).await;
    assert_eq!(queue.claim(Claim { max: 1, bulk_max: 1 }, at(noon)).await.expect("claimed").messages.len(), 1);
    drop(queue);
    let queue = home.open_with(home.settings(), at(noon - 5 * HOUR));
    assert_eq!(due(&queue, noon - 5 * HOUR).await, [1, 2], "the one in flight too");
}

pub(super) async fn after_a_clock_jump_many_messages_become_due_in_steps(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    let noon = 100 * HOUR;
    let news = (1..=2_500).map(|n| new(n, ORDINARY)).collect();
    queue.accept(news, at(noon)).await.expect("accepted");
    assert_eq!(claim(&queue, 1, noon).await.len(), 1);
    let mut found = 0;
    for _ in 0..100 {
        let ClaimedBatch { messages: claimed, next, .. } =
            queue.claim(Claim { max: 100, bulk_max: 100 }, at(noon - HOUR)).await.expect("claimed");
        found += claimed.len();
        if found == 2_499 {
            break;
        }
        assert!(next.is_some_and(|next| next <= at(noon - HOUR)), "there is more: {next:?}");
    }
    assert_eq!(found, 2_499);
}

pub(super) async fn a_clock_that_is_set_forward_ends_pauses_but_not_leases(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, 1..=2, ORDINARY).await;
    let claimed = queue.claim(Claim { max: 1, bulk_max: 1 }, at(1_000)).await.expect("claimed").messages;
    settle(&queue, &claimed, again(1_060)).await;
    assert_eq!(due(&queue, 1_000 + 9 * HOUR).await, [1, 2]);
    assert_eq!(due(&queue, 1_000 + 99 * HOUR).await, [0_u128; 0], "both are in flight");
    assert_eq!(due(&queue, 1_000).await, [0_u128; 0]);
}

pub(super) async fn retention_tolerates_clock_jumps(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    let settings = Settings { retention: hours(30), dead_letter_retention: hours(10), ..home.settings() };
    let queue = home.open_with(settings, at(0));
    let noon = 100 * HOUR;
    for number in 1..=2 {
        accept_at(&queue, number, noon, None).await;
    }
    let claimed = claim(&queue, 2, noon).await;
    let settled =
        |claimed: &Claimed, state| vec![Settled { id: claimed.id, claim: claimed.claim, settlement: done(state) }];
    queue.settle(settled(&claimed[0], State::Sent), at(noon)).await.expect("settled");
    queue.settle(settled(&claimed[1], State::Failed), at(noon)).await.expect("settled");
    let prune = async |second| queue.maintain(at(second)).await.expect("maintained");
    prune(noon - 50 * HOUR).await;
    prune(noon + 9 * HOUR).await;
    assert_eq!(state(&queue, 1).await, State::Sent, "neither too young nor too old");
    queue.retry(Uuid::from_u128(2), at(noon - 50 * HOUR)).await.expect("its body is there");
    assert_eq!(due(&queue, noon - 50 * HOUR).await, [2]);
    prune(noon + 31 * HOUR).await;
    assert_eq!(queue.message(Uuid::from_u128(1)).await.expect("asked"), None);
    assert_eq!(state(&queue, 2).await, State::Queued, "messages in flight are not deleted");
}

pub(super) async fn a_clock_jump_does_not_change_the_pause_of_a_webhook_delivery(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    let noon = 100 * HOUR;
    accept_at(&queue, 1, noon, None).await;
    let claimed = claim(&queue, 1, noon).await;
    let settlement =
        Settlement::Done(Done { event: Some(event("message.sent")), ..Done::new(State::Sent, b"{}".to_vec()) });
    queue
        .settle(vec![Settled { id: claimed[0].id, claim: claimed[0].claim, settlement }], at(noon))
        .await
        .expect("settled");
    let deliveries = async |second| queue.webhook_deliveries("audit".to_owned(), 10, at(second)).await.expect("asked");
    let delivery = deliveries(noon).await.remove(0);
    queue.retry_webhook_delivery("audit".to_owned(), delivery.event.id, at(noon + 60)).await.expect("noted");
    let earlier = noon - 3 * HOUR;
    // The queue notices the clock when the worker claims, which it does every second.
    assert_eq!(claim(&queue, 1, earlier).await, []);
    assert!(deliveries(earlier + 59).await.is_empty());
    assert_eq!(deliveries(earlier + 60).await.len(), 1);
    assert_eq!(deliveries(noon + 99 * HOUR).await.len(), 1, "a clock that is set forward makes it due");
}
