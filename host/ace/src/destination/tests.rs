use std::time::Duration;

use super::*;
use crate::config::Config;

const MESSAGE: Uuid = Uuid::from_u128(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn relay(name: &str) -> Destination {
    Destination::Relay(name.to_owned())
}

fn destinations() -> Arc<Destinations> {
    Destinations::new(&Config::default().delivery, || 0.0)
}

fn contact(all: &Arc<Destinations>, name: &str, channel: &str, second: i64) -> Result<Contact, Paused> {
    all.contact(&|| relay(name), channel, Uuid::new_v4(), || at(second))
}

fn fail(all: &Arc<Destinations>, name: &str, channel: &str, second: i64) {
    let destination = relay(name);
    let failure =
        Failure { destination: &destination, channel, cause: Cause::Destination, reason: "refused\r\n", until: None };
    assert!(contact(all, name, channel, second).unwrap_or_else(|_| panic!("admitted")).failed(failure, at(second)));
}

fn is_paused(all: &Arc<Destinations>, channel: &str, second: i64) -> bool {
    all.paused(channel, None, MESSAGE, at(second)).is_some()
}

#[test]
fn a_channel_is_paused_while_all_its_destinations_are_down() {
    let all = destinations();
    assert!(!is_paused(&all, "smtp", 0));
    all.note_used("both", relay("other"));
    fail(&all, "main", "smtp", 0);
    assert!(contact(&all, "main", "both", 1).is_err(), "its contact is refused");
    let paused = all.paused("smtp", None, MESSAGE, at(1)).expect("paused");
    assert_eq!(paused, Paused { destination: relay("main"), reason: "refused  ".to_owned(), until: at(5) });
    assert!(!is_paused(&all, "both", 1), "it goes on over its other relay");
    assert!(!is_paused(&all, "push", 1), "it has nothing to do with it");
    assert!(all.paused("both", Some(&relay("main")), MESSAGE, at(1)).is_some(), "but for what needs that one");
    fail(&all, "other", "both", 2);
    assert!(is_paused(&all, "both", 3));
    contact(&all, "main", "smtp", 5).unwrap_or_else(|_| panic!("the probe")).reached(|| at(5));
    assert!(!is_paused(&all, "smtp", 5));
    assert_eq!(all.troubles(at(20)).len(), 1, "the other one is down still");
}

#[test]
fn going_down_and_coming_up_are_notified_once() {
    let all = destinations();
    let mut notices = all.subscribe();
    for second in [0, 5, 15] {
        fail(&all, "main", "smtp", second);
    }
    let notice = notices.try_recv().expect("told");
    assert_eq!((notice.is_up, notice.destination, notice.since), (false, relay("main"), at(0)));
    assert!(notices.try_recv().is_err(), "once");
    contact(&all, "main", "smtp", 35).unwrap_or_else(|_| panic!("the probe")).reached(|| at(35));
    let notice = notices.try_recv().expect("told");
    assert!(notice.is_up && notice.since == at(0) && notices.try_recv().is_err());
}

#[test]
fn a_dropped_contact_has_no_effect() {
    let all = destinations();
    fail(&all, "main", "smtp", 0);
    drop(contact(&all, "main", "smtp", 5).unwrap_or_else(|_| panic!("the probe")));
    assert!(contact(&all, "main", "smtp", 6).is_ok());
}

#[test]
fn tracked_destinations_are_bounded_and_healthy_ones_are_dropped() {
    let all = destinations();
    for n in 0..TRACKED_MAX + 100 {
        let destination = Destination::Origin(format!("https://{n}.example.com"));
        let contact = all.contact(&|| destination.clone(), "web", MESSAGE, || at(0)).unwrap_or_else(|_| panic!("new"));
        let failure =
            Failure { destination: &destination, channel: "web", cause: Cause::Destination, reason: "no", until: None };
        contact.failed(failure, at(0));
    }
    assert_eq!(all.troubles(at(0)).len(), TRACKED_MAX);
    let all = destinations();
    fail(&all, "main", "smtp", 0);
    contact(&all, "main", "smtp", 5).unwrap_or_else(|_| panic!("the probe")).reached(|| at(5));
    assert!(all.troubles(at(16)).is_empty() && !all.is_tracking());
}

#[test]
fn the_pauses_follow_the_settings_up_to_a_minute() {
    let all = destinations();
    let hour = Duration::from_secs(3_600);
    all.set_schedule(&Delivery { retry_delay: hour, max_retry_delay: hour, ..Config::default().delivery });
    fail(&all, "main", "smtp", 0);
    assert_eq!(all.troubles(at(0))[0].next_attempt, Some(at(60)));
}

#[test]
fn a_held_channel_is_paused_whatever_its_relays_do() {
    let all = destinations();
    all.note_used("smtp", relay("other"));
    let channel = Destination::Channel("smtp".to_owned());
    let contact = all.contact(&|| channel.clone(), "smtp", MESSAGE, || at(0)).unwrap_or_else(|_| panic!("admitted"));
    let (cause, reason, until) = (Cause::Destination, "its quota is used up", Some(at(30)));
    contact.failed(Failure { destination: &channel, channel: "smtp", cause, reason, until }, at(0));
    let held = Paused { destination: channel.clone(), reason: reason.to_owned(), until: at(30) };
    assert_eq!(all.paused("smtp", Some(&relay("other")), MESSAGE, at(1)), Some(held));
    assert!(!is_paused(&all, "push", 1));
    assert_eq!("channel smtp".parse(), Ok(channel));
    fail(&all, "main", "smtp", 31);
    assert!(!is_paused(&all, "smtp", 32), "the other relay is up, and the probe of the channel is due");
}
