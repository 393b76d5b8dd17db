//! New plugins in every language: a project of `ace plugin new` builds, passes its own tests and loads.

mod cases;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Done, Home, repository};

/// The first build in Rust may have to build its standard library.
const PATIENCE: Duration = Duration::from_secs(600);

/// A `PATH` with the tools that `make examples` installs.
pub fn path() -> String {
    let tools = [repository("target/tools/node/node_modules/.bin"), repository("target/tools/py/bin")];
    let own = std::env::var_os("PATH").expect("a path");
    let path = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&own))).expect("a path");
    path.into_string().expect("text")
}

/// Caches that outlive the test: compiled plugins, and the standard libraries that Cargo and Go build. Go's modules come from a
/// folder.
pub fn caches() -> [(&'static str, String); 6] {
    let tmp = env!("CARGO_TARGET_TMPDIR");
    [
        ("XDG_CACHE_HOME", format!("{tmp}/e2e-cache")),
        ("CARGO_TARGET_DIR", format!("{tmp}/author")),
        ("GOCACHE", format!("{tmp}/go/cache")),
        ("GOMODCACHE", format!("{tmp}/go/mod")),
        ("GOPROXY", format!("file://{}", repository("target/tools/go/proxy").display())),
        ("GOSUMDB", "off".to_owned()),
    ]
}

/// Runs `ace plugin` with the tools of every language.
pub fn plugin(home: &Home, arguments: &[&str]) -> Done {
    let run = home.ace(&[&["plugin"], arguments].concat()).env("PATH", &path());
    caches().into_iter().fold(run, |run, (name, value)| run.env(name, &value)).run_within(PATIENCE)
}

/// Creates, builds, tests and checks a plugin of each kind.
fn every_kind(language: &str) {
    for kind in ["policy", "channel", "resolver", "feedback"] {
        let home = Home::empty();
        plugin(&home, &["new", "my_plugin", "--kind", kind, "--lang", language]).ok().says("next: ace plugin build");
        let built = plugin(&home, &["build", "my_plugin", "--json"]).ok();
        let built: Value = serde_json::from_str(&built.stdout).expect("JSON");
        assert_eq!((&built["language"], &built["compatible"]), (&json!(language), &json!(true)), "{kind}");
        home.file("my_plugin/tests/more.json", json!(cases::of(kind)).to_string());
        let tested = plugin(&home, &["test", "my_plugin", "--json"]).ok();
        tested.says(", 0 failed");
        answers_are_exact(&home, &tested.lines(), "more.json");
        if kind == "feedback" {
            answers_are_exact(&home, &tested.lines(), "odd_bodies.json");
        }
        plugin(&home, &["check", "my_plugin/my_plugin.wasm"]).ok();
    }
}

/// A case passes with whatever it does not mention, such as an address that nobody gave. These answers must contain nothing else.
fn answers_are_exact(home: &Home, tested: &[Value], file: &str) {
    let cases: Vec<Value> = serde_json::from_str(&home.read(&format!("my_plugin/tests/{file}"))).expect("cases");
    for (index, case) in cases.iter().enumerate() {
        let place = format!("{file}[{index}]");
        let line = tested.iter().find(|line| line["location"].as_str().is_some_and(|at| at.ends_with(&place)));
        assert_eq!(line.expect(&place)["answer"], case["expect"], "{place}");
    }
}

#[test]
fn a_new_plugin_in_rust_builds_and_passes_its_tests() {
    every_kind("rust");
}

/// Runs `cargo test` in a project. Returns whether it passed, and its output.
pub fn cargo_test(home: &Home, project: &str) -> (bool, String) {
    let mut cargo = Command::new("cargo");
    cargo.arg("test").current_dir(home.path(project)).envs(caches());
    let output = cargo.output().expect("cargo");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

/// `cargo test` runs the same cases without WebAssembly and without a host.
#[test]
fn a_new_plugin_in_rust_is_tested_natively() {
    for kind in ["policy", "channel", "resolver", "feedback"] {
        let home = Home::empty();
        plugin(&home, &["new", "my_plugin", "--kind", kind, "--lang", "rust"]).ok();
        let (is_sound, said) = cargo_test(&home, "my_plugin");
        assert!(is_sound && said.contains("test tests::table ... ok"), "{kind}: {said}");
        let cases = home.read("my_plugin/tests/cases.json").replacen("\"expect\": {", "\"expect\": { \"other\": 1,", 1);
        home.file("my_plugin/tests/cases.json", cases);
        let (is_sound, said) = cargo_test(&home, "my_plugin");
        assert!(!is_sound && said.contains("FAILED  ") && said.contains("answered {"), "{kind}: {said}");
    }
}

#[test]
fn a_new_plugin_in_javascript_builds_and_passes_its_tests() {
    every_kind("js");
}

#[test]
fn a_new_plugin_in_typescript_builds_and_passes_its_tests() {
    every_kind("ts");
}

#[test]
fn a_new_plugin_in_python_builds_and_passes_its_tests() {
    every_kind("python");
}

#[test]
fn a_new_plugin_in_c_builds_and_passes_its_tests() {
    every_kind("c");
}

#[test]
fn a_new_plugin_in_go_builds_and_passes_its_tests() {
    every_kind("go");
}

/// Go's garbage collector must not start while the host passes a string: these calls pass many times the memory of an instance.
#[test]
fn a_plugin_in_go_stays_within_its_memory() {
    let home = Home::empty();
    plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "go"]).ok();
    let source = home.read("mine/main.go");
    let all = "(policy.Result, error) {\n\tif message.ToJson() == \"\" {\n\t\treturn policy.Result{}, nil\n\t}\n";
    home.file("mine/main.go", source.replacen("(policy.Result, error) {\n", all, 1));
    plugin(&home, &["build", "mine"]).ok();
    let long = json!({"context": {"text": "x".repeat(100_000)}});
    home.file("message.json", crate::support::message("note", long).to_string());
    let done = plugin(&home, &["bench", "--json", "mine/mine.wasm", "message.json", "-n", "2000"]).ok();
    let bytes = done.lines()[0]["memory_bytes"].as_u64().expect("bytes");
    assert!(bytes < 32 << 20, "{bytes} bytes after handing over 200 MB");
}

#[test]
fn nothing_is_overwritten_and_a_name_is_checked() {
    let home = Home::empty();
    plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "js"]).ok();
    plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "c"]).code(2).says("nothing is overwritten");
    for (name, words) in [("Mine", "cannot be a plugin's name"), ("../mine", "cannot be"), ("class", "is reserved")] {
        plugin(&home, &["new", name, "--kind", "policy", "--lang", "js"]).code(2).says(words);
    }
    assert_eq!(home.list(""), ["mine"]);
}

#[test]
fn a_missing_tool_is_named_with_the_command_that_installs_it() {
    for (language, words) in [
        ("js", "componentize-qjs is not installed; npm install"),
        ("ts", "tsc is not installed; npm install"),
        ("python", "componentize-py is not installed; cd "),
        ("go", "go is not installed; cd "),
        ("c", "clang with WebAssembly is not installed; apt-get install clang-19"),
        ("rust", "Rust is not installed; see https://rustup.rs"),
    ] {
        let home = Home::empty();
        plugin(&home, &["new", "mine", "--kind", "policy", "--lang", language]).ok();
        // Package managers are installed, the tools are not.
        std::fs::create_dir(home.path("bin")).expect("made");
        for program in ["npm", "python3"] {
            home.file(&format!("bin/{program}"), "");
        }
        let bin = home.path("bin");
        let done = home.ace(&["plugin", "build", "mine"]).env("PATH", bin.to_str().expect("text")).run().code(2);
        done.says(words);
        assert_eq!(
            done.stderr.contains("--install"),
            ["js", "ts", "python", "go"].contains(&language),
            "{}",
            done.stderr
        );
    }
}

#[test]
fn the_output_of_a_failed_compiler_is_shown() {
    let home = Home::empty();
    plugin(&home, &["new", "mine", "--kind", "policy", "--lang", "ts"]).ok();
    home.file("mine/mine.ts", "export const policy: number = \"no number\";\n");
    plugin(&home, &["build", "mine"]).code(2).says("mine.ts(1,14): error TS2322");
    // A missing function of a JavaScript plugin is only noticed when it is called.
    home.file("mine/mine.ts", "export const nothing = 1;\n");
    plugin(&home, &["build", "mine"]).ok();
    let done = plugin(&home, &["test", "mine"]).code(1);
    assert!(done.stdout.contains("\"refused\": \"enabled: "), "{}", done.stdout);
}

/// The only block of docs/authoring.md with this info string.
fn block(mark: &str) -> String {
    let text = std::fs::read_to_string(repository("docs/authoring.md")).expect("the guide");
    let block = text.split(&format!("```{mark}\n")).nth(1).expect("it is there");
    block.split("```").next().expect("an end").to_owned()
}

#[test]
fn the_cap_of_the_guide_works_as_it_is_written() {
    let home = Home::empty();
    plugin(&home, &["new", "cap", "--kind", "policy", "--lang", "js"]).ok();
    home.file("cap/cap.js", block("js cap"));
    home.file("cap/cap.toml", block("toml cap"));
    let urgent = json!({"options": {"transactional": true}});
    let case = |fields: Value, taken: Value, expect: Value| json!({"message": crate::support::message("note", fields), "facts_after": {"caps": {"mails/7": taken}}, "expect": expect});
    let cases = [case(json!({}), json!(1), json!("pass")), case(urgent, Value::Null, json!("pass"))];
    home.file("cap/tests/cases.json", json!(cases).to_string());
    plugin(&home, &["build", "cap"]).ok();
    plugin(&home, &["test", "cap"]).ok().says("2 cases, 0 failed");

    home.email_templates("note", "Hi", "<p>Hi</p>", "Hi");
    std::fs::create_dir(home.path("plugins")).expect("made");
    for file in ["cap.wasm", "cap.toml"] {
        std::fs::copy(home.path(&format!("cap/{file}")), home.path(&format!("plugins/{file}"))).expect("copied");
    }
    home.guest("faulty_channel", "mail");
    home.config(
        "[relays.main]\nkind = 'discard'\n[keyvalue]\ndatabase = 'kv.db'\n\
         [plugins.cap]\ngrants = { keyvalue = ['caps'] }\n[plugins.mail]\ngrants = { mailer = true }\n",
    );
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let note = || crate::support::message("note", json!({"expiration_time": soon.to_string()}));
    let explained = home.ace(&["explain", "--json", "-"]).input(note().to_string()).run();
    assert_eq!(
        crate::support::email(&explained.lines()[0])["state"],
        "ready",
        "it takes no place: {}",
        explained.stdout
    );
    let lines = home.send(&[note(), note(), note()]).lines();
    let mut states: Vec<Value> = lines.iter().map(|line| crate::support::email(line)["state"].clone()).collect();
    states.sort_by_key(Value::to_string);
    assert_eq!(states, ["expired", "sent", "sent"], "two, and the third would be tomorrow: {lines:#?}");
}

/// The commands of the tutorial in docs/authoring.md, in order.
fn tutorial() -> String {
    let text = std::fs::read_to_string(repository("docs/authoring.md")).expect("the guide");
    let blocks = text.split("```sh tutorial\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("an end")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let home = Home::empty();
    let ace = Path::new(env!("CARGO_BIN_EXE_ace")).parent().expect("a folder");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &tutorial()]).current_dir(home.path(""));
    shell.env("PATH", format!("{}:{}", ace.display(), path())).envs(caches()).env_remove("ACE_CONFIG");
    let output = shell.output().expect("a shell");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stderr.contains("night_off: 4 cases, 0 failed"), "{stderr}");
    for text in ["runs here     yes", "\"it is not transactional\"", "instantiate p50", "night_off              "] {
        assert!(stdout.contains(text), "{text:?} is not in:\n{stdout}");
    }
}
