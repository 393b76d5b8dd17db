//! Very many messages, each sent exactly once; interruptions.

use std::collections::HashSet;
use std::io::Write;

use serde_json::json;

use crate::servers::{SmtpSink, Smtpd, relay};
use crate::support::{Done, email, mail_home, message, wait_for};

const MANY: usize = 5_000;

#[test]
fn five_thousand_messages_arrive_each_exactly_once() {
    let sink = SmtpSink::start();
    let home = mail_home(&relay(sink.port, "tls = 'none'\nconnections = 8"));
    let uuids: Vec<String> = (0..MANY).map(|n| uuid::Uuid::from_u128(n as u128).to_string()).collect();
    let lines: Vec<String> = uuids.iter().map(|uuid| message("note", json!({"uuid": uuid})).to_string()).collect();
    home.file("messages.ndjson", lines.join("\n"));
    let done = home.ace(&["send", "--json", "--concurrency", "8", "messages.ndjson"]).run().ok();
    done.says("5000 messages in").says(" 5000 sent").says("; 0 failed");

    let outcomes = done.lines();
    assert_eq!(outcomes.len(), MANY);
    for (line, uuid) in outcomes.iter().zip(&uuids) {
        assert_eq!((&line["report"]["uuid"], &email(line)["state"]), (&json!(uuid), &json!("sent")));
    }
    let dump = wait_for("smtp-sink to write", || {
        let dump = sink.dump();
        (dump.matches("\nMessage-ID: ").count() >= MANY).then_some(dump)
    });
    let ids: Vec<&str> = dump.lines().filter_map(|line| line.strip_prefix("Message-ID: ")).collect();
    let different: HashSet<&str> = ids.iter().copied().collect();
    assert_eq!((ids.len(), different.len()), (MANY, MANY));
    for uuid in &uuids {
        assert!(different.contains(format!("<{uuid}.django_email@campus.example>").as_str()), "{uuid}");
    }
}

#[test]
fn an_interruption_finishes_messages_in_flight() {
    let server = Smtpd::start(&[]);
    let home = mail_home(&server.relay_with("tls = 'none'\nconnections = 8"));
    let mut ace = home.ace(&["send", "--json", "--concurrency", "8", "-"]).start_open();
    let mut input = ace.stdin.take().expect("its input");
    // The input never ends, so only the interruption ends the program.
    let feeder = std::thread::spawn(move || while writeln!(input, "{}", message("note", json!({}))).is_ok() {});
    let id = i32::try_from(ace.id()).expect("a process id");
    let ended = std::thread::spawn(move || Done::of(ace));
    wait_for("the first mails", || (server.mails().len() >= 20).then_some(()));
    // SAFETY: sends a signal to a child process of this test, which only that signal ends.
    unsafe { libc::kill(id, libc::SIGINT) };
    let done = ended.join().expect("it ended");
    feeder.join().expect("the feeder ended");

    let done = done.code(130);
    let lines = done.lines();
    assert!(lines.iter().all(|line| email(line)["state"] == "sent"), "every started message was finished");
    let mails = server.mails();
    assert_eq!(lines.len(), mails.len(), "an outcome for each mail");
    let different: HashSet<_> = mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(different.len(), mails.len(), "none went twice");
}
