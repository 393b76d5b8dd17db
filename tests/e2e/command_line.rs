//! The command line itself: help, versions, completions, man pages.

use std::process::Command;

use serde_json::Value;

use crate::support::{Done, Home};

fn ace(arguments: &[&str]) -> Done {
    Home::empty().ace(arguments).run()
}

#[test]
fn versions_are_shown_in_words_and_as_json() {
    assert_eq!(ace(&["--version"]).ok().stdout, "ace 0.1.0\n");
    let shown = ace(&["version"]).ok().stdout;
    let versions: Value = serde_json::from_str(&ace(&["version", "--json"]).ok().stdout).expect("JSON");
    let text = |key: &str| versions[key].as_str().unwrap_or_else(|| panic!("{key}: {versions}")).to_owned();
    let commit = text("commit");
    assert!(commit == "unknown" || (commit.len() >= 40 && commit.bytes().all(|c| c.is_ascii_hexdigit())), "{commit}");
    assert!(text("wasmtime").split('.').count() == 3 && text("interface").starts_with("1."), "{versions}");
    for key in ["version", "commit", "interface", "wasmtime"] {
        assert!(shown.contains(&text(key)), "{key}: {shown}");
    }
}

#[test]
fn the_options_of_a_command_come_before_those_of_every_command() {
    for command in [&["send"][..], &["messages"], &["plugins"], &["batch"], &["check"], &["token", "create"]] {
        let help = ace(&[command, &["--help"]].concat()).ok().stdout;
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} is not in:\n{help}"));
        assert!(at("Options:") < at("Global options:"), "{help}");
        for option in ["--config", "--log", "--log-format", "--json"] {
            assert!(help.rfind(option) > Some(at("Global options:")), "{option}: {help}");
        }
    }
    for command in ["send", "explain", "messages", "batch", "batches", "token", "plugins", "serve", "suppressions"] {
        assert!(ace(&[command, "--help"]).ok().stdout.contains("Examples:\n  ace "), "{command}");
        assert!(!ace(&[command, "-h"]).ok().stdout.contains("Examples:"), "{command}: the short help is short");
    }
}

#[test]
fn bash_accepts_the_completions() {
    let home = Home::empty();
    home.file("ace.bash", home.ace(&["completions", "bash"]).run().ok().stdout);
    let complete = "bash -n ace.bash && source ace.bash && complete -p ace &&
        COMP_WORDS=(ace mess) COMP_CWORD=1 && _ace ace mess ace && echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", complete]).current_dir(home.path("")).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("-F _ace"), "{output:?}");
    assert!(said.ends_with("messages\n"), "{said}");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(ace(&["completions", shell]).ok().stdout.contains("messages"), "{shell}");
    }
}

#[test]
fn every_command_has_a_man_page_that_groff_accepts() {
    let home = Home::empty();
    home.ace(&["man", "--out", "man1"]).run().ok().says("pages in man1");
    let pages = home.list("man1");
    for page in ["ace.1", "ace-messages.1", "ace-kv-get.1", "ace-plugin-test.1"] {
        assert!(pages.iter().any(|one| one == page), "{page} is not in {pages:?}");
    }
    assert!(home.ace(&["man"]).run().ok().stdout.contains(".TH ace 1"));
    // Where groff is installed. The pages are in UTF-8, as `man` reads them.
    let check = |page: &String| {
        Command::new("groff").args(["-Kutf8", "-z", "-ww", "-man"]).arg(home.path("man1").join(page)).output()
    };
    for (page, checked) in pages.iter().filter_map(|page| Some((page, check(page).ok()?))) {
        assert!(checked.status.success() && checked.stderr.is_empty(), "{page}: {checked:?}");
    }
}
