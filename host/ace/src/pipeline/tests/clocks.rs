//! Changes of the clock, and what uses up a window.

use super::*;

const HOUR: i64 = 3_600;

/// A channel that always fails temporarily, and a message in flight over it.
async fn busy() -> (Arc<Script>, Arc<Snapshot>, InFlight) {
    let channel = Script::new("smtp", (0..50).map(|_| recoverable("busy", None)).collect());
    let snapshot = snapshot(vec![], &[&channel], &[]);
    let mut flight = flight(&snapshot);
    flight.advance().await;
    (channel, snapshot, flight)
}

/// The remaining pauses of the schedule of [`a_temporary_failure_is_retried_with_the_same_key_until_the_window_ends`].
async fn pauses(flight: &mut InFlight) -> Vec<i64> {
    let mut pauses = Vec::new();
    while let Some(due) = flight.due().filter(|_| pauses.len() < 50) {
        pauses.push(due.as_second() - NOW.get());
        NOW.set(due.as_second());
        flight.advance().await;
    }
    pauses
}

#[tokio::test]
async fn a_clock_that_is_set_forward_ends_no_window() {
    let (channel, _, mut flight) = busy().await;
    NOW.set(1_000 + 9 * HOUR);
    flight.advance().await;
    assert_eq!(pauses(&mut flight).await, [10, 20, 40], "the schedule goes on where it stood");
    assert_eq!((email(&flight).outcome.state(), channel.attempts().len()), ("expired", 5));
}

#[tokio::test]
async fn a_clock_that_is_set_back_extends_neither_a_pause_nor_the_window() {
    let (channel, snapshot, flight) = busy().await;
    NOW.set(1_000 - 9 * HOUR / 100);
    let mut taken_up = stored_and_resumed(&flight, &snapshot);
    assert_eq!(pauses(&mut taken_up).await, [5, 10, 20, 40]);
    assert_eq!((email(&taken_up).outcome.state(), channel.attempts().len()), ("expired", 5));
}

#[tokio::test]
async fn a_clock_that_is_set_during_an_attempt_moves_the_window() {
    for by in [9 * HOUR, -900] {
        let channel = Script::new("smtp", (0..50).map(|_| recoverable("busy", None)).collect());
        channel.sets_clock.store(by, Ordering::Relaxed);
        let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
        flight.advance().await;
        channel.sets_clock.store(0, Ordering::Relaxed);
        assert_eq!(pauses(&mut flight).await, [5, 10, 20, 40], "{by} s");
    }
}

#[tokio::test]
async fn a_queue_or_a_paused_batch_uses_up_no_window() {
    let (channel, snapshot, flight) = busy().await;
    // Its batch is paused for an hour.
    NOW.set(1_000 + HOUR);
    let mut taken_up = stored_and_resumed(&flight, &snapshot);
    taken_up.advance().await;
    assert_eq!(channel.attempts(), [1, 2]);
    assert_eq!(pauses(&mut taken_up).await, [10, 20, 40]);
}

#[tokio::test]
async fn a_retry_after_holds_back_every_message_of_the_channel() {
    let channel = Script::new("smtp", vec![recoverable("429", Some(at(1_030)))]);
    channel.retry_after.store(30, Ordering::Relaxed);
    let mut snapshot = Arc::into_inner(snapshot(vec![], &[&channel], &[])).expect("the only one");
    snapshot.limiters = crate::channel::limiter::channel_limiters(["smtp"], &BTreeMap::new(), &ChannelLimiters::new());
    let snapshot = Arc::new(snapshot);
    let (mut first, mut second) = (flight(&snapshot), flight(&snapshot));
    first.advance().await;
    second.advance().await;
    assert_eq!((first.due(), second.due()), (Some(at(1_030)), Some(at(1_030))));
    assert_eq!((email(&second).attempts, channel.attempts()), (0, vec![1]), "the second one was not tried");
    let Outcome::Retry { error, .. } = &email(&second).outcome else { panic!("{:?}", email(&second)) };
    assert!(error.contains("Retry-After"), "{error}");
    for flight in [&mut first, &mut second] {
        run(flight).await;
        assert_eq!(email(flight).outcome.state(), "sent");
    }
    assert_eq!((email(&second).attempts, channel.attempts()), (1, vec![1, 2, 1]));
}

#[tokio::test]
async fn a_rate_limit_defers_and_uses_up_nothing() {
    let channel = Script::new("smtp", vec![]);
    let rate = crate::config::Rate { count: 1, per: std::time::Duration::from_secs(3600) };
    let settings = crate::config::Channel { rate: Some(rate), ..Default::default() };
    let settings = BTreeMap::from([("smtp".to_owned(), settings)]);
    let with_quota = || {
        let mut snapshot = Arc::into_inner(snapshot(vec![], &[&channel], &[])).expect("the only one");
        snapshot.limiters = crate::channel::limiter::channel_limiters(["smtp"], &settings, &ChannelLimiters::new());
        Arc::new(snapshot)
    };
    let snapshot = with_quota();
    let mut first = flight(&snapshot);
    assert_eq!(run(&mut first).await, [0]);
    let mut second = flight(&snapshot);
    second.advance().await;
    let due = second.due().expect("it waits").as_second();
    assert!((1_000 + HOUR - 60..=1_000 + HOUR).contains(&due), "an hour later, twelve windows: {due}");
    NOW.set(due + 1);
    // The hour of the rate limit is over.
    second.use_snapshot(with_quota());
    second.advance().await;
    assert_eq!((email(&second).outcome.state(), email(&second).attempts), ("sent", 1));
}

#[tokio::test]
async fn an_open_circuit_breaker_uses_up_neither_an_attempt_nor_the_window() {
    let unavailable = || Err(DeliveryError::Unavailable("its circuit breaker is open".into()));
    let mut answers: Vec<_> = (0..10).map(|_| unavailable()).collect();
    answers.extend([recoverable("busy", None), unavailable(), unavailable()]);
    let channel = Script::new("smtp", answers);
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    let moments = run(&mut flight).await;
    assert!(moments[10] > 300, "{moments:?}");
    assert_eq!((email(&flight).outcome.state(), email(&flight).attempts), ("sent", 2));
}
