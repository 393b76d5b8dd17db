//! One component read without running it: for `ace plugin check`.

use std::collections::BTreeMap;

use serde::Serialize;
use wasmparser::{KnownCustom, Parser, Payload};

use super::{Limits, Plugin};
use crate::config::Manifest;

/// Bytes of one piece of metadata that are kept.
const TEXT_BYTES_MAX: usize = 500;
/// Entries of one kind that are kept: a component may have a module for each of its libraries.
const ENTRIES_MAX: usize = 50;
/// A page of memory is 64 KiB.
const PAGE_BITS: u32 = 16;

/// What a component and its manifest say.
pub struct Inspection {
    /// As it would be loaded; it has no runtime, since none of its code ran.
    pub plugin: Plugin,
    pub manifest: Manifest,
    /// Every name it exports, those that no host asks for among them.
    pub exports: Vec<String>,
    pub metadata: Metadata,
    /// What it would run within.
    pub limits: Limits,
    /// Why this host cannot run it.
    pub misfit: Option<String>,
}

/// Where a component comes from, as the tools that made it wrote it down. Nobody vouches for any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The producers section: languages, compilers and tools, each with its version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub producers: BTreeMap<String, Vec<String>>,
    /// The component's own fields: `authors`, `description`, `homepage`, `licenses`, `revision`, `source`, `version`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// Custom sections that hold one text each (the tool conventions of the component model).
const FIELDS: [&str; 7] = ["authors", "description", "homepage", "licenses", "revision", "source", "version"];

impl Metadata {
    /// What is written in the bytes; what is malformed is left out.
    pub fn read(wasm: &[u8]) -> Metadata {
        let mut metadata = Metadata::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload {
                Err(_) => break,
                Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
                Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
                Ok(Payload::CustomSection(section)) => {
                    let name = section.name();
                    if let KnownCustom::Producers(producers) = section.as_known() {
                        metadata.add_producers(producers);
                    } else if let (0, true, Ok(text)) =
                        (depth, FIELDS.contains(&name), std::str::from_utf8(section.data()))
                    {
                        metadata.fields.insert(name.to_owned(), shown(text));
                    }
                }
                Ok(_) => {}
            }
        }
        metadata
    }

    fn add_producers(&mut self, section: wasmparser::ProducersSectionReader<'_>) {
        for field in section.into_iter().flatten() {
            let entries = self.producers.entry(shown(field.name)).or_default();
            for value in field.values.into_iter().flatten() {
                let entry = shown(format!("{} {}", value.name, value.version).trim());
                if !entries.contains(&entry) && entries.len() < ENTRIES_MAX {
                    entries.push(entry);
                }
            }
        }
    }
}

/// Bytes of the largest memory that one of its modules starts with, as far as it is sound; 0 where none has one.
pub(super) fn starting_memory(wasm: &[u8]) -> u64 {
    let mut largest = 0;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        let Payload::MemorySection(memories) = payload else { continue };
        for memory in memories.into_iter().flatten() {
            let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_BITS)).unwrap_or(u64::MAX);
            largest = largest.max(memory.initial.saturating_mul(page));
        }
    }
    largest
}

/// One line, not long: whoever made the file chose the text.
fn shown(text: &str) -> String {
    let mut text = text.replace(char::is_control, " ");
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
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

    #[test]
    fn the_largest_memory_counts_wherever_its_module_stands() {
        let read = |text: &str| starting_memory(&wat::parse_str(text).expect("WAT"));
        assert_eq!(read("(component)"), 0);
        assert_eq!(read("(component (core module (memory 3)) (component (core module (memory 17 20))))"), 17 << 16);
        assert_eq!(starting_memory(b"not wasm"), 0);
    }

    #[test]
    fn fields_and_producers_are_read_and_control_characters_are_not_shown() {
        let producers = b"\x01\x08language\x01\x04Rust\x042024";
        let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
        wasm.extend(section("licenses", b"Apache-2.0"));
        wasm.extend(section("source", b"https://example.com/\x1b[2J"));
        wasm.extend(section("else", b"nothing"));
        wasm.extend(section("producers", producers));
        let metadata = Metadata::read(&wasm);
        assert_eq!(metadata.fields["licenses"], "Apache-2.0");
        assert_eq!(metadata.fields["source"], "https://example.com/ [2J");
        assert_eq!(metadata.fields.len(), 2);
        assert_eq!(metadata.producers["language"], ["Rust 2024"]);
        assert_eq!(Metadata::read(b"not wasm"), Metadata::default());
    }
}
