//! Panics in the host, caused by an embedding application: by its clock, by its channel. They end only what they happen in.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ace::channel::Channel;
use ace::dispatch::{self, Done, Limits, Lines, Sink};
use ace::internals::plugin::PluginState;
use ace::message::{
    Attempt, CallContext, DeliveryError, Message, MessageType, Outcome, Receipt, Recipient, Report, TemplateFile,
};
use ace::watch::Watch;
use ace::{Ace, Config};
use ace_server::worker::Worker;
use ace_store::queue::{Queue, State};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Home, assert_text, message, wait_for};

/// A policy that asks for the time in `enabled`.
pub fn clocked() -> String {
    let clock = r#"
      (import "wasi:clocks/wall-clock@0.2.0" (instance $clock
        (type $datetime' (record (field "seconds" u64) (field "nanoseconds" u32)))
        (export "datetime" (type $datetime (eq $datetime')))
        (export "now" (func (result $datetime)))))
      (core module $room (memory (export "memory") 1))
      (core instance $room (instantiate $room))
      (core func $now (canon lower (func $clock "now") (memory (core memory $room "memory"))))"#;
    include_str!("hostile/policy.wat")
        .replace(
            "(memory (export \"memory\") 1)",
            "(import \"clock\" \"now\" (func $now (param i32))) (memory (export \"memory\") 1)",
        )
        .replace(
            "(func (export \"enabled\") (result i32)",
            "(func (export \"enabled\") (result i32) (call $now (i32.const 0))",
        )
        .replace(
            "(instantiate $module)",
            "(instantiate $module (with \"clock\" (instance (export \"now\" (func $now)))))",
        )
        .replace("(;component;)", clock)
}

/// Writes a component that is another revision with each `note`, with an old modification time, so that it counts as complete.
pub fn install(home: &Home, plugin: &str, text: &str, note: &str) {
    let component = text.trim_end().strip_suffix(')').expect("a component");
    let custom = format!("{component} (@custom \"note\" \"{note}\"))");
    let wasm = wat::parse_str(custom).unwrap_or_else(|e| panic!("{e}"));
    let written = home.file("written", wasm);
    set_old(&written);
    std::fs::rename(written, home.path(&format!("plugins/{plugin}.wasm"))).expect("renamed");
}

fn set_old(file: &Path) {
    let file = std::fs::File::options().append(true).open(file).expect("there");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("it is ours");
}

fn config(home: &Home) -> Config {
    home.config("");
    Config::load(&home.path("ace.toml")).expect("a valid configuration")
}

async fn reload(ace: &Ace) -> Value {
    json!(ace.reload().await.unwrap_or_else(|e| panic!("{e}")).changes)
}

static CLOCK_IS_BROKEN: AtomicBool = AtomicBool::new(false);

fn clock() -> Timestamp {
    assert!(!CLOCK_IS_BROKEN.load(Ordering::Relaxed), "the clock is broken");
    Timestamp::now()
}

/// The host panics while it loads one plugin: that one is broken, its previous version stays active, and the others are loaded.
#[tokio::test]
async fn a_panic_while_a_plugin_loads_is_that_plugins_fault_alone() {
    let home = Home::empty();
    let config = config(&home);
    install(&home, "clocked", &clocked(), "one");
    let ace = Ace::builder(config).clock(clock, || 0.5).start().await.expect("it starts");
    assert_eq!(ace.registry().plugins["clocked"].state, PluginState::Active);
    let before = ace.registry().plugins["clocked"].revision.clone();

    CLOCK_IS_BROKEN.store(true, Ordering::Relaxed);
    install(&home, "clocked", &clocked(), "two");
    install(&home, "second_clocked", &clocked(), "one");
    install(&home, "sound", include_str!("hostile/policy.wat"), "one");
    let changes = reload(&ace).await;
    let of = |plugin: &str| {
        let mut changes = changes.as_array().expect("a list").iter();
        changes.find(|change| change["plugin"] == plugin).unwrap_or_else(|| panic!("{plugin} in {changes:?}"))
    };
    assert_eq!((&of("clocked")["change"], &of("clocked")["active_revision"]), (&json!("rejected"), &json!(before)));
    assert_text(&of("clocked")["reason"], "a bug in ACE (it panicked: the clock is broken)");
    assert_eq!((&of("second_clocked")["change"], &of("sound")["change"]), (&json!("broken"), &json!("added")));

    CLOCK_IS_BROKEN.store(false, Ordering::Relaxed);
    install(&home, "clocked", &clocked(), "three");
    assert_eq!(reload(&ace).await[0]["change"], "replaced", "the next reload works");
}

static CHANNEL_IS_BROKEN: AtomicBool = AtomicBool::new(false);
static CHANNEL_PANICKED: AtomicBool = AtomicBool::new(false);

/// A channel of the application with a bug: it panics when a reload asks for its type.
struct Buggy;

#[async_trait]
impl Channel for Buggy {
    fn name(&self) -> &str {
        "buggy"
    }

    fn channel_type(&self) -> &str {
        if CHANNEL_IS_BROKEN.load(Ordering::Relaxed) {
            CHANNEL_PANICKED.store(true, Ordering::Relaxed);
            panic!("it has forgotten its type");
        }
        "buggy"
    }

    fn template_files(&self) -> &[TemplateFile] {
        &[]
    }

    async fn deliver(
        &self,
        _: &Arc<Message>,
        _: &[(String, String)],
        _: &Attempt,
        _: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        Ok(Receipt { provider_id: None, detail: None })
    }
}

/// A panic during a reload is logged, and the next change is reloaded normally.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_reload_does_not_end_hot_reload() {
    let home = Home::empty();
    let config = config(&home);
    install(&home, "policy", include_str!("hostile/policy.wat"), "one");
    let ace = Arc::new(Ace::builder(config).channel(Buggy).start().await.expect("it starts"));
    let revision = || ace.registry().plugins["policy"].revision.clone();
    let before = revision();
    let watching = tokio::spawn(Watch::start(ace.clone()).run());

    CHANNEL_IS_BROKEN.store(true, Ordering::Relaxed);
    let told = ace.reload().await.expect_err("it panicked").to_string();
    assert_eq!(told, "a bug in ACE (it panicked: it has forgotten its type)");
    CHANNEL_PANICKED.store(false, Ordering::Relaxed);
    install(&home, "policy", include_str!("hostile/policy.wat"), "two");
    tokio::task::block_in_place(|| {
        wait_for("the watch's own panic", || CHANNEL_PANICKED.load(Ordering::Relaxed).then_some(()));
    });
    assert_eq!(revision(), before, "the previous version stays active");

    CHANNEL_IS_BROKEN.store(false, Ordering::Relaxed);
    install(&home, "policy", include_str!("hostile/policy.wat"), "three");
    tokio::task::block_in_place(|| wait_for("the next version", || (revision() != before).then_some(())));
    assert!(!watching.is_finished());
    watching.abort();
}

/// A channel with a bug in its delivery, which panics for one user.
struct BuggyDelivery(Vec<TemplateFile>);

#[async_trait]
impl Channel for BuggyDelivery {
    fn name(&self) -> &str {
        "buggy_delivery"
    }

    fn channel_type(&self) -> &str {
        "inbox"
    }

    fn template_files(&self) -> &[TemplateFile] {
        &self.0
    }

    async fn deliver(
        &self,
        _: &Arc<Message>,
        rendered: &[(String, String)],
        _: &Attempt,
        _: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        assert_ne!(rendered[0].1, "7", "it cannot bear a seven");
        Ok(Receipt { provider_id: None, detail: None })
    }
}

/// A panic while a message is sent is an interruption of that message, and releases its slot: other messages are sent. It is retried
/// after growing pauses, and then set aside with the reason.
#[tokio::test]
async fn a_panic_over_one_message_affects_only_that_message() {
    let home = Home::empty();
    let config = config(&home);
    home.file("templates/app/edx_ace/note/inbox/body.txt", "{{ n }}");
    let channel = BuggyDelivery(vec![TemplateFile::required("body.txt")]);
    let ace = Arc::new(Ace::builder(config).channel(channel).start().await.expect("it starts"));
    let settings = ace::config::Queue { database: home.path("ace.db"), ..Default::default() };
    let queue = Arc::new(Queue::open(&settings, Timestamp::now()).expect("a database"));
    let current = ace.clone();
    let worker = Worker::new(queue.clone(), move || current.snapshot(), 2, Default::default());
    let working = tokio::spawn(worker.clone().run());
    let mut uuids = Vec::new();
    for n in [7, 8, 9] {
        let mut kind = MessageType::new("app", "note");
        kind.context.insert("n", n);
        let message = kind.personalize(Recipient::new(n, "zoe@learner.example"), None, ace::message::Object::new());
        let new = ace_server::intake::queued(&message, ace_store::queue::Priority::ORDINARY).expect("a valid message");
        let mut outcome = worker.outcome(message.uuid);
        queue.accept(vec![new], Timestamp::now()).await.expect("accepted");
        uuids.push(message.uuid);
        if n != 7 {
            assert!(outcome.settled_within(std::time::Duration::from_secs(60)).await.is_some(), "{n} goes out");
        }
    }
    let stored = async || queue.message(uuids[0]).await.expect("the store answers").expect("it is kept");
    for _ in 0..600 {
        if stored().await.state != State::Queued {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let given_up = stored().await;
    assert_eq!(given_up.state, State::Failed);
    let report: Value = serde_json::from_slice(&given_up.report.expect("a report")).expect("JSON");
    assert_eq!(report["interruptions"].as_array().map(Vec::len), Some(5), "{report}");
    let inbox = report["channels"].as_array().expect("a list").iter().find(|c| c["channel_type"] == "inbox");
    let wanted = "set aside: sending it was interrupted 5 times, the last time by a bug in ACE (it panicked: assertion";
    assert_text(&inbox.expect("asked for")["error"], wanted);
    assert_text(&inbox.expect("asked for")["error"], "it cannot bear a seven");
    assert!(given_up.settled.expect("it is") >= given_up.accepted + jiff::SignedDuration::from_secs(3), "1 s and 2 s");
    assert!(worker.drain(std::time::Duration::from_secs(60)).await);
    working.await.expect("no panic");
}

/// The outcome of each line of the input.
#[derive(Default)]
struct Outcomes(std::sync::Mutex<Vec<(u64, Report)>>);

impl Sink for Outcomes {
    fn done(&self, done: Done) {
        self.0.lock().expect("no panic").push((done.line, done.result.expect("a valid message")));
    }

    fn flush(&self) {}
}

/// The same without a store: other messages are sent, and the report of the one names the reason.
#[tokio::test]
async fn a_panic_over_one_message_of_many_fails_that_one_alone() {
    let home = Home::empty();
    let config = config(&home);
    home.file("templates/app/edx_ace/note/inbox/body.txt", "{{ n }}");
    let channel = BuggyDelivery(vec![TemplateFile::required("body.txt")]);
    let ace = Arc::new(Ace::builder(config).channel(channel).start().await.expect("it starts"));
    let lines: Vec<String> = [6, 7, 8, 9].map(|n| message("note", json!({"context": {"n": n}})).to_string()).into();
    let input = Lines::new(std::io::Cursor::new(lines.join("\n").into_bytes()), 100_000);
    let limits = Limits {
        concurrency: 2,
        waiting_max: 10,
        max_delay: std::time::Duration::from_secs(60),
        limit_to_channels: Default::default(),
    };
    let (outcomes, current) = (Arc::new(Outcomes::default()), ace.clone());
    let run = dispatch::run(move || current.snapshot(), input, limits, std::future::pending(), outcomes.clone());
    run.await.expect("read");
    let mut outcomes = std::mem::take(&mut *outcomes.0.lock().expect("no panic"));
    outcomes.sort_by_key(|(line, _)| *line);
    let inbox = |report: &Report| {
        let inbox = report.channels.iter().find(|channel| channel.channel_type == "inbox");
        inbox.expect("asked for").outcome.clone()
    };
    let states: Vec<_> = outcomes.iter().map(|(line, report)| (*line, inbox(report).state())).collect();
    assert_eq!(states, [(1, "sent"), (2, "failed"), (3, "sent"), (4, "sent")]);
    let Outcome::Failed { error } = inbox(&outcomes[1].1) else { panic!("{outcomes:?}") };
    assert!(error.starts_with("a bug in ACE (it panicked: ") && error.contains("it cannot bear a seven"), "{error}");
    assert_eq!(outcomes[1].1.interruptions.len(), 1);
}
