//! Any bytes as the manifest of a plugin: it is read, or rejected with a reason for each problem.

#![no_main]

use ace::config::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = Manifest::read(text, None) {
        assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.message.is_empty()));
    }
});
