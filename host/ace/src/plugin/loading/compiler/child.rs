//! The child: bounds itself, reads a component from its standard input, and writes code and facts to its standard output.
//!
//! Nothing here trusts the component, and the parent trusts nothing but the form of the answer: code, then a JSON of at most
//! [`ANSWER_BYTES_MAX`], then the length of that JSON as 8 bytes, least significant first.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;

use super::Job;
use crate::plugin::imports;
use crate::plugin::loading::component_file::{self, Facts, Refusal};
use crate::plugin::loading::interfaces;
use crate::plugin::runtime::{engine, errors};

/// The last argument of a child begins so; the rest of it is the task as JSON.
pub(super) const ARGUMENT: &str = "--compile-plugin=";
/// The longest JSON of an answer.
pub(super) const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Descriptors of a child: its standard streams, and a few for the standard library.
const FILES_MAX: u64 = 16;
/// Threads that compile one component; each needs memory of its own.
const THREADS_MAX: usize = 2;
/// The stack of whatever reads and compiles.
const STACK_BYTES: usize = 2 << 20;
/// What the host does with the code later, it does on 2 MiB: what needs more than half of that is refused here.
const LINKING_STACK_BYTES: usize = 1 << 20;
/// The child could not bound itself, or not answer.
const FAILED: u8 = 70;

/// What a child is told besides the component.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub job: Job,
    /// The process that started it, and with which it ends.
    pub parent: u32,
    pub memory: u64,
    pub cpu_seconds: u64,
    pub code_bytes: u64,
}

/// What a child says besides the code.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Of the code before it.
    pub code_bytes: u64,
    pub settings_hash: u64,
    pub facts: Facts,
    pub verdict: Verdict,
    pub took: Duration,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verdict {
    Compiled,
    Refused(String),
    LacksMemory,
    TooMuchCode,
}

/// Compiles a plugin if that is what this process was started for, and says how it is to end. An application that is its own
/// compiler ([`Compile::Command`](crate::config::Compile::Command)) calls this first in its `main`, before it starts a thread,
/// reads its arguments or opens anything.
///
/// ```no_run
/// if let Some(code) = ace::compile_child() {
///     std::process::exit(code.into());
/// }
/// ```
pub fn compile_child() -> Option<u8> {
    let last = std::env::args_os().next_back()?;
    let task = serde_json::from_str(last.to_str()?.strip_prefix(ARGUMENT)?).ok()?;
    Some(match bound(&task).and_then(|()| answer(&task)) {
        Ok(()) => 0,
        // Its standard error goes to the parent.
        Err(io) => {
            let _ = writeln!(std::io::stderr(), "{io}");
            FAILED
        }
    })
}

/// The argument that makes a child of a program.
pub(super) fn argument(task: &Task) -> OsString {
    let task = serde_json::to_string(task).expect("numbers and booleans");
    format!("{ARGUMENT}{task}").into()
}

/// The first thing a child does. Nothing of it can be taken back.
fn bound(task: &Task) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before.
    if rustix::process::getppid().map(|pid| pid.as_raw_pid()) != Some(task.parent as i32) {
        return Err(std::io::Error::other("the process that started this one has ended"));
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    close_others()?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nofile, FILES_MAX),
        (Resource::Fsize, task.code_bytes.saturating_add(ANSWER_BYTES_MAX as u64)),
        (Resource::As, task.memory),
    ] {
        lower(resource, most, most)?;
    }
    // First comes a signal that says why, a second later the end.
    lower(Resource::Cpu, task.cpu_seconds, task.cpu_seconds + 1)
}

/// Sets a limit, unless a lower one holds already.
fn lower(resource: Resource, current: u64, maximum: u64) -> std::io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(current.min(most)), maximum: Some(maximum.min(most)) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Closes what the parent was itself started with, and did not mark to be closed.
fn close_others() -> std::io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // SAFETY: nothing in this process, which has just begun, owns a descriptor but the standard streams. The one that the
        // list was read from is closed already, which is an error without consequence.
        unsafe { libc::close(descriptor) };
    }
    Ok(())
}

fn answer(task: &Task) -> std::io::Result<()> {
    let mut input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut wasm = Vec::with_capacity(input.metadata()?.len() as usize);
    input.read_to_end(&mut wasm)?;
    let begun = Instant::now();
    let engine = engine::compiling(task.job.is_metered).map_err(std::io::Error::other)?;
    let settings_hash = engine::settings_hash(&engine);
    let (facts, code, verdict) = match compile(task.job, engine, wasm) {
        Ok((facts, code)) if code.len() as u64 > task.code_bytes => (facts, Vec::new(), Verdict::TooMuchCode),
        Ok((facts, code)) => (facts, code, Verdict::Compiled),
        Err(refusal) if refusal.lacks_memory => (*refusal.facts, Vec::new(), Verdict::LacksMemory),
        Err(refusal) => (*refusal.facts, Vec::new(), Verdict::Refused(errors::printable(&refusal.reason))),
    };
    let took = begun.elapsed();
    let json = serde_json::to_vec(&Answer { code_bytes: code.len() as u64, settings_hash, facts, verdict, took })?;
    // Rust's standard output would look for line feeds in the code.
    let mut out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    out.write_all(&code)?;
    out.write_all(&json)?;
    out.write_all(&(json.len() as u64).to_le_bytes())
}

/// Reads, compiles, and tries what the host will do with the code short of running it.
fn compile(job: Job, engine: wasmtime::Engine, wasm: Vec<u8>) -> Result<(Facts, Vec<u8>), Refusal> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    // A thread that cannot be started lacks memory for its stack.
    rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build_global().map_err(no_thread)?;
    let compiling = engine.clone();
    let (facts, code) = on_stack(STACK_BYTES, move || component_file::compile(&compiling, &wasm, job.memory_max))??;
    on_stack(LINKING_STACK_BYTES, move || {
        // SAFETY: an engine with these settings has just made the code.
        let component = unsafe { Component::deserialize(&engine, &code) };
        if let (Ok(component), Ok(linker)) = (component, imports::linker(&engine)) {
            // Whether it fits is for the host to say; here it only must come to an end.
            let _ = interfaces::link(&linker, &component, &facts.imports, &interfaces::namespaces(&facts.exports));
        }
        (facts, code)
    })
}

fn on_stack<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let thread = std::thread::Builder::new().stack_size(bytes).spawn(work).map_err(no_thread)?;
    // A panic has been written to the standard error.
    Ok(thread.join().unwrap_or_else(|_| std::process::exit(i32::from(FAILED))))
}

fn no_thread(io: impl std::fmt::Display) -> Refusal {
    Refusal { reason: format!("no thread could be started: {io}"), facts: Box::default(), lacks_memory: true }
}
