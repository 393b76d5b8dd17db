//! Formats wasmtime's errors and guests' backtraces. Nothing else may format them (tests/tidy.rs): they quote names of any length
//! from the plugin file, and wasmtime's own formatting demangles them, which a crafted name can make use up all memory.

use std::fmt::Write;

use wasmtime::WasmBacktrace;

use crate::message::text::{self, TEXT_BYTES_MAX};

/// The longest error with its causes.
pub(super) const ERROR_BYTES_MAX: usize = 4_000;
/// The most frames of a backtrace, the innermost first.
pub(super) const FRAMES_MAX: usize = 20;
/// The longest name in a frame.
const NAME_BYTES_MAX: usize = 120;
/// The longest function name that a component may have: wasmtime copies one for each frame of a backtrace.
pub(in crate::plugin) const FUNCTION_NAME_BYTES_MAX: usize = 64 << 10;

/// An error with its causes, the outermost first, in one line. It does not contain the guest's backtrace.
pub(in crate::plugin) fn describe(error: &wasmtime::Error) -> String {
    // The backtrace would be one of the causes.
    if error.is::<WasmBacktrace>() {
        return root_cause(error);
    }
    let mut line = String::new();
    for cause in error.chain() {
        if line.len() >= ERROR_BYTES_MAX {
            break;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text::display(cause, ERROR_BYTES_MAX));
    }
    text::one_line(&line, ERROR_BYTES_MAX)
}

/// Only the innermost cause: why a guest's call failed.
pub(in crate::plugin) fn root_cause(error: &wasmtime::Error) -> String {
    text::display(error.root_cause(), TEXT_BYTES_MAX)
}

/// The guest's backtrace, if it was running: at most [`FRAMES_MAX`] lines with truncated names, a few kilobytes.
pub(in crate::plugin) fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let trace = error.downcast_ref::<WasmBacktrace>()?;
    let mut lines = Vec::new();
    for (at, frame) in trace.frames().iter().take(FRAMES_MAX).enumerate() {
        let mut line = format!("{at:>3}: ");
        if let Some(offset) = frame.module_offset() {
            let _ = write!(line, "{offset:#8x} - ");
        }
        let module = frame.module().name().map(name).unwrap_or_else(|| "<unknown>".to_owned());
        let function = frame.func_name().map(name).unwrap_or_else(|| format!("<wasm function {}>", frame.func_index()));
        lines.push(format!("{line}{module}!{function}"));
    }
    Some(lines.join("\n"))
}

fn name(raw: &str) -> String {
    text::one_line(raw, NAME_BYTES_MAX)
}

/// A reason that is safe to print on a terminal: it may quote anything from the plugin file.
pub(in crate::plugin) fn printable(reason: &str) -> String {
    text::lines(reason, ERROR_BYTES_MAX)
}
