//! Any bytes as a component: it is loaded, or rejected with a reason. A plugin runs within its limits.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use ace::internals::plugin::PluginState;
use ace::{Ace, Config};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// One engine for all inputs; each input is a new revision of its only plugin.
static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::start);

struct Engine {
    runtime: Runtime,
    ace: Ace,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> Engine {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("plugins")).expect("made");
        let toml = "plugin-dir = 'plugins'\n[limits]\ntime = '20ms'\npolicy-call-timeout = '100ms'\n\
                    channel-call-timeout = '100ms'\nmemory = '8MiB'\n";
        std::fs::write(folder.path().join("ace.toml"), toml).expect("written");
        let config = Config::load(&folder.path().join("ace.toml")).expect("a valid configuration");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ace = runtime.block_on(Ace::builder(config).start()).expect("it starts");
        Engine { runtime, ace, file: folder.path().join("plugins/fuzzed.wasm"), _folder: folder }
    }

    fn load(&self, bytes: &[u8]) {
        // Removed first, so that this is a new plugin and not a later revision.
        let _ = std::fs::remove_file(&self.file);
        self.runtime.block_on(self.ace.reload()).expect("an empty folder");
        std::fs::write(&self.file, bytes).expect("written");
        self.runtime.block_on(self.ace.reload()).expect("an invalid plugin does not fail the reload");
        for plugin in self.ace.registry().plugins.values() {
            if let PluginState::Broken(reason) = &plugin.state {
                assert!(!reason.trim().is_empty());
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| ENGINE.load(bytes));
