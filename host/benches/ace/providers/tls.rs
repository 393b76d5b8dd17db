//! A provider on loopback: TLS with a certificate of its own authority, over HTTP/1.1 or HTTP/2 alone, which accepts everything. It
//! counts connections and requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::measure::one_core;

/// What FCM answers; a push service needs only the status.
const ANSWER: &[u8] = b"{\"name\": \"projects/campus-1/messages/1\"}";
/// Requests at once over one connection of HTTP/2, as Apple's servers allow.
const STREAMS: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// The server, which stops when this is dropped.
pub struct Provider {
    pub port: u16,
    /// The authority in PEM, for `http.ca-file`.
    pub authority: String,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    pub fn start(version: Version) -> Self {
        let (authority, config) = identity(version);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let thread = std::thread::spawn(move || {
            one_core().block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                tokio::select! {
                    () = accept(listener, TlsAcceptor::from(config), version, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Provider { port, authority, counts, stop: Some(stop), thread: Some(thread) }
    }

    /// Connections and requests so far.
    pub fn counts(&self) -> (usize, usize) {
        (self.counts.connections.load(Ordering::Relaxed), self.counts.requests.load(Ordering::Relaxed))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn identity(version: Version) -> (String, Arc<ServerConfig>) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.distinguished_name.push(DnType::CommonName, "ACE's benchmarks");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).expect("signed").pem();
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).expect("signed").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_no_client_auth().with_single_cert(vec![leaf], key).expect("the key is the leaf's");
    config.alpn_protocols = vec![match version {
        Version::Http1 => b"http/1.1".to_vec(),
        Version::Http2 => b"h2".to_vec(),
    }];
    (pem, Arc::new(config))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, version: Version, counts: Arc<Counts>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, counts) = (tls.clone(), counts.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).expect("a socket");
            let Ok(stream) = tls.accept(stream).await else { return };
            counts.connections.fetch_add(1, Ordering::Relaxed);
            match version {
                Version::Http1 => http1(stream, &counts).await.unwrap_or_default(),
                Version::Http2 => http2(stream, &counts).await.unwrap_or_default(),
            }
        });
    }
}

async fn http1(stream: TlsStream<TcpStream>, counts: &Counts) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", ANSWER.len());
    let answer = [head.as_bytes(), ANSWER].concat();
    let (mut line, mut length, mut body) = (String::new(), 0, Vec::new());
    while stream.read_line(&mut line).await? > 0 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line == "\r\n" {
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
            counts.requests.fetch_add(1, Ordering::Relaxed);
            stream.get_mut().write_all(&answer).await?;
            stream.get_mut().flush().await?;
        }
        line.clear();
    }
    Ok(())
}

async fn http2(stream: TlsStream<TcpStream>, counts: &Counts) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.max_concurrent_streams(STREAMS).handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let response = http::Response::builder().status(201).body(()).expect("a response");
            if let Ok(mut send) = respond.send_response(response, false) {
                let _ = send.send_data(Bytes::from_static(ANSWER), true);
            }
        });
    }
    Ok(())
}
