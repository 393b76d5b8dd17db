//! The keys of ace.toml with their ranges and defaults, in the order of docs/configuration.md.

use std::collections::BTreeMap;
use std::time::Duration;

use super::compiling;
use super::credentials::credentials;
use super::fallback;
use super::feedback::feedback;
use super::plugins::{cache, http, limits, plugin, signatures};
use super::reader::{Field, TableDecoder};
use super::relays::mailer;
use super::serving::{otlp, queue, server, webhook};
use super::templates::templates;
use super::values::{self, DAY, GIB, KIB, MIB, MILLISECOND, MINUTE};
use super::{
    Brand, Channel, Config, Delivery, Events, Fixed, Guarantee, Keyvalue, Mailer, Presentation, Queue, Routing,
};
use crate::message::ChannelType;
use ace_store::files::Access;

/// The whole document.
pub(super) fn config(s: &mut TableDecoder<'_>) -> Config {
    let limits = s.section("limits", limits);
    let access = Access { group: s.get("file-group", values::group) };
    let keyvalue = Keyvalue { access, ..s.section("keyvalue", keyvalue) };
    let credentials = credentials(s, &keyvalue);
    let mailer = Mailer { access, ..mailer(s, &credentials) };
    let fixed = fixed(s, Fixed { mailer, keyvalue, limits, ..Fixed::default() }, access);
    let templates = s.section("templates", templates);
    let known: Vec<&str> = credentials.keys().map(String::as_str).collect();
    Config {
        file: None,
        file_state: None,
        template_dirs: s.list("template-dirs", values::existing_folder(s.folder())).unwrap_or_default(),
        enabled_channels: distinct_names(s, "enabled-channels"),
        enabled_policies: distinct_names(s, "enabled-policies"),
        presentation: Presentation { routes: templates.routes.clone(), ..s.section("presentation", presentation) },
        templates,
        routing: s.section("routing", routing),
        delivery: s.section("delivery", delivery),
        channels: s.named("channels", |_, field| field.section(channel)),
        plugins: s.named("plugins", |_, field| field.section(|s| plugin(s, &fixed.limits, access, &known))),
        credentials: credentials.into_iter().filter_map(|(name, found)| Some((name, found?))).collect(),
        fixed,
        spans: Default::default(),
    }
}

/// `first` has what other sections refer to.
fn fixed(s: &mut TableDecoder<'_>, first: Fixed, access: Access) -> Fixed {
    Fixed {
        plugin_dir: s.get("plugin-dir", values::existing_folder(s.folder())),
        cache_dir: s.get("cache-dir", values::path(s.folder())),
        cache: cache(s),
        queue: Queue { access, ..s.section("queue", queue) },
        http: s.section("http", http),
        signatures: s.section("plugin-signatures", signatures),
        server: s.section("server", server),
        feedback: s.section("feedback", feedback),
        events: s.section("events", |s| Events {
            context: s.get("context", values::boolean).unwrap_or_default(),
            keep: s.get("keep", values::boolean).unwrap_or_default(),
        }),
        webhooks: s.named("webhooks", |_, field| field.section(webhook).flatten()),
        otlp: s.field("otlp").and_then(|field| field.section(otlp).flatten()),
        compiler: s.section("compiler", compiling::compiler),
        ..first
    }
}

fn distinct_names(s: &mut TableDecoder<'_>, key: &'static str) -> Option<Vec<String>> {
    let names = s.list(key, values::line)?;
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            s.fail_item(key, at, format!("{name:?} is in the list twice"));
        }
    }
    Some(names)
}

fn presentation(s: &mut TableDecoder<'_>) -> Presentation {
    let default = Presentation::default();
    let brand = s.section("brand", |s| {
        let brand = Brand::read(s);
        brand.unreadable().into_iter().for_each(|(key, message)| s.fail(key, message));
        brand
    });
    let themes = s.named("themes", |_, field| {
        field.section(|s| {
            let own = Brand::read(s).or(&brand);
            own.unreadable().into_iter().for_each(|(key, message)| s.fail(key, message));
            own
        })
    });
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
        brand,
        themes,
        shipped: default.shipped,
    }
}

fn routing(s: &mut TableDecoder<'_>) -> Routing {
    Routing {
        default: by_type(s, "default", |field| field.read(values::line)),
        transactional: by_type(s, "transactional", |field| field.read(values::line)),
        listed: by_type(s, "listed", |field| field.list(values::line)),
        failover: by_type(s, "failover", |field| field.list(values::line)),
        fallback: fallback::fallback(s),
    }
}

pub(super) fn by_type<T>(
    s: &mut TableDecoder<'_>,
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

fn delivery(s: &mut TableDecoder<'_>) -> Delivery {
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
    if s.is_valid() {
        if let (Some(window), Some(max)) = (delivery.expiration_delay, delivery.max_expiration_delay) {
            let (least, most) = (Bound("expiration-delay", window), Bound("max-expiration-delay", max));
            at_most(s, least, most);
        }
        let (first, longest) = (delivery.retry_delay, delivery.max_retry_delay);
        at_most(s, Bound("retry-delay", first), Bound("max-retry-delay", longest));
    }
    delivery
}

fn channel(s: &mut TableDecoder<'_>) -> Channel {
    let guarantees = [("at-least-once", Guarantee::AtLeastOnce), ("at-most-once", Guarantee::AtMostOnce)];
    Channel {
        delivery: s.get("delivery", values::one_of(&guarantees)).unwrap_or_default(),
        concurrency: s.get("concurrency", values::integer(1..=10_000)),
        rate: s.get("rate", values::rate),
    }
}

/// A key and its value.
struct Bound(&'static str, Duration);

/// Reports the problem at the greater value, or if that is a default, at the smaller one.
fn at_most(s: &mut TableDecoder<'_>, Bound(key, value): Bound, Bound(max_key, max): Bound) {
    if value > max {
        let (value, max) = (values::show_duration(value), values::show_duration(max));
        let at = if s.is_written(key) { key } else { max_key };
        s.fail(at, format!("{key} ({value}) must be at most {max_key} ({max})"));
    }
}

fn keyvalue(s: &mut TableDecoder<'_>) -> Keyvalue {
    let default = Keyvalue::default();
    Keyvalue {
        database: s.get("database", values::creatable_file(s.folder())),
        files: s.list("files", values::existing_file(s.folder())).unwrap_or(default.files),
        max_entries: s.get("max-entries", values::integer(1..=100_000_000)).unwrap_or(default.max_entries),
        max_bucket_entries: s.get("max-bucket-entries", values::integer(1..=100_000_000)),
        max_value_bytes: s.get("max-value-bytes", values::size(1..=16 * MIB)).unwrap_or(default.max_value_bytes),
        access: default.access,
    }
}
