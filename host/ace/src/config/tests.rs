//! ace.toml, its environment and manifests, read from text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::message::ChannelType;

const DOC: &str = include_str!("../../../../docs/configuration.md");

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ace-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    fn read(&self, text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let file = self.0.join("ace.toml");
        let prefix = format!("{}/", self.0.display());
        Config::read(text, Some(&file), env_of(env))
            .map_err(|e| lines(&e).iter().map(|l| l.replace(&prefix, "")).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn env_of(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.to_string().lines().map(str::to_owned).collect()
}

fn read(text: &str) -> Result<Config, Vec<String>> {
    read_with(text, &[])
}

fn read_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Config::read(text, None, env_of(env)).map_err(|e| lines(&e))
}

/// The one problem of a text.
fn refusal(text: &str) -> String {
    let problems = read(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

/// The block of the page that follows a heading.
fn block(heading: &str) -> &'static str {
    let (_, section) = DOC.split_once(heading).unwrap_or_else(|| panic!("the page has no {heading:?}"));
    section.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(read("").unwrap(), Config::default());
}

#[test]
fn the_page_shows_every_default() {
    let shown = read(block("## Every default")).unwrap();
    assert_eq!(shown, Config::default());
    for section in ["[delivery]", "[keyvalue]", "[http]", "[limits]"] {
        assert!(block("## Every default").contains(section));
    }
}

#[test]
fn the_page_shows_a_configuration_that_works() {
    let folder = Folder::new("doc");
    fs::create_dir(folder.0.join("plugins")).unwrap();
    fs::create_dir(folder.0.join("templates")).unwrap();
    folder.write("optouts.ndjson", "");
    folder.write("ca.pem", "");
    let config = folder.read(block("## An example"), &[("SMTP_PASSWORD", "hunter2"), ("BRAZE_API_KEY", "k")]).unwrap();
    assert_eq!(config.plugin_dir, Some(folder.0.join("plugins")));
    assert_eq!(config.routing.default["email"], "django_email");
    let RelayKind::Smtp(smtp) = &config.mailer.relays["main"].kind else { panic!("not SMTP") };
    let password = Proof::Password(SecretSource::Value(Secret::new("hunter2")));
    assert_eq!(smtp.login.as_ref().map(|login| &login.proof), Some(&password));
    assert_eq!(config.plugins["django_email"].grants.keyvalue, []);
    assert_eq!(config.plugins["braze_email"].secrets["api-key"].expose(), "k");
}

/// What a reload compares are settings, wherever they stand.
#[test]
fn settings_are_equal_wherever_they_stand() {
    let folder = Folder::new("moved");
    fs::create_dir(folder.0.join("plugins")).unwrap();
    fs::create_dir(folder.0.join("templates")).unwrap();
    folder.write("optouts.ndjson", "");
    folder.write("ca.pem", "");
    let env = [("SMTP_PASSWORD", "hunter2"), ("BRAZE_API_KEY", "k")];
    let example = block("## An example");
    let moved = format!("# A note.\n\n{}", example.replace('\n', "\n# Another one.\n"));
    assert_eq!(folder.read(example, &env).unwrap(), folder.read(&moved, &env).unwrap());
}

#[test]
fn an_instance_goes_on_under_settings_that_it_cannot_tell_apart() {
    let text = "[plugins.a]\nconfig = { a = 1 }\ngrants = { mailer = true }\n";
    let plugin = |more: &str| read(&format!("{text}{more}")).unwrap().plugins["a"].clone();
    let before = plugin("");
    for same in ["mode = 'shadow'", "order = 3", "on-error = 'allow'", "enabled = false"] {
        assert!(before.runs_as(&plugin(same)) && plugin(same) != before, "{same}");
    }
    for other in ["limits = { time = '1ms' }", "isolation = 'message'"] {
        assert!(!before.runs_as(&plugin(other)), "{other}");
    }
    let plugins = |text: &str| read(text).unwrap().plugins["a"].clone();
    assert!(!before.runs_as(&plugins("[plugins.a]\nconfig = { a = 2 }\ngrants = { mailer = true }\n")));
    assert!(!before.runs_as(&plugins("[plugins.a]\nconfig = { a = 1 }\n")));
}

/// Every key that the walk asks for, `*` for a name, from a document in which each kind of section stands once.
fn every_key() -> BTreeSet<String> {
    let text = r#"
        [relays.a]
        kind = "smtp"
        host = "h"
        username = "u"
        password = { env = "P" }
        [relays.b]
        kind = "file"
        dir = "d"
        [mailer]
        default-relay = "a"
        [plugins.p]
        [channels.c]
        [webhooks.w]
        url = "https://h/"
        secret = { env = "P" }
        [otlp]
        endpoint = "https://h/"
    "#;
    let document = tree::parse(text).unwrap();
    let mut walk = reader::Walk::new(None, BTreeMap::from([("P".into(), "secret".into())]));
    walk.document(document, decode::config);
    let keys = walk.known().iter().map(|variable| {
        let key = variable.trim_start_matches("ACE_").to_lowercase().replace("__", ".").replace('_', "-");
        key.replace("relays.a", "relays.*")
            .replace("relays.b", "relays.*")
            .replace("plugins.p", "plugins.*")
            .replace("channels.c", "channels.*")
            .replace("webhooks.w", "webhooks.*")
    });
    let keys: BTreeSet<String> = keys.collect();
    walk.finish(()).unwrap();
    keys
}

#[test]
fn the_page_names_every_key() {
    let keys = every_key();
    let is_section = |key: &String| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    for key in keys.iter().filter(|key| !is_section(key)) {
        let shown = key.replace('*', "NAME");
        assert!(DOC.contains(&format!("`{shown}`")), "docs/configuration.md does not name {shown}");
    }
}

#[test]
fn a_wrong_type_is_reported_for_every_key_at_once_on_its_line() {
    let keys = every_key();
    assert!(keys.len() > 50, "{keys:?}");
    let is_section = |key: &String| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    let mut leaves: Vec<&String> = keys.iter().filter(|key| !is_section(key)).collect();
    // These decide what the table around them is, so a wrong one hides what stands beside it.
    leaves.retain(|key| {
        !key.ends_with(".kind")
            && !key.starts_with("webhooks.*.secret")
            && !key.starts_with("relays.*.password")
            && !key.ends_with(".dir")
    });
    let mut text = String::from("relays.x.kind = \"smtp\"\n");
    let mut expected = Vec::new();
    for (at, leaf) in leaves.iter().enumerate() {
        let key = leaf.replace('*', "x");
        text.push_str(&format!("{key} = 1979-05-27\n"));
        expected.push((at + 2, key));
    }
    let Problems(problems) = Config::read(&text, None, []).unwrap_err();
    let reported: Vec<(usize, String)> = problems
        .iter()
        .filter(|p| p.line > 0)
        .map(|p| (p.line, p.key.clone()))
        .filter(|(_, key)| key != "relays.x" && key != "webhooks.x.secret")
        .collect();
    let reported: BTreeSet<_> = reported.into_iter().collect();
    assert_eq!(reported, expected.into_iter().collect(), "{text}");
}

#[test]
fn the_servers_own_names_are_hosts() {
    let config =
        Config::read("[server]\nhosts = ['ACE.example.org', 'bücher.example', '[::1]:8025']", None, []).unwrap();
    let names: Vec<_> = ["ace.example.org", "xn--bcher-kva.example", "[::1]:8025"].map(Authority::parse).into();
    assert_eq!(config.server.hosts.into_iter().map(Some).collect::<Vec<_>>(), names);
    for wrong in ["https://ace.example.org", "*.example.org", "a@b", "a:b", "10.0.0.0/8"] {
        let problem = refusal(&format!("[server]\nhosts = ['x', '{wrong}']"));
        assert!(problem.starts_with("line 2: server.hosts[1]: must be a host name"), "{problem}");
    }
}

#[test]
fn an_unknown_key_is_reported_in_every_table_at_once_on_its_line() {
    let text = "\
nonsense = 1
[routing]
nonsense = 1
[delivery]
nonsense = 1
[mailer]
nonsense = 1
default-relay = \"s\"
[relays.s]
kind = \"smtp\"
host = \"h\"
nonsense = 1
[relays.f]
kind = \"file\"
dir = \"d\"
host = \"h\"
[relays.d]
kind = \"discard\"
dir = \"d\"
[keyvalue]
nonsense = 1
[http]
nonsense = 1
[limits]
nonsense = 1
[plugins.p]
nonsense = 1
mod = \"shadow\"
[plugins.p.grants]
nonsense = 1
[plugins.p.limits]
nonsense = 1
[plugins.p.secrets.s]
nonsense = 1
[another]
key = 1
";
    let Problems(problems) = Config::read(text, None, []).unwrap_err();
    let unknown: Vec<usize> =
        problems.iter().filter(|p| p.message.starts_with("unknown key")).map(|p| p.line).collect();
    assert_eq!(unknown, [1, 3, 5, 7, 12, 16, 19, 21, 23, 25, 27, 28, 30, 32, 34, 35]);
    assert_eq!(problems.len(), unknown.len(), "{problems:#?}");
}

#[test]
fn a_problem_names_the_nearest_key_where_one_is_near() {
    assert_eq!(
        refusal("[delivery]\nconcurency = 3"),
        "line 2: delivery.concurency: unknown key; did you mean \"concurrency\"?"
    );
    assert_eq!(refusal("[plugin.x]\norder = 1"), "line 1: plugin: unknown key; did you mean \"plugins\"?");
    assert_eq!(
        refusal("[routing]\nzzzzzzzzzzzzzz = 1"),
        "line 2: routing.zzzzzzzzzzzzzz: unknown key; known here are default, transactional, listed, failover"
    );
    assert_eq!(
        refusal("ACE_CHANNEL_DEFAULT_EMAIL = \"x\""),
        "line 1: ACE_CHANNEL_DEFAULT_EMAIL: is a setting of edx-ace; here it is routing.default.email (ACE_ROUTING__DEFAULT__EMAIL)"
    );
}

#[test]
fn underscores_are_dashes_in_our_keys_and_stay_in_names() {
    let config = read("[delivery]\nmax_waiting = 7\n[plugins.a_b]\non_error = \"deny\"\nconfig = { c_d = 1 }").unwrap();
    assert_eq!(config.delivery.max_waiting, 7);
    assert_eq!(config.plugins["a_b"].on_error, crate::message::OnError::Deny);
    assert!(config.plugins["a_b"].config.contains_key("c_d"));
    assert_eq!(
        refusal("[delivery]\nmax_waiting = 7\nmax-waiting = 8"),
        "line 3: delivery.max-waiting: stands here again, written with `_` for `-`"
    );
}

#[test]
fn a_syntax_error_is_one_problem_with_its_line() {
    let Problems(problems) = Config::read("a = 1\n\n[b\nc = ", Some(Path::new("ace.toml")), []).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("ace.toml:3: not TOML: "), "{}", problems[0]);
}

#[test]
fn values_out_of_range_are_refused() {
    let cases = [
        ("[delivery]\nconcurrency = 0", "must be a whole number from 1 to 10000"),
        ("[delivery]\nconcurrency = 99999999999999999999999", "must be a whole number from 1 to 10000"),
        ("[delivery]\nconcurrency = 1.5", "must be a whole number from 1 to 10000, not a number"),
        ("[delivery]\nretry-delay = 5", "must be a duration from 1ms to 1d: a whole number and its unit"),
        ("[delivery]\nretry-delay = \"5\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"5 weeks\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"99999999999999999999d\"", "must be a duration from 1ms to 1d"),
        ("[delivery]\nretry-delay = \"2m\"", "retry-delay (2m) must be at most max-retry-delay (1m)"),
        (
            "[delivery]\nmax-expiration-delay = \"100s\"\nexpiration-delay = \"2m\"",
            "expiration-delay (2m) must be at most max-expiration-delay (100s)",
        ),
        ("[delivery]\nmax-message-bytes = -1", "must be a size from 1KiB to 256MiB"),
        ("[queue]\nmax-interruptions = 3", "must be a whole number from 4 to 1000"),
        ("[http]\ntimeout = \"0s\"", "must be a duration from 1ms to 10m"),
        ("[http]\nmax-response-bytes = 1", "must be a size from 1KiB to 256MiB"),
        ("[http]\nca-file = \"no-such-ca.pem\"", "there is no file no-such-ca.pem"),
        ("[compiler]\nmemory = \"127MiB\"", "must be a size from 128MiB to 64GiB"),
        ("[compiler]\ntotal-memory = \"65GiB\"", "must be a size from 128MiB to 64GiB"),
        ("[compiler]\nprocesses = 0", "must be a whole number from 1 to 64"),
        ("[compiler]\ncpu-time = \"999ms\"", "must be a duration from 1s to 1h"),
        ("[compiler]\ntimeout = \"2h\"", "must be a duration from 1s to 1h"),
        ("[compiler]\ncode-bytes = \"3GiB\"", "must be a size from 1MiB to 2GiB"),
        ("[compiler]\ncompile = \"in-process\"", "unknown"),
        ("[limits]\nmemory = \"5GiB\"", "must be a size from 64KiB to 4GiB"),
        ("[limits]\nmemory = \"64 Mb\"", "must be a size from 64KiB to 4GiB"),
        ("[limits]\nmemory = \"32MiB\"\n[plugins.p.limits]\nmemory = \"33MiB\"", "must be a size from 64KiB to 32MiB"),
        ("[plugins.p]\nlimits.time = \"251ms\"", "must be a duration from 1ms to 250ms"),
        ("[plugins.p]\nlimits.call-timeout = \"31s\"", "must be a duration from 1ms to 30s"),
        ("[plugins.p]\non-error = \"denie\"", "must be one of \"retry\", \"deny\", \"allow\"; did you mean \"deny\"?"),
        ("[plugins.p]\nenabled = \"no\"", "must be true or false, not a string"),
        ("[plugins.p]\nconfig.rate = nan", "rate: holds a number that JSON cannot"),
        ("[plugins.p]\nconfig.big = 9999999999999999999", "big: holds a number of more than 64 bits"),
        ("enabled-channels = [\"a\", \"b\", \"a\"]", "enabled-channels[2]: \"a\" stands in the list twice"),
        ("[routing]\ndefault = { Email = \"x\" }", "is no channel type: lower-case letters"),
    ];
    for (text, expected) in cases {
        let problem = refusal(text);
        let line = text.lines().count();
        assert!(problem.starts_with(&format!("line {line}: ")) && problem.contains(expected), "{text}\n{problem}");
    }
}

#[test]
fn durations_and_sizes_have_units() {
    let config = read(
        "delivery = { retry-delay = '250ms', max-retry-delay = '5m',
          expiration-delay = '0s', max-expiration-delay = '2h' }
        limits = { memory = '64KiB', output-bytes = 2048, log-bytes = '10KB' }",
    );
    let config = config.unwrap();
    assert_eq!(config.delivery.retry_delay, Duration::from_millis(250));
    assert_eq!(config.delivery.max_retry_delay, Duration::from_secs(300));
    assert_eq!(config.delivery.expiration_delay, Some(Duration::ZERO));
    assert_eq!(config.delivery.max_expiration_delay, Some(Duration::from_secs(7200)));
    assert_eq!((config.limits.memory, config.limits.output_bytes, config.limits.log_bytes), (65_536, 2048, 10_000));
}

#[test]
fn a_size_is_shown_as_it_is_written() {
    for (bytes, shown) in [(0, "0B"), (1, "1B"), (1500, "1500B"), (65_536, "64KiB"), (1 << 30, "1GiB")] {
        assert_eq!(values::show_size(bytes), shown);
    }
    for (millis, shown) in [(0, "0s"), (250, "250ms"), (100_000, "100s"), (120_000, "2m"), (86_400_000, "1d")] {
        assert_eq!(values::show_duration(Duration::from_millis(millis)), shown);
    }
}

fn relay_with(line: &str) -> String {
    format!("[relays.r]\nkind = \"smtp\"\nhost = \"mail.example.com\"\n{line}")
}

#[test]
fn a_relay_has_the_port_of_its_tls() {
    for (tls, port) in [("", 587), ("tls = \"none\"", 25), ("tls = \"starttls\"", 587), ("tls = \"implicit\"", 465)] {
        let config = read(&relay_with(tls)).unwrap();
        let RelayKind::Smtp(smtp) = &config.mailer.relays["r"].kind else { panic!("not SMTP") };
        assert_eq!((smtp.port, smtp.tls == Tls::None), (port, port == 25));
    }
    let expected = Smtp { port: 2525, ..Smtp::new("mail.example.com") };
    let config = read(&relay_with("port = 2525")).unwrap();
    assert_eq!(config.mailer.relays["r"].kind, RelayKind::Smtp(expected));
}

#[test]
fn a_relay_that_cannot_work_is_refused() {
    let cases = [
        ("tls = \"yes\"", "must be one of \"none\", \"starttls\", \"implicit\""),
        ("port = 0", "must be a whole number from 1 to 65535"),
        ("username = \"u\"", "relays.r.username: needs a password or an oauth-token beside it"),
        ("oauth-token = { env = \"P\" }", "relays.r.oauth-token: needs a username beside it"),
        (
            "username = \"u\"\npassword = { env = \"P\" }\noauth-token = { env = \"P\" }",
            "relays.r.oauth-token: a password stands beside it",
        ),
        ("password = { env = \"P\" }\nusername = \"\"", "relays.r.username: must not be empty"),
        ("from = \"nobody\"", "\"nobody\" is no sender"),
        ("return-path = \"B <b@example.com>\"", "has a display name; write the address alone"),
        ("ca-file = \"no-such-ca.pem\"", "there is no file no-such-ca.pem"),
        ("hello-name = \"a b\"", "must be a host name, or an IP address in brackets"),
        ("timeout = \"0s\"", "must be a duration from 1ms to 10m"),
    ];
    for (line, expected) in cases {
        let problems = read_with(&relay_with(line), &[("P", "secret")]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{line}: {problems:?}");
    }
    for host in ["smtp_server", "::1", "mail.example.com.", "127.0.0.1"] {
        assert!(read(&relay_with("").replace("mail.example.com", host)).is_ok(), "{host}");
    }
    assert_eq!(refusal("[relays.r]\nkind = \"smtp\""), "line 1: relays.r.host: is required");
    assert_eq!(refusal("[relays.r]\nkind = \"smtp\"\nhost = \"\""), "line 3: relays.r.host: must not be empty");
    assert!(refusal("[relays.r]\nkind = \"smtp\"\nhost = \"a.b:25\"").contains("write host = \"a.b\", port = 25"));
    assert_eq!(refusal("[relays.r]\nkind = \"file\""), "line 1: relays.r.dir: is required");
    assert!(refusal("[relays.r]\nkind = \"smpt\"\nhost = \"x\"").contains("did you mean \"smtp\"?"));
}

#[test]
fn the_default_relay_is_one_of_the_relays() {
    let two = "[relays.main]\nkind = \"discard\"\n[relays.bulk]\nkind = \"discard\"\n[mailer]\n";
    assert_eq!(
        refusal(two),
        "line 5: mailer.default-relay: is required where there is more than one relay; one of bulk, main"
    );
    assert_eq!(
        refusal(&format!("{two}default-relay = \"mian\"")),
        "line 6: mailer.default-relay: there is no relay \"mian\"; did you mean \"main\"?"
    );
    // A relay that is there but wrong is not called unknown as well.
    assert!(refusal("relays.a = 1\nmailer.default-relay = \"a\"").contains("relays.a: must be a table"));
    assert_eq!(read("relays.a.kind = \"discard\"").unwrap().mailer.default_relay, None);
}

#[test]
fn addresses_are_checked() {
    let good = [
        "a@example.com",
        "webmaster@localhost",
        "first.last+tag@sub.example.co",
        "Org <a@b.example>",
        "<a@b.example>",
        "\"Doe, J.\" <j@b.example>",
        "grüße@bücher.example",
        "Zoë 🎓 <z@b.example>",
    ];
    for sender in good {
        let config = read(&format!("mailer.default-from = {sender:?}"));
        assert_eq!(config.unwrap().mailer.default_from.as_deref(), Some(sender));
    }
    let bad = [
        "",
        "a",
        "a@",
        "@b.example",
        "a b@c.example",
        "a@b..c",
        ".a@b.example",
        "a@-b.example",
        "a@b.example, c@d.example",
        "Name a@b.example",
        "Name <a@b.example",
        "Name <>",
        "a@b.example\\r\\nBcc: c@d.example",
        "N\\n <a@b.example>",
        "a@b@c d",
    ];
    for sender in bad {
        let problem = refusal(&format!("mailer.default-from = \"{sender}\""));
        assert!(problem.starts_with("line 1: mailer.default-from: "), "{sender}: {problem}");
    }
}

#[test]
fn a_secret_comes_from_a_variable_or_a_file_and_never_shows() {
    let folder = Folder::new("secret");
    folder.write("key", "k3y\r\n");
    folder.write("empty", "\n");
    let env = [("TOKEN", "hunter2"), ("EMPTY", ""), ("ACE_OWN", "hunter3")];
    let with = |secret: &str| folder.read(&format!("[plugins.p]\nsecrets.key = {secret}"), &env);
    let good =
        [("{ env = \"TOKEN\" }", "hunter2"), ("{ file = \"key\" }", "k3y"), ("{ env = \"ACE_OWN\" }", "hunter3")];
    for (secret, expected) in good {
        let mut config = with_ace_own(&folder, secret, &env);
        assert_eq!(config.plugins["p"].secrets["key"].expose(), expected);
        assert!(!format!("{config:?}").contains(expected));
        config.plugins.clear();
    }
    let bad = [
        ("\"hunter2\"", "plugins.p.secrets.key: a secret is never written here; write { env = \"VARIABLE\" }"),
        ("{ env = \"UNSET\" }", "plugins.p.secrets.key.env: the environment variable UNSET is not set"),
        ("{ env = \"EMPTY\" }", "the environment variable EMPTY is empty"),
        ("{ file = \"none\" }", "plugins.p.secrets.key.file: none cannot be read: "),
        ("{ file = \"empty\" }", "empty is empty"),
        ("{ env = \"TOKEN\", file = \"key\" }", "a secret has one source"),
        ("{ }", "plugins.p.secrets.key: needs env = \"VARIABLE\" or file = \"path\""),
        ("{ value = \"hunter2\" }", "plugins.p.secrets.key.value: unknown key; known here are env, file"),
    ];
    for (secret, expected) in bad {
        let problems = with(secret).unwrap_err();
        assert!(
            problems.iter().any(|p| p.starts_with("ace.toml:2: ") && p.contains(expected)),
            "{secret}: {problems:?}"
        );
        assert!(!problems.join("\n").contains("hunter2"));
    }
}

/// A variable that a secret names may be called `ACE_…`, though it is no setting.
fn with_ace_own(folder: &Folder, secret: &str, env: &[(&str, &str)]) -> Config {
    let needs = |name: &str| !name.starts_with("ACE_") || secret.contains(name);
    let env: Vec<_> = env.iter().filter(|(name, _)| needs(name)).copied().collect();
    folder.read(&format!("[plugins.p]\nsecrets.key = {secret}"), &env).unwrap()
}

#[test]
fn a_secret_from_the_environment_overlay_is_refused_without_its_value() {
    let problems = read_with(&relay_with(""), &[("ACE_RELAYS__R__PASSWORD", "hunter2")]).unwrap_err();
    assert!(problems[0].starts_with("ACE_RELAYS__R__PASSWORD: a secret is never written here"), "{problems:?}");
    assert!(!problems.join("\n").contains("hunter2"));
}

#[test]
fn grants_are_read_as_they_are_written() {
    let config = read(
        "[plugins.p]
        grants = { http = ['https://API.example.com:443/v1/'], keyvalue = ['a:read', 'b:write', 'c:read-write', 'd'], mailer = true, outbox = 'out' }",
    );
    let grants = config.unwrap().plugins["p"].grants.clone();
    assert_eq!(grants.http, ["https://api.example.com/v1/"]);
    let access: Vec<_> = grants.keyvalue.iter().map(|b| (b.bucket.as_str(), b.read, b.write)).collect();
    assert_eq!(access, [("a", true, false), ("b", false, true), ("c", true, true), ("d", true, true)]);
    assert_eq!((grants.mailer, grants.outbox), (true, Some(PathBuf::from("out"))));
}

#[test]
fn grants_that_are_unclear_are_refused_item_by_item() {
    let bad = [
        "example.com",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "https:example.com/",
        "https://u:hunter2@example.com/",
        "https://example.com/?q=1",
        "https://example.com/#f",
        "https://example.com/a/../b",
        "https://example.com/%2e%2E/b",
        "https://example.com/a%2Fb",
        "https://example.com/a//b",
        "https://example.com\\\\b",
        "https://exa mple.com/",
    ];
    let list: Vec<String> = bad.iter().map(|url| format!("\"{url}\"")).collect();
    let text =
        format!("[plugins.p.grants]\nhttp = [\n{}\n]\nkeyvalue = [\"a:rw\", \":read\", \"a b\"]", list.join(",\n"));
    let Problems(problems) = Config::read(&text, None, []).unwrap_err();
    let http: Vec<_> = problems.iter().filter(|p| p.key.contains("http")).map(|p| (p.line, p.key.clone())).collect();
    let expected: Vec<_> = (0..bad.len()).map(|at| (at + 3, format!("plugins.p.grants.http[{at}]"))).collect();
    assert_eq!(http, expected);
    assert_eq!(problems.len(), bad.len() + 3);
    assert!(!format!("{problems:?}").contains("hunter2"));
}

#[test]
fn the_environment_lies_over_the_file() {
    let text =
        "[delivery]\nconcurrency = 4\n[plugins.my-channel]\norder = 3\n[relays.main]\nkind = \"smtp\"\nhost = \"a\"";
    let env = [
        ("ACE_DELIVERY__CONCURRENCY", "16"),
        ("ACE_DELIVERY__RETRY_DELAY", "7s"),
        ("ACE_RELAYS__MAIN__HOST", "smtp.example.com"),
        ("ACE_RELAYS__MAIN__USERNAME", "12345"),
        ("ACE_RELAYS__MAIN__PASSWORD__ENV", "P"),
        ("ACE_PLUGINS__MY_CHANNEL__ENABLED", "false"),
        ("ACE_PLUGINS__DJANGO_EMAIL__CONFIG__CAMPAIGNS", "{ b = 'x', a = 1979-05-27 }"),
        ("ACE_ROUTING__DEFAULT", "{ email = 'a', push = 'p' }"),
        ("ACE_ROUTING__DEFAULT__EMAIL", "django_email"),
        ("ACE_ENABLED_CHANNELS", "['django_email']"),
        ("ACE_CONFIG", "ace.toml"),
        ("ACE_LOG", "debug"),
        ("ACE_SERVER__PORT", "80"),
        ("PATH", "/bin"),
        ("P", "secret"),
    ];
    let config = read_with(text, &env).unwrap();
    assert_eq!((config.delivery.concurrency, config.delivery.retry_delay), (16, Duration::from_secs(7)));
    let RelayKind::Smtp(smtp) = &config.mailer.relays["main"].kind else { panic!("not SMTP") };
    assert_eq!((smtp.host.as_str(), smtp.login.as_ref().unwrap().username.as_str()), ("smtp.example.com", "12345"));
    let plugin = &config.plugins["my-channel"];
    assert_eq!((plugin.enabled, plugin.order), (false, 3));
    let campaigns = serde_json::to_string(&config.plugins["django_email"].config).unwrap();
    assert_eq!(campaigns, r#"{"campaigns":{"b":"x","a":"1979-05-27"}}"#);
    assert_eq!(config.routing.default["email"], "django_email");
    assert_eq!(config.routing.default["push"], "p");
    assert_eq!(config.enabled_channels, Some(names(&["django_email"])));
}

#[test]
fn a_problem_of_the_environment_names_its_variable() {
    let cases = [
        ("ACE_DELIVERY__CONCURRENCY", "many", "must be a whole number from 1 to 10000, not a string"),
        ("ACE_DELIVERY__CONCURENCY", "1", "is no setting; did you mean ACE_DELIVERY__CONCURRENCY?"),
        ("ACE_DELIVERY_CONCURRENCY", "1", "is no setting; did you mean ACE_DELIVERY__CONCURRENCY?"),
        ("ACE_RELAY__MAIN__HOST", "h", "is no setting; did you mean ACE_RELAYS__MAIN__HOST?"),
        ("ACE_delivery__concurrency", "1", "is no setting"),
        ("ACE_PLUGINS__", "1", "is no setting; did you mean ACE_PLUGINS?"),
        ("ACE_ENTIRELY_ELSEWHERE_IN_ANOTHER_PROGRAM", "1", "is no setting; docs/configuration.md lists them"),
        ("ACE_CHANNEL_DEFAULT_EMAIL", "x", "is a setting of edx-ace; here it is routing.default.email"),
        (
            "ACE_CHANNEL_SAILTHRU_DEBUG",
            "x",
            "is a setting of edx-ace; here it is config and secrets of plugins.sailthru_email",
        ),
        ("ACE_PLUGIN_DIR__X", "1", "\"plugin-dir\" is a string, not a table"),
        ("ACE_ENABLED_CHANNELS", "a,b", "must be a list, as in [\"a\", \"b\"], not a string"),
    ];
    for (name, value, expected) in cases {
        let problems = read_with("plugin-dir = \".\"", &[(name, value)]).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("{name}: ")) && problems[0].contains(expected),
            "{name}: {problems:?}"
        );
    }
    let problems = read_with("plugins.a-b.order = 1\nplugins.a_b.order = 1", &[("ACE_PLUGINS__A_B__ORDER", "2")]);
    assert!(problems.unwrap_err()[0].contains("could mean both \"a-b\" and \"a_b\""));
    let deep = format!("ACE{}", "_A_".repeat(30_000));
    assert!(read_with("", &[(&deep, "1")]).unwrap_err()[0].contains("is no setting"));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_settings() {
    let of_services = [
        ("ACE_SERVICE_HOST", "10.0.0.7"),
        ("ACE_SERVICE_PORT", "8025"),
        ("ACE_SERVICE_PORT_HTTP", "8025"),
        ("ACE_SERVICE_PORT_HTTP_ALT", "8026"),
        ("ACE_PORT", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP_PROTO", "tcp"),
        ("ACE_PORT_8025_TCP_PORT", "8025"),
        ("ACE_PORT_8025_TCP_ADDR", "10.0.0.7"),
        ("ACE_PORT_53_UDP", "udp://10.0.0.7:53"),
        ("ACE_PORT_3868_SCTP_ADDR", "10.0.0.7"),
        // A Service called ace-mail.
        ("ACE_MAIL_SERVICE_HOST", "fd00::7"),
        ("ACE_MAIL_SERVICE_PORT_SMTP", "25"),
        ("ACE_MAIL_PORT", "tcp://[fd00::7]:25"),
        ("ACE_MAIL_PORT_25_TCP_ADDR", "fd00::7"),
        // The program's own.
        ("ACE_LOG_FORMAT", "json"),
    ];
    for variable in of_services {
        assert_eq!(read_with("", &[variable]).map(|_| ()), Ok(()), "{variable:?}");
    }
    assert_eq!(read_with("", &of_services).map(|_| ()), Ok(()));
    let still_refused = [
        ("ACE_PORT", "8025"),
        ("ACE_SERVICE", "ace"),
        ("ACE_SERVICE_HOSTS", "10.0.0.7"),
        ("ACE_SERVICE_PORTS", "8025"),
        ("ACE_PORT_8025", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_80250_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_HTTP_TCP", "tcp://10.0.0.7:8025"),
        ("ACE_PORT_8025_TCP_HOST", "10.0.0.7"),
    ];
    for variable in still_refused {
        let problems = read_with("", &[variable]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains("is no setting"), "{variable:?}: {problems:?}");
    }
}

#[test]
fn a_value_without_its_quotes_is_named() {
    let cases = [
        ("plugin-dir = plugins", "1: not TOML: plugins is a text and needs quotes: \"plugins\""),
        (
            "\n[relays.r]\nhost = nothing.example # here",
            "3: not TOML: nothing.example is a text and needs quotes: \"nothing.example\"",
        ),
        ("plugin-dir = /opt/ace", "1: not TOML: /opt/ace is a text and needs quotes: \"/opt/ace\""),
        ("plugin-dir = info", "1: not TOML: info is a text and needs quotes: \"info\""),
        ("[delivery]\nretry-delay = 10s", "2: not TOML: 10s is a text and needs quotes: \"10s\""),
        ("[queue]\nmax-size = 2GiB", "2: not TOML: 2GiB is a text and needs quotes: \"2GiB\""),
        ("enabled-channels = [email, 'x']", "1: not TOML: email is a text and needs quotes: \"email\""),
        ("enabled-channels = [\n  'x',\n  nobody\n]", "3: not TOML: nobody is a text and needs quotes: \"nobody\""),
        ("plugins.x = { enabled = True }", "1: not TOML: write true in lower case, not True"),
        ("plugins.x.secrets = { k = { env = NAME } }", "1: not TOML: NAME is a text and needs quotes: \"NAME\""),
        ("plugin-dir = 'plugins", "1: not TOML: "),
        ("plugin-dir =", "1: not TOML: "),
    ];
    for (text, expected) in cases {
        let problems = read_with(text, &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text:?}: {problems:?}");
        assert!(!problems[0].contains("nan"), "{text:?}: {problems:?}");
    }
}

#[test]
fn a_group_is_a_name_or_a_number() {
    let group = |text: &str| read(text).map(|config| (config.queue.access.group, config.mailer.access.group));
    assert_eq!(group("").unwrap(), (None, None));
    assert_eq!(group("file-group = \"root\"").unwrap(), (Some(0), Some(0)));
    assert_eq!(group("file-group = 4711").unwrap(), (Some(4711), Some(4711)));
    let config = read("file-group = \"4711\"\nplugins.p = { grants = { outbox = 'out' } }").unwrap();
    assert_eq!((config.keyvalue.access.group, config.plugins["p"].grants.access.group), (Some(4711), Some(4711)));
    let unknown = group("file-group = \"no such group\"").unwrap_err().concat();
    assert!(unknown.contains("file-group") && unknown.contains("there is no group"), "{unknown}");
    assert!(group("file-group = -1").is_err());
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let folder = Folder::new("paths");
    fs::create_dir(folder.0.join("plugins")).unwrap();
    let config = folder.read("plugin-dir = \"plugins\"\ncache-dir = \"/var/cache/ace\"", &[]).unwrap();
    assert_eq!(config.plugin_dir, Some(folder.0.join("plugins")));
    assert_eq!(config.cache_dir, Some(PathBuf::from("/var/cache/ace")));
    let database = |path| folder.read(&format!("keyvalue.database = \"{path}\""), &[]).map(|c| c.keyvalue.database);
    assert_eq!(database("facts.db"), Ok(Some(folder.0.join("facts.db"))));
    assert_eq!(database("plugins/facts.db"), Ok(Some(folder.0.join("plugins/facts.db"))));
    assert_eq!(database("plugins"), Err(vec!["ace.toml:1: keyvalue.database: plugins is no file".to_owned()]));
    let text = "plugin-dir = \"plugin\"\ntemplate-dirs = [\"plugins\", \"templates\"]\nkeyvalue.files = [\"plugins\"]\n\
        keyvalue.database = \"state/facts.db\"";
    let problems = folder.read(text, &[]).unwrap_err();
    let expected = [
        "ace.toml:1: plugin-dir: there is no folder plugin",
        "ace.toml:2: template-dirs[1]: there is no folder templates",
        "ace.toml:3: keyvalue.files[0]: plugins is no file",
        "ace.toml:4: keyvalue.database: there is no folder state",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn a_file_is_loaded_with_the_environment_of_the_process() {
    let folder = Folder::new("load");
    folder.write("ace.toml", "[delivery]\nconcurrency = 3");
    let config = Config::load(&folder.0.join("ace.toml")).unwrap();
    assert_eq!(config.delivery.concurrency, 3);
    assert_eq!(config.file, Some(folder.0.join("ace.toml")));
    let missing = Config::load(&folder.0.join("none.toml")).unwrap_err();
    assert!(missing.to_string().contains("none.toml cannot be read: "), "{missing}");
}

#[test]
fn names_are_checked_against_the_plugins() {
    let text = "\
enabled-channels = [
  \"django_email\",
  \"djangoemail\",
  \"stub_policy\",
  \"broken\",
]
enabled-policies = [\"bulk_email_optou\", \"django_email\"]
[routing]
default = { email = \"sms_x\", push = \"zzzzzzzz\" }
[routing.failover]
email = [\"django_email\", \"file_emial\"]
[plugins.django_emial]
";
    let config = Config::read(
        text,
        Some(Path::new("ace.toml")),
        [("ACE_ROUTING__TRANSACTIONAL__EMAIL".to_owned(), "djang_email".to_owned())],
    )
    .unwrap();
    let channels = [("django_email", "email"), ("file_email", "email"), ("sms_x", "sms")];
    let channels: BTreeMap<String, ChannelType> = channels.map(|(n, t)| (n.to_owned(), t.to_owned())).into();
    let policies = names(&["bulk_email_optout", "stub_policy"]);
    let plugins = names(&["broken", "bulk_email_optout", "django_email", "file_email", "sms_x", "stub_policy"]);
    let problems: Vec<String> =
        config.check_names(&channels, &policies, &plugins).iter().map(ToString::to_string).collect();
    let expected = [
        "ace.toml:3: enabled-channels[1]: there is no channel \"djangoemail\"; did you mean \"django_email\"?",
        "ace.toml:4: enabled-channels[2]: \"stub_policy\" is a policy, not a channel",
        "ace.toml:7: enabled-policies[0]: there is no policy \"bulk_email_optou\"; did you mean \"bulk_email_optout\"?",
        "ace.toml:7: enabled-policies[1]: \"django_email\" is a channel, not a policy",
        "ace.toml:9: routing.default.email: \"sms_x\" is a channel for sms, not for email",
        "ace.toml:9: routing.default.push: there is no channel \"zzzzzzzz\"; there are no channels that could stand here",
        "ace.toml:11: routing.failover.email[1]: there is no channel \"file_emial\"; did you mean \"file_email\"?",
        "ace.toml:12: plugins.django_emial: there is no plugin \"django_emial\"; did you mean \"django_email\"?",
        "ACE_ROUTING__TRANSACTIONAL__EMAIL: there is no channel \"djang_email\"; did you mean \"django_email\"?",
    ];
    assert_eq!(problems, expected);
    assert_eq!(Config::default().check_names(&channels, &policies, &plugins), []);
}

#[test]
fn a_later_problem_finds_its_line() {
    let config = read("[plugins.\"a.b\"]\norder = 1\n[plugins.c]").unwrap();
    assert_eq!(config.problem("plugins.\"a.b\".order", "x").line, 2);
    assert_eq!(config.problem("plugins.c.grants.http[3]", "x").line, 3);
    assert_eq!(config.problem("delivery", "x").to_string(), "delivery: x");
}

#[test]
fn a_manifest_requests() {
    let manifest = Manifest::read(block("## Manifests"), None).unwrap();
    assert_eq!(manifest.version.as_deref(), Some("1.2.0"));
    assert_eq!(manifest.requests.http, ["https://rest.iad-01.braze.com/messages/"]);
    assert_eq!((manifest.requests.mailer, manifest.requests.outbox), (true, false));
    assert_eq!(manifest.requests.secrets, ["api-key"]);
    assert_eq!(manifest.runtime.call_timeout, Some(Duration::from_secs(20)));
    assert!(manifest.defaults.contains_key("campaigns"));
    assert_eq!(Manifest::read("", None).unwrap(), Manifest::default());
}

#[test]
fn a_manifest_never_grants_and_reports_every_problem() {
    let text = "\
version = \"1\\u001b[31m\"
grants = { mailer = true }
[requests]
mailr = true
outbox = \"folder\"
http = [\"https://ok.example/\", \"nonsense\"]
[runtime]
isolation = \"poled\"
memory = \"8GiB\"
[defaults]
any = { thing = [1, 2.5, true] }
";
    let Problems(problems) = Manifest::read(text, Some(Path::new("p.toml"))).unwrap_err();
    let told: Vec<(usize, &str)> = problems.iter().map(|p| (p.line, p.key.as_str())).collect();
    let expected = [
        (1, "version"),
        (2, "grants"),
        (4, "requests.mailr"),
        (5, "requests.outbox"),
        (6, "requests.http[1]"),
        (8, "runtime.isolation"),
        (9, "runtime.memory"),
    ];
    assert_eq!(told, expected);
    assert!(problems[0].to_string().starts_with("p.toml:1: version: must not hold control characters"));
}

#[test]
fn problems_serialise_for_machines() {
    let Problems(problems) = Config::read("x = 1", Some(Path::new("ace.toml")), []).unwrap_err();
    let json = serde_json::to_value(&problems[0]).unwrap();
    assert_eq!((&json["file"], &json["line"], &json["key"]), (&"ace.toml".into(), &1.into(), &"x".into()));
}
