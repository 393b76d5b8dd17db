//! The child process: limits its own resources, reads a component from standard input, and writes its code and information to
//! standard output.
//!
//! The child does not trust the component, and the parent trusts only the format of the answer: the code, then JSON of at most
//! [`ANSWER_BYTES_MAX`], then the length of the JSON as 8 bytes, least significant first.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;

use super::Job;
use crate::plugin::imports;
use crate::plugin::loading::code;
use crate::plugin::loading::component_file::{self, CompileError, ComponentInfo};
use crate::plugin::loading::interfaces;
use crate::plugin::runtime::{engine, errors};

/// How the last argument of a child starts; the rest of it is the task as JSON.
pub(super) const ARGUMENT: &str = "--compile-plugin=";
/// The longest JSON of an answer.
pub(super) const ANSWER_BYTES_MAX: usize = 2 << 20;
/// The most file descriptors of a child: its standard streams, and a few for the standard library.
const FILES_MAX: u64 = 16;
/// The most threads that compile one component; each needs its own memory.
const THREADS_MAX: usize = 2;
/// The stack of the threads that parse and compile.
const STACK_BYTES: usize = 2 << 20;
/// The host links the code later on a stack of 2 MiB; a component that needs more than half of it fails here.
const LINKING_STACK_BYTES: usize = 1 << 20;
/// The exit code of a child that could not limit itself, or not answer.
const FAILED: u8 = 70;

/// What a child gets besides the component.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub job: Job,
    /// The process that started it. The child ends with it.
    pub parent: u32,
    pub memory: u64,
    pub cpu_seconds: u64,
    pub code_bytes: u64,
}

/// What a child answers besides the code.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The length of the code before it.
    pub code_bytes: u64,
    pub settings_hash: u64,
    pub info: ComponentInfo,
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

/// Compiles a plugin if this process was started for that, and returns its exit code. An application that uses its own program as
/// the compiler ([`Compile::Command`](crate::config::Compile::Command)) must call this first in its `main`, before it starts a
/// thread, reads its arguments or opens a file.
///
/// ```no_run
/// if let Some(code) = ace::compile_child() {
///     std::process::exit(code.into());
/// }
/// ```
pub fn compile_child() -> Option<u8> {
    let last = std::env::args_os().next_back()?;
    let task = serde_json::from_str(last.to_str()?.strip_prefix(ARGUMENT)?).ok()?;
    Some(match apply_limits(&task).and_then(|()| answer(&task)) {
        Ok(()) => 0,
        // The parent reads standard error.
        Err(io) => {
            let _ = writeln!(std::io::stderr(), "{io}");
            FAILED
        }
    })
}

/// The argument that makes a program compile as a child.
pub(super) fn argument(task: &Task) -> OsString {
    let task = serde_json::to_string(task).expect("numbers and booleans");
    format!("{ARGUMENT}{task}").into()
}

/// Limits the resources of this process. A child does this first; it cannot be undone.
fn apply_limits(task: &Task) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before.
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
    // The first limit sends a signal that tells the reason, the second one kills the process.
    lower(Resource::Cpu, task.cpu_seconds, task.cpu_seconds + 1)
}

/// Sets a limit, unless a lower one is already set.
fn lower(resource: Resource, current: u64, maximum: u64) -> std::io::Result<()> {
    let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(current.min(most)), maximum: Some(maximum.min(most)) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Closes descriptors that the parent inherited and did not mark close-on-exec.
fn close_others() -> std::io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // SAFETY: this process has just started, and nothing in it owns a descriptor except the standard streams. The descriptor that
        // the list was read from is already closed; closing it again is a harmless error.
        unsafe { libc::close(descriptor) };
    }
    Ok(())
}

fn answer(task: &Task) -> std::io::Result<()> {
    let mut input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut wasm = Vec::with_capacity(input.metadata()?.len() as usize);
    input.read_to_end(&mut wasm)?;
    let started = Instant::now();
    let engine = engine::compiling(task.job.is_metered).map_err(std::io::Error::other)?;
    let settings_hash = code::settings_hash(&engine);
    let (info, code, verdict) = match compile(task.job, engine, wasm) {
        Ok((info, code)) if code.len() as u64 > task.code_bytes => (info, Vec::new(), Verdict::TooMuchCode),
        Ok((info, code)) => (info, code, Verdict::Compiled),
        Err(error) if error.is_out_of_memory => (*error.info, Vec::new(), Verdict::LacksMemory),
        Err(error) => (*error.info, Vec::new(), Verdict::Refused(errors::printable(&error.reason))),
    };
    let took = started.elapsed();
    let json = serde_json::to_vec(&Answer { code_bytes: code.len() as u64, settings_hash, info, verdict, took })?;
    // Rust's standard output would search the code for line feeds.
    let mut out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    out.write_all(&code)?;
    out.write_all(&json)?;
    out.write_all(&(json.len() as u64).to_le_bytes())
}

/// Parses, compiles and links a component, as the host will, but runs none of its code.
fn compile(job: Job, engine: wasmtime::Engine, wasm: Vec<u8>) -> Result<(ComponentInfo, Vec<u8>), CompileError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    // Starting a thread fails if there is no memory for its stack.
    rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build_global().map_err(no_thread)?;
    let compiling = engine.clone();
    let (info, code) = on_stack(STACK_BYTES, move || component_file::compile(&compiling, &wasm, job.memory_max))??;
    on_stack(LINKING_STACK_BYTES, move || {
        // SAFETY: an engine with these settings has just made the code.
        let component = unsafe { Component::deserialize(&engine, &code) };
        if let (Ok(component), Ok(linker)) = (component, imports::linker(&engine)) {
            // The host checks the result; here it only must terminate.
            let _ = interfaces::link(&linker, &component, &info.imports, &interfaces::namespaces(&info.exports));
        }
        (info, code)
    })
}

fn on_stack<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, CompileError> {
    let thread = std::thread::Builder::new().stack_size(bytes).spawn(work).map_err(no_thread)?;
    // The panic was written to standard error.
    Ok(thread.join().unwrap_or_else(|_| std::process::exit(i32::from(FAILED))))
}

fn no_thread(io: impl std::fmt::Display) -> CompileError {
    CompileError { reason: format!("no thread could be started: {io}"), info: Box::default(), is_out_of_memory: true }
}
