//! `ace.toml` and the environment, read into settings. Nothing else in the program reads either.
//!
//! Reading reports every problem at once, each with its file, line and the nearest known name; an engine never starts
//! on a configuration with a problem in it.

mod decode;
mod environment;
mod granting;
mod manifest;
mod names;
mod problem;
mod reader;
mod tree;
mod values;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use url::Url;

pub use granting::{GrantError, granted};
pub use manifest::{Manifest, Requests, Runtime};
pub use problem::{Problem, Problems};
pub use values::is_bucket;

use crate::message::{ChannelType, Object, OnError};
use tree::Place;

/// The longest ace.toml.
const FILE_BYTES_MAX: usize = 4 * values::MIB;

/// Everything the operator decides. The default has every default and no plugin folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The file it was read from; relative paths in it start at its folder.
    pub file: Option<PathBuf>,
    /// Folder of `*.wasm` plugins and their manifests.
    pub plugin_dir: Option<PathBuf>,
    /// Folders of templates; the first that has a file wins.
    pub template_dirs: Vec<PathBuf>,
    /// Folder of compiled plugins. `None`: they are compiled at every start.
    pub cache_dir: Option<PathBuf>,
    /// edx-ace's ACE_ENABLED_CHANNELS: only these, in this order. `None`: every channel in the plugin folder, by name.
    pub enabled_channels: Option<Vec<String>>,
    /// edx-ace's ACE_ENABLED_POLICIES: only these, asked in this order. `None`: every policy in the plugin folder.
    pub enabled_policies: Option<Vec<String>>,
    pub presentation: Presentation,
    pub routing: Routing,
    pub delivery: Delivery,
    /// How single channels are used, by name.
    pub channels: BTreeMap<String, Channel>,
    pub mailer: Mailer,
    pub keyvalue: Keyvalue,
    pub queue: Queue,
    pub http: Http,
    pub server: Server,
    pub events: Events,
    /// Who is told of what becomes of messages, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Where spans go. `None`: nowhere.
    pub otlp: Option<Otlp>,
    pub limits: Limits,
    pub signatures: Signatures,
    /// What ace.toml says of single plugins, by name.
    pub plugins: BTreeMap<String, Plugin>,
    /// Policies that are known to have served before: one of them that is there and cannot serve is broken, not absent. No key
    /// of ace.toml; `ace serve` remembers them.
    pub enforced_before: BTreeSet<String>,
    /// Where each key stands, for problems found later; empty in a configuration made by hand.
    pub places: Places,
}

impl Config {
    /// Reads a file and this process's environment. Variables that are not UTF-8 count as not set. Blocks.
    pub fn load(file: &Path) -> Result<Config, Problems> {
        let text = decode::read_bounded(file, FILE_BYTES_MAX).map_err(|message| {
            Problems(vec![Problem { file: None, line: 0, variable: None, key: String::new(), message }])
        })?;
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Config::read(&text, Some(file), variables)
    }

    /// What holds where there is no ace.toml, for the author of a plugin: every default, and compiled plugins are kept in this
    /// user's cache folder.
    pub fn without_file() -> Config {
        let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Config { cache_dir: caches.map(|caches| caches.join("ace/compiled")), ..Config::default() }
    }

    /// Reads the text of an ace.toml with an environment laid over it. `file` is where it came from: relative paths
    /// start at its folder, without it in the working directory. Nothing is read from this process's environment, but
    /// files named in the text are looked for, and those of secrets are read. Reports every problem at once.
    pub fn read(
        text: &str,
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Problems> {
        let mut document = tree::parse(text).map_err(|e| syntax_problem(file, e))?;
        let mut walk = reader::Walk::new(file.map(Path::to_owned), env.into_iter().collect());
        environment::overlay(&mut walk, &mut document);
        let mut config = walk.document(document, decode::config);
        config.file = file.map(Path::to_owned);
        config.places = std::mem::take(&mut walk.places);
        walk.finish(config)
    }

    /// A problem with a key found after reading, told where the key stands or, left out, where the nearest table around
    /// it does. `key` is a dotted path: `plugins.django_email.grants`, `enabled-channels[1]`.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let place = self.places.find(key);
        let variable = match place {
            Place::Variable(name) => Some(name.clone()),
            Place::Line(_) | Place::Nowhere => None,
        };
        let file = if variable.is_some() { None } else { self.file.clone() };
        Problem { file, line: place.line(), variable, key: key.to_owned(), message: message.into() }
    }
}

fn syntax_problem(file: Option<&Path>, (line, message): (usize, String)) -> Problems {
    let message = format!("not TOML: {message}");
    Problems(vec![Problem { file: file.map(Path::to_owned), line, variable: None, key: String::new(), message }])
}

/// Where the keys of a configuration stand, by dotted path. Two are always equal: a place is no setting.
#[derive(Clone, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    fn insert(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }

    fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The place of a key or, where it is left out, of the nearest table around it.
    fn find(&self, key: &str) -> &Place {
        let mut key = key;
        loop {
            match (self.0.get(key), key.rfind(['.', '['])) {
                (Some(place), _) => return place,
                (None, Some(end)) => key = &key[..end],
                (None, None) => return &Place::Nowhere,
            }
        }
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} keys]", self.0.len())
    }
}

/// What messages look like, beyond their templates.
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    /// Django's LANGUAGE_CODE: the language of the templates' own texts, and of a message that names none. `en`.
    pub default_language: String,
    /// The theme of a message whose `options.site` names none that there is. `None`: the template folders' own files.
    pub default_theme: Option<String>,
    /// Django's TIME_ZONE: where moments are told in. UTC.
    pub time_zone: TimeZone,
    /// Where links without a host lead: the application's address. `None`: such a link is an error.
    pub base_url: Option<Url>,
    /// Django's STATIC_URL: where images and other files of templates are; may start at `base_url`.
    pub static_url: Option<String>,
    /// Whether style sheets are put into the elements they concern. Yes.
    pub inline_css: bool,
    /// Whether comments and needless whitespace are taken out of HTML. No.
    pub minify_html: bool,
    /// Whether a mail without a `body.txt` gets its text from its HTML. No: it is an error.
    pub text_from_html: bool,
    /// Loop bodies, blocks and included files that the templates of one message may run. 200,000.
    pub max_steps: u32,
    /// How long the templates of one message may compute. 2 s.
    pub render_timeout: Duration,
    /// All that the templates of one message may write together. 8 MiB.
    pub max_output_bytes: usize,
}

impl Default for Presentation {
    fn default() -> Self {
        Presentation {
            default_language: "en".to_owned(),
            default_theme: None,
            time_zone: TimeZone::UTC,
            base_url: None,
            static_url: None,
            inline_css: true,
            minify_html: false,
            text_from_html: false,
            max_steps: 200_000,
            render_timeout: Duration::from_secs(2),
            max_output_bytes: 8 * values::MIB,
        }
    }
}

/// Which channel of a type carries a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// edx-ace's ACE_CHANNEL_DEFAULT_EMAIL and ACE_CHANNEL_DEFAULT_PUSH, for any channel type.
    pub default: BTreeMap<ChannelType, String>,
    /// edx-ace's ACE_CHANNEL_TRANSACTIONAL_EMAIL, for any channel type.
    pub transactional: BTreeMap<ChannelType, String>,
    /// edx-ace's ACE_PUSH_CHANNELS, for any channel type: candidates where there is no default.
    pub listed: BTreeMap<ChannelType, Vec<String>>,
    /// Channels tried in turn after a fatal or exhausted one. Empty: none.
    pub failover: BTreeMap<ChannelType, Vec<String>>,
}

/// When deliveries are tried, and tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// edx-ace's ACE_DEFAULT_EXPIRATION_DELAY: how long after the first attempt a message is still tried. 120 s.
    pub expiration_delay: Duration,
    /// edx-ace's fixed 300 s: no window is longer, whatever a message says.
    pub max_expiration_delay: Duration,
    /// The first pause between attempts, where the channel names no time. It doubles. 5 s.
    pub retry_delay: Duration,
    /// The longest pause between attempts. 60 s.
    pub max_retry_delay: Duration,
    /// Messages under way at once. 8.
    pub concurrency: usize,
    /// The longest message, in bytes of JSON. 1 MiB.
    pub max_message_bytes: usize,
    /// Messages waiting for another attempt at once; past that no new one is begun. 10,000.
    pub max_waiting: usize,
}

impl Default for Delivery {
    fn default() -> Self {
        Delivery {
            expiration_delay: Duration::from_secs(120),
            max_expiration_delay: Duration::from_secs(300),
            retry_delay: Duration::from_secs(5),
            max_retry_delay: Duration::from_secs(60),
            concurrency: 8,
            max_message_bytes: values::MIB,
            max_waiting: 10_000,
        }
    }
}

/// How one channel is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    pub delivery: Guarantee,
    /// Deliveries at once. `None`: as many as there are messages under way.
    pub concurrency: Option<usize>,
    /// Deliveries in a time: a provider's quota.
    pub rate: Option<Rate>,
}

/// What holds for a message that was being handed over when the host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// It is handed over again: it may arrive twice.
    #[default]
    AtLeastOnce,
    /// Every attempt is written down before it is made, and one without a result is not repeated: it may not arrive.
    AtMostOnce,
}

/// So many in so long a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    pub per: Duration,
}

/// The relays behind the `mailer` import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailer {
    /// Which relay takes a mail that names none. May be left out where there is just one.
    pub default_relay: Option<String>,
    /// edx-ace's DEFAULT_FROM_EMAIL: the sender where neither the mail nor the relay has one.
    pub default_from: Option<String>,
    pub relays: BTreeMap<String, Relay>,
}

/// One way out for mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    pub kind: RelayKind,
    /// The sender where the mail has none.
    pub from: Option<String>,
    /// The envelope sender where the mail has none; bounces go there. `None`: the sender's address.
    pub return_path: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayKind {
    Smtp(Smtp),
    /// Writes each mail as a `.eml` file into this folder.
    File {
        dir: PathBuf,
    },
    /// Builds each mail and drops it; for measurements.
    Discard,
}

/// A real mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// AUTH with this name and password.
    pub credentials: Option<(String, Secret)>,
    /// Roots trusted besides the system's: PEM.
    pub ca_file: Option<PathBuf>,
    /// What EHLO says. `None`: this machine's name.
    pub hello_name: Option<String>,
    /// Connections at once; a mail waits for a free one. 4.
    pub connections: usize,
    /// Mails over one connection before it is replaced. 100.
    pub mails_per_connection: u32,
    /// For connecting, and for each answer of the server. 30 s.
    pub timeout: Duration,
    /// A connection that was idle for longer is not used again. 30 s.
    pub idle_timeout: Duration,
}

impl Smtp {
    /// A server with every default: STARTTLS on port 587, no AUTH.
    pub fn new(host: impl Into<String>) -> Self {
        Smtp {
            host: host.into(),
            port: Tls::Starttls.default_port(),
            tls: Tls::Starttls,
            credentials: None,
            ca_file: None,
            hello_name: None,
            connections: 4,
            mails_per_connection: 100,
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    None,
    /// STARTTLS, and nothing is sent without it.
    Starttls,
    /// TLS from the first byte (port 465).
    Implicit,
}

impl Tls {
    /// The port where none is written: 25, 587 (RFC 6409) or 465 (RFC 8314).
    pub fn default_port(self) -> u16 {
        match self {
            Tls::None => 25,
            Tls::Starttls => 587,
            Tls::Implicit => 465,
        }
    }
}

/// The facts and counters behind the `keyvalue` import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyvalue {
    /// The SQLite database that keeps them over restarts. `None`: memory, and nothing is kept.
    pub database: Option<PathBuf>,
    /// NDJSON files loaded at the start, each line `{"bucket": …, "key": …, "value": …}`.
    pub files: Vec<PathBuf>,
    /// Entries and once-tokens at most, in all buckets. 100,000.
    pub max_entries: usize,
    /// The longest value. 64 KiB.
    pub max_value_bytes: usize,
}

impl Default for Keyvalue {
    fn default() -> Self {
        Keyvalue { database: None, files: Vec::new(), max_entries: 100_000, max_value_bytes: 64 * values::KIB }
    }
}

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
        }
    }
}

/// The client behind the `http` and `wasi:http` imports, one for all plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// For looking the host up, connecting and the TLS handshake. 5 s.
    pub connect_timeout: Duration,
    /// A whole exchange, waiting for its turn included; a plugin may ask for less. 30 s.
    pub timeout: Duration,
    /// The longest body of a response. 4 MiB.
    pub max_response_bytes: usize,
    /// Requests of one plugin under way at once; a further one waits. 32.
    pub requests_per_plugin: usize,
    /// Roots trusted besides the system's: PEM.
    pub ca_file: Option<PathBuf>,
    /// Open connections to one host that wait for the next request. 8.
    pub idle_connections: usize,
    /// A connection that was idle for longer is closed. 30 s.
    pub idle_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            max_response_bytes: 4 * values::MIB,
            requests_per_plugin: 32,
            ca_file: None,
            idle_connections: 8,
            idle_timeout: Duration::from_secs(30),
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
    /// TLS with this certificate chain and key, both PEM. `None`: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Connections at once; a further one waits to be taken. 1,000.
    pub connections: usize,
    /// For the head of a request, and for each pause in its body. 10 s.
    pub read_timeout: Duration,
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
            tls: None,
            connections: 1_000,
            read_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            max_head_bytes: 32 * values::KIB,
            requests_per_second: None,
            drain: Duration::from_secs(30),
        }
    }
}

/// Maxima for every plugin; a manifest may ask for less, ace.toml's plugin sections for up to these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, in bytes. 64 MiB.
    pub memory: usize,
    /// A guest's own execution time in one call. 250 ms.
    pub time: Duration,
    /// A whole call to a policy, host calls included. 1 s.
    pub policy_call_timeout: Duration,
    /// A whole call to a channel or a resolver. 30 s.
    pub channel_call_timeout: Duration,
    /// Instances of one plugin at once. 32.
    pub instances: usize,
    /// Bytes a guest may hand to the host in one call. 16 MiB.
    pub output_bytes: usize,
    /// Bytes a guest may log in one call. 64 KiB.
    pub log_bytes: usize,
    /// Calls a guest may make into the host in one call of its own. 1,000.
    pub host_calls: usize,
    /// A pooled instance is replaced after so many calls, or up to twice as many. 10,000.
    pub calls_per_instance: u32,
    /// So many faults of one plugin within `circuit_window` open its circuit. 5.
    pub circuit_faults: usize,
    /// 60 s.
    pub circuit_window: Duration,
    /// How long an open circuit asks nothing of the plugin; then one call tries it. 30 s.
    pub circuit_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 64 * values::MIB,
            time: Duration::from_millis(250),
            policy_call_timeout: Duration::from_secs(1),
            channel_call_timeout: Duration::from_secs(30),
            instances: 32,
            output_bytes: 16 * values::MIB,
            log_bytes: 64 * values::KIB,
            host_calls: 1_000,
            calls_per_instance: 10_000,
            circuit_faults: 5,
            circuit_window: Duration::from_secs(60),
            circuit_pause: Duration::from_secs(30),
        }
    }
}

/// Who must vouch for plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Whether a plugin without a signature of a trusted key is broken.
    pub required: bool,
    /// Public keys of minisign's.
    pub keys: Vec<String>,
}

/// What ace.toml says of one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// The line of its section, for problems found later.
    pub line: usize,
    pub enabled: bool,
    pub mode: Mode,
    /// For a policy in shadow: the policy whose verdicts its own are compared with. `None`: with what all policies decided.
    pub shadow_of: Option<String>,
    /// Policies are asked in this order, then by name. 100.
    pub order: i64,
    pub on_error: OnError,
    pub grants: Grants,
    /// Laid over the manifest's defaults.
    pub config: Object,
    pub secrets: BTreeMap<String, Secret>,
    /// `None`: the manifest's wish, else the maximum.
    pub memory: Option<usize>,
    pub time: Option<Duration>,
    pub call_timeout: Option<Duration>,
    pub instances: Option<usize>,
    pub isolation: Option<Isolation>,
}

/// Whether a policy's verdicts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Enforce,
    /// They are recorded and compared, never obeyed, and the policy has no effects.
    Shadow,
}

/// What one instance of a plugin serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Many calls, one after the other.
    #[default]
    Pooled,
    /// One call.
    Message,
}

impl Default for Plugin {
    fn default() -> Self {
        Plugin {
            line: 0,
            enabled: true,
            mode: Mode::Enforce,
            shadow_of: None,
            order: 100,
            on_error: OnError::Retry,
            grants: Grants::default(),
            config: Object::new(),
            secrets: BTreeMap::new(),
            memory: None,
            time: None,
            call_timeout: None,
            instances: None,
            isolation: None,
        }
    }
}

/// What a plugin may reach. What it asks for is in its manifest: [`Requests`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// URL prefixes: scheme, host, port and whole path segments.
    pub http: Vec<String>,
    /// Buckets.
    pub keyvalue: Vec<BucketGrant>,
    pub mailer: bool,
    /// The folder the plugin may write files into.
    pub outbox: Option<PathBuf>,
}

/// `"course-optouts:read"`, `"counters:write"`, `"state:read-write"`; without a suffix both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketGrant {
    pub bucket: String,
    pub read: bool,
    pub write: bool,
}

/// A value that never shows: not in a log, an error or a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
