//! Where everything is, and the messages and the configuration that the figures share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ace::message::Message;

use crate::measure::child;

/// Where everything is.
pub struct Place {
    pub root: PathBuf,
    pub target: PathBuf,
    pub bench: PathBuf,
    /// The reference mail's 64 messages, as JSON.
    pub messages: Vec<Vec<u8>>,
}

impl Place {
    pub fn prepare() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned();
        let target = root.join("target");
        let bench = target.join("bench");
        std::fs::create_dir_all(&bench).expect("a folder for the figures");
        let file = bench.join("messages.ndjson");
        let script = root.join("host/benches/peers/contexts.py");
        child(target.join("venv/bin/python"), &[script.as_os_str(), file.as_os_str()]);
        std::fs::write(bench.join("facts.ndjson"), FACTS).expect("written");
        let text = std::fs::read(&file).expect("just written");
        let messages = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        Place { root, target, bench, messages }
    }

    /// The configuration of every figure: two policies, one channel, one relay.
    pub fn config(&self, relay: &str) -> String {
        format!(
            "plugin-dir = \"../plugins\"\ntemplate-dirs = [\"../../host/benches/templates\"]\ncache-dir = \"cache\"\n\
             enabled-policies = [\"stub_policy\", \"bulk_email_optout\"]\nenabled-channels = [\"django_email\"]\n\
             [routing]\ndefault = {{ email = \"django_email\" }}\n[keyvalue]\nfiles = [\"facts.ndjson\"]\n\
             [plugins.stub_policy]\nconfig = {{ deny = [\"push\"] }}\n\
             [plugins.bulk_email_optout]\ngrants = {{ keyvalue = [\"course-optouts:read\"] }}\n\
             [plugins.django_email]\ngrants = {{ mailer = true }}\n\
             [mailer]\ndefault-from = \"Example Learning <no-reply@example.org>\"\n{relay}\n"
        )
    }

    pub fn parsed(&self) -> Vec<Arc<Message>> {
        self.messages.iter().map(|m| Arc::new(Message::from_json(m).expect("a message"))).collect()
    }

    /// A component of this repository: a plugin, or one of tests/guests.
    pub fn component(&self, name: &str) -> Vec<u8> {
        let built = ["plugins", "test-plugins"].map(|folder| self.target.join(folder).join(format!("{name}.wasm")));
        let file = built.iter().find(|file| file.exists());
        let file = file.unwrap_or_else(|| panic!("{name}.wasm is not there: run make plugins test-plugins"));
        std::fs::read(file).expect("it can be read")
    }

    /// A plugin of plugins/examples, where `make examples` has built it.
    pub fn example(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.target.join("plugins-examples").join(format!("{name}.wasm"))).ok()
    }

    /// An empty folder of target/bench.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.bench.join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("made");
        folder
    }

    pub fn write_config(&self, name: &str, relay: &str) -> PathBuf {
        let file = self.bench.join(name);
        std::fs::write(&file, self.config(relay)).expect("written");
        file
    }
}

/// Some learners opted out of some courses; nobody of everything.
const FACTS: &str = "{\"bucket\": \"course-optouts\", \"key\": \"3/course-v1:Org0+C0+2026\", \"value\": \"\"}\n";
/// A relay that builds the mail and drops it.
pub const DISCARD: &str = "[relays.main]\nkind = \"discard\"";
