//! The instruments: CPU time of a piece of work, what a child process used, and the summary.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Map, Value, json};

/// Rounds of a measurement; the median counts.
const ROUNDS: usize = 5;

/// CPU microseconds of one run of `work`, the median of several rounds after one to warm up.
pub async fn cpu_us(times: usize, mut work: impl AsyncFnMut(usize)) -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        let before = process_cpu_s();
        for i in 0..times {
            work(i).await;
        }
        rounds.push((process_cpu_s() - before) * 1e6 / times as f64);
    }
    rounds.remove(0);
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Microseconds of single runs.
pub struct Latencies(Vec<f64>);

impl Latencies {
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Latencies(all)
    }

    /// The value that so many of a hundred runs stay within; none measured is none within any bound.
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or(f64::INFINITY)
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }
}

/// How long each of two kinds of work takes by itself, in turns, so that a busy machine slows both.
pub async fn latencies_in_turn(
    times: usize,
    mut one: impl AsyncFnMut(usize),
    mut other: impl AsyncFnMut(usize),
) -> (Latencies, Latencies) {
    let mut took = (Vec::with_capacity(times), Vec::with_capacity(times));
    for i in 0..times {
        let started = Instant::now();
        one(i).await;
        let between = Instant::now();
        other(i).await;
        took.0.push((between - started).as_secs_f64() * 1e6);
        took.1.push(between.elapsed().as_secs_f64() * 1e6);
    }
    (Latencies::of(took.0), Latencies::of(took.1))
}

/// How long each run takes by itself.
pub async fn latencies(times: usize, work: impl AsyncFnMut(usize)) -> Latencies {
    latencies_in_turn(times, work, async |_| {}).await.0
}

/// A runtime on this thread alone.
pub fn one_core() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Memory of this process that is in use, in MiB.
pub fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a Linux machine");
    let pages: f64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("the second number");
    // SAFETY: it only asks.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64 / 1_048_576.0
}

/// CPU time of this process so far.
pub fn process_cpu_s() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which is there.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What a child used.
pub struct Used {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_mib: f64,
}

/// Runs a program to its end, without its output. It must succeed.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it used")]
pub fn child(program: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Used {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let started = Instant::now();
    let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    // SAFETY: both are written by the call and are plain numbers.
    let (mut status, mut usage): (libc::c_int, libc::rusage) = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and nobody else waits for it.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as libc::pid_t, "{} was waited for", program.display());
    assert_eq!(status, 0, "{} succeeds", program.display());
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Used {
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
    }
}

/// The figures of a run, in the order they were taken.
pub struct Summary {
    file: PathBuf,
    figures: Map<String, Value>,
}

impl Summary {
    /// A new one, or the one that is there, so that a part of the figures can be taken anew.
    pub fn open(file: &Path, anew: bool) -> Self {
        let before = std::fs::read(file).ok().filter(|_| !anew);
        let figures = before.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Summary { file: file.to_owned(), figures }
    }

    /// Takes a figure down and prints it.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, reference: &str) {
        println!("{name:<52} {value:>12.2} {unit:<6} {reference}");
        let value = (value * 1000.0).round() / 1000.0;
        self.figures.insert(name.to_owned(), json!({"value": value, "unit": unit, "reference": reference}));
    }

    /// Writes figure name -> value, unit, reference.
    pub fn write(self) {
        let text = serde_json::to_string_pretty(&self.figures).expect("plain values");
        std::fs::write(&self.file, text + "\n").expect("the summary can be written");
        println!("written to {}", self.file.display());
    }
}
