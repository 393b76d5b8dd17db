//! The only place where a plugin file is parsed and compiled. Whoever made the file can make that take all memory, all time
//! or the whole stack, so the `ace` program does it in a process of its own ([`compiler`](super::compiler)). What a host
//! needs to know of the file besides its code is found out here once, as [`Facts`], and kept beside the code.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, ProducersSectionReader};
use wasmtime::component::Component;

use super::inspection::Metadata;
use crate::message::text;
use crate::plugin::runtime::errors;

/// The largest component that is read.
const COMPONENT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Bytes of one piece of metadata that are kept.
const TEXT_BYTES_MAX: usize = 500;
/// Entries of one kind that are kept: a component may have a module for each of its libraries.
const ENTRIES_MAX: usize = 50;
/// Imports or exports of one component. A guest that imports all of WASI 0.2 has about 40.
const NAMES_MAX: usize = 300;
/// Bytes of the name of an import or export.
const NAME_BYTES_MAX: usize = 500;
/// A page of memory is 64 KiB.
const PAGE_BITS: u32 = 16;

/// Counts the forms of [`Facts`]: what was kept in another form is found out anew.
pub(in crate::plugin) const FACTS_VERSION: u32 = 1;

/// What a component says of itself. Less than 1 MiB as JSON, whatever the component is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::plugin) struct Facts {
    /// The names of what it imports.
    pub imports: Vec<String>,
    /// The names of what it exports.
    pub exports: Vec<String>,
    /// Bytes of the largest memory that one of its modules starts with; 0 where none has one.
    pub starting_memory: u64,
    pub metadata: Metadata,
}

/// Why there is no code of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plugin) struct Refusal {
    pub reason: String,
    /// What could be read all the same.
    pub facts: Box<Facts>,
    /// Whether there was not enough memory for it.
    pub lacks_memory: bool,
}

/// Reads a component and compiles it to what [`Component::deserialize`] takes. One that starts with more than `memory_max`
/// bytes is refused before the long part.
pub(in crate::plugin) fn compile(
    engine: &wasmtime::Engine,
    wasm: &[u8],
    memory_max: usize,
) -> Result<(Facts, Vec<u8>), Refusal> {
    let (facts, longest_name) = scan(wasm);
    let refuse = |reason, lacks_memory| Refusal { reason, lacks_memory, facts: Box::new(facts.clone()) };
    fits(facts.starting_memory, memory_max, "limits.memory in ace.toml").map_err(|reason| refuse(reason, false))?;
    if longest_name > errors::FUNCTION_NAME_BYTES_MAX {
        return Err(refuse(function_name_is_long(longest_name), false));
    }
    let unfit =
        |e: wasmtime::Error| refuse(format!("it does not compile: {}", errors::describe(&e)), is_out_of_memory(&e));
    let code = engine.precompile_component(wasm).map_err(unfit)?;
    // SAFETY: this engine has just made the code.
    let component = unsafe { Component::deserialize(engine, &code) }.map_err(unfit)?;
    let (imports, exports) = names(&component).map_err(|reason| refuse(reason, false))?;
    Ok((Facts { imports, exports, ..facts }, code))
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<wasmtime::error::OutOfMemory>()
            || cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
            || cause.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::OutOfMemory)
    })
}

/// A stack copies the names of its functions, each as long as it is.
fn function_name_is_long(bytes: usize) -> String {
    let max = errors::FUNCTION_NAME_BYTES_MAX;
    format!(
        "the name of one of its functions has {bytes} bytes, more than {max}: take the names out (`wasm-tools strip --all`)"
    )
}

/// What is written in the bytes, as far as they are sound, and the length of the longest name of a function; imports and exports
/// are found when it is compiled.
fn scan(wasm: &[u8]) -> (Facts, usize) {
    let (mut facts, mut longest_name) = (Facts::default(), 0);
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(memories) => {
                for memory in memories.into_iter().flatten() {
                    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_BITS)).unwrap_or(u64::MAX);
                    facts.starting_memory = facts.starting_memory.max(memory.initial.saturating_mul(page));
                }
            }
            Payload::CustomSection(section) => {
                let name = section.name();
                if let KnownCustom::Producers(producers) = section.as_known() {
                    facts.metadata.add_producers(producers);
                } else if let KnownCustom::Name(names) = section.as_known() {
                    longest_name = longest_name.max(longest(names));
                } else if depth == 0
                    && Metadata::FIELDS.contains(&name)
                    && let Ok(text) = std::str::from_utf8(section.data())
                {
                    facts.metadata.fields.insert(name.to_owned(), shown(text));
                }
            }
            _ => {}
        }
    }
    (facts, longest_name)
}

/// Bytes of the longest name of a function.
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
            // The parser knows three names, and takes no other.
            let entries = self.producers.entry(shown(field.name)).or_default();
            for value in field.values.into_iter().flatten() {
                let entry = shown(format!("{} {}", value.name, value.version).trim());
                if entries.len() < ENTRIES_MAX && !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
    }
}

/// The names of what a component imports and exports.
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

/// One line, not long: whoever made the file chose the text.
fn shown(text: &str) -> String {
    text::one_line(text, TEXT_BYTES_MAX)
}

/// Whether a component can start within a limit, and which one to raise where it cannot.
pub(in crate::plugin) fn fits(starts_with: u64, limit: usize, key: &str) -> Result<(), String> {
    if starts_with <= limit as u64 {
        return Ok(());
    }
    let enough = starts_with.div_ceil(1 << 20);
    Err(format!(
        "it starts with {starts_with} bytes of memory, more than the {limit} of {key}: raise that to \"{enough}MiB\" at least"
    ))
}

/// A regular file of at most `max` bytes. Anything else (a pipe, say) could keep the reader waiting for ever.
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

/// The bytes of a component.
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
    fn the_largest_memory_counts_wherever_its_module_stands() {
        let read = |text: &str| scan(&wat::parse_str(text).expect("WAT")).0.starting_memory;
        assert_eq!(read("(component)"), 0);
        assert_eq!(read("(component (core module (memory 3)) (component (core module (memory 17 20))))"), 17 << 16);
        assert_eq!(scan(b"not wasm"), (Facts::default(), 0));
    }

    #[test]
    fn fields_and_producers_are_read_and_control_characters_are_not_shown() {
        let metadata = scan(&component(&[
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
    fn metadata_is_small_however_much_there_is() {
        let producer = |n: usize| section("producers", format!("\x01\x03sdk\x01\x04v{n:03}\x01b").as_bytes());
        let sections: Vec<Vec<u8>> = (0..90).map(producer).collect();
        assert_eq!(scan(&component(&sections)).0.metadata.producers["sdk"].len(), ENTRIES_MAX);
    }

    #[test]
    fn imports_and_exports_are_named_and_bounded() {
        let engine = wasmtime::Engine::default();
        let read = |text: &str| compile(&engine, &wat::parse_str(text).expect("WAT"), 1 << 20);
        let (facts, code) =
            read("(component (import \"a:b/c\" (instance $c)) (export \"d\" (instance $c)))").expect("small");
        assert_eq!((facts.imports, facts.exports), (vec!["a:b/c".to_owned()], vec!["d".to_owned()]));
        assert!(!code.is_empty());
        let many: String = (0..=NAMES_MAX).map(|n| format!("(import \"i{n}\" (func))")).collect();
        let refused = read(&format!("(component {many})")).expect_err("many");
        assert_eq!(refused.reason, "it has more than 300 imports");
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let refused = read(&format!("(component (import \"{long}\" (func)))")).expect_err("long");
        assert_eq!(refused.reason, "the name of an import has 501 bytes, more than 500");
    }

    #[test]
    fn what_starts_with_too_much_memory_is_not_compiled_and_its_metadata_is_known() {
        let wasm = wat::parse_str("(component (core module (memory 17)))").expect("WAT");
        let wasm = [wasm, section("licenses", b"MIT")].concat();
        let refused = compile(&wasmtime::Engine::default(), &wasm, 1 << 20).expect_err("17 pages are more than 1 MiB");
        assert!(refused.reason.starts_with("it starts with 1114112 bytes of memory"), "{}", refused.reason);
        assert_eq!(refused.facts.metadata.fields["licenses"], "MIT");
    }
}
