//! Plugins built against other minor versions of the interface (tests/compat).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::author::plugin;
use crate::servers::Smtpd;
use crate::support::{Home, assert_text, email, message, repository};

/// A WIT file without its comments and blank lines.
fn wit(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(file)).expect("it is there");
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim().to_owned());
    code.filter(|line| !line.is_empty()).collect()
}

#[test]
fn exported_interfaces_are_as_1_0_0_shipped_them() {
    for file in ["policy.wit", "channel.wit", "recipient-resolver.wit", "common.wit"] {
        let (is, was) = (wit(&format!("wit/{file}")), wit(&format!("tests/compat/wit-1.0.0/{file}")));
        // The package's version is raised, and nothing else.
        assert_eq!(
            is[1..],
            was[1..],
            "{file}: what is new comes as a further interface, whose export the host probes for"
        );
    }
}

/// All other interfaces are imported: functions can be added, but not removed or changed.
#[test]
fn imported_interfaces_keep_everything_that_1_0_0_had() {
    for file in ["messages", "config", "logging", "keyvalue", "http", "mailer", "outbox", "time-zones"] {
        let is = wit(&format!("wit/{file}.wit"));
        let mut rest = is.iter();
        for line in wit(&format!("tests/compat/wit-1.0.0/{file}.wit")).iter().skip(1) {
            assert!(rest.any(|l| l == line), "{file}.wit has no longer {line:?}, or not in its place");
        }
    }
}

/// The packages that are not ours.
#[test]
fn wasi_is_as_every_released_version_had_it() {
    for released in ["1.0.0", "1.1.0"] {
        for package in ["clocks", "io", "random"] {
            let file = format!("deps/{package}/{package}.wit");
            let was = wit(&format!("tests/compat/wit-{released}/{file}"));
            assert_eq!(wit(&format!("wit/{file}")), was, "{package} of {released}");
        }
    }
}

const FROZEN: &str = "[plugins.frozen_1_0_0]\nconfig = { colour = 'blue' }\n\
                      grants = { keyvalue = ['facts'], mailer = true, outbox = 'out', http = ['https://campus.example/'] }\n";

#[test]
fn a_plugin_built_against_1_0_0_can_use_every_function_of_it() {
    let server = Smtpd::start(&[]);
    let home = Home::empty();
    home.guest("frozen_1_0_0", "frozen_1_0_0");
    home.config(&format!("{FROZEN}{}", server.relay()));
    let text = "{% for link in channel.action_links %}{{ link.text }}{% endfor %}";
    home.file("templates/app/edx_ace/note/email/body.txt", format!("Hi {text}"));
    let fields = json!({"context": {"a": [1]}, "options": {"transactional": true}, "language": "fr"});
    let lines = home.send(&[message("note", fields)]).ok().lines();
    let line = &lines[0];
    assert_eq!((&email(line)["state"], &email(line)["attempts"]), (&json!("sent"), &json!(2)));
    assert_eq!(email(line)["detail"], json!({"frozen": true}));
    let told = &line["report"]["policies"][0]["result"]["deny"][0]["reason"];
    assert_text(told, "36 None app note app.note Some(\"fr\") ");
    assert_text(told, "(Some(\"7\"), Some(7), Some(\"zoe@learner.example\"), 0)");
    assert_text(told, " Some(\"true\") Some(\"1\") true | Some(\"blue\") Ok(3600000) 8 true | 1");
    assert_eq!(home.read("out/frozen.txt"), "written");
    let mail = server.mail();
    assert_eq!(mail.header("X-Frozen").as_deref(), Some("yes"));
    assert_eq!(mail.envelope["recipients"].as_array().map(Vec::len), Some(3));
    assert_eq!(mail.part_types().len(), 5);
}

/// Runs a table of cases with a component that uses what 1.1.0 added.
fn passes(component: &Path, table: &str) {
    let requests = match table {
        "policy" => {
            "http = ['https://consent.example.com/v1/']\ncredentials = ['consent']\nkeyvalue = ['caps:read-write']\n"
        }
        "channel" => {
            "http = ['https://sms.example.com/v1/']\ncredentials = ['gateway']\nkeyvalue = ['counts:read-write']\n"
        }
        _ => "credentials = ['provider']\nfeedback = ['any']\n",
    };
    let home = Home::empty();
    home.file("frozen.wasm", std::fs::read(component).unwrap_or_else(|e| panic!("{}: {e}", component.display())));
    home.file("frozen.toml", format!("[requests]\n{requests}"));
    let cases = repository(&format!("tests/compat/{table}.cases.json"));
    let cases = cases.to_str().expect("text");
    plugin(&home, &["test", "frozen.wasm", "--cases", cases]).ok().says(", 0 failed");
}

/// Every language, and every export that uses what 1.1.0 added.
#[test]
fn plugins_built_against_1_1_0_in_every_language_run() {
    for (component, table) in [
        ("target/test-plugins/frozen_1_1_0.wasm", "channel"),
        ("target/test-plugins/frozen_1_1_0.wasm", "feedback"),
        ("target/test-plugins/frozen_channel_js.wasm", "channel"),
        ("target/test-plugins/frozen_channel_python.wasm", "channel"),
        ("target/test-plugins/frozen_feedback_ts.wasm", "feedback"),
        ("tests/compat/c/frozen_policy.wasm", "policy"),
    ] {
        passes(&repository(component), table);
    }
}

/// Go's components are built by `ace plugin build` alone.
#[test]
fn a_plugin_in_go_built_against_1_1_0_runs() {
    let home = Home::empty();
    copy(&repository("tests/compat/go/frozen_feedback"), &home.path("frozen"));
    copy(&repository("tests/compat/wit-1.1.0"), &home.path("frozen/wit"));
    let world = "package openedx:ace@1.1.0;\nworld plugin {\n  include feedback-plugin;\n}\n";
    home.file("frozen/wit/plugin.wit", world);
    std::fs::rename(home.path("frozen/go.mod.in"), home.path("frozen/go.mod")).expect("renamed");
    plugin(&home, &["build", "frozen"]).ok();
    passes(&home.path("frozen/frozen.wasm"), "feedback");
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("it is there").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("copied");
        }
    }
}

/// The state of each plugin in a folder with these guests.
fn states(guests: &[&str]) -> BTreeMap<String, Value> {
    let home = Home::new(&[], "");
    guests.iter().for_each(|guest| home.guest(guest, guest));
    let plugins = home.ace(&["plugins", "--json"]).run().lines();
    let state = |p: &Value| (p["name"].as_str().expect("a name").to_owned(), p["state"].clone());
    plugins.iter().map(state).collect()
}

#[test]
fn a_newer_plugin_runs_unless_it_uses_a_new_function_which_is_named() {
    let states = states(&["from_1_2_0", "needs_1_2_0"]);
    assert_eq!(states["from_1_2_0"]["state"], "active");
    let refused = &states["needs_1_2_0"];
    assert_eq!(refused["state"], "broken");
    assert_text(&refused["reason"], "built against openedx:ace@1.2.0, and this host provides openedx:ace@1.1.0");
    assert_text(&refused["reason"], "[method]message.priority");
}

#[test]
fn a_compatible_newer_plugin_is_called() {
    let home = Home::new(&[], "");
    home.guest("from_1_2_0", "from_1_2_0");
    let lines = home.send(&[message("note", json!({}))]).lines();
    assert_eq!(lines[0]["report"]["policies"][0]["result"]["deny"][0]["reason"], "app.note");
}
