//! Replies of a mail server, and missing replies.

use serde_json::json;

use crate::servers::{Smtpd, free_port, relay};
use crate::support::{Done, assert_text, mail_home, message};

/// Sends one message to this server.
fn send(server: &Smtpd) -> Done {
    mail_home(&server.relay()).send(&[message("note", json!({}))])
}

#[test]
fn a_refused_recipient_fails_with_the_servers_reply() {
    for pipelining in [&[][..], &["--no-pipelining"]] {
        let server = Smtpd::start(&[&["--refuse", "zoe@learner.example=550"], pipelining].concat());
        let done = send(&server).code(1);
        let outcome = done.email();
        assert_eq!((&outcome["state"], &outcome["attempts"]), (&json!("failed"), &json!(1)));
        assert_text(&outcome["error"], "550 5.1.1 <zoe@learner.example> is refused here");
        assert!(server.mails().is_empty());
    }
}

#[test]
fn of_several_recipients_only_the_refused_one_gets_no_mail() {
    let server = Smtpd::start(&["--refuse", "bob@learner.example=550"]);
    let options = json!({"options": {"cc": ["bob@learner.example"]}});
    let done = mail_home(&server.relay()).send(&[message("note", options)]).ok();
    assert_eq!(done.email()["state"], "sent");
    let refused = &done.email()["detail"]["refused"][0];
    assert_eq!(refused["recipient"], "bob@learner.example");
    assert_text(&refused["answer"], "550");
    assert_eq!(server.mail().envelope["recipients"], json!(["zoe@learner.example"]));
}

#[test]
fn a_temporary_refusal_is_retried_with_the_same_message_id() {
    let server = Smtpd::start(&["--tempfail", "2"]);
    let uuid = "1b671a64-40d5-491e-99b0-da01ff1f3341";
    let home = mail_home(&server.relay());
    let done = home.send(&[message("note", json!({"uuid": uuid}))]).ok();
    assert_eq!((&done.email()["state"], &done.email()["attempts"]), (&json!("sent"), &json!(3)));
    assert_eq!(server.mail().header("Message-ID"), Some(format!("<{uuid}.django_email@campus.example>")));
}

#[test]
fn a_temporarily_refused_recipient_is_retried_until_the_message_expires() {
    let server = Smtpd::start(&["--refuse", "zoe@learner.example=451"]);
    let home = mail_home(&format!("{}expiration-delay = '500ms'\n", server.relay()));
    let done = home.send(&[message("note", json!({}))]).code(1);
    assert_eq!(done.email()["state"], "expired");
    assert!(done.email()["attempts"].as_u64() > Some(1));
    assert_text(&done.email()["error"], "451 4.1.1 <zoe@learner.example> is refused here");
}

#[test]
fn after_a_disconnect_before_the_mail_it_is_sent_again() {
    let server = Smtpd::start(&["--close-after", "data", "2"]);
    let done = send(&server).ok();
    assert_eq!(done.email()["state"], "sent");
    assert!(done.email()["attempts"].as_u64() >= Some(2), "{done:?}");
    server.mail();
}

/// The server had the complete mail and may have stored it. A duplicate has the same Message-ID, by which it is recognized.
#[test]
fn after_a_disconnect_after_the_dot_the_same_mail_is_sent_again() {
    let server = Smtpd::start(&["--close-after", "dot", "1"]);
    let uuid = "6fa459ea-ee8a-4ca4-894e-db77e160355e";
    let home = mail_home(&server.relay());
    let done = home.send(&[message("note", json!({"uuid": uuid}))]).ok();
    assert_eq!((&done.email()["state"], &done.email()["attempts"]), (&json!("sent"), &json!(2)));
    assert_eq!(server.mail().header("Message-ID"), Some(format!("<{uuid}.django_email@campus.example>")));
}

#[test]
fn an_unreachable_server_is_retried_until_the_message_expires() {
    let home = mail_home(&format!("{}expiration-delay = '500ms'\n", relay(free_port(), "tls = 'none'")));
    let done = home.send(&[message("note", json!({}))]).code(1);
    assert_eq!(done.email()["state"], "expired");
    assert_eq!(done.email()["attempts"], 0, "none was used up");
    assert_text(&done.email()["error"], "onnection refused");
}

#[test]
fn the_failover_channel_is_used_if_a_server_is_unreachable() {
    let toml = format!(
        "{}expiration-delay = '60ms'\n[routing]\ndefault = {{ email = 'django_email' }}\n\
         failover = {{ email = ['django_email', 'file_email'] }}\n[plugins.file_email]\ngrants = {{ outbox = 'out' }}\n",
        relay(free_port(), "tls = 'none'")
    );
    let home = mail_home(&toml);
    home.plugin("file_email");
    std::fs::create_dir(home.path("out")).expect("made");
    let done = home.send(&[message("note", json!({}))]).ok();
    let outcome = done.email();
    assert_eq!((&outcome["state"], &outcome["channel"]), (&json!("sent"), &json!("file_email")));
    assert_eq!(
        (&outcome["rule"], &outcome["passed_over"]),
        (&json!("failover"), &json!(["django_email: relay main is down"]))
    );
    assert_eq!(home.list("out").len(), 1);
}
