//! Messages whose relay is down. The channel here behaves like the imports of the host.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::*;
use crate::config::Defaults;
use crate::destination::{Cause, Failure};
use crate::message::Unreached;

/// A channel over one relay.
struct Relayed {
    name: &'static str,
    relay: &'static str,
    is_down: AtomicBool,
    /// The number of contacts with the relay.
    contacts: AtomicUsize,
    calls: AtomicUsize,
    /// Its result while the relay is down. It succeeds otherwise.
    answer: fn() -> Result<Receipt, DeliveryError>,
    destinations: Arc<Destinations>,
}

#[async_trait]
impl Channel for Arc<Relayed> {
    fn name(&self) -> &str {
        self.name
    }
    fn channel_type(&self) -> &str {
        "email"
    }
    fn template_files(&self) -> &[TemplateFile] {
        &[]
    }
    async fn deliver(
        &self,
        message: &Arc<Message>,
        _: &[(String, String)],
        _: &Attempt,
        call: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let destination = Destination::Relay(self.relay.to_owned());
        let unreached = |reason: &str, is_contacted| {
            call.record_unreached(Unreached {
                destination: destination.clone(),
                reason: reason.to_owned(),
                is_contacted,
            });
            (self.answer)()
        };
        let Ok(contact) = self.destinations.contact(&|| destination.clone(), self.name, message.uuid, now) else {
            return unreached("left alone", false);
        };
        self.contacts.fetch_add(1, Ordering::Relaxed);
        if !self.is_down.load(Ordering::Relaxed) {
            contact.reached(now);
            return Ok(Receipt::default());
        }
        let reason = "connecting: refused";
        contact.failed(
            Failure { destination: &destination, channel: self.name, cause: Cause::Destination, reason, until: None },
            now(),
        );
        unreached(reason, true)
    }
}

/// Channels `one` and `two` with a relay each. The relay of `one` is down; with `is_failover`, `two` is the failover.
fn world(is_failover: bool, answer: fn() -> Result<Receipt, DeliveryError>) -> (Arc<Snapshot>, [Arc<Relayed>; 2]) {
    let base = snapshot(vec![], &[], if is_failover { &["two"] } else { &[] });
    let destinations = Destinations::new(&base.delivery, || 0.0);
    let channel = |name, relay, is_down| {
        Arc::new(Relayed {
            name,
            relay,
            is_down: AtomicBool::new(is_down),
            contacts: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            answer,
            destinations: destinations.clone(),
        })
    };
    let channels = [channel("one", "a", true), channel("two", "b", false)];
    let base = Arc::into_inner(base).expect("the only one");
    let map = ChannelMap::new(channels.iter().map(|c| Arc::new(c.clone()) as Arc<dyn Channel>));
    let delivery = Delivery { defaults: Defaults::Serve, ..base.delivery };
    (Arc::new(Snapshot { channels: map, delivery, destinations, ..base }), channels)
}

fn fatal() -> Result<Receipt, DeliveryError> {
    Err(DeliveryError::Fatal("no".into()))
}

/// Advances the message when it is due until `end`, as `ace serve` does.
async fn run_until(flight: &mut InFlight, end: i64) {
    while let Some(due) = flight.due().filter(|due| *due <= at(end)) {
        NOW.set(due.as_second().max(NOW.get()));
        flight.advance().await;
    }
    NOW.set(end);
}

#[tokio::test]
async fn a_message_survives_an_outage_whatever_its_channel_returns() {
    let answers: [fn() -> Result<Receipt, DeliveryError>; 4] = [
        fatal,
        || recoverable("later", None),
        || Err(DeliveryError::Skipped("nothing to do".into())),
        || Ok(Receipt::default()),
    ];
    for answer in answers {
        let (snapshot, [one, _]) = world(false, answer);
        let mut flight = flight(&snapshot);
        run_until(&mut flight, 1_000 + 6 * 3_600).await;
        let Outcome::Retry { error, .. } = &email(&flight).outcome else { panic!("{:?}", email(&flight)) };
        assert_eq!((error.as_str(), email(&flight).attempts), ("relay a: connecting: refused", 0));
        one.is_down.store(false, Ordering::Relaxed);
        run_until(&mut flight, 1_000 + 7 * 3_600).await;
        assert_eq!((email(&flight).outcome.state(), email(&flight).attempts), ("sent", 1));
        let history: Vec<_> = email(&flight).history.iter().map(|a| (a.result, a.number)).collect();
        assert_eq!(history, [(AttemptResult::Unreachable, 1), (AttemptResult::Sent, 1)], "those in a row are one");
    }
}

#[tokio::test]
async fn waiting_ends_at_the_maximum_age_or_the_expiration_time() {
    let (day, moments) =
        (24 * 3_600, [(true, None, 24 * 3_600), (false, None, 120 * 3_600), (false, Some(7_000), 6_000)]);
    for (is_transactional, expiration, end) in moments {
        let (snapshot, _) = world(false, fatal);
        NOW.set(1_000);
        let mut message = Message::new("app", "name", None);
        message.options = serde_json::json!({"transactional": is_transactional}).as_object().cloned().expect("one");
        message.expiration_time = expiration.map(|second| at(second).into());
        let mut flight = InFlight::new(snapshot, Arc::new(message), Limit::default(), false);
        run_until(&mut flight, 1_000 + end - 1).await;
        assert_eq!(email(&flight).outcome.state(), "retry", "{end}");
        run_until(&mut flight, 1_000 + 6 * day).await;
        assert_eq!(email(&flight).outcome.state(), "expired", "{end}");
        let Outcome::Expired { error } = &email(&flight).outcome else { panic!("it expired") };
        assert!(expiration.is_some() || error.as_deref() == Some("relay a: connecting: refused"), "{error:?}");
    }
}

#[tokio::test]
async fn the_window_of_a_message_is_suspended_while_its_relay_is_down() {
    let (snapshot, [one, _]) = world(false, fatal);
    let delivery = Delivery { expiration_delay: Some(Duration::from_secs(60)), ..snapshot.delivery.clone() };
    let snapshot = Arc::new(Snapshot { delivery, ..Arc::into_inner(snapshot).expect("the only one") });
    let mut flight = flight(&snapshot);
    run_until(&mut flight, 1_700).await;
    one.is_down.store(false, Ordering::Relaxed);
    run_until(&mut flight, 1_800).await;
    assert_eq!(email(&flight).outcome.state(), "sent");
}

#[tokio::test]
async fn a_thousand_messages_contact_a_dead_relay_once_a_minute_and_do_not_affect_their_channel() {
    let (snapshot, [one, _]) = world(false, fatal);
    NOW.set(1_000);
    let new = || InFlight::new(snapshot.clone(), Arc::new(Message::new("app", "name", None)), Limit::default(), false);
    let mut flights: Vec<InFlight> = (0..1_000).map(|_| new()).collect();
    for second in 1_000..1_600 {
        NOW.set(second);
        for flight in &mut flights {
            if flight.due().is_some_and(|due| due <= at(second)) {
                flight.advance().await;
            }
        }
    }
    assert_eq!(one.contacts.load(Ordering::Relaxed), 13, "at 0, 5, 15, 35, 75, and every minute");
    assert_eq!(one.calls.load(Ordering::Relaxed), 13);
    one.is_down.store(false, Ordering::Relaxed);
    for second in 1_600..1_700 {
        NOW.set(second);
        for flight in &mut flights {
            if flight.due().is_some_and(|due| due <= at(second)) {
                flight.advance().await;
            }
        }
    }
    assert!(flights.iter().all(|flight| email(flight).outcome.state() == "sent"));
    assert_eq!(one.contacts.load(Ordering::Relaxed), 13 + 1_000);
}

#[tokio::test]
async fn a_channel_whose_relay_is_down_fails_over_immediately() {
    let (snapshot, [one, two]) = world(true, fatal);
    for n in 0..3 {
        let mut flight =
            InFlight::new(snapshot.clone(), Arc::new(Message::new("app", "name", None)), Limit::default(), false);
        flight.advance().await;
        let report = email(&flight);
        assert_eq!((report.outcome.state(), report.channel.as_deref()), ("sent", Some("two")), "{n}");
        assert_eq!(
            (report.rule, &report.passed_over[..]),
            (Some(Rule::Failover), &["one: relay a is down".to_owned()][..])
        );
    }
    assert_eq!(one.calls.load(Ordering::Relaxed), 1, "the others did not ask it");
    two.is_down.store(true, Ordering::Relaxed);
    let mut both = flight(&snapshot);
    both.advance().await;
    assert_eq!(email(&both).outcome.state(), "retry", "where both are down it waits");
}

#[tokio::test]
async fn a_stored_message_continues_as_soon_as_it_is_resumed() {
    let (snapshot, [one, _]) = world(false, fatal);
    let mut first = flight(&snapshot);
    first.advance().await;
    let relay = Destination::Relay("a".to_owned());
    assert_eq!(first.waits_for(), Some((vec![&relay], at(1_000 + 5 * 86_400))), "to be looked at then at the latest");
    one.is_down.store(false, Ordering::Relaxed);
    NOW.set(1_500);
    let mut second = stored_and_resumed(&first, &snapshot);
    assert_eq!(second.due(), Some(at(1_500)));
    second.advance().await;
    assert_eq!((email(&second).outcome.state(), second.waits_for()), ("sent", None));
}

#[tokio::test]
async fn progress_of_an_earlier_version_is_read() {
    let (snapshot, _) = world(false, fatal);
    let mut first = flight(&snapshot);
    first.advance().await;
    let mut stored = serde_json::to_value(first.progress()).expect("written");
    stored.as_object_mut().expect("an object").remove("accepted");
    let delivery = &mut stored["todo"][0]["Carry"];
    delivery.as_object_mut().expect("an object").remove("waits_for").expect("it waits for the relay");
    let progress = serde_json::from_value(stored).expect("read");
    let second = InFlight::resume(snapshot, first.message.clone(), progress);
    assert!(second.due().is_some() && second.waits_for().is_none());
}
