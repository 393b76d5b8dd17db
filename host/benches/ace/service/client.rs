//! A client that costs next to nothing: it shares the cores with what is measured.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::measure::one_core;

/// One connection, kept alive.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A whole request.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let kind = if path == "/v1/messages" { "application/json" } else { "application/x-ndjson" };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Client {
    pub async fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Client { stream: BufReader::new(stream) }
    }

    /// The status of the answer.
    pub async fn send(&mut self, request: &[u8]) -> u16 {
        self.exchange(request).await.0
    }

    /// The status and the body of the answer.
    pub async fn exchange(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.stream.get_mut().write_all(request).await.expect("it listens");
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.expect("an answer");
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        (status, body)
    }
}

/// Sends all of them over so many connections; each answer must have this status.
pub fn post_all(server: SocketAddr, clients: usize, requests: Vec<Vec<u8>>, status: u16) {
    one_core().block_on(async {
        let requests = std::rc::Rc::new(std::cell::RefCell::new(requests));
        let local = tokio::task::LocalSet::new();
        for _ in 0..clients {
            let requests = requests.clone();
            local.spawn_local(async move {
                let mut client = Client::connect(server).await;
                loop {
                    let Some(request) = requests.borrow_mut().pop() else { break };
                    assert_eq!(client.send(&request).await, status);
                }
            });
        }
        local.await;
    });
}
