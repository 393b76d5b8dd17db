mod clocks;
mod mails;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;

use super::*;
use crate::channel::Channel;
use crate::config::{Config, Guarantee};
use crate::message::{
    ActionLink, Attempt, AttemptResult, CallContext, Delay, DeliveryError, Fault, FaultKind, MailRecord, OnError,
    PolicyResult, Receipt, Rule, TemplateFile,
};
use crate::policy::{BrokenPolicy, Policy, StubPolicy};

mod down;
mod noting;
mod upgrade;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(1_000) };
}

fn now() -> Timestamp {
    at(NOW.get())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn recoverable(message: &str, at: Option<Timestamp>) -> Result<Receipt, DeliveryError> {
    Err(DeliveryError::Recoverable { message: message.to_owned(), next_attempt_time: at })
}

/// A channel with scripted results, one per attempt, that succeeds afterwards.
struct Script {
    name: &'static str,
    answers: Mutex<Vec<Result<Receipt, DeliveryError>>>,
    seen: Mutex<Vec<(u32, String)>>,
    breaks_before: bool,
    /// Seconds by which the clock is set during each attempt.
    sets_clock: AtomicI64,
    /// The Retry-After of its provider in seconds, for failures.
    retry_after: AtomicI64,
    /// The mails of each attempt. Further attempts repeat the last one.
    mailed: Mutex<Vec<Vec<MailRecord>>>,
    /// The known mails that each attempt was given.
    known: Mutex<Vec<Vec<MailRecord>>>,
    /// Whether it sends something without a reply.
    is_uncertain: AtomicBool,
}

impl Script {
    fn new(name: &'static str, answers: Vec<Result<Receipt, DeliveryError>>) -> Arc<Self> {
        Arc::new(Script {
            name,
            answers: Mutex::new(answers),
            seen: Mutex::default(),
            breaks_before: false,
            sets_clock: AtomicI64::new(0),
            retry_after: AtomicI64::new(0),
            mailed: Mutex::default(),
            known: Mutex::default(),
            is_uncertain: AtomicBool::new(false),
        })
    }

    fn mails(&self, mailed: &[&MailRecord]) {
        *self.mailed.lock().expect("no panic") = mailed.iter().map(|mail| vec![(*mail).clone()]).collect();
    }

    /// Makes each attempt send all of them.
    fn mails_at_once(&self, mailed: &[&MailRecord]) {
        *self.mailed.lock().expect("no panic") = vec![mailed.iter().map(|mail| (*mail).clone()).collect()];
    }

    fn known(&self) -> Vec<Vec<MailRecord>> {
        self.known.lock().expect("no panic").clone()
    }

    fn attempts(&self) -> Vec<u32> {
        self.seen.lock().expect("no panic").iter().map(|(number, _)| *number).collect()
    }
}

#[async_trait]
impl Channel for Arc<Script> {
    fn name(&self) -> &str {
        self.name
    }
    fn channel_type(&self) -> &str {
        if self.name == "push" { "push" } else { "email" }
    }
    fn template_files(&self) -> &[TemplateFile] {
        &[]
    }
    async fn action_links(&self, _: &Arc<Message>, _: &CallContext) -> Result<Vec<ActionLink>, Fault> {
        if self.breaks_before {
            Err(Fault { plugin: self.name.into(), kind: FaultKind::Trap, message: "trap".into(), backtrace: None })
        } else {
            Ok(Vec::new())
        }
    }
    async fn deliver(
        &self,
        _: &Arc<Message>,
        _: &[(String, String)],
        attempt: &Attempt,
        call: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        if let pause @ 1.. = self.retry_after.load(Ordering::Relaxed) {
            call.record_retry_after(std::time::Duration::from_secs(pause.unsigned_abs()));
        }
        self.seen.lock().expect("no panic").push((attempt.number, attempt.idempotency_key.clone()));
        self.known.lock().expect("no panic").push(call.mails());
        let mut mailed = self.mailed.lock().expect("no panic");
        call.record_mails(mailed.first().cloned().unwrap_or_default());
        if mailed.len() > 1 {
            mailed.remove(0);
        }
        if self.is_uncertain.load(Ordering::Relaxed) {
            call.record_uncertain("mail was handed to the relay".into());
        }
        NOW.set(NOW.get() + self.sets_clock.load(Ordering::Relaxed));
        let mut answers = self.answers.lock().expect("no panic");
        if answers.is_empty() { Ok(Receipt::default()) } else { answers.remove(0) }
    }
}

fn snapshot(policies: Vec<(Arc<dyn Policy>, OnError)>, channels: &[&Arc<Script>], failover: &[&str]) -> Arc<Snapshot> {
    let channels = channels.iter().map(|c| Arc::new((*c).clone()) as Arc<dyn Channel>);
    let failover = failover.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Snapshot {
        policies: policies.into_iter().map(|(policy, on_error)| PolicyEntry::enforced(policy, on_error)).collect(),
        channels: ChannelMap::new(channels),
        presentation: Arc::new(Presentation::load(&[], &Default::default())),
        routing: Routing { failover: BTreeMap::from([("email".to_owned(), failover)]), ..Routing::default() },
        delivery: Config::default().delivery,
        limiters: ChannelLimiters::new(),
        feedback_channels: BTreeSet::new(),
        destinations: Destinations::new(&Config::default().delivery, || 0.0),
        now,
        jitter: || 0.0,
    })
}

fn flight(snapshot: &Arc<Snapshot>) -> InFlight {
    NOW.set(1_000);
    InFlight::new(snapshot.clone(), Arc::new(Message::new("app", "name", None)), Limit::default(), false)
}

/// Advances the clock from due time to due time until the message is settled. Returns the times.
async fn run(flight: &mut InFlight) -> Vec<i64> {
    let mut moments = Vec::new();
    while let Some(due) = flight.due().filter(|_| moments.len() < 50) {
        NOW.set(due.as_second().max(NOW.get()));
        moments.push(NOW.get() - 1_000);
        flight.advance().await;
    }
    moments
}

fn email(flight: &InFlight) -> &ChannelReport {
    &flight.report().channels[0]
}

#[tokio::test]
async fn a_message_goes_out_at_the_first_attempt() {
    let channel = Script::new("smtp", vec![]);
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    assert_eq!(run(&mut flight).await, [0]);
    assert_eq!((email(&flight).outcome.state(), email(&flight).attempts), ("sent", 1));
    assert_eq!(flight.report().channels[1].outcome.state(), "unsupported");
    let key = format!("{}.smtp", flight.message.uuid);
    assert_eq!(*channel.seen.lock().expect("no panic"), [(1, key)]);
}

#[test]
fn channel_types_without_templates_are_removed_unless_nothing_else_explains_the_failure() {
    let absent = || Outcome::TemplateError { message: String::new(), absent: true };
    let broken = || Outcome::TemplateError { message: String::new(), absent: false };
    let sent = || Outcome::Sent { receipt: Receipt::default(), fault: None };
    let unsupported = || Outcome::Unsupported { reason: String::new() };
    let waits = || Outcome::Retry { at: at(2_000), error: String::new() };
    let channel = Script::new("smtp", vec![]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    for (outcomes, kept) in [
        ([sent(), absent()], vec!["sent"]),
        ([absent(), waits()], vec!["retry"]),
        ([broken(), absent()], vec!["template_error"]),
        ([absent(), unsupported()], vec!["template_error", "unsupported"]),
        ([Outcome::Excluded, absent()], vec!["excluded", "template_error"]),
        ([absent(), absent()], vec!["template_error", "template_error"]),
        ([sent(), unsupported()], vec!["sent", "unsupported"]),
    ] {
        let mut flight = flight(&snapshot);
        for (channel, outcome) in flight.progress.report.channels.iter_mut().zip(outcomes) {
            channel.outcome = outcome;
        }
        flight.remove_absent();
        let states: Vec<&str> = flight.report().channels.iter().map(|c| c.outcome.state()).collect();
        assert_eq!((states, flight.progress.pending.len()), (kept.clone(), kept.len()));
    }
}

#[tokio::test]
async fn a_temporary_failure_is_retried_with_the_same_key_until_the_window_ends() {
    let never = (0..50).map(|i| recoverable(&format!("no {i}"), None)).collect();
    let channel = Script::new("smtp", never);
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    assert_eq!(run(&mut flight).await, [0, 5, 15, 35, 75], "120 seconds after the first attempt it ends");
    assert_eq!(email(&flight).outcome, Outcome::Expired { error: Some("no 4".into()) });
    let seen = channel.seen.lock().expect("no panic");
    assert!(seen.iter().all(|(_, key)| *key == seen[0].1));
    assert_eq!(seen.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_suggested_time_is_used_and_the_past_means_now() {
    let answers =
        vec![recoverable("later", Some(at(1_030))), recoverable("earlier", Some(at(5))), Ok(Receipt::default())];
    let channel = Script::new("smtp", answers);
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    assert_eq!(run(&mut flight).await, [0, 30, 30]);
    assert_eq!((email(&flight).outcome.state(), email(&flight).attempts), ("sent", 3));
}

#[tokio::test]
async fn a_message_that_may_have_been_sent_is_not_retried() {
    let maybe = Err(DeliveryError::MaybeSent { reason: "cut".into() });
    let channel = Script::new("smtp", vec![maybe]);
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    run(&mut flight).await;
    assert_eq!((email(&flight).outcome.state(), channel.attempts()), ("maybe_sent", vec![1]));
}

#[tokio::test]
async fn a_fatal_error_fails_over_and_then_settles() {
    let fatal = || Err(DeliveryError::Fatal("no such user".into()));
    let (first, second, third) =
        (Script::new("first", vec![fatal()]), Script::new("second", vec![fatal()]), Script::new("third", vec![]));
    let alone = snapshot(vec![], &[&first, &third], &[]);
    let mut one = flight(&alone);
    run(&mut one).await;
    assert_eq!(email(&one).outcome, Outcome::Failed { error: "no such user".into() });
    assert_eq!(third.attempts(), Vec::<u32>::new(), "no failover unless it is configured");

    let first = Script::new("first", vec![fatal()]);
    let mut two = flight(&snapshot(vec![], &[&first, &second, &third], &["first", "second", "third"]));
    run(&mut two).await;
    let report = email(&two);
    assert_eq!(
        (report.outcome.state(), report.channel.as_deref(), report.rule),
        ("sent", Some("third"), Some(Rule::Failover))
    );
    assert_eq!(report.passed_over, ["first: failed", "second: failed"]);
    assert_eq!((third.attempts(), report.attempts), (vec![1], 3));
}

#[tokio::test]
async fn an_exhausted_channel_fails_over_to_the_next_with_a_new_window() {
    let never = (0..50).map(|_| recoverable("down", None)).collect();
    let (first, second) = (Script::new("first", never), Script::new("second", vec![recoverable("busy", None)]));
    let mut flight = flight(&snapshot(vec![], &[&first, &second], &["second"]));
    assert_eq!(run(&mut flight).await, [0, 5, 15, 35, 75, 80]);
    assert_eq!((email(&flight).outcome.state(), second.attempts()), ("sent", vec![1, 2]));
}

#[tokio::test]
async fn an_expired_message_is_never_delivered() {
    let channel = Script::new("smtp", vec![]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    NOW.set(1_000);
    let mut message = Message::new("app", "name", None);
    message.expiration_time = Some(at(1_000).into());
    let mut flight = InFlight::new(snapshot, Arc::new(message), Limit::default(), false);
    assert_eq!(flight.due(), None);
    flight.advance().await;
    assert_eq!(email(&flight).outcome, Outcome::Expired { error: None });
    assert!(channel.attempts().is_empty());
}

#[tokio::test]
async fn a_failed_policy_holds_a_message_without_using_up_its_window() {
    let channel = Script::new("smtp", vec![]);
    let broken: Arc<dyn Policy> = Arc::new(BrokenPolicy { name: "p".into(), reason: "it does not compile".into() });
    let mut flight = flight(&snapshot(vec![(broken, OnError::Retry)], &[&channel], &[]));
    let moments = run(&mut flight).await;
    assert_eq!(moments.len(), 50, "it is asked for as long as anyone cares");
    assert!(*moments.last().expect("moments") > 300);
    assert!(matches!(&email(&flight).outcome, Outcome::Retry { error, .. } if error.contains("it does not compile")));
    assert!(channel.attempts().is_empty(), "nothing fails open");
}

#[tokio::test]
async fn on_error_decides_what_a_failed_policy_means() {
    for (on_error, state) in [(OnError::Deny, "denied"), (OnError::Allow, "sent")] {
        let channel = Script::new("smtp", vec![]);
        let broken: Arc<dyn Policy> = Arc::new(BrokenPolicy { name: "p".into(), reason: String::new() });
        let mut flight = flight(&snapshot(vec![(broken, on_error)], &[&channel], &[]));
        run(&mut flight).await;
        assert_eq!(email(&flight).outcome.state(), state, "{on_error:?}");
    }
}

/// Delays a message once.
struct OnceLater(Mutex<bool>);

#[async_trait]
impl Policy for OnceLater {
    fn name(&self) -> &str {
        "later"
    }
    async fn check(&self, _: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        let asked_before = std::mem::replace(&mut *self.0.lock().expect("no panic"), true);
        let delay = Delay { channel_type: "email".into(), not_before: at(1_500), reason: Some("quiet hours".into()) };
        Ok(PolicyResult { deny: vec![], delay: if asked_before { vec![] } else { vec![delay] } })
    }
}

#[tokio::test]
async fn policies_are_evaluated_again_after_a_delay_and_the_window_opens_only_then() {
    let channel = Script::new("smtp", vec![recoverable("busy", None)]);
    let mut flight =
        flight(&snapshot(vec![(Arc::new(OnceLater(Mutex::new(false))), OnError::Retry)], &[&channel], &[]));
    flight.advance().await;
    assert!(matches!(&email(&flight).outcome, Outcome::Delayed { not_before, reasons }
        if *not_before == at(1_500) && reasons[0].reason.as_deref() == Some("quiet hours")));
    assert_eq!(run(&mut flight).await, [500, 505], "and a delivery's retry asks nobody");
    assert_eq!(email(&flight).outcome.state(), "sent");
}

#[tokio::test]
async fn a_delay_past_the_expiration_time_ends_the_message() {
    let channel = Script::new("smtp", vec![]);
    let snapshot = snapshot(vec![(Arc::new(OnceLater(Mutex::new(false))), OnError::Retry)], &[&channel], &[]);
    NOW.set(1_000);
    let mut message = Message::new("app", "name", None);
    message.expiration_time = Some(at(1_400).into());
    let mut flight = InFlight::new(snapshot, Arc::new(message), Limit::default(), false);
    flight.advance().await;
    assert!(matches!(email(&flight).outcome, Outcome::Expired { error: Some(_) }));
}

#[tokio::test]
async fn a_fault_before_the_delivery_is_a_temporary_failure() {
    let broken =
        Arc::new(Script { breaks_before: true, ..Arc::into_inner(Script::new("smtp", vec![])).expect("the only one") });
    let mut flight = flight(&snapshot(vec![], &[&broken], &[]));
    assert_eq!(run(&mut flight).await, [0, 5, 15, 35, 75]);
    assert!(matches!(&email(&flight).outcome, Outcome::Expired { error: Some(e) } if e.contains("trap")));
}

#[tokio::test]
async fn a_dry_run_delivers_nothing() {
    let channel = Script::new("smtp", vec![]);
    let policy = StubPolicy { name: "p".into(), result: PolicyResult::default() };
    let snapshot = snapshot(vec![(Arc::new(policy), OnError::Retry)], &[&channel], &[]);
    let mut flight = InFlight::new(snapshot, Arc::new(Message::new("app", "name", None)), Limit::default(), true);
    flight.advance().await;
    assert_eq!((email(&flight).outcome.clone(), email(&flight).channel.as_deref()), (Outcome::Ready, Some("smtp")));
    assert!(channel.attempts().is_empty());
    assert_eq!(flight.due(), None);
}

#[tokio::test]
async fn a_limit_restricts_the_channels() {
    let channel = Script::new("smtp", vec![]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    let limit = Limit::new(&["push".to_owned()], &snapshot.channels).expect("a type");
    let mut flight = InFlight::new(snapshot, Arc::new(Message::new("app", "name", None)), limit, false);
    flight.advance().await;
    assert_eq!(email(&flight).outcome, Outcome::Excluded);
    assert!(channel.attempts().is_empty());
}

/// Stores the progress and resumes it, as another process does.
fn stored_and_resumed(flight: &InFlight, snapshot: &Arc<Snapshot>) -> InFlight {
    let stored = serde_json::to_vec(flight.progress()).expect("it can be written");
    let progress = serde_json::from_slice(&stored).expect("and read");
    InFlight::resume(snapshot.clone(), flight.message.clone(), progress)
}

#[tokio::test]
async fn a_message_is_resumed_in_another_process() {
    let channel = Script::new("smtp", vec![recoverable("busy", None), recoverable("still busy", Some(at(1_050)))]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    let mut first = flight(&snapshot);
    first.advance().await;
    let mut second = stored_and_resumed(&first, &snapshot);
    assert_eq!(second.due(), Some(at(1_005)));
    assert_eq!(run(&mut second).await, [5, 50], "the schedule and the window go on");
    let report = email(&second);
    assert_eq!((report.outcome.state(), report.attempts, channel.attempts()), ("sent", 3, vec![1, 2, 3]));
    let told: Vec<_> = report.history.iter().map(|a| (a.at, a.number, a.result, a.answer.as_str())).collect();
    let expected = [
        (at(1_000), 1, AttemptResult::Recoverable, "busy"),
        (at(1_005), 2, AttemptResult::Recoverable, "still busy"),
        (at(1_050), 3, AttemptResult::Sent, ""),
    ];
    assert_eq!(told, expected);
    let keys: Vec<_> = channel.seen.lock().expect("no panic").iter().map(|(_, key)| key.clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "and so does the key");
}

#[tokio::test]
async fn a_removed_channel_is_replaced_by_another_choice() {
    let (old, new) = (Script::new("old", vec![recoverable("busy", None)]), Script::new("new", vec![]));
    let mut first = flight(&snapshot(vec![], &[&old], &[]));
    first.advance().await;
    let mut second = stored_and_resumed(&first, &snapshot(vec![], &[&new], &[]));
    run(&mut second).await;
    assert_eq!((email(&second).outcome.state(), email(&second).channel.as_deref()), ("sent", Some("new")));
    assert_eq!(email(&second).passed_over, ["old: the channel no longer exists"]);
}

fn at_most_once(snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
    let settings = crate::config::Channel { delivery: Guarantee::AtMostOnce, ..Default::default() };
    let settings = BTreeMap::from([("smtp".to_owned(), settings)]);
    let mut snapshot = Arc::into_inner(snapshot).expect("the only one");
    snapshot.limiters = crate::channel::limiter::channel_limiters(["smtp"], &settings, &ChannelLimiters::new());
    Arc::new(snapshot)
}

#[tokio::test]
async fn at_most_once_records_the_attempt_and_never_repeats_it() {
    let channel = Script::new("smtp", vec![recoverable("busy", None)]);
    let snapshot = at_most_once(snapshot(vec![], &[&channel], &[]));
    let mut flight = flight(&snapshot);
    flight.advance().await;
    assert!(flight.must_be_recorded() && channel.attempts().is_empty());

    // The host ends here: it is unknown whether the attempt was made.
    let mut cut = stored_and_resumed(&flight, &snapshot);
    cut.advance().await;
    assert_eq!((email(&cut).outcome.state(), cut.due()), ("maybe_sent", None));
    assert!(channel.attempts().is_empty());

    // The host does not end: a failed attempt is a result, and the next one is recorded too.
    flight.advance().await;
    assert!(!flight.must_be_recorded());
    assert_eq!(email(&flight).outcome.state(), "retry");
    let mut waiting = stored_and_resumed(&flight, &snapshot);
    assert_eq!(email(&waiting).outcome.state(), "retry", "an attempt with a result is none in doubt");
    NOW.set(1_005);
    waiting.advance().await;
    assert!(waiting.must_be_recorded());
    waiting.advance().await;
    assert_eq!((email(&waiting).outcome.state(), channel.attempts()), ("sent", vec![1, 2]));
}

#[tokio::test]
async fn a_settled_message_is_reopened_for_excluded_channel_types() {
    let (mail, push) = (Script::new("smtp", vec![]), Script::new("push", vec![]));
    let snapshot = snapshot(vec![], &[&mail, &push], &[]);
    let limit =
        |names: &[&str]| Limit::of_all(&[names.iter().map(|name| (*name).to_owned()).collect()], &snapshot.channels);
    let message = Arc::new(Message::new("app", "name", None));
    let mut first = InFlight::new(snapshot.clone(), message.clone(), limit(&["email"]), false);
    run(&mut first).await;
    let report = first.into_report();
    let states = |report: &Report| report.channels.iter().map(|c| c.outcome.state()).collect::<Vec<_>>();
    assert_eq!(states(&report), ["sent", "excluded"]);
    let mut second = InFlight::reopen(snapshot.clone(), message, report, None);
    second.set_limit(limit(&["push", "nobody"]));
    run(&mut second).await;
    assert_eq!(states(second.report()), ["sent", "sent"]);
    assert_eq!((mail.attempts().len(), push.attempts().len()), (1, 1), "each once");
}
