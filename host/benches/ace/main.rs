//! `make bench`: what a message costs, against references in the same run. Prints a table and writes
//! target/bench/summary.json (figure name -> value, unit, reference). Later figures join the list in `main`.

mod measure;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ace::Ace;
use ace::channel::Channel;
use ace::config::Config;
use ace::mailer::{Email, Mailer};
use ace::message::{Attempt, Denial, Fault, Message, Notes, PolicyResult};
use ace::policy::{self, Policy};
use ace::presentation::Subject;
use async_trait::async_trait;
use jiff::Timestamp;

use measure::{Summary, child, cpu_us};

/// The same allocator as the program, so that the figures are the program's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Messages of one round of a stage.
const ROUND: usize = 2_000;

fn main() {
    let place = Place::prepare();
    let mut summary = Summary::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(stages(&place, &mut summary));
    drop(runtime);
    many_messages(&place, &mut summary);
    peers(&place, &mut summary);
    summary.write(&place.target.join("bench/summary.json"));
}

/// Where everything is.
struct Place {
    root: PathBuf,
    target: PathBuf,
    bench: PathBuf,
    messages: Vec<Vec<u8>>,
}

impl Place {
    fn prepare() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
        let target = root.join("target");
        let bench = target.join("bench");
        std::fs::create_dir_all(&bench).expect("a folder for the figures");
        let file = bench.join("messages.ndjson");
        let script = root.join("host/benches/peers/contexts.py");
        child(target.join("venv/bin/python"), &[script.as_os_str(), file.as_os_str()]);
        std::fs::write(bench.join("facts.ndjson"), FACTS).expect("written");
        let text = std::fs::read(&file).expect("just written");
        let messages = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        Place { root, target, bench, messages }
    }

    /// The configuration of every figure: two policies, one channel, one relay.
    fn config(&self, relay: &str) -> String {
        format!(
            "plugin-dir = \"../plugins\"\ntemplate-dirs = [\"../../host/benches/templates\"]\ncache-dir = \"cache\"\n\
             enabled-policies = [\"stub_policy\", \"bulk_email_optout\"]\nenabled-channels = [\"django_email\"]\n\
             [routing]\ndefault = {{ email = \"django_email\" }}\n[keyvalue]\nfiles = [\"facts.ndjson\"]\n\
             [plugins.stub_policy]\nconfig = {{ deny = [\"push\"] }}\n\
             [plugins.bulk_email_optout]\ngrants = {{ keyvalue = [\"course-optouts:read\"] }}\n\
             [plugins.django_email]\ngrants = {{ mailer = true }}\n\
             [mailer]\ndefault-from = \"Example Learning <no-reply@example.org>\"\n{relay}\n"
        )
    }

    fn write_config(&self, name: &str, relay: &str) -> PathBuf {
        let file = self.bench.join(name);
        std::fs::write(&file, self.config(relay)).expect("written");
        file
    }
}

/// Some learners opted out of some courses; nobody of everything.
const FACTS: &str = "{\"bucket\": \"course-optouts\", \"key\": \"3/course-v1:Org0+C0+2026\", \"value\": \"\"}\n";
const DISCARD: &str = "[relays.main]\nkind = \"discard\"";

/// CPU microseconds of each step of a message's way, on one thread, without a network.
async fn stages(place: &Place, summary: &mut Summary) {
    let config = Config::load(&place.write_config("discard.toml", DISCARD)).expect("a sound configuration");
    let mailer = Mailer::new(&config.mailer).expect("a discard relay");
    let ace = Ace::builder(config).start().await.expect("the engine starts");
    let snapshot = ace.snapshot();
    let parsed: Vec<Arc<Message>> = parse_all(place);
    let types = snapshot.channels.types();
    let channel = snapshot.channels.of_type("email")[0].clone();

    let parse = cpu_us(ROUND, async |i| {
        std::hint::black_box(Message::from_json(&place.messages[i % 64]).expect("a message"));
    })
    .await;
    let policies = cpu_us(ROUND, async |i| {
        policy::channels_for(&snapshot.policies, &types, &parsed[i % 64], Timestamp::UNIX_EPOCH, false).await;
    })
    .await;
    let subject = Subject {
        channel: channel.name(),
        channel_type: "email",
        files: channel.template_files(),
        action_links: &[],
        tracker_image_sources: &[],
    };
    let render = cpu_us(ROUND, async |i| {
        std::hint::black_box(snapshot.presentation.render(&parsed[i % 64], &subject).expect("it renders"));
    })
    .await;
    let rendered: Vec<Vec<(String, String)>> = parsed
        .iter()
        .map(|m| snapshot.presentation.render(m, &subject).expect("it renders"))
        .map(|files| files.into_iter().map(|f| (f.name, f.text)).collect())
        .collect();
    let mails: Vec<Email> = parsed.iter().zip(&rendered).map(|(m, r)| email(m, r)).collect();
    let clone = cpu_us(ROUND, async |i| drop(std::hint::black_box(mails[i % 64].clone()))).await;
    let mime =
        cpu_us(ROUND, async |i| drop(mailer.send(mails[i % 64].clone(), "bench").await.expect("taken"))).await - clone;
    let deliver = cpu_us(ROUND, async |i| deliver(channel.as_ref(), &parsed[i % 64], &rendered[i % 64]).await).await;
    let whole = cpu_us(ROUND, async |i| {
        let message = Message::from_json(&place.messages[i % 64]).expect("a message");
        let mut flight = ace.send(message, &[]).expect("no limit");
        flight.advance().await;
        assert!(flight.due().is_none(), "settled at the first attempt");
    })
    .await;

    let html: usize = rendered.iter().flatten().filter(|(name, _)| name == "body.html").map(|(_, t)| t.len()).sum();
    let aim = "aim <= 110";
    summary.add("pipeline_cpu_us_per_message", whole, "us", &format!("{aim}; html {} bytes", html / rendered.len()));
    summary.add("stage_parse_us", parse, "us", "");
    summary.add("stage_policies_us", policies, "us", "two WASM policies");
    summary.add("stage_render_us", render, "us", "five templates");
    summary.add("stage_mime_us", mime, "us", "MIME built and dropped");
    summary.add("stage_channel_us", deliver - mime, "us", "WASM e-mail channel, three calls, without the MIME");
    summary.add("policies_and_channel_us", policies + deliver - mime, "us", "aim <= 15");
    policy_calls(&ace, &parsed, summary).await;
}

fn parse_all(place: &Place) -> Vec<Arc<Message>> {
    place.messages.iter().map(|m| Arc::new(Message::from_json(m).expect("a message"))).collect()
}

fn email(message: &Message, rendered: &[(String, String)]) -> Email {
    let file = |name: &str| rendered.iter().find(|(n, _)| n == name).map(|(_, text)| text.clone()).unwrap_or_default();
    let address = message.recipient.as_ref().and_then(|r| r.email_address.clone());
    Email {
        sender: Some("Example Learning <no-reply@example.org>".to_owned()),
        recipients: address.into_iter().collect(),
        subject: file("subject.txt").trim().to_owned(),
        text: file("body.txt"),
        html: Some(format!(
            "<!DOCTYPE html><html><head>{}</head><body>{}</body></html>",
            file("head.html"),
            file("body.html")
        )),
        ..Email::default()
    }
}

/// All that the pipeline asks of a channel for one message.
async fn deliver(channel: &dyn Channel, message: &Arc<Message>, rendered: &[(String, String)]) {
    channel.action_links(message, &Notes::default()).await.expect("no fault");
    channel.tracker_image_sources(message, &Notes::default()).await.expect("no fault");
    let attempt = Attempt { number: 1, idempotency_key: message.idempotency_key(channel.name()) };
    channel.deliver(message, rendered, &attempt, &Notes::default()).await.expect("the relay takes it");
}

/// The opt-out policy in plain Rust, on the same facts.
struct NativeOptout(BTreeMap<String, ()>);

#[async_trait]
impl Policy for NativeOptout {
    fn name(&self) -> &str {
        "native_optout"
    }

    async fn check(&self, message: &Arc<Message>, _: bool, _: &Notes) -> Result<PolicyResult, Fault> {
        let courses =
            message.context.get("course_ids").and_then(|c| c.as_array()).map(Vec::as_slice).unwrap_or_default();
        let user = message.recipient.as_ref().and_then(|r| r.lms_user_id.as_text());
        let mut result = PolicyResult::default();
        if let (Some(user), false, false) = (user, courses.is_empty(), message.is_transactional()) {
            let opted_out = |course: &serde_json::Value| {
                self.0.contains_key(&format!("{user}/{}", course.as_str().unwrap_or_default()))
            };
            if courses.iter().all(opted_out) {
                result.deny.push(Denial { channel_type: "email".to_owned(), reason: None });
            }
        }
        Ok(result)
    }
}

/// The same policy as a component and as a part of the host.
async fn policy_calls(ace: &Ace, parsed: &[Arc<Message>], summary: &mut Summary) {
    let (snapshot, notes) = (ace.snapshot(), Notes::default());
    let slot = snapshot.policies.iter().find(|s| s.policy.name() == "bulk_email_optout").expect("it is enabled");
    let native = NativeOptout(BTreeMap::from([("3/course-v1:Org0+C0+2026".to_owned(), ())]));
    let wasm_us =
        cpu_us(ROUND * 5, async |i| drop(slot.policy.check(&parsed[i % 64], false, &notes).await.expect("a verdict")))
            .await;
    let native_us =
        cpu_us(ROUND * 5, async |i| drop(native.check(&parsed[i % 64], false, &notes).await.expect("a verdict"))).await;
    summary.add("policy_call_wasm_us", wasm_us, "us", "bulk_email_optout as a component, warm instance");
    summary.add("policy_call_native_us", native_us, "us", "the same in plain Rust");
    summary.add("policy_call_wasm_over_native", wasm_us / native_us, "x", "");
}

/// The program with 100,000 messages: its memory must not grow with them.
fn many_messages(place: &Place, summary: &mut Summary) {
    let ace = place.target.join("release/ace");
    let config = place.write_config("many.toml", DISCARD);
    for count in [1_000, 100_000] {
        let file = place.bench.join("many.ndjson");
        place.write_many(&file, count);
        let args = [config.as_os_str(), file.as_os_str()];
        let used = child(&ace, &["--json".as_ref(), "--config".as_ref(), args[0], "send".as_ref(), args[1]]);
        std::fs::remove_file(&file).expect("it was there");
        let name = if count == 1_000 { "send_1000" } else { "send_100000" };
        summary.add(&format!("{name}_peak_mib"), used.peak_mib, "MiB", "aim < 64, the same for both");
        summary.add(
            &format!("{name}_per_s"),
            count as f64 / used.wall_s,
            "msg/s",
            "into a discard relay, on both cores",
        );
        summary.add(&format!("{name}_cpu_us"), used.cpu_s * 1e6 / count as f64, "us", "whole process, start included");
    }
}

impl Place {
    fn write_many(&self, file: &Path, count: usize) {
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).expect("a file"));
        for i in 0..count {
            let mut message = Message::from_json(&self.messages[i % 64]).expect("a message");
            message.uuid = uuid::Uuid::from_u128(i as u128 + 1);
            writeln!(out, "{}", message.to_json()).expect("written");
        }
        out.flush().expect("written");
    }
}

/// `ace send` to a real smtp-sink beside smtp-source and the real edx-ace (host/benches/peers).
fn peers(place: &Place, summary: &mut Summary) {
    let relay = "[relays.main]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = @PORT@\ntls = \"none\"\n\
                 connections = @CONNECTIONS@\nmails-per-connection = 100000\n[delivery]\nconcurrency = @CONNECTIONS@";
    let config = place.write_config("peers.toml", relay);
    let out = place.bench.join("peers.json");
    let run = place.root.join("host/benches/peers/run.py");
    let (messages, ace) = (place.bench.join("messages.ndjson"), place.target.join("release/ace"));
    let mut args: Vec<&std::ffi::OsStr> = vec![run.as_os_str()];
    for (flag, value) in [
        ("--messages", messages.as_os_str()),
        ("--ace", ace.as_os_str()),
        ("--config", config.as_os_str()),
        ("--count", "5000".as_ref()),
        ("--out", out.as_os_str()),
    ] {
        args.extend([flag.as_ref(), value]);
    }
    child(place.target.join("venv/bin/python"), &args);
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&out).expect("run.py writes it")).expect("it is JSON");
    for (name, figures) in result["medians"].as_object().expect("medians") {
        let key = name.replace([' ', '-'], "_");
        summary.add(
            &format!("smtp_{key}_per_s"),
            figures["msg_s"].as_f64().unwrap_or(f64::NAN),
            "msg/s",
            "to smtp-sink",
        );
        summary.add(&format!("smtp_{key}_cpu_us"), figures["cpu_us"].as_f64().unwrap_or(f64::NAN), "us", "");
    }
    for (name, ratio) in result["ratios"].as_object().expect("ratios") {
        let aim = if name.starts_with("rate") { "aim >= 0.7" } else { "aim >= 18" };
        let key = name.to_lowercase().replace(" / ", "_over_").replace([' ', '-'], "_");
        summary.add(&key, ratio.as_f64().unwrap_or(f64::NAN), "x", aim);
    }
}
