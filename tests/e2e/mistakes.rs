//! Mistakes of plugin authors, and the program's messages: exactly the texts of docs/authoring.md. A mistake that is in only one of the
//! two tables fails a test.

use serde_json::{Value, json};

use crate::support::{Done, Home, message, repository};
use crate::{author, kit};

/// Makes a mistake, and returns the program's output.
type Make = fn() -> String;

/// The message in the guide (`…` stands for any text), and the mistake.
const MISTAKES: [(&str, Make); 20] = [
    ("it exports none of openedx:ace/policy, …", wrong_world),
    ("it is a core WebAssembly module, not a component: …", core_module),
    ("an export differs from openedx:ace@…: …", missing_function),
    ("enabled: wasm trap: …", missing_object_in_javascript),
    ("it was built for openedx:ace@…, and this host provides …", old_interface),
    ("it was built against openedx:ace@…, and this host provides …", newer_interface),
    ("it imports interfaces that this host does not provide: …", stranger),
    ("not granted; the operator can write …", missing_grant),
    ("NAME.toml:2: requests.https: …", wrong_manifest_key),
    ("its initial memory is … bytes, more than the … of …", too_little_memory_to_start),
    ("it wanted more than … bytes of memory (memory): …", too_little_memory),
    ("it computed for longer than … (time)", endless),
    ("the call took longer than … (call-timeout)", late),
    ("…json[0]: message: …", wrong_message),
    ("…json[0]: …: unknown field …", wrong_case),
    ("… is not installed; …", no_toolchain),
    ("the folder exists and is not empty, and nothing is overwritten; …", existing_folder),
    ("… is reserved by a language or tool; …", reserved_name),
    ("another plugin of this name is installed; …", name_clash),
    ("it is not signed: …", unsigned),
];

#[test]
fn each_mistake_has_the_message_in_the_guide() {
    for (text, make) in MISTAKES {
        let said = make();
        assert!(has(&said, text), "{text:?} is not in:\n{said}");
    }
}

#[test]
fn the_guide_lists_exactly_these_mistakes() {
    let guide = std::fs::read_to_string(repository("docs/authoring.md")).expect("the guide");
    let section = guide.split("## Troubleshooting").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.expect("the section").lines().filter_map(|line| line.strip_prefix("| `"));
    let told: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(told, MISTAKES.map(|(text, _)| text));
}

/// Whether a text contains the parts of another, in order.
fn has(said: &str, text: &str) -> bool {
    let mut parts = text.split('…').filter(|part| !part.is_empty());
    parts.try_fold(said, |rest, part| rest.split_once(part).map(|(_, rest)| rest)).is_some()
}

fn said(done: Done) -> String {
    assert_ne!(done.code, Some(0), "it was taken for no mistake:\n{}\n{}", done.stdout, done.stderr);
    done.stdout + &done.stderr
}

/// `ace plugin check` of one component.
fn check(component: &[u8]) -> String {
    let home = Home::empty();
    home.file("mine.wasm", component);
    said(kit::plugin(&home, &["check", "mine.wasm"]))
}

fn check_wat(text: &str) -> String {
    check(&wat::parse_str(text).expect("WAT"))
}

fn check_guest(name: &str) -> String {
    check(&std::fs::read(repository(&format!("target/test-plugins/{name}.wasm"))).expect("built"))
}

fn wrong_world() -> String {
    check_wat("(component)")
}

fn core_module() -> String {
    check_wat("(module)")
}

fn missing_function() -> String {
    check_wat("(component (instance $nothing) (export \"openedx:ace/policy@1.1.0\" (instance $nothing)))")
}

fn missing_object_in_javascript() -> String {
    let home = Home::empty();
    author::plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "js"]).ok();
    home.file("mine/mine.js", "export const polcy = { enabled() {}, check() { return { deny: [], delay: [] }; } };\n");
    author::plugin(&home, &["build", "mine"]).ok();
    said(author::plugin(&home, &["test", "mine"]))
}

fn old_interface() -> String {
    let old = check_wat("(component (instance $policy) (export \"openedx:ace/policy@0.9.0\" (instance $policy)))");
    assert!(old.contains("it was built for openedx:ace@0.9.0, and this host provides openedx:ace@1.1.0"), "{old}");
    check_guest("from_the_future")
}

fn newer_interface() -> String {
    check_guest("needs_1_2_0")
}

fn stranger() -> String {
    check_guest("stranger")
}

/// Runs the policy that fails as its message says, with this manifest.
fn broken(fault: &str, manifest: &str) -> String {
    let home = kit::author("target/test-plugins/faulty_policy.wasm", "faulty_policy");
    home.file("faulty_policy.toml", manifest);
    home.file("message.json", message("note", json!({"context": {"policy_fault": fault}})).to_string());
    let done = kit::plugin(&home, &["run", "--json", "faulty_policy.wasm", "message.json"]).code(1);
    let told: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let answer = &told["answer"];
    let fault = answer["fault"]["message"].as_str().or_else(|| answer["refused"].as_str());
    fault.unwrap_or_else(|| panic!("{told}")).to_owned()
}

fn missing_grant() -> String {
    broken("count", "")
}

fn wrong_manifest_key() -> String {
    let home = kit::author("target/test-plugins/http_probe.wasm", "NAME");
    home.file("NAME.toml", "[requests]\nhttps = ['https://a.example/']\n");
    said(kit::plugin(&home, &["check", "NAME.wasm"]))
}

/// The message names who sets the limit: the author, or the operator for this plugin or for all plugins.
fn too_little_memory_to_start() -> String {
    let by_author = broken("", "[runtime]\nmemory = '128KiB'\n");
    assert!(
        has(&by_author, "more than the 131072 of runtime.memory in its manifest: raise that to at least \"2MiB\""),
        "{by_author}"
    );
    let home = kit::author("target/test-plugins/faulty_policy.wasm", "faulty_policy");
    for (toml, key) in [
        ("[plugins.faulty_policy]\nlimits = { memory = '128KiB' }", "plugins.faulty_policy.limits.memory in ace.toml"),
        ("[limits]\nmemory = '128KiB'", "limits.memory in ace.toml"),
    ] {
        home.config(toml);
        let operators = said(kit::plugin(&home, &["check", "faulty_policy.wasm", "--config", "ace.toml"]));
        assert!(
            has(&operators, &format!("more than the 131072 of {key}: raise that to at least \"2MiB\"")),
            "{operators}"
        );
    }
    by_author
}

fn too_little_memory() -> String {
    broken("hoard", "[runtime]\nmemory = '2MiB'\n")
}

fn endless() -> String {
    broken("spin", "[runtime]\ntime = '20ms'\n")
}

fn late() -> String {
    broken("spin", "[runtime]\ncall-timeout = '50ms'\n")
}

/// `ace plugin test` of one case.
fn tested(case: Value) -> String {
    let home = kit::author("target/plugins/stub_policy.wasm", "stub_policy");
    home.file("tests/cases.json", json!([case]).to_string());
    said(kit::plugin(&home, &["test"]))
}

fn wrong_message() -> String {
    tested(json!({"message": {"app_label": "app", "name": "note", "recipient": 7}, "expect": "pass"}))
}

fn wrong_case() -> String {
    tested(json!({"message": message("note", json!({})), "expects": "pass"}))
}

fn no_toolchain() -> String {
    let home = Home::empty();
    author::plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "c"]).ok();
    said(home.ace(&["plugin", "build", "mine"]).env("PATH", "").run())
}

fn existing_folder() -> String {
    let home = Home::empty();
    kit::plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "js"]).ok();
    said(kit::plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "js"]))
}

fn reserved_name() -> String {
    said(kit::plugin(&Home::empty(), &["new", "class", "--kind", "policy", "--lang", "js"]))
}

fn name_clash() -> String {
    let home = kit::author("target/plugins/stub_policy.wasm", "mine");
    home.config("");
    kit::plugin(&home, &["install", "mine.wasm"]).ok();
    home.file("mine.wasm", std::fs::read(repository("target/plugins/bulk_email_optout.wasm")).expect("built"));
    said(kit::plugin(&home, &["install", "mine.wasm"]))
}

fn unsigned() -> String {
    let home = kit::author("target/plugins/stub_policy.wasm", "mine");
    let public = kit::plugin(&home, &["key", "release.key"]).ok().stdout.trim().to_owned();
    home.config(&format!("[plugin-signatures]\nrequired = true\nkeys = ['{public}']"));
    said(kit::plugin(&home, &["install", "mine.wasm"]))
}
