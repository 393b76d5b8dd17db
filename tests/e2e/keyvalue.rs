//! Key-value entries and counters in a database: they outlive a run, are shared by processes, and a damaged file is rejected.

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{Done, Home, channel, mail_home, message};

/// A home whose policy `counter` counts the messages of each learner.
fn home(server: &Smtpd, keyvalue: &str) -> Home {
    let counter = "[plugins.counter]\ngrants = { keyvalue = ['counters'] }";
    let home = mail_home(&format!("{}\n{counter}\n[keyvalue]\n{keyvalue}\n", server.relay()));
    home.guest("counter", "counter");
    home
}

fn note(number: u32) -> Value {
    message("note", json!({"uuid": format!("00000000-0000-4000-8000-{number:012}")}))
}

fn counts(done: &Done) -> Vec<u32> {
    let count = |line| channel(line, "push")["reasons"][0]["reason"].as_str().expect("a reason").parse();
    done.lines().iter().map(|line| count(line).expect("a count")).collect()
}

fn send(home: &Home, notes: &[u32]) -> Vec<u32> {
    let lines: Vec<String> = notes.iter().map(|number| note(*number).to_string()).collect();
    counts(&home.ace(&["send", "--json", "--concurrency", "1", "-"]).input(lines.join("\n")).run().ok())
}

#[test]
fn a_count_continues_in_the_next_run_and_a_message_counts_once() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "database = 'state.db'");
    assert_eq!(send(&home, &[1, 2]), [1, 2]);
    let explained = home.ace(&["explain", "--json", "-"]).input(note(3).to_string()).run().ok();
    assert!(explained.stdout.contains("\"3\""), "it would be the third: {}", explained.stdout);
    assert_eq!(send(&home, &[2, 3, 1, 4]), [2, 3, 3, 4]);
}

#[test]
fn without_a_database_every_run_starts_empty() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "");
    assert_eq!(send(&home, &[1, 2]), [1, 2]);
    assert_eq!(send(&home, &[3]), [1]);
}

#[test]
fn two_processes_share_one_database() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "database = 'state.db'");
    let start = |first: u32| {
        let lines: Vec<String> = (first..first + 50).map(|number| note(number).to_string()).collect();
        home.ace(&["send", "--json", "-"]).input(lines.join("\n")).start()
    };
    let running = [start(0), start(50)];
    let mut all: Vec<u32> = running.into_iter().flat_map(|child| counts(&Done::of(child).ok())).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<u32>>(), "no count was lost, none was given twice");
}

#[test]
fn a_file_that_is_not_a_database_is_rejected_at_start_up() {
    let server = Smtpd::start(&[]);
    let home = home(&server, "database = 'state.db'");
    home.file("state.db", "not a database, but as long as the header of one; ".repeat(10));
    let done = home.send(&[note(1)]).code(2);
    done.says("state.db: it is not a SQLite database; name another file, or move this one away");
    assert!(server.mails().is_empty());
}
