//! The code in docs/moving-from-edx-ace.md: the code "before" passes the page's cases under the real edx-ace, and the code "after" is
//! built and passes the same cases.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::author::{cargo_test, plugin};
use crate::support::{Home, repository};

/// The only block of the page with this info string.
fn block(info: &str) -> String {
    let page = std::fs::read_to_string(repository("docs/moving-from-edx-ace.md")).expect("the page");
    let found: Vec<&str> = page.split(&format!("```{info}\n")).skip(1).collect();
    let [one] = found.as_slice() else { panic!("{info}: {} blocks", found.len()) };
    one.split("```").next().expect("an end").to_owned()
}

fn before(kind: &str) {
    // The link is not resolved, because Python finds its environment by it.
    let mut python = Command::new(repository("target/venv").join("bin/python"));
    let output = python.arg(repository("tests/e2e/moving.py")).arg(kind).output().expect("python");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{kind}: {}\n{}", said(&output.stdout), said(&output.stderr));
}

/// Serializes builds, because two projects of one name in one target folder replace each other's programs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Creates a project with `ace plugin new`, and puts the page's source, manifest and cases into it.
fn after(kind: &str, language: &str, source: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::empty();
    plugin(&home, &["new", "moved", "--kind", kind, "--lang", language]).ok();
    for (file, info) in [
        (source, format!("{language} after-{kind}")),
        ("moved.toml", format!("toml {kind}")),
        ("tests/cases.json", format!("json {kind}")),
    ] {
        home.file(&format!("moved/{file}"), block(&info));
    }
    plugin(&home, &["build", "moved"]).ok();
    plugin(&home, &["test", "moved"]).ok().says("4 cases, 0 failed");
    if language == "rust" {
        let (is_sound, said) = cargo_test(&home, "moved");
        assert!(is_sound && said.contains("test tests::table ... ok"), "{said}");
    }
}

#[test]
fn a_policy_in_python_answers_as_before() {
    before("policy");
    after("policy", "python", "moved.py");
}

#[test]
fn a_policy_in_rust_answers_as_before() {
    after("policy", "rust", "src/lib.rs");
}

#[test]
fn a_channel_in_python_answers_as_before() {
    before("channel");
    after("channel", "python", "moved.py");
}

#[test]
fn a_channel_in_rust_answers_as_before() {
    after("channel", "rust", "src/lib.rs");
}
