use super::*;
use crate::message::{Delay, Denial};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn report(policy: &str, verdict: Verdict) -> PolicyReport {
    PolicyReport {
        policy: policy.to_owned(),
        revision: String::new(),
        verdict,
        took_us: 0,
        shadow: None,
        refused: Vec::new(),
    }
}

fn denies(policy: &str, types: &[&str]) -> PolicyReport {
    let deny = types.iter().map(|t| Denial { channel_type: (*t).to_owned(), reason: Some(format!("no {t}")) });
    report(policy, Verdict::Result(PolicyResult { deny: deny.collect(), delay: Vec::new() }))
}

fn delays(policy: &str, channel_type: &str, second: i64) -> PolicyReport {
    let delay = Delay { channel_type: channel_type.to_owned(), not_before: at(second), reason: None };
    report(policy, Verdict::Result(PolicyResult { deny: Vec::new(), delay: vec![delay] }))
}

fn breaks(policy: &str, on_error: OnError) -> PolicyReport {
    let (plugin, message) = (policy.to_owned(), "trapped".to_owned());
    report(
        policy,
        Verdict::Broken { fault: Fault { plugin, kind: FaultKind::Trap, message, backtrace: None }, on_error },
    )
}

fn state(reports: &[PolicyReport], channel_type: &str) -> &'static str {
    match ruling(channel_type, reports, at(100)) {
        Ruling::Allowed => "allowed",
        Ruling::Denied(_) => "denied",
        Ruling::Delayed { .. } => "delayed",
        Ruling::Held { .. } => "held",
    }
}

#[test]
fn verdicts_are_merged() {
    use OnError::{Allow, Deny, Retry};
    let cases: Vec<(&str, Vec<PolicyReport>, [&str; 3])> = vec![
        ("no policy", vec![], ["allowed", "allowed", "allowed"]),
        ("an empty verdict", vec![denies("a", &[])], ["allowed", "allowed", "allowed"]),
        ("one type", vec![denies("a", &["email"])], ["denied", "allowed", "allowed"]),
        (
            "several policies add up",
            vec![denies("a", &["email"]), denies("b", &["push"])],
            ["denied", "denied", "allowed"],
        ),
        ("every type", vec![denies("a", &["*"])], ["denied", "denied", "denied"]),
        ("a type without a channel", vec![denies("a", &["carrier-pigeon"])], ["allowed", "allowed", "allowed"]),
        ("an open type", vec![denies("a", &["sms"])], ["allowed", "allowed", "denied"]),
        ("a delay", vec![delays("a", "email", 200)], ["delayed", "allowed", "allowed"]),
        ("a delay of every type", vec![delays("a", "*", 200)], ["delayed", "delayed", "delayed"]),
        ("a delay that is over", vec![delays("a", "*", 100)], ["allowed", "allowed", "allowed"]),
        (
            "a denial outweighs a delay",
            vec![delays("a", "*", 200), denies("b", &["email"])],
            ["denied", "delayed", "delayed"],
        ),
        ("broken, retried", vec![breaks("a", Retry)], ["held", "held", "held"]),
        ("broken, denied", vec![breaks("a", Deny)], ["denied", "denied", "denied"]),
        ("broken, allowed", vec![breaks("a", Allow)], ["allowed", "allowed", "allowed"]),
        (
            "a denial outweighs a broken one",
            vec![breaks("a", Retry), denies("b", &["push"])],
            ["held", "denied", "held"],
        ),
        ("broken outweighs a delay", vec![delays("a", "*", 200), breaks("b", Retry)], ["held", "held", "held"]),
        (
            "allow does not undo a denial",
            vec![denies("a", &["email"]), breaks("b", Allow)],
            ["denied", "allowed", "allowed"],
        ),
    ];
    for (name, reports, expected) in cases {
        assert_eq!(["email", "push", "sms"].map(|t| state(&reports, t)), expected, "{name}");
    }
}

#[test]
fn the_latest_delay_wins_and_every_denial_is_kept() {
    let reports = [delays("a", "email", 200), delays("b", "*", 300), delays("c", "push", 400)];
    let Ruling::Delayed { not_before, reasons } = ruling("email", &reports, at(0)) else { panic!("it is delayed") };
    assert_eq!((not_before, reasons[0].policy.as_str()), (at(300), "b"));
    let Ruling::Denied(reasons) = ruling("email", &[denies("a", &["email"]), denies("b", &["*"])], at(0)) else {
        panic!("it is denied")
    };
    let told: Vec<_> = reasons.iter().map(|r| (r.policy.as_str(), r.reason.as_deref())).collect();
    assert_eq!(told, [("a", Some("no email")), ("b", Some("no *"))]);
}

#[tokio::test]
async fn every_policy_is_evaluated_even_if_all_types_are_denied() {
    let stub = |name: &str, deny: &[&str]| {
        let Verdict::Result(result) = denies(name, deny).verdict else { unreachable!("it denies") };
        PolicyEntry {
            policy: Arc::new(StubPolicy { name: name.to_owned(), result }),
            on_error: OnError::Retry,
            shadow: None,
        }
    };
    let broken = BrokenPolicy { name: "b".to_owned(), reason: "it does not compile".to_owned() };
    let slots = [
        stub("a", &["*"]),
        PolicyEntry { policy: Arc::new(broken), on_error: OnError::Allow, shadow: None },
        stub("c", &[]),
    ];
    let message = Arc::new(Message::new("app", "name", None));
    let types = ["email".to_owned(), "push".to_owned()];
    let decision = channels_for(&slots, &types, &message, at(0), false).await;
    let asked: Vec<&str> = decision.reports.iter().map(|r| r.policy.as_str()).collect();
    assert_eq!(asked, ["a", "b", "c"]);
    assert!(decision.rulings.iter().all(|(_, ruling)| matches!(ruling, Ruling::Denied(_))));
    assert!(
        matches!(&decision.reports[1].verdict, Verdict::Broken { fault, .. } if fault.kind == FaultKind::Unavailable)
    );
}

fn shadowed(report: PolicyReport, of: Option<&str>) -> (PolicyEntry, PolicyReport) {
    let policy = StubPolicy { name: report.policy.clone(), result: PolicyResult::default() };
    let shadow = Some(Shadow { of: of.map(str::to_owned), ..Shadow::default() });
    let report = PolicyReport { shadow: Some(Agreement::Agrees), ..report };
    (PolicyEntry { policy: Arc::new(policy), on_error: OnError::Retry, shadow }, report)
}

fn counted(report: PolicyReport) -> (PolicyEntry, PolicyReport) {
    let policy = StubPolicy { name: report.policy.clone(), result: PolicyResult::default() };
    (PolicyEntry::enforced(Arc::new(policy), OnError::Retry), report)
}

#[test]
fn a_policy_in_shadow_mode_is_compared_but_not_applied() {
    use Agreement::{Agrees, Broken, Differs};
    let cases = [
        ("the same denial", counted(denies("a", &["email"])), shadowed(denies("s", &["email"]), None), Agrees),
        ("more than was decided", counted(denies("a", &[])), shadowed(denies("s", &["email"]), None), Differs),
        ("less than was decided", counted(denies("a", &["email"])), shadowed(denies("s", &[]), None), Differs),
        (
            "as the other version",
            counted(denies("a", &["email"])),
            shadowed(denies("s", &["email"]), Some("a")),
            Agrees,
        ),
        ("unlike the other version", counted(denies("a", &["email"])), shadowed(denies("s", &[]), Some("a")), Differs),
        ("broken", counted(denies("a", &["push"])), shadowed(breaks("s", OnError::Retry), None), Broken),
    ];
    for (name, (entry, report), (shadow_slot, shadow_report), expected) in cases {
        let alone = ruling("email", std::slice::from_ref(&report), at(0));
        let mut reports = [report, shadow_report];
        compare(&[entry, shadow_slot], &["email".to_owned(), "push".to_owned()], &mut reports, at(0));
        assert_eq!(reports[1].shadow, Some(expected), "{name}");
        assert_eq!(ruling("email", &reports, at(0)), alone, "{name}: it changes nothing");
    }
}
