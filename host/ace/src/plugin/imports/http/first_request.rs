//! Lets the first request to a server go alone. Whether the server speaks HTTP/2 is known only when a connection exists; then all
//! requests share that connection, while 64 workers that start together would open 64.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long other requests wait for the answer to the first one.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The most servers that are remembered.
const SERVERS_MAX: usize = 1024;

/// A server, with the semaphore of its first request, which is closed when that is answered.
struct Server {
    first: Arc<Semaphore>,
    used: Instant,
}

/// The servers that requests were sent to.
pub(super) struct FirstRequests {
    servers: Mutex<HashMap<String, Server>>,
    /// After this time without a request, no connection is left, and the next request is the first one again.
    idle_timeout: Duration,
}

/// The permit of the first request. If it is dropped without an answer, the next request becomes the first.
pub(super) struct Pass(Option<(OwnedSemaphorePermit, Arc<Semaphore>)>);

impl Pass {
    /// Records that a connection exists, so that other requests do not wait.
    pub(super) fn answered(self) {
        if let Some((_, first)) = self.0 {
            first.close();
        }
    }
}

impl FirstRequests {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        FirstRequests { servers: Mutex::default(), idle_timeout }
    }

    /// Waits while another request is the first one, at most a second.
    pub(super) async fn wait(&self, url: &Url) -> Pass {
        // Without TLS it is HTTP/1.1, where each concurrent request has its own connection.
        if url.scheme() != "https" {
            return Pass(None);
        }
        let first = self.first(url);
        match tokio::time::timeout(WAIT_MAX, first.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Pass(Some((permit, first))),
            // That one was answered, or takes long.
            _ => Pass(None),
        }
    }

    fn first(&self, url: &Url) -> Arc<Semaphore> {
        let now = Instant::now();
        let is_idle = |server: &Server| now.duration_since(server.used) > self.idle_timeout;
        let origin = url.origin().ascii_serialization();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= SERVERS_MAX && !servers.contains_key(&origin) {
            servers.retain(|_, server| !is_idle(server));
            if servers.len() >= SERVERS_MAX {
                servers.clear();
            }
        }
        let new = || Server { first: Arc::new(Semaphore::new(1)), used: now };
        let server = servers.entry(origin).or_insert_with(new);
        if is_idle(server) {
            *server = new();
        }
        server.used = now;
        server.first.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(90);

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    fn is_first(pass: &Pass) -> bool {
        pass.0.is_some()
    }

    #[tokio::test]
    async fn the_others_wait_for_the_first_answer_and_no_longer_than_a_second() {
        let requests = FirstRequests::new(IDLE);
        let first = requests.wait(&url("https://a.example/1")).await;
        assert!(is_first(&first));
        assert!(is_first(&requests.wait(&url("https://b.example/")).await), "another server");
        assert!(!is_first(&requests.wait(&url("http://a.example/")).await), "without TLS nobody waits");
        let began = Instant::now();
        assert!(!is_first(&requests.wait(&url("https://a.example/2")).await));
        assert!(began.elapsed() >= WAIT_MAX, "{:?}", began.elapsed());
        first.answered();
        let began = Instant::now();
        assert!(!is_first(&requests.wait(&url("https://a.example/3")).await));
        assert!(began.elapsed() < WAIT_MAX, "nobody waits any more");
    }

    #[tokio::test]
    async fn a_first_request_that_failed_makes_room_for_the_next() {
        let requests = FirstRequests::new(IDLE);
        drop(requests.wait(&url("https://a.example/")).await);
        assert!(is_first(&requests.wait(&url("https://a.example/")).await));
    }

    #[tokio::test]
    async fn an_idle_server_is_new_again() {
        let requests = FirstRequests::new(Duration::from_millis(500));
        requests.wait(&url("https://a.example/")).await.answered();
        assert!(!is_first(&requests.wait(&url("https://a.example/")).await));
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(is_first(&requests.wait(&url("https://a.example/")).await));
    }

    #[tokio::test]
    async fn not_every_server_is_remembered() {
        let requests = FirstRequests::new(IDLE);
        for n in 0..3 * SERVERS_MAX {
            requests.wait(&url(&format!("https://{n}.example/"))).await.answered();
            assert!(requests.servers.lock().unwrap().len() <= SERVERS_MAX);
        }
    }
}
