//! A server on loopback that gives access tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

/// What it was asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) authorization: String,
    pub(super) form: HashMap<String, String>,
}

impl Asked {
    pub(super) fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }
}

/// A complete answer to the request of a number, from 0.
type Answer = dyn Fn(usize, &Asked) -> String + Send + Sync;

pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) async fn start(answer: impl Fn(usize, &Asked) -> String + Send + Sync + 'static) -> Self {
        Server::listen(answer, None).await
    }

    /// A server with a certificate for `localhost`.
    pub(super) async fn with_tls(tls: rustls::ServerConfig) -> Self {
        let answer = |_, _: &Asked| json(200, r#"{"access_token":"t0"}"#);
        Server::listen(answer, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn listen(
        answer: impl Fn(usize, &Asked) -> String + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let url = match tls {
            Some(_) => format!("https://localhost:{}/token", address.port()),
            None => format!("http://{address}/token"),
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log, answer) = (tls.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, log, answer).await,
                        Some(tls) => {
                            // A client that does not trust the certificate ends the handshake.
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, log, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Server { url, asked }
    }

    /// A server whose tokens live this many seconds: `t0`, `t1` and so on.
    pub(super) async fn with_lifetime(seconds: u64) -> Self {
        Server::start(move |at, _| {
            json(200, &format!(r#"{{"access_token":"t{at}","expires_in":{seconds},"token_type":"Bearer"}}"#))
        })
        .await
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

pub(super) fn json(status: u16, body: &str) -> String {
    raw(status, "", body)
}

/// With further header lines, each of which ends with a line break.
pub(super) fn raw(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: Arc<Mutex<Vec<Asked>>>, answer: Arc<Answer>) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.expect("a request") == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").parse().unwrap_or(0);
            break (head.to_owned(), head.len() + 4 + length);
        }
    };
    while bytes.len() < length {
        stream.read_buf(&mut bytes).await.expect("a body");
    }
    let form = form_urlencoded::parse(&bytes[head.len() + 4..]).into_owned().collect();
    let asked = Asked { authorization: header(&head, "authorization"), form };
    let at = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    stream.write_all(answer(at, &asked).as_bytes()).await.expect("written");
    // Without it, TLS does not send the end of the stream.
    stream.shutdown().await.ok();
}

fn header(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .next()
        .unwrap_or_default()
}
