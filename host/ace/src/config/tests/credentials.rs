//! `[credentials.NAME]`, and the ties of plugins.

use url::Url;

use super::*;

const PAGE: &str = include_str!("../../../../../docs/credentials.md");

/// A key of the curve P-256, and one of RSA in the key file of a service account. Nobody trusts them.
const EC_KEY: &str = include_str!("../../credentials/tests/ec.pem");
const ACCOUNT: &str = include_str!("../../credentials/tests/service_account.json");
const RSA_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn env() -> Vec<(&'static str, &'static str)> {
    vec![("P", "hunter2"), ("EC", EC_KEY), ("ACCOUNT", ACCOUNT), ("RSA", RSA_KEY), ("LINES", "hunter2\nhunter3")]
}

fn read_all(text: &str) -> Result<Config, Vec<String>> {
    read_with(text, &env())
}

/// The one problem of a credential `c`, without the place.
fn problem_of(keys: &str) -> String {
    let problems = read_all(&format!("[credentials.c]\n{keys}")).expect_err(keys);
    assert_eq!(problems.len(), 1, "{keys}: {problems:#?}");
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
    problems[0].split_once(": ").expect("a place").1.to_owned()
}

const URLS: &str = "urls = ['https://api.example/']";

#[test]
fn the_page_shows_credentials_that_work() {
    let folder = Folder::new("credentials");
    folder.write("service-account.json", ACCOUNT);
    folder.write("AuthKey.p8", EC_KEY);
    folder.write("vapid.pem", EC_KEY);
    let identity = rcgen::generate_simple_self_signed(["client.example".to_owned()]).expect("a certificate");
    folder.write("client.pem", &identity.cert.pem());
    folder.write("client.key", &identity.signing_key.serialize_pem());
    let mut kinds = BTreeSet::new();
    for block in PAGE.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let variables = block.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        let env: Vec<(&str, &str)> = variables.map(|name| (name, "aHVudGVyMg")).collect();
        let text = format!("keyvalue.database = 'kv.db'\n{block}");
        let config = folder.read(&text, &env).unwrap_or_else(|problems| panic!("{problems:#?}\n{block}"));
        kinds.extend(config.credentials.values().map(|credential| credential.kind.name()));
    }
    assert_eq!(kinds.len(), 14, "the page shows every kind: {kinds:?}");
}

#[test]
fn the_page_names_every_key() {
    let text = ["bearer", "basic", "header", "query", "url", "oauth2-client-credentials", "oauth2-refresh-token"]
        .into_iter()
        .chain(["google-service-account", "apns", "vapid", "aws-sigv4", "hmac", "client-certificate", "all"])
        .map(|kind| format!("[credentials.{kind}]\nkind = '{kind}'\n"))
        .collect::<String>();
    let mut decoder = reader::Decoder::new(None, BTreeMap::new());
    decoder.document(tree::parse(&text).unwrap(), decode::config);
    let known = decoder.known().iter().filter(|variable| variable.starts_with("ACE_CREDENTIALS__"));
    let keys: BTreeSet<String> = known
        .filter_map(|variable| variable.split("__").nth(2))
        .map(|key| key.to_lowercase().replace('_', "-"))
        .collect();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        assert!(PAGE.contains(&format!("`{key}`")), "docs/credentials.md does not name {key}");
    }
}

#[test]
fn a_credential_has_the_urls_that_it_may_be_sent_to() {
    let text = format!(
        "[credentials.push]\nkind = 'apns'\nkey = {{ env = 'EC' }}\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'
        [credentials.fcm]\nkind = 'google-service-account'\nkey = {{ env = 'ACCOUNT' }}
        [credentials.web]\nkind = 'vapid'\nkey = {{ env = 'EC' }}\nsubject = 'mailto:push@example.com'
        [credentials.own]\nkind = 'bearer'\ntoken = {{ env = 'P' }}\n{URLS}
        [credentials.local]\nkind = 'bearer'\ntoken = {{ env = 'P' }}\nurls = ['http://127.0.0.1:8080/x/', 'https://*.push.example/']
        [credentials.check]\nkind = 'hmac'\nkey = {{ env = 'P' }}"
    );
    let config = read_all(&text).unwrap();
    let urls = |name: &str| config.credentials[name].urls.iter().map(Url::as_str).collect::<Vec<_>>();
    assert_eq!(urls("push"), ["https://api.push.apple.com/", "https://api.sandbox.push.apple.com/"]);
    assert_eq!(urls("fcm"), ["https://fcm.googleapis.com/"]);
    assert_eq!(urls("web"), ["https://*/"]);
    assert_eq!(urls("own"), ["https://api.example/"]);
    assert_eq!(urls("local"), ["http://127.0.0.1:8080/x/", "https://*.push.example/"]);
    assert!(urls("check").is_empty());
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("BEGIN"));
}

#[test]
fn a_credential_that_cannot_work_is_refused() {
    let token = "kind = 'bearer'\ntoken = { env = 'P' }";
    let cases = [
        (format!("kind = 'baerer'\n{URLS}"), "credentials.c.kind: must be one of \"bearer\""),
        (URLS.to_owned(), "credentials.c.kind: is required"),
        (token.to_owned(), "credentials.c.urls: is required: the URL prefixes that it may be sent to"),
        (format!("{token}\nurls = ['https://*/']"), "urls[0]: would send the secret to hosts of anybody"),
        (format!("{token}\nurls = ['https://*.github.io/']"), "urls[0]: would send the secret to hosts of anybody"),
        (format!("{token}\nurls = ['http://api.example/']"), "urls[0]: must start with https://"),
        (format!("{token}\nurls = ['api.example']"), "urls[0]: must be a URL prefix"),
        (format!("kind = 'bearer'\n{URLS}"), "credentials.c.token: is required: { env = \"VARIABLE\" }"),
        (format!("kind = 'bearer'\n{URLS}\ntoken = 'hunter2'"), "token: a secret must not be in this file"),
        (format!("kind = 'bearer'\n{URLS}\ntoken = {{ env = 'LINES' }}"), "token: must be one line of ASCII text"),
        (format!("kind = 'bearer'\n{URLS}\ntoken = []"), "credentials.c.token: is required"),
        (
            format!("kind = 'bearer'\n{URLS}\ntoken = [{{ env = 'P' }}, {{ env = 'P' }}, {{ env = 'P' }}]"),
            "token: must be one secret, or two while one replaces the other, not 3",
        ),
        (
            format!("kind = 'bearer'\n{URLS}\ntoken = {{ env = 'P' }}\ntokn = 1"),
            "tokn: unknown key; did you mean \"token\"?",
        ),
        (
            format!("kind = 'basic'\n{URLS}\nusername = 'a:b'\npassword = {{ env = 'P' }}"),
            "username: must not contain a colon",
        ),
        (
            format!("kind = 'header'\n{URLS}\nname = 'a b'\nvalue = {{ env = 'P' }}"),
            "name: \"a b\" cannot be the name of a header",
        ),
        (
            format!("kind = 'header'\n{URLS}\nname = 'Host'\nvalue = {{ env = 'P' }}"),
            "name: \"Host\" is set by the host",
        ),
        (format!("kind = 'header'\n{URLS}\nname = 'TE'\nvalue = {{ env = 'P' }}"), "name: \"TE\" is set by the host"),
        (format!("kind = 'url'\n{URLS}\nvalue = {{ env = 'LINES' }}"), "value: must be a part of a URL"),
    ];
    refused(cases);
}

#[test]
fn a_key_that_cannot_work_is_refused() {
    let cases = [
        (
            "kind = 'apns'\nkey = { env = 'P' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'".to_owned(),
            "key: must be a private key in PEM",
        ),
        (
            "kind = 'apns'\nkey = { env = 'EC' }\nkey-id = 'short'\nteam-id = 'DEF123GHIJ'".to_owned(),
            "key-id: must be an id of 10 letters",
        ),
        (
            "kind = 'google-service-account'\nkey = { env = 'P' }".to_owned(),
            "key: must be the JSON key file of a service account",
        ),
        (
            "kind = 'vapid'\nkey = { env = 'RSA' }\nsubject = 'mailto:a@b'".to_owned(),
            "key: must be a private key of the curve P-256",
        ),
        (
            "kind = 'vapid'\nkey = { env = 'EC' }\nsubject = 'a@b'".to_owned(),
            "subject: must be a mailto: or https: URL",
        ),
        ("kind = 'hmac'\nkey = { env = 'P' }\nkey-encoding = 'hex'".to_owned(), "key: must be hexadecimal digits"),
        (
            "kind = 'hmac'\nkey = { env = 'P' }\ncontent = '{bodi}'".to_owned(),
            "content: unknown {bodi}; known are {body}",
        ),
        ("kind = 'hmac'\nkey = { env = 'P' }\ncontent = '{method}'".to_owned(), "content: must contain {body}"),
        ("kind = 'hmac'\nkey = { env = 'P' }\nheader = 'x'".to_owned(), "urls: is required"),
        ("kind = 'hmac'\nkey = { env = 'P' }\nderive = 'url'".to_owned(), "derive: needs a `header`"),
        (format!("kind = 'hmac'\n{URLS}\nkey = {{ env = 'P' }}\nheader = 'x'\nderive = 'host'"), "derive: "),
        ("kind = 'hmac'\nkey = { env = 'P' }\nsign-with = 'all'".to_owned(), "sign-with: needs a `header`"),
        (format!("kind = 'hmac'\n{URLS}\nkey = {{ env = 'P' }}\nheader = 'x'\nsign-with = 'last'"), "sign-with: "),
        (
            format!(
                "kind = 'oauth2-client-credentials'\n{URLS}\ntoken-url = 'http://id.example/'\nclient-id = 'i'\nclient-secret = {{ env = 'P' }}"
            ),
            "token-url: must start with https://",
        ),
        (
            format!(
                "kind = 'oauth2-refresh-token'\n{URLS}\ntoken-url = 'https://id.example/'\nclient-id = 'i'\nrefresh-token = {{ env = 'P' }}"
            ),
            "refresh-token: needs keyvalue.database",
        ),
        (
            format!("kind = 'aws-sigv4'\n{URLS}\naccess-key-id = 'AKID'\nregion = 'r'\nservice = 'ses'"),
            "secret-access-key: is required",
        ),
        (
            format!("kind = 'client-certificate'\n{URLS}\nkey = {{ env = 'EC' }}\ncertificate = 'none.pem'"),
            "there is no file none.pem",
        ),
    ];
    refused(cases);
}

fn refused(cases: impl IntoIterator<Item = (String, &'static str)>) {
    for (keys, expected) in cases {
        let problem = problem_of(&keys);
        assert!(problem.contains(expected), "{keys}: {problem}");
    }
}

#[test]
fn members_of_all_are_credentials_that_fit_together() {
    let others = "
        [credentials.key]\nkind = 'bearer'\ntoken = { env = 'P' }\nurls = ['https://api.example/']
        [credentials.user]\nkind = 'basic'\nusername = 'u'\npassword = { env = 'P' }\nurls = ['https://api.example/']
        [credentials.one]\nkind = 'url'\nvalue = { env = 'P' }\nurls = ['https://api.example/']
        [credentials.two]\nkind = 'url'\nvalue = { env = 'P' }\nurls = ['https://api.example/']
        [credentials.broken]\nkind = 'bearer'
        [credentials.c]\nkind = 'all'\n";
    let cases = [
        ("['key']", "credentials.c.credentials: must name at least two credentials"),
        ("['key', 'yek']", "credentials.c.credentials[1]: there is no credential \"yek\"; did you mean \"key\"?"),
        ("['key', 'key']", "credentials.c.credentials[1]: \"key\" is in the list twice"),
        ("['key', 'c']", "credentials.c.credentials[1]: must not be of the kind \"all\" itself"),
        ("['key', 'user']", "credentials.c.credentials[1]: sets a header that another one in the list sets too"),
        ("['one', 'two']", "credentials.c.credentials[1]: is the second one of the kind \"url\""),
    ];
    for (list, expected) in cases {
        let problems = read_all(&format!("{others}credentials = {list}")).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{list}: {problems:#?}");
    }
    // One that is there but wrong is not called unknown as well.
    let problems = read_all(&format!("{others}credentials = ['key', 'broken']")).unwrap_err();
    assert!(problems.iter().all(|problem| problem.contains("credentials.broken.")), "{problems:#?}");
}

#[test]
fn plugins_have_their_own_names_for_credentials() {
    let credentials = format!("[credentials.brand-a]\nkind = 'bearer'\ntoken = {{ env = 'P' }}\n{URLS}\n");
    let with = |tie: &str| read_all(&format!("{credentials}[plugins.p]\ncredentials = {{ {tie} }}"));
    let config = with("fcm = 'brand-a'").unwrap();
    assert_eq!(config.plugins["p"].credentials["fcm"], "brand-a");
    assert!(!config.plugins["p"].runs_as(&Plugin::default()));
    let cases = [
        ("fcm = 'brand-b'", "plugins.p.credentials.fcm: there is no credential \"brand-b\"; did you mean \"brand-a\"?"),
        ("'a b' = 'brand-a'", "plugins.p.credentials.\"a b\": is not a plugin's name for a credential"),
        ("fcm = 3", "plugins.p.credentials.fcm: must be a string, not a number"),
    ];
    for (tie, expected) in cases {
        let problems = with(tie).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{tie}: {problems:#?}");
    }
}
