//! Starts a child process, waits for it within its time limit, and explains how it ended.

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
use super::{Compiler, Failure, MachineCode};
use crate::config::{show_duration, show_size};
use crate::plugin::loading::component_file::CompileError;

/// The most bytes of a child's standard error.
const STDERR_BYTES_MAX: usize = 2_000;
/// How long a child may take to exit after it closed its standard error.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Signals that tell which limit was reached.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// How often the end of a child's time slice is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The program that compiles, and its own arguments.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [OsString],
}

/// Compiles a component in a child process. `None`: its time slice ended before.
pub(super) fn compile(
    compiler: &Compiler,
    program: Program<'_>,
    wasm: &[u8],
    is_over: &dyn Fn() -> bool,
) -> Result<Option<MachineCode>, Failure> {
    let environment = |what: &'static str| move |error: io::Error| Failure::Environment(format!("{what}: {error}"));
    let input = memory_file("ace-plugin").and_then(|mut file| {
        file.write_all(wasm)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    });
    let input = input.map_err(environment("it cannot be passed to its compiler"))?;
    let output = memory_file("ace-plugin-code").map_err(environment("there is no memory for its code"))?;
    let streams = output.try_clone().map(|output| (Stdio::from(input), Stdio::from(output)));
    let (stdin, stdout) = streams.map_err(environment("there is no memory for its code"))?;
    let mut command = Command::new(program.path);
    command.args(program.arguments).arg(child::argument(&compiler.task())).env_clear();
    // In its own process group, so that only the host gets an interrupt from the terminal; it then ends its children.
    command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn();
    let child = child.map_err(|error| {
        Failure::Environment(format!("its compiler {} cannot be started: {error}", program.path.display()))
    })?;
    drop(command);
    let end =
        End::of(child, compiler.settings.timeout, is_over).map_err(environment("its compiler cannot be waited for"))?;
    match end {
        End::Exited(status, _) if status.success() => read(compiler, &output).map(Some),
        End::Preempted => Ok(None),
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

    fn is_out_of_memory(&self) -> String {
        let (bytes, key) = self.memory;
        format!("reading and compiling it takes more than {} of memory ({key})", show_size(bytes))
    }

    fn too_much_code(&self) -> String {
        format!("its machine code is longer than {} (compiler.code-bytes)", show_size(self.settings.code_bytes))
    }
}

/// A file in memory, which ends with its last descriptor.
fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// Reads the answer of a child that succeeded.
fn read(compiler: &Compiler, output: &File) -> Result<MachineCode, Failure> {
    let (answer, code) = read_answer(output, compiler.settings.code_bytes)
        .map_err(|error| Failure::Environment(format!("its compiler gave no valid answer: {error}")))?;
    if answer.settings_hash != compiler.settings_hash {
        let reason = "its compiler is another version of this program, or was built with other settings";
        return Err(Failure::Environment(reason.to_owned()));
    }
    let rejected =
        |reason, info| Failure::Refused(CompileError { reason, info: Box::new(info), is_out_of_memory: false });
    match answer.verdict {
        Verdict::Compiled => Ok(MachineCode { info: answer.info, code, took: answer.took }),
        Verdict::Refused(reason) => Err(rejected(reason, answer.info)),
        Verdict::LacksMemory => Err(rejected(compiler.is_out_of_memory(), answer.info)),
        Verdict::TooMuchCode => Err(rejected(compiler.too_much_code(), answer.info)),
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
    /// With this status and these last message.
    Exited(ExitStatus, String),
    /// It was killed because its time was up.
    TimedOut,
    /// It was killed because its time slice was over.
    Preempted,
}

impl End {
    /// Waits for a child. Kills it after `timeout`, or when its time slice is over.
    fn of(mut child: Child, timeout: Duration, is_over: &dyn Fn() -> bool) -> io::Result<End> {
        let end = Instant::now() + timeout;
        let message = read_stderr(&mut child, end, is_over);
        // A program that closes its standard error and keeps running is not our compiler.
        let last = Instant::now() + EXIT_TIMEOUT;
        while message.is_ok() {
            if let Some(status) = child.try_wait()? {
                return Ok(End::Exited(status, message.unwrap_or_default()));
            }
            if Instant::now() >= last.min(end) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill()?;
        child.wait()?;
        match message {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(End::Preempted),
            Err(error) if error.kind() != io::ErrorKind::TimedOut => Err(error),
            _ => Ok(End::TimedOut),
        }
    }

    fn failure(self, compiler: &Compiler) -> Failure {
        let settings = &compiler.settings;
        let End::Exited(status, message) = self else {
            let timeout = show_duration(settings.timeout);
            return Failure::Environment(format!(
                "reading and compiling it took longer than {timeout} (compiler.timeout)"
            ));
        };
        let reason = match status.signal() {
            Some(SIGXCPU) => {
                let most = show_duration(Duration::from_secs(compiler.cpu_seconds()));
                format!("reading and compiling it takes more than {most} of processor time (compiler.cpu-time)")
            }
            Some(SIGXFSZ) => compiler.too_much_code(),
            // Rust's runtime prints this before it aborts.
            Some(SIGABRT) if message.contains("has overflowed its stack") => {
                "it is nested too deeply: reading it overflows the compiler's stack".to_owned()
            }
            Some(SIGABRT) if message.contains("memory allocation of") => compiler.is_out_of_memory(),
            _ => format!("its compiler ended with {status}: {message}").trim_end_matches([':', ' ']).to_owned(),
        };
        match status.signal() {
            // Killed by the operator, or by a kernel that is out of memory.
            Some(SIGKILL | SIGTERM) => Failure::Environment(reason),
            _ => Failure::Refused(CompileError { reason, ..CompileError::default() }),
        }
    }
}

/// Reads a child's standard error until it is closed, truncated. The error is of the kind `TimedOut` at `end`, and `ResourceBusy`
/// when the time slice is over.
fn read_stderr(child: &mut Child, end: Instant, is_over: &dyn Fn() -> bool) -> io::Result<String> {
    let mut stderr = child.stderr.take().expect("it is a pipe");
    let (mut message, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if is_over() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let left = left.min(POLL_INTERVAL);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut ready = [PollFd::new(&stderr, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stderr.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&message).trim().to_owned()),
            read => {
                let room = STDERR_BYTES_MAX.saturating_sub(message.len()).min(read);
                message.extend(&buffer[..room]);
            }
        }
    }
}
