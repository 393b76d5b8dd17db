//! What each kind adds to a request.

use proptest::prelude::*;

use super::*;

const URL: &str = "https://api.example/v1/send?a=1";

async fn sent(text: &str, url: &str) -> Sent {
    let mut sent = Sent::new(url);
    sent.authorize(&credentials(text)).await.unwrap_or_else(|refusal| panic!("{refusal}\n{text}"));
    sent
}

async fn refusal(text: &str, mut request: Sent) -> Refusal {
    let before = (request.url.clone(), request.headers.clone());
    let refusal = request.authorize(&credentials(text)).await.expect_err(text);
    assert_eq!((request.url, request.headers), before, "a refused request is as it was");
    assert!(!format!("{refusal:?}{refusal}").contains("s3cret"));
    refusal
}

#[tokio::test]
async fn a_secret_becomes_a_header_or_a_parameter() {
    let token = "{ env = 'TOKEN' }";
    let table = [
        (one("bearer", &format!("token = {token}")), "authorization", "Bearer s3cret-one"),
        (
            one("basic", &format!("username = 'AC1'\npassword = [{token}, {{ env = 'OLD_TOKEN' }}]")),
            "authorization",
            "Basic QUMxOnMzY3JldC1vbmU=",
        ),
        (one("header", &format!("name = 'X-Api-Key'\nvalue = {token}")), "x-api-key", "s3cret-one"),
        (
            one("header", &format!("name = 'Authorization'\nprefix = 'Bot '\nvalue = {token}")),
            "authorization",
            "Bot s3cret-one",
        ),
    ];
    for (text, header, expected) in table {
        let sent = sent(&text, URL).await;
        assert_eq!((sent.header(header), sent.url.as_str()), (expected, URL));
        assert!(sent.headers[header].is_sensitive() && !format!("{:?}", sent.headers).contains("s3cret"));
    }
    let query = one("query", &format!("name = 'api key'\nvalue = {token}"));
    assert_eq!(sent(&query, URL).await.url.as_str(), "https://api.example/v1/send?a=1&api+key=s3cret-one");
}

#[tokio::test]
async fn a_part_of_a_url_is_replaced_where_the_plugin_says() {
    let text = one("url", "value = { env = 'URL_PART' }");
    let table = [
        ("https://api.example/v1/$(mine)", "https://api.example/v1/T00/B00/s3cret%2Bone"),
        ("https://api.example/v1/%24%28mine%29/x?$(mine)", "https://api.example/v1/T00/B00/s3cret%2Bone/x?$(mine)"),
        ("https://api.example/v1/x?sig=$(mine)&b=2", "https://api.example/v1/x?sig=T00/B00/s3cret%2Bone&b=2"),
        ("https://api.example/v1/x?sig=%24%28mine%29", "https://api.example/v1/x?sig=T00/B00/s3cret%2Bone"),
    ];
    for (url, expected) in table {
        assert_eq!(sent(&text, url).await.url.as_str(), expected);
    }
    for url in [
        "https://api.example/v1/",
        "https://api.example/v1/x$(mine)",
        "https://api.example/v1/$(other)",
        "https://api.example/v1/$(mine)/$(mine)",
        "https://api.example/v1/$(mine)?a=$(mine)",
        "https://api.example/v1/#$(mine)",
    ] {
        let refusal = refusal(&text, Sent::new(url)).await;
        let expected =
            "the credential \"c\" needs $(mine) once in the URL, as a whole segment of the path or value of the query";
        assert_eq!(refusal, Refusal::Invalid(expected.to_owned()), "{url}");
    }
}

#[tokio::test]
async fn a_keyed_hash_covers_what_the_settings_name() {
    // Computed by Python's hmac module.
    let table = [
        ("key = { env = 'TOKEN' }\nheader = 'x-sig'\nprefix = 'sha256='", "sha256=237e6f0ffb55d84a"),
        ("key = { env = 'BASE64_KEY' }\nkey-encoding = 'base64'\nheader = 'x-sig'", "237e6f0ffb55d84a"),
        ("key = { env = 'HEX_KEY' }\nkey-encoding = 'hex'\nheader = 'x-sig'\nalgorithm = 'sha512'", "fccb0f3b482cb5df"),
        (
            "key = { env = 'TOKEN' }\nheader = 'x-sig'\nalgorithm = 'sha1'\nencoding = 'base64'",
            "587tkab8StmmlXjtpDgzYto/coo=",
        ),
        (
            "key = { env = 'TOKEN' }\nheader = 'x-sig'\ncontent = \"{header:webhook-id}.{method} {path}\\n{url}.{body}\"",
            "a87741930c54ae2a",
        ),
    ];
    for (keys, expected) in table {
        let mut request = Sent::new(URL).with("webhook-id", "msg_1");
        request.authorize(&credentials(&one("hmac", keys))).await.unwrap();
        assert!(request.header("x-sig").starts_with(expected), "{keys}: {}", request.header("x-sig"));
    }
    let text = one("hmac", "key = { env = 'TOKEN' }\nheader = 'x-sig'\ncontent = '{header:webhook-id}.{body}'");
    let expected = "the credential \"c\" signs the header webhook-id, which is missing";
    assert_eq!(refusal(&text, Sent::new(URL)).await, Refusal::Invalid(expected.to_owned()));
}

#[tokio::test]
async fn a_request_that_sets_the_same_is_refused() {
    let bearer = one("bearer", "token = { env = 'TOKEN' }");
    let expected = "the credential \"c\" sets the header authorization; do not set it too";
    let request = || Sent::new(URL).with("authorization", "Bearer mine");
    assert_eq!(refusal(&bearer, request()).await, Refusal::Invalid(expected.to_owned()));
    let query = one("query", "name = 'a'\nvalue = { env = 'TOKEN' }");
    let expected = "the credential \"c\" sets the parameter \"a\" of the URL; do not set it too";
    assert_eq!(refusal(&query, Sent::new(URL)).await, Refusal::Invalid(expected.to_owned()));
}

#[tokio::test]
async fn several_credentials_are_applied_in_their_order() {
    let text = "
        [credentials.c]
        kind = 'all'
        credentials = ['key', 'signature']
        [credentials.key]
        kind = 'header'
        urls = ['https://api.example/']
        name = 'x-key'
        value = { env = 'TOKEN' }
        [credentials.signature]
        kind = 'hmac'
        urls = ['https://*.api.example/', 'https://api.example/v1/']
        key = { env = 'TOKEN' }
        header = 'x-sig'
        content = '{header:x-key}{body}'";
    let request = sent(text, URL).await;
    assert_eq!((request.header("x-key"), request.header("x-sig").len()), ("s3cret-one", 64));
    // Each member goes only to its own URLs.
    for url in ["https://api.example/v2/", "https://sub.api.example/v1/"] {
        assert!(matches!(refusal(text, Sent::new(url)).await, Refusal::Denied(_)), "{url}");
    }
}

#[tokio::test]
async fn a_refused_secret_is_rejected_and_other_answers_say_nothing() {
    let credentials = credentials(&one("bearer", "token = { env = 'TOKEN' }"));
    let authorized = Sent::new(URL).authorize(&credentials).await.unwrap();
    let judge = |status| credentials.answered(&authorized, status, &HeaderMap::new(), b"");
    for status in [StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY] {
        assert_eq!(judge(status), Judgement::Fine);
    }
    let expected = Judgement::Rejected("the credential \"c\" was refused: 401".to_owned());
    assert_eq!(judge(StatusCode::UNAUTHORIZED), expected);
}

#[tokio::test]
async fn both_keys_verify_while_one_replaces_the_other() {
    let both = "[{ env = 'TOKEN' }, { env = 'OLD_TOKEN' }]";
    for text in [
        one("bearer", &format!("token = {both}")),
        one("basic", &format!("username = 'u'\npassword = {both}")),
        one("header", &format!("name = 'x'\nvalue = {both}")),
        one("query", &format!("name = 'x'\nvalue = {both}")),
        format!("[credentials.c]\nkind = 'hmac'\nkey = {both}"),
    ] {
        let keys = credentials(&text).keys("c").await.unwrap();
        assert_eq!(keys.iter().map(Key::expose).collect::<Vec<_>>(), [b"s3cret-one", b"s3cret-two"]);
        assert_eq!(format!("{keys:?}"), "[[key], [key]]");
    }
    let decoded = one("hmac", "key = { env = 'BASE64_KEY' }\nkey-encoding = 'base64'");
    assert_eq!(credentials(&decoded).keys("c").await.unwrap()[0].expose(), b"s3cret-one");
    let missing = credentials("").keys("c").await.unwrap_err();
    assert_eq!(missing, Refusal::Denied("there is no credential \"c\" in [credentials]".to_owned()));
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again_when_the_file_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let write = |text: &str| {
        std::fs::write(folder.path().join("new"), text).expect("written");
        std::fs::rename(folder.path().join("new"), &file).expect("replaced");
    };
    write("s3cret-one\n");
    let credentials = credentials(&one("bearer", &format!("token = {{ file = '{}' }}", file.display())));
    let header = async || {
        let mut request = Sent::new(URL);
        request.authorize(&credentials).await.map(|_| request.header("authorization").to_owned())
    };
    assert_eq!(header().await.unwrap(), "Bearer s3cret-one");
    write("s3cret-two");
    assert_eq!(header().await.unwrap(), "Bearer s3cret-one", "not looked at within a second");
    pass(SignedDuration::from_secs(1));
    assert_eq!(header().await.unwrap(), "Bearer s3cret-two");
    // What cannot be read does not replace what could.
    write("");
    pass(SignedDuration::from_secs(2));
    assert_eq!(header().await.unwrap(), "Bearer s3cret-two");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_unavailable_without_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret-one").expect("written");
    let credentials = credentials(&one("bearer", &format!("token = {{ file = '{}' }}", file.display())));
    std::fs::remove_file(&file).expect("removed");
    let refusal = Sent::new(URL).authorize(&credentials).await.unwrap_err();
    let message = "the secret of the credential \"c\" cannot be read; ACE's log says why".to_owned();
    let next_attempt_time = START + SignedDuration::from_secs(60);
    assert_eq!(refusal, Refusal::Unavailable { message, next_attempt_time });
}

/// Hosts, ports, paths and users that resemble each other.
fn url_texts() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec!["https", "http"]);
    let user = prop::sample::select(vec!["", "", "", "user@", "user:s3cret@"]);
    let host = prop::sample::select(vec![
        "api.example",
        "API.example",
        "api.example.",
        "api.example.evil.test",
        "xapi.example",
        "a.push.test",
        "push.test",
        "a.b.push.test",
        "127.0.0.1",
        "localhost",
        "[::1]",
    ]);
    let port = prop::sample::select(vec!["", "", ":443", ":8443", ":80"]);
    let path = prop::collection::vec(
        prop::sample::select(vec!["v1", "v10", "V1", "..", ".", "%2e%2e", "$(mine)", "", "%2F", "x"]),
        0..5,
    );
    let query = prop::sample::select(vec!["", "?a=$(mine)", "?next=https://evil.test/", "#v1"]);
    (scheme, user, host, port, path, query).prop_map(|(scheme, user, host, port, path, query)| {
        format!("{scheme}://{user}{host}{port}/{}{query}", path.join("/"))
    })
}

/// What is granted, written down once more, for hosts that are not patterns.
fn is_granted(prefix: &str, url: &Url) -> bool {
    let prefix = Url::parse(prefix).expect("a URL");
    let (host, pattern) = (url.host_str().expect("a host"), prefix.host_str().expect("a host"));
    let is_host = match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host == pattern,
    };
    let segments = |url: &Url| url.path_segments().expect("a path").map(str::to_owned).collect::<Vec<_>>();
    let mut wanted = segments(&prefix);
    wanted.retain(|segment| !segment.is_empty());
    let is_below = segments(url).starts_with(&wanted);
    is_host
        && is_below
        && prefix.scheme() == url.scheme()
        && prefix.port_or_known_default() == url.port_or_known_default()
}

proptest! {
    #[test]
    fn a_secret_goes_only_to_urls_that_it_is_granted_for(
        text in url_texts(),
        prefix in prop::sample::select(vec![
            "https://api.example/", "https://api.example/v1/", "https://api.example:8443/v1", "https://*.push.test/v1/x/",
            "https://*.push.test/", "http://127.0.0.1/", "http://localhost:8443/v1/", "http://[::1]/v1/",
        ]),
        kind in prop::sample::select(vec![
            "kind = 'bearer'\ntoken = { env = 'TOKEN' }",
            "kind = 'basic'\nusername = 'u'\npassword = { env = 'TOKEN' }",
            "kind = 'header'\nname = 'x'\nvalue = { env = 'TOKEN' }",
            "kind = 'query'\nname = 'k'\nvalue = { env = 'TOKEN' }",
            "kind = 'url'\nvalue = { env = 'URL_PART' }",
            "kind = 'hmac'\nheader = 'x'\nkey = { env = 'TOKEN' }",
            "kind = 'apns'\nkey = { env = 'EC_KEY' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'",
            "kind = 'vapid'\nkey = { env = 'EC_KEY' }\nsubject = 'mailto:push@example.com'",
            "kind = 'aws-sigv4'\naccess-key-id = 'A'\nsecret-access-key = { env = 'AWS_KEY' }\nregion = 'r'\nservice = 's'",
        ]),
    ) {
        let definition = format!("[credentials.c]\nurls = ['{prefix}']\n{kind}");
        let credentials = credentials(&definition);
        let mut request = Sent::new(&text);
        let before = request.url.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let answer = runtime.block_on(request.authorize(&credentials));
        let is_user_free = before.username().is_empty() && before.password().is_none();
        let granted = is_granted(prefix, &before) && is_user_free;
        prop_assert_eq!(credentials.permits("c", &before), granted);
        match answer {
            Ok(_) => {
                prop_assert!(granted, "{}", before);
                prop_assert!(is_granted(prefix, &request.url), "{} became {}", before, request.url);
                prop_assert_eq!(request.url.host(), before.host());
            }
            Err(_) => prop_assert!(request.headers.is_empty() && request.url == before),
        }
    }
}
