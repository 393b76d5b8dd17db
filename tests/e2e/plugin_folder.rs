//! A plugin folder with valid and invalid files: the valid ones are active, each invalid one is named, and a policy that cannot be
//! evaluated never lets a message pass by itself.

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{Home, assert_text, email, mail_home, message, repository};

/// Each kind of invalid file, and its reason.
const BAD: [(&str, &str); 12] = [
    ("bad name", "\"bad name\" cannot be a plugin's name: rename the file"),
    ("bystander", "exports none of openedx:ace/policy, openedx:ace/channel, openedx:ace/recipient-resolver"),
    ("core_module", "core WebAssembly module, not a component"),
    ("empty", "not a WebAssembly component"),
    ("from_the_future", "built for openedx:ace@2.0.0, and this host provides openedx:ace@1.1.0"),
    ("garbage", "not a WebAssembly component"),
    ("refusing", "it says it cannot work: config key \"enabled\": it says refuse"),
    ("stranger", "imports interfaces that this host does not provide: acme:billing/ledger@1.0.0"),
    ("syntax", "its manifest is faulty"),
    ("trapping", "enabled: "),
    ("truncated", "it does not compile"),
    ("unknown_key", "did you mean \"requests\"?"),
];

/// Puts one of each kind of invalid file into the folder.
fn spoil(home: &Home) {
    let whole = std::fs::read(repository("target/plugins/stub_policy.wasm")).expect("a plugin");
    home.file("plugins/bad name.wasm", &whole);
    home.file("plugins/garbage.wasm", "this is no plugin");
    home.file("plugins/empty.wasm", "");
    home.file("plugins/core_module.wasm", b"\0asm\x01\0\0\0");
    home.file("plugins/truncated.wasm", &whole[..whole.len() / 2]);
    home.file("plugins/unknown_key.wasm", &whole);
    home.file("plugins/unknown_key.toml", "[request]\nmailer = true\n");
    home.file("plugins/syntax.wasm", &whole);
    home.file("plugins/syntax.toml", "version = \"1\"\ndescription =\n");
    for guest in ["bystander", "from_the_future", "stranger"] {
        home.guest(guest, guest);
    }
    for (name, wish) in [("refusing", "refuse"), ("trapping", "trap")] {
        home.guest("faulty_policy", name);
        home.file(&format!("plugins/{name}.toml"), format!("[defaults]\nenabled = '{wish}'\n"));
    }
}

fn state<'a>(plugins: &'a [Value], name: &str) -> &'a Value {
    let found = plugins.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    &found["state"]
}

#[test]
fn each_invalid_file_is_named_with_its_reason_and_the_valid_one_is_active() {
    let server = Smtpd::start(&[]);
    let home = mail_home(&server.relay());
    spoil(&home);
    home.file("plugins/README.txt", "no plugin, and none of the host's business");

    let listed = home.ace(&["plugins", "--json"]).run().code(1);
    let plugins = listed.lines();
    assert_eq!(plugins.len(), BAD.len() + 1);
    for (name, reason) in BAD {
        let state = state(&plugins, name);
        assert_eq!(state["state"], "broken", "{name}");
        assert_text(&state["reason"], reason);
        listed.says(&format!("plugin={name:?}"));
    }
    assert_eq!(state(&plugins, "django_email")["state"], "active");
    let syntax = state(&plugins, "syntax")["reason"].as_str().expect("a reason");
    assert!(syntax.contains("syntax.toml:2"), "file and line: {syntax}");

    // Files that ace.toml does not name do not block messages.
    let done = home.send(&[message("note", json!({}))]).ok();
    assert_eq!(done.email()["state"], "sent");
    server.mail();
}

/// Sends a message with a policy in ace.toml for each invalid file.
fn send_past_bad_policies(on_error: &str) -> (Smtpd, Value) {
    let server = Smtpd::start(&[]);
    let named = |name: &str| format!("[plugins.{name}]\non-error = '{on_error}'\n");
    let named: String = BAD.iter().filter(|(name, _)| *name != "bad name").map(|(name, _)| named(name)).collect();
    let home = mail_home(&format!("{}\n{named}", server.relay()));
    spoil(&home);
    let note = message("note", json!({})).to_string();
    let done = home.ace(&["send", "--json", "--max-delay", "0", "-"]).input(note).run();
    let line = done.lines().remove(0);
    assert_eq!(done.code, Some(i32::from(line["failed"] == true)));
    (server, line)
}

#[test]
fn a_named_policy_that_cannot_be_evaluated_holds_the_message() {
    let (server, line) = send_past_bad_policies("retry");
    assert_eq!((&email(&line)["state"], &line["failed"]), (&json!("retry"), &json!(true)));
    assert!(server.mails().is_empty(), "it never fails open");
    let policies = line["report"]["policies"].as_array().expect("policies");
    assert_eq!(policies.len(), BAD.len() - 1);
    for (policy, (name, reason)) in policies.iter().zip(BAD.iter().skip(1)) {
        assert_eq!(policy["policy"], *name);
        assert_eq!(policy["broken"]["fault"]["kind"], "unavailable");
        assert_text(&policy["broken"]["fault"]["message"], reason);
    }
}

#[test]
fn a_named_policy_that_cannot_be_evaluated_denies_with_on_error_deny() {
    let (server, line) = send_past_bad_policies("deny");
    assert_eq!((&email(&line)["state"], &line["failed"]), (&json!("denied"), &json!(false)));
    let reasons = email(&line)["reasons"].as_array().expect("reasons");
    assert_eq!(reasons.len(), BAD.len() - 1);
    assert_text(&reasons[0]["reason"], "broken: it exports none of");
    assert!(server.mails().is_empty());
}

#[test]
fn a_named_policy_that_cannot_be_evaluated_is_skipped_only_with_on_error_allow() {
    let (server, line) = send_past_bad_policies("allow");
    assert_eq!(email(&line)["state"], "sent");
    assert_eq!(line["report"]["policies"][0]["broken"]["on_error"], "allow");
    server.mail();
}

#[test]
fn a_disabled_policy_does_not_block_messages() {
    let server = Smtpd::start(&[]);
    let home = mail_home(&format!("{}\n[plugins.garbage]\nenabled = false\n", server.relay()));
    home.file("plugins/garbage.wasm", "this is no plugin");
    let done = home.send(&[message("note", json!({}))]).ok();
    assert_eq!(done.email()["state"], "sent");
    let plugins = home.ace(&["plugins", "--json"]).run().ok().lines();
    assert_eq!(state(&plugins, "garbage")["state"], "disabled");
}

#[test]
fn a_missing_policy_that_ace_toml_names_prevents_the_start() {
    let home = mail_home("[relays.main]\nkind = 'discard'\n[plugins.stub_policy]\non-error = 'allow'\n");
    let done = home.send(&[message("note", json!({}))]).code(2);
    done.says("plugins.stub_policy");
    assert_eq!(done.stdout, "");
}

#[test]
fn a_valid_plugin_is_described() {
    let home = mail_home("[relays.main]\nkind = 'discard'\n");
    home.plugin("file_email");
    let plugins = home.ace(&["plugins", "--json"]).run().ok().lines();
    let (django, file) = (&plugins[0], &plugins[1]);
    assert_eq!((&django["name"], &django["namespaces"]), (&json!("django_email"), &json!(["openedx.ace.channel"])));
    assert_eq!((&django["granted"], &django["missing_grants"]), (&json!(["mailer"]), &json!([])));
    assert_eq!((&file["granted"], &file["missing_grants"]), (&json!([]), &json!(["outbox"])));
    assert_eq!(django["channel"]["channel_type"], "email");
    assert_eq!(django["revision"].as_str().map(str::len), Some(12));
    assert!(django["size"].as_u64() < Some(300 * 1024), "a guest is small");
    let table = home.ace(&["plugins"]).run().ok().stdout;
    assert!(table.contains("django_email") && table.contains("openedx.ace.channel"), "{table}");
}

#[test]
fn imports_that_are_not_granted_are_shown() {
    let home = Home::new(&[], "[relays.main]\nkind = 'discard'\n[plugins.hostile]\ngrants = { keyvalue = ['loot'] }\n");
    home.guest("hostile", "hostile");
    let plugin = &home.ace(&["plugins", "--json", "hostile"]).run().ok().lines()[0];
    let in_vain = json!(["openedx:ace/mailer@1.1.0", "openedx:ace/outbox@1.1.0"]);
    let told: std::collections::BTreeSet<&str> =
        plugin["imports_not_granted"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(json!(told), in_vain, "{plugin}");
    let table = home.ace(&["plugins"]).run().ok().stdout;
    assert!(table.contains("hostile") && table.contains("keyvalue:loot:read-write"), "{table}");
    let full = home.ace(&["plugins", "hostile"]).run().ok().stdout;
    for words in ["imports      ", "openedx:ace/mailer@1.1.0\n", "granted      keyvalue:loot:read-write", "revision"] {
        assert!(full.contains(words), "{words:?} is not in:\n{full}");
    }
    home.ace(&["plugins", "hostle"]).run().code(2).says("there is no plugin \"hostle\"");
}

#[test]
fn grants_are_shown_and_then_added_to_the_file() {
    let home = Home::new(&["django_email", "file_email"], "# Ours.\n[relays.main]\nkind = 'discard' # for now\n");
    let before = home.read("ace.toml");
    let asked = home.ace(&["plugins", "grant", "django_email"]).run().code(2);
    asked.says("nothing was written").says("hint: --yes");
    assert!(asked.stdout.contains("+grants = { mailer = true }"), "{}", asked.stdout);
    assert_eq!(home.read("ace.toml"), before);

    // Grants are written to a file, so the variable that names a server does not matter.
    let grant = home.ace(&["plugins", "grant", "django_email", "--yes"]);
    grant.env("ACE_SERVER", "http://127.0.0.1:1").run().ok();
    let after = home.read("ace.toml");
    assert!(after.starts_with(before.trim_end()), "{after}");
    assert!(after.contains("[plugins.django_email]\ngrants = { mailer = true }"), "{after}");
    home.ace(&["plugins", "grant", "django_email", "--yes"]).run().ok().says("has all the grants it requests");

    home.ace(&["plugins", "grant", "file_email", "--yes"]).run().code(2).says("hint: name one with --outbox");
    home.ace(&["plugins", "grant", "file_email", "--yes", "--outbox", "out"]).run().ok();
    let plugins = home.ace(&["plugins", "--json"]).run().ok().lines();
    assert!(plugins.iter().all(|plugin| plugin["missing_grants"] == json!([])), "{plugins:?}");
    assert_eq!(home.list(".").iter().filter(|name| name.ends_with(".tmp")).count(), 0);
}
