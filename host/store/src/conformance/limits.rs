//! Messages that are submitted again for other channel types, in every state.

use super::*;

fn limited(names: &[&str]) -> New {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    New { limit: Some(names), ..new(1, ORDINARY) }
}

async fn submit(queue: &Queue, new: New) -> Accepted {
    queue.accept(vec![new], at(1_000)).await.expect("answered")[0]
}

async fn only(queue: &Queue, second: i64) -> Claimed {
    let mut claimed = claim(queue, 9, second).await;
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

fn lists(lists: &[&[&str]]) -> Option<Limits> {
    Some(lists.iter().map(|list| list.iter().map(|name| (*name).to_owned()).collect()).collect())
}

pub(super) async fn a_waiting_message_is_claimed_with_the_limits_of_all_its_requests(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::New(MessageId::from(1)));
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::Same(State::Queued));
    assert_eq!(submit(&queue, limited(&["push", "sms"])).await, Accepted::Extended);
    assert_eq!(submit(&queue, limited(&["push", "sms"])).await, Accepted::Same(State::Queued));
    assert_eq!(submit(&queue, new(1, ORDINARY)).await, Accepted::Extended, "no limit extends any limit");
    assert_eq!(
        submit(&queue, limited(&["voice"])).await,
        Accepted::Same(State::Queued),
        "all channel types are included"
    );
    let claimed = only(&queue, 1_000).await;
    assert_eq!(claimed.limits, lists(&[&["email"], &["push", "sms"], &[]]));
    assert_eq!(submit(&queue, New { digest: [7; 16], ..limited(&["fax"]) }).await, Accepted::Conflict);
}

pub(super) async fn a_message_without_a_limit_includes_all_channel_types(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    assert_eq!(submit(&queue, new(1, ORDINARY)).await, Accepted::New(MessageId::from(1)));
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Same(State::Queued));
    assert_eq!(only(&queue, 1_000).await.limits, None);
}

pub(super) async fn an_extended_message_is_due_now_unless_it_is_scheduled(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], again(9_000)).await;
    submit(&queue, limited(&["push"])).await;
    let claimed = only(&queue, 1_001).await;
    assert_eq!((claimed.progress.as_deref(), claimed.report), (Some(&b"half-way"[..]), None));

    let home = Home::new(new_harness);
    let queue = home.open();
    let scheduled = |limit: &[&str]| New { not_before: Some(at(5_000)), ..limited(limit) };
    submit(&queue, scheduled(&["email"])).await;
    assert_eq!(submit(&queue, scheduled(&["push"])).await, Accepted::Extended);
    assert!(claim(&queue, 9, 1_001).await.is_empty());
    assert_eq!(only(&queue, 5_000).await.limits, lists(&[&["email"], &["push"]]));
}

pub(super) async fn a_message_extended_in_flight_is_requeued_after_its_settlement(new_harness: NewHarness<'_>) {
    for settlement in [done(State::Sent), again(9_000)] {
        let home = Home::new(new_harness);
        let queue = home.open();
        submit(&queue, limited(&["email"])).await;
        let claimed = only(&queue, 1_000).await;
        assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Extended);
        settle(&queue, &[claimed], settlement.clone()).await;
        let claimed = only(&queue, 1_001).await;
        assert_eq!(claimed.limits, lists(&[&["email"], &["push"]]));
        assert!(claimed.report.is_some() != claimed.progress.is_some() && !claimed.body.is_empty(), "{claimed:?}");
        settle(&queue, &[claimed], done(State::Sent)).await;
        assert!(claim(&queue, 9, 9_999).await.is_empty());
    }
}

pub(super) async fn an_extended_settled_message_is_requeued_and_counted(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Sent)).await;
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::Same(State::Sent));
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Extended);
    drop(queue);
    let queue = home.open();
    assert_eq!(queue.stats().await.expect("stats").waiting_ordinary, 1, "also after a restart");
    let claimed = only(&queue, 1_000).await;
    assert_eq!(claimed.report.as_deref(), Some(&b"{\"report\": 1}"[..]));
    assert_eq!(claimed.body, new(1, ORDINARY).body, "its body was erased, and comes from the request");
    settle(&queue, &[claimed], done(State::Sent)).await;
    let stored = queue.message(Uuid::from_u128(1)).await.expect("asked").expect("there");
    assert_eq!((stored.state, stored.body), (State::Sent, None));
}

pub(super) async fn a_cancelled_or_discarded_message_is_not_extended(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    queue.cancel(Uuid::from_u128(1), at(1_000)).await.expect("cancelled");
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Ended(State::Cancelled));
    let home = Home::new(new_harness);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Failed)).await;
    queue.discard(Uuid::from_u128(1)).await.expect("discarded");
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Ended(State::Discarded));
}

pub(super) async fn a_retried_dead_letter_keeps_its_limit(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Failed)).await;
    queue.retry(Uuid::from_u128(1), at(1_000)).await.expect("it waits again");
    let claimed = only(&queue, 1_000).await;
    assert_eq!((claimed.report, claimed.limits), (None, lists(&[&["email"]])));
}
