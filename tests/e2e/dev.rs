//! `ace plugin dev`: after an edit, the answer of the new build is compared with the previous one, locally and on a running server.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::author::{caches, path, plugin};
use crate::serve::{LISTEN, Server};
use crate::support::{Home, email, message, wait_for};

/// Builds are slow if other tests build at the same time.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running `ace plugin dev --json`. It ends when this is dropped.
struct Dev {
    child: Child,
    rounds: Receiver<Value>,
}

impl Dev {
    fn start(home: &Home, arguments: &[&str]) -> Dev {
        let run = home.ace(&[&["plugin", "dev", "--json"], arguments].concat()).env("PATH", &path());
        let run = caches().into_iter().fold(run, |run, (name, value)| run.env(name, &value));
        let mut child = run.start_open();
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let (sender, rounds) = sync_channel(100);
        std::thread::spawn(move || follow(lines, &sender));
        Dev { child, rounds }
    }

    /// The line of the next build.
    fn round(&self) -> Value {
        self.rounds.recv_timeout(PATIENCE).expect("a round comes")
    }

    /// Ends it like Ctrl-C. Returns its exit code.
    fn stop(mut self) -> Option<i32> {
        // SAFETY: sends a signal to a child process of this test.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        wait_for("the end", || self.child.try_wait().expect("asked")).code()
    }
}

fn follow(lines: std::io::Lines<BufReader<ChildStdout>>, sender: &SyncSender<Value>) {
    for line in lines.map_while(Result::ok) {
        let round = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        if sender.send(round).is_err() {
            return;
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has already ended if the test succeeded.
        let _ = self.child.kill();
    }
}

/// A home with a new policy in JavaScript.
fn project() -> Home {
    let home = Home::empty();
    plugin(&home, &["new", "night_off", "--kind", "policy", "--lang", "js"]).ok();
    replace(&home, "night_off.toml", "[\"push\"]", "[\"email\"]");
    home
}

/// Saves a file of the project atomically, as most editors do, so that no build sees a part of it.
fn save(home: &Home, file: &str, text: &str) {
    let written = home.file(&format!("night_off/{file}.new"), text);
    std::fs::rename(written, home.path(&format!("night_off/{file}"))).expect("renamed");
}

/// Replaces a text in a file of the project.
fn replace(home: &Home, file: &str, from: &str, to: &str) {
    let text = home.read(&format!("night_off/{file}"));
    assert!(text.contains(from), "{from:?} is not in {file}");
    save(home, file, &text.replace(from, to));
}

/// Replaces a text in the source.
fn edit(home: &Home, from: &str, to: &str) {
    replace(home, "night_off.js", from, to);
}

fn reason(answer: &Value) -> &str {
    answer["deny"][0]["reason"].as_str().unwrap_or_else(|| panic!("{answer} denies nothing with a reason"))
}

#[test]
fn an_edit_shows_how_the_answer_changes() {
    let home = project();
    let dev = Dev::start(&home, &["night_off"]);
    let first = dev.round();
    assert_eq!((&first["build"], &first["before"]), (&json!(1), &Value::Null));
    assert_eq!(reason(&first["answer"]), "it is not transactional");
    assert_eq!(first["installed"], Value::Null, "there is no ace.toml");

    edit(&home, "\"it is not transactional\"", "\"it can wait\"");
    let second = dev.round();
    assert_eq!((reason(&second["before"]), reason(&second["answer"])), ("it is not transactional", "it can wait"));
    assert_ne!(first["revision"], second["revision"]);

    // A failed build is reported, and the session continues.
    edit(&home, "export const policy", "export const policy policy");
    let third = dev.round();
    assert!(third["failed"].as_str().is_some_and(|why| why.contains("night_off.js:")), "{third}");
    edit(&home, "export const policy policy", "export const policy");
    let fourth = dev.round();
    assert_eq!((&fourth["answer"], &fourth["before"]), (&second["answer"], &second["answer"]));

    // The manifest and the cases are sources, too.
    replace(&home, "night_off.toml", "[\"email\"]", "[\"sms\"]");
    assert_eq!(dev.round()["answer"]["deny"][0]["channel_type"], "sms");
    let mut transactional = message("note", json!({"options": {"transactional": true}}));
    transactional = json!([{"name": "one that must arrive", "message": transactional, "expect": "pass"}]);
    save(&home, "tests/cases.json", &transactional.to_string());
    let sixth = dev.round();
    assert_eq!((&sixth["message"], &sixth["answer"]), (&json!("one that must arrive"), &json!("pass")));
    assert_eq!(dev.stop(), Some(0));
}

// The server is called while this waits for builds.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_activates_each_build_and_shows_what_it_would_do() {
    let home = project();
    home.plugin("django_email");
    home.config(&format!(
        "{LISTEN}[plugins.django_email]\ngrants = {{ mailer = true }}\n[relays.main]\nkind = 'discard'\n"
    ));
    home.email_templates("note", "A note", "<p>Hi</p>", "Hi");
    let note = message("note", json!({}));
    home.file("message.json", note.to_string());
    let server = Server::start(&home);
    assert_eq!(email(&server.send(&note).await)["state"], "sent", "there is no policy yet");

    let dev = Dev::start(&home, &["night_off", "--message", "message.json", "--server", &server.url]);
    let first = dev.round();
    assert_eq!(first["installed"], "plugins/night_off.wasm");
    let decided = |round: &Value| {
        let decided = &round["served"]["decided"];
        let text = |of: &str, key: &str| decided[of][key].as_str().unwrap_or_else(|| panic!("{round}")).to_owned();
        (text("policies", "night_off"), text("channels", "email"))
    };
    let denied = |why: &str| (format!("denies email ({why})"), format!("denied night_off: {why}"));
    assert_eq!(decided(&first), denied("it is not transactional"));
    let mut another = note.clone();
    another["uuid"] = json!(uuid::Uuid::from_u128(2));
    assert_eq!(email(&server.send(&another).await)["state"], "denied", "a real message, not the dry one");

    edit(&home, "\"it is not transactional\"", "\"it can wait\"");
    let second = dev.round();
    assert_eq!(decided(&second), denied("it can wait"));
    let (_, plugins) = server.get("/v1/plugins/night_off").await;
    assert_eq!(plugins["revision"], second["revision"]);

    // If a build cannot be enabled, the previous one stays active.
    edit(&home, "enabled() {", "enabled() { throw \"not today\";");
    let third = dev.round();
    assert!(third["served"]["failed"].as_str().is_some_and(|why| why.contains("not today")), "{third}");
    edit(&home, " throw \"not today\";", "");
    edit(&home, "const isTransactional = ", "const isTransactional = true || ");
    let last = std::iter::from_fn(|| Some(dev.round())).take(2).find(|round| round["answer"] == "pass");
    assert_eq!(decided(&last.expect("it passes")), ("passes".to_owned(), "ready".to_owned()));
    assert_eq!(dev.stop(), Some(0));
    server.stop();
}
