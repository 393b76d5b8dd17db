//! Plugins that fail: each kind of fault is distinguished, on-error decides, and the next message is not affected.

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{Done, Home, assert_text, email, mail_home, message};

/// A home with the policy `faulty_policy` beside `django_email`.
fn home(server: &Smtpd, policy: &str) -> Home {
    // No circuit breaker opens here; other tests cover it.
    let limits = if policy.contains("[limits]") { "" } else { "[limits]\ncircuit-faults = 1000" };
    let home = mail_home(&format!("{}\n{limits}\n[plugins.faulty_policy]\n{policy}\n", server.relay()));
    home.guest("faulty_policy", "faulty_policy");
    home
}

/// Sends messages that cause these faults, one after the other, without waiting for retries.
fn send(home: &Home, faults: &[&str]) -> Done {
    let one = |fault: &&str| message("note", json!({"context": {"policy_fault": fault}})).to_string();
    let lines: Vec<String> = faults.iter().map(one).collect();
    let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
    home.ace(&arguments).input(lines.join("\n")).run()
}

fn broken(line: &Value) -> &Value {
    &line["report"]["policies"][0]["broken"]
}

#[test]
fn each_kind_of_fault_is_reported_and_the_next_message_is_sent() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "limits = { memory = '8MiB' }");
    let cases = [
        ("trap", "trap", "unreachable"),
        ("spin", "time", "it computed for longer than 250ms (time)"),
        ("hoard", "memory", "it wanted more than 8388608 bytes of memory (memory)"),
        ("error", "error", "the facts are out of reach"),
        ("nonsense", "answer", "\"No Such Type!\" cannot be a channel type"),
        ("flood", "answer", "it returned 10000 denials or delays, the limit is 256"),
    ];
    let faults: Vec<&str> = cases.iter().flat_map(|(fault, _, _)| [*fault, "none"]).collect();
    let done = send(&home, &faults).code(1);
    let lines = done.lines();
    for ((fault, kind, words), pair) in cases.iter().zip(lines.chunks(2)) {
        assert_eq!(email(&pair[0])["state"], "retry", "{fault}");
        assert_eq!(broken(&pair[0])["fault"]["kind"], *kind, "{fault}");
        assert_eq!(broken(&pair[0])["on_error"], "retry", "{fault}");
        assert_text(&broken(&pair[0])["fault"]["message"], words);
        assert_eq!(email(&pair[1])["state"], "sent", "after {fault}");
        assert_eq!(broken(&pair[1]), &Value::Null, "after {fault}");
    }
    assert_eq!(server.mails().len(), cases.len());
    done.says("the message asks for a trap");
}

#[test]
fn a_call_that_takes_too_long_is_cut() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "limits = { time = '1m', call-timeout = '50ms' }\n[limits]\ntime = '1m'");
    let lines = send(&home, &["spin"]).code(1).lines();
    assert_eq!(broken(&lines[0])["fault"]["kind"], "call_timeout");
    assert_text(&broken(&lines[0])["fault"]["message"], "50ms (call-timeout)");
    assert!(server.mails().is_empty());
}

#[test]
fn on_error_decides_what_a_fault_means() {
    for (on_error, state, mails) in [("retry", "retry", 0), ("deny", "denied", 0), ("allow", "sent", 1)] {
        let server = Smtpd::start(&[]);
        let home = home(&server, &format!("on-error = '{on_error}'"));
        let lines = send(&home, &["trap"]).lines();
        assert_eq!(email(&lines[0])["state"], state);
        assert_eq!(broken(&lines[0])["on_error"], on_error);
        assert_eq!(server.mails().len(), mails);
    }
}

#[test]
fn a_message_held_by_a_broken_policy_waits_until_it_expires() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "");
    // The policy would be evaluated again in an hour, which the test does not wait for.
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(600);
    let note = message("note", json!({"context": {"policy_fault": "error"}, "expiration_time": soon.to_string()}));
    let run = home.ace(&["send", "--json", "-"]).input(note.to_string());
    let run = run.env("ACE_DELIVERY__RETRY_DELAY", "1h").env("ACE_DELIVERY__MAX_RETRY_DELAY", "1h");
    let done = run.run().code(1);
    assert_eq!(done.email()["state"], "expired");
    assert_text(&done.email()["error"], "the facts are out of reach");
    assert!(server.mails().is_empty());
}

/// A home with the channel `faulty_channel` alone.
fn channel_home(server: &Smtpd) -> Home {
    let home = mail_home(&format!(
        "{}\n[plugins.faulty_channel]\ngrants = {{ mailer = true }}\n[routing]\ndefault = {{ email = 'faulty_channel' }}\n",
        server.relay()
    ));
    home.guest("faulty_channel", "faulty_channel");
    home
}

#[test]
fn a_channel_that_traps_before_it_sends_is_retried() {
    let server = Smtpd::start(&[]);
    let note = message("note", json!({"context": {"channel_fault": "before"}}));
    let done = channel_home(&server).send(&[note]).ok();
    assert_eq!((&done.email()["state"], &done.email()["attempts"]), (&json!("sent"), &json!(2)));
    server.mail();
}

#[test]
fn a_message_is_sent_although_its_channel_traps_afterwards() {
    let server = Smtpd::start(&[]);
    let note = message("note", json!({"context": {"channel_fault": "after"}}));
    let done = channel_home(&server).send(&[note]).ok();
    let outcome = done.email();
    assert_eq!((&outcome["state"], &outcome["attempts"]), (&json!("sent"), &json!(1)));
    assert_eq!(outcome["fault"]["kind"], "trap");
    assert_text(&outcome["provider_id"], ".faulty_channel@campus.example");
    server.mail();
}

#[test]
fn a_channel_without_its_grant_fails_and_names_it() {
    let server = Smtpd::start(&[]);
    let home = mail_home("");
    home.config(&server.relay());
    let done = home.send(&[message("note", json!({}))]).code(1);
    assert_eq!(done.email()["state"], "failed");
    assert_text(&done.email()["error"], "mailer = true");
    assert!(server.mails().is_empty());
}
