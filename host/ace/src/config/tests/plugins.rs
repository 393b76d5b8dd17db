//! Grants, secrets and manifests.

use super::*;

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
        ("\"hunter2\"", "plugins.p.secrets.key: a secret must not be in this file; write { env = \"VARIABLE\" }"),
        ("{ env = \"UNSET\" }", "plugins.p.secrets.key.env: the environment variable UNSET is not set"),
        ("{ env = \"EMPTY\" }", "the environment variable EMPTY is empty"),
        ("{ file = \"none\" }", "plugins.p.secrets.key.file: none cannot be read: "),
        ("{ file = \"empty\" }", "empty is empty"),
        ("{ env = \"TOKEN\", file = \"key\" }", "a secret has only one source"),
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

/// A variable that a secret names may be called `ACE_…`, although it is not a setting.
fn with_ace_own(folder: &Folder, secret: &str, env: &[(&str, &str)]) -> Config {
    let needs = |name: &str| !name.starts_with("ACE_") || secret.contains(name);
    let env: Vec<_> = env.iter().filter(|(name, _)| needs(name)).copied().collect();
    folder.read(&format!("[plugins.p]\nsecrets.key = {secret}"), &env).unwrap()
}

#[test]
fn idle_connections_are_as_many_as_requests_in_flight_if_not_set() {
    let idle = |http: &str| read(&format!("[http]\n{http}")).unwrap().fixed.http.idle_connections;
    assert_eq!(idle(""), 32);
    assert_eq!(idle("requests-per-plugin = 64"), 64);
    assert_eq!(idle("requests-per-plugin = 64\nidle-connections = 2"), 2);
}

#[test]
fn grants_are_read_as_they_are_written() {
    let config = read(
        "[plugins.p]
        grants = { http = ['https://API.example.com:443/v1/', 'https://*.PUSH.example/', 'https://*/'], keyvalue = ['a:read', 'b:write', 'c:read-write', 'd'], mailer = true, outbox = 'out' }",
    );
    let grants = config.unwrap().plugins["p"].grants.clone();
    assert_eq!(grants.http, ["https://api.example.com/v1/", "https://*.push.example/", "https://*/"]);
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
        "https://a.*.example.com/",
        "https://*a.example.com/",
        "https://*.*.example.com/",
        "https://*.com/",
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
fn a_manifest_requests() {
    let page = include_str!("../../../../../docs/plugins.md");
    let manifest = Manifest::read(block_of(page, "## The manifest requests, ace.toml grants"), None).unwrap();
    assert_eq!(manifest.version.as_deref(), Some("0.1.0"));
    assert_eq!(manifest.requests.http, ["https://api.example.com/v1/"]);
    assert_eq!((manifest.requests.mailer, manifest.requests.outbox), (true, true));
    assert_eq!(manifest.requests.secrets, ["api-key"]);
    assert!(manifest.defaults.contains_key("bucket"));
    let manifest = Manifest::read("[requests]\nmailer = true\n[runtime]\ncall-timeout = \"20s\"", None).unwrap();
    assert_eq!((manifest.requests.mailer, manifest.requests.outbox), (true, false));
    assert_eq!(manifest.runtime.call_timeout, Some(Duration::from_secs(20)));
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
    assert!(problems[0].to_string().starts_with("p.toml:1: version: must not contain control characters"));
}
