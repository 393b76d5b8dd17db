//! How messages look, which channels they take, when they are tried, and the ways out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use url::Url;

use super::{Routes, SecretSource, values};
use crate::message::ChannelType;
use ace_store::files::Access;

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
    /// Addresses of the application's pages, by name: `[templates.routes]`. None.
    pub routes: Routes,
    /// What all catalogues may take of memory together. 256 MiB.
    pub max_catalog_bytes: usize,
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
            routes: Routes::default(),
            max_catalog_bytes: 256 * values::MIB,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// edx-ace's ACE_DEFAULT_EXPIRATION_DELAY: how long after the first attempt a message is still tried. `None`: as
    /// [`Delivery::window`] says.
    pub expiration_delay: Option<Duration>,
    /// edx-ace's fixed 300 s: no window is longer, whatever a message says. `None`: as [`Delivery::max_window`] says.
    pub max_expiration_delay: Option<Duration>,
    /// How long after it was accepted a message still waits for a relay or an origin that is down. `None`: as
    /// [`Delivery::max_age`] says.
    pub max_age: Option<Duration>,
    /// Whose defaults hold for what is not set.
    pub defaults: Defaults,
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

/// Who sends, where the settings leave it open for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defaults {
    /// `ace send` and the library, where somebody waits: edx-ace's 120 s and 300 s.
    #[default]
    Send,
    /// `ace serve`, which keeps messages: 4 hours for transactional messages, 2 days for others; 24 hours and 5 days for what
    /// waits for a relay that is down.
    Serve,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Defaults {
    /// edx-ace's, or those of a server.
    pub fn window(self, is_transactional: bool) -> Duration {
        match (self, is_transactional) {
            (Defaults::Send, _) => 2 * MINUTE,
            (Defaults::Serve, true) => 4 * HOUR,
            (Defaults::Serve, false) => 2 * DAY,
        }
    }
}

impl Delivery {
    /// How long after the first attempt a message of this kind is still tried, where it names no expiration time of its own.
    pub fn window(&self, is_transactional: bool) -> Duration {
        let window = self.expiration_delay.unwrap_or_else(|| self.defaults.window(is_transactional));
        self.max_expiration_delay.map_or(window, |max| window.min(max))
    }

    /// No window is longer, whatever a message says: edx-ace's 300 s, or the window where that is longer.
    pub fn max_window(&self, is_transactional: bool) -> Duration {
        self.max_expiration_delay.unwrap_or_else(|| (5 * MINUTE).max(self.window(is_transactional)))
    }

    /// How long after it was accepted a message still waits for a relay or an origin that is down, by the wall clock. `None`:
    /// as long as its window is.
    pub fn max_age(&self, is_transactional: bool) -> Option<Duration> {
        let default = match (self.defaults, is_transactional) {
            (Defaults::Send, _) => None,
            (Defaults::Serve, true) => Some(DAY),
            (Defaults::Serve, false) => Some(5 * DAY),
        };
        self.max_age.or(default)
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Delivery {
            expiration_delay: None,
            max_expiration_delay: None,
            max_age: None,
            defaults: Defaults::default(),
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
    /// How often a message may be handed over at most or at least.
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
    /// In how long.
    pub per: Duration,
}

/// The relays behind the `mailer` import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailer {
    /// Which relay takes a mail that names none. May be left out where there is just one.
    pub default_relay: Option<String>,
    /// edx-ace's DEFAULT_FROM_EMAIL: the sender where neither the mail nor the relay has one.
    pub default_from: Option<String>,
    /// By name.
    pub relays: BTreeMap<String, Relay>,
    /// Who may read the mails of `file` relays: `file-group`.
    pub access: Access,
}

/// One way out for mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// What it is.
    pub kind: RelayKind,
    /// The sender where the mail has none.
    pub from: Option<String>,
    /// The envelope sender where the mail has none; bounces go there. `None`: the sender's address.
    pub return_path: Option<String>,
}

/// What mails are handed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayKind {
    /// A mail server.
    Smtp(Smtp),
    /// Writes each mail as a `.eml` file into this folder.
    File {
        /// The folder.
        dir: PathBuf,
    },
    /// Builds each mail and drops it; for measurements.
    Discard,
}

/// A real mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// When TLS is used.
    pub tls: Tls,
    /// `None`: no AUTH.
    pub login: Option<Login>,
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
            login: None,
            ca_file: None,
            hello_name: None,
            connections: 4,
            mails_per_connection: 100,
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// AUTH: who logs in, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password or token.
    pub proof: Proof,
}

/// What proves who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// PLAIN, or LOGIN where the server has only that.
    Password(SecretSource),
    /// XOAUTH2 with this access token.
    Token(SecretSource),
}

/// When TLS is used.
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
    /// Of these, what plugins may put into one bucket. A quarter of `max_entries`.
    pub max_bucket_entries: Option<usize>,
    /// The longest value. 64 KiB.
    pub max_value_bytes: usize,
    /// Who may read the database and what is kept beside it: `file-group`.
    pub access: Access,
}

impl Keyvalue {
    /// As the store takes them.
    pub fn store(&self) -> ace_store::keyvalue::Settings {
        let Keyvalue { database, files, max_entries, max_bucket_entries, max_value_bytes, access } = self.clone();
        ace_store::keyvalue::Settings { database, files, max_entries, max_bucket_entries, max_value_bytes, access }
    }
}

impl Default for Keyvalue {
    fn default() -> Self {
        Keyvalue {
            database: None,
            files: Vec::new(),
            max_entries: 100_000,
            max_bucket_entries: None,
            max_value_bytes: 64 * values::KIB,
            access: Access::default(),
        }
    }
}
