//! What happened, for operators: log events and metrics. Every name of either is a constant here, except those of the server's
//! own metrics.
//!
//! Metrics go to whatever recorder the process has installed; without one ([`install`]) they cost next to nothing. Labels are
//! names from the configuration, revisions, and words from short lists: never anything of a message.

pub mod digest;
pub mod otlp;
mod series;
pub mod trace;

use std::fmt::Display;
use std::time::Duration;

use jiff::SignedDuration;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(crate) use series::plugins_are;
pub use series::{Exposition, install};

use crate::message::{AttemptReport, ChannelReport, Destination, FaultKind, Message, Outcome, PolicyReport, Verdict};

/// edx-ace's `message_name`.
pub(crate) const MESSAGE_NAME: &str = "message_name";
/// edx-ace's `language`.
pub(crate) const LANGUAGE: &str = "language";
/// edx-ace's `policy_allowed_channels`: channel types, comma-separated.
pub(crate) const POLICY_ALLOWED_CHANNELS: &str = "policy_allowed_channels";
/// edx-ace's `<type>_delivery_succeeded`, after the channel type.
pub(crate) const DELIVERY_SUCCEEDED: &str = "delivery_succeeded";
/// edx-ace's `<type>_delivery_retried`, after the channel type: seconds until the next attempt.
pub(crate) const DELIVERY_RETRIED: &str = "delivery_retried";
/// edx-ace's `<type>_delivery_expired`, after the channel type.
pub(crate) const DELIVERY_EXPIRED: &str = "delivery_expired";
/// edx-ace's `template_error`.
pub(crate) const TEMPLATE_ERROR: &str = "template_error";
/// edx-ace's `<type>_error`, after the channel type.
pub(crate) const ERROR: &str = "error";

/// Calls into a plugin, by `plugin`, `revision` and `result` (`ok`, `fault`).
const PLUGIN_CALLS: &str = "ace_plugin_calls_total";
/// How long they took, by `plugin` and `revision`.
const PLUGIN_CALL_SECONDS: &str = "ace_plugin_call_duration_seconds";
/// Faults, by `plugin`, `revision` and `kind`.
const PLUGIN_FAULTS: &str = "ace_plugin_faults_total";
/// Calls of a plugin into the host that were refused for want of a grant, by `plugin` and `revision`.
const PLUGIN_REFUSED: &str = "ace_plugin_refused_calls_total";
/// 1 while a plugin's circuit is open, by `plugin`.
const PLUGIN_CIRCUIT_BREAKER_OPEN: &str = "ace_plugin_circuit_breaker_open";
/// 1 where a plugin serves, 0 where it should and cannot, by `plugin`.
const PLUGIN_UP: &str = "ace_plugin_up";
/// 1 while a plugin goes on in an earlier revision because the files that are there cannot serve, by `plugin`: at the next start it
/// would be broken.
const PLUGIN_REJECTED: &str = "ace_plugin_rejected";
/// Revisions that were refused, by `plugin` and `revision`.
const PLUGIN_REJECTIONS: &str = "ace_plugin_rejections_total";
/// Reloads, by `result` (`ok`, `refused`).
const RELOADS: &str = "ace_reloads_total";
/// Tasks of the server that failed and were started again, by `task`.
const TASK_FAILURES: &str = "ace_task_failures_total";
/// Verdicts, by `policy`, `revision` and `verdict` (`pass`, `deny`, `delay`, `broken`).
const POLICY_VERDICTS: &str = "ace_policy_verdicts_total";
/// Delivery attempts, by `channel`, `revision` and `result`.
const DELIVERY_ATTEMPTS: &str = "ace_delivery_attempts_total";
/// How long they took, by `channel`.
const DELIVERY_SECONDS: &str = "ace_delivery_duration_seconds";
/// Settled channel types of messages, by `channel_type`, `channel` and `state`.
const SETTLED: &str = "ace_settled_total";

/// 0 while a relay or an origin that messages were handed to is down, by `kind` (`relay`, `origin`) and `name`.
const DESTINATION_UP: &str = "ace_destination_up";
/// How often it went down, by `kind` and `name`.
const DESTINATION_OUTAGES: &str = "ace_destination_outages_total";
/// Messages that wait for it, by `kind` and `name`.
const DESTINATION_WAITING: &str = "ace_destination_waiting";

/// A line at DEBUG; at INFO of a message whose `log_level` asks for more to be logged of it.
macro_rules! debug_of {
    ($message:expr, $($line:tt)*) => {
        if $message.is_logged_in_full() { tracing::info!($($line)*) } else { tracing::debug!($($line)*) }
    };
}

/// edx-ace's `report(key, value)`: a fact about a message, for whoever listens to the log target `ace::report`.
pub(crate) fn report(message: &Message, key: &str, value: impl Display) {
    // As a text, so that no line break in it begins a line of the log.
    debug_of!(message, target: "ace::report", message_uuid = %message.uuid, key, value = value.to_string());
}

/// As [`report`], with edx-ace's key for a channel type: `email_delivery_succeeded`.
pub(crate) fn report_for(message: &Message, channel_type: &str, key: &str, value: impl Display) {
    debug_of!(
        message,
        target: "ace::report",
        message_uuid = %message.uuid,
        key = %format_args!("{channel_type}_{key}"),
        value = value.to_string()
    );
}

/// The metrics of one revision of a plugin, ready to be counted up.
pub(crate) struct PluginMetrics {
    plugin: String,
    revision: String,
    ok: Counter,
    fault: Counter,
    refused: Counter,
    seconds: Histogram,
    circuit_open: Gauge,
}

impl PluginMetrics {
    pub(crate) fn new(plugin: &str, revision: &str) -> Self {
        let (plugin, revision) = (plugin.to_owned(), revision.to_owned());
        let calls = |result: &'static str| counter!(PLUGIN_CALLS, "plugin" => plugin.clone(), "revision" => revision.clone(), "result" => result);
        PluginMetrics {
            ok: calls("ok"),
            fault: calls("fault"),
            refused: counter!(PLUGIN_REFUSED, "plugin" => plugin.clone(), "revision" => revision.clone()),
            seconds: histogram!(PLUGIN_CALL_SECONDS, "plugin" => plugin.clone(), "revision" => revision.clone()),
            circuit_open: gauge!(PLUGIN_CIRCUIT_BREAKER_OPEN, "plugin" => plugin.clone()),
            plugin,
            revision,
        }
    }

    /// One call: how long it took, whether it broke, and how many of its own calls were refused.
    pub(crate) fn called(&self, took: Duration, fault: Option<FaultKind>, refused: usize) {
        self.seconds.record(took);
        match fault {
            None => self.ok.increment(1),
            Some(kind) => {
                self.fault.increment(1);
                let (plugin, revision) = (self.plugin.clone(), self.revision.clone());
                counter!(PLUGIN_FAULTS, "plugin" => plugin, "revision" => revision, "kind" => kind.as_str())
                    .increment(1);
            }
        }
        if refused > 0 {
            self.refused.increment(refused as u64);
        }
    }

    pub(crate) fn circuit(&self, is_open: bool) {
        self.circuit_open.set(f64::from(u8::from(is_open)));
    }
}

/// Whether a plugin that should serve does.
pub(crate) fn plugin_up(plugin: &str, is_up: bool) {
    gauge!(PLUGIN_UP, "plugin" => plugin.to_owned()).set(f64::from(u8::from(is_up)));
}

/// Whether a plugin goes on in an earlier revision than that of its files.
pub(crate) fn plugin_is_behind(plugin: &str, is_behind: bool) {
    gauge!(PLUGIN_REJECTED, "plugin" => plugin.to_owned()).set(f64::from(u8::from(is_behind)));
}

/// A revision that was refused.
pub(crate) fn plugin_rejected(plugin: &str, revision: &str) {
    counter!(PLUGIN_REJECTIONS, "plugin" => plugin.to_owned(), "revision" => revision.to_owned()).increment(1);
}

/// A reload that was taken up, or one that changed nothing because something is wrong.
pub(crate) fn reloaded(is_taken_up: bool) {
    counter!(RELOADS, "result" => if is_taken_up { "ok" } else { "refused" }).increment(1);
}

/// A task of the server that failed, and is started again.
pub fn task_failed(task: &str) {
    counter!(TASK_FAILURES, "task" => task.to_owned()).increment(1);
}

/// A relay or an origin went down. Told once, however many messages wait for it.
pub(crate) fn destination_down(destination: &Destination, reason: &str) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    counter!(DESTINATION_OUTAGES, "kind" => kind, "name" => name).increment(1);
    destination_is_up(destination, false);
    tracing::warn!(
        destination = %destination,
        "{destination} is down: {reason}. Messages wait for it without using up attempts; one at a time is tried, at most a minute apart."
    );
}

/// A relay or an origin can be used again.
pub(crate) fn destination_up(destination: &Destination, down: SignedDuration) {
    destination_is_up(destination, true);
    let down = SignedDuration::from_secs(down.as_secs());
    tracing::warn!(destination = %destination, "{destination} is reachable again after {down:#}; messages that wait for it are being sent.");
}

fn destination_is_up(destination: &Destination, is_up: bool) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    gauge!(DESTINATION_UP, "kind" => kind, "name" => name).set(f64::from(u8::from(is_up)));
}

/// How many messages wait for a relay or an origin that is down.
pub fn destination_waiting(destination: &Destination, waiting: u64) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    gauge!(DESTINATION_WAITING, "kind" => kind, "name" => name).set(waiting as f64);
}

/// What the policies said of one message.
pub(crate) fn judged(message: &Message, reports: &[PolicyReport], allowed: impl Iterator<Item = impl AsRef<str>>) {
    for told in reports {
        let verdict = match &told.verdict {
            Verdict::Broken { .. } => "broken",
            Verdict::Result(result) if !result.deny.is_empty() => "deny",
            Verdict::Result(result) if !result.delay.is_empty() => "delay",
            Verdict::Result(_) => "pass",
        };
        let (policy, revision) = (told.policy.clone(), told.revision.clone());
        counter!(POLICY_VERDICTS, "policy" => policy, "revision" => revision, "verdict" => verdict).increment(1);
    }
    if message.is_logged_in_full() || tracing::enabled!(target: "ace::report", tracing::Level::DEBUG) {
        report(message, MESSAGE_NAME, message.unique_name());
        report(message, LANGUAGE, message.language.as_deref().unwrap_or("None"));
        let allowed: Vec<String> = allowed.map(|channel_type| channel_type.as_ref().to_owned()).collect();
        report(message, POLICY_ALLOWED_CHANNELS, allowed.join(","));
    }
}

/// One delivery attempt.
pub(crate) fn attempted(attempt: &AttemptReport) {
    let (channel, revision) = (attempt.channel.clone(), attempt.revision.clone());
    counter!(DELIVERY_ATTEMPTS, "channel" => channel.clone(), "revision" => revision, "result" => attempt.result.as_str())
        .increment(1);
    histogram!(DELIVERY_SECONDS, "channel" => channel).record(Duration::from_micros(attempt.took_us));
}

/// A settled channel type: one line at DEBUG; where the recipient got nothing because something failed, or may have, it counts
/// towards one WARN a minute ([`digest`]). Both carry nothing of the context; a relay's or provider's own words may name an
/// address.
pub(crate) fn settled(message: &Message, report: &ChannelReport) {
    let (channel_type, channel) = (report.channel_type.as_str(), report.channel.as_deref());
    let (state, attempts) = (report.outcome.state(), report.attempts);
    let revision = report.revision.as_str();
    counter!(
        SETTLED,
        "channel_type" => channel_type.to_owned(), "channel" => channel.unwrap_or_default().to_owned(), "state" => state
    )
    .increment(1);
    debug_of!(
        message,
        message_uuid = %message.uuid,
        message_name = %format_args!("{}.{}", message.app_label, message.name),
        channel_type, channel, revision, state, attempts,
        "The message is settled."
    );
    let failed = |text: &str| {
        let (source, uuid) = (channel.unwrap_or(channel_type), Some(message.uuid));
        digest::failed(&digest::Failure { source, kind: state, message: uuid, text });
    };
    match &report.outcome {
        Outcome::Sent { fault: Some(fault), .. } => failed(&format!("The message was delivered; then {fault}")),
        Outcome::MaybeSent { reason } => failed(&format!("The message may have been delivered: {reason}")),
        Outcome::Failed { error } => failed(&format!("The message was not delivered: {error}")),
        Outcome::Expired { error: Some(error) } => failed(&format!("The message expired: {error}")),
        Outcome::Expired { error: None } => failed("The message expired"),
        Outcome::TemplateError { message: error, absent: false } => failed(error),
        _ => {}
    }
    report_settled(message, report);
}

/// The same as edx-ace's `report` tells it.
fn report_settled(message: &Message, settled: &ChannelReport) {
    let channel_type = settled.channel_type.as_str();
    match &settled.outcome {
        Outcome::Sent { .. } => report_for(message, channel_type, DELIVERY_SUCCEEDED, true),
        Outcome::Expired { error } => {
            report_for(message, channel_type, DELIVERY_EXPIRED, error.as_deref().unwrap_or_default());
        }
        Outcome::TemplateError { message: error, .. } => report(message, TEMPLATE_ERROR, error),
        Outcome::Failed { error } | Outcome::MaybeSent { reason: error } => {
            report_for(message, channel_type, ERROR, error);
        }
        _ => {}
    }
}
