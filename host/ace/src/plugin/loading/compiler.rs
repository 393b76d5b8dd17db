//! Compiles components to machine code, each in a process of its own unless the application chooses otherwise.
//!
//! Plugin files are not trusted: parsing and compiling a crafted one can use up all memory, time or stack. So the host passes the
//! bytes to a child process ([`Compile::Command`]), which limits its own resources before it reads them ([`child`]), and returns the
//! code and a small JSON document. [`process`] starts the child, waits for it, and explains how it ended. If a child dies, only its
//! plugin is broken, with the limit or the signal as the reason.
//!
//! Rejected components are remembered by their content, so that the same bytes are not compiled again in this process.
//!
//! The number of children at a time is limited. A slow component is preempted when another one waits for its first time slice, and
//! starts again later with a slice twice as long. So a slow or hostile file delays others by at most [`FIRST_SLICE`], and still
//! completes.

pub(crate) mod child;
mod process;
mod share;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::component_file::{self, CompileError, ComponentInfo};
use crate::config::{self, Compile};

/// Rejected components that are remembered.
const REFUSALS_KEPT_MAX: usize = 100;

/// How long a component is compiled before another one may preempt it. Most need less in total.
const FIRST_SLICE: Duration = Duration::from_secs(5);

/// Compiles components for one engine.
pub(in crate::plugin) struct Compiler {
    settings: config::Compiler,
    /// The address space of one child, and the key of ace.toml that sets it.
    memory: (usize, &'static str),
    slots: Mutex<Slots>,
    slot_changed: Condvar,
    job: Job,
    /// Identifies the engine's settings. Code for other settings is rejected.
    settings_hash: u64,
    refused: Mutex<VecDeque<([u8; 32], CompileError)>>,
}

/// What the engine needs of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::plugin) struct Job {
    /// Whether the code counts instructions.
    pub is_metered: bool,
    /// The largest initial memory of a plugin, in bytes.
    pub memory_max: usize,
}

/// MachineCode code, as wasmtime serializes it, and what is to be known of it.
pub(in crate::plugin) struct MachineCode {
    pub info: ComponentInfo,
    pub code: Vec<u8>,
    /// The time for reading and compiling, without the start of a child.
    pub took: Duration,
}

/// Which components may be compiled now.
struct Slots {
    /// Free slots.
    free: usize,
    /// Components that wait for their first slice.
    waiting: usize,
    /// Children that are being stopped to make room for those.
    yielding: usize,
}

/// Why there is no machine code.
enum Failure {
    /// The component is at fault: compiling it again would fail in the same way.
    Refused(CompileError),
    /// The environment may be at fault: no child could be started, it was killed from outside, or the machine was slow.
    Environment(String),
}

impl Compiler {
    pub(in crate::plugin) fn new(settings: &config::Compiler, job: Job, settings_hash: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (children, memory) = share::of(settings, processors, share::machine_memory);
        let at_once = if settings.compile == Compile::InProcess { processors } else { children };
        Compiler {
            settings: settings.clone(),
            memory,
            slots: Mutex::new(Slots { free: at_once, waiting: 0, yielding: 0 }),
            slot_changed: Condvar::new(),
            job,
            settings_hash,
            refused: Mutex::default(),
        }
    }

    /// Parses and compiles a component. `digest` is its SHA-256. Slow, and waits for a free slot: do not call it on an async thread.
    pub(in crate::plugin) fn compile(
        &self,
        engine: &wasmtime::Engine,
        wasm: &[u8],
        digest: &[u8; 32],
    ) -> Result<MachineCode, CompileError> {
        if let Some(error) = self.remembered_error(digest) {
            return Err(error);
        }
        let compiled = match &self.settings.compile {
            Compile::InProcess => {
                let _slice = self.slice(true);
                let started = Instant::now();
                let compiled = component_file::compile(engine, wasm, self.job.memory_max).map_err(Failure::Refused);
                compiled.map(|(info, code)| MachineCode { info, code, took: started.elapsed() })
            }
            Compile::Command { program, arguments } => {
                let program = process::Program { path: program, arguments };
                self.in_slices(|is_over| process::compile(self, program, wasm, is_over))
            }
        };
        compiled.map_err(|failure| match failure {
            Failure::Environment(reason) => CompileError { reason, ..CompileError::default() },
            Failure::Refused(error) => {
                self.remember(*digest, error.clone());
                error
            }
        })
    }

    /// Compiles in as many time slices as are needed, each twice as long as the previous one, so that at most about half of the
    /// work is wasted. `compile` checks whether its slice is over, and returns `None` then.
    fn in_slices(
        &self,
        mut compile: impl FnMut(&dyn Fn() -> bool) -> Result<Option<MachineCode>, Failure>,
    ) -> Result<MachineCode, Failure> {
        let mut length = FIRST_SLICE;
        loop {
            let slice = self.slice(length == FIRST_SLICE);
            if let Some(machine) = compile(&|| slice.is_over(length))? {
                return Ok(machine);
            }
            length = length.saturating_mul(2);
        }
    }

    /// Waits for a free slot. Components that wait for their first slice go first.
    fn slice(&self, is_first: bool) -> TimeSlice<'_> {
        let mut slots = self.lock();
        slots.waiting += usize::from(is_first);
        let waits = |slots: &mut Slots| slots.free == 0 || (!is_first && slots.waiting > 0);
        let mut slots = self.slot_changed.wait_while(slots, waits).unwrap_or_else(PoisonError::into_inner);
        slots.waiting -= usize::from(is_first);
        slots.free -= 1;
        self.slot_changed.notify_all();
        TimeSlice { compiler: self, started: Instant::now(), yields: Cell::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered_error(&self, digest: &[u8; 32]) -> Option<CompileError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().find(|(known, _)| known == digest).map(|(_, error)| error.clone())
    }

    fn remember(&self, digest: [u8; 32], error: CompileError) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() == REFUSALS_KEPT_MAX {
            refused.pop_front();
        }
        refused.push_back((digest, error));
    }
}

/// The time slice of one component. It ends when this is dropped.
struct TimeSlice<'a> {
    compiler: &'a Compiler,
    started: Instant,
    yields: Cell<bool>,
}

impl TimeSlice<'_> {
    /// Whether the slice ends now: it has lasted `length`, and more components wait than other slices make room for.
    fn is_over(&self, length: Duration) -> bool {
        if !self.yields.get() && self.started.elapsed() >= length {
            let mut slots = self.compiler.lock();
            let is_enabled = slots.waiting > slots.free + slots.yielding;
            slots.yielding += usize::from(is_enabled);
            self.yields.set(is_enabled);
        }
        self.yields.get()
    }
}

impl Drop for TimeSlice<'_> {
    fn drop(&mut self) {
        let mut slots = self.compiler.lock();
        slots.free += 1;
        slots.yielding -= usize::from(self.yields.get());
        self.compiler.slot_changed.notify_all();
    }
}
