//! How plugins are compiled, and within which bounds.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::values::{self, GIB, MIB};

/// Where plugin files that are not in the cache are read and compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "what each variant says tells what its fields are")]
pub enum Compile {
    /// In this process: quick and simple, for plugin files that come from a trusted source alone. A crafted file can make the
    /// compiler overflow its stack, which aborts the process, or take all memory; no bound of [`Compiler`] holds here.
    #[default]
    InProcess,
    /// In a process of its own for each file, within the bounds of [`Compiler`]: what it does to that process breaks that
    /// plugin alone. The program is started with these arguments and one more, an empty environment, and nothing open but
    /// its standard streams. It must be of this very version and call `ace::compile_child` first in its `main`, as the `ace`
    /// program does; `/proc/self/exe` names the program that is running.
    Command { program: PathBuf, arguments: Vec<OsString> },
}

/// How plugin files are compiled. The bounds hold for [`Compile::Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// No key of ace.toml: the program or the application decides.
    pub compile: Compile,
    /// Address space of one compiler process, in bytes; it uses about half of what it reserves. 1.5 GiB.
    pub memory: usize,
    /// Address space of all compiler processes together, in bytes. `None`: half of what this process may use.
    pub total_memory: Option<usize>,
    /// Compiler processes at once, as far as `total_memory` allows. `None`: as many as there are processors.
    pub processes: Option<usize>,
    /// Processor time for one file, all threads together; whole seconds, rounded up. 60 s.
    pub cpu_time: Duration,
    /// Wall time for one file. 5 minutes.
    pub timeout: Duration,
    /// The longest machine code of one file, in bytes. 256 MiB.
    pub code_bytes: usize,
}

impl Default for Compiler {
    fn default() -> Self {
        Compiler {
            compile: Compile::default(),
            memory: 1536 * MIB,
            total_memory: None,
            processes: None,
            cpu_time: Duration::from_secs(60),
            timeout: Duration::from_secs(300),
            code_bytes: 256 * MIB,
        }
    }
}

/// With less than the least not even an empty component is compiled.
const MEMORY: RangeInclusive<usize> = 128 * MIB..=64 * GIB;
const PROCESSES_MAX: usize = 64;
/// The kernel counts processor time in whole seconds.
const TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const CODE_BYTES: RangeInclusive<usize> = MIB..=2 * GIB;

pub(super) fn compiler(s: &mut Section<'_>) -> Compiler {
    let default = Compiler::default();
    Compiler {
        compile: default.compile,
        memory: s.get("memory", values::size(MEMORY)).unwrap_or(default.memory),
        total_memory: s.get("total-memory", values::size(MEMORY)),
        processes: s.get("processes", values::integer(1..=PROCESSES_MAX)),
        cpu_time: s.get("cpu-time", values::duration(TIME)).unwrap_or(default.cpu_time),
        timeout: s.get("timeout", values::duration(TIME)).unwrap_or(default.timeout),
        code_bytes: s.get("code-bytes", values::size(CODE_BYTES)).unwrap_or(default.code_bytes),
    }
}
