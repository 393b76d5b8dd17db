//! A policy that is replaced again and again while the engine sends all it can.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ace::Ace;
use ace::config::Config;
use ace::message::Message;
use ace::watch::Watch;
use tokio::runtime::Handle;

use super::{install, tagged};
use crate::measure::{Latencies, Summary, resident_mib};
use crate::place::{DISCARD, Place};

/// The policy that is replaced.
const POLICY: &str = "stub_policy";
const EVERY: Duration = Duration::from_millis(100);
/// One measurement of the throughput.
const SPAN: Duration = Duration::from_secs(4);
/// Messages under way at once.
const CONCURRENCY: usize = 8;
/// Reloads until the memory is what it stays.
const WARM_UP: usize = 100;
const RELOADS: usize = 1_000;

/// Two builds of the policy that take turns.
struct Builds {
    file: PathBuf,
    builds: [Vec<u8>; 2],
    /// Which of them is in the folder.
    installed: AtomicU64,
}

impl Builds {
    fn swap(&self) {
        let next = self.installed.fetch_xor(1, Ordering::Relaxed) ^ 1;
        install(&self.file, &self.builds[next as usize]);
    }
}

/// What came of sending for a while.
#[derive(Default)]
struct Sent {
    count: u64,
    failed: u64,
    took: Vec<f64>,
    seconds: f64,
}

pub fn reload(place: &Place, summary: &mut Summary) {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    workers.expect("a runtime").block_on(measure(place, summary));
}

async fn measure(place: &Place, summary: &mut Summary) {
    let (ace, builds) = engine(place).await;
    let load = Arc::new(Load { ace: ace.clone(), messages: place.messages.clone(), revisions: Mutex::default() });
    let watching = tokio::spawn(Watch::start(ace.clone()).run());
    load.clone().send_for(SPAN / 4).await;
    let (mut still, mut reloading, mut visible) = (Sent::default(), Sent::default(), Vec::new());
    for _ in 0..3 {
        still.add(load.clone().send_for(SPAN).await);
        let stop = Arc::new(AtomicBool::new(false));
        let swapping = std::thread::spawn({
            let (load, builds, stop) = (load.clone(), builds.clone(), stop.clone());
            move || load.swap_until(&builds, &stop)
        });
        reloading.add(load.clone().send_for(SPAN).await);
        stop.store(true, Ordering::Relaxed);
        visible.extend(swapping.join().expect("no panic"));
    }
    watching.abort();
    let rates = [&still, &reloading].map(|sent| sent.count as f64 / sent.seconds);
    let swaps = visible.len();
    let (still_took, took, visible) =
        (Latencies::of(still.took), Latencies::of(reloading.took), Latencies::of(visible));
    let each = format!("aim >= 0.9; {swaps} reloads in {:.0} s", reloading.seconds);
    summary.add("throughput_under_reload", rates[1] / rates[0], "x", &each);
    summary.add("reload_send_us_p99", took.percentile(99), "us", "whole sends while reloading");
    summary.add("reload_none_send_us_p99", still_took.percentile(99), "us", "the same without");
    summary.add("reload_visible_ms_p50", visible.median() / 1e3, "ms", "file in place -> judged by it");
    summary.add("reload_visible_ms_p99", visible.percentile(99) / 1e3, "ms", "aim <= 300");
    let failed = still.failed + reloading.failed + growth(&load, &builds, summary).await;
    summary.add("reload_failed_sends", failed as f64, "", "aim = 0");
}

async fn engine(place: &Place) -> (Arc<Ace>, Arc<Builds>) {
    let folder = place.folder("reload");
    std::fs::create_dir(folder.join("plugins")).expect("made");
    for plugin in [POLICY, "bulk_email_optout", "django_email"] {
        install(&folder.join(format!("plugins/{plugin}.wasm")), &place.component(plugin));
    }
    let config = place.config(DISCARD).replace("../plugins", "plugins");
    let config = config.replace("../../host", "../../../host").replace("facts.ndjson", "../facts.ndjson");
    std::fs::write(folder.join("ace.toml"), config).expect("written");
    let wasm = place.component(POLICY);
    let builds = Builds {
        file: folder.join(format!("plugins/{POLICY}.wasm")),
        builds: [tagged(&wasm, "one"), tagged(&wasm, "two")],
        installed: AtomicU64::new(0),
    };
    let config = Config::load(&folder.join("ace.toml")).expect("a sound configuration");
    let ace = Ace::builder(config).start().await.expect("the engine starts");
    // Both are compiled before anything is measured.
    for _ in 0..2 {
        builds.swap();
        ace.reload().await.expect("a reload");
    }
    (Arc::new(ace), Arc::new(builds))
}

/// Reloads as fast as it can, under load, and what memory that leaves taken. The sends that failed.
async fn growth(load: &Arc<Load>, builds: &Builds, summary: &mut Summary) -> u64 {
    let mut failed = 0;
    let mut resident = Vec::new();
    for reloads in [WARM_UP, RELOADS] {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(load.clone().send_until(stop.clone()));
        for _ in 0..reloads {
            builds.swap();
            load.ace.reload().await.expect("a reload");
        }
        stop.store(true, Ordering::Relaxed);
        failed += sending.await.expect("no panic").failed;
        resident.push(resident_mib());
    }
    summary.add("reload_growth_mib_1000", resident[1] - resident[0], "MiB", "aim <= 8; under load");
    failed
}

struct Load {
    ace: Arc<Ace>,
    messages: Vec<Vec<u8>>,
    /// The revision that judged the latest message.
    revisions: Mutex<String>,
}

impl Load {
    async fn send_for(self: Arc<Self>, span: Duration) -> Sent {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(self.send_until(stop.clone()));
        tokio::time::sleep(span).await;
        stop.store(true, Ordering::Relaxed);
        sending.await.expect("no panic")
    }

    /// Sends from threads of its own: whether tasks of one runtime run side by side depends on what else wakes its workers.
    async fn send_until(self: Arc<Self>, stop: Arc<AtomicBool>) -> Sent {
        let started = Instant::now();
        let threads = (0..CONCURRENCY).map(|thread| {
            let (load, stop, runtime) = (self.clone(), stop.clone(), Handle::current());
            std::thread::spawn(move || {
                let mut sent = Sent::default();
                for i in thread.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    runtime.block_on(load.send(i, &mut sent));
                }
                sent
            })
        });
        let threads: Vec<_> = threads.collect();
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().map(|t| t.join().expect("no panic")).collect());
        let each: Vec<Sent> = joined.await.expect("no panic");
        let mut all = Sent::default();
        each.into_iter().for_each(|sent| all.add(sent));
        all.seconds = started.elapsed().as_secs_f64();
        all
    }

    async fn send(&self, i: usize, sent: &mut Sent) {
        let started = Instant::now();
        let message = Message::from_json(&self.messages[i % self.messages.len()]).expect("a message");
        let mut flight = self.ace.prepare(message, &[]).expect("no limit");
        flight.advance().await;
        let report = flight.report();
        let is_sent = |c: &ace::message::ChannelReport| c.channel_type != "email" || c.outcome.state() == "sent";
        sent.count += 1;
        sent.failed += u64::from(flight.due().is_some() || !report.channels.iter().all(is_sent));
        sent.took.push(started.elapsed().as_secs_f64() * 1e6);
        let judged = report.policies.iter().find(|p| p.policy == POLICY).expect("it is asked");
        let mut latest = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest != judged.revision {
            latest.clone_from(&judged.revision);
        }
    }

    fn latest(&self) -> String {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Installs the other build every 100 ms; how long, in microseconds, until a message was judged by it.
    fn swap_until(&self, builds: &Builds, stop: &AtomicBool) -> Vec<f64> {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (before, started) = (self.latest(), Instant::now());
            builds.swap();
            while self.latest() == before && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !stop.load(Ordering::Relaxed) {
                took.push(started.elapsed().as_secs_f64() * 1e6);
            }
            std::thread::sleep(EVERY.saturating_sub(started.elapsed()));
        }
        took
    }
}

impl Sent {
    fn add(&mut self, other: Sent) {
        self.count += other.count;
        self.failed += other.failed;
        self.took.extend(other.took);
        self.seconds += other.seconds;
    }
}
