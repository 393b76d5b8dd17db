//! The instruments: CPU time of a piece of work, what a child process used, and the summary.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

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

/// CPU time of this process so far.
fn process_cpu_s() -> f64 {
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
#[derive(Default)]
pub struct Summary(Vec<(String, Value)>);

impl Summary {
    /// Takes a figure down and prints it.
    pub fn add(&mut self, name: &str, value: f64, unit: &str, reference: &str) {
        println!("{name:<52} {value:>12.2} {unit:<6} {reference}");
        let value = (value * 1000.0).round() / 1000.0;
        self.0.push((name.to_owned(), json!({"value": value, "unit": unit, "reference": reference})));
    }

    /// Writes figure name -> value, unit, reference.
    pub fn write(self, file: &Path) {
        let all: serde_json::Map<String, Value> = self.0.into_iter().collect();
        let text = serde_json::to_string_pretty(&all).expect("plain values");
        std::fs::write(file, text + "\n").expect("the summary can be written");
        println!("written to {}", file.display());
    }
}
