//! A credential is sent to no URL that the plugin or the credential is not granted for: many grants and URLs that resemble each other, with
//! patterns and redirects, by `authorized-http` and by wasi:http, with credentials of each kind that needs no TLS to be sent.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};
use url::{Host, Url};

use crate::outgoing_http::{Head, Web, found};
use crate::support::{Home, message, repository};

const SCENES: usize = 3;
const REQUESTS: usize = 250;

/// The kinds, each with the rest of its definition. A credential is named after its place here.
const KINDS: [(&str, &str); 12] = [
    ("bearer", "token = { file = 'SECRET' }"),
    ("basic", "username = 'u'\npassword = { file = 'SECRET' }"),
    ("header", "name = 'x-key'\nvalue = { file = 'SECRET' }"),
    ("query", "name = 'k'\nvalue = { file = 'SECRET' }"),
    ("url", "value = { file = 'SECRET' }"),
    ("hmac", "header = 'x-signature'\nprefix = 'sha256='\nkey = { file = 'SECRET' }"),
    ("vapid", "key = { file = 'ec.pem' }\nsubject = 'mailto:push@campus.example'"),
    ("apns", "key = { file = 'ec.pem' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'"),
    ("aws-sigv4", "access-key-id = 'AKIA'\nsecret-access-key = { file = 'SECRET' }\nregion = 'r'\nservice = 's'"),
    ("oauth2-client-credentials", "token-url = 'TOKENS'\nclient-id = 'ace'\nclient-secret = { file = 'SECRET' }"),
    ("all", "credentials = ['c0', 'c3']"),
    ("all", "credentials = ['c2', 'c4']"),
];

/// What a credential is made of: itself, or its members.
fn members(credential: usize) -> Vec<usize> {
    match credential {
        10 => vec![0, 3],
        11 => vec![2, 4],
        one => vec![one],
    }
}

fn secret(credential: usize) -> String {
    format!("hunter-{credential}-")
}

/// The start of the header that a credential sets, if it sets one.
fn header(credential: usize) -> Option<(&'static str, String)> {
    let login = || BASE64_STANDARD.encode(format!("u:{}", secret(credential)));
    Some(match KINDS[credential].0 {
        "bearer" => ("authorization", format!("Bearer {}", secret(credential))),
        "basic" => ("authorization", format!("Basic {}", login())),
        "header" => ("x-key", secret(credential)),
        "hmac" => ("x-signature", "sha256=".to_owned()),
        "vapid" => ("authorization", "vapid t=ey".to_owned()),
        "apns" => ("authorization", "bearer ey".to_owned()),
        "aws-sigv4" => ("authorization", "AWS4-HMAC-SHA256 Credential=AKIA/".to_owned()),
        "oauth2-client-credentials" => ("authorization", "Bearer token-".to_owned()),
        _ => return None,
    })
}

/// A plugin's own name for a credential in a URL.
fn own(credential: usize) -> String {
    format!("$(c{credential})")
}

/// Random grants of one plugin and of its credentials, and requests.
struct Scene {
    servers: [Web; 2],
    tokens: Web,
    grants: Vec<String>,
    /// Of each credential.
    urls: Vec<Vec<String>>,
    requests: Vec<Request>,
}

#[derive(Debug, Clone)]
struct Request {
    url: String,
    credential: usize,
}

/// What happens to a request.
#[derive(Debug, PartialEq)]
enum End {
    /// A server gets it, with this URL.
    Arrives(String),
    /// It is sent, but its host has no address (RFC 6761).
    Unreachable,
    Denied,
}

/// Makes random scenes and runs a test with each. The seed is PROPTEST_RNG_SEED, or another one each time.
fn scenes(test: impl Fn(&Scene)) {
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos().into(),
    };
    // Shown if the test fails.
    println!("PROPTEST_RNG_SEED={seed}");
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    (0..SCENES).for_each(|_| test(&Scene::new(&mut runner)));
}

/// URL prefixes of grants, for these servers.
fn prefixes(servers: &[String]) -> impl Strategy<Value = Vec<String>> + use<> {
    let patterns = ["https://*.push.invalid", "https://*.push.invalid:8443", "https://*.a.push.invalid"];
    let others = ["https://a.push.invalid".to_owned()];
    let hosts = [servers, servers, &patterns.map(str::to_owned), &others].concat();
    let paths = select(vec!["/", "/v1/", "/v1/a", "/v10", "/v2/", "/v2/a/b/"]);
    prop::collection::vec((select(hosts), paths).prop_map(|(host, path)| host + path), 2..6)
}

/// Requests to these servers, and to hosts whose names resemble those of the patterns. Half of them ask the server for a redirect.
fn requests(servers: &[String]) -> impl Strategy<Value = Request> + use<> {
    let others = [
        "https://a.push.invalid",
        "https://a.push.invalid",
        "https://b.a.push.invalid",
        "https://a.push.invalid:8443",
        "https://a.push.invalid.",
        "https://push.invalid",
        "https://apush.invalid",
        "http://a.push.invalid",
        "https://127.0.0.1:1",
        "https://localhost:1",
    ];
    let target = (select([servers, servers, &others.map(str::to_owned)].concat()), path());
    let target = target.prop_map(|(host, path)| host + &path).boxed();
    (target.clone(), prop::option::of(target), 0..KINDS.len()).prop_map(|(url, redirect, credential)| {
        let url = redirect.iter().fold(url, |url, to| format!("{url}?to={to}"));
        Request { url: url.replace("OWN", &own(credential)), credential }
    })
}

/// Paths that resemble each other. `OWN` becomes the plugin's name for the credential.
fn path() -> impl Strategy<Value = String> {
    let first = select(vec!["v1", "v1", "v1", "v10", "V1", "v2", "v2", "%761"]);
    let others = prop::collection::vec(select(vec!["a", "a", "a", "b", "b", "..", "%2e%2e", "OWN", "xOWN"]), 0..3);
    let last = select(vec!["", "", "", "/OWN", "?v=OWN", "?OWN=v"]);
    (first, others, last).prop_map(|(first, others, last)| {
        others.iter().fold(format!("/{first}"), |path, part| path + "/" + part) + last
    })
}

impl Scene {
    fn new(runner: &mut TestRunner) -> Scene {
        let servers = [Web::start(), Web::start()];
        // A name in place of the address is another host.
        let named = format!("http://localhost:{}", servers[0].address.port());
        let hosts = [servers[0].url(""), servers[1].url(""), named];
        let granted = (prefixes(&hosts), any::<bool>(), prop::collection::vec(prefixes(&hosts), KINDS.len()));
        let random = prop::collection::vec(requests(&hosts), REQUESTS);
        let tree = (granted, random).new_tree(runner).expect("a scene");
        let ((mut grants, all_hosts, mut urls), random) = tree.current();
        // So that enough requests depend on the credential.
        let whole = [format!("{}/", hosts[0]), "https://*.push.invalid/".to_owned()];
        grants.extend(whole);
        grants.extend(all_hosts.then(|| "https://*/".to_owned()));
        // Each credential is sent at least once, and one of them to a host that a pattern covers.
        urls.iter_mut().for_each(|urls| urls.push(format!("{}/v1/", hosts[0])));
        urls[0].push("https://*.push.invalid/v1/".to_owned());
        let sure = |host: &str, credential| Request { url: format!("{host}/v1/{}", own(credential)), credential };
        let mut requests: Vec<Request> = (0..KINDS.len()).map(|credential| sure(&hosts[0], credential)).collect();
        requests.push(sure("https://a.push.invalid", 0));
        requests.extend(random);
        Scene { servers, tokens: Web::start(), grants, urls, requests }
    }

    fn home(&self, guest: &str) -> Home {
        let home = Home::empty();
        home.guest(guest, guest);
        home.file("ec.pem", std::fs::read(repository("host/ace/src/credentials/tests/ec.pem")).expect("a file"));
        let names: Vec<String> = (0..KINDS.len()).map(|n| format!("c{n} = 'c{n}'")).collect();
        let mut toml = format!(
            "[http]\nconnect-timeout = '2s'\n[plugins.{guest}]\nlimits = {{ call-timeout = '10s' }}\n\
             grants = {{ http = {:?} }}\ncredentials = {{ {} }}\n",
            self.grants,
            names.join(", ")
        );
        for (n, (kind, rest)) in KINDS.iter().enumerate() {
            home.file(&format!("secret-{n}"), secret(n));
            let rest = rest.replace("SECRET", &format!("secret-{n}")).replace("TOKENS", &self.tokens.url("/token"));
            let urls = if *kind == "all" { String::new() } else { format!("urls = {:?}\n", self.urls[n]) };
            toml += &format!("[credentials.c{n}]\nkind = '{kind}'\n{urls}{rest}\n");
        }
        home.config(&toml);
        home
    }

    /// Makes the requests, and returns what the guest was answered.
    fn run(&self, guest: &str, fetch: impl Fn(&Request) -> Value) -> Vec<String> {
        let note = |(number, request): (usize, &Request)| {
            let mut fetch = fetch(request);
            fetch["headers"] = json!([["x-number", number.to_string()]]);
            message("note", json!({"context": {"fetch": fetch}})).to_string()
        };
        let lines: Vec<String> = self.requests.iter().enumerate().map(note).collect();
        let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
        let done = self.home(guest).ace(&arguments).input(lines.join("\n")).run();
        assert!(!done.stdout.contains("hunter") && !done.stderr.contains("hunter"), "{done:?}");
        done.lines().iter().map(|line| found(line).as_str().expect("text").to_owned()).collect()
    }

    /// The requests that arrived, by number.
    fn arrived(&self) -> Vec<(usize, Head)> {
        let number = |head: &Head| head.header("x-number").and_then(|number| number.parse().ok()).expect("a number");
        let mut arrived: Vec<_> = self.servers.iter().flat_map(Web::heads).map(|head| (number(&head), head)).collect();
        arrived.sort_by_key(|(number, _)| *number);
        arrived
    }

    /// What must happen to a request with these credentials, by rules that are written down once more.
    fn end(&self, request: &Request, members: &[usize]) -> End {
        let url = &request.url;
        let path = url.split('?').next().unwrap_or_default().to_lowercase();
        let is_granted = |prefixes: &[String]| prefixes.iter().any(|prefix| is_below(prefix, url));
        let is_allowed = !path.contains("..")
            && !path.contains("%2e")
            && is_granted(&self.grants)
            && members.iter().all(|member| is_granted(&self.urls[*member]));
        match members.iter().try_fold(url.clone(), |url, member| with_secret(&url, *member, request.credential)) {
            Some(_) if is_allowed && url.starts_with("https://") => End::Unreachable,
            Some(url) if is_allowed => End::Arrives(url),
            _ => End::Denied,
        }
    }

    /// Compares what arrived, and what the guest was answered for the rest.
    fn check(&self, answers: &[String], ends: &[End], unreachable: &str) {
        let url = |head: &Head| format!("http://{}{}", head.header("host").unwrap_or_default(), head.target);
        let arrived: Vec<_> = self.arrived().iter().map(|(number, head)| (*number, url(head))).collect();
        let expected = ends.iter().enumerate().filter_map(|(number, end)| match end {
            End::Arrives(url) => Some((number, url.clone())),
            _ => None,
        });
        assert_eq!(arrived, expected.collect::<Vec<_>>(), "{:?} {:?}", self.grants, self.urls);
        for ((answer, end), request) in answers.iter().zip(ends).zip(&self.requests) {
            let is_unreachable = *end == End::Unreachable;
            assert_eq!(answer.contains(unreachable), is_unreachable, "{request:?} {answer} {:?}", self.grants);
        }
        let denied = ends.iter().filter(|end| **end == End::Denied).count();
        assert!(denied > REQUESTS / 10 && ends.contains(&End::Unreachable), "{denied} were denied");
    }
}

/// The URL with what a credential puts into it. `None`: it has no place for it.
fn with_secret(url: &str, member: usize, credential: usize) -> Option<String> {
    let own = own(credential);
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    match KINDS[member].0 {
        "query" => Some(format!("{url}{}k={}", if query.is_some() { '&' } else { '?' }, secret(member))),
        "url" => {
            let segments: Vec<&str> = path.split('/').collect();
            let value = query.and_then(|query| query.split('&').next()?.split_once('='));
            let is_value = value.is_some_and(|(_, value)| value == own);
            if segments.iter().filter(|segment| **segment == own).count() + usize::from(is_value) != 1 {
                return None;
            }
            Some(url.replacen(&own, &secret(member), 1))
        }
        _ => Some(url.to_owned()),
    }
}

/// Whether the URL has the scheme, host and port of a prefix, and all segments of its path.
fn is_below(prefix: &str, url: &str) -> bool {
    let (prefix, url) = (Url::parse(prefix).expect("a URL"), Url::parse(url).expect("a URL"));
    let segments =
        |url: &Url| url.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (pattern, host) = (prefix.host_str().expect("a host"), url.host_str().expect("a host"));
    let is_name = matches!(url.host(), Some(Host::Domain(name)) if name != "localhost");
    let is_host = match pattern.split_once('*') {
        None => host == pattern,
        Some((_, "")) => is_name,
        Some((_, domain)) => is_name && host.ends_with(domain) && host.len() > domain.len(),
    };
    let origin = |url: &Url| (url.scheme().to_owned(), url.port_or_known_default());
    is_host && origin(&prefix) == origin(&url) && segments(&url).starts_with(&segments(&prefix))
}

/// A request has the headers of its credential, and nothing of another one.
fn check_head(head: &Head, members: &[usize]) {
    for name in ["authorization", "x-key", "x-signature"] {
        let expected = members.iter().filter_map(|member| header(*member)).find(|(of, _)| *of == name);
        match (head.header(name), expected) {
            (Some(value), Some((_, start))) => assert!(value.starts_with(&start), "{head:?}"),
            (value, expected) => assert_eq!((value, expected), (None, None), "{head:?}"),
        }
    }
    let text = format!("{head:?}");
    for other in (0..KINDS.len()).filter(|other| !members.contains(other)) {
        assert!(!text.contains(&secret(other)), "{text}");
    }
}

#[test]
fn a_credential_is_sent_only_to_granted_urls() {
    scenes(|scene| {
        let fetch = |request: &Request| json!({"url": request.url, "credential": format!("c{}", request.credential)});
        let answers = scene.run("authorized_probe", fetch);
        let ends: Vec<End> =
            scene.requests.iter().map(|request| scene.end(request, &members(request.credential))).collect();
        scene.check(&answers, &ends, "http: connection failed: ");
        for (number, head) in scene.arrived() {
            check_head(&head, &members(scene.requests[number].credential));
        }
        let redirected = answers.iter().filter(|answer| answer.starts_with("307")).count();
        assert!(redirected > 0, "none was redirected");
    });
}

#[test]
fn wasi_http_sends_no_credential_and_only_to_granted_urls() {
    scenes(|scene| {
        let answers = scene.run("wasi_http_probe", |request| {
            let (scheme, rest) = request.url.split_once("://").expect("a scheme");
            let (authority, path) = rest.split_once('/').expect("a path");
            json!({"scheme": scheme, "authority": authority, "path": format!("/{path}")})
        });
        let ends: Vec<End> = scene.requests.iter().map(|request| scene.end(request, &[])).collect();
        scene.check(&answers, &ends, "ConnectionRefused");
        for (_, head) in scene.arrived() {
            check_head(&head, &[]);
        }
    });
}
