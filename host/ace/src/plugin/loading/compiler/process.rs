//! Starting a child, waiting for it within its wall time, and what its end means.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Timespec};

use super::child::{self, ANSWER_BYTES_MAX, Answer, Task, Verdict};
use super::{Compiler, Failure, Machine};
use crate::config::{show_duration, show_size};
use crate::plugin::loading::component_file::Refusal;

/// Bytes of a child's standard error that are kept.
const WORDS_BYTES_MAX: usize = 2_000;
/// A child that has closed its standard error is about to end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The numbers of signals that say which limit was met.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// How often a child's turn is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The program that compiles, and its own arguments.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [OsString],
}

/// Has a child compile a component. `None`: its turn was over before.
pub(super) fn compile(
    compiler: &Compiler,
    program: Program<'_>,
    wasm: &[u8],
    is_over: &dyn Fn() -> bool,
) -> Result<Option<Machine>, Failure> {
    let circumstance = |what: &'static str| move |error: io::Error| Failure::Circumstance(format!("{what}: {error}"));
    let input = memory_file("ace-plugin").and_then(|mut file| {
        file.write_all(wasm)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    });
    let input = input.map_err(circumstance("it cannot be handed to its compiler"))?;
    let output = memory_file("ace-plugin-code").map_err(circumstance("its code has no place"))?;
    let streams = output.try_clone().map(|output| (Stdio::from(input), Stdio::from(output)));
    let (stdin, stdout) = streams.map_err(circumstance("its code has no place"))?;
    let mut command = Command::new(program.path);
    command.args(program.arguments).arg(child::argument(&compiler.task())).env_clear();
    // A group of its own: an interrupt on a terminal is for the host, which ends its children.
    command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn();
    let child = child.map_err(|error| {
        Failure::Circumstance(format!("its compiler {} cannot be started: {error}", program.path.display()))
    })?;
    drop(command);
    let end = End::of(child, compiler.settings.timeout, is_over)
        .map_err(circumstance("its compiler cannot be waited for"))?;
    match end {
        End::Exited(status, _) if status.success() => read(compiler, &output).map(Some),
        End::Yielded => Ok(None),
        end => Err(end.failure(compiler)),
    }
}

impl Compiler {
    fn task(&self) -> Task {
        Task {
            job: self.job,
            parent: std::process::id(),
            memory: self.memory.0 as u64,
            cpu_seconds: self.cpu_seconds(),
            code_bytes: self.settings.code_bytes as u64,
        }
    }

    fn cpu_seconds(&self) -> u64 {
        self.settings.cpu_time.as_millis().div_ceil(1000) as u64
    }

    fn lacks_memory(&self) -> String {
        let (bytes, key) = self.memory;
        format!("reading and compiling it takes more than {} of memory ({key})", show_size(bytes))
    }

    fn too_much_code(&self) -> String {
        format!("its machine code is longer than {} (compiler.code-bytes)", show_size(self.settings.code_bytes))
    }
}

/// A file that is in memory alone, and goes with its last descriptor.
fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// What a child that ended well has written.
fn read(compiler: &Compiler, output: &File) -> Result<Machine, Failure> {
    let (answer, code) = read_answer(output, compiler.settings.code_bytes).map_err(|error| {
        Failure::Circumstance(format!("its compiler gave no answer that can be understood: {error}"))
    })?;
    if answer.settings_hash != compiler.settings_hash {
        let reason = "its compiler is of another version than this program, or built in another way";
        return Err(Failure::Circumstance(reason.to_owned()));
    }
    let refuse = |reason, facts| Failure::Refused(Refusal { reason, facts: Box::new(facts), lacks_memory: false });
    match answer.verdict {
        Verdict::Compiled => Ok(Machine { facts: answer.facts, code, took: answer.took }),
        Verdict::Refused(reason) => Err(refuse(reason, answer.facts)),
        Verdict::LacksMemory => Err(refuse(compiler.lacks_memory(), answer.facts)),
        Verdict::TooMuchCode => Err(refuse(compiler.too_much_code(), answer.facts)),
    }
}

fn read_answer(output: &File, code_bytes_max: usize) -> io::Result<(Answer, Vec<u8>)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let length_at = output.metadata()?.len().checked_sub(8).ok_or_else(wrong)?;
    let mut length = [0; 8];
    output.read_exact_at(&mut length, length_at)?;
    let length = u64::from_le_bytes(length);
    let json_at = length_at.checked_sub(length).filter(|_| length <= ANSWER_BYTES_MAX as u64).ok_or_else(wrong)?;
    let mut json = vec![0; length as usize];
    output.read_exact_at(&mut json, json_at)?;
    let answer: Answer = serde_json::from_slice(&json)?;
    if answer.code_bytes != json_at || json_at > code_bytes_max as u64 {
        return Err(wrong());
    }
    let mut code = vec![0; json_at as usize];
    output.read_exact_at(&mut code, 0)?;
    Ok((answer, code))
}

/// How a child ended.
enum End {
    /// With this status and these last words.
    Exited(ExitStatus, String),
    /// It was ended, because its wall time was over.
    Late,
    /// It was ended, because its turn was over.
    Yielded,
}

impl End {
    /// Waits for the end of a child, and ends it after `timeout`, or when its turn is over.
    fn of(mut child: Child, timeout: Duration, is_over: &dyn Fn() -> bool) -> io::Result<End> {
        let end = Instant::now() + timeout;
        let words = listen(&mut child, end, is_over);
        // What closes its standard error and goes on is no compiler of ours.
        let last = Instant::now() + LAST_WORDS;
        while words.is_ok() {
            if let Some(status) = child.try_wait()? {
                return Ok(End::Exited(status, words.unwrap_or_default()));
            }
            if Instant::now() >= last.min(end) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill()?;
        child.wait()?;
        match words {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(End::Yielded),
            Err(error) if error.kind() != io::ErrorKind::TimedOut => Err(error),
            _ => Ok(End::Late),
        }
    }

    fn failure(self, compiler: &Compiler) -> Failure {
        let settings = &compiler.settings;
        let End::Exited(status, words) = self else {
            let timeout = show_duration(settings.timeout);
            return Failure::Circumstance(format!(
                "reading and compiling it took longer than {timeout} (compiler.timeout)"
            ));
        };
        let reason = match status.signal() {
            Some(SIGXCPU) => {
                let most = show_duration(Duration::from_secs(compiler.cpu_seconds()));
                format!("reading and compiling it takes more than {most} of processor time (compiler.cpu-time)")
            }
            Some(SIGXFSZ) => compiler.too_much_code(),
            // Rust's runtime says so before it aborts.
            Some(SIGABRT) if words.contains("has overflowed its stack") => {
                "it is nested too deeply: reading it overflows the compiler's stack".to_owned()
            }
            Some(SIGABRT) if words.contains("memory allocation of") => compiler.lacks_memory(),
            _ => format!("its compiler ended with {status}: {words}").trim_end_matches([':', ' ']).to_owned(),
        };
        match status.signal() {
            // The operator, or a kernel that is out of memory, for whatever reason.
            Some(SIGKILL | SIGTERM) => Failure::Circumstance(reason),
            _ => Failure::Refused(Refusal { reason, ..Refusal::default() }),
        }
    }
}

/// What a child says on its standard error until it closes that, cut. An error of the kind `TimedOut` where that is not before
/// `end`, and `ResourceBusy` where its turn is over.
fn listen(child: &mut Child, end: Instant, is_over: &dyn Fn() -> bool) -> io::Result<String> {
    let mut stderr = child.stderr.take().expect("it is a pipe");
    let (mut words, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if is_over() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let left = left.min(LOOK);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut ready = [PollFd::new(&stderr, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stderr.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&words).trim().to_owned()),
            read => {
                let room = WORDS_BYTES_MAX.saturating_sub(words.len()).min(read);
                words.extend(&buffer[..room]);
            }
        }
    }
}
