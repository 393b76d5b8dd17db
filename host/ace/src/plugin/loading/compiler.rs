//! Plugin files made into machine code, each in a process of its own where the host says so.
//!
//! A plugin file is not trusted, and what parses and compiles it can be made to take all memory, all time or the whole stack.
//! So the host never does that itself ([`Compile::Command`]): it hands the bytes to a child, which bounds itself before it
//! looks at them ([`child`]), and gets back the code and one small JSON of facts. [`process`] starts the child, waits, and
//! says what ended it. A child that dies breaks that plugin alone, with the limit or the signal as the reason.
//!
//! What was refused is remembered by its content, so that the same bytes cost no second child in this process.
//!
//! Only so many children run at once. A file that takes long gives its turn up to one that waits for its first, and has it again
//! later, twice as long: a slow or hostile file holds no other up for longer than [`FIRST_TURN`], and comes to its own end still.

pub(crate) mod child;
mod process;
mod share;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::component_file::{self, Facts, Refusal};
use crate::config::{self, Compile};

/// Refused files that are remembered.
const REFUSALS_KEPT_MAX: usize = 100;

/// How long a file is compiled before another one may take its place. Most take less in all.
const FIRST_TURN: Duration = Duration::from_secs(5);

/// Makes machine code of components, for one engine.
pub(in crate::plugin) struct Compiler {
    settings: config::Compiler,
    /// Address space of one child, and the key of ace.toml that says so.
    memory: (usize, &'static str),
    turns: Mutex<Turns>,
    turned: Condvar,
    job: Job,
    /// Names the engine's settings: code for others is of no use.
    settings_hash: u64,
    refused: Mutex<VecDeque<([u8; 32], Refusal)>>,
}

/// What the engine wants, beside the bytes of the component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::plugin) struct Job {
    /// Whether the code counts instructions.
    pub is_metered: bool,
    /// What no plugin may have more of when it starts, in bytes.
    pub memory_max: usize,
}

/// Machine code, as wasmtime serializes it, and what is to be known of it.
pub(in crate::plugin) struct Machine {
    pub facts: Facts,
    pub code: Vec<u8>,
    /// What reading and compiling took, without the start of a child.
    pub took: Duration,
}

/// Who may compile now.
struct Turns {
    /// More that may be begun.
    free: usize,
    /// Files that wait for their first turn.
    waiting: usize,
    /// Children that are being ended for their sake.
    yielding: usize,
}

/// Why there is no machine code.
enum Failure {
    /// The file is at fault: it would end so again.
    Refused(Refusal),
    /// Something around it may be: no child could be started, it was killed from outside, or the machine was slow.
    Circumstance(String),
}

impl Compiler {
    pub(in crate::plugin) fn new(settings: &config::Compiler, job: Job, settings_hash: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (children, memory) = share::of(settings, processors, share::machine_memory);
        let at_once = if settings.compile == Compile::InProcess { processors } else { children };
        Compiler {
            settings: settings.clone(),
            memory,
            turns: Mutex::new(Turns { free: at_once, waiting: 0, yielding: 0 }),
            turned: Condvar::new(),
            job,
            settings_hash,
            refused: Mutex::default(),
        }
    }

    /// Reads and compiles a component. `digest` is its SHA-256. Takes long, waits for its turn too: not for an async thread.
    pub(in crate::plugin) fn compile(
        &self,
        engine: &wasmtime::Engine,
        wasm: &[u8],
        digest: &[u8; 32],
    ) -> Result<Machine, Refusal> {
        if let Some(refusal) = self.refusal(digest) {
            return Err(refusal);
        }
        let compiled = match &self.settings.compile {
            Compile::InProcess => {
                let _turn = self.turn(true);
                let begun = Instant::now();
                let compiled = component_file::compile(engine, wasm, self.job.memory_max).map_err(Failure::Refused);
                compiled.map(|(facts, code)| Machine { facts, code, took: begun.elapsed() })
            }
            Compile::Command { program, arguments } => {
                let program = process::Program { path: program, arguments };
                self.in_turns(|is_over| process::compile(self, program, wasm, is_over))
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

    /// Compiles in one turn, or in as many as it takes, each twice as long as the one before: so no more than about half of the
    /// work is done in vain. `compile` asks whether its turn is over, and has nothing then.
    fn in_turns(
        &self,
        mut compile: impl FnMut(&dyn Fn() -> bool) -> Result<Option<Machine>, Failure>,
    ) -> Result<Machine, Failure> {
        let mut length = FIRST_TURN;
        loop {
            let turn = self.turn(length == FIRST_TURN);
            if let Some(machine) = compile(&|| turn.is_over(length))? {
                return Ok(machine);
            }
            length = length.saturating_mul(2);
        }
    }

    /// Waits for a turn. Who has had one already lets all others go first.
    fn turn(&self, is_first: bool) -> Turn<'_> {
        let mut turns = self.lock();
        turns.waiting += usize::from(is_first);
        let waits = |turns: &mut Turns| turns.free == 0 || (!is_first && turns.waiting > 0);
        let mut turns = self.turned.wait_while(turns, waits).unwrap_or_else(PoisonError::into_inner);
        turns.waiting -= usize::from(is_first);
        turns.free -= 1;
        self.turned.notify_all();
        Turn { compiler: self, begun: Instant::now(), yields: Cell::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
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

/// One file's turn; it ends when this is dropped.
struct Turn<'a> {
    compiler: &'a Compiler,
    begun: Instant,
    yields: Cell<bool>,
}

impl Turn<'_> {
    /// Whether it is to be given up, after `length`, to a file that no other turn is given up to.
    fn is_over(&self, length: Duration) -> bool {
        if !self.yields.get() && self.begun.elapsed() >= length {
            let mut turns = self.compiler.lock();
            let is_wanted = turns.waiting > turns.free + turns.yielding;
            turns.yielding += usize::from(is_wanted);
            self.yields.set(is_wanted);
        }
        self.yields.get()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.compiler.lock();
        turns.free += 1;
        turns.yielding -= usize::from(self.yields.get());
        self.compiler.turned.notify_all();
    }
}
