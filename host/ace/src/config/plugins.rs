//! Settings of plugins: limits, grants, configuration and secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::ties;
use super::reader::TableDecoder;
use super::secrets::{SecretError, read_secret, secret};
use super::urls;
use super::values::{self, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE};
use crate::message::{Object, OnError};
use ace_store::files::Access;

/// The client of the `http` and `wasi:http` imports, shared by all plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Time limit for the look-up of the host, connecting and the TLS handshake. 5 s.
    pub connect_timeout: Duration,
    /// Time limit of an exchange, including the wait for a permit; a plugin may set a lower one. 30 s.
    pub timeout: Duration,
    /// The longest body of a response. 4 MiB.
    pub max_response_bytes: usize,
    /// Requests of one plugin in flight; further ones wait. 32.
    pub requests_per_plugin: usize,
    /// Root certificates that are trusted besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// Idle connections to one host. As many as `requests_per_plugin`, so that requests in flight do not open new ones all the time.
    pub idle_connections: usize,
    /// How long a connection may be idle before it is closed. 30 s.
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
            idle_connections: 32,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// The limits of every plugin. Its manifest or its section in ace.toml may set lower ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, in bytes. 64 MiB.
    pub memory: usize,
    /// A guest's own computing time in one call. 250 ms.
    pub time: Duration,
    /// Time limit of a call to a policy, host calls included. 1 s.
    pub policy_call_timeout: Duration,
    /// Time limit of a call to a channel or resolver. 30 s.
    pub channel_call_timeout: Duration,
    /// Instances of one plugin at the same time. 32.
    pub instances: usize,
    /// Bytes that a guest may pass to the host in one call. 16 MiB.
    pub output_bytes: usize,
    /// Bytes that a guest may log in one call. 64 KiB.
    pub log_bytes: usize,
    /// Host calls that a guest may make in one call. 1,000.
    pub host_calls: usize,
    /// A pooled instance is replaced after this number of calls, or up to twice as many. 10,000.
    pub calls_per_instance: u32,
    /// This many faults of a plugin within `circuit_window` open its circuit breaker. 5.
    pub circuit_faults: usize,
    /// The window in which faults are counted. 60 s.
    pub circuit_window: Duration,
    /// How long a plugin is not called while its circuit breaker is open; then one call probes it. 30 s.
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

/// The limits of the compiled code in `cache-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLimits {
    /// Total size in bytes. Code that is in use is kept even beyond that. 2 GiB.
    pub max_bytes: usize,
    /// How long unused code is kept. 30 days.
    pub max_age: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { max_bytes: 2 * GIB, max_age: Duration::from_secs(30 * 86_400) }
    }
}

/// The signatures that plugins need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Whether plugins must be signed with a trusted key.
    pub required: bool,
    /// Trusted public keys, in minisign's format.
    pub keys: Vec<String>,
}

/// The settings of one plugin. Their sources are in [`super::SourceSpans`], so that equal settings are equal values.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Whether it is used.
    pub enabled: bool,
    /// Whether its verdicts are applied.
    pub mode: Mode,
    /// For a policy in shadow mode: the policy that it is compared with. `None`: the decision of all enforced policies.
    pub shadow_of: Option<String>,
    /// Policies are evaluated in this order, then by name. 100.
    pub order: i64,
    /// What happens if it fails.
    pub on_error: OnError,
    /// What it may access.
    pub grants: Grants,
    /// Overrides the manifest's defaults.
    pub config: Object,
    /// Secret values that it may read.
    pub secrets: BTreeMap<String, Secret>,
    /// The credentials that its requests may carry: the name in ace.toml, by the plugin's own name.
    pub credentials: BTreeMap<String, String>,
    /// Its memory in bytes. `None`, here and below: the value of the manifest, or else the maximum.
    pub memory: Option<usize>,
    /// Its own computing time in one call.
    pub time: Option<Duration>,
    /// The time limit of a call, host calls included.
    pub call_timeout: Option<Duration>,
    /// Its instances, and so its calls at the same time.
    pub instances: Option<usize>,
    /// Whether an instance is used for several calls.
    pub isolation: Option<Isolation>,
}

/// Whether a policy's verdicts are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Its verdicts are applied.
    #[default]
    Enforce,
    /// Its verdicts are recorded and compared, but not applied, and the policy changes nothing.
    Shadow,
}

/// What one instance of a plugin is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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
            credentials: BTreeMap::new(),
            memory: None,
            time: None,
            call_timeout: None,
            instances: None,
            isolation: None,
        }
    }
}

impl Plugin {
    /// Whether an instance that was started with these settings can continue with `other`: its configuration, grants, secrets and
    /// limits are the same. The settings that concern only the host, such as a policy's order, may differ.
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

/// What a plugin may access. Its manifest has what it requests: [`Requests`](super::Requests).
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
    /// The channels whose messages the plugin may report feedback about. If it is empty, the server takes no request for the plugin.
    pub feedback: Vec<String>,
    /// Who may read the files in it: `file-group`.
    pub access: Access,
}

/// The grant of a bucket: `"course-optouts:read"`, `"counters:write"`, `"state:read-write"`; without a suffix, both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketGrant {
    /// The name of the bucket.
    pub bucket: String,
    /// Reading entries.
    pub read: bool,
    /// Writing entries and counters.
    pub write: bool,
}

/// A value that is never shown in a log, an error or a response.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value, so that it is not shown.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The source of a secret that may change while the program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// A fixed value.
    Value(Secret),
    /// A file, which is read each time the secret is needed.
    File(PathBuf),
}

impl SecretSource {
    /// The current secret.
    ///
    /// # Errors
    /// The file is empty, too long or not UTF-8, or cannot be read.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::File(_) => {
                let source = self.clone();
                let reading = tokio::task::spawn_blocking(move || source.read_now());
                reading.await.unwrap_or_else(|e| Err(SecretError(e.to_string())))
            }
        }
    }

    /// The same as [`SecretSource::read`]. Blocks.
    pub(crate) fn read_now(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::File(file) => read_secret(file),
        }
    }
}

/// The ranges of the limits in ace.toml and manifests.
pub(super) const MEMORY_MIN: usize = 64 * KIB;
pub(super) const MEMORY_MAX: usize = 4 * GIB;
pub(super) const TIME_MAX: Duration = MINUTE;
pub(super) const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
pub(super) const INSTANCES_MAX: usize = 1000;
pub(super) const ISOLATIONS: [(&str, Isolation); 2] = [("pooled", Isolation::Pooled), ("message", Isolation::Message)];

/// The highest limits that a plugin's section or manifest may set.
pub(super) struct Maxima {
    pub(super) memory: usize,
    pub(super) time: Duration,
    pub(super) call_timeout: Duration,
    pub(super) instances: usize,
}

impl Maxima {
    /// Which of the two call timeouts applies to a plugin is known only when it is loaded, so this uses the longer one.
    fn of(limits: &Limits) -> Self {
        Maxima {
            memory: limits.memory,
            time: limits.time,
            call_timeout: limits.policy_call_timeout.max(limits.channel_call_timeout),
            instances: limits.instances,
        }
    }
}

pub(super) fn cache(s: &mut TableDecoder<'_>) -> CacheLimits {
    let default = CacheLimits::default();
    CacheLimits {
        max_bytes: s.get("cache-max-size", values::size(MIB..=1024 * GIB)).unwrap_or(default.max_bytes),
        max_age: s.get("cache-max-age", values::duration(HOUR..=3650 * DAY)).unwrap_or(default.max_age),
    }
}

pub(super) fn signatures(s: &mut TableDecoder<'_>) -> Signatures {
    Signatures {
        required: s.get("required", values::boolean).unwrap_or_default(),
        keys: s.list("keys", values::signing_key).unwrap_or_default(),
    }
}

pub(super) fn http(s: &mut TableDecoder<'_>) -> Http {
    let default = Http::default();
    let time = || values::duration(MILLISECOND..=10 * MINUTE);
    let requests_per_plugin =
        s.get("requests-per-plugin", values::integer(1..=10_000)).unwrap_or(default.requests_per_plugin);
    Http {
        connect_timeout: s.get("connect-timeout", time()).unwrap_or(default.connect_timeout),
        timeout: s.get("timeout", time()).unwrap_or(default.timeout),
        max_response_bytes: s
            .get("max-response-bytes", values::size(KIB..=256 * MIB))
            .unwrap_or(default.max_response_bytes),
        requests_per_plugin,
        ca_file: s.get("ca-file", values::existing_file(s.folder())),
        idle_connections: s.get("idle-connections", values::integer(0..=10_000)).unwrap_or(requests_per_plugin),
        idle_timeout: s.get("idle-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.idle_timeout),
    }
}

pub(super) fn limits(s: &mut TableDecoder<'_>) -> Limits {
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

/// `credentials` are the names of all that ace.toml has.
pub(super) fn plugin(s: &mut TableDecoder<'_>, maxima: &Limits, access: Access, credentials: &[&str]) -> Plugin {
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
        credentials: ties(s, credentials),
        memory: runtime.memory,
        time: runtime.time,
        call_timeout: runtime.call_timeout,
        instances: runtime.instances,
        isolation: s.get("isolation", values::one_of(&ISOLATIONS)),
    }
}

fn grants(s: &mut TableDecoder<'_>) -> Grants {
    Grants {
        http: s.list("http", urls::url_pattern).unwrap_or_default(),
        keyvalue: s.list("keyvalue", values::bucket).unwrap_or_default(),
        mailer: s.get("mailer", values::boolean).unwrap_or_default(),
        outbox: s.get("outbox", values::path(s.folder())),
        feedback: s.list("feedback", values::line).unwrap_or_default(),
        access: Access::default(),
    }
}

/// The limits of a plugin in its section or manifest.
pub(super) fn runtime(s: &mut TableDecoder<'_>, maxima: &Maxima) -> Runtime {
    Runtime {
        memory: s.get("memory", values::size(MEMORY_MIN..=maxima.memory)),
        time: s.get("time", values::duration(MILLISECOND..=maxima.time)),
        call_timeout: s.get("call-timeout", values::duration(MILLISECOND..=maxima.call_timeout)),
        instances: s.get("instances", values::integer(1..=maxima.instances)),
        isolation: None,
    }
}

/// The limits that a plugin sets, within the maxima of the operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Linear memory of one instance, in bytes.
    pub memory: Option<usize>,
    /// A guest's own computing time in one call.
    pub time: Option<Duration>,
    /// Time limit of a call, host calls included.
    pub call_timeout: Option<Duration>,
    /// Instances at the same time.
    pub instances: Option<usize>,
    /// What one instance is used for.
    pub isolation: Option<Isolation>,
}
