//! The layout of ace.toml: every key, its range and its default in the order of docs/configuration.md.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compiling;
use super::reader::{Field, Section, nearest};
use super::templates::templates;
use super::tree::Value;
use super::values::{self, GIB, KIB, MIB};
use super::{
    CacheLimits, Channel, Config, Delivery, Events, Grants, Guarantee, Http, Isolation, Keyvalue, Limits, Login,
    Mailer, Mode, Otlp, Plugin, Presentation, Proof, Queue, Relay, RelayKind, Routing, Secret, SecretSource, Server,
    ServerTls, Signatures, Smtp, Tls, Webhook,
};
use crate::files::Access;
use crate::message::{ChannelType, OnError};

/// Kinds of events, as `events` names them.
const EVENTS: [&str; 10] = [
    "message.sent",
    "message.failed",
    "message.not_sent",
    "destination.down",
    "destination.up",
    "plugin.active",
    "plugin.rejected",
    "plugin.broken",
    "plugin.removed",
    "reload.refused",
];

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The longest file a secret is read from.
const SECRET_BYTES_MAX: usize = 64 * KIB;

/// What any plugin may be given, or its manifest ask for.
pub(super) const MEMORY_MIN: usize = 64 * KIB;
pub(super) const MEMORY_MAX: usize = 4 * GIB;
pub(super) const TIME_MAX: Duration = MINUTE;
pub(super) const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
pub(super) const INSTANCES_MAX: usize = 1000;
/// The whole document.
pub(super) fn config(s: &mut Section<'_>) -> Config {
    let limits = s.section("limits", limits);
    let access = Access { group: s.get("file-group", values::group) };
    let templates = s.section("templates", templates);
    Config {
        file: None,
        seen: None,
        plugin_dir: s.get("plugin-dir", values::existing_folder(s.folder())),
        template_dirs: s.list("template-dirs", values::existing_folder(s.folder())).unwrap_or_default(),
        cache_dir: s.get("cache-dir", values::path(s.folder())),
        cache: cache(s),
        enabled_channels: distinct_names(s, "enabled-channels"),
        enabled_policies: distinct_names(s, "enabled-policies"),
        presentation: Presentation { routes: templates.routes.clone(), ..s.section("presentation", presentation) },
        templates,
        routing: s.section("routing", routing),
        delivery: s.section("delivery", delivery),
        channels: s.named("channels", |_, field| field.section(channel)),
        mailer: Mailer { access, ..mailer(s) },
        keyvalue: Keyvalue { access, ..s.section("keyvalue", keyvalue) },
        queue: Queue { access, ..s.section("queue", queue) },
        http: s.section("http", http),
        signatures: s.section("plugin-signatures", signatures),
        server: s.section("server", server),
        events: s.section("events", |s| Events {
            context: s.get("context", values::boolean).unwrap_or_default(),
            keep: s.get("keep", values::boolean).unwrap_or_default(),
        }),
        webhooks: s.named("webhooks", |_, field| field.section(webhook).flatten()),
        otlp: s.field("otlp").and_then(|field| field.section(otlp).flatten()),
        plugins: s.named("plugins", |_, field| field.section(|s| plugin(s, &limits, access))),
        limits,
        compiler: s.section("compiler", compiling::compiler),
        enforced_before: Default::default(),
        places: Default::default(),
    }
}

fn cache(s: &mut Section<'_>) -> CacheLimits {
    let default = CacheLimits::default();
    CacheLimits {
        max_bytes: s.get("cache-max-size", values::size(MIB..=1024 * GIB)).unwrap_or(default.max_bytes),
        max_age: s.get("cache-max-age", values::duration(HOUR..=3650 * DAY)).unwrap_or(default.max_age),
    }
}

fn distinct_names(s: &mut Section<'_>, key: &'static str) -> Option<Vec<String>> {
    let names = s.list(key, values::line)?;
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            s.fail_item(key, at, format!("{name:?} stands in the list twice"));
        }
    }
    Some(names)
}

fn presentation(s: &mut Section<'_>) -> Presentation {
    let default = Presentation::default();
    Presentation {
        default_language: s.get("default-language", values::language).unwrap_or(default.default_language),
        default_theme: s.get("default-theme", values::line),
        time_zone: s.get("time-zone", values::time_zone).unwrap_or(default.time_zone),
        base_url: s.get("base-url", values::base_url),
        static_url: s.get("static-url", values::line),
        routes: default.routes,
        max_catalog_bytes: s
            .get("max-catalog-bytes", values::size(MIB..=64 * GIB))
            .unwrap_or(default.max_catalog_bytes),
        inline_css: s.get("inline-css", values::boolean).unwrap_or(default.inline_css),
        minify_html: s.get("minify-html", values::boolean).unwrap_or(default.minify_html),
        text_from_html: s.get("text-from-html", values::boolean).unwrap_or(default.text_from_html),
        max_steps: s.get("max-steps", values::integer(1..=100_000_000)).unwrap_or(default.max_steps),
        render_timeout: s
            .get("render-timeout", values::duration(MILLISECOND..=MINUTE))
            .unwrap_or(default.render_timeout),
        max_output_bytes: s.get("max-output-bytes", values::size(KIB..=GIB)).unwrap_or(default.max_output_bytes),
    }
}

fn routing(s: &mut Section<'_>) -> Routing {
    Routing {
        default: by_type(s, "default", |field| field.read(values::line)),
        transactional: by_type(s, "transactional", |field| field.read(values::line)),
        listed: by_type(s, "listed", |field| field.list(values::line)),
        failover: by_type(s, "failover", |field| field.list(values::line)),
    }
}

fn by_type<T>(
    s: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(Field<'_>) -> Option<T>,
) -> BTreeMap<ChannelType, T> {
    s.named(key, |name, mut field| {
        if let Err(message) = values::channel_type(name) {
            field.fail(message);
        }
        read(field)
    })
}

fn delivery(s: &mut Section<'_>) -> Delivery {
    let default = Delivery::default();
    let delivery = Delivery {
        expiration_delay: s.get("expiration-delay", values::duration(Duration::ZERO..=30 * DAY)),
        max_expiration_delay: s.get("max-expiration-delay", values::duration(Duration::ZERO..=30 * DAY)),
        max_age: s.get("max-age", values::duration(Duration::ZERO..=30 * DAY)),
        defaults: default.defaults,
        retry_delay: s.get("retry-delay", values::duration(MILLISECOND..=DAY)).unwrap_or(default.retry_delay),
        max_retry_delay: s
            .get("max-retry-delay", values::duration(MILLISECOND..=DAY))
            .unwrap_or(default.max_retry_delay),
        concurrency: s.get("concurrency", values::integer(1..=10_000)).unwrap_or(default.concurrency),
        max_message_bytes: s
            .get("max-message-bytes", values::size(KIB..=256 * MIB))
            .unwrap_or(default.max_message_bytes),
        max_waiting: s.get("max-waiting", values::integer(1..=10_000_000)).unwrap_or(default.max_waiting),
    };
    if s.is_sound() {
        if let (Some(window), Some(max)) = (delivery.expiration_delay, delivery.max_expiration_delay) {
            at_most(s, ("expiration-delay", "max-expiration-delay"), (window, max));
        }
        at_most(s, ("retry-delay", "max-retry-delay"), (delivery.retry_delay, delivery.max_retry_delay));
    }
    delivery
}

fn channel(s: &mut Section<'_>) -> Channel {
    let guarantees = [("at-least-once", Guarantee::AtLeastOnce), ("at-most-once", Guarantee::AtMostOnce)];
    Channel {
        delivery: s.get("delivery", values::one_of(&guarantees)).unwrap_or_default(),
        concurrency: s.get("concurrency", values::integer(1..=10_000)),
        rate: s.get("rate", values::rate),
    }
}

/// Told where the greater of the two stands or, where that is a default, at the smaller one.
fn at_most(s: &mut Section<'_>, (key, max_key): (&str, &str), (value, max): (Duration, Duration)) {
    if value > max {
        let (value, max) = (values::show_duration(value), values::show_duration(max));
        let at = if s.is_written(key) { key } else { max_key };
        s.fail(at, format!("{key} ({value}) must be at most {max_key} ({max})"));
    }
}

fn mailer(s: &mut Section<'_>) -> Mailer {
    let relays: BTreeMap<String, Relay> =
        s.named("relays", |_, field| Some(field.section(relay).unwrap_or_else(unreadable)));
    let names: Vec<&str> = relays.keys().map(String::as_str).collect();
    s.section("mailer", |s| {
        let default_relay = s.get("default-relay", values::line);
        match &default_relay {
            Some(name) if !relays.contains_key(name) => {
                s.fail("default-relay", unknown("relay", name, &names, "[relays.NAME] sections"));
            }
            None if names.len() > 1 && s.is_sound() => {
                let message = format!("is required where there is more than one relay; one of {}", names.join(", "));
                s.fail("default-relay", message);
            }
            _ => {}
        }
        let default_from = s.get("default-from", values::sender);
        Mailer { default_relay, default_from, relays: relays.clone(), access: Access::default() }
    })
}

/// For a name that nothing has.
pub(super) fn unknown(what: &str, name: &str, known: &[&str], source: &str) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no {what} {name:?}; did you mean {near:?}?"),
        None if known.is_empty() => format!("there is no {what} {name:?}; there are no {source}"),
        None => format!("there is no {what} {name:?}; there are {}", known.join(", ")),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Smtp,
    File,
    Discard,
}

/// Keeps the name of a relay that is refused, lest it be called unknown as well.
fn unreadable() -> Relay {
    Relay { kind: RelayKind::Discard, from: None, return_path: None }
}

fn relay(s: &mut Section<'_>) -> Relay {
    let kinds = [("smtp", Kind::Smtp), ("file", Kind::File), ("discard", Kind::Discard)];
    let kind = match s.required("kind", values::one_of(&kinds)) {
        Some(Kind::Smtp) => RelayKind::Smtp(smtp(s)),
        Some(Kind::File) => RelayKind::File { dir: s.required("dir", values::path(s.folder())).unwrap_or_default() },
        Some(Kind::Discard) => RelayKind::Discard,
        None => {
            s.ignore_the_rest();
            return unreadable();
        }
    };
    Relay { kind, from: s.get("from", values::sender), return_path: s.get("return-path", values::bare_address) }
}

fn smtp(s: &mut Section<'_>) -> Smtp {
    let default = Smtp::new(s.required("host", values::host).unwrap_or_default());
    let kinds = [("none", Tls::None), ("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
    let tls = s.get("tls", values::one_of(&kinds)).unwrap_or(default.tls);
    Smtp {
        tls,
        port: s.get("port", values::integer(1..=u16::MAX)).unwrap_or(tls.default_port()),
        login: login(s),
        ca_file: s.get("ca-file", values::existing_file(s.folder())),
        hello_name: s.get("hello-name", values::hello_name),
        connections: s.get("connections", values::integer(1..=1000)).unwrap_or(default.connections),
        mails_per_connection: s
            .get("mails-per-connection", values::integer(1..=1_000_000))
            .unwrap_or(default.mails_per_connection),
        timeout: s.get("timeout", values::duration(MILLISECOND..=10 * MINUTE)).unwrap_or(default.timeout),
        idle_timeout: s.get("idle-timeout", values::duration(MILLISECOND..=HOUR)).unwrap_or(default.idle_timeout),
        host: default.host,
    }
}

/// A user name with a password or a token, one of them.
fn login(s: &mut Section<'_>) -> Option<Login> {
    let username = s.get("username", values::line);
    let password = s.field("password").and_then(secret_source).map(Proof::Password);
    let token = s.field("oauth-token").and_then(secret_source).map(Proof::Token);
    match (s.is_written("username"), s.is_written("password"), s.is_written("oauth-token")) {
        (true, false, false) => s.fail("username", "needs a password or an oauth-token beside it"),
        (false, true, _) => s.fail("password", "needs a username beside it"),
        (false, _, true) => s.fail("oauth-token", "needs a username beside it"),
        (true, true, true) => s.fail("oauth-token", "a password stands beside it; a login has one of them"),
        _ => {}
    }
    Some(Login { username: username?, proof: password.or(token)? })
}

fn secret(field: Field<'_>) -> Option<Secret> {
    found_secret(field).map(|(secret, _)| secret)
}

/// A secret whose file is read again whenever it is needed.
fn secret_source(field: Field<'_>) -> Option<SecretSource> {
    found_secret(field).map(|(secret, file)| file.map_or(SecretSource::Value(secret), SecretSource::File))
}

/// `{ env = "VAR" }` or `{ file = "path" }`, and the file where it is in one. No message holds a value.
fn found_secret(mut field: Field<'_>) -> Option<(Secret, Option<PathBuf>)> {
    if !matches!(field.node().value, Value::Table(_)) {
        field.fail("a secret is never written here; write { env = \"VARIABLE\" } or { file = \"path\" }");
        return None;
    }
    field.section(|s| {
        let variable = s.get("env", values::line);
        let file = s.get("file", values::path(s.folder()));
        match (variable, file) {
            (Some(variable), None) => secret_variable(s, variable).map(|secret| (secret, None)),
            (None, Some(file)) => {
                let secret = read_secret(&file).map_err(|message| s.fail("file", message)).ok();
                secret.map(|secret| (secret, Some(file)))
            }
            (Some(_), Some(_)) => {
                s.fail("file", "env stands beside it; a secret has one source");
                None
            }
            (None, None) => {
                // What is wrong is told better of the key that stands there.
                if s.is_sound() && !s.has_more() {
                    s.fail_whole("needs env = \"VARIABLE\" or file = \"path\"");
                }
                None
            }
        }
    })?
}

fn secret_variable(s: &mut Section<'_>, variable: String) -> Option<Secret> {
    match s.secret_variable(&variable) {
        Some(value) if !value.is_empty() => return Some(Secret::new(value)),
        Some(_) => s.fail("env", format!("the environment variable {variable} is empty")),
        None => s.fail("env", format!("the environment variable {variable} is not set, or is no UTF-8")),
    }
    None
}

pub(super) fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = read_bounded(path, SECRET_BYTES_MAX)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        value => Ok(Secret::new(value)),
    }
}

/// A text file of at most `max` bytes. The error names the file.
pub(super) fn read_bounded(path: &Path, max: usize) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max {
        return Err(format!("{} is longer than {}", path.display(), values::show_size(max)));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is no UTF-8 text", path.display()))
}

fn keyvalue(s: &mut Section<'_>) -> Keyvalue {
    let default = Keyvalue::default();
    Keyvalue {
        database: s.get("database", values::kept_file(s.folder())),
        files: s.list("files", values::existing_file(s.folder())).unwrap_or(default.files),
        max_entries: s.get("max-entries", values::integer(1..=100_000_000)).unwrap_or(default.max_entries),
        max_bucket_entries: s.get("max-bucket-entries", values::integer(1..=100_000_000)),
        max_value_bytes: s.get("max-value-bytes", values::size(1..=16 * MIB)).unwrap_or(default.max_value_bytes),
        access: default.access,
    }
}

fn queue(s: &mut Section<'_>) -> Queue {
    let default = Queue::default();
    let age = || values::duration(Duration::ZERO..=3650 * DAY);
    let database = s.get("database", values::kept_file(s.folder()));
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
        access: default.access,
        max_interruptions: s.get("max-interruptions", values::integer(4..=1_000)).unwrap_or(default.max_interruptions),
    }
}

fn signatures(s: &mut Section<'_>) -> Signatures {
    Signatures {
        required: s.get("required", values::boolean).unwrap_or_default(),
        keys: s.list("keys", values::signing_key).unwrap_or_default(),
    }
}

fn http(s: &mut Section<'_>) -> Http {
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

fn server(s: &mut Section<'_>) -> Server {
    let default = Server::default();
    let server = Server {
        listen: s.get("listen", values::socket_address).unwrap_or(default.listen),
        tokens_file: s.get("tokens-file", values::kept_file(s.folder())),
        hosts: s.list("hosts", values::authority).unwrap_or_default(),
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
    if server.tokens_file.is_none() && !server.listen.ip().is_loopback() && s.is_sound() {
        let message = "anyone who reaches this address could send mail: name a tokens-file beside it, \
                       or listen on 127.0.0.1 or [::1]";
        s.fail("listen", message);
    }
    server
}

fn server_tls(s: &mut Section<'_>) -> Option<ServerTls> {
    let certificate = s.get("tls-certificate", values::existing_file(s.folder()));
    let key = s.get("tls-key", values::existing_file(s.folder()));
    match (s.is_written("tls-certificate"), s.is_written("tls-key")) {
        (true, false) => s.fail("tls-certificate", "needs a tls-key beside it"),
        (false, true) => s.fail("tls-key", "needs a tls-certificate beside it"),
        _ => {}
    }
    Some(ServerTls { certificate: certificate?, key: key? })
}

fn webhook(s: &mut Section<'_>) -> Option<Webhook> {
    let url = s.required("url", values::url_prefix);
    let secret = match s.field("secret") {
        Some(field) => secret(field),
        None => {
            s.fail("secret", "is required: { env = \"VARIABLE\" } or { file = \"path\" }");
            None
        }
    };
    let kinds = EVENTS.map(|kind| (kind, kind));
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

fn otlp(s: &mut Section<'_>) -> Option<Otlp> {
    let endpoint = s.required("endpoint", values::url_prefix);
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

fn limits(s: &mut Section<'_>) -> Limits {
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

fn plugin(s: &mut Section<'_>, maxima: &Limits, access: Access) -> Plugin {
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
        http: s.list("http", values::url_prefix).unwrap_or_default(),
        keyvalue: s.list("keyvalue", values::bucket).unwrap_or_default(),
        mailer: s.get("mailer", values::boolean).unwrap_or_default(),
        outbox: s.get("outbox", values::path(s.folder())),
        access: Access::default(),
    }
}

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

/// A plugin's own limits, from its section or its manifest.
pub(super) fn runtime(s: &mut Section<'_>, maxima: &Maxima) -> super::manifest::Runtime {
    super::manifest::Runtime {
        memory: s.get("memory", values::size(MEMORY_MIN..=maxima.memory)),
        time: s.get("time", values::duration(MILLISECOND..=maxima.time)),
        call_timeout: s.get("call-timeout", values::duration(MILLISECOND..=maxima.call_timeout)),
        instances: s.get("instances", values::integer(1..=maxima.instances)),
        isolation: None,
    }
}

pub(super) const ISOLATIONS: [(&str, Isolation); 2] = [("pooled", Isolation::Pooled), ("message", Isolation::Message)];
