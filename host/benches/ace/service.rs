//! `ace serve` as a process of its own: taking messages in, and the whole way to a mail server. Beside each figure stands one
//! of a peer that was measured in turn with it: SQLite with the same settings and group sizes, one hand-written thread with its
//! own queue ([`onecore`]), smtp-source, the real edx-ace.

pub mod client;
pub mod onecore;
mod raw;
pub mod server;
mod sink;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ace::Ace;
use ace::config::Config;
use ace::internals::mailer::Mailer;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::measure::{Latencies, Summary, child, one_core};
use crate::place::{DISCARD, Place};
use crate::stages;
use client::{Client, post_all, request};
use server::Server;
use sink::{Arrivals, SmtpSink};

/// Clients that hand in single messages.
const CLIENTS: usize = 64;
/// Messages of one measurement of the intake, one by one and in a batch.
const SINGLES: usize = 20_000;
const MEMBERS: usize = 100_000;
/// Messages of one measurement of the whole way, and of edx-ace's.
const SENT: usize = 6_000;
const EDX: usize = 600;
/// Rounds of what is measured in turn with a peer; the median of the rounds' ratios counts.
pub const ROUNDS: usize = 3;
/// Connections to the mail server.
const CONNECTIONS: usize = 8;
/// Messages a second, and for how long, while their time to the mail server is taken.
const CALM_RATE: u64 = 200;
const CALM: Duration = Duration::from_secs(10);
/// Messages that wait while the memory is looked at.
const WAITING: usize = 1_000_000;
/// The secret of a server's configuration, if it names one.
pub const TOKEN: &str = "a-secret-of-the-benchmark";
/// A plugin that reads feedback about the channel.
const FEEDBACK: &str = "[plugins.mail_reports]\ngrants = { feedback = [\"django_email\"] }\nsecrets = { path-secret = { env = \"BENCH_TOKEN\" } }";
/// A moment that never comes.
const NEVER: &str = "2099-01-01T00:00:00Z";

pub fn service(place: &Place, summary: &mut Summary) {
    accept(place, summary);
    whole_way(place, summary);
    drain(place, summary);
    calm(place, summary);
    memory(place, summary);
}

/// Taking in, while nothing goes out.
fn accept(place: &Place, summary: &mut Summary) {
    let (mut rates, mut ratios, mut cpus) =
        ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        let server = Server::start(place, "accept", DISCARD);
        let singles: Vec<Vec<u8>> =
            place.fresh(SINGLES, true).iter().map(|body| request("/v1/messages", body)).collect();
        let (took, cpu) = server.measured(|| post_all(server.address, CLIENTS, singles, 202));
        let body = place.fresh(1, true).remove(0);
        let raw = raw::rate(&place.folder("raw"), CLIENTS, SINGLES, &body, false);
        rates[0].push(SINGLES as f64 / took);
        ratios[0].push(SINGLES as f64 / took / raw);
        cpus[0].push(cpu * 1e6 / SINGLES as f64);

        let (batch, body) = place.batch(MEMBERS, true);
        let (took, cpu) = server.measured(|| post_all(server.address, 1, vec![request("/v1/batches", &batch)], 202));
        let raw = [false, true].map(|is_indexed| raw::rate(&place.folder("raw"), 1_024, MEMBERS, &body, is_indexed));
        rates[1].push(MEMBERS as f64 / took);
        ratios[1].push(MEMBERS as f64 / took / raw[0]);
        cpus[1].push(cpu * 1e6 / MEMBERS as f64);
        bare.push(MEMBERS as f64 / took / raw[1]);
        server.stop();
    }
    let [singles, members] = rates.map(median);
    let [singles_over, members_over] = ratios.map(median);
    let [single_us, member_us] = cpus.map(median);
    summary.add("accept_http_per_s", singles, "/s", "single messages of 4 KB, 64 clients on the same cores");
    summary.add("accept_http_over_raw", singles_over, "x", "SQLite alone: the same settings, groups of 64, one thread");
    summary.add("accept_http_cpu_us", single_us, "us", "aim <= 40; the server's own");
    summary.add("accept_batch_per_s", members, "/s", "recipients of a batch, 2 KB each");
    summary.add("accept_batch_over_raw", members_over, "x", "aim >= 0.8; SQLite alone, groups of 1,024, no index");
    summary.add(
        "accept_batch_over_raw_indexed",
        median(bare),
        "x",
        "the same with a unique uuid and an order of due times",
    );
    summary.add("accept_batch_cpu_us", member_us, "us", "the server's own");
}

/// Accept to settled: two policies, a mail of 12 KB, SMTP; beside the hand-written thread, smtp-source and edx-ace.
fn whole_way(place: &Place, summary: &mut Summary) {
    let (mut ours, mut rates) = (Vec::new(), Vec::new());
    let (mut over_onecore, mut over_edx, mut onecore_over_edx) = (Vec::new(), Vec::new(), Vec::new());
    let (mut over_source, mut mailer_over_source, mut indexed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let sink = SmtpSink::start();
        let (rate, cpu) = sent(place, &relay(sink.address));
        indexed.push(sent(place, &format!("{}\n{FEEDBACK}", relay(sink.address))).1 / cpu);
        let thread = onecore::child(SENT, sink.address);
        let source = smtp_source(sink.address);
        let mailer = mailed(place, &relay(sink.address));
        let edx = edx_ace(place, sink.address);
        ours.push(cpu);
        rates.push(rate);
        over_onecore.push(cpu / thread);
        over_edx.push(edx / cpu);
        onecore_over_edx.push(edx / thread);
        over_source.push(rate / source);
        mailer_over_source.push(mailer / source);
    }
    summary.add("service_cpu_us_per_message", median(ours), "us", "accept to settled, HTTP, queue and SMTP included");
    summary.add(
        "service_cpu_over_onecore",
        median(over_onecore),
        "x",
        "aim <= 1.25; one hand-written thread with SQLite",
    );
    summary.add("service_cpu_vs_edx_ace", median(over_edx), "x", "aim >= 20; edx-ace's CPU over ours");
    summary.add(
        "onecore_cpu_vs_edx_ace",
        median(onecore_over_edx),
        "x",
        "edx-ace's CPU over the hand-written thread's",
    );
    summary.add(
        "service_cpu_with_feedback",
        median(indexed),
        "x",
        "the same with the index of deliveries, which a plugin for feedback about the channel needs",
    );
    summary.add("service_per_s", median(rates), "/s", "accept to settled, the mail server on the same cores");
    let each = "8 connections each";
    let mailer = format!("aim >= 0.8; the mailer alone, MIME included; {each}");
    summary.add("smtp_rate_vs_smtp_source", median(mailer_over_source), "x", &mailer);
    summary.add("service_rate_vs_smtp_source", median(over_source), "x", &format!("accept to settled; {each}"));
}

/// Messages a second and CPU microseconds of each, from the first one handed in until the last one is settled.
fn sent(place: &Place, relay: &str) -> (f64, f64) {
    let server = Server::start(place, "whole", relay);
    let warm: Vec<Vec<u8>> = place.fresh(200, false).iter().map(|body| request("/v1/messages", body)).collect();
    post_all(server.address, CLIENTS, warm, 202);
    server.wait_until_idle();
    let bodies: Vec<Vec<u8>> = place.fresh(SENT, false).iter().map(|body| request("/v1/messages", body)).collect();
    let (took, cpu) = server.measured(|| {
        post_all(server.address, CLIENTS, bodies, 202);
        server.wait_until_idle();
    });
    server.stop();
    (SENT as f64 / took, cpu * 1e6 / SENT as f64)
}

/// Mails a second of the mailer by itself, from mails that are rendered to the mail server's answers.
fn mailed(place: &Place, relay: &str) -> f64 {
    let config = Config::load(&place.write_config("mailer.toml", relay)).expect("a sound configuration");
    let mailer = Arc::new(Mailer::new(&config.fixed.mailer).expect("an SMTP relay"));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let ace = two.block_on(Ace::builder(config).start()).expect("the engine starts");
    let mails = Arc::new(stages::mails(&ace, &place.parsed()));
    let send = |from: usize| {
        let (mailer, mails) = (mailer.clone(), mails.clone());
        async move {
            for i in (from..SENT).step_by(CONNECTIONS) {
                mailer.send(mails[i % mails.len()].clone(), &format!("{i}.bench"), &mut None).await.expect("taken");
            }
        }
    };
    let begun = Instant::now();
    two.block_on(async {
        let mut sends = JoinSet::new();
        (0..CONNECTIONS).for_each(|from| drop(sends.spawn(send(from))));
        sends.join_all().await
    });
    SENT as f64 / begun.elapsed().as_secs_f64()
}

/// What the queue and the pipeline do where the channel drops everything.
fn drain(place: &Place, summary: &mut Summary) {
    let server = Server::start(place, "drain", DISCARD);
    let (batch, _) = place.batch(SENT * 2, false);
    let (took, cpu) = server.measured(|| {
        post_all(server.address, 1, vec![request("/v1/batches", &batch)], 202);
        server.wait_until_idle();
    });
    server.stop();
    let messages = (SENT * 2) as f64;
    summary.add(
        "drain_per_s",
        messages / took,
        "/s",
        "a batch into a relay that drops: policies, templates and MIME included",
    );
    summary.add("drain_cpu_us", cpu * 1e6 / messages, "us", "");
}

/// From handing in to the mail server's acceptance, at a tenth of what it could do.
fn calm(place: &Place, summary: &mut Summary) {
    let arrivals = Arrivals::start();
    let server = Server::start(place, "calm", &relay(arrivals.address));
    let bodies = place.fresh((CALM_RATE * CALM.as_secs()) as usize, false);
    let handed_in = one_core().block_on(async {
        let mut client = Client::connect(server.address).await;
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / CALM_RATE));
        let mut handed_in = Vec::with_capacity(bodies.len());
        for body in &bodies {
            ticks.tick().await;
            let uuid: Value = serde_json::from_slice(body).expect("JSON");
            handed_in.push((uuid["uuid"].as_str().expect("a text").to_owned(), Instant::now()));
            assert_eq!(client.send(&request("/v1/messages", body)).await, 202);
        }
        handed_in
    });
    server.wait_until_idle();
    let arrived = arrivals.taken();
    let took = handed_in.iter().map(|(uuid, at)| match arrived.get(uuid) {
        Some(arrived) => arrived.saturating_duration_since(*at).as_secs_f64() * 1e3,
        None => panic!("{uuid} never arrived"),
    });
    let took = Latencies::of(took.collect());
    server.stop();
    let reference = format!("{CALM_RATE} messages a second");
    summary.add("accept_to_smtp_ms_p50", took.median(), "ms", &reference);
    summary.add("accept_to_smtp_ms_p99", took.percentile(99), "ms", &format!("aim <= 20; {reference}"));
}

/// With ten plugins and nothing to do, and with very many messages that wait.
fn memory(place: &Place, summary: &mut Summary) {
    drop(Server::with_ten_plugins(place));
    let server = Server::with_ten_plugins(place);
    std::thread::sleep(Duration::from_secs(1));
    let idle = server.resident_mib();
    summary.add("serve_idle_mib", idle, "MiB", "aim <= 40; ten Rust plugins from a warm code cache");
    let batch = short_batch(WAITING);
    post_all(server.address, 1, vec![request("/v1/batches", &batch)], 202);
    let waiting = server.resident_mib();
    summary.add("serve_million_queued_mib", waiting, "MiB", "1,000,000 messages wait");
    summary.add(
        "serve_million_queued_growth_mib",
        waiting - idle,
        "MiB",
        "SQLite's page cache (64 MiB at most) included",
    );
    server.stop();
}

fn relay(server: SocketAddr) -> String {
    format!(
        "[relays.main]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nconnections = {CONNECTIONS}\n\
         mails-per-connection = 100000\n[delivery]\nconcurrency = 16",
        server.port()
    )
}

/// A batch of short messages that wait for ever.
fn short_batch(members: usize) -> Vec<u8> {
    let context = json!({"platform_name": "Example Learning", "homepage_url": "https://www.example.org/", "user": {}});
    lines(
        members,
        &kind(context, true),
        |n| json!({"user": {"full_name": format!("Zoe {n}"), "is_verified": n % 2 == 0}}),
    )
}

fn kind(context: Value, is_for_later: bool) -> Value {
    let options = if is_for_later { json!({"not_before": NEVER}) } else { json!({}) };
    json!({
        "app_label": "probeapp", "name": "recurringnudge", "options": options, "uuid": uuid::Uuid::new_v4(), "context": context,
    })
}

fn lines(members: usize, kind: &Value, user_context: impl Fn(usize) -> Value) -> Vec<u8> {
    use std::io::Write;
    let mut lines = json!({"message_type": kind}).to_string().into_bytes();
    for n in 0..members {
        let member = json!({"recipient": recipient(n), "user_context": user_context(n)});
        write!(lines, "\n{member}").expect("written");
    }
    lines
}

fn recipient(n: usize) -> Value {
    json!({"lms_user_id": n, "email_address": format!("user{n}@example.org")})
}

fn smtp_source(server: SocketAddr) -> f64 {
    let (connections, count) = (CONNECTIONS.to_string(), SENT.to_string());
    let to = server.to_string();
    let words =
        ["-d", "-s", &connections, "-m", &count, "-l", "15000", "-f", "a@example.org", "-t", "b@example.com", &to];
    SENT as f64 / child(server::program("smtp-source"), &words).wall_s
}

/// CPU microseconds of one message of the real edx-ace.
fn edx_ace(place: &Place, server: SocketAddr) -> f64 {
    let file = place.bench.join("edx.ndjson");
    let bodies = place.fresh(EDX, false);
    std::fs::write(&file, bodies.join(&b'\n')).expect("written");
    let mut python = Command::new(place.target.join("venv/bin/python"));
    python.current_dir(place.root.join("host/benches/peers/django")).args(["bench_ace.py", "smtp"]);
    python.arg(&file).args([EDX.to_string(), "--port".to_owned(), server.port().to_string()]);
    let output = python.output().expect("it starts");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    told["cpu_us"].as_f64().expect("a number")
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

impl Place {
    /// A batch of the reference mail, of whose courses each learner has two, and one message of it as it is stored: 2 KB.
    fn batch(&self, members: usize, is_for_later: bool) -> (Vec<u8>, Vec<u8>) {
        const OF_ONE: [&str; 3] = ["user", "course_ids", "courses"];
        let contexts = self.messages.iter().map(|message| {
            let mut message: Value = serde_json::from_slice(message).expect("JSON");
            message["context"]["courses"].as_array_mut().expect("a list").truncate(2);
            message["context"].take()
        });
        let contexts: Vec<Value> = contexts.collect();
        let mut shared = contexts[0].clone();
        shared.as_object_mut().expect("an object").retain(|key, _| !OF_ONE.contains(&key.as_str()));
        let own: Vec<Value> =
            contexts.iter().map(|all| OF_ONE.iter().map(|key| (*key, all[key].clone())).collect()).collect();
        let kind = kind(shared, is_for_later);
        let mut stored = kind.clone();
        (stored["context"], stored["recipient"]) = (contexts[0].clone(), recipient(1));
        (lines(members, &kind, |n| own[n % own.len()].clone()), stored.to_string().into_bytes())
    }

    /// The reference mail's messages, so many, each with a uuid of its own.
    fn fresh(&self, count: usize, is_for_later: bool) -> Vec<Vec<u8>> {
        let fresh = |i: usize| {
            let mut message: Value = serde_json::from_slice(&self.messages[i % self.messages.len()]).expect("JSON");
            message["uuid"] = json!(uuid::Uuid::new_v4());
            if is_for_later {
                message["options"]["not_before"] = json!(NEVER);
            }
            message.to_string().into_bytes()
        };
        (0..count).map(fresh).collect()
    }
}
