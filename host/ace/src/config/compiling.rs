//! The settings of the plugin compiler.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::TableDecoder;
use super::values::{self, GIB, MIB};

/// Where plugins that are not in the cache are parsed and compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each variant describes its fields")]
#[non_exhaustive]
pub enum Compile {
    /// In this process: fast and simple, but only for plugins from a trusted source. A crafted file can make the compiler overflow
    /// its stack, which aborts the process, or use up all memory; the limits of [`Compiler`] do not apply.
    #[default]
    InProcess,
    /// In a process of its own for each file, within the limits of [`Compiler`]; if that fails, only this plugin is broken. The
    /// program is started with these arguments and one more, an empty environment, and only its standard streams. It must be the
    /// same version, and call `ace::compile_child` first in its `main`, as the `ace` program does; `/proc/self/exe` is the running
    /// program.
    Command { program: PathBuf, arguments: Vec<OsString> },
}

/// The settings of the plugin compiler. The limits apply to [`Compile::Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// Not a key of ace.toml: the program or the application decides.
    pub compile: Compile,
    /// Address space of one compiler process, in bytes; it uses about half of it. 1.5 GiB.
    pub memory: usize,
    /// Address space of all compiler processes together, in bytes. `None`: half of the memory that this process may use.
    pub total_memory: Option<usize>,
    /// Compiler processes at the same time, as far as `total_memory` allows. `None`: one per processor.
    pub processes: Option<usize>,
    /// Processor time for one file, of all threads, rounded up to seconds. 60 s.
    pub cpu_time: Duration,
    /// Elapsed time for one file. 5 minutes.
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

/// With less than the minimum, not even an empty component can be compiled.
const MEMORY: RangeInclusive<usize> = 128 * MIB..=64 * GIB;
const PROCESSES_MAX: usize = 64;
/// The kernel counts processor time in whole seconds.
const TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const CODE_BYTES: RangeInclusive<usize> = MIB..=2 * GIB;

pub(super) fn compiler(s: &mut TableDecoder<'_>) -> Compiler {
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
