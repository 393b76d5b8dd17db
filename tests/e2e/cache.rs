//! The folder of compiled plugins: plugins are active whatever it contains, and whoever can write to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Done, Home};

const WARNING: &str = "Compiled code in the cache cannot be used";

/// A home with a cache of its own and two plugins.
fn home() -> Home {
    let home = Home::empty();
    ["stub_policy", "file_email"].iter().for_each(|plugin| home.plugin(plugin));
    home.file("ace.toml", "plugin-dir = 'plugins'\ncache-dir = 'compiled'\n");
    home
}

fn compiled(home: &Home) -> Vec<PathBuf> {
    home.list("compiled").iter().map(|name| home.path("compiled").join(name)).collect()
}

fn plugins(home: &Home) -> Done {
    home.ace(&["plugins", "--json"]).env("ACE_LOG", "warn").run().ok()
}

/// Replaces a file, because entries cannot be written in place.
fn put(path: &Path, content: &[u8]) {
    fs::remove_file(path).expect("removed");
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

#[test]
fn every_kind_of_damage_is_reported_once_and_compiled_again() {
    let home = home();
    plugins(&home);
    let files = compiled(&home);
    assert_eq!(files.len(), 2, "{files:?}");
    let [first, second] = [0, 1].map(|n| fs::read(&files[n]).expect("compiled code"));
    let flipped = |at: usize| {
        let mut bytes = first.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let zeroed = |range: std::ops::Range<usize>| {
        let mut bytes = first.clone();
        bytes[range].fill(0);
        bytes
    };
    let length = first.len();
    let damages: [(&str, Vec<u8>); 16] = [
        ("empty", vec![]),
        ("one byte", vec![0x7f]),
        ("its first page", first[..4096].to_vec()),
        ("its first half", first[..length / 2].to_vec()),
        ("without its last byte", first[..length - 1].to_vec()),
        ("without its first byte", first[1..].to_vec()),
        ("one byte longer", [&first[..], b"x"].concat()),
        ("a page longer", [&first[..], &[0; 4096]].concat()),
        ("a bit of its first bytes", flipped(5)),
        ("a bit of its section table", flipped(60)),
        ("a bit in the middle of its code", flipped(length / 2)),
        ("a bit of its checksum", flipped(length - 3)),
        ("a page of zeros in its code", zeroed(8192..12288)),
        ("zeros at its end", zeroed(length - 64..length)),
        ("the other plugin's code", second.clone()),
        ("something else", b"#!/bin/sh\n".repeat(500)),
    ];
    for (what, damage) in damages {
        put(&files[0], &damage);
        let done = plugins(&home);
        assert_eq!(done.stderr.matches(WARNING).count(), 1, "{what}: {}", done.stderr);
        done.says(&files[0].display().to_string());
        assert!(!plugins(&home).stderr.contains(WARNING), "{what}: it was replaced");
    }
    assert_eq!(compiled(&home), files, "nothing else is left there");
}

#[test]
fn a_folder_that_others_can_write_to_is_named_with_the_fix_and_plugins_are_active() {
    let home = home();
    fs::create_dir(home.path("compiled")).expect("made");
    fs::set_permissions(home.path("compiled"), fs::Permissions::from_mode(0o777)).expect("set");
    let done = plugins(&home);
    assert_eq!(done.stderr.matches("(cache-dir) cannot be used").count(), 1, "{}", done.stderr);
    done.says("mode 777").says(&format!("chmod go-w {}", home.path("compiled").display()));
    assert_eq!(compiled(&home), Vec::<PathBuf>::new(), "nothing is written there");
    fs::set_permissions(home.path("compiled"), fs::Permissions::from_mode(0o755)).expect("set");
    plugins(&home);
    assert_eq!(compiled(&home).len(), 2);
}

#[test]
fn code_of_other_settings_is_pruned_and_code_in_use_is_not() {
    let home = home();
    plugins(&home);
    let files = compiled(&home);
    // Code that was not used for a year, as an earlier version left it.
    let stale = home.path(&format!("compiled/{}-{:016x}.cwasm", "ab".repeat(32), 7));
    fs::copy(&files[0], &stale).expect("copied");
    let year_ago =
        fs::metadata(&stale).expect("there").modified().expect("a time") - std::time::Duration::from_secs(365 * 86_400);
    for path in files.iter().chain([&stale]) {
        fs::File::open(path).expect("there").set_modified(year_ago).expect("set");
    }
    plugins(&home);
    assert_eq!(compiled(&home), files, "what is used stays, however old it is");
    assert_eq!(home.ace(&["check"]).env("ACE_LOG", "warn").run().stderr.matches(WARNING).count(), 0);
}
