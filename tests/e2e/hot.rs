//! Hot reload: plugins, templates and settings are replaced while `ace send -` reads from an open pipe.

mod links;
mod shadow;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{GRANTED, Home, assert_text, channel, message, wait_for};

const RELAY: &str = "[relays.main]\nkind = \"discard\"\n";

/// The settings of a stub policy that denies these types.
fn stub(name: &str, deny: &str) -> String {
    format!("[plugins.{name}]\non-error = \"deny\"\nconfig = {{ deny = {deny} }}\n")
}

fn home(policies: &str) -> Home {
    let home = Home::new(&["django_email", "stub_policy"], &format!("{RELAY}{GRANTED}{policies}"));
    home.email_templates("note", "A subject", "<p>Old</p>", "Old");
    home
}

/// A running host, one message at a time.
struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn start(home: &Home) -> Host {
        let mut child = home.ace(&["send", "--json", "--max-delay", "0", "-"]).start_open();
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
        Host { child, input, output: BufReader::new(output) }
    }

    /// Sends one message and returns its report.
    fn send(&mut self) -> Value {
        let line = message("note", json!({})).to_string();
        writeln!(self.input.as_mut().expect("still open"), "{line}").expect("the host reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the host answers");
        serde_json::from_str(&answer).expect("it answers in JSON")
    }

    /// Sends until the e-mail of a message has this state, and returns its report.
    fn send_until(&mut self, state: &str) -> Value {
        wait_for(&format!("{state:?}"), || Some(self.send()).filter(|told| channel(told, "email")["state"] == state))
    }

    fn revision(told: &Value, policy: &str) -> String {
        let policies = told["report"]["policies"].as_array().expect("policies");
        let report = policies.iter().find(|p| p["policy"] == policy).unwrap_or_else(|| panic!("{policy} in {told}"));
        report["revision"].as_str().unwrap_or_default().to_owned()
    }

    fn hang_up(&self) {
        // SAFETY: sends a signal to a child process of this test.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGHUP) };
    }

    /// Ends it, and returns its stderr.
    fn end(mut self) -> String {
        drop(self.input.take());
        let output = self.child.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Replaces a file atomically.
fn install(from: &std::path::Path, to: &std::path::Path) {
    let temporary = to.with_extension("new");
    std::fs::copy(from, &temporary).expect("copied");
    std::fs::rename(temporary, to).expect("renamed");
}

#[test]
fn a_policy_that_is_added_or_removed_takes_effect() {
    let home = home("");
    let mut host = Host::start(&home);
    assert_eq!(channel(&host.send(), "email")["state"], "sent", "the stub denies nothing");
    home.file("plugins/second.toml", "[defaults]\ndeny = [\"email\"]\n");
    install(&home.path("plugins/stub_policy.wasm"), &home.path("plugins/second.wasm"));
    let told = host.send_until("denied");
    assert_eq!(channel(&told, "email")["reasons"][0]["policy"], "second");
    std::fs::remove_file(home.path("plugins/second.wasm")).expect("removed");
    host.send_until("sent");
    host.end();
}

#[test]
fn new_settings_take_effect_and_invalid_ones_change_nothing() {
    let home = home(&stub("stub_policy", "[]"));
    let mut host = Host::start(&home);
    host.send_until("sent");
    home.config(&format!("{RELAY}{GRANTED}{}", stub("stub_policy", "[\"*\"]")));
    host.send_until("denied");
    home.config(&format!("{RELAY}{GRANTED}{}\nnonsense = 1\n", stub("stub_policy", "[]")));
    host.hang_up();
    // It is read once it has not changed for a moment.
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        assert_eq!(channel(&host.send(), "email")["state"], "denied", "the previous version stays active");
    }
    assert_text(&json!(host.end()), "nonsense");
}

#[test]
fn after_a_bad_new_version_the_old_one_stays_active_and_it_is_reported() {
    let home = home(&stub("stub_policy", "[\"push\"]"));
    let mut host = Host::start(&home);
    let before = Host::revision(&host.send(), "stub_policy");
    let good = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    home.file("junk", &good[..good.len() / 2]);
    for file in ["junk", "plugins/stub_policy.toml"] {
        // A file with an old time is not being written.
        let file = std::fs::File::options().append(true).open(home.path(file)).expect("there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("it is ours");
    }
    std::fs::rename(home.path("junk"), home.path("plugins/stub_policy.wasm")).expect("renamed");
    host.hang_up();
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        let told = host.send();
        assert_eq!(channel(&told, "email")["state"], "sent", "{told}");
        assert_eq!(Host::revision(&told, "stub_policy"), before);
    }
    home.file("plugins/stub_policy.toml", "version = \"9.9.9\"\n[defaults]\ndeny = [\"push\"]\n");
    home.file("good", &good);
    install(&home.path("good"), &home.path("plugins/stub_policy.wasm"));
    wait_for("the next good version", || {
        Some(host.send()).filter(|told| Host::revision(told, "stub_policy") != before)
    });
    assert_text(&json!(host.end()), "the previous one stays active");
}

#[test]
fn a_named_policy_whose_file_is_removed_is_broken() {
    // One that is not part of the program, which would take its place.
    let home = home(&stub("own_policy", "[]"));
    let file = home.path("plugins/own_policy.wasm");
    for (of, to) in [("toml", home.path("plugins/own_policy.toml")), ("wasm", file.clone())] {
        install(&home.path(&format!("plugins/stub_policy.{of}")), &to);
    }
    let mut host = Host::start(&home);
    host.send_until("sent");
    std::fs::rename(&file, home.path("aside.wasm")).expect("moved");
    let told = host.send_until("denied");
    assert_text(&channel(&told, "email")["reasons"][0]["reason"], "removed from the plugin folder");
    std::fs::rename(home.path("aside.wasm"), &file).expect("moved back");
    host.send_until("sent");
    host.end();
}

#[test]
fn an_incomplete_copy_is_never_loaded() {
    let home = home("");
    let good = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    home.file("plugins/slow.toml", "[defaults]\ndeny = [\"email\"]\n");
    let mut host = Host::start(&home);
    host.send();
    let mut file = std::fs::File::create(home.path("plugins/slow.wasm")).expect("made");
    for piece in good.chunks(good.len() / 6 + 1) {
        file.write_all(piece).expect("written");
        file.sync_all().expect("written");
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            host.send();
        }
    }
    drop(file);
    host.send_until("denied");
    let said = host.end();
    assert!(!said.contains("was rejected"), "{said}");
}

#[test]
fn an_edited_template_is_used_and_a_broken_edit_is_not() {
    let home = home("");
    // A relay that stores the mails.
    home.config(&format!("[relays.main]\nkind = \"file\"\ndir = \"mails\"\n{GRANTED}"));
    let mut host = Host::start(&home);
    let sent_with = |host: &mut Host, text: &str| {
        wait_for(text, || {
            let told = host.send();
            assert_eq!(channel(&told, "email")["state"], "sent", "{told}");
            let mail =
                home.read(&format!("mails/{}.django_email.eml", told["report"]["uuid"].as_str().expect("a uuid")));
            Some(()).filter(|()| mail.contains(text))
        });
    };
    sent_with(&mut host, "Old");
    home.email_templates("note", "A subject", "<p>New</p>", "New");
    sent_with(&mut host, "New");
    home.email_templates("note", "A subject", "<p>{{ broken</p>", "Newer");
    sent_with(&mut host, "Newer");
    sent_with(&mut host, "<p>New</p>");
    host.end();
}

/// A template and a catalogue are edited, correctly and incorrectly in turn, while messages are sent: each mail is complete, in one
/// version or the other, and each error is reported with its line.
#[test]
fn edits_of_a_template_and_a_catalogue_under_load_fail_nothing() {
    let home = home("");
    let file = "templates/locale/fr/LC_MESSAGES/django.po";
    // Atomically, as editors do.
    let write =
        |path: &str, text: String| std::fs::rename(home.file("written", text), home.path(path)).expect("renamed");
    let catalog = |text: &str| write(file, format!("msgid \"Hi\"\nmsgstr \"{text}\"\n"));
    std::fs::create_dir_all(home.path("templates/locale/fr/LC_MESSAGES")).expect("made");
    let template = |version: &str| {
        write("templates/app/edx_ace/note/email/body.txt", format!("{version} {{{{ trans(message='Hi') }}}}"));
    };
    catalog("Salut");
    template("v1");
    home.config(&format!("[relays.main]\nkind = \"file\"\ndir = \"mails\"\n{GRANTED}"));
    let mut child = home.ace(&["send", "--json", "--max-delay", "0", "-"]).start_open();
    let (mut input, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let said = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let (heard, stderr) = (said.clone(), child.stderr.take().expect("piped"));
    let listener = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            heard.lock().expect("no thread panicked").push_str(&line);
        }
    });
    let newest = std::sync::Arc::new(std::sync::Mutex::new((0_usize, String::new())));
    let (seen, mails) = (newest.clone(), home.path("mails"));
    // Every mail is checked: it is complete, of one version, and in the message's language.
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map(|line| line.expect("it answers")) {
            let told: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(channel(&told, "email")["state"], "sent", "{told}");
            let uuid = told["report"]["uuid"].as_str().expect("a uuid");
            let mail = std::fs::read_to_string(mails.join(format!("{uuid}.django_email.eml"))).expect("written");
            let known =
                ["v1 Salut", "v2 Salut", "v1 Bonjour", "v2 Bonjour"].into_iter().find(|text| mail.contains(text));
            let mut seen = seen.lock().expect("no thread panicked");
            *seen = (seen.0 + 1, known.unwrap_or_else(|| panic!("{mail}")).to_owned());
        }
    });
    let french = message("note", json!({"language": "fr"}));
    let mut send_until = |what: &str, is_so: &dyn Fn() -> bool| {
        wait_for(what, || {
            for _ in 0..20 {
                writeln!(input, "{french}").expect("the host reads");
            }
            Some(()).filter(|()| is_so())
        });
    };
    let text = || newest.lock().expect("no thread panicked").1.clone();
    let has_said = |words: &str| said.lock().expect("no thread panicked").contains(words);
    send_until("the first", &|| text() == "v1 Salut");
    catalog("Bonjour");
    send_until("the new catalogue", &|| text() == "v1 Bonjour");
    home.file(file, "msgid \"Hi\"\nmsgstr \"Broken\n");
    home.file("templates/app/edx_ace/note/email/body.txt", "v3\n{{ broken");
    send_until("the lines that are wrong", &|| {
        has_said("django.po:2: a closing quote is missing") && has_said("body.txt:2: ")
    });
    assert_eq!(text(), "v1 Bonjour", "what is broken is not used");
    template("v2");
    send_until("the new template", &|| text() == "v2 Bonjour");
    catalog("Salut");
    send_until("both", &|| text() == "v2 Salut");
    drop(input);
    reader.join().expect("no panic");
    listener.join().expect("no panic");
    child.wait().expect("it ends");
}

/// Temporary files of editors and installers are not plugins, and their way of saving works: the file is renamed, written again, and
/// the renamed copy is removed.
#[test]
fn files_of_editors_are_not_plugins_and_their_way_of_saving_works() {
    let home = home(&stub("stub_policy", "[]"));
    let mut host = Host::start(&home);
    host.send_until("sent");
    let good = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    for name in ["4913", ".stub_policy.toml.swp", "stub_policy.toml~", "#stub_policy.toml#", ".#stub_policy.wasm"] {
        home.file(&format!("plugins/{name}"), "neither here nor there");
    }
    for name in [".rsync.stub_policy.wasm", "stub_policy.wasm.part", "stub_policy.wasm~"] {
        home.file(&format!("plugins/{name}"), &good[..good.len() / 2]);
    }
    let toml = home.path("ace.toml");
    std::fs::rename(&toml, home.path("ace.toml~")).expect("moved aside");
    home.config(&format!("{RELAY}{GRANTED}{}", stub("stub_policy", "[\"*\"]")));
    std::fs::remove_file(home.path("ace.toml~")).expect("removed");
    host.send_until("denied");
    let listed = home.ace(&["plugins", "--json"]).run().ok();
    assert_eq!(listed.lines().len(), 2, "{}", listed.stdout);
    let said = host.end();
    assert_eq!(said.lines().count(), 1, "nothing but the sum: {said}");
}

/// A link to a file elsewhere, whose change is not an event in a watched folder.
#[test]
fn a_hangup_reloads_everything() {
    let home = home(&stub("stub_policy", "[]"));
    std::fs::create_dir(home.path("elsewhere")).expect("made");
    std::fs::rename(home.path("ace.toml"), home.path("elsewhere/ace.toml")).expect("moved");
    std::os::unix::fs::symlink("elsewhere/ace.toml", home.path("ace.toml")).expect("linked");
    let mut host = Host::start(&home);
    assert_eq!(channel(&host.send(), "email")["state"], "sent");
    let text = home.read("ace.toml").replace("deny = []", "deny = [\"*\"]");
    home.file("elsewhere/ace.toml", text);
    assert_eq!(channel(&host.send(), "email")["state"], "sent", "no one has sent SIGHUP");
    host.hang_up();
    host.send_until("denied");
    host.end();
}

/// Both files are replaced before the folder is unchanged for a moment, so no message sees one without the other.
#[test]
fn component_and_manifest_are_one_revision() {
    let home = home("");
    let good = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    // A component with the same behaviour and an additional custom section.
    let other = [&good[..], b"\0\x06\x05other"].concat();
    let mut host = Host::start(&home);
    let mut seen = vec![Host::revision(&host.send(), "stub_policy")];
    for (component, denied) in [(&other, "sms"), (&good, "push"), (&other, "sms")] {
        // Two files cannot be replaced at once, so no reload of the previous edit may run between them.
        std::thread::sleep(Duration::from_millis(300));
        let manifest = home.file("new.toml", format!("[defaults]\ndeny = [\"{denied}\"]\n"));
        let component = home.file("new.wasm", component);
        std::fs::rename(component, home.path("plugins/stub_policy.wasm")).expect("in place");
        std::fs::rename(manifest, home.path("plugins/stub_policy.toml")).expect("in place");
        let before = seen.last().cloned();
        let told = wait_for("the next revision", || {
            Some(host.send()).filter(|told| Some(Host::revision(told, "stub_policy")) != before)
        });
        let policies = told["report"]["policies"].as_array().expect("policies");
        assert_eq!(policies[0]["result"]["deny"][0]["channel_type"], denied, "{told}");
        seen.push(Host::revision(&told, "stub_policy"));
    }
    assert_eq!(seen[1], seen[3], "the same two files are the same revision");
    assert_ne!(seen[1], seen[2]);
    host.end();
}

/// The same component with a note, which makes it another revision.
fn tagged(wasm: &[u8], note: &str) -> Vec<u8> {
    let section = [b"\x04note", note.as_bytes()].concat();
    // A custom section: its id and its length (one byte of LEB128).
    [wasm, &[0, u8::try_from(section.len()).expect("short")], &section].concat()
}

/// The number of code mappings of a process. (Data of old revisions stays mapped in the slots of the pool.)
fn mapped_code(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(".cwasm")).count()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Two builds of a policy alternate every 100 ms while messages are sent: no message is lost, failed or duplicated, and each is
/// evaluated by one of the two. A build's memory is freed once the last message that started with it has ended.
#[test]
fn reloads_under_load_lose_fail_and_duplicate_nothing() {
    let home = home(&stub("stub_policy", "[\"push\"]"));
    let wasm = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    let builds = ["one", "two"].map(|note| home.file(note, tagged(&wasm, note)));
    install(&builds[0], &home.path("plugins/stub_policy.wasm"));
    let mut host = Host::start(&home);
    let first = host.send();
    let Host { mut child, mut input, output } = host;
    let (pid, reloads) = (child.id(), 30);
    let (mapped, resident) = (mapped_code(pid), resident_kib(pid));
    let reader = std::thread::spawn(move || output.lines().map(|line| line.expect("a line")).collect::<Vec<_>>());
    let mut written = std::collections::BTreeSet::new();
    for reload in 1..=reloads {
        install(&builds[reload % 2], &home.path("plugins/stub_policy.wasm"));
        let until = Instant::now() + Duration::from_millis(100);
        // The maximum, however fast the host is.
        for _ in 0..200 {
            let message = message("note", json!({"uuid": uuid::Uuid::new_v4().to_string()}));
            writeln!(input.as_mut().expect("open"), "{message}").expect("the host reads");
            written.insert(message["uuid"].as_str().expect("a text").to_owned());
            if Instant::now() > until {
                break;
            }
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
    wait_for("old code to be unmapped", || (mapped_code(pid) <= mapped).then_some(()));
    let grown = resident_kib(pid).saturating_sub(resident);
    drop(input.take());
    let told = reader.join().expect("no panic");
    assert!(child.wait().expect("it ends").success());
    let told: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(told.len(), written.len(), "one outcome for each message");
    let uuids = told.iter().filter_map(|t| t["report"]["uuid"].as_str().map(str::to_owned));
    assert_eq!(uuids.collect::<std::collections::BTreeSet<_>>(), written, "each once");
    assert!(told.iter().all(|t| channel(t, "email")["state"] == "sent"), "none failed");
    assert!(told.iter().all(|t| channel(t, "push")["state"] == "denied"), "the policy was always enforced");
    let revisions: std::collections::BTreeSet<String> = told.iter().map(|t| Host::revision(t, "stub_policy")).collect();
    assert!(revisions.len() == 2 && revisions.contains(&Host::revision(&first, "stub_policy")), "{revisions:?}");
    assert!(grown < 64 * 1024, "{grown} KiB more after {reloads} reloads");
}

/// Deployments replace a folder by another under the same name.
#[test]
fn a_folder_that_replaces_another_is_loaded_and_watched() {
    let home = home("");
    std::fs::rename(home.path("plugins"), home.path("release-1")).expect("renamed");
    let point_at = |release: &str| {
        std::os::unix::fs::symlink(release, home.path("next")).expect("linked");
        std::fs::rename(home.path("next"), home.path("plugins")).expect("renamed");
    };
    point_at("release-1");
    let mut host = Host::start(&home);
    host.send_until("sent");
    home.file("release-2/second.toml", "[defaults]\ndeny = [\"email\"]\n");
    for (from, to) in [("django_email", "django_email"), ("stub_policy", "stub_policy"), ("stub_policy", "second")] {
        install(&home.path(&format!("release-1/{from}.wasm")), &home.path(&format!("release-2/{to}.wasm")));
    }
    point_at("release-2");
    host.send_until("denied");
    std::fs::remove_file(home.path("release-2/second.wasm")).expect("removed");
    host.send_until("sent");
    host.end();
}

#[test]
fn template_folders_that_a_reload_named_are_watched() {
    let home = home("");
    home.config(&format!("[relays.main]\nkind = \"file\"\ndir = \"mails\"\n{GRANTED}"));
    let mut host = Host::start(&home);
    host.send_until("sent");
    let file = "other/app/edx_ace/note/email/body.txt";
    home.file(file, "Other");
    home.file("ace.toml", home.read("ace.toml").replace("['templates'", "['other', 'templates'"));
    for text in ["Other", "Newer"] {
        home.file(file, text);
        wait_for(text, || {
            let told = host.send();
            let uuid = told["report"]["uuid"].as_str().expect("a uuid");
            home.read(&format!("mails/{uuid}.django_email.eml")).contains(text).then_some(())
        });
    }
    host.end();
}
