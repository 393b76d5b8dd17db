//! The same message for further channel types, wherever it stands.

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

pub(super) async fn a_waiting_message_is_claimed_with_the_limits_of_all_its_requests(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::New(MessageId::from(1)));
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::Same(State::Queued));
    assert_eq!(submit(&queue, limited(&["push", "sms"])).await, Accepted::Extended);
    assert_eq!(submit(&queue, limited(&["push", "sms"])).await, Accepted::Same(State::Queued));
    assert_eq!(submit(&queue, new(1, ORDINARY)).await, Accepted::Extended, "no limit is more than any");
    assert_eq!(submit(&queue, limited(&["voice"])).await, Accepted::Same(State::Queued), "and nothing is left to ask");
    let claimed = only(&queue, 1_000).await;
    assert_eq!(claimed.limits, lists(&[&["email"], &["push", "sms"], &[]]));
    assert_eq!(submit(&queue, New { digest: [7; 16], ..limited(&["fax"]) }).await, Accepted::Conflict);
}

pub(super) async fn one_without_a_limit_was_asked_for_everything(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    assert_eq!(submit(&queue, new(1, ORDINARY)).await, Accepted::New(MessageId::from(1)));
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Same(State::Queued));
    assert_eq!(only(&queue, 1_000).await.limits, None);
}

pub(super) async fn a_deferred_message_is_due_at_once_and_a_scheduled_one_at_its_time(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], again(9_000)).await;
    submit(&queue, limited(&["push"])).await;
    let claimed = only(&queue, 1_001).await;
    assert_eq!((claimed.progress.as_deref(), claimed.report), (Some(&b"half-way"[..]), None));

    let home = Home::new(make);
    let queue = home.open();
    let scheduled = |limit: &[&str]| New { not_before: Some(at(5_000)), ..limited(limit) };
    submit(&queue, scheduled(&["email"])).await;
    assert_eq!(submit(&queue, scheduled(&["push"])).await, Accepted::Extended);
    assert!(claim(&queue, 9, 1_001).await.is_empty());
    assert_eq!(only(&queue, 5_000).await.limits, lists(&[&["email"], &["push"]]));
}

pub(super) async fn one_that_is_in_flight_goes_on_once_its_worker_is_done(make: Make<'_>) {
    for settlement in [done(State::Sent), again(9_000)] {
        let home = Home::new(make);
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

pub(super) async fn one_that_is_settled_is_opened_again_and_counted_as_such(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Sent)).await;
    assert_eq!(submit(&queue, limited(&["email"])).await, Accepted::Same(State::Sent));
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Extended);
    drop(queue);
    let queue = home.open();
    assert_eq!(queue.stats().await.expect("stats").waiting_ordinary, 1, "over a restart as well");
    let claimed = only(&queue, 1_000).await;
    assert_eq!(claimed.report.as_deref(), Some(&b"{\"report\": 1}"[..]));
    assert_eq!(claimed.body, new(1, ORDINARY).body, "what it needs was erased, and came with the request");
    settle(&queue, &[claimed], done(State::Sent)).await;
    let stored = queue.message(Uuid::from_u128(1)).await.expect("asked").expect("there");
    assert_eq!((stored.state, stored.body), (State::Sent, None));
}

pub(super) async fn a_cancelled_or_discarded_message_stays_so(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    queue.cancel(Uuid::from_u128(1), at(1_000)).await.expect("cancelled");
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Ended(State::Cancelled));
    let home = Home::new(make);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Failed)).await;
    queue.discard(Uuid::from_u128(1)).await.expect("discarded");
    assert_eq!(submit(&queue, limited(&["push"])).await, Accepted::Ended(State::Discarded));
}

pub(super) async fn a_dead_letter_that_is_tried_again_keeps_its_limit(make: Make<'_>) {
    let home = Home::new(make);
    let queue = home.open();
    submit(&queue, limited(&["email"])).await;
    settle(&queue, &[only(&queue, 1_000).await], done(State::Failed)).await;
    queue.retry(Uuid::from_u128(1), at(1_000)).await.expect("it waits again");
    let claimed = only(&queue, 1_000).await;
    assert_eq!((claimed.report, claimed.limits), (None, lists(&[&["email"]])));
}
