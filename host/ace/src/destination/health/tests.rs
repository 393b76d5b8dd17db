use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);
const C: Uuid = Uuid::from_u128(3);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// 5 s, doubling.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(5) * (1 << (failures - 1).min(20))
}

fn fails(health: &mut Health, message: Uuid, cause: Cause, second: i64) -> Failed {
    let permit = health.admit(message, at(second)).expect("admitted");
    health.failed(permit, message, Loss { cause, reason: "refused".to_owned(), until: None }, at(second), pause)
}

fn succeeds(health: &mut Health, message: Uuid, second: i64) -> Change {
    let permit = health.admit(message, at(second)).expect("admitted");
    health.reached(permit, at(second), at(second))
}

fn down(message: Uuid, second: i64) -> Health {
    let mut health = Health::default();
    assert_eq!(fails(&mut health, message, Cause::Destination, second), Failed::Destination(Change::Down));
    health
}

#[test]
fn one_failure_puts_it_down_and_probes_come_at_most_a_minute_apart() {
    let mut health = down(A, 0);
    let (mut now, mut probes) = (0, Vec::new());
    while probes.len() < 8 {
        let until = health.check(B, at(now)).expect_err("it waits");
        now = until.as_second();
        assert_eq!(health.wanted(9, at(now)), 1, "one message");
        let permit = health.admit(B, at(now)).expect("the probe");
        assert!(health.check(C, at(now)).is_err() && health.wanted(9, at(now)) == 0, "one at a time");
        let failed = health.failed(
            permit,
            B,
            Loss { cause: Cause::Destination, reason: "still".to_owned(), until: None },
            at(now),
            pause,
        );
        assert_eq!(failed, Failed::Destination(Change::None), "told once");
        probes.push(now);
    }
    assert_eq!(probes, [5, 15, 35, 75, 135, 195, 255, 315]);
    assert_eq!(health.trouble().map(|t| (t.since, t.reason)), Some((at(0), "still".to_owned())));
}

#[test]
fn after_a_successful_probe_messages_ramp_up() {
    let mut health = down(A, 0);
    assert_eq!(succeeds(&mut health, B, 5), Change::Up(SignedDuration::from_secs(5)));
    let mut rounds = Vec::new();
    loop {
        let mut permits = Vec::new();
        while permits.len() < 100
            && let Ok(permit) = health.admit(C, at(6))
        {
            permits.push(permit);
        }
        rounds.push(permits.len());
        if permits[0] == Permit::Free {
            break;
        }
        for permit in permits {
            health.reached(permit, at(6), at(6));
        }
    }
    assert_eq!(rounds, [2, 4, 8, 16, 32, 100]);
    assert!(health.is_healthy(at(6)) && health.trouble().is_none());
}

#[test]
fn a_failure_while_it_recovers_puts_it_down_again_with_the_longer_pause() {
    let mut health = down(A, 0);
    assert!(matches!(succeeds(&mut health, B, 5), Change::Up(_)));
    assert_eq!(fails(&mut health, C, Cause::Destination, 6), Failed::Destination(Change::Down));
    assert_eq!(health.check(B, at(6)), Err(at(16)));
}

#[test]
fn few_messages_end_a_ramp_by_time() {
    let mut health = down(A, 0);
    succeeds(&mut health, B, 5);
    assert!(!health.is_healthy(at(14)));
    assert!(health.is_healthy(at(15)));
}

#[test]
fn a_message_that_may_be_the_cause_does_not_stop_others() {
    let mut health = Health::default();
    assert_eq!(fails(&mut health, A, Cause::Unclear, 0), Failed::Destination(Change::None));
    assert!(health.trouble().is_none(), "nothing to tell yet");
    assert!(health.check(A, at(1)).is_err(), "it waits itself");
    assert_eq!(succeeds(&mut health, B, 1), Change::None, "another one is tried at once");
    assert_eq!(health.check(C, at(1)), Ok(Permit::Free));
    assert_eq!(fails(&mut health, A, Cause::Unclear, 5), Failed::Message, "from here on it is its own failure");
    assert_eq!(health.check(C, at(5)), Ok(Permit::Free));
}

#[test]
fn two_messages_with_the_same_unclear_failure_show_that_it_is_the_destination() {
    let mut health = Health::default();
    fails(&mut health, A, Cause::Unclear, 0);
    assert_eq!(fails(&mut health, B, Cause::Unclear, 1), Failed::Destination(Change::Down));
    assert!(health.check(C, at(1)).is_err());
}

#[test]
fn a_single_message_probes_itself_before_the_destination_counts_as_down() {
    let mut health = Health::default();
    fails(&mut health, A, Cause::Unclear, 0);
    assert_eq!(health.check(A, at(1)), Err(at(5)));
    assert_eq!(fails(&mut health, A, Cause::Unclear, 5), Failed::Destination(Change::Down));
    assert_eq!(health.check(A, at(5)), Err(at(15)));
    assert_eq!(health.check(B, at(5)), Ok(Permit::Probe), "and others are still tried at once");
    assert!(matches!(succeeds(&mut health, A, 15), Change::Up(_)));
}

#[test]
fn contacts_from_before_an_outage_have_no_effect() {
    let mut health = Health::default();
    let before = [health.admit(B, at(0)), health.admit(C, at(0))].map(|permit| permit.expect("admitted"));
    fails(&mut health, A, Cause::Destination, 1);
    assert_eq!(health.reached(before[0], at(0), at(2)), Change::None);
    let late = health.failed(
        before[1],
        C,
        Loss { cause: Cause::Destination, reason: "late".to_owned(), until: None },
        at(3),
        pause,
    );
    assert_eq!(late, Failed::Destination(Change::None));
    assert_eq!(health.check(B, at(3)), Err(at(6)), "the first pause");
}

#[test]
fn a_dropped_probe_is_followed_by_another() {
    let mut health = down(A, 0);
    let permit = health.admit(B, at(5)).expect("the probe");
    health.dropped(permit, at(5));
    assert_eq!(health.check(C, at(5)), Err(at(6)));
    assert_eq!(health.check(C, at(6)), Ok(Permit::Probe));
}

#[test]
fn a_delivery_elsewhere_ends_the_wait() {
    let mut health = down(A, 0);
    assert!(matches!(health.bypassed(at(5)), Change::Up(_)));
    assert_eq!(health.wanted(9, at(5)), 2);
    assert_eq!(Health::default().bypassed(at(5)), Change::None);
}

#[test]
fn a_clock_that_was_set_back_does_not_delay_probes() {
    let mut health = down(A, 10_000);
    assert_eq!(health.check(B, at(0)), Ok(Permit::Probe));
    let mut health = down(A, 10_000);
    succeeds(&mut health, B, 10_005);
    assert!(health.is_healthy(at(0)), "nor a ramp");
}

#[test]
fn after_a_restart_one_message_probes_at_once() {
    let mut health = Health::down_before("before".to_owned(), at(0));
    assert_eq!(health.wanted(500, at(0)), 1);
    assert!(matches!(succeeds(&mut health, A, 0), Change::Up(_)));
}

#[test]
fn suspects_are_bounded_and_expire() {
    let mut health = Health::default();
    for n in 10..110 {
        fails(&mut health, Uuid::from_u128(n), Cause::Unclear, 0);
        succeeds(&mut health, A, 1);
        health = Health { outage: None, ..health };
    }
    assert_eq!(health.suspects.len(), SUSPECTS_MAX);
    assert!(!health.is_healthy(at(60)) && health.is_healthy(at(3_700)));
}

#[test]
fn a_hold_ends_at_its_time_and_a_later_one_extends_it() {
    let hold = |until| Loss { cause: Cause::Destination, reason: "quota".to_owned(), until: Some(at(until)) };
    let mut health = Health::default();
    assert_eq!(health.failed(Permit::Free, A, hold(600), at(0), pause), Failed::Destination(Change::Down));
    assert_eq!(health.failed(Permit::Free, B, hold(900), at(1), pause), Failed::Destination(Change::None), "told once");
    health.failed(Permit::Free, C, hold(700), at(2), pause);
    assert_eq!(health.check(B, at(800)), Err(at(900)), "the latest one counts");
    assert_eq!((health.wanted(9, at(899)), health.wanted(9, at(900))), (0, 1));
    let permit = health.admit(B, at(900)).expect("the probe");
    health.failed(permit, B, hold(800), at(900), pause);
    assert_eq!(health.check(B, at(901)), Err(at(910)), "a time in the past is none");
    let permit = health.admit(B, at(910)).expect("the probe");
    health.failed(permit, B, hold(1_000_000_000), at(910), pause);
    assert_eq!(health.check(B, at(911)), Err(at(910 + 86_400)), "at most a day");
    assert!(health.check(B, at(-900_000)).is_ok(), "a clock that was set back ends it");
}
