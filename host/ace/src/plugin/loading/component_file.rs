//! Reads, parses and compiles a component file. Nothing else may do so: a crafted file can use up all memory, time or stack, so the
//! `ace` program does it in a process of its own ([`compiler`](super::compiler)). What the host needs to know about the component
//! besides its code ([`ComponentInfo`]) is determined here once and stored with the code.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, ProducersSectionReader};
use wasmtime::component::Component;

use super::inspection::Metadata;
use crate::message::text;
use crate::plugin::runtime::errors;

/// The largest component.
const COMPONENT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The longest text of metadata.
const TEXT_BYTES_MAX: usize = 500;
/// The most producers of one kind: a component may have a module for each of its libraries.
const ENTRIES_MAX: usize = 50;
/// The most imports or exports of a component. A guest that imports all of WASI 0.2 has about 40.
const NAMES_MAX: usize = 300;
/// The longest name of an import or export.
const NAME_BYTES_MAX: usize = 500;
/// A page of memory is 64 KiB.
const PAGE_BITS: u32 = 16;

/// The version of the stored form of [`ComponentInfo`]; components with another one are compiled again.
pub(in crate::plugin) const INFO_VERSION: u32 = 1;

/// Information about a component. Always less than 1 MiB as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::plugin) struct ComponentInfo {
    /// The names of its imports.
    pub imports: Vec<String>,
    /// The names of its exports.
    pub exports: Vec<String>,
    /// The largest initial memory of its modules in bytes; 0 if none has a memory.
    pub starting_memory: u64,
    pub metadata: Metadata,
}

/// Why a component could not be compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plugin) struct CompileError {
    pub reason: String,
    /// What could be read nevertheless.
    pub info: Box<ComponentInfo>,
    /// Whether memory was exhausted.
    pub is_out_of_memory: bool,
}

/// Parses and compiles a component to code for [`Component::deserialize`]. A component whose initial memory is larger than
/// `memory_max` bytes is rejected before the slow part.
pub(in crate::plugin) fn compile(
    engine: &wasmtime::Engine,
    wasm: &[u8],
    memory_max: usize,
) -> Result<(ComponentInfo, Vec<u8>), CompileError> {
    let (info, longest_name) = parse(wasm);
    let fail = |reason, is_out_of_memory| CompileError { reason, is_out_of_memory, info: Box::new(info.clone()) };
    check_memory(info.starting_memory, memory_max, "limits.memory in ace.toml")
        .map_err(|reason| fail(reason, false))?;
    if longest_name > errors::FUNCTION_NAME_BYTES_MAX {
        return Err(fail(long_function_name(longest_name), false));
    }
    let compile_error =
        |e: wasmtime::Error| fail(format!("it does not compile: {}", errors::describe(&e)), is_out_of_memory(&e));
    let code = engine.precompile_component(wasm).map_err(compile_error)?;
    // SAFETY: this engine has just made the code.
    let component = unsafe { Component::deserialize(engine, &code) }.map_err(compile_error)?;
    let (imports, exports) = names(&component).map_err(|reason| fail(reason, false))?;
    Ok((ComponentInfo { imports, exports, ..info }, code))
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<wasmtime::error::OutOfMemory>()
            || cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
            || cause.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::OutOfMemory)
    })
}

/// A backtrace copies the names of its functions, however long they are.
fn long_function_name(bytes: usize) -> String {
    let max = errors::FUNCTION_NAME_BYTES_MAX;
    format!(
        "the name of one of its functions has {bytes} bytes, more than {max}: remove the names with `wasm-tools strip --all`"
    )
}

/// Parses the component as far as it is valid. Returns its memory and metadata, and the length of the longest function name;
/// imports and exports are known only after compiling.
fn parse(wasm: &[u8]) -> (ComponentInfo, usize) {
    let (mut info, mut longest_name) = (ComponentInfo::default(), 0);
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(memories) => {
                for memory in memories.into_iter().flatten() {
                    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_BITS)).unwrap_or(u64::MAX);
                    info.starting_memory = info.starting_memory.max(memory.initial.saturating_mul(page));
                }
            }
            Payload::CustomSection(section) => {
                let name = section.name();
                if let KnownCustom::Producers(producers) = section.as_known() {
                    info.metadata.add_producers(producers);
                } else if let KnownCustom::Name(names) = section.as_known() {
                    longest_name = longest_name.max(longest(names));
                } else if depth == 0
                    && Metadata::FIELDS.contains(&name)
                    && let Ok(text) = std::str::from_utf8(section.data())
                {
                    info.metadata.fields.insert(name.to_owned(), sanitize(text));
                }
            }
            _ => {}
        }
    }
    (info, longest_name)
}

/// The length of the longest function name.
fn longest(names: NameSectionReader<'_>) -> usize {
    let functions = names.map_while(Result::ok).filter_map(|subsection| match subsection {
        Name::Function(functions) => Some(functions),
        _ => None,
    });
    let lengths = functions.flat_map(|map| map.into_iter().map_while(Result::ok).map(|naming| naming.name.len()));
    lengths.max().unwrap_or(0)
}

impl Metadata {
    fn add_producers(&mut self, section: ProducersSectionReader<'_>) {
        for field in section.into_iter().flatten() {
            // The parser accepts only three names.
            let entries = self.producers.entry(sanitize(field.name)).or_default();
            for value in field.values.into_iter().flatten() {
                let entry = sanitize(format!("{} {}", value.name, value.version).trim());
                if entries.len() < ENTRIES_MAX && !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
    }
}

/// The names of a component's imports and exports.
fn names(component: &Component) -> Result<(Vec<String>, Vec<String>), String> {
    let (kind, engine) = (component.component_type(), component.engine());
    let bounded = |what: &str, names: &mut dyn Iterator<Item = &str>| {
        let kept: Vec<String> = names.take(NAMES_MAX + 1).map(str::to_owned).collect();
        match kept.iter().find(|name| name.len() > NAME_BYTES_MAX) {
            _ if kept.len() > NAMES_MAX => Err(format!("it has more than {NAMES_MAX} {what}s")),
            Some(name) => Err(format!("the name of an {what} has {} bytes, more than {NAME_BYTES_MAX}", name.len())),
            None => Ok(kept),
        }
    };
    let imports = bounded("import", &mut kind.imports(engine).map(|(name, _)| name))?;
    let exports = bounded("export", &mut kind.exports(engine).map(|(name, _)| name))?;
    Ok((imports, exports))
}

/// A text from the file as one bounded line.
fn sanitize(text: &str) -> String {
    text::one_line(text, TEXT_BYTES_MAX)
}

/// Checks that a component's initial memory is within a limit. The error says which setting (`key`) to raise.
pub(in crate::plugin) fn check_memory(initial_bytes: u64, limit: usize, key: &str) -> Result<(), String> {
    if initial_bytes <= limit as u64 {
        return Ok(());
    }
    let enough = initial_bytes.div_ceil(1 << 20);
    Err(format!(
        "its initial memory is {initial_bytes} bytes, more than the {limit} of {key}: raise that to at least \"{enough}MiB\""
    ))
}

/// Reads a regular file of at most `max` bytes. Other files, such as a pipe, could block the reader forever.
pub(super) fn read_bounded(file: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    File::open(file)?.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(content)
}

/// Reads a component file.
pub(in crate::plugin) fn read_component(file: &Path) -> Result<Vec<u8>, String> {
    let wasm = read_bounded(file, COMPONENT_BYTES_MAX).map_err(|io| format!("the file cannot be read: {io}"))?;
    match (wasm.get(..4), wasm.get(4..8)) {
        (Some(b"\0asm"), Some([0x0d, 0, 1, 0])) => Ok(wasm),
        (Some(b"\0asm"), Some([1, 0, 0, 0])) => {
            Err("it is a core WebAssembly module, not a component: link it with wasm-component-ld, or run `wasm-tools component new`".to_owned())
        }
        _ => Err("it is not a WebAssembly component".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A custom section, its name and its content.
    fn section(name: &str, content: &[u8]) -> Vec<u8> {
        let mut body = vec![name.len() as u8];
        body.extend(name.as_bytes());
        body.extend(content);
        [vec![0, body.len() as u8], body].concat()
    }

    fn component(sections: &[Vec<u8>]) -> Vec<u8> {
        [b"\0asm\x0d\0\x01\0".to_vec(), sections.concat()].concat()
    }

    #[test]
    fn the_largest_memory_of_all_nested_modules_counts() {
        let read = |text: &str| parse(&wat::parse_str(text).expect("WAT")).0.starting_memory;
        assert_eq!(read("(component)"), 0);
        assert_eq!(read("(component (core module (memory 3)) (component (core module (memory 17 20))))"), 17 << 16);
        assert_eq!(parse(b"not wasm"), (ComponentInfo::default(), 0));
    }

    #[test]
    fn fields_and_producers_are_read_without_control_characters() {
        let metadata = parse(&component(&[
            section("licenses", b"Apache-2.0"),
            section("source", b"https://example.com/\x1b[2J"),
            section("else", b"nothing"),
            section("producers", b"\x01\x08language\x01\x04Rust\x042024"),
        ]))
        .0
        .metadata;
        assert_eq!(metadata.fields["licenses"], "Apache-2.0");
        assert_eq!(metadata.fields["source"], "https://example.com/ [2J");
        assert_eq!(metadata.fields.len(), 2);
        assert_eq!(metadata.producers["language"], ["Rust 2024"]);
    }

    #[test]
    fn metadata_is_bounded() {
        let producer = |n: usize| section("producers", format!("\x01\x03sdk\x01\x04v{n:03}\x01b").as_bytes());
        let sections: Vec<Vec<u8>> = (0..90).map(producer).collect();
        assert_eq!(parse(&component(&sections)).0.metadata.producers["sdk"].len(), ENTRIES_MAX);
    }

    #[test]
    fn imports_and_exports_are_named_and_bounded() {
        let engine = wasmtime::Engine::default();
        let read = |text: &str| compile(&engine, &wat::parse_str(text).expect("WAT"), 1 << 20);
        let (info, code) =
            read("(component (import \"a:b/c\" (instance $c)) (export \"d\" (instance $c)))").expect("small");
        assert_eq!((info.imports, info.exports), (vec!["a:b/c".to_owned()], vec!["d".to_owned()]));
        assert!(!code.is_empty());
        let many: String = (0..=NAMES_MAX).map(|n| format!("(import \"i{n}\" (func))")).collect();
        let error = read(&format!("(component {many})")).expect_err("many");
        assert_eq!(error.reason, "it has more than 300 imports");
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let error = read(&format!("(component (import \"{long}\" (func)))")).expect_err("long");
        assert_eq!(error.reason, "the name of an import has 501 bytes, more than 500");
    }

    #[test]
    fn components_with_too_much_memory_are_not_compiled_but_have_metadata() {
        let wasm = wat::parse_str("(component (core module (memory 17)))").expect("WAT");
        let wasm = [wasm, section("licenses", b"MIT")].concat();
        let error = compile(&wasmtime::Engine::default(), &wasm, 1 << 20).expect_err("17 pages are more than 1 MiB");
        assert!(error.reason.starts_with("its initial memory is 1114112 bytes"), "{}", error.reason);
        assert_eq!(error.info.metadata.fields["licenses"], "MIT");
    }
}
