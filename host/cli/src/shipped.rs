//! The plugins and templates that are part of this program. `make shipped` copies them to where build.rs finds them.

use std::io::Read;

use ace::config::{Shipped, ShippedFile, ShippedPlugin};

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Why a program has none.
pub const ABSENCE: &str = "this program was built without the plugins of ACE: run `make shipped` and build it again";

/// What engines of this program get.
pub static SHIPPED: Shipped =
    Shipped { plugins: PLUGINS, templates: TEMPLATES, absence: if PLUGINS.is_empty() { Some(ABSENCE) } else { None } };

/// The kind of a shipped plugin: the folder of its source, such as `channels`.
pub fn kind(name: &str) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == name).map_or("", |(_, kind)| *kind)
}

/// All files of templates: the layout, its catalogues, and the samples, which are whole messages and only to be copied.
pub fn templates() -> impl Iterator<Item = &'static ShippedFile> {
    TEMPLATES.iter().chain(SAMPLES)
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut component = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut component).expect("make packed it");
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_plugin_is_a_component_of_a_kind_with_a_manifest() {
        for plugin in PLUGINS {
            assert_eq!((plugin.component)()[..8], *b"\0asm\x0d\0\x01\0", "{}", plugin.name);
            assert!(plugin.manifest.contains("description"), "{}", plugin.name);
            assert!(["policies", "channels", "feedback"].contains(&kind(plugin.name)), "{}", plugin.name);
        }
        assert_eq!(SHIPPED.absence.is_some(), PLUGINS.is_empty());
    }
}
