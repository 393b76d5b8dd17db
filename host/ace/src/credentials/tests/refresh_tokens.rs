//! Refresh tokens that their server replaces.

use ace_store::keyvalue::{Keyvalue, Settings};

use super::server::{Asked, Server, json};
use super::*;

/// Each refresh token is good once.
async fn rotating() -> Server {
    let current = Mutex::new("s3cret-one".to_owned());
    Server::start(move |at, asked: &Asked| {
        let mut current = current.lock().unwrap();
        if asked.field("refresh_token") != *current {
            return json(400, r#"{"error":"invalid_grant"}"#);
        }
        *current = format!("s3cret-r{at}");
        json(200, &format!(r#"{{"access_token":"t{at}","expires_in":3600,"refresh_token":"{current}"}}"#))
    })
    .await
}

fn refreshing(server: &Server) -> String {
    format!(
        "keyvalue.database = 'kv.db'\n{}",
        one(
            "oauth2-refresh-token",
            &format!("token-url = '{}'\nclient-id = 'app'\nrefresh-token = {{ env = 'TOKEN' }}", server.url)
        )
    )
}

async fn header(credentials: &Credentials) -> Result<String, Refusal> {
    let mut request = Sent::new("https://api.example/v1/");
    request.authorize(credentials).await?;
    Ok(request.header("authorization").to_owned())
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test]
async fn a_replaced_refresh_token_survives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { database: Some(folder.path().join("kv.db")), ..Settings::default() };
    let server = rotating().await;
    let open = || Arc::new(Keyvalue::load(&settings, now()).expect("opened"));
    for n in 0..3 {
        let credentials = credentials_in(&refreshing(&server), open());
        assert_eq!(header(&credentials).await.unwrap(), format!("Bearer t{n}"));
        pass(HOUR);
    }
    let asked = server.asked();
    let sent: Vec<&str> = asked.iter().map(|asked| asked.field("refresh_token")).collect();
    assert_eq!(sent, ["s3cret-one", "s3cret-r0", "s3cret-r1"]);
    assert_eq!((asked[0].field("grant_type"), asked[0].field("client_id")), ("refresh_token", "app"));
}

#[tokio::test]
async fn plugins_cannot_read_what_is_stored() {
    let store = Arc::new(Keyvalue::load(&Settings::default(), now()).expect("opened"));
    let server = rotating().await;
    header(&credentials_in(&refreshing(&server), store.clone())).await.unwrap();
    assert!(store.for_plugins().get("ace:host", "token", now()).is_err(), "it is not the name of a bucket");
    assert!(!ace_store::keyvalue::is_bucket("ace:host"));
}

#[tokio::test]
async fn another_process_may_have_used_the_refresh_token() {
    let server = rotating().await;
    let store = Arc::new(MemoryStore::default());
    let process = || credentials_in(&refreshing(&server), store.clone());
    let (one, other) = (process(), process());
    assert_eq!(header(&one).await.unwrap(), "Bearer t0");
    assert_eq!(header(&other).await.unwrap(), "Bearer t0");
    pass(HOUR);
    assert_eq!(header(&other).await.unwrap(), "Bearer t1");
    pass(HOUR);
    assert_eq!(header(&one).await.unwrap(), "Bearer t2");
}

#[tokio::test]
async fn a_refresh_token_that_cannot_be_stored_is_used_on() {
    let server = rotating().await;
    let store = Arc::new(MemoryStore::default());
    let credentials = credentials_in(&refreshing(&server), store.clone());
    store.is_broken.store(true, Ordering::Relaxed);
    assert_eq!(header(&credentials).await.unwrap(), "Bearer t0");
    pass(HOUR);
    assert_eq!(header(&credentials).await.unwrap(), "Bearer t1");
    // It is stored as soon as it can be.
    store.is_broken.store(false, Ordering::Relaxed);
    pass(HOUR);
    assert_eq!(header(&credentials).await.unwrap(), "Bearer t2");
    pass(HOUR);
    assert_eq!(header(&credentials_in(&refreshing(&server), store)).await.unwrap(), "Bearer t3");
}

#[tokio::test]
async fn a_newly_configured_refresh_token_counts() {
    let store = Arc::new(MemoryStore::default());
    let server = rotating().await;
    header(&credentials_in(&refreshing(&server), store.clone())).await.unwrap();
    pass(HOUR);
    let other = refreshing(&server).replace("'TOKEN'", "'OLD_TOKEN'");
    header(&credentials_in(&other, store)).await.unwrap_err();
    let asked = server.asked();
    assert_eq!(asked.last().expect("asked").field("refresh_token"), "s3cret-two");
}
