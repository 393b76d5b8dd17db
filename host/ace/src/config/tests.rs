//! ace.toml, its environment and manifests, read from text.

mod credentials;
mod dkim;
mod fixed;
mod plugins;
mod return_path;
mod surroundings;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::message::ChannelType;

const DOC: &str = concat!(include_str!("../../../../docs/configuration.md"), include_str!("../../../../docs/mail.md"));

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
    block_of(DOC, heading)
}

/// The block of another page that follows a heading.
fn block_of(page: &'static str, heading: &str) -> &'static str {
    let (_, section) = page.split_once(heading).unwrap_or_else(|| panic!("the page has no {heading:?}"));
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
    assert_eq!(config.fixed.plugin_dir, Some(folder.0.join("plugins")));
    assert_eq!(config.routing.default["email"], "django_email");
    let RelayKind::Smtp(smtp) = &config.fixed.mailer.relays["main"].kind else { panic!("not SMTP") };
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

/// Every key that the decoder asks for, `*` for a name, from a document in which each kind of section stands once.
fn every_key() -> BTreeSet<String> {
    let text = r#"
        [relays.a]
        kind = "smtp"
        host = "h"
        username = "u"
        password = { env = "P" }
        dkim = { domain = "d", selector = "s", key = { env = "K" } }
        [relays.b]
        kind = "file"
        dir = "d"
        [mailer]
        default-relay = "a"
        return-path-key = { env = "K" }
        [plugins.p]
        [channels.c]
        [webhooks.w]
        url = "https://h/"
        secret = { env = "P" }
        [otlp]
        endpoint = "https://h/"
    "#;
    let document = tree::parse(text).unwrap();
    let mut decoder =
        reader::Decoder::new(None, BTreeMap::from([("P".into(), "secret".into()), ("K".into(), dkim::ED25519.into())]));
    decoder.document(document, decode::config);
    let keys = decoder.known().iter().map(|variable| {
        let key = variable.trim_start_matches("ACE_").to_lowercase().replace("__", ".").replace('_', "-");
        key.replace("relays.a", "relays.*")
            .replace("relays.b", "relays.*")
            .replace("plugins.p", "plugins.*")
            .replace("channels.c", "channels.*")
            .replace("webhooks.w", "webhooks.*")
    });
    let keys: BTreeSet<String> = keys.collect();
    decoder.finish(()).unwrap();
    keys
}

#[test]
fn the_page_names_every_key() {
    let keys = every_key();
    let is_section = |key: &String| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    for key in keys.iter().filter(|key| !is_section(key)) {
        let shown = key.replace('*', "NAME");
        assert!(DOC.contains(&format!("`{shown}`")), "docs/configuration.md and docs/mail.md do not name {shown}");
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
    assert_eq!(config.fixed.server.hosts.into_iter().map(Some).collect::<Vec<_>>(), names);
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
        "line 2: routing.zzzzzzzzzzzzzz: unknown key; known here are default, transactional, listed, failover, fallback"
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
        "line 3: delivery.max-waiting: is a duplicate, written with `_` instead of `-`"
    );
}

#[test]
fn a_syntax_error_is_one_problem_with_its_line() {
    let Problems(problems) = Config::read("a = 1\n\n[b\nc = ", Some(Path::new("ace.toml")), []).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("ace.toml:3: not TOML: "), "{}", problems[0]);
}

fn relay_with(line: &str) -> String {
    format!("[relays.r]\nkind = \"smtp\"\nhost = \"mail.example.com\"\n{line}")
}

#[test]
fn a_relay_has_the_port_of_its_tls() {
    for (tls, port) in [("", 587), ("tls = \"none\"", 25), ("tls = \"starttls\"", 587), ("tls = \"implicit\"", 465)] {
        let config = read(&relay_with(tls)).unwrap();
        let RelayKind::Smtp(smtp) = &config.fixed.mailer.relays["r"].kind else { panic!("not SMTP") };
        assert_eq!((smtp.port, smtp.tls == Tls::None), (port, port == 25));
    }
    let expected = Smtp { port: 2525, ..Smtp::new("mail.example.com") };
    let config = read(&relay_with("port = 2525")).unwrap();
    assert_eq!(config.fixed.mailer.relays["r"].kind, RelayKind::Smtp(expected));
}

#[test]
fn a_relay_that_cannot_work_is_refused() {
    let cases = [
        ("tls = \"yes\"", "must be one of \"none\", \"starttls\", \"implicit\""),
        ("port = 0", "must be a whole number from 1 to 65535"),
        ("username = \"u\"", "relays.r.username: needs a password, an oauth-token or a credential beside it"),
        ("oauth-token = { env = \"P\" }", "relays.r.oauth-token: needs a username beside it"),
        (
            "username = \"u\"\npassword = { env = \"P\" }\noauth-token = { env = \"P\" }",
            "relays.r.oauth-token: password is set too",
        ),
        ("credential = \"c\"", "relays.r.credential: there is no credential \"c\""),
        ("password = { env = \"P\" }\nusername = \"\"", "relays.r.username: must not be empty"),
        ("from = \"nobody\"", "\"nobody\" is not a sender"),
        ("return-path = \"B <b@example.com>\"", "has a display name; write only the address"),
        ("ca-file = \"no-such-ca.pem\"", "there is no file no-such-ca.pem"),
        ("hello-name = \"a b\"", "must be a host name, or an IP address in brackets"),
        ("timeout = \"0s\"", "must be a duration from 1ms to 10m"),
    ];
    for (line, expected) in cases {
        let problems = read_with(&relay_with(line), &[("P", "secret")]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{line}: {problems:?}");
    }
    let basic = "kind = 'basic'\nusername = 'u'\npassword = { env = 'P' }";
    let bearer = "kind = 'bearer'\ntoken = { env = 'P' }";
    let google = "kind = 'google-service-account'\nkey = { env = 'ACCOUNT' }";
    let gmail = format!("{google}\nscopes = ['https://mail.google.com/']\nsubject = 'u@example.com'");
    let variables = [("P", "secret"), ("ACCOUNT", include_str!("../credentials/tests/service_account.json"))];
    let with_credential = [
        (
            "credential = 'c'",
            "kind = 'hmac'\nkey = { env = 'P' }",
            "credential: \"c\" is of the kind \"hmac\", which cannot log in",
        ),
        ("credential = 'c'\nusername = 'u'", basic, "username: is set in the credential too"),
        ("credential = 'c'", bearer, "credential: needs a username beside it"),
        ("credential = 'c'\nusername = 'u'", google, "credential: \"c\" needs scopes = [\"https://mail.google.com/\"]"),
        ("credential = 'c'\npassword = { env = 'P' }", bearer, "credential: password is set too"),
        ("credential = 'd'", bearer, "credential: there is no credential \"d\""),
    ];
    for (line, credential, expected) in with_credential {
        let text = format!("{}\n[credentials.c]\nurls = []\n{credential}\n", relay_with(line));
        let problems = read_with(&text, &variables).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{line}: {problems:?}");
    }
    let username = "credential = 'c'\nusername = 'u'";
    for (line, credential) in [("credential = 'c'", basic), (username, bearer), (username, gmail.as_str())] {
        let text = format!("{}\n[credentials.c]\nurls = []\n{credential}\n", relay_with(line));
        let config = read_with(&text, &variables).unwrap();
        let RelayKind::Smtp(smtp) = &config.fixed.mailer.relays["r"].kind else { panic!("not SMTP") };
        assert_eq!(smtp.login.as_ref().map(|login| &login.proof), Some(&Proof::Credential("c".into())));
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
        "line 5: mailer.default-relay: is required if there is more than one relay; one of bulk, main"
    );
    assert_eq!(
        refusal(&format!("{two}default-relay = \"mian\"")),
        "line 6: mailer.default-relay: there is no relay \"mian\"; did you mean \"main\"?"
    );
    // A relay that is there but wrong is not called unknown as well.
    assert!(refusal("relays.a = 1\nmailer.default-relay = \"a\"").contains("relays.a: must be a table"));
    assert_eq!(read("relays.a.kind = \"discard\"").unwrap().fixed.mailer.default_relay, None);
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
[routing.fallback]
push = [\"smss\", \"email\"]
pusch = [\"sms\"]
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
        "ace.toml:9: routing.default.push: there is no channel \"zzzzzzzz\"; there are no channels that can be used here",
        "ace.toml:11: routing.failover.email[1]: there is no channel \"file_emial\"; did you mean \"file_email\"?",
        "ace.toml:12: plugins.django_emial: there is no plugin \"django_emial\"; did you mean \"django_email\"?",
        "ace.toml:14: routing.fallback.push[0]: there is no channel type \"smss\"; did you mean \"sms\"?",
        "ace.toml:15: routing.fallback.pusch: there is no channel type \"pusch\"; did you mean \"push\"?",
        "ACE_ROUTING__TRANSACTIONAL__EMAIL: there is no channel \"djang_email\"; did you mean \"django_email\"?",
    ];
    assert_eq!(problems, expected);
    assert_eq!(Config::default().check_names(&channels, &policies, &plugins), []);
}

#[test]
fn a_fallback_has_no_cycle() {
    let problem = |chains: &str| refusal(&format!("[routing]\nfallback = {{ {chains} }}"));
    assert_eq!(
        problem("push = ['push']"),
        "line 2: routing.fallback.push[0]: a channel type cannot fall back to itself"
    );
    assert_eq!(problem("push = ['sms', 'sms']"), "line 2: routing.fallback.push[1]: \"sms\" is in the list twice");
    let cycle = problem("push = ['sms'], sms = ['push']");
    assert_eq!(cycle, "line 2: routing.fallback.push: is a cycle: push, sms, push");
    assert!(problem("push = 'sms'").starts_with("line 2: routing.fallback.push: must be a list"));
    assert!(problem("Push = ['sms']").starts_with("line 2: routing.fallback.Push: is not a channel type"));
    let config = read("[routing]\nfallback = { push = ['sms', 'email'] }").unwrap();
    assert_eq!(config.routing.fallback["push"], names(&["sms", "email"]));
}

#[test]
fn a_later_problem_finds_its_line() {
    let config = read("[plugins.\"a.b\"]\norder = 1\n[plugins.c]").unwrap();
    assert_eq!(config.problem("plugins.\"a.b\".order", "x").line, 2);
    assert_eq!(config.problem("plugins.c.grants.http[3]", "x").line, 3);
    assert_eq!(config.problem("delivery", "x").to_string(), "delivery: x");
}

#[test]
fn problems_serialise_for_machines() {
    let Problems(problems) = Config::read("x = 1", Some(Path::new("ace.toml")), []).unwrap_err();
    let json = serde_json::to_value(&problems[0]).unwrap();
    assert_eq!((&json["file"], &json["line"], &json["key"]), (&"ace.toml".into(), &1.into(), &"x".into()));
}
