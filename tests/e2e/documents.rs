//! The shell blocks of README.md, docs/cli.md and docs/serving.md, run as they are written. Which marks there are is said by
//! tests/documents.rs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::serve::{LISTEN, Server};
use crate::support::{Home, repository};

/// The blocks of a page with this mark, in their order.
fn blocks(page: &str, mark: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(page)).expect("the page");
    let start = format!("```{mark}\n");
    let blocks = text.split(&start).skip(1);
    blocks.map(|block| block.split("```").next().expect("an end").to_owned()).collect()
}

/// A folder that looks like the repository after `make demo`, with the files that examples name, and stand-ins for a browser, an
/// application and jq.
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
        let file = home.file(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("allowed");
    }
    home
}

/// Runs a script in a home, with its `bin` and `ace` on the path; gives stdout.
fn run(home: &Home, script: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let ace = Path::new(env!("CARGO_BIN_EXE_ace")).parent().expect("a folder");
    let mut shell = Command::new("bash");
    shell.args(["-e", "-o", "pipefail", "-c", script]).current_dir(home.path(""));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACE_")) {
        shell.env_remove(variable);
    }
    shell.env("PATH", format!("{}:{}:{path}", home.path("bin").display(), ace.display()));
    let output = shell.env("ACE_CONFIG", "target/demo/ace.toml").output().expect("a shell");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
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
