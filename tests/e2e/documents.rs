//! Runs the shell blocks of README.md, docs/cli.md, docs/serving.md, docs/templates.md and docs/plugins.md as they are written.
//! tests/documents.rs lists the kinds of blocks.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::serve::{LISTEN, Server};
use crate::support::{Home, repository};

/// The blocks of a page with this info string, in order.
pub fn blocks(page: &str, info: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(page)).expect("the page");
    let start = format!("```{info}\n");
    let blocks = text.split(&start).skip(1);
    blocks.map(|block| block.split("```").next().expect("an end").to_owned()).collect()
}

/// A folder that looks like the repository after `make demo`, with the files that examples name, and stubs of a browser, an application
/// and jq.
fn demo() -> Home {
    let home = Home::empty();
    for file in ["ace.toml", "facts.ndjson"] {
        std::fs::copy(repository("tests/demo").join(file), home.file(&format!("target/demo/{file}"), ""))
            .expect("copied");
    }
    symlink(repository("templates"), home.path("templates")).expect("linked");
    symlink(repository("target/plugins"), home.path("target/plugins")).expect("linked");
    std::fs::create_dir(home.path("target/debug")).expect("made");
    symlink(env!("CARGO_BIN_EXE_ace"), home.path("target/debug/ace")).expect("linked");
    let sample = std::fs::read_to_string(repository("templates/samples/passwordreset.json")).expect("a sample");
    let sample: serde_json::Value = serde_json::from_str(&sample).expect("JSON");
    home.file("message.json", sample.to_string());
    home.file("messages.ndjson", format!("{sample}\n{sample}\n"));
    for (name, script) in [("my-application", "cat messages.ndjson"), ("xdg-open", "exit 0"), ("jq", "cat")] {
        stub(&home, name, script);
    }
    home
}

/// Puts a shell script on the path of [`run`].
fn stub(home: &Home, name: &str, script: &str) {
    let file = home.file(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("allowed");
}

/// Runs a script in a home, with its `bin` and `ace` on the path. Returns stdout.
fn run(home: &Home, script: &str) -> String {
    run_with(home, script, &std::env::var("PATH").unwrap_or_default(), &[])
}

/// The same with these folders at the end of the path, and these variables.
pub fn run_with(home: &Home, script: &str, path: &str, variables: &[(&str, &str)]) -> String {
    let ace = Path::new(env!("CARGO_BIN_EXE_ace")).parent().expect("a folder");
    let mut shell = Command::new("bash");
    shell.args(["-e", "-o", "pipefail", "-c", script]).current_dir(home.path(""));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACE_")) {
        shell.env_remove(variable);
    }
    shell.env("PATH", format!("{}:{}:{path}", home.path("bin").display(), ace.display()));
    let demo = home.path("target/demo").exists().then_some(("ACE_CONFIG", "target/demo/ace.toml"));
    let output = shell.envs(demo).envs(variables.iter().copied()).output().expect("a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    stdout
}

#[test]
fn the_commands_of_the_readme_work() {
    let home = demo();
    let script = blocks("README.md", "sh demo").join("\n");
    let said = run(&home, &script);
    for text in ["ace_demo.passwordreset", "the transactional channel of its type", "bulk_email_optout"] {
        assert!(said.contains(text), "{text:?} is not in:\n{said}");
    }
}

#[test]
fn a_new_folder_is_created_and_sends_as_the_pages_say() {
    for page in ["README.md", "docs/cli.md"] {
        let home = Home::empty();
        run(&home, &blocks(page, "sh init").join("\n"));
        assert_eq!(home.list("shop/outbox").len(), 1, "{page}");
    }
}

#[test]
fn the_examples_of_the_command_line_work() {
    let all = blocks("docs/cli.md", "sh demo");
    assert!(all.len() > 5, "{all:?}");
    let home = demo();
    for block in all {
        run(&home, &block);
    }
    assert_eq!(home.read("outcomes.ndjson").lines().count(), 2);
}

#[tokio::test]
async fn the_examples_of_the_server_work() {
    let home = demo();
    let toml = home.read("target/demo/ace.toml");
    home.file("target/demo/ace.toml", format!("{toml}\n{LISTEN}tokens-file = 'tokens.json'\n"));
    let token = run(&home, &blocks("docs/serving.md", "sh token").join("\n"));
    assert_eq!(blocks("docs/serving.md", "sh serve"), ["ace serve\n"]);
    let server = Server::of(home.ace(&["--log", "info", "serve", "--config", "target/demo/ace.toml"]));
    let uuid = "7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b02";
    let requests = blocks("docs/serving.md", "sh request").join("\n").replace("http://127.0.0.1:8025", &server.url);
    let requests =
        requests.replace("UUID", uuid).replace("{\"app_label\"", &format!("{{\"uuid\": \"{uuid}\", \"app_label\""));
    let curl =
        format!("curl() {{ command curl -sS --fail-with-body -H 'Authorization: Bearer {}' \"$@\"; }}\n", token.trim());
    let said = run(&home, &(curl + &requests));
    assert!(said.contains("\"state\":\"queued\"") && said.contains("ace_demo.weeklynews"), "{said}");
}

#[test]
fn the_example_of_an_import_works() {
    let home = Home::empty();
    home.file("lms/templates/app/edx_ace/hello/email/subject.txt", "Hello {{ user.name|upper }}");
    run(&home, &blocks("docs/templates.md", "sh import").join("\n"));
    let imported = home.read("templates/app/edx_ace/hello/email/subject.txt");
    assert_eq!(imported, "Hello {{ user?.name | django_upper }}");
}

#[test]
fn the_examples_of_templates_work() {
    let home = demo();
    symlink(repository("tests"), home.path("tests")).expect("linked");
    let explained = run(&home, &blocks("docs/templates.md", "sh demo").join("\n"));
    assert!(explained.contains("ace_demo.coursedigest"), "{explained}");
    // One page is enough here; another test takes pictures of all of them.
    let pages = home.list("target/previews").into_iter().filter(|file| file.ends_with(".html"));
    for page in pages.skip(1) {
        std::fs::remove_file(home.path(&format!("target/previews/{page}"))).expect("removed");
    }
    run(&home, &blocks("docs/templates.md", "sh look").join("\n"));
    assert_eq!(home.list("target/shots").len(), 4);
}

/// The page's plugin, built by the page's commands.
#[test]
fn the_commands_that_build_a_plugin_by_hand_work() {
    let home = Home::empty();
    let (manifest, source) = (blocks("docs/plugins.md", "toml"), blocks("docs/plugins.md", "rust"));
    let manifest = manifest.iter().find(|block| block.starts_with("# Cargo.toml")).expect("a manifest");
    home.file("quiet_weekend/Cargo.toml", manifest);
    home.file("quiet_weekend/src/lib.rs", &source[0]);
    symlink(repository(""), home.path("ace")).expect("linked");
    // Tests use no network, and share what Cargo has built.
    stub(&home, "rustup", "exit 0");
    symlink(std::env!("CARGO_TARGET_TMPDIR"), home.path("quiet_weekend/target")).expect("linked");
    home.file("plugins/README", "");
    let build = blocks("docs/plugins.md", "sh build").join("\n").replace("/path/to/the/plugin/folder/", "../plugins/");
    run(&home, &format!("unset CARGO_TARGET_DIR\n{}cd quiet_weekend\n{build}", without_target()));
    home.config("");
    let plugins = home.ace(&["plugins", "--json"]).run().ok().lines();
    assert_eq!(plugins[0]["name"], "quiet_weekend");
    assert_eq!(plugins[0]["state"]["state"], "active", "{plugins:?}");
}

/// Settings for machines whose Rust has no standard library for plugins: it is built from Debian's sources.
fn without_target() -> &'static str {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc");
    let sysroot = String::from_utf8(sysroot.stdout).expect("text");
    if Path::new(sysroot.trim()).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return "";
    }
    "export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_abort CARGO_BUILD_RUSTC=/usr/bin/rustc\n"
}
