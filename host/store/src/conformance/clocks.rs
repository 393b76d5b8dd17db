//! A wall clock that jumps by hours, either way: no message is delayed by it, and none is sent before its time.

use super::*;

const HOUR: i64 = 3_600;

/// Claimed at that second, all of it.
async fn due(queue: &Queue, second: i64) -> Vec<u128> {
    let mut numbers = numbers(&claim(queue, 100, second).await);
    numbers.sort_unstable();
    numbers
}

async fn accept_at(queue: &Queue, number: u128, second: i64, not_before: Option<i64>) {
    let new = New { not_before: not_before.map(at), ..new(number, ORDINARY) };
    queue.accept(vec![new], at(second)).await.expect("accepted");
}

pub(super) async fn a_clock_that_is_set_back_holds_nothing_up_but_what_has_a_moment_of_its_own(make: Make<'_>) {
    let home = Home::new(make);
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
    assert_eq!(due(&queue, earlier + 60).await, [1], "a pause is as long as it was");
    assert_eq!(due(&queue, noon + HOUR - 1).await, [0_u128; 0], "this one was asked to wait for its moment");
    assert_eq!(due(&queue, noon + HOUR).await, [2]);
}

pub(super) async fn a_clock_that_is_set_back_while_no_process_runs_holds_nothing_up(make: Make<'_>) {
    let home = Home::new(make);
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

pub(super) async fn more_than_one_step_of_waiting_messages_is_brought_back(make: Make<'_>) {
    let home = Home::new(make);
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

pub(super) async fn a_clock_that_is_set_forward_ends_pauses_and_no_lease(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    accept(&queue, 1..=2, ORDINARY).await;
    let claimed = queue.claim(Claim { max: 1, bulk_max: 1 }, at(1_000)).await.expect("claimed").messages;
    settle(&queue, &claimed, again(1_060)).await;
    assert_eq!(due(&queue, 1_000 + 9 * HOUR).await, [1, 2]);
    assert_eq!(due(&queue, 1_000 + 99 * HOUR).await, [0_u128; 0], "both are in flight");
    assert_eq!(due(&queue, 1_000).await, [0_u128; 0]);
}

pub(super) async fn retention_survives_both_directions(make: Make<'_>) {
    let home = Home::new(make);
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
    assert_eq!(state(&queue, 2).await, State::Queued, "what is in flight has no age");
}

pub(super) async fn a_webhook_is_called_again_after_its_pause_whatever_the_clock_says(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    let noon = 100 * HOUR;
    accept_at(&queue, 1, noon, None).await;
    let claimed = claim(&queue, 1, noon).await;
    let settlement =
        Settlement::Done { state: State::Sent, report: b"{}".to_vec(), event: Some(event("message.sent")), kept: None };
    queue
        .settle(vec![Settled { id: claimed[0].id, claim: claimed[0].claim, settlement }], at(noon))
        .await
        .expect("settled");
    let calls = async |second| queue.webhook_deliveries("audit".to_owned(), 10, at(second)).await.expect("asked");
    let call = calls(noon).await.remove(0);
    queue.retry_webhook_delivery("audit".to_owned(), call.event.id, at(noon + 60)).await.expect("noted");
    let earlier = noon - 3 * HOUR;
    // The worker polls the queue every second, and so notices the clock.
    assert_eq!(claim(&queue, 1, earlier).await, []);
    assert!(calls(earlier + 59).await.is_empty());
    assert_eq!(calls(earlier + 60).await.len(), 1);
    assert_eq!(calls(noon + 99 * HOUR).await.len(), 1, "and a clock set forward makes it due");
}
