//! What `ace serve` adds: its queue, its API, and who is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Authority, Secret, values};
use crate::files::Access;

/// The durable queue of `ace serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The SQLite database. `ace.db` beside ace.toml.
    pub database: PathBuf,
    /// Messages that wait or are under way, at most. 5,000,000.
    pub max_messages: u64,
    /// How long a settled message can be looked at. 30 days.
    pub retention: Duration,
    /// Settled messages that are kept, at most. 10,000,000.
    pub max_settled: u64,
    /// How long a message that failed or expired can be tried again: so long its context is kept. 7 days.
    pub dead_letter_retention: Duration,
    /// How long an event can be asked for again by an interrupted stream. 1 hour.
    pub event_retention: Duration,
    /// Room on the disk that is kept for what was accepted: when the disk is full it serves that. 96 MiB; 0: none.
    pub disk_reserve: u64,
    /// Who may read the database and what is kept beside it: `file-group`.
    pub access: Access,
    /// A message that so many processes ended unexpectedly with, one after the other, is set aside; the last of them while it was
    /// sent alone. 5.
    pub max_interruptions: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            database: "ace.db".into(),
            max_messages: 5_000_000,
            retention: Duration::from_secs(30 * 86_400),
            max_settled: 10_000_000,
            dead_letter_retention: Duration::from_secs(7 * 86_400),
            event_retention: Duration::from_secs(3_600),
            disk_reserve: 96 * values::MIB as u64,
            access: Access::default(),
            max_interruptions: 5,
        }
    }
}

/// The HTTP API of `ace serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address and port. 127.0.0.1:8025.
    pub listen: SocketAddr,
    /// The tokens that `ace token` makes. `None`: nobody needs one, and only this machine is listened to.
    pub tokens_file: Option<PathBuf>,
    /// The names it is reached by. Where there are some, a request for another one is refused; this machine's own always count.
    /// Without tokens an empty list is only those.
    pub hosts: Vec<Authority>,
    /// TLS with this certificate chain and key, both PEM. `None`: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Connections at once that anyone may have. 1,000.
    pub connections: usize,
    /// Connections beyond those, on which heads are read and health checks answered; and as many again for bearers of a token. 64.
    pub spare_connections: usize,
    /// For a TLS handshake, for the head of a request, and for the body while nothing of it comes in. 10 s.
    pub read_timeout: Duration,
    /// The longest that a client takes nothing of what is written to it. 30 s.
    pub write_timeout: Duration,
    /// Bytes a second that a client sends or takes on average, while it is waited for; 0: any byte will do. 1 KiB.
    pub min_rate: usize,
    /// For a whole request that is no stream, `?wait` not included. 60 s.
    pub request_timeout: Duration,
    /// Bytes of a request's head. 32 KiB.
    pub max_head_bytes: usize,
    /// Requests a second of one token (or, without tokens, of everybody), a second's worth of them at once. `None`: no limit.
    pub requests_per_second: Option<u32>,
    /// How long a stop waits for requests and messages under way. 30 s.
    pub drain: Duration,
}

/// What events show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Context and options too, which may hold what only the recipient should see. False.
    pub context: bool,
    /// They are kept for `queue.event-retention`, so that an interrupted stream is told what it missed. Where there are webhooks
    /// they are kept in any case. False.
    pub keep: bool,
}

/// One address that events are posted to, signed as Standard Webhooks says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: String,
    /// `whsec_` and base64, or any other text as it is.
    pub secret: Secret,
    /// Kinds of events; empty: all.
    pub events: Vec<String>,
    /// For one call. 15 s.
    pub timeout: Duration,
    /// How long an event that is not taken is tried again. 3 days.
    pub max_age: Duration,
    /// Roots trusted besides the system's: PEM.
    pub ca_file: Option<PathBuf>,
}

/// The collector that spans are exported to, as OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// Spans are posted to `v1/traces` below it.
    pub endpoint: String,
    /// Sent with every export: keys to the collector.
    pub headers: BTreeMap<String, Secret>,
    /// `service.name`. ace.
    pub service_name: String,
    /// The part of traces that begin here which are exported; others are as their parents say. 1.
    pub sample: f64,
    /// For one export. 10 s.
    pub timeout: Duration,
    /// Roots trusted besides the system's: PEM.
    pub ca_file: Option<PathBuf>,
}

/// Where the server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8025)),
            tokens_file: None,
            hosts: Vec::new(),
            tls: None,
            connections: 1_000,
            spare_connections: 64,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            min_rate: values::KIB,
            request_timeout: Duration::from_secs(60),
            max_head_bytes: 32 * values::KIB,
            requests_per_second: None,
            drain: Duration::from_secs(30),
        }
    }
}
