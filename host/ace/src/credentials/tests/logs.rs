//! Nothing that is secret is logged, at any level and by any crate.

use std::io;

use super::server::{Server, json};
use super::*;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged() {
    // Every thread has a subscriber. While there is only one, tracing turns a line off for all threads if a thread without a subscriber is
    // the first to reach it.
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("no other subscriber is set");
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let logging = tracing::subscriber::set_default(subscriber);
    let server = Server::start(|at, _| match at {
        0 => json(500, "s3cret-answer"),
        1 => json(200, r#"{"access_token":"s3cret-access","expires_in":600,"refresh_token":"s3cret-next"}"#),
        _ => json(400, r#"{"error":"invalid_grant","error_description":"s3cret-why"}"#),
    })
    .await;
    let token = format!("token-url = '{}'\nclient-id = 'i'\nclient-secret = {{ env = 'OLD_TOKEN' }}\n", server.url);
    let refreshing = format!("keyvalue.database = 'kv.db'\n{}", one("oauth2-refresh-token", &token));
    let store = Arc::new(MemoryStore::default());
    store.is_broken.store(true, Ordering::Relaxed);
    let refreshing = credentials_in(&format!("{refreshing}refresh-token = {{ env = 'TOKEN' }}"), store);
    for _ in 0..3 {
        Sent::new("https://api.example/v1/").authorize(&refreshing).await.ok();
        pass(SignedDuration::from_hours(1));
    }
    let aws = "access-key-id = 'A'\nsecret-access-key = { env = 'AWS_KEY' }\nsession-token = { env = 'TOKEN' }\nregion = 'r'\nservice = 's'";
    for text in [
        one("aws-sigv4", aws),
        one("bearer", "token = { env = 'TOKEN' }"),
        one("query", "name = 'k'\nvalue = { env = 'TOKEN' }"),
        one("url", "value = { env = 'URL_PART' }"),
        one("hmac", "header = 'x'\nkey = { env = 'TOKEN' }"),
    ] {
        Sent::new("https://api.example/v1/$(mine)").authorize(&credentials(&text)).await.expect(&text);
    }
    drop(logging);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).expect("text");
    for line in [
        "The token of the credential \"c\" cannot be renewed; trying again in 1m: 127.0.0.1 answered 500",
        "the new one cannot be stored; it is lost when this process ends: the disk is full",
        "The token of the credential \"c\" cannot be renewed; trying again in 1m: 127.0.0.1 answered 400 invalid_grant",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    let encoded = ["czNjcmV0", "s3cret", "BEGIN"];
    let shown: Vec<&str> = log.lines().filter(|line| encoded.iter().any(|secret| line.contains(secret))).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}
