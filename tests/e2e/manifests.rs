//! Any text as a manifest: it is read, or rejected with the invalid key, and never grants anything.

use ace::config::{BucketGrant, Grants, Manifest, Requests};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;

use crate::support::{Home, assert_text, message};

/// The known keys of a manifest, by table.
const KNOWN: [(&str, &[&str]); 3] = [
    ("", &["version", "description", "license", "homepage", "requests", "defaults", "runtime"]),
    ("requests", &["http", "keyvalue", "mailer", "outbox", "feedback", "secrets", "credentials"]),
    ("runtime", &["isolation", "memory", "time", "call-timeout", "instances"]),
];

/// Text from the punctuation of TOML, the keys of manifests and noise, in any order.
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

/// A valid manifest.
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

/// The text of any TOML value, with the keys of manifests among its keys.
fn any_value() -> impl Strategy<Value = String> {
    let known: Vec<&str> = KNOWN.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let key = prop_oneof![proptest::sample::select(known).prop_map(str::to_owned), "[a-z-]{1,6}"];
    let leaf = prop_oneof![
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("TOML writes these in its own way", |f| f.is_finite()).prop_map(|f| format!("{f:?}")),
        "[ -~é]{0,12}".prop_map(|text| format!("{text:?}")).prop_filter("another escape", |text| !text.contains("\\'")),
        proptest::sample::select(vec![
            "1979-05-27T07:32:00Z",
            "'64MiB'",
            "'5s'",
            "'https://a.example/v1/'",
            "'facts:read'",
            "'message'",
            "nan",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let pairs = proptest::collection::btree_map(key.clone(), inner.clone(), 0..6);
        let table = pairs.prop_map(|pairs| {
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("{{ {} }}", pairs.join(", "))
        });
        let list = proptest::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(", ")));
        prop_oneof![table, list]
    })
}

/// A document: known and unknown keys with any values, each on a line of its own.
fn any_tree() -> impl Strategy<Value = String> {
    let known: Vec<&str> = KNOWN.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let key = prop_oneof![3 => proptest::sample::select(known).prop_map(str::to_owned), 1 => "[a-z-]{1,6}"];
    let pairs = proptest::collection::btree_map(key, any_value(), 0..8);
    pairs.prop_map(|pairs| pairs.iter().map(|(key, value)| format!("{key} = {value}\n")).collect())
}

fn requests() -> impl Strategy<Value = Requests> {
    let url = "https://[a-z]{1,8}\\.example/([a-z0-9]{1,5}/)?";
    let bucket = ("[a-z]{1,8}", 1_u8..4).prop_map(|(bucket, access)| BucketGrant {
        bucket,
        read: access & 1 != 0,
        write: access & 2 != 0,
    });
    let http = proptest::collection::vec(url, 0..4);
    let keyvalue = proptest::collection::vec(bucket, 0..4);
    let secrets = proptest::collection::vec("[a-z-]{1,12}", 0..3);
    let credentials = proptest::collection::vec("[a-z0-9_-]{1,12}", 0..3);
    let feedback = proptest::collection::vec("[a-z_]{1,12}", 0..3);
    (http, keyvalue, any::<bool>(), any::<bool>(), feedback, secrets, credentials).prop_map(
        |(http, keyvalue, mailer, outbox, feedback, secrets, credentials)| Requests {
            http,
            keyvalue,
            mailer,
            outbox,
            feedback,
            secrets,
            credentials,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_rejected_with_a_reason(text in toml_ish()) {
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
    fn any_tree_is_read_or_rejected_with_a_location(text in any_tree()) {
        if let Err(problems) = Manifest::read(&text, Some("x.toml".as_ref())) {
            for problem in &problems.0 {
                prop_assert!((1..=text.lines().count()).contains(&problem.line), "{problem}: {text}");
                prop_assert!(!problem.key.is_empty() && !problem.message.is_empty(), "{problem}: {text}");
                let line = text.lines().nth(problem.line - 1).expect("it is there");
                let root = problem.key.split(['.', '[']).next().expect("a part");
                prop_assert!(line.starts_with(root), "{problem} has the line {line:?}");
            }
        }
    }

    #[test]
    fn requests_are_read_back_and_granted_completely(requests in requests()) {
        let keyvalue: Vec<String> = requests.keyvalue.iter().map(ToString::to_string).collect();
        let text = format!(
            "[requests]\nhttp = {:?}\nkeyvalue = {keyvalue:?}\nmailer = {}\noutbox = {}\nfeedback = {:?}\nsecrets = {:?}\n\
             credentials = {:?}\n",
            requests.http, requests.mailer, requests.outbox, requests.feedback, requests.secrets, requests.credentials
        );
        let read = Manifest::read(&text, None).expect("it is valid").requests;
        prop_assert_eq!(&read, &requests);

        let before = "# Kept.\n[plugins.probe]\norder = 7 # here\n";
        let granted = ace::config::granted(before, "probe", &requests, Some("out".as_ref())).expect("it is valid");
        prop_assert!(granted.starts_with(before), "{granted}");
        let config = ace::Config::read(&granted, None, []).expect("it stays valid");
        let grants = &config.plugins["probe"].grants;
        prop_assert_eq!((&grants.http, &grants.keyvalue), (&requests.http, &requests.keyvalue));
        prop_assert_eq!(&grants.feedback, &requests.feedback);
        prop_assert_eq!((grants.mailer, grants.outbox.is_some()), (requests.mailer, requests.outbox));
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

/// The recursion of the parser and the reader must be limited.
#[test]
fn deep_and_long_manifests_are_rejected_or_read_without_harm() {
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

/// Fifty manifests at once, each for the same policy and channel, which tries to use everything it can name.
#[test]
fn no_manifest_grants_anything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let home = Home::new(&[], "[limits]\ncircuit-faults = 1000\n");
    let mut requests = Vec::new();
    for n in 0..50 {
        let text = sound().new_tree(&mut runner).expect("a manifest").current();
        requests.push(Manifest::read(&text, None).expect("it is valid").requests);
        home.guest("hostile", &format!("p{n:02}"));
        home.file(&format!("plugins/p{n:02}.toml"), text);
    }
    let done = home.ace(&["plugins", "--json"]).run().ok();
    for (plugin, requests) in done.lines().iter().zip(&requests) {
        assert_eq!(plugin["granted"], json!([]), "{plugin}");
        let buckets: usize = requests.keyvalue.iter().map(|b| usize::from(b.read) + usize::from(b.write)).sum();
        let asked = requests.http.len() + buckets + requests.secrets.len();
        let asked = asked + usize::from(requests.mailer) + usize::from(requests.outbox);
        assert_eq!(plugin["missing_grants"].as_array().map(Vec::len), Some(asked), "all of it is missing: {plugin}");
    }
    assert_eq!(
        ace::Config::default().plugins.get("p00").map(|p| p.grants.clone()).unwrap_or_default(),
        Grants::default()
    );
}

#[test]
fn a_manifest_that_grants_to_itself_is_rejected_and_has_no_access() {
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
    let done = home.ace(&["--log", "warn", "send", "--json", "--max-delay", "0", "-"]).input(ask).run();
    done.says("keyvalue: not granted; the operator can write `grants = { keyvalue = [\"loot:write\"] }`");
}

/// Whatever manifests request, limits are never above the maxima of ace.toml.
#[tokio::test]
async fn no_limit_is_above_its_maximum() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let home = Home::empty();
    home.config("[limits]\nmemory = '2MiB'\ntime = '50ms'\npolicy-call-timeout = '200ms'\ninstances = 3\n");
    let component = wat::parse_str(include_str!("hostile/policy.wat")).expect("it is valid");
    let wishes = (64_u32..100_000, 1_u32..10_000, 1_u32..100_000, 1_u32..1_000);
    for n in 0..40 {
        let (kib, time, timeout, instances) = wishes.new_tree(&mut runner).expect("wishes").current();
        home.file(&format!("plugins/p{n}.wasm"), &component);
        let runtime = format!(
            "[runtime]\nmemory = '{kib}KiB'\ntime = '{time}ms'\ncall-timeout = '{timeout}ms'\ninstances = {instances}\n"
        );
        home.file(&format!("plugins/p{n}.toml"), runtime);
    }
    let config = ace::Config::load(&home.path("ace.toml")).expect("it is valid");
    let max = config.fixed.limits.clone();
    let ace = ace::Ace::builder(config).start().await.expect("it starts");
    let mut serving = 0;
    for plugin in ace.registry().plugins.values() {
        let Some(runtime) = &plugin.runtime else { continue };
        let is = &runtime.settings.limits;
        assert!(is.memory <= max.memory && is.time <= max.time && is.instances <= max.instances, "{is:?}");
        assert!(is.call_timeout <= max.policy_call_timeout, "{is:?}");
        serving += 1;
    }
    assert!(serving > 0, "all of them are refused: {:?}", ace.registry().plugins.values().next().map(|p| &p.state));
}
