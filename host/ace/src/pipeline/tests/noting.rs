//! Channels that note the outcome for addresses, that hold themselves, and that fall back to other types.

use std::collections::VecDeque;

use super::*;
use crate::message::{AddressOutcome, AddressRecord, Denial, Hold, Recipient};

/// What one attempt does.
struct Attempted {
    /// Tokens and their outcomes.
    notes: Vec<(&'static str, AddressOutcome)>,
    hold: Option<Hold>,
    answer: Result<Receipt, DeliveryError>,
}

/// A channel with scripted attempts, that succeeds afterwards.
struct Noting {
    name: &'static str,
    channel_type: &'static str,
    attempts: Mutex<VecDeque<Attempted>>,
    /// The tokens that each attempt saw, and the number of notes that it was given.
    seen: Mutex<Vec<(String, usize)>>,
}

impl Noting {
    fn new(name: &'static str, channel_type: &'static str, attempts: impl IntoIterator<Item = Attempted>) -> Arc<Self> {
        let attempts = Mutex::new(attempts.into_iter().collect());
        Arc::new(Noting { name, channel_type, attempts, seen: Mutex::default() })
    }

    fn seen(&self) -> Vec<(String, usize)> {
        self.seen.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl Channel for Arc<Noting> {
    fn name(&self) -> &str {
        self.name
    }
    fn channel_type(&self) -> &str {
        self.channel_type
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
        let contacts = message.recipient.iter().flat_map(|recipient| &recipient.contacts);
        let tokens: String = contacts.map(|(_, token)| token.as_str()).collect();
        self.seen.lock().expect("no panic").push((tokens, call.earlier().addresses.len()));
        let Some(attempt) = self.attempts.lock().expect("no panic").pop_front() else { return Ok(Receipt::default()) };
        attempt.notes.into_iter().for_each(|(token, outcome)| call.record_address(record(self.name, token, outcome)));
        attempt.hold.into_iter().for_each(|hold| call.hold_channel(hold));
        attempt.answer
    }
}

fn record(channel: &str, token: &str, outcome: AddressOutcome) -> AddressRecord {
    let (kind, address, channel) = ("push-token".to_owned(), token.to_owned(), channel.to_owned());
    AddressRecord { channel, kind, address, outcome, provider_id: None, code: None, reported: false }
}

fn answers(answer: Result<Receipt, DeliveryError>) -> Attempted {
    Attempted { notes: Vec::new(), hold: None, answer }
}

fn notes(notes: &[(&'static str, AddressOutcome)], answer: Result<Receipt, DeliveryError>) -> Attempted {
    Attempted { notes: notes.to_vec(), ..answers(answer) }
}

fn holds(until: Option<i64>) -> Attempted {
    let hold = Hold { until: until.map(at), reason: "its key was revoked".to_owned() };
    Attempted { hold: Some(hold), ..answers(recoverable("HTTP 403", None)) }
}

fn fatal() -> Result<Receipt, DeliveryError> {
    Err(DeliveryError::Fatal("HTTP 400".to_owned()))
}

fn world(channels: &[&Arc<Noting>], change: impl FnOnce(&mut Snapshot)) -> Arc<Snapshot> {
    let mut snapshot = Arc::into_inner(snapshot(vec![], &[], &[])).expect("the only one");
    snapshot.channels = ChannelMap::new(channels.iter().map(|c| Arc::new((*c).clone()) as Arc<dyn Channel>));
    change(&mut snapshot);
    Arc::new(snapshot)
}

fn message(tokens: &[&str]) -> Arc<Message> {
    let contacts = tokens.iter().map(|token| ("push-token".to_owned(), (*token).to_owned())).collect();
    Arc::new(Message::new("app", "name", Some(Recipient { contacts, ..Recipient::default() })))
}

fn start(snapshot: &Arc<Snapshot>, tokens: &[&str]) -> InFlight {
    NOW.set(1_000);
    InFlight::new(snapshot.clone(), message(tokens), Limit::default(), false)
}

fn of<'a>(flight: &'a InFlight, channel_type: &str) -> &'a ChannelReport {
    let channels = &flight.report().channels;
    channels.iter().find(|channel| channel.channel_type == channel_type).expect("its type")
}

fn states(flight: &InFlight, types: &[&str]) -> Vec<&'static str> {
    types.iter().map(|channel_type| of(flight, channel_type).outcome.state()).collect()
}

use AddressOutcome::{Dropped, Failed, Retry, Sent};

#[tokio::test]
async fn a_later_attempt_gets_only_addresses_whose_outcome_is_open() {
    let first = notes(&[("a", Sent), ("b", Dropped), ("c", Failed), ("d", Retry)], Ok(Receipt::default()));
    let push = Noting::new("fcm", "push", [first]);
    let snapshot = world(&[&push], |_| {});
    let mut flight = start(&snapshot, &["a", "b", "c", "d", "e"]);
    flight.advance().await;
    assert_eq!(of(&flight, "push").outcome.state(), "retry", "an address is to be tried again");
    let mut resumed = stored_and_resumed(&flight, &snapshot);
    run(&mut resumed).await;
    assert_eq!(push.seen(), [("abcde".to_owned(), 0), ("de".to_owned(), 4)]);
    let dropped: Vec<&str> = resumed.report().dropped_addresses().map(|record| record.address.as_str()).collect();
    assert_eq!((states(&resumed, &["push"]), dropped), (vec!["sent"], vec!["b"]));
}

#[tokio::test]
async fn a_message_that_one_address_got_is_sent_and_does_not_fail_over() {
    for answer in [fatal(), recoverable("busy", None)] {
        let (one, two) = (
            Noting::new("one", "email", (0..50).map(|_| notes(&[("a", Sent), ("b", Retry)], answer.clone()))),
            Noting::new("two", "email", []),
        );
        let failover = BTreeMap::from([("email".to_owned(), vec!["two".to_owned()])]);
        let snapshot = world(&[&one, &two], |snapshot| snapshot.routing.failover = failover);
        let mut flight = start(&snapshot, &["a", "b"]);
        run(&mut flight).await;
        assert_eq!(states(&flight, &["email"]), ["sent"]);
        assert!(two.seen().is_empty());
    }
}

#[tokio::test]
async fn another_channel_may_reach_an_address_that_failed_but_not_one_that_was_dropped() {
    let one = Noting::new("one", "email", [notes(&[("a", Failed), ("b", Dropped)], fatal())]);
    let two = Noting::new("two", "email", []);
    let failover = BTreeMap::from([("email".to_owned(), vec!["two".to_owned()])]);
    let default = BTreeMap::from([("email".to_owned(), "one".to_owned())]);
    let snapshot = world(&[&one, &two], |snapshot| {
        (snapshot.routing.failover, snapshot.routing.default) = (failover, default);
    });
    let mut flight = start(&snapshot, &["a", "b"]);
    run(&mut flight).await;
    assert_eq!(two.seen(), [("a".to_owned(), 1)]);
}

#[tokio::test]
async fn a_dead_letter_that_is_retried_skips_dropped_addresses_and_does_not_report_them_again() {
    let push = Noting::new("fcm", "push", [notes(&[("a", Dropped), ("b", Failed)], fatal())]);
    let snapshot = world(&[&push], |_| {});
    let mut flight = start(&snapshot, &["a", "b"]);
    run(&mut flight).await;
    assert_eq!(states(&flight, &["push"]), ["failed"]);
    let kept = serde_json::to_vec(&flight.retained_progress().expect("one was dropped")).expect("written");
    let progress = serde_json::from_slice(&kept).expect("read");
    let mut again = InFlight::resume(snapshot, flight.message.clone(), progress);
    run(&mut again).await;
    assert_eq!(push.seen()[1], ("b".to_owned(), 1), "the failed one is tried again");
    assert_eq!((states(&again, &["push"]), again.report().dropped_addresses().count()), (vec!["sent"], 0));
}

#[tokio::test]
async fn notes_that_were_stored_during_an_attempt_are_in_the_report_after_a_crash() {
    let push = Noting::new("smtp", "push", []);
    let snapshot = at_most_once(world(&[&push], |_| {}));
    let mut flight = start(&snapshot, &["a", "b"]);
    flight.advance().await;
    assert!(flight.must_be_recorded());
    let recorded = serde_json::to_vec(flight.progress()).expect("written");
    let stored = Progress::with_addresses(&recorded, &[record("smtp", "a", Sent)]).expect("read");
    let progress = serde_json::from_slice(&stored).expect("read");
    let after = InFlight::resume(snapshot, flight.message.clone(), progress);
    assert_eq!((states(&after, &["push"]), of(&after, "push").addresses.len()), (vec!["maybe_sent"], 1));
}

#[tokio::test]
async fn a_held_channel_stops_its_other_messages_until_its_time() {
    let push = Noting::new("fcm", "push", [holds(Some(1_100))]);
    let snapshot = world(&[&push], |snapshot| snapshot.delivery.max_age = Some(std::time::Duration::from_secs(3_600)));
    let mut first = start(&snapshot, &["a"]);
    first.advance().await;
    let mut second = InFlight::new(snapshot.clone(), message(&["b"]), Limit::default(), false);
    second.advance().await;
    assert_eq!(push.seen().len(), 1, "the second one is not tried");
    let channel = Destination::Channel("fcm".to_owned());
    for flight in [&first, &second] {
        assert_eq!(flight.waits_for().map(|(down, _)| down), Some(vec![&channel]));
        assert_eq!((flight.due(), of(flight, "push").attempts), (Some(at(1_100)), 0));
    }
    NOW.set(1_100);
    second.advance().await;
    first.advance().await;
    assert_eq!((states(&first, &["push"]), states(&second, &["push"])), (vec!["sent"], vec!["sent"]));
}

#[tokio::test]
async fn a_channel_without_a_time_is_tried_with_growing_pauses_and_a_settled_result_stands() {
    let push = Noting::new("fcm", "push", (0..4).map(|_| holds(None)));
    let mut flight = start(&world(&[&push], |_| {}), &["a"]);
    assert_eq!(run(&mut flight).await, [0, 5, 15, 35, 75]);
    assert_eq!(
        (states(&flight, &["push"]), of(&flight, "push").history.len()),
        (vec!["sent"], 2),
        "holds are one entry"
    );

    let push = Noting::new("fcm", "push", [Attempted { answer: fatal(), ..holds(None) }]);
    let mut flight = start(&world(&[&push], |_| {}), &["a"]);
    assert_eq!(run(&mut flight).await, [0]);
    assert_eq!(states(&flight, &["push"]), ["failed"]);
}

fn falls_back(chains: &[(&str, &[&str])]) -> impl FnOnce(&mut Snapshot) {
    let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    let fallback = chains.iter().map(|(first, list)| ((*first).to_owned(), owned(list))).collect();
    move |snapshot| snapshot.routing.fallback = fallback
}

const TYPES: [&str; 3] = ["push", "sms", "email"];

fn chain(push: Attempted, sms: Attempted) -> [Arc<Noting>; 3] {
    [Noting::new("push", "push", [push]), Noting::new("sms", "sms", [sms]), Noting::new("smtp", "email", [])]
}

#[tokio::test]
async fn a_type_that_was_skipped_or_failed_gives_way_to_the_next() {
    let skipped = || answers(Err(DeliveryError::Skipped("no device".to_owned())));
    let sent = || answers(Ok(Receipt::default()));
    for (push, sms, expected) in [
        (sent(), sent(), ["sent", "standby", "standby"]),
        (skipped(), sent(), ["skipped", "sent", "standby"]),
        (answers(fatal()), skipped(), ["failed", "skipped", "sent"]),
        (
            answers(Err(DeliveryError::MaybeSent { reason: "cut".to_owned() })),
            sent(),
            ["maybe_sent", "standby", "standby"],
        ),
    ] {
        let [push, sms, email] = &chain(push, sms);
        let snapshot = world(&[push, sms, email], falls_back(&[("push", &["sms", "email"])]));
        let mut flight = start(&snapshot, &["a"]);
        run(&mut flight).await;
        assert_eq!(states(&flight, &TYPES), expected);
        assert_eq!(flight.report().is_failure(), expected[0] == "maybe_sent");
        let gave_way = of(&flight, "email").fallback_for.join(",");
        assert_eq!(gave_way, if expected[2] == "sent" { "push,sms" } else { "" });
    }
}

#[tokio::test]
async fn a_type_on_standby_waits_for_retries_and_survives_a_restart() {
    let [push, sms, email] = &chain(answers(recoverable("busy", None)), answers(Ok(Receipt::default())));
    push.attempts.lock().expect("no panic").extend((0..50).map(|_| answers(recoverable("busy", None))));
    let snapshot = world(&[push, sms, email], falls_back(&[("push", &["sms", "email"])]));
    let mut flight = start(&snapshot, &["a"]);
    flight.advance().await;
    assert_eq!(states(&flight, &TYPES), ["retry", "standby", "standby"]);
    let mut resumed = stored_and_resumed(&flight, &snapshot);
    run(&mut resumed).await;
    assert_eq!(states(&resumed, &TYPES), ["expired", "sent", "standby"]);
    assert!(!resumed.report().is_failure(), "the fallback carried it");
    // A new configuration without the chain does not send what stands by.
    let mut without = stored_and_resumed(&flight, &world(&[push, sms, email], |_| {}));
    assert_eq!(states(&without, &TYPES), ["retry", "standby", "standby"]);
    without.advance().await;
    assert_eq!(states(&without, &TYPES), ["retry", "standby", "standby"]);
}

#[tokio::test]
async fn types_that_are_not_in_play_make_no_other_type_wait() {
    let sent = || answers(Ok(Receipt::default()));
    let policy = |denied: &str| {
        let deny = vec![Denial { channel_type: denied.to_owned(), reason: None }];
        let policy: Arc<dyn Policy> =
            Arc::new(StubPolicy { name: "stub".into(), result: PolicyResult { deny, delay: Vec::new() } });
        PolicyEntry::enforced(policy, OnError::Retry)
    };
    let chains: &[(&str, &[&str])] = &[("push", &["sms", "email"])];
    let after = |denied: &'static str, limit: &'static [&'static str]| async move {
        let [push, sms, email] = &chain(sent(), answers(Err(DeliveryError::Skipped(String::new()))));
        let snapshot = world(&[push, sms, email], |snapshot| {
            falls_back(chains)(snapshot);
            snapshot.policies = vec![policy(denied)];
        });
        NOW.set(1_000);
        let names: Vec<String> = limit.iter().map(|name| (*name).to_owned()).collect();
        let limit = Limit::new(&names, &snapshot.channels).expect("known");
        let mut flight = InFlight::new(snapshot, message(&["a"]), limit, false);
        run(&mut flight).await;
        states(&flight, &TYPES)
    };
    assert_eq!(after("push", &[]).await, ["denied", "skipped", "sent"], "sms comes first then");
    assert_eq!(after("sms", &[]).await, ["sent", "standby", "standby"]);
    assert_eq!(after("email", &["sms", "email"]).await, ["excluded", "skipped", "denied"]);
    assert_eq!(after("none", &["email"]).await, ["excluded", "excluded", "sent"]);
}

#[tokio::test]
async fn a_type_in_two_chains_is_used_once_and_an_expired_message_falls_back_to_nothing() {
    let [push, sms, email] = &chain(answers(fatal()), answers(fatal()));
    let snapshot = world(&[push, sms, email], falls_back(&[("push", &["email"]), ("sms", &["email"])]));
    let mut flight = start(&snapshot, &["a"]);
    run(&mut flight).await;
    assert_eq!((states(&flight, &TYPES), email.seen().len()), (vec!["failed", "failed", "sent"], 1));

    // Until its expiration time a fallback may still be used, and not after it.
    for (next, expected) in [(None, ["expired", "sent", "standby"]), (Some(at(1_001)), ["expired"; 3])] {
        let [push, sms, email] = &chain(answers(recoverable("busy", next)), answers(Ok(Receipt::default())));
        let snapshot = world(&[push, sms, email], falls_back(&[("push", &["sms", "email"])]));
        NOW.set(1_000);
        let mut late = Message::clone(&message(&["a"]));
        late.expiration_time = Some(crate::message::DateTime::parse("1970-01-01T00:16:42Z").expect("a time"));
        let mut flight = InFlight::new(snapshot, Arc::new(late), Limit::default(), false);
        flight.advance().await;
        NOW.set(1_010);
        run(&mut flight).await;
        assert_eq!((states(&flight, &TYPES), flight.due()), (expected.to_vec(), None));
    }
}

#[tokio::test]
async fn a_dry_run_shows_what_stands_by() {
    let [push, sms, email] = &chain(answers(Ok(Receipt::default())), answers(Ok(Receipt::default())));
    let snapshot = world(&[push, sms, email], falls_back(&[("push", &["sms"])]));
    NOW.set(1_000);
    let mut flight = InFlight::new(snapshot, message(&["a"]), Limit::default(), true);
    flight.advance().await;
    assert_eq!(states(&flight, &TYPES), ["ready", "standby", "ready"]);
    assert_eq!(of(&flight, "sms").outcome, Outcome::Standby { after: vec!["push".to_owned()] });
}
