//! Plugin files made into machine code, each in a process of its own where the host says so.
//!
//! A plugin file is not trusted, and what parses and compiles it can be made to take all memory, all time or the whole stack.
//! So the host never does that itself ([`Compile::Command`]): it hands the bytes to a child, which bounds itself before it
//! looks at them ([`child`]), and gets back the code and one small JSON of facts. [`process`] starts the child, waits, and
//! says what ended it. A child that dies breaks that plugin alone, with the limit or the signal as the reason.
//!
//! What was refused is remembered by its content, so that the same bytes cost no second child in this process.

pub mod child;
mod process;
mod share;

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::reading::{self, Facts, Refusal};
use crate::config::{self, Compile};

/// Refused files that are remembered.
const REFUSALS_KEPT_MAX: usize = 100;

/// Makes machine code of components, for one engine.
pub(super) struct Compiler {
    settings: config::Compiler,
    /// Address space of one child, and the key of ace.toml that says so.
    memory: (usize, &'static str),
    /// Children that may be started now.
    free: Mutex<usize>,
    freed: Condvar,
    job: Job,
    /// Names the engine's settings: code for others is of no use.
    settings_hash: u64,
    refused: Mutex<VecDeque<([u8; 32], Refusal)>>,
}

/// What the engine wants, beside the bytes of the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Whether the code counts instructions.
    pub is_metered: bool,
    /// What no plugin may have more of when it starts, in bytes.
    pub memory_max: usize,
}

/// Machine code, as wasmtime serializes it, and what is to be known of it.
pub(super) struct Machine {
    pub facts: Facts,
    pub code: Vec<u8>,
    /// What reading and compiling took, without the start of a child.
    pub took: Duration,
}

/// Why there is no machine code.
enum Failure {
    /// The file is at fault: it would end so again.
    Refused(Refusal),
    /// Something around it may be: no child could be started, it was killed from outside, or the machine was slow.
    Circumstance(String),
}

impl Compiler {
    pub fn new(settings: &config::Compiler, job: Job, settings_hash: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (children, memory) = share::of(settings, processors, share::machine_memory);
        Compiler {
            settings: settings.clone(),
            memory,
            free: Mutex::new(children),
            freed: Condvar::new(),
            job,
            settings_hash,
            refused: Mutex::default(),
        }
    }

    /// Reads and compiles a component. `digest` is its SHA-256. Takes long, waits for a child's turn too: not for an async
    /// thread.
    pub fn compile(&self, engine: &wasmtime::Engine, wasm: &[u8], digest: &[u8; 32]) -> Result<Machine, Refusal> {
        if let Some(refusal) = self.refusal(digest) {
            return Err(refusal);
        }
        let compiled = match &self.settings.compile {
            Compile::InProcess => {
                let begun = Instant::now();
                let compiled = reading::compile(engine, wasm, self.job.memory_max).map_err(Failure::Refused);
                compiled.map(|(facts, code)| Machine { facts, code, took: begun.elapsed() })
            }
            Compile::Command { program, arguments } => {
                let _turn = self.turn();
                process::compile(self, program, arguments, wasm)
            }
        };
        compiled.map_err(|failure| match failure {
            Failure::Circumstance(reason) => Refusal { reason, ..Refusal::default() },
            Failure::Refused(refusal) => {
                self.remember(*digest, refusal.clone());
                refusal
            }
        })
    }

    /// Waits until a child may be started.
    fn turn(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }

    fn refusal(&self, digest: &[u8; 32]) -> Option<Refusal> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().find(|(known, _)| known == digest).map(|(_, refusal)| refusal.clone())
    }

    fn remember(&self, digest: [u8; 32], refusal: Refusal) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() == REFUSALS_KEPT_MAX {
            refused.pop_front();
        }
        refused.push_back((digest, refusal));
    }
}

/// One child's turn; it ends when this is dropped.
struct Turn<'a>(&'a Compiler);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
