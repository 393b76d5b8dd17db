//! What plugins may have and reach.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::secrets::{SecretError, read_secret, secret};
use super::urls;
use super::values::{self, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE};
use crate::message::{Object, OnError};
use ace_store::files::Access;

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
            max_response_bytes: 4 * MIB,
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
            memory: 64 * MIB,
            time: Duration::from_millis(250),
            policy_call_timeout: Duration::from_secs(1),
            channel_call_timeout: Duration::from_secs(30),
            instances: 32,
            output_bytes: 16 * MIB,
            log_bytes: 64 * KIB,
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
        CacheLimits { max_bytes: 2 * GIB, max_age: Duration::from_secs(30 * 86_400) }
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
    /// Whether it is used.
    pub enabled: bool,
    /// Whether its verdicts are obeyed.
    pub mode: Mode,
    /// For a policy in shadow: the policy whose verdicts its own are compared with. `None`: with what all policies decided.
    pub shadow_of: Option<String>,
    /// Policies are asked in this order, then by name. 100.
    pub order: i64,
    /// What holds when it cannot be asked.
    pub on_error: OnError,
    /// What it may reach.
    pub grants: Grants,
    /// Laid over the manifest's defaults.
    pub config: Object,
    /// Values that it may read and that nothing shows.
    pub secrets: BTreeMap<String, Secret>,
    /// `None`: the manifest's wish, else the maximum.
    pub memory: Option<usize>,
    /// Its own time for one call.
    pub time: Option<Duration>,
    /// The time of a whole call.
    pub call_timeout: Option<Duration>,
    /// How many calls at a time.
    pub instances: Option<usize>,
    /// Whether an instance is used for more than one call.
    pub isolation: Option<Isolation>,
}

/// Whether a policy's verdicts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Its verdicts are obeyed.
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
    /// URL prefixes: scheme, host or host pattern, port and whole path segments.
    pub http: Vec<String>,
    /// Buckets.
    pub keyvalue: Vec<BucketGrant>,
    /// Sending mail.
    pub mailer: bool,
    /// The folder the plugin may write files into.
    pub outbox: Option<PathBuf>,
    /// Who may read the files in it: `file-group`.
    pub access: Access,
}

/// `"course-optouts:read"`, `"counters:write"`, `"state:read-write"`; without a suffix both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketGrant {
    /// The name of the bucket.
    pub bucket: String,
    /// Reading entries.
    pub read: bool,
    /// Writing entries and counters.
    pub write: bool,
}

/// A value that never shows: not in a log, an error or a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a value from being shown.
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
    /// It stands there.
    Value(Secret),
    /// Read again whenever the secret is needed.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now.
    ///
    /// # Errors
    /// Names the file that is empty, too long, not UTF-8, or cannot be read.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::File(file) => {
                let file = file.clone();
                let reading = tokio::task::spawn_blocking(move || read_secret(&file));
                reading.await.unwrap_or_else(|e| Err(SecretError(e.to_string())))
            }
        }
    }
}

/// What any plugin may be given, or its manifest ask for.
pub(super) const MEMORY_MIN: usize = 64 * KIB;
pub(super) const MEMORY_MAX: usize = 4 * GIB;
pub(super) const TIME_MAX: Duration = MINUTE;
pub(super) const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
pub(super) const INSTANCES_MAX: usize = 1000;
pub(super) const ISOLATIONS: [(&str, Isolation); 2] = [("pooled", Isolation::Pooled), ("message", Isolation::Message)];

/// The most that a plugin's section, or its manifest, may name.
pub(super) struct Maxima {
    pub(super) memory: usize,
    pub(super) time: Duration,
    pub(super) call_timeout: Duration,
    pub(super) instances: usize,
}

impl Maxima {
    /// Which of the two call time-outs binds a plugin shows only when it is loaded; here the longer one does.
    fn of(limits: &Limits) -> Self {
        Maxima {
            memory: limits.memory,
            time: limits.time,
            call_timeout: limits.policy_call_timeout.max(limits.channel_call_timeout),
            instances: limits.instances,
        }
    }
}

pub(super) fn cache(s: &mut Section<'_>) -> CacheLimits {
    let default = CacheLimits::default();
    CacheLimits {
        max_bytes: s.get("cache-max-size", values::size(MIB..=1024 * GIB)).unwrap_or(default.max_bytes),
        max_age: s.get("cache-max-age", values::duration(HOUR..=3650 * DAY)).unwrap_or(default.max_age),
    }
}

pub(super) fn signatures(s: &mut Section<'_>) -> Signatures {
    Signatures {
        required: s.get("required", values::boolean).unwrap_or_default(),
        keys: s.list("keys", values::signing_key).unwrap_or_default(),
    }
}

pub(super) fn http(s: &mut Section<'_>) -> Http {
    let default = Http::default();
    let time = || values::duration(MILLISECOND..=10 * MINUTE);
    Http {
        connect_timeout: s.get("connect-timeout", time()).unwrap_or(default.connect_timeout),
        timeout: s.get("timeout", time()).unwrap_or(default.timeout),
        max_response_bytes: s
            .get("max-response-bytes", values::size(KIB..=256 * MIB))
            .unwrap_or(default.max_response_bytes),
        requests_per_plugin: s
            .get("requests-per-plugin", values::integer(1..=10_000))
            .unwrap_or(default.requests_per_plugin),
        ca_file: s.get("ca-file", values::existing_file(s.folder())),
        idle_connections: s.get("idle-connections", values::integer(0..=1000)).unwrap_or(default.idle_connections),
        idle_timeout: s.get("idle-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.idle_timeout),
    }
}

pub(super) fn limits(s: &mut Section<'_>) -> Limits {
    let default = Limits::default();
    let call_timeout = || values::duration(MILLISECOND..=CALL_TIMEOUT_MAX);
    Limits {
        memory: s.get("memory", values::size(MEMORY_MIN..=MEMORY_MAX)).unwrap_or(default.memory),
        time: s.get("time", values::duration(MILLISECOND..=TIME_MAX)).unwrap_or(default.time),
        policy_call_timeout: s.get("policy-call-timeout", call_timeout()).unwrap_or(default.policy_call_timeout),
        channel_call_timeout: s.get("channel-call-timeout", call_timeout()).unwrap_or(default.channel_call_timeout),
        instances: s.get("instances", values::integer(1..=INSTANCES_MAX)).unwrap_or(default.instances),
        output_bytes: s.get("output-bytes", values::size(KIB..=GIB)).unwrap_or(default.output_bytes),
        log_bytes: s.get("log-bytes", values::size(0..=16 * MIB)).unwrap_or(default.log_bytes),
        host_calls: s.get("host-calls", values::integer(1..=1_000_000)).unwrap_or(default.host_calls),
        calls_per_instance: s
            .get("calls-per-instance", values::integer(1..=1_000_000))
            .unwrap_or(default.calls_per_instance),
        circuit_faults: s.get("circuit-faults", values::integer(1..=1_000)).unwrap_or(default.circuit_faults),
        circuit_window: s.get("circuit-window", values::duration(MILLISECOND..=DAY)).unwrap_or(default.circuit_window),
        circuit_pause: s.get("circuit-pause", values::duration(MILLISECOND..=DAY)).unwrap_or(default.circuit_pause),
    }
}

pub(super) fn plugin(s: &mut Section<'_>, maxima: &Limits, access: Access) -> Plugin {
    let default = Plugin::default();
    let mode = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
    let on_error = [("retry", OnError::Retry), ("deny", OnError::Deny), ("allow", OnError::Allow)];
    let runtime = s.section("limits", |s| runtime(s, &Maxima::of(maxima)));
    Plugin {
        enabled: s.get("enabled", values::boolean).unwrap_or(default.enabled),
        mode: s.get("mode", values::one_of(&mode)).unwrap_or(default.mode),
        shadow_of: s.get("shadow-of", values::line),
        order: s.get("order", values::integer(-1_000_000..=1_000_000)).unwrap_or(default.order),
        on_error: s.get("on-error", values::one_of(&on_error)).unwrap_or(default.on_error),
        grants: Grants { access, ..s.section("grants", grants) },
        config: s.get("config", values::object).unwrap_or_default(),
        secrets: s.named("secrets", |_, field| secret(field)),
        memory: runtime.memory,
        time: runtime.time,
        call_timeout: runtime.call_timeout,
        instances: runtime.instances,
        isolation: s.get("isolation", values::one_of(&ISOLATIONS)),
    }
}

fn grants(s: &mut Section<'_>) -> Grants {
    Grants {
        http: s.list("http", urls::url_pattern).unwrap_or_default(),
        keyvalue: s.list("keyvalue", values::bucket).unwrap_or_default(),
        mailer: s.get("mailer", values::boolean).unwrap_or_default(),
        outbox: s.get("outbox", values::path(s.folder())),
        access: Access::default(),
    }
}

/// A plugin's own limits, from its section or its manifest.
pub(super) fn runtime(s: &mut Section<'_>, maxima: &Maxima) -> Runtime {
    Runtime {
        memory: s.get("memory", values::size(MEMORY_MIN..=maxima.memory)),
        time: s.get("time", values::duration(MILLISECOND..=maxima.time)),
        call_timeout: s.get("call-timeout", values::duration(MILLISECOND..=maxima.call_timeout)),
        instances: s.get("instances", values::integer(1..=maxima.instances)),
        isolation: None,
    }
}

/// Limits a plugin asks for. They bind only within the operator's maxima.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Linear memory of one instance, in bytes.
    pub memory: Option<usize>,
    /// A guest's own execution time in one call.
    pub time: Option<Duration>,
    /// A whole call, host calls included.
    pub call_timeout: Option<Duration>,
    /// Instances at once.
    pub instances: Option<usize>,
    /// What one instance serves.
    pub isolation: Option<Isolation>,
}
