//! Files behind links: ConfigMaps as Kubernetes mounts them, and releases that replace each other.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::Host;
use crate::support::{GRANTED, Home, channel, mail_home, message, wait_for};

/// A relay that stores its mails in the folder `mails`.
const RELAY: &str = "[relays.main]\nkind = \"file\"\ndir = \"mails\"\n";
const NOTE: &str = "app/edx_ace/note/email";

/// Replaces a link atomically.
fn swap(link: &Path, target: &str) {
    let fresh = link.with_file_name("fresh-link");
    symlink(target, &fresh).expect("linked");
    fs::rename(fresh, link).expect("swapped");
}

/// Writes a file with an old modification time.
fn old(home: &Home, file: &str, text: &str) {
    let path = home.file(file, text);
    File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("ours");
}

/// A home whose only template folder is `folder`.
fn home(folder: &str) -> Home {
    let home = Home::new(&["django_email"], "");
    let config = home.read("ace.toml");
    let line = config.lines().find(|line| line.starts_with("template-dirs")).expect("it is there");
    let config = config.replace(line, &format!("template-dirs = ['{folder}']"));
    home.file("ace.toml", format!("{config}\n{GRANTED}\n{RELAY}"));
    home
}

/// One release of the message `note`, below a folder: all files are as long and as old as those of any other.
fn release(home: &Home, folder: &str, subject: &str) {
    let files = [("from_name.txt", "A"), ("subject.txt", subject), ("body.html", "<p>x</p>"), ("body.txt", "x")];
    for (file, text) in files.into_iter().chain([("head.html", "<title>x</title>")]) {
        old(home, &format!("{folder}/{file}"), text);
    }
}

/// Sends until a mail has this subject.
fn until_subject(home: &Home, host: &mut Host, subject: &str) {
    let line = format!("Subject: {subject}\r\n");
    wait_for(subject, || {
        assert_eq!(channel(&host.send(), "email")["state"], "sent");
        home.list("mails").iter().any(|mail| home.read(&format!("mails/{mail}")).contains(&line)).then_some(())
    });
}

#[test]
fn an_updated_config_map_is_reloaded() {
    let home = home("mounted");
    // The layout of the kubelet: each key is a link through `..data`, which points to a folder of this version.
    release(&home, "mounted/..2026_01", "One");
    symlink("..2026_01", home.path("mounted/..data")).expect("linked");
    fs::create_dir_all(home.path("mounted").join(NOTE)).expect("made");
    for file in home.list("mounted/..2026_01") {
        let target = Path::new("../../../../..data").join(&file);
        symlink(target, home.path("mounted").join(NOTE).join(file)).expect("linked");
    }
    let mut host = Host::start(&home);
    until_subject(&home, &mut host, "One");
    release(&home, "mounted/..2026_02", "Two");
    swap(&home.path("mounted/..data"), "..2026_02");
    fs::remove_dir_all(home.path("mounted/..2026_01")).expect("removed");
    until_subject(&home, &mut host, "Two");
    host.end();
}

#[test]
fn a_parent_folder_that_is_a_swapped_link_is_followed() {
    let home = home("current/templates");
    for (release_name, subject) in [("r1", "One"), ("r2", "Two"), ("r3", "Six")] {
        release(&home, &format!("{release_name}/templates/{NOTE}"), subject);
    }
    symlink("r1", home.path("current")).expect("linked");
    let mut host = Host::start(&home);
    until_subject(&home, &mut host, "One");
    swap(&home.path("current"), "r2");
    until_subject(&home, &mut host, "Two");
    // The folder that it now points to is watched, too.
    old(&home, &format!("r2/templates/{NOTE}/subject.txt"), "Ten");
    until_subject(&home, &mut host, "Ten");
    swap(&home.path("current"), "r3");
    until_subject(&home, &mut host, "Six");
    host.end();
}

#[test]
fn a_subfolder_that_points_through_a_swapped_link_elsewhere_is_followed() {
    let home = home("templates");
    for (release_name, subject) in [("r1", "One"), ("r2", "Two")] {
        release(&home, &format!("{release_name}/{NOTE}"), subject);
    }
    symlink("r1", home.path("current")).expect("linked");
    let mut host = Host::start(&home);
    assert_eq!(channel(&host.send(), "email")["state"], "template_error", "there is no template yet");
    // The link is created while the folder is watched, and points through a link outside that folder.
    symlink("../current/app", home.path("templates/app")).expect("linked");
    wait_for("its templates", || (channel(&host.send(), "email")["state"] == "sent").then_some(()));
    until_subject(&home, &mut host, "One");
    swap(&home.path("current"), "r2");
    until_subject(&home, &mut host, "Two");
    old(&home, &format!("r2/{NOTE}/subject.txt"), "Ten");
    until_subject(&home, &mut host, "Ten");
    host.end();
}

#[test]
fn a_template_of_the_same_size_and_time_is_reloaded() {
    let home = home("templates");
    release(&home, &format!("templates/{NOTE}"), "One");
    let mut host = Host::start(&home);
    until_subject(&home, &mut host, "One");
    // Written in place, so the inode stays the same.
    old(&home, &format!("templates/{NOTE}/subject.txt"), "Two");
    until_subject(&home, &mut host, "Two");
    old(&home, &format!("templates/{NOTE}/subject.fresh"), "Six");
    let path = |file: &str| home.path("templates").join(NOTE).join(file);
    fs::rename(path("subject.fresh"), path("subject.txt")).expect("renamed");
    until_subject(&home, &mut host, "Six");
    host.end();
}

#[test]
fn ace_toml_of_a_config_map_is_reloaded() {
    let home = mail_home("[relays.main]\nkind = \"discard\"\n");
    let off = "[delivery]\nretry-delay = \"31s\"\n[plugins.django_email]\nenabled = ";
    let config = home.read("ace.toml").replace(GRANTED, "");
    for (version, enabled) in [("..1", "true "), ("..2", "false")] {
        let text = format!("{config}\n{off}{enabled}\ngrants = {{ mailer = true }}\n");
        old(
            &home,
            &format!("etc/{version}/ace.toml"),
            &text.replace("'plugins'", "'../plugins'").replace("'templates'", "'../templates'"),
        );
    }
    symlink("..1", home.path("etc/..data")).expect("linked");
    symlink("..data/ace.toml", home.path("etc/ace.toml")).expect("linked");
    let mut child = home.ace(&["--config", "etc/ace.toml", "send", "--json", "--max-delay", "0", "-"]).start_open();
    let (input, output) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
    let mut host = Host { child, input, output: std::io::BufReader::new(output) };
    let state = |told: Value| told["report"]["channels"][0]["state"].clone();
    assert_eq!(state(host.send()), "sent", "{}", message("note", json!({})));
    swap(&home.path("etc/..data"), "..2");
    wait_for("the channel to be disabled", || (state(host.send()) == "unsupported").then_some(()));
    host.end();
}
