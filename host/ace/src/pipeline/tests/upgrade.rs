//! Reads what the build of 2026-11-30 stored of messages (tests/upgrade/*.json), so that no waiting message and no report is lost. The
//! values below are those of the files. If a field is renamed, change the values but not the files.
//!
//! `ACE_WRITE_UPGRADE=1` writes missing files, which only a new form of the store needs.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::message::{
    Agreement, AttemptReport, Denial, MessageType, Object, Personal, PolicyReport, Reason, Recipient, RecipientRecord,
    RecipientState, RenderedFile, Verdict,
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/upgrade")).join(name)
}

/// Compares the stored values of a file, by name, with those that this build writes.
fn stored<T: Serialize + DeserializeOwned>(name: &str, expected: &[(&str, T)]) {
    let of = |value: &T| serde_json::to_value(value).expect("written");
    if std::env::var_os("ACE_WRITE_UPGRADE").is_some() && !file(name).exists() {
        let all: Map<String, Value> = expected.iter().map(|(name, value)| ((*name).to_owned(), of(value))).collect();
        let text = serde_json::to_string_pretty(&all).expect("written");
        std::fs::write(file(name), text + "\n").expect("written");
    }
    let text = std::fs::read_to_string(file(name)).expect("it is committed");
    let mut all: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    for (name, value) in expected {
        let was = all.remove(*name).unwrap_or_else(|| panic!("{name} is not in the file"));
        let read: T = serde_json::from_value(was).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(of(&read), of(value), "{name}");
    }
    assert!(all.is_empty(), "not checked: {all:?}");
}

fn receipt() -> Receipt {
    Receipt { provider_id: Some("250 2.0.0 Ok".to_owned()), detail: Some(json!({"batch": 7, "ratio": 0.5})) }
}

fn fault() -> Fault {
    let (plugin, message) = ("optouts".to_owned(), "it trapped: unreachable".to_owned());
    Fault { plugin, kind: FaultKind::Trap, message, backtrace: Some("0: evaluate".to_owned()) }
}

fn outcomes() -> Vec<Outcome> {
    let text = |text: &str| text.to_owned();
    let reasons = || vec![Reason { policy: text("optouts"), reason: Some(text("she opted out")) }];
    vec![
        Outcome::Sent { receipt: receipt(), fault: Some(fault()) },
        Outcome::MaybeSent { reason: text("the host ended during the attempt") },
        Outcome::Denied { reasons: reasons() },
        Outcome::Delayed { not_before: at(5_000), reasons: reasons() },
        Outcome::Retry { at: at(6_000), error: text("451 4.7.1 later") },
        Outcome::Failed { error: text("550 5.1.1 unknown") },
        Outcome::Skipped { reason: text("no address") },
        Outcome::Excluded,
        Outcome::Unsupported { reason: text("no channel carries it") },
        Outcome::TemplateError { message: text("body.html: unknown variable"), absent: false },
        Outcome::Expired { error: Some(text("451 4.7.1 later")) },
        Outcome::Ready,
    ]
}

fn policies() -> Vec<PolicyReport> {
    let report = |policy: &str, verdict, shadow| PolicyReport {
        policy: policy.to_owned(),
        revision: "0123abcd".to_owned(),
        verdict,
        took_us: 42,
        shadow,
        refused: vec!["http: example.com".to_owned()],
    };
    let deny = Denial { channel_type: "sms".to_owned(), reason: Some("no number".to_owned()) };
    let delay = Delay { channel_type: "email".to_owned(), not_before: at(4_000), reason: None };
    vec![
        report("quiet", Verdict::Result(PolicyResult { deny: vec![deny], delay: vec![delay] }), None),
        report("new", Verdict::Result(PolicyResult::default()), Some(Agreement::Differs)),
        report("optouts", Verdict::Broken { fault: fault(), on_error: OnError::Deny }, Some(Agreement::Broken)),
    ]
}

fn recipients() -> Vec<RecipientRecord> {
    let of = |address: &str, main, state, answer: &str| RecipientRecord {
        address: address.to_owned(),
        main,
        state,
        answer: answer.to_owned(),
    };
    vec![
        of("ada@example.com", true, RecipientState::Accepted, ""),
        of("bo@example.com", false, RecipientState::Deferred, "451 4.7.1 later"),
        of("cy@example.com", false, RecipientState::Refused, "550 5.1.1 unknown"),
    ]
}

fn record() -> MailRecord {
    MailRecord {
        key: "0123.email.smtp".to_owned(),
        message_id: "<0123.email.smtp@example.com>".to_owned(),
        date: 1_700_000_000,
        answer: "250 2.0.0 Ok".to_owned(),
        recipients: recipients(),
    }
}

fn attempts() -> Vec<AttemptReport> {
    use AttemptResult::{Fatal, MaybeSent, Recoverable, Sent, Skipped, Unreachable};
    let attempt = |(result, number): (AttemptResult, u32)| AttemptReport {
        at: at(1_000 + i64::from(number)),
        channel: "smtp".to_owned(),
        revision: "4567cdef".to_owned(),
        number,
        took_us: 1_500,
        result,
        answer: "451 4.7.1 later".to_owned(),
    };
    [Sent, MaybeSent, Skipped, Recoverable, Unreachable, Fatal].into_iter().zip(1..).map(attempt).collect()
}

fn channel(outcome: Outcome, rule: Rule) -> ChannelReport {
    ChannelReport {
        channel: Some("smtp".to_owned()),
        revision: "4567cdef".to_owned(),
        rule: Some(rule),
        passed_over: vec!["sailthru: it is not there".to_owned()],
        templates: vec!["app/note/email/body.html".to_owned()],
        language: Some("es".to_owned()),
        language_note: Some("no catalogue for es-419".to_owned()),
        rendered: Some(vec![RenderedFile {
            name: "subject.txt".to_owned(),
            source: "app/note/email/subject.txt".to_owned(),
            text: "Hola, Ada".to_owned(),
        }]),
        refused: vec!["mail: other@example.com".to_owned()],
        attempts: 6,
        history: attempts(),
        recipients: recipients(),
        ..ChannelReport::new("email".to_owned(), outcome)
    }
}

fn report(channels: Vec<ChannelReport>) -> Report {
    let (uuid, name) = (Uuid::from_u128(0x1234), "app.note".to_owned());
    Report { uuid, name, interruptions: vec![at(1_500), at(1_600)], policies: policies(), channels }
}

#[test]
fn reports_of_every_outcome_are_read() {
    use Rule::{Default, Failover, FirstOfType, Listed, OverrideDefaultChannel, OverridesDelivery, Transactional};
    let rules = [OverrideDefaultChannel, Transactional, Default, Listed, OverridesDelivery, FirstOfType, Failover];
    let channels = outcomes().into_iter().zip(rules.into_iter().cycle()).map(|(o, rule)| channel(o, rule)).collect();
    let outcome = Outcome::Sent { receipt: Receipt::default(), fault: None };
    let plain = Report {
        interruptions: Vec::new(),
        policies: Vec::new(),
        ..report(vec![ChannelReport::new("email".to_owned(), outcome)])
    };
    stored("reports.json", &[("all", report(channels)), ("plain", plain)]);
}

fn delivery(stage: Stage, mails: Mails) -> DeliveryState {
    DeliveryState {
        due: at(2_000),
        stage,
        attempts: 3,
        failures: 2,
        unavailable: 1,
        window_opened: Some(at(1_100)),
        failed_channels: vec!["sailthru".to_owned()],
        is_recorded: false,
        was_rate_limited: true,
        waits_for: None,
        mails,
    }
}

fn progress(pending: Pending, outcome: Outcome) -> Progress {
    Progress {
        limit: Limit::default(),
        report: report(vec![channel(outcome, Rule::Default)]),
        pending: vec![pending],
        evaluations: 0,
        last_advanced: Some(at(1_200)),
        accepted: Some(at(1_000)),
        retained_mails: Vec::new(),
    }
}

#[test]
fn progress_of_every_stage_is_read() {
    let retry = || Outcome::Retry { at: at(2_000), error: "451 4.7.1 later".to_owned() };
    let files = || vec![("subject.txt".to_owned(), "Hola".to_owned()), ("body.html".to_owned(), "<p>é</p>".to_owned())];
    let mails = || Mails::of(vec![record()], Some(receipt()));
    let on = |delivery: DeliveryState| progress(Pending::Deliver(delivery), retry());
    let waits = |destination| DeliveryState {
        waits_for: Some(destination),
        ..delivery(Stage::Deliver(files()), Mails::default())
    };
    let delayed = Outcome::Delayed { not_before: at(3_000), reasons: Vec::new() };
    let limit: Limit = serde_json::from_value(json!({"types": ["email"], "channels": ["smtp"]})).expect("a limit");
    let retained = RetainedMails::of("email", "0123.email", vec![record()]);
    let expected = [
        ("asked", Progress { evaluations: 4, limit, ..progress(Pending::Evaluate(at(1_900)), retry()) }),
        ("delayed", progress(Pending::Evaluate(at(3_000)), delayed)),
        ("nothing", progress(Pending::Nothing, Outcome::Sent { receipt: receipt(), fault: None })),
        ("choose", on(delivery(Stage::Choose, Mails::default()))),
        ("render", on(delivery(Stage::Render, Mails::default()))),
        ("deliver", on(delivery(Stage::Deliver(files()), mails()))),
        ("recorded", on(DeliveryState { is_recorded: true, ..delivery(Stage::Deliver(files()), mails()) })),
        ("waits-for-relay", on(waits(Destination::Relay("main".to_owned())))),
        ("waits-for-origin", on(waits(Destination::Origin("https://api.example.com".to_owned())))),
        ("mailed", Progress { retained_mails: vec![retained], ..progress(Pending::Evaluate(at(1_000)), retry()) }),
    ];
    stored("progress.json", &expected);
    let all = std::fs::read(file("progress.json")).expect("it is committed");
    let all: BTreeMap<String, Progress> = serde_json::from_slice(&all).expect("read");
    assert!(all["mailed"].is_restart() && !all["asked"].is_restart());
}

#[test]
fn progress_of_the_first_form_is_read() {
    let without = |fields: &[&str], mut value: Value| {
        fields.iter().for_each(|field| drop(value.as_object_mut().expect("an object").remove(*field)));
        value
    };
    let all = std::fs::read(file("progress.json")).expect("it is committed");
    let all: BTreeMap<String, Value> = serde_json::from_slice(&all).expect("read");
    let mut first = without(&["seen", "accepted", "mailed"], all["deliver"].clone());
    let delivery = first.pointer_mut("/todo/0/Carry").expect("a delivery");
    *delivery = without(&["is_back", "waits_for", "mails"], delivery.take());
    let read: Progress = serde_json::from_value(first).expect("read");
    assert!(read.last_advanced.is_none() && read.accepted.is_none() && read.retained_mails.is_empty());
    let Pending::Deliver(delivery) = &read.pending[0] else { panic!("not a delivery") };
    assert!(
        !delivery.was_rate_limited
            && delivery.waits_for.is_none()
            && delivery.mails.is_empty()
            && delivery.attempts == 3
    );
}

/// Messages and batches are stored as edx-ace's JSON, messages of a batch as a list of three.
#[test]
fn messages_are_read() {
    let recipient = Recipient {
        contacts: vec![("phone".to_owned(), "+15550100".to_owned())],
        ..Recipient::new(7, "ada@example.com")
    };
    let mut kind = MessageType::new("app", "note");
    kind.uuid = Uuid::from_u128(0x77);
    kind.context.insert("course", json!("Algebra"));
    kind.options = json!({"transactional": true}).as_object().expect("an object").clone();
    let personal = Personal {
        recipient: recipient.clone(),
        language: Some("es".to_owned()),
        user_context: json!({"points": 3}).as_object().expect("an object").clone().into(),
    };
    let mut message = kind.personalize(recipient, Some("es".to_owned()), Object::new());
    message.uuid = Uuid::from_u128(0x1234);
    let texts = [("message", message.to_json()), ("kind", kind.to_json()), ("personal", personal.to_json())];
    stored("messages.json", &texts);
    let all = std::fs::read(file("messages.json")).expect("it is committed");
    let all: BTreeMap<String, String> = serde_json::from_slice(&all).expect("read");
    assert_eq!(Message::from_own_json(all["message"].as_bytes()).expect("read"), message);
    assert_eq!(MessageType::from_json(all["kind"].as_bytes()).expect("read").to_json(), kind.to_json());
    assert!(Personal::is_one(all["personal"].as_bytes()));
    assert_eq!(Personal::from_own_json(all["personal"].as_bytes()).expect("read"), personal);
}
