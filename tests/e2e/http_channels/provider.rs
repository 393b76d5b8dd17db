//! A provider's API on loopback: TLS with a test CA, scripted responses, and a record of every request.

mod http2;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// What the provider does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    Reply {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Does not respond.
    Silence,
    /// Closes the connection.
    Cut,
    /// Closes the connection in the middle of the response's head.
    CutMidway,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<String>) -> Answer {
        Answer::Reply { status, headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        if let Answer::Reply { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `POST /messages/send HTTP/1.1`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without what is not UTF-8.
    pub body: String,
    pub bytes: Vec<u8>,
}

impl Seen {
    fn new(line: String, headers: Vec<(String, String)>, bytes: Vec<u8>) -> Seen {
        Seen { line, headers, body: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{}: {e}", self.body))
    }

    /// The fields of a form, in order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

impl State {
    /// Notes a request, and returns its response.
    fn answer(&self, seen: Seen) -> Answer {
        self.seen.lock().expect("no thread panics with it").push(seen);
        let answer = self.script.lock().expect("no thread panics with it").pop_front();
        answer.unwrap_or_else(|| Answer::new(404, "the script is at its end"))
    }
}

/// The server, which stops when this is dropped.
pub struct Provider {
    state: Arc<State>,
    /// The CA in PEM, for `http.ca-file`.
    pub ca: String,
    pub port: u16,
}

impl Provider {
    /// Serves `https://localhost:PORT`. Each request gets the next of these responses; after the last one, a 404.
    pub fn start(script: impl IntoIterator<Item = Answer>) -> Provider {
        Provider::open(script, &[], |state, config, listener| {
            for stream in listener.incoming() {
                if state.is_over.load(Ordering::Relaxed) {
                    return;
                }
                state.connections.fetch_add(1, Ordering::Relaxed);
                let (state, config) = (state.clone(), config.clone());
                // Errors of a client do not concern the server.
                std::thread::spawn(move || serve(&state, config, stream?));
            }
        })
    }

    /// The same over HTTP/2, and nothing else.
    pub fn start_http2(script: impl IntoIterator<Item = Answer>) -> Provider {
        Provider::open(script, &[b"h2"], http2::serve)
    }

    fn open(
        script: impl IntoIterator<Item = Answer>,
        protocols: &[&[u8]],
        serve: fn(Arc<State>, Arc<ServerConfig>, TcpListener),
    ) -> Provider {
        let (ca, config) = identity(protocols);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State { script: Mutex::new(script.into_iter().collect()), ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || serve(shared, config, listener));
        Provider { state, ca, port }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The received requests, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no thread panics with it").clone()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        // Wakes up the listener, so that it ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A CA's certificate in PEM, and a server for localhost under it.
fn identity(protocols: &[&[u8]]) -> (String, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.distinguished_name.push(DnType::CommonName, "ACE test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = ca.self_signed(&ca_key).expect("signed").pem();

    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is the certificate's");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (pem, Arc::new(config))
}

/// One connection, request after request.
fn serve(state: &State, config: Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(seen) = read(&mut stream)? {
        match state.answer(seen) {
            Answer::Silence => {
                stream.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            Answer::Cut => return Ok(()),
            Answer::CutMidway => {
                stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-le")?;
                return stream.get_mut().flush();
            }
            Answer::Reply { status, headers, body } => {
                let mut text = format!("HTTP/1.1 {status} \r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    text.push_str(&format!("{name}: {value}\r\n"));
                }
                stream.get_mut().write_all(format!("{text}\r\n{body}").as_bytes())?;
                stream.get_mut().flush()?;
            }
        }
    }
    Ok(())
}

/// The next request; `None` at the end.
fn read(stream: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, n)| n.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Some(Seen::new(line.trim_end().to_owned(), headers, body)))
}
