//! Any text as a manifest: it is read or refused with the key that is wrong, and never grants.

use ace::config::{Grants, Manifest};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;

use crate::support::{Home, assert_text, message};

/// What a manifest knows, by table.
const KNOWN: [(&str, &[&str]); 3] = [
    ("", &["version", "description", "license", "homepage", "requests", "defaults", "runtime"]),
    ("requests", &["http", "keyvalue", "mailer", "outbox", "secrets"]),
    ("runtime", &["isolation", "memory", "time", "call-timeout", "instances"]),
];

/// Text with the marks of TOML, the keys of manifests and noise, in any order.
fn toml_ish() -> impl Strategy<Value = String> {
    let keys = KNOWN.iter().flat_map(|(_, keys)| keys.iter().copied()).collect::<Vec<_>>();
    let part = prop_oneof![
        proptest::sample::select(keys).prop_map(str::to_owned),
        proptest::sample::select(vec![
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            " = ",
            ",",
            ".",
            "\"",
            "'",
            "\"\"\"",
            "'''",
            "#",
            "\n",
            "\r\n",
            "\\",
            "\\u0000",
            "true",
            "nan",
            "inf",
            "-",
            "+1",
            "0x",
            "1e9",
            "1979-05-27T07:32:00Z",
            "64MiB",
            "5s",
            "https://a.example/",
            "\u{feff}",
            "\0",
            "é",
            "facts:read",
            "\"message\"",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ];
    proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

/// A sound manifest.
fn sound() -> impl Strategy<Value = String> {
    let hosts = proptest::collection::vec("[a-z]{1,8}\\.example", 0..4);
    let buckets = proptest::collection::vec("[a-z]{1,8}(:read|:write|:read-write)?", 0..4);
    let secrets = proptest::collection::vec("[a-z-]{1,12}", 0..3);
    let isolation = proptest::sample::select(vec!["pooled", "message"]);
    (hosts, buckets, secrets, any::<bool>(), any::<bool>(), isolation, 2_u32..64).prop_map(
        |(hosts, buckets, secrets, mailer, outbox, isolation, mib)| {
            let http: Vec<String> = hosts.iter().map(|host| format!("https://{host}/")).collect();
            format!(
                "version = '1.0.0'\n[requests]\nhttp = {http:?}\nkeyvalue = {buckets:?}\nsecrets = {secrets:?}\n\
                 mailer = {mailer}\noutbox = {outbox}\n[defaults]\nanything = {{ goes = 1 }}\n\
                 [runtime]\nmemory = '{mib}MiB'\nisolation = '{isolation}'\n"
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_with_a_reason(text in toml_ish()) {
        if let Err(problems) = Manifest::read(&text, Some("x.toml".as_ref())) {
            prop_assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                prop_assert!(!problem.message.is_empty());
                let shown = problem.to_string();
                prop_assert!(shown.starts_with("x.toml:"), "{shown:?}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line(text in sound(), key in "[a-z]{3,12}", at in 0_usize..3) {
        let (table, known) = KNOWN[at];
        prop_assume!(!known.contains(&key.as_str()));
        prop_assert!(Manifest::read(&text, None).is_ok(), "{text}");
        let (path, wrong) = match table {
            "" => (key.clone(), format!("{key} = 1\n{text}")),
            table => (format!("{table}.{key}"), text.replace(&format!("[{table}]\n"), &format!("[{table}]\n{key} = 1\n"))),
        };
        let problems = Manifest::read(&wrong, None).expect_err("it is unknown").0;
        prop_assert_eq!(problems.len(), 1);
        prop_assert_eq!(&problems[0].key, &path);
        let line = wrong.lines().position(|line| *line == format!("{key} = 1")).expect("it is there") + 1;
        prop_assert_eq!(problems[0].line, line);
    }
}

/// The parser and the reader must not go as deep as the text does.
#[test]
fn deep_and_long_manifests_are_refused_or_read_without_harm() {
    let deep = 100_000;
    let texts = [
        format!("defaults = {{ a = {} }}", "[".repeat(deep)),
        format!("defaults = {{ a = {}{} }}", "[".repeat(deep), "]".repeat(deep)),
        format!("defaults = {}", "{ a = ".repeat(deep)),
        format!("[defaults{}]", ".a".repeat(deep)),
        format!("[defaults]\n{}a = 1", "a.".repeat(deep)),
        "[[defaults.a]]\n".repeat(10_000),
        format!("description = '{}'", "x".repeat(1 << 20)),
    ];
    for text in texts {
        let _ = Manifest::read(&text, None);
    }
}

/// Fifty manifests at once, each beside the same policy and channel, which asks for everything it has a name for.
#[test]
fn no_manifest_grants_anything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let home = Home::new(&[], "[limits]\ncircuit-faults = 1000\n");
    let mut requests = Vec::new();
    for n in 0..50 {
        let text = sound().new_tree(&mut runner).expect("a manifest").current();
        requests.push(Manifest::read(&text, None).expect("it is sound").requests);
        home.guest("hostile", &format!("p{n:02}"));
        home.file(&format!("plugins/p{n:02}.toml"), text);
    }
    let done = home.ace(&["plugins", "--json"]).run().ok();
    for (plugin, requests) in done.lines().iter().zip(&requests) {
        assert_eq!(plugin["granted"], json!([]), "{plugin}");
        let buckets: usize = requests.keyvalue.iter().map(|b| usize::from(b.read) + usize::from(b.write)).sum();
        let asked = requests.http.len() + buckets + requests.secrets.len();
        let asked = asked + usize::from(requests.mailer) + usize::from(requests.outbox);
        assert_eq!(plugin["missing"].as_array().map(Vec::len), Some(asked), "all of it is missing: {plugin}");
    }
    assert_eq!(
        ace::Config::default().plugins.get("p00").map(|p| p.grants.clone()).unwrap_or_default(),
        Grants::default()
    );
}

#[test]
fn a_manifest_that_grants_to_itself_is_refused_and_reaches_nothing() {
    let home = Home::new(&[], "");
    home.guest("hostile", "hostile");
    for (table, key) in
        [("grants = { mailer = true }", "grants"), ("[plugins.hostile.grants]\nmailer = true", "plugins")]
    {
        home.file("plugins/hostile.toml", table);
        let plugins = home.ace(&["plugins", "--json"]).run().code(1).lines();
        assert_eq!(plugins[0]["granted"], json!([]));
        assert_text(&plugins[0]["state"]["reason"], &format!("hostile.toml:1: {key}: "));
    }
    home.file("plugins/hostile.toml", "[requests]\nkeyvalue = ['loot']\nmailer = true\n");
    let ask = message("note", json!({"context": {"in": "check", "do": "loot"}})).to_string();
    let done = home.ace(&["--log", "warn", "send", "--json", "--patience", "0", "-"]).input(ask).run();
    done.says("keyvalue: not granted; the operator can write `grants = { keyvalue = [\"loot:write\"] }`");
}
