//! What plugins may have and reach.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::values;
use crate::files::Access;
use crate::message::{Object, OnError};

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

/// How much compiled code is kept in `cache-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLimits {
    /// All of it together. What is in use stays, even if that is more. 2 GiB.
    pub max_bytes: usize,
    /// Code that was not used for longer is removed. 30 days.
    pub max_age: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { max_bytes: 2 * values::GIB, max_age: Duration::from_secs(30 * 86_400) }
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

/// What ace.toml says of one plugin. Where it says so is in [`super::Places`]: two settings are equal wherever they stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
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

impl Plugin {
    /// Whether an instance that was started with these settings may go on under those: whatever it can see or reach, and whatever
    /// bounds it, is the same. When a policy is asked, and whether it is obeyed, is none of that.
    pub fn runs_as(&self, other: &Plugin) -> bool {
        let outside = |plugin: &Plugin| Plugin {
            enabled: true,
            mode: Mode::default(),
            shadow_of: None,
            order: 0,
            on_error: OnError::default(),
            ..plugin.clone()
        };
        outside(self) == outside(other)
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
    /// Who may read the files in it: `file-group`.
    pub access: Access,
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

/// Where a secret is that may be changed while the program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    Value(Secret),
    /// Read again whenever the secret is needed.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now.
    ///
    /// # Errors
    /// Names the file that is empty, too long, not UTF-8, or cannot be read.
    pub async fn read(&self) -> Result<Secret, String> {
        match self {
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::File(file) => {
                let file = file.clone();
                let reading = tokio::task::spawn_blocking(move || super::decode::read_secret(&file));
                reading.await.unwrap_or_else(|e| Err(e.to_string()))
            }
        }
    }
}
