//! Operations on messages by operators, and webhook deliveries.

use super::*;

pub(super) async fn dead_letters_are_retried_and_discarded(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
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
    assert!(sent.starts_with("it is sent; only"), "{sent}");
    assert_eq!(queue.retry(Uuid::from_u128(9), at(0)).await, Err(QueueError::Unknown("message")));
    assert_eq!(queue.discard_all(Selection::default()).await, Ok(2));
    assert_eq!(state(&queue, 2).await, State::Discarded);
    assert!(queue.retry(Uuid::from_u128(2), at(0)).await.is_err());
}

pub(super) async fn the_progress_of_a_dead_letter_is_kept_for_a_retry_and_erased_with_its_body(
    new_harness: NewHarness<'_>,
) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let limited = New { limit: Some(vec!["email".to_owned()]), ..new(2, ORDINARY) };
    queue.accept(vec![limited], at(1_000)).await.expect("accepted");
    accept(&queue, [3, 4], ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    let failed = |state| Settlement::Done(Done { kept: Some(b"kept".to_vec()), ..Done::new(state, b"{}".to_vec()) });
    settle(&queue, &claimed[..3], failed(State::Failed)).await;
    settle(&queue, &claimed[3..], failed(State::Sent)).await;
    queue.retry(Uuid::from_u128(1), at(1_100)).await.expect("it was dead");
    let again = claim(&queue, 5, 1_100).await.remove(0);
    assert_eq!((again.progress.as_deref(), again.report), (Some(&b"kept"[..]), None));
    // If it is requested for another channel type, it continues from its report and progress.
    let limited = New { limit: Some(vec!["push".to_owned()]), ..new(2, ORDINARY) };
    assert_eq!(queue.accept(vec![limited], at(1_200)).await.expect("accepted"), [Accepted::Extended]);
    let extended = claim(&queue, 5, 1_200).await.remove(0);
    assert_eq!((extended.progress.as_deref(), extended.report.as_deref()), (Some(&b"kept"[..]), Some(&b"{}"[..])));
    queue.discard(Uuid::from_u128(3)).await.expect("it was dead");
    for number in [3, 4] {
        assert_eq!(queue.message(Uuid::from_u128(number)).await.expect("asked").expect("there").progress, None);
    }
}

pub(super) async fn a_change_of_a_selection_obeys_its_limit(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    // More messages than one step covers. One of the latest cannot be retried.
    accept(&queue, 1..=1_200, ORDINARY).await;
    let claimed = claim(&queue, 1_200, 1_000).await;
    settle(&queue, &claimed[..1_198], done(State::Failed)).await;
    settle(&queue, &claimed[1_198..1_199], done(State::Corrupt)).await;
    settle(&queue, &claimed[1_199..], done(State::Failed)).await;
    let of = |limit| Selection { limit: Some(limit), ..Selection::default() };
    assert_eq!(queue.retry_all(of(0), at(1_100)).await, Ok(0));
    assert_eq!(queue.discard_all(of(0)).await, Ok(0));
    assert_eq!(queue.retry_all(of(2), at(1_100)).await, Ok(2), "the corrupt one is not counted");
    assert_eq!((state(&queue, 1_200).await, state(&queue, 1_198).await), (State::Queued, State::Queued));
    assert_eq!((state(&queue, 1_199).await, state(&queue, 1_197).await), (State::Corrupt, State::Failed));
    assert_eq!(queue.retry_all(of(1_001), at(1_100)).await, Ok(1_001));
    assert_eq!(queue.discard_all(Selection { cursor: Some(MessageId::from(101)), ..of(1) }).await, Ok(1));
    assert_eq!((state(&queue, 100).await, state(&queue, 101).await), (State::Discarded, State::Failed));
    assert_eq!(queue.discard_all(Selection::default()).await, Ok(196), "all that are left");
}

pub(super) async fn a_waiting_message_can_be_cancelled_and_one_in_flight_cannot(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    accept(&queue, [1, 2], ORDINARY).await;
    let claimed = claim(&queue, 1, 1_000).await;
    assert_eq!(numbers(&claimed), [1]);
    assert!(matches!(queue.cancel(Uuid::from_u128(1), at(0)).await, Err(QueueError::State(_))));
    queue.cancel(Uuid::from_u128(2), at(0)).await.expect("it waits");
    assert_eq!(state(&queue, 2).await, State::Cancelled);
    assert!(claim(&queue, 5, 9_000).await.is_empty());
}

pub(super) async fn messages_are_found_by_person_name_state_and_time(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
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

pub(super) async fn all_messages_of_a_person_are_erased(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    queue.set_webhooks(vec!["audit".to_owned()]).await.expect("set");
    accept(&queue, 1..=21, ORDINARY).await;
    let claimed = claim(&queue, 4, 1_000).await;
    let event = Some(event("message.sent"));
    settle(&queue, &claimed[..3], Settlement::Done(Done { event, ..Done::new(State::Sent, b"{}".to_vec()) })).await;
    let erased = queue.erase(Some("3".to_owned()), None).await.expect("erased");
    assert_eq!(erased, Erased { waiting: 2, in_flight: 0, settled: 1, damaged: 0 });
    let erased = queue.erase(None, Some("User4@Example.com".to_owned())).await.expect("erased");
    assert_eq!(erased, Erased { waiting: 2, in_flight: 1, settled: 0, damaged: 0 });
    settle(&queue, &claimed[3..], done(State::Sent)).await;
    for number in [3, 4, 10, 11, 17, 18] {
        assert_eq!(queue.message(Uuid::from_u128(number)).await.expect("asked"), None, "{number}");
    }
    let left = claim(&queue, 100, 9_000).await;
    assert_eq!(left.len(), 21 - 4 - 4, "and no others");
    assert_eq!(
        queue.webhook_deliveries("audit".to_owned(), 10, at(9_000)).await.expect("asked").len(),
        2,
        "their events too"
    );
}

pub(super) async fn webhook_deliveries_are_stored_until_they_end(new_harness: NewHarness<'_>) {
    let home = Home::new(new_harness);
    let queue = home.open();
    queue.set_webhooks(vec!["a".to_owned(), "b".to_owned()]).await.expect("set");
    accept(&queue, [1, 2], ORDINARY).await;
    let claimed = claim(&queue, 2, 1_000).await;
    let event = Some(event("message.sent"));
    settle(&queue, &claimed, Settlement::Done(Done { event, ..Done::new(State::Sent, b"{}".to_vec()) })).await;
    let deliveries =
        async |hook: &str, second| queue.webhook_deliveries(hook.to_owned(), 10, at(second)).await.expect("asked");
    let first = deliveries("a", 1_001).await;
    assert_eq!(first.len(), 2);
    queue.end_webhook_delivery("a".to_owned(), first[0].event.id).await.expect("noted");
    queue.retry_webhook_delivery("a".to_owned(), first[1].event.id, at(1_060)).await.expect("noted");
    assert!(deliveries("a", 1_059).await.is_empty());
    assert_eq!(queue.next_webhook_delivery("a".to_owned()).await.expect("asked"), Some(at(1_060)));
    assert_eq!(queue.next_webhook_delivery("c".to_owned()).await.expect("asked"), None);
    assert_eq!(deliveries("a", 1_060).await[0].attempts, 1);
    assert_eq!(deliveries("b", 1_001).await.len(), 2);
    assert_eq!(queue.events(first[0].event.id, 10).await.expect("asked").events.len(), 1);
    queue.set_webhooks(vec!["b".to_owned()]).await.expect("set");
    assert!(deliveries("a", 9_000).await.is_empty(), "deliveries to removed webhooks are dropped");
}
