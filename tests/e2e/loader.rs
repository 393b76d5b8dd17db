//! Truncated and modified files as plugins: loading them ends in time and without a panic, and each is reported. hostile_files.rs and
//! tests/fuzz cover more files.

use std::path::Path;
use std::time::{Duration, Instant};

use ace::internals::plugin::PluginState;
use ace::{Ace, Config};

use crate::support::{Home, repository};

/// A deterministic generator of random numbers (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ (n >> 31)) % end as u64) as usize
    }

    /// The bytes with one to four changes: a byte set, a bit flipped, a part removed, duplicated or moved.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(5) {
                0 => bytes[at] = self.below(256) as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 if end - at < bytes.len() => drop(bytes.drain(at..end)),
                3 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                _ => {
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, bytes[at..end].to_vec()).for_each(drop);
                }
            }
        }
        bytes
    }
}

/// Loads every file of the folder in this process, without a cache.
async fn load(home: &Home) -> Ace {
    let toml = "plugin-dir = 'plugins'\n[limits]\ntime = '50ms'\npolicy-call-timeout = '200ms'\nmemory = '8MiB'\n";
    home.file("ace.toml", toml);
    let config = Config::load(&home.path("ace.toml")).unwrap_or_else(|e| panic!("{e}"));
    let started = Instant::now();
    let ace = Ace::builder(config).start().await.unwrap_or_else(|e| panic!("{e}"));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    for plugin in ace.registry().plugins.values() {
        if let PluginState::Broken(reason) = &plugin.state {
            let name = &plugin.name;
            assert!(!reason.trim().is_empty(), "{name} is broken for no reason");
            assert!(!reason.contains(|c: char| c.is_control() && c != '\n'), "{name}: {reason:?}");
        }
    }
    ace
}

/// Small components: one written by hand, one compiled.
fn components() -> [Vec<u8>; 2] {
    let by_hand = wat::parse_str(include_str!("hostile/policy.wat")).expect("it is valid");
    let compiled = std::fs::read(repository("target/test-plugins/from_1_2_0.wasm")).expect("a plugin");
    [by_hand, compiled]
}

#[tokio::test]
async fn modified_components_are_loaded_or_rejected() {
    let home = Home::empty();
    let mut numbers = Numbers(0xace);
    for (which, component) in components().iter().enumerate() {
        for n in 0..[400, 60][which] {
            home.file(&format!("plugins/m{which}_{n}.wasm"), numbers.mutate(component));
        }
    }
    let ace = load(&home).await;
    let registry = ace.registry();
    let active = registry.plugins.values().filter(|p| p.state == PluginState::Active).count();
    assert_eq!(registry.plugins.len(), 460);
    assert!(active < 460, "most changes do harm");
}

#[tokio::test]
async fn truncated_components_are_rejected() {
    let home = Home::empty();
    let [by_hand, compiled] = components();
    for length in (0..by_hand.len()).step_by(3) {
        home.file(&format!("plugins/h{length}.wasm"), &by_hand[..length]);
    }
    for length in (0..compiled.len()).step_by(compiled.len() / 40) {
        home.file(&format!("plugins/c{length}.wasm"), &compiled[..length]);
    }
    for plugin in load(&home).await.registry().plugins.values() {
        assert!(matches!(plugin.state, PluginState::Broken(_)), "{} is cut, and serves", plugin.name);
    }
}

#[tokio::test]
async fn modified_manifests_are_read_or_rejected() {
    let home = Home::empty();
    let [by_hand, _] = components();
    let manifest = "version = '1.0.0'\ndescription = 'é'\n[requests]\nhttp = ['https://a.example/']\n\
                    keyvalue = ['facts:read']\n[defaults]\na = { b = [1, 'x'] }\n[runtime]\nmemory = '1MiB'\n";
    let mut numbers = Numbers(0xbad);
    for n in 0..150 {
        home.file(&format!("plugins/m{n}.wasm"), &by_hand);
        home.file(&format!("plugins/m{n}.toml"), numbers.mutate(manifest.as_bytes()));
    }
    load(&home).await;
}

#[tokio::test]
async fn special_files_do_not_block() {
    let home = Home::empty();
    let [by_hand, _] = components();
    let made = |path: &Path| {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    home.file("plugins/pipe_manifest.wasm", &by_hand);
    made(&home.path("plugins/pipe.wasm"));
    made(&home.path("plugins/pipe_manifest.toml"));
    std::fs::create_dir(home.path("plugins/folder.wasm")).expect("made");
    std::os::unix::fs::symlink("/dev/zero", home.path("plugins/endless.wasm")).expect("linked");
    std::os::unix::fs::symlink("nowhere", home.path("plugins/dangling.wasm")).expect("linked");
    home.file("plugins/long_manifest.wasm", &by_hand);
    home.file("plugins/long_manifest.toml", "#".repeat(2 << 20));
    let ace = load(&home).await;
    for (name, words) in [
        ("pipe", "the file cannot be read: it is not a regular file"),
        ("pipe_manifest", "it is not a regular file"),
        ("folder", "it is not a regular file"),
        ("endless", "it is not a regular file"),
        ("dangling", "the file cannot be read: "),
        ("long_manifest", "it is longer than 1048576 bytes"),
    ] {
        let PluginState::Broken(reason) = &ace.registry().plugins[name].state else { panic!("{name} serves") };
        assert!(reason.contains(words), "{name}: {reason}");
    }
}
