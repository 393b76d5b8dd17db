//! What a reload cannot change.

use super::*;

/// A value for every key that is fixed at the start, each other than its default.
const OTHER: &str = r#"
cache-dir = "other"
cache-max-age = "1d"
[relays.other]
kind = "discard"
[keyvalue]
max-entries = 5
[queue]
max-messages = 5
[http]
timeout = "5s"
[server]
drain = "5s"
[feedback]
max-events = 5
[events]
keep = true
[webhooks.other]
url = "https://example.com/hook"
secret = { env = "SECRET" }
[otlp]
endpoint = "http://127.0.0.1:4318"
[limits]
instances = 5
[compiler]
processes = 1
[plugin-signatures]
required = true
[delivery]
concurrency = 5
"#;

#[test]
fn a_reload_keeps_all_that_is_fixed_and_names_the_keys_that_differ() {
    let running = read("").unwrap();
    let folder = Folder::new("fixed");
    let text = format!("plugin-dir = {:?}\n{OTHER}", folder.0.display().to_string());
    let (config, differing) = read_with(&text, &[("SECRET", "s3cret")]).unwrap().with_fixed_of(&running);
    assert_eq!(config.fixed, running.fixed, "what is shown is what runs");
    assert_eq!(config.delivery.concurrency, 5, "a reload changes this");
    let expected = [
        "plugin-dir",
        "cache-dir",
        "cache-max-size and cache-max-age",
        "compiler",
        "mailer and relays",
        "keyvalue",
        "http",
        "server",
        "feedback",
        "queue",
        "events",
        "webhooks",
        "otlp",
        "plugin-signatures",
        "limits",
    ];
    assert_eq!(differing, expected);
}

/// An ace.toml with the credential `c`, and a relay that may use it.
fn with_credential(relay: &str, credential: &str) -> Config {
    let credential = format!("[credentials.c]\nurls = []\n{credential}");
    read_with(&format!("[relays.r]\n{relay}\n{credential}"), &[("P", "s3cret"), ("T", "token")]).unwrap()
}

#[test]
fn a_reload_keeps_a_credential_that_a_relay_in_use_needs() {
    const SMTP: &str = "kind = 'smtp'\nhost = 'smtp.example'\ncredential = 'c'";
    let basic = "kind = 'basic'\nusername = 'u'\npassword = { env = 'P' }";
    let bearer = "kind = 'bearer'\ntoken = { env = 'T' }";
    let named = format!("{SMTP}\nusername = 'ann'");
    let relays = || "mailer and relays".to_owned();
    let own_name = with_credential(SMTP, basic);
    let (kept, hmac) = (|| vec![relays(), "credentials.c".to_owned()], "kind = 'hmac'\nkey = { env = 'P' }");
    for (relay, credential, expected) in [
        // The relay in use has no user name for a token.
        (named.as_str(), bearer, kept()),
        ("kind = 'discard'", hmac, kept()),
        (SMTP, "kind = 'basic'\nusername = 'v'\npassword = { env = 'T' }", Vec::new()),
    ] {
        let read = with_credential(relay, credential);
        let changed = if expected.is_empty() { read.credentials.clone() } else { own_name.credentials.clone() };
        let (config, differing) = read.with_fixed_of(&own_name);
        assert_eq!((config.credentials, differing), (changed, expected), "{relay} {credential}");
    }
    let (config, differing) = read("[relays.r]\nkind = 'discard'").unwrap().with_fixed_of(&own_name);
    assert_eq!((config.credentials, differing), (own_name.credentials, kept()), "the credential is gone");

    // A user name of the relay is enough for each kind.
    let running = with_credential(&named, bearer);
    let (config, differing) = with_credential(SMTP, basic).with_fixed_of(&running);
    assert_eq!((config.credentials == running.credentials, differing), (false, vec![relays()]));
}

#[test]
fn what_the_program_decides_is_kept_and_is_no_difference() {
    let mut running = read("").unwrap();
    running.fixed.compiler.compile = Compile::Command { program: "ace".into(), arguments: Vec::new() };
    running.fixed.enforced_before.insert("optout".to_owned());
    running.delivery.defaults = Defaults::Serve;
    let (config, differing) = read("").unwrap().with_fixed_of(&running);
    assert_eq!((config, differing), (running, Vec::new()));
}
