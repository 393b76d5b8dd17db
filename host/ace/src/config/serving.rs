//! Settings of `ace serve`: queue, HTTP API, events, webhooks and tracing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::event_kinds;
use super::reader::TableDecoder;
use super::secrets::secret;
use super::urls;
use super::values::{self, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE};
use super::{Authority, Secret};
/// The settings of the durable queue.
pub use ace_store::queue::Settings as Queue;

/// The HTTP API of `ace serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address and port to listen on. 127.0.0.1:8025.
    pub listen: SocketAddr,
    /// The file of tokens that `ace token` creates. `None`: no token is needed, and only this machine can connect.
    pub tokens_file: Option<PathBuf>,
    /// The host names of the server. Requests with other names are rejected, except those of this machine. If the list is empty,
    /// every name is accepted with tokens, and only those of this machine without.
    pub hosts: Vec<Authority>,
    /// The URL under which providers reach the server, without a slash at its end. `None`: it is not known.
    pub public_url: Option<String>,
    /// TLS with this certificate chain and key, both PEM. `None`: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Connections at the same time. 1,000.
    pub connections: usize,
    /// Connections beyond those, for health checks, and as many again for clients with a token. 64.
    pub spare_connections: usize,
    /// Time limit for a TLS handshake, for the head of a request, and for each wait for more of its body. 10 s.
    pub read_timeout: Duration,
    /// Time limit for each wait until a client reads more of a response. 30 s.
    pub write_timeout: Duration,
    /// The average bytes per second that a client must send or read while the server waits for it. 0: no minimum. 1 KiB.
    pub min_rate: usize,
    /// Time limit for a whole request, except streams and the time of `?wait`. 60 s.
    pub request_timeout: Duration,
    /// The longest head of a request, in bytes. 32 KiB.
    pub max_head_bytes: usize,
    /// Requests per second of one token, or of all clients without tokens. `None`: no limit.
    pub requests_per_second: Option<u32>,
    /// How long a shutdown waits for requests and messages in flight. 30 s.
    pub drain: Duration,
}

/// Settings of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Whether events contain context and options, which may be confidential. False.
    pub context: bool,
    /// Whether events are stored for `queue.event-retention`, so that an interrupted stream can continue. With webhooks they are always
    /// stored. False.
    pub keep: bool,
}

/// A URL that events are posted to, signed as in Standard Webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The URL.
    pub url: String,
    /// The signing secret: `whsec_` and base64, or any other text.
    pub secret: Secret,
    /// The kinds of events to post; empty: all.
    pub events: Vec<String>,
    /// Time limit for one request. 15 s.
    pub timeout: Duration,
    /// How long posting an event is retried. 3 days.
    pub max_age: Duration,
    /// Root certificates that are trusted besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
}

/// The collector that spans are exported to, with OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// The URL of the collector; spans are posted to `v1/traces` below it.
    pub endpoint: String,
    /// Headers of every export, such as API keys.
    pub headers: BTreeMap<String, Secret>,
    /// `service.name`. `ace`.
    pub service_name: String,
    /// The fraction of traces to export, of those that start here; others follow their parent. 1.
    pub sample: f64,
    /// Time limit for one export. 10 s.
    pub timeout: Duration,
    /// Root certificates that are trusted besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
}

/// The certificate of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The chain, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8025)),
            tokens_file: None,
            hosts: Vec::new(),
            public_url: None,
            tls: None,
            connections: 1_000,
            spare_connections: 64,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            min_rate: KIB,
            request_timeout: Duration::from_secs(60),
            max_head_bytes: 32 * KIB,
            requests_per_second: None,
            drain: Duration::from_secs(30),
        }
    }
}

pub(super) fn queue(s: &mut TableDecoder<'_>) -> Queue {
    let default = Queue::default();
    let age = || values::duration(Duration::ZERO..=3650 * DAY);
    let database = s.get("database", values::creatable_file(s.folder()));
    Queue {
        database: database.unwrap_or_else(|| s.folder().join(default.database)),
        max_messages: s.get("max-messages", values::integer(1..=1_000_000_000)).unwrap_or(default.max_messages),
        retention: s.get("retention", age()).unwrap_or(default.retention),
        max_settled: s.get("max-settled", values::integer(0..=1_000_000_000)).unwrap_or(default.max_settled),
        dead_letter_retention: s.get("dead-letter-retention", age()).unwrap_or(default.dead_letter_retention),
        event_retention: s.get("event-retention", age()).unwrap_or(default.event_retention),
        disk_reserve: s
            .get("disk-reserve", values::size(0..=64 * GIB))
            .map_or(default.disk_reserve, |bytes| bytes as u64),
        max_feedback: default.max_feedback,
        access: default.access,
        max_interruptions: s.get("max-interruptions", values::integer(4..=1_000)).unwrap_or(default.max_interruptions),
    }
}

pub(super) fn server(s: &mut TableDecoder<'_>) -> Server {
    let default = Server::default();
    let server = Server {
        listen: s.get("listen", values::socket_address).unwrap_or(default.listen),
        tokens_file: s.get("tokens-file", values::creatable_file(s.folder())),
        hosts: s.list("hosts", values::authority).unwrap_or_default(),
        public_url: s.get("public-url", urls::public_url),
        tls: server_tls(s),
        connections: s.get("connections", values::integer(1..=100_000)).unwrap_or(default.connections),
        spare_connections: s.get("spare-connections", values::integer(1..=10_000)).unwrap_or(default.spare_connections),
        read_timeout: s.get("read-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.read_timeout),
        write_timeout: s.get("write-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.write_timeout),
        min_rate: s.get("min-rate", values::size(0..=MIB)).unwrap_or(default.min_rate),
        request_timeout: s
            .get("request-timeout", values::duration(MILLISECOND..=HOUR))
            .unwrap_or(default.request_timeout),
        max_head_bytes: s.get("max-head-bytes", values::size(8 * KIB..=MIB)).unwrap_or(default.max_head_bytes),
        requests_per_second: s.get("requests-per-second", values::integer(1..=1_000_000)),
        drain: s.get("drain", values::duration(Duration::ZERO..=HOUR)).unwrap_or(default.drain),
    };
    if server.tokens_file.is_none() && !server.listen.ip().is_loopback() && s.is_valid() {
        let message = "anyone who can connect to this address could send mail: set a tokens-file, \
                       or listen on 127.0.0.1 or [::1]";
        s.fail("listen", message);
    }
    server
}

fn server_tls(s: &mut TableDecoder<'_>) -> Option<ServerTls> {
    let certificate = s.get("tls-certificate", values::existing_file(s.folder()));
    let key = s.get("tls-key", values::existing_file(s.folder()));
    match (s.is_written("tls-certificate"), s.is_written("tls-key")) {
        (true, false) => s.fail("tls-certificate", "needs a tls-key beside it"),
        (false, true) => s.fail("tls-key", "needs a tls-certificate beside it"),
        _ => {}
    }
    Some(ServerTls { certificate: certificate?, key: key? })
}

pub(super) fn webhook(s: &mut TableDecoder<'_>) -> Option<Webhook> {
    let url = s.required("url", urls::url_prefix);
    let secret = match s.field("secret") {
        Some(field) => secret(field),
        None => {
            s.fail("secret", "is required: { env = \"VARIABLE\" } or { file = \"path\" }");
            None
        }
    };
    let kinds = event_kinds::ALL.map(|kind| (kind, kind));
    let events = s.list("events", values::one_of(&kinds)).unwrap_or_default();
    let timeout = s.get("timeout", values::duration(MILLISECOND..=10 * MINUTE));
    let max_age = s.get("max-age", values::duration(Duration::ZERO..=30 * DAY));
    let ca_file = s.get("ca-file", values::existing_file(s.folder()));
    Some(Webhook {
        url: url?,
        secret: secret?,
        events: events.into_iter().map(str::to_owned).collect(),
        timeout: timeout.unwrap_or(Duration::from_secs(15)),
        max_age: max_age.unwrap_or(3 * DAY),
        ca_file,
    })
}

pub(super) fn otlp(s: &mut TableDecoder<'_>) -> Option<Otlp> {
    let endpoint = s.required("endpoint", urls::url_prefix);
    let headers = s.named("headers", |_, field| secret(field));
    for name in headers.keys().filter(|name| http::HeaderName::try_from(name.as_str()).is_err()) {
        s.fail("headers", format!("{name:?} cannot be a header's name"));
    }
    Some(Otlp {
        headers,
        service_name: s.get("service-name", values::line).unwrap_or_else(|| "ace".to_owned()),
        sample: s.get("sample", values::fraction).unwrap_or(1.0),
        timeout: s.get("timeout", values::duration(MILLISECOND..=MINUTE)).unwrap_or(Duration::from_secs(10)),
        ca_file: s.get("ca-file", values::existing_file(s.folder())),
        endpoint: endpoint?,
    })
}
