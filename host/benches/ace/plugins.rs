//! The plugin runtime: calls, isolation, the start, reloads. Each figure stands beside one of the same run that it is to be
//! compared with.

mod bare;
pub mod calls;
pub mod isolation;
pub mod reload;
pub mod settings;
pub mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ace::Ace;
use ace::config::Config;
use ace::internals::plugin::Runtime;
use ace::message::{Message, Recipient};
use serde_json::json;

use crate::place::Place;

/// A folder with a configuration and plugins.
struct Home {
    config: PathBuf,
    plugins: PathBuf,
}

impl Home {
    /// With these components, by name, and these tables of ace.toml.
    fn new(place: &Place, name: &str, plugins: &[(&str, Vec<u8>)], toml: &str) -> Self {
        let folder = place.folder(name);
        let home = Home { config: folder.join("ace.toml"), plugins: folder.join("plugins") };
        std::fs::create_dir(&home.plugins).expect("made");
        for (name, wasm) in plugins {
            install(&home.plugins.join(format!("{name}.wasm")), wasm);
        }
        let text = format!("plugin-dir = \"plugins\"\ncache-dir = \"../cache\"\n{toml}\n");
        std::fs::write(&home.config, text).expect("written");
        home
    }

    async fn start(&self) -> Ace {
        let config = Config::load(&self.config).unwrap_or_else(|problems| panic!("{problems}"));
        Ace::builder(config).start().await.unwrap_or_else(|problem| panic!("{problem}"))
    }
}

/// Puts a file in place in one step.
fn install(file: &Path, content: &[u8]) {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, content).expect("written");
    std::fs::rename(temporary, file).expect("renamed");
}

/// The same component with a note in it: another revision, which is compiled by itself.
fn tagged(wasm: &[u8], note: &str) -> Vec<u8> {
    let mut name = vec![4];
    name.extend(b"note");
    name.extend(note.as_bytes());
    let mut tagged = wasm.to_vec();
    // A custom section: its id, its length (one byte of LEB128 is enough), its name, its content.
    tagged.extend([0, u8::try_from(name.len()).ok().filter(|n| *n < 128).expect("a short note")]);
    tagged.extend(name);
    tagged
}

fn runtime(ace: &Ace, plugin: &str) -> Arc<Runtime> {
    let registry = ace.registry();
    let plugin = registry.plugins.get(plugin).unwrap_or_else(|| panic!("no plugin {plugin}"));
    plugin.runtime.clone().unwrap_or_else(|| panic!("{}: {:?}", plugin.name, plugin.state))
}

/// A message whose context has about so many bytes as JSON.
fn message(context_bytes: usize) -> Arc<Message> {
    let mut message = Message::new("bench", "note", Some(Recipient::new(7, "zoe@example.com")));
    message.context.insert("plan", "verified");
    let mut courses = Vec::new();
    for i in 0..context_bytes / 100 {
        courses.push(json!({"key": format!("course-v1:Org+C{i}+2026"), "name": "Linear Algebra", "progress": [i, 12], "url": format!("/course/{i:05}")}));
    }
    message.context.insert("courses", courses);
    Arc::new(message)
}
