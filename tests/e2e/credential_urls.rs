//! A credential is sent to no URL that the plugin or the credential is not granted for: many grants and URLs that resemble each other, with
//! redirects, by `authorized-http` and by wasi:http.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use url::Url;

use crate::outgoing_http::{Exchange, Web, found};
use crate::support::{Home, message};

const CREDENTIALS: usize = 6;
const REQUESTS: usize = 300;

/// Random grants of one plugin and of its credentials, and requests.
struct Scene {
    servers: [Web; 2],
    grants: Vec<String>,
    /// Of each credential.
    urls: Vec<Vec<String>>,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    url: String,
    credential: usize,
}

/// Paths that resemble each other.
fn path() -> impl Strategy<Value = String> {
    let first = select(vec!["v1", "v1", "v1", "v10", "V1", "v2", "v2", "%761"]);
    let others = prop::collection::vec(select(vec!["a", "a", "a", "b", "b", "..", "%2e%2e", "$(c0)"]), 0..3);
    (first, others).prop_map(|(first, others)| others.iter().fold(format!("/{first}"), |path, part| path + "/" + part))
}

impl Scene {
    fn new() -> Scene {
        let mut runner = TestRunner::deterministic();
        let servers = [Web::start(), Web::start()];
        let bases: Vec<String> = servers.iter().map(|server| server.url("")).collect();
        let prefix = (select(bases.clone()), select(vec!["/", "/v1/", "/v1/a", "/v10", "/v2/", "/v2/a/b/"]));
        let prefixes = prop::collection::vec(prefix.prop_map(|(base, path)| format!("{base}{path}")), 2..5);
        // A name in place of the address is another host.
        let named = format!("http://localhost:{}", servers[0].address.port());
        let base = select([bases.as_slice(), &[named]].concat());
        let target = (base, path()).prop_map(|(base, path)| format!("{base}{path}")).boxed();
        let redirect = prop::option::of(target.clone());
        let request = (target, redirect, 0..CREDENTIALS).prop_map(|(url, redirect, credential)| Request {
            url: redirect.iter().fold(url, |url, to| format!("{url}?to={to}")),
            credential,
        });
        let mut some = |strategy: &BoxedStrategy<Vec<String>>| strategy.new_tree(&mut runner).expect("one").current();
        let prefixes = prefixes.boxed();
        // One server is granted whole, so that enough requests depend on the credential.
        let grants = [some(&prefixes), vec![format!("{}/", bases[0])]].concat();
        let urls = (0..CREDENTIALS).map(|_| some(&prefixes)).collect();
        let requests = (0..REQUESTS).map(|_| request.new_tree(&mut runner).expect("one").current()).collect();
        Scene { servers, grants, urls, requests }
    }

    fn home(&self, guest: &str) -> Home {
        let home = Home::empty();
        home.guest(guest, guest);
        let own: Vec<String> = (0..CREDENTIALS).map(|n| format!("c{n} = 'c{n}'")).collect();
        let mut toml = format!(
            "[plugins.{guest}]\ngrants = {{ http = {:?} }}\ncredentials = {{ {} }}\n",
            self.grants,
            own.join(", ")
        );
        for (n, urls) in self.urls.iter().enumerate() {
            home.file(&format!("token-{n}"), format!("hunter-{n}"));
            toml +=
                &format!("[credentials.c{n}]\nkind = 'bearer'\nurls = {urls:?}\ntoken = {{ file = 'token-{n}' }}\n");
        }
        home.config(&toml);
        home
    }

    /// Makes the requests, and returns what the guest was answered.
    fn run(&self, guest: &str, fetch: impl Fn(&Request) -> Value) -> Vec<String> {
        let note = |request: &Request| message("note", json!({"context": {"fetch": fetch(request)}})).to_string();
        let lines: Vec<String> = self.requests.iter().map(note).collect();
        let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
        let done = self.home(guest).ace(&arguments).input(lines.join("\n")).run();
        assert!(!done.stdout.contains("hunter") && !done.stderr.contains("hunter"), "{done:?}");
        done.lines().iter().map(|line| found(line).as_str().expect("text").to_owned()).collect()
    }

    /// The requests that arrived: URL and `Authorization`.
    fn arrived(&self) -> Vec<Exchange> {
        let of = |server: &Web| {
            let exchanges = server.exchanges().into_iter();
            exchanges.map(|(target, authorization)| (server.url(&target), authorization)).collect::<Vec<_>>()
        };
        self.servers.iter().flat_map(of).collect()
    }

    /// Whether a request may be sent, by rules that are written down once more.
    fn may_be_sent(&self, url: &str) -> bool {
        let path = url.split("?to=").next().unwrap_or_default().to_lowercase();
        !path.contains("..") && !path.contains("%2e") && self.grants.iter().any(|prefix| is_below(prefix, url))
    }
}

/// Whether the URL has the origin of a prefix, and all segments of its path.
fn is_below(prefix: &str, url: &str) -> bool {
    let (prefix, url) = (Url::parse(prefix).expect("a URL"), Url::parse(url).expect("a URL"));
    let segments =
        |url: &Url| url.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    prefix.origin() == url.origin() && segments(&url).starts_with(&segments(&prefix))
}

#[test]
fn a_credential_is_sent_only_to_granted_urls() {
    let scene = Scene::new();
    let answers = scene.run(
        "authorized_probe",
        |request| json!({"url": request.url, "credential": format!("c{}", request.credential)}),
    );
    let expected = scene.requests.iter().filter(|request| {
        scene.may_be_sent(&request.url)
            && scene.urls[request.credential].iter().any(|prefix| is_below(prefix, &request.url))
    });
    let mut expected: Vec<Exchange> =
        expected.map(|request| (request.url.clone(), Some(format!("Bearer hunter-{}", request.credential)))).collect();
    let mut arrived = scene.arrived();
    expected.sort();
    arrived.sort();
    assert_eq!(arrived, expected, "{:?} {:?}", scene.grants, scene.urls);
    assert!((30..REQUESTS - 30).contains(&arrived.len()), "{} were sent", arrived.len());
    let redirected = answers.iter().filter(|answer| answer.starts_with("307")).count();
    assert!(redirected > 10, "{redirected} were redirected");
}

#[test]
fn wasi_http_sends_no_credential_and_only_to_granted_urls() {
    let scene = Scene::new();
    scene.run("wasi_http_probe", |request| {
        let (authority, path) = request.url["http://".len()..].split_once('/').expect("a path");
        json!({"scheme": "http", "authority": authority, "path": format!("/{path}")})
    });
    let mut expected: Vec<_> = scene.requests.iter().map(|request| request.url.clone()).collect();
    expected.retain(|url| scene.may_be_sent(url));
    let mut arrived: Vec<_> = scene
        .arrived()
        .into_iter()
        .map(|(url, authorization)| {
            assert_eq!(authorization, None, "{url}");
            url
        })
        .collect();
    expected.sort();
    arrived.sort();
    assert_eq!(arrived, expected, "{:?}", scene.grants);
    assert!((30..REQUESTS - 30).contains(&arrived.len()), "{} were sent", arrived.len());
}
