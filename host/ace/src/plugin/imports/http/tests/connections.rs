//! How many requests and connections there are at once.

use super::*;

#[tokio::test]
async fn the_requests_of_a_plugin_in_flight_are_limited() {
    let client = Client::new(&Http { requests_per_plugin: 1, ..settings() }).unwrap();
    let short = Timeouts { total: Some(Duration::from_millis(20)), first_byte: None };
    let permit = client.acquire("p", short, None).await.ok().unwrap();
    let refused = client.acquire("p", short, None).await.err().unwrap();
    assert!(matches!(&refused.kind, FailureKind::Unconnected(text) if text.starts_with("1 requests")), "{refused:?}");
    assert!(client.acquire("another", short, None).await.is_ok());
    drop(permit);
    assert!(client.acquire("p", short, None).await.is_ok());
}

/// As many connections stay open as requests may be in flight, so that no round of requests opens new ones.
#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::start(None, |_| with_length("200 OK", "")).await;
    let client = Arc::new(client());
    let at_once = settings().requests_per_plugin;
    for _ in 0..5 {
        let requests = (0..at_once).map(|n| {
            let (client, outgoing) = (client.clone(), get(&server.url(&format!("/{n}"))));
            async move { send(&client, outgoing).await.is_ok() }
        });
        assert!(futures_util::future::join_all(requests).await.into_iter().all(|is_sent| is_sent));
    }
    assert_eq!(server.requests().len(), 5 * at_once);
    let opened = server.connections.load(Ordering::SeqCst);
    assert!(opened <= at_once, "{opened} connections");
}
