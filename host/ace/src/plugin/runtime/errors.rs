//! wasmtime's errors about a guest or its file, and a guest's stack, in words. The one place that formats either: they quote names
//! that somebody else chose, of any length, and wasmtime's own formatting of a stack decodes them, which a crafted name makes take
//! all memory. tests/tidy.rs sees to it.

use std::fmt::Write;

use wasmtime::WasmBacktrace;

use crate::message::text::{self, TEXT_BYTES_MAX};

/// Bytes of an error with its causes that are kept.
pub(super) const ERROR_BYTES_MAX: usize = 4_000;
/// Frames of a stack that are kept, the innermost first.
pub(super) const FRAMES_MAX: usize = 20;
/// Bytes of a name in a frame that are kept.
const NAME_BYTES_MAX: usize = 120;
/// The longest name of a function that a component may have: wasmtime copies one for each frame of a stack.
pub(in crate::plugin) const FUNCTION_NAME_BYTES_MAX: usize = 64 << 10;

/// What went wrong, with its causes, the outermost first; in one line. A guest's stack is not in it.
pub(in crate::plugin) fn describe(error: &wasmtime::Error) -> String {
    // The stack would be one of the causes.
    if error.is::<WasmBacktrace>() {
        return root_cause(error);
    }
    let mut words = String::new();
    for cause in error.chain() {
        if words.len() >= ERROR_BYTES_MAX {
            break;
        }
        if !words.is_empty() {
            words.push_str(": ");
        }
        words.push_str(&text::shown(cause, ERROR_BYTES_MAX));
    }
    text::one_line(&words, ERROR_BYTES_MAX)
}

/// The innermost cause alone: what a guest's call broke by.
pub(in crate::plugin) fn root_cause(error: &wasmtime::Error) -> String {
    text::shown(error.root_cause(), TEXT_BYTES_MAX)
}

/// The guest's stack, where it was running: at most [`FRAMES_MAX`] lines, names as they are in the file and cut. A few kilobytes at
/// most.
pub(in crate::plugin) fn stack(error: &wasmtime::Error) -> Option<String> {
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

/// A reason as it may be shown on a terminal: it quotes what stands in the files, whatever that is.
pub(in crate::plugin) fn printable(reason: &str) -> String {
    text::lines(reason, ERROR_BYTES_MAX)
}
