//! Tokens: one for all, renewed in time, and not often.

use futures_util::future::join_all;

use super::server::{Server, json, raw};
use super::*;

const URL: &str = "https://api.example/v1/send";
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn oauth(server: &Server) -> String {
    one(
        "oauth2-client-credentials",
        &format!("token-url = '{}'\nclient-id = 'cl:ient'\nclient-secret = {{ env = 'TOKEN' }}", server.url),
    )
}

fn apns() -> String {
    one("apns", "key = { env = 'EC_KEY' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'")
}

/// The Authorization header of a new request, and what it was authorized by.
async fn authorized(credentials: &Credentials) -> Result<(String, Authorized), Refusal> {
    let mut request = Sent::new(URL);
    let authorized = request.authorize(credentials).await.inspect_err(|refusal| {
        assert!(!format!("{refusal:?}{refusal}").contains("s3cret"), "{refusal:?}");
    })?;
    assert!(request.headers["authorization"].is_sensitive());
    Ok((request.header("authorization").to_owned(), authorized))
}

async fn header(credentials: &Credentials) -> String {
    authorized(credentials).await.expect("a token").0
}

/// Lets renewals in the background end.
async fn settle() {
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn unauthorized(credentials: &Credentials, authorized: &Authorized) -> Judgement {
    credentials.answered(authorized, StatusCode::UNAUTHORIZED, &HeaderMap::new(), b"")
}

fn expired(credentials: &Credentials, authorized: &Authorized) -> Judgement {
    credentials.answered(authorized, StatusCode::FORBIDDEN, &HeaderMap::new(), br#"{"reason":"ExpiredProviderToken"}"#)
}

#[tokio::test]
async fn sixty_four_tasks_fetch_one_token() {
    let server = Server::with_lifetime(3600).await;
    let credentials = Arc::new(credentials(&oauth(&server)));
    let tasks = (0..64).map(|_| {
        let credentials = credentials.clone();
        tokio::spawn(async move { header(&credentials).await })
    });
    for header in join_all(tasks).await {
        assert_eq!(header.expect("it ended"), "Bearer t0");
    }
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].field("grant_type")), (1, "client_credentials"));
    // `cl:ient` and the secret are encoded before they are joined.
    assert_eq!(asked[0].authorization, "Basic Y2wlM0FpZW50OnMzY3JldC1vbmU=");
}

#[tokio::test]
async fn a_client_can_authenticate_in_the_body() {
    let server = Server::with_lifetime(3600).await;
    let more = "client-authentication = 'body'\nscopes = ['a', 'b']\naudience = 'https://api.example/'";
    header(&credentials(&format!("{}{more}", oauth(&server)))).await;
    let asked = &server.asked()[0];
    assert_eq!((asked.field("client_id"), asked.field("client_secret")), ("cl:ient", "s3cret-one"));
    assert_eq!((asked.field("scope"), asked.field("audience")), ("a b", "https://api.example/"));
    assert_eq!(asked.authorization, "");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_nobody_waits() {
    let server = Server::with_lifetime(3600).await;
    let credentials = credentials(&oauth(&server));
    assert_eq!(header(&credentials).await, "Bearer t0");
    pass(MINUTE * 54);
    settle().await;
    assert_eq!((header(&credentials).await.as_str(), server.count()), ("Bearer t0", 1));
    pass(MINUTE);
    assert_eq!(header(&credentials).await, "Bearer t0", "it is still good");
    settle().await;
    assert_eq!((header(&credentials).await.as_str(), server.count()), ("Bearer t1", 2));
    // One that has ended is not sent.
    pass(MINUTE * 61);
    assert_eq!((header(&credentials).await.as_str(), server.count()), ("Bearer t2", 3));
}

#[tokio::test]
async fn after_50_minutes_apple_gets_another_token_and_after_65_each_does() {
    let server = Server::with_lifetime(3600).await;
    let (oauth, apns) = (credentials(&oauth(&server)), credentials(&apns()));
    let (first_oauth, first_apns) = (header(&oauth).await, header(&apns).await);
    assert!(first_apns.starts_with("bearer "));
    pass(MINUTE * 44);
    assert_eq!(header(&apns).await, first_apns);
    pass(MINUTE * 6);
    let second_apns = header(&apns).await;
    assert_ne!(second_apns, first_apns);
    assert_eq!((header(&oauth).await, server.count()), (first_oauth.clone(), 1));
    assert_eq!(header(&apns).await, second_apns);
    pass(MINUTE * 65);
    assert_ne!(header(&apns).await, second_apns);
    assert_ne!(header(&oauth).await, first_oauth);
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_minute_or_as_long_as_the_server_asks() {
    let server = Server::start(|at, _| match at {
        0 => json(500, "<html>s3cret</html>"),
        1 => raw(503, "Retry-After: 120\r\n", ""),
        _ => json(200, r#"{"access_token":"good","expires_in":"600"}"#),
    })
    .await;
    let credentials = credentials(&oauth(&server));
    let unavailable = |what: &str, seconds: i64| Refusal::Unavailable {
        message: format!("the credential \"c\" has no token now: 127.0.0.1 answered {what}"),
        next_attempt_time: now() + SignedDuration::from_secs(seconds),
    };
    for _ in 0..10 {
        assert_eq!(authorized(&credentials).await.unwrap_err(), unavailable("500", 60));
    }
    assert_eq!(server.count(), 1);
    pass(MINUTE);
    assert_eq!(authorized(&credentials).await.unwrap_err(), unavailable("503", 120));
    pass(MINUTE);
    assert_eq!(authorized(&credentials).await.unwrap_err(), unavailable("503", 60));
    assert_eq!(server.count(), 2);
    pass(MINUTE);
    assert_eq!((header(&credentials).await.as_str(), server.count()), ("Bearer good", 3));
}

#[tokio::test]
async fn a_client_that_is_refused_is_rejected_by_its_code() {
    for (status, body, expected) in [
        (400, r#"{"error":"invalid_grant","error_description":"s3cret"}"#, "400 invalid_grant"),
        (401, r#"{"error":"invalid_client"}"#, "401 invalid_client"),
        (403, "s3cret", "403"),
        (400, r#"{"error":"s3cret-one"}"#, "400"),
        (302, "", "302"),
    ] {
        let server = Server::start(move |_, _| raw(status, "Location: /elsewhere\r\n", body)).await;
        let refusal = authorized(&credentials(&oauth(&server))).await.unwrap_err();
        let expected = format!("the credential \"c\" has no token: 127.0.0.1 answered {expected}");
        assert_eq!((refusal, server.count()), (Refusal::Rejected(expected), 1));
    }
}

#[tokio::test]
async fn an_answer_without_a_usable_token_is_no_token() {
    let long = format!(r#"{{"access_token":"{}"}}"#, "s3cret".repeat(20_000));
    for (body, expected) in [
        ("s3cret", "127.0.0.1 answered without a token"),
        ("{}", "127.0.0.1 answered without a token"),
        (
            r#"{"access_token":"s3cret","token_type":"mac"}"#,
            "127.0.0.1 answered with a token that is not of the type Bearer",
        ),
        (r#"{"access_token":"s3cret\n"}"#, "127.0.0.1 answered with a token that cannot stand in a header"),
        (&long, "127.0.0.1 answered with more than 65536 bytes"),
    ] {
        let answer = json(200, body);
        let server = Server::start(move |_, _| answer.clone()).await;
        let Refusal::Unavailable { message, .. } = authorized(&credentials(&oauth(&server))).await.unwrap_err() else {
            panic!("{body}")
        };
        assert_eq!(message, format!("the credential \"c\" has no token now: {expected}"));
    }
    let mut closed = Server::with_lifetime(1).await;
    closed.url = "http://127.0.0.1:1/?key=s3cret".to_owned();
    let refusal = authorized(&credentials(&oauth(&closed))).await.unwrap_err().to_string();
    assert!(refusal.starts_with("the credential \"c\" has no token now: no answer from 127.0.0.1: "), "{refusal}");
}

#[tokio::test]
async fn tokens_are_fetched_over_tls_that_is_trusted() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let server = Server::with_tls(crate::tls::server_config(&certificate, &key).expect("settings")).await;
    let refusal = authorized(&credentials(&oauth(&server))).await.unwrap_err().to_string();
    assert!(refusal.contains("no answer from localhost: invalid peer certificate"), "{refusal}");
    assert_eq!(server.count(), 0);
    let trusting = |file| {
        let http = config::Http { ca_file: Some(file), ..config::Http::default() };
        credentials_with(&oauth(&server), Arc::new(MemoryStore::default()), &http)
    };
    assert_eq!(header(&trusting(certificate)).await, "Bearer t0");
    let refusal = authorized(&trusting(folder.path().join("missing.pem"))).await.unwrap_err().to_string();
    assert!(refusal.contains("has no token now: the HTTP client cannot be built: ca-file "), "{refusal}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_gives_no_token() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut silent = Server::with_lifetime(1).await;
    silent.url = format!("http://{}/", listener.local_addr().expect("an address"));
    let http = config::Http { timeout: Duration::from_millis(30), ..config::Http::default() };
    let credentials = credentials_with(&oauth(&silent), Arc::new(MemoryStore::default()), &http);
    let refusal = authorized(&credentials).await.unwrap_err().to_string();
    assert!(refusal.starts_with("the credential \"c\" has no token now: no answer from 127.0.0.1: "), "{refusal}");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let server = Server::with_lifetime(3600).await;
    let credentials = credentials(&oauth(&server));
    let (_, young) = authorized(&credentials).await.unwrap();
    let rejected = "the credential \"c\" was refused with a token that was made 0s ago";
    assert_eq!(unauthorized(&credentials, &young), Judgement::Rejected(rejected.to_owned()));
    pass(MINUTE);
    let (_, other) = authorized(&credentials).await.unwrap();
    assert_eq!(unauthorized(&credentials, &young), Judgement::Stale);
    let (header, next) = authorized(&credentials).await.unwrap();
    assert_eq!((header.as_str(), server.count()), ("Bearer t1", 2));
    // One that was sent with the old token says nothing of the new one.
    assert_eq!(unauthorized(&credentials, &other), Judgement::Stale);
    assert_eq!(authorized(&credentials).await.unwrap().0, "Bearer t1");
    assert!(matches!(unauthorized(&credentials, &next), Judgement::Rejected(_)));
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn apple_gets_no_two_tokens_within_20_minutes() {
    let credentials = credentials(&apns());
    let (first, sent) = authorized(&credentials).await.unwrap();
    pass(MINUTE * 19);
    let rejected = "the credential \"c\" was refused with a token that was made 19m ago";
    assert_eq!(expired(&credentials, &sent), Judgement::Rejected(rejected.to_owned()));
    assert_eq!(header(&credentials).await, first);
    pass(MINUTE);
    assert_eq!(expired(&credentials, &sent), Judgement::Stale);
    let (second, sent) = authorized(&credentials).await.unwrap();
    assert_ne!(second, first);
    pass(MINUTE * 10);
    assert!(matches!(expired(&credentials, &sent), Judgement::Rejected(_)));
    assert_eq!(header(&credentials).await, second);
    let judge = |status, body: &str| credentials.answered(&sent, status, &HeaderMap::new(), body.as_bytes());
    let rejected = "the credential \"c\" was refused: 403 InvalidProviderToken".to_owned();
    assert_eq!(judge(StatusCode::FORBIDDEN, r#"{"reason":"InvalidProviderToken"}"#), Judgement::Rejected(rejected));
    for (status, body) in [
        (StatusCode::FORBIDDEN, r#"{"reason":"Forbidden"}"#),
        (StatusCode::FORBIDDEN, "<html>"),
        (StatusCode::TOO_MANY_REQUESTS, r#"{"reason":"TooManyProviderTokenUpdates"}"#),
        (StatusCode::GONE, r#"{"reason":"Unregistered"}"#),
    ] {
        assert_eq!(judge(status, body), Judgement::Fine);
    }
}

#[tokio::test]
async fn two_credentials_of_one_team_share_its_token() {
    let text = format!("{}{}", apns(), apns().replace("credentials.c", "credentials.d").replace("v1/", "v2/"));
    let credentials = credentials(&text);
    let first = header(&credentials).await;
    pass(MINUTE);
    let mut other = Sent::new("https://api.example/v2/send");
    let Sent { method, url, headers, body } = &mut other;
    credentials.authorize("d", Request { own_name: "x", method, url, headers, body }).await.unwrap();
    assert_eq!(other.header("authorization"), first);
}

#[tokio::test]
async fn a_reload_keeps_the_tokens_of_what_did_not_change() {
    let server = Server::with_lifetime(3600).await;
    let before = credentials(&oauth(&server));
    header(&before).await;
    let text = oauth(&server);
    let same = before.with(&definitions(&text.replace("/v1/", "/v1/send/")));
    assert_eq!((header(&same).await.as_str(), server.count()), ("Bearer t0", 1));
    let other = before.with(&definitions(&format!("{text}scopes = ['more']")));
    assert_eq!((header(&other).await.as_str(), server.count()), ("Bearer t1", 2));
}

#[tokio::test]
async fn processes_with_one_store_share_their_tokens() {
    let server = Server::with_lifetime(3600).await;
    let store = Arc::new(MemoryStore::default());
    let process = |text: &str| credentials_in(text, store.clone());
    let apple = header(&process(&apns())).await;
    assert_eq!(header(&process(&oauth(&server))).await, "Bearer t0");
    pass(MINUTE);
    let next = process(&oauth(&server));
    let (token, sent) = authorized(&next).await.unwrap();
    assert_eq!((token.as_str(), server.count()), ("Bearer t0", 1));
    assert_eq!(header(&process(&apns())).await, apple);
    // One that was refused is not taken from the store again.
    pass(MINUTE);
    assert_eq!(unauthorized(&next, &sent), Judgement::Stale);
    assert_eq!((header(&next).await.as_str(), server.count()), ("Bearer t1", 2));
    pass(MINUTE * 54);
    assert_eq!((header(&process(&oauth(&server))).await.as_str(), server.count()), ("Bearer t1", 2));
    pass(MINUTE);
    assert_eq!((header(&process(&oauth(&server))).await.as_str(), server.count()), ("Bearer t2", 3));
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_stop_renewals() {
    let server = Server::start(|at, _| match at {
        0 => json(500, ""),
        _ => json(200, r#"{"access_token":"good","expires_in":600}"#),
    })
    .await;
    let credentials = credentials(&oauth(&server));
    authorized(&credentials).await.unwrap_err();
    pass(-MINUTE * 600);
    assert_eq!(header(&credentials).await, "Bearer good");
}

/// A store that a bug ends.
struct Panicking;

#[async_trait]
impl TokenStore for Panicking {
    async fn get(&self, _: &str, _: Timestamp) -> Result<Option<Secret>, String> {
        panic!("injected")
    }

    async fn put(&self, _: &str, _: &Secret, _: Option<Duration>, _: Timestamp) -> Result<(), String> {
        panic!("injected")
    }
}

#[tokio::test]
async fn a_renewal_that_panics_leaves_nobody_waiting() {
    let credentials = credentials_in(&apns(), Arc::new(Panicking));
    let refusal = authorized(&credentials).await.unwrap_err().to_string();
    assert_eq!(refusal, "the credential \"c\" has no token now: its renewal was interrupted");
}
