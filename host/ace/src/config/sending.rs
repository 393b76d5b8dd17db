//! Settings of presentation, routing, delivery, channels, relays and key-value entries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use url::Url;

use super::{Brand, Dkim, Routes, SecretSource, Shipped, values};
use crate::message::ChannelType;
use ace_store::files::Access;

/// Settings of presentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    /// Django's LANGUAGE_CODE: the language of the texts in templates, and of messages without a language. `en`.
    pub default_language: String,
    /// The theme of a message whose `options.site` is not an existing theme. `None`: the files outside of themes.
    pub default_theme: Option<String>,
    /// Django's TIME_ZONE: the time zone of shown times. UTC.
    pub time_zone: TimeZone,
    /// The application's URL, which completes links without a host. `None`: such a link is an error.
    pub base_url: Option<Url>,
    /// Django's STATIC_URL: the URL of images and other static files; may be relative to `base_url`.
    pub static_url: Option<String>,
    /// URLs of the application's pages, by name: `[templates.routes]`. None.
    pub routes: Routes,
    /// Memory of all catalogues together, in bytes. 256 MiB.
    pub max_catalog_bytes: usize,
    /// Whether style sheets are inlined into elements. Yes.
    pub inline_css: bool,
    /// Whether comments and unneeded white space are removed from HTML. No.
    pub minify_html: bool,
    /// Whether the text of a mail without `body.txt` is derived from its HTML. No: it is an error.
    pub text_from_html: bool,
    /// Loop bodies, blocks and included files in rendering one message. 200,000.
    pub max_steps: u32,
    /// Time limit of rendering one message. 2 s.
    pub render_timeout: Duration,
    /// Output of all templates of one message, in bytes. 8 MiB.
    pub max_output_bytes: usize,
    /// What the shipped layout shows of the sender.
    pub brand: Brand,
    /// The same for themes, by name. What a theme does not set is that of `brand`.
    pub themes: BTreeMap<String, Brand>,
    /// Templates of the program, which a file in a template folder overrides. Not a key of ace.toml; [`super::Config::ship`] sets it.
    pub shipped: &'static Shipped,
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
            brand: Brand::default(),
            themes: BTreeMap::new(),
            shipped: Default::default(),
            max_output_bytes: 8 * values::MIB,
        }
    }
}

/// Settings of the choice of channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// edx-ace's ACE_CHANNEL_DEFAULT_EMAIL and ACE_CHANNEL_DEFAULT_PUSH, for any channel type.
    pub default: BTreeMap<ChannelType, String>,
    /// edx-ace's ACE_CHANNEL_TRANSACTIONAL_EMAIL, for any channel type.
    pub transactional: BTreeMap<ChannelType, String>,
    /// edx-ace's ACE_PUSH_CHANNELS, for any channel type: the candidates if there is no default.
    pub listed: BTreeMap<ChannelType, Vec<String>>,
    /// Channels that are tried in order after a channel failed permanently or its window closed. Empty: none.
    pub failover: BTreeMap<ChannelType, Vec<String>>,
    /// Channel types that take over in order from a type that was skipped or failed. Empty: every type is used at once.
    pub fallback: BTreeMap<ChannelType, Vec<ChannelType>>,
}

/// Settings of delivery and retries.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// edx-ace's ACE_DEFAULT_EXPIRATION_DELAY: how long after the first attempt a message is retried. `None`: see
    /// [`Delivery::window`].
    pub expiration_delay: Option<Duration>,
    /// The longest window that a message can request; fixed to 300 s in edx-ace. `None`: see [`Delivery::max_window`].
    pub max_expiration_delay: Option<Duration>,
    /// How long after it was accepted a message waits for a relay or origin that is down. `None`: see [`Delivery::max_age`].
    pub max_age: Option<Duration>,
    /// Which defaults apply to settings that are not set.
    pub defaults: Defaults,
    /// The first pause between attempts, unless the channel sets a time. It doubles with each attempt. 5 s.
    pub retry_delay: Duration,
    /// The longest pause between attempts. 60 s.
    pub max_retry_delay: Duration,
    /// Messages in flight. 8.
    pub concurrency: usize,
    /// The longest message, in bytes of JSON. 1 MiB.
    pub max_message_bytes: usize,
    /// Messages that wait for another attempt; beyond that, no new ones are started. 10,000.
    pub max_waiting: usize,
}

/// Which program sends, which decides some defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Defaults {
    /// `ace send` and the library, whose caller waits: edx-ace's 120 s and 300 s.
    #[default]
    Send,
    /// `ace serve`, which stores messages: 4 hours for transactional messages, 2 days for others; 24 hours and 5 days for messages
    /// that wait for a relay that is down.
    Serve,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Defaults {
    /// The default window.
    pub fn window(self, is_transactional: bool) -> Duration {
        match (self, is_transactional) {
            (Defaults::Send, _) => 2 * MINUTE,
            (Defaults::Serve, true) => 4 * HOUR,
            (Defaults::Serve, false) => 2 * DAY,
        }
    }
}

impl Delivery {
    /// How long after the first attempt a message without an expiration time is retried.
    pub fn window(&self, is_transactional: bool) -> Duration {
        let window = self.expiration_delay.unwrap_or_else(|| self.defaults.window(is_transactional));
        self.max_expiration_delay.map_or(window, |max| window.min(max))
    }

    /// The longest window that a message can request: edx-ace's 300 s, or the window if that is longer.
    pub fn max_window(&self, is_transactional: bool) -> Duration {
        self.max_expiration_delay.unwrap_or_else(|| (5 * MINUTE).max(self.window(is_transactional)))
    }

    /// How long after it was accepted a message waits for a relay or origin that is down, by the wall clock. `None`: its window.
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

/// Settings of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    /// Whether a message may be delivered twice, or not at all, after an interruption.
    pub delivery: Guarantee,
    /// Deliveries at the same time. `None`: as many as there are messages in flight.
    pub concurrency: Option<usize>,
    /// The rate of deliveries: a provider's quota.
    pub rate: Option<Rate>,
}

/// What happens to a message whose delivery was interrupted by the end of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Guarantee {
    /// It is delivered again, and may arrive twice.
    #[default]
    AtLeastOnce,
    /// Every attempt is stored before it is made, and not repeated without a result, so the message may not arrive.
    AtMostOnce,
}

/// A number of messages in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// The period.
    pub per: Duration,
}

/// The relays of the `mailer` import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailer {
    /// The relay of mails that do not specify one. Optional if there is only one relay.
    pub default_relay: Option<String>,
    /// edx-ace's DEFAULT_FROM_EMAIL: the sender, if neither the mail nor the relay has one.
    pub default_from: Option<String>,
    /// The relays, by name.
    pub relays: BTreeMap<String, Relay>,
    /// The keys of signed return paths: the first signs, all of them verify.
    pub return_path_keys: Vec<SecretSource>,
    /// Who may read the mails of `file` relays: `file-group`.
    pub access: Access,
}

/// A relay for mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The kind of relay.
    pub kind: RelayKind,
    /// The sender of mails without one.
    pub from: Option<String>,
    /// The envelope sender of mails without one, which receives bounces. `{token}` in it stands for a signed token that names the
    /// message. `None`: the sender's address.
    pub return_path: Option<String>,
}

/// The kind of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayKind {
    /// A mail server.
    Smtp(Smtp),
    /// Writes each mail as a `.eml` file into this folder.
    File {
        /// The folder.
        dir: PathBuf,
    },
    /// Builds each mail and drops it, for benchmarks.
    Discard,
}

/// An SMTP server.
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
    /// The signatures of each mail. Empty: it is not signed.
    pub dkim: Vec<Dkim>,
    /// Root certificates that are trusted besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// The name in EHLO. `None`: the name of this machine.
    pub hello_name: Option<String>,
    /// Connections at the same time; mails wait for a free one. 4.
    pub connections: usize,
    /// Mails over one connection before it is replaced. 100.
    pub mails_per_connection: u32,
    /// Time limit for connecting, and for each reply. 30 s.
    pub timeout: Duration,
    /// How long a connection may be idle before it is not used again. 30 s.
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
            dkim: Vec::new(),
            ca_file: None,
            hello_name: None,
            connections: 4,
            mails_per_connection: 100,
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// The credentials for AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name; empty if the credential has it.
    pub username: String,
    /// The password or token.
    pub proof: Proof,
}

/// The kind of credential.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// PLAIN, or LOGIN if the server offers only that.
    Password(SecretSource),
    /// XOAUTH2 with this access token.
    Token(SecretSource),
    /// What this one of `[credentials]` has: a password, or an access token.
    Credential(String),
}

/// When TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Plain text.
    None,
    /// STARTTLS, which is required.
    Starttls,
    /// TLS from the first byte (port 465).
    Implicit,
}

impl Tls {
    /// The default port: 25, 587 (RFC 6409) or 465 (RFC 8314).
    pub fn default_port(self) -> u16 {
        match self {
            Tls::None => 25,
            Tls::Starttls => 587,
            Tls::Implicit => 465,
        }
    }
}

/// The entries and counters of the `keyvalue` import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyvalue {
    /// The SQLite database that stores them. `None`: they are in memory, and lost at a restart.
    pub database: Option<PathBuf>,
    /// NDJSON files that are loaded at start-up; each line is `{"bucket": …, "key": …, "value": …}`.
    pub files: Vec<PathBuf>,
    /// The most entries and once-tokens in all buckets. 100,000.
    pub max_entries: usize,
    /// The most of these that plugins may put into one bucket. A quarter of `max_entries`.
    pub max_bucket_entries: Option<usize>,
    /// The longest value. 64 KiB.
    pub max_value_bytes: usize,
    /// Who may read the files of the database: `file-group`.
    pub access: Access,
}

impl Keyvalue {
    /// The settings of the store.
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
