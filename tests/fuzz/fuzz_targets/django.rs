//! Any text as a Django template: it is imported, and every omission is reported.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let import = ace_django::import(&BTreeMap::from([("a.html".to_owned(), text.to_owned())]), &ace_django::Options::default());
    assert_eq!(import.files.len(), 1);
    assert!(import.findings.iter().all(|finding| finding.line > 0 && !finding.reason.is_empty()));
});
