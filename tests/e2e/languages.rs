//! The same policy in five languages (plugins/examples): each returns exactly the verdicts and errors of one table. Faults of plugins
//! in these languages are tested in hostile/languages.rs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ace::internals::plugin::PluginState;
use ace::message::{Delay, PolicyResult};
use ace::{Ace, Config, Message};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::{Home, message, repository};

const LANGUAGES: [&str; 5] = ["rust", "js", "ts", "python", "c"];

/// One config of quiet_hours.cases.json, and the expected results.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Group {
    config: Map<String, Value>,
    /// The error of `enabled`, if any.
    refused: Option<String>,
    #[serde(default)]
    channel_types: Vec<String>,
    #[serde(default)]
    cases: Vec<Case>,
}

/// A message at a time. Without `until` it passes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    now: Timestamp,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(default)]
    context: Map<String, Value>,
    until: Option<Timestamp>,
    reason: Option<String>,
}

impl Case {
    fn message(&self) -> Arc<Message> {
        let json = message("note", json!({ "options": self.options, "context": self.context })).to_string();
        Arc::new(Message::from_json(json.as_bytes()).unwrap_or_else(|e| panic!("{e}")))
    }

    fn verdict(&self, channel_types: &[String]) -> PolicyResult {
        let delay = |not_before: Timestamp| {
            let delay = |t: &String| Delay { channel_type: t.clone(), not_before, reason: self.reason.clone() };
            channel_types.iter().map(delay).collect()
        };
        PolicyResult { deny: Vec::new(), delay: self.until.map(delay).unwrap_or_default() }
    }
}

fn groups() -> Vec<Group> {
    let table = std::fs::read(repository("plugins/examples/quiet_hours.cases.json")).expect("it is there");
    serde_json::from_slice(&table).unwrap_or_else(|e| panic!("quiet_hours.cases.json: {e}"))
}

/// The time that the plugins see, in milliseconds.
static NOW: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_millisecond(NOW.load(Ordering::SeqCst)).expect("it is a moment")
}

/// An engine with the plugin in every language, all with this config. (Strings and lists of JSON are valid TOML.)
async fn start(config: &Map<String, Value>) -> (Ace, Home) {
    let settings: String = config.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let tables = LANGUAGES.map(|language| format!("[plugins.quiet_hours_{language}.config]\n{settings}"));
    let home = Home::empty();
    LANGUAGES.iter().for_each(|language| home.example(&format!("quiet_hours_{language}")));
    home.config(&tables.concat());
    let config = Config::load(&home.path("ace.toml")).unwrap_or_else(|e| panic!("{e}"));
    let ace = Ace::builder(config).clock(now, || 0.5).start().await.unwrap_or_else(|e| panic!("{e}"));
    (ace, home)
}

#[tokio::test]
async fn all_return_the_verdicts_of_the_table() {
    for group in groups().iter().filter(|group| group.refused.is_none()) {
        let (ace, _home) = start(&group.config).await;
        let registry = ace.registry();
        for case in &group.cases {
            NOW.store(case.now.as_millisecond(), Ordering::SeqCst);
            for language in LANGUAGES {
                let plugin = &registry.plugins[&format!("quiet_hours_{language}")];
                let what = || format!("{language} at {}, {:?} {:?}", case.now, case.options, case.context);
                let runtime = plugin.runtime.as_ref().unwrap_or_else(|| panic!("{}: {:?}", what(), plugin.state));
                let verdict = runtime.check(&case.message(), false).await.answer;
                assert_eq!(
                    verdict.unwrap_or_else(|e| panic!("{}: {e:?}", what())),
                    case.verdict(&group.channel_types),
                    "{}",
                    what()
                );
            }
        }
    }
}

#[tokio::test]
async fn all_reject_invalid_settings_with_the_same_text() {
    for group in groups() {
        let Some(words) = &group.refused else { continue };
        let (ace, _home) = start(&group.config).await;
        for language in LANGUAGES {
            match &ace.registry().plugins[&format!("quiet_hours_{language}")].state {
                PluginState::Broken(reason) => {
                    assert_eq!(reason, &format!("it says it cannot work: {words}"), "{language} {:?}", group.config);
                }
                state => panic!("{language} with {:?} is {state:?}", group.config),
            }
        }
    }
}
