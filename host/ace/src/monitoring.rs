//! Log events and metrics for operators. The names of both are constants here, except those of the server's own metrics.
//!
//! Metrics go to the recorder of the process ([`install`]); without one they cost almost nothing. Labels are names from the
//! configuration, revisions, and values from short lists, never data of a message.

pub mod digest;
pub mod otlp;
mod series;
pub mod trace;

use std::fmt::Display;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(crate) use series::set_active_plugins;
pub use series::{Exposition, install};

use crate::message::{
    AttemptReport, ChannelReport, Destination, FEEDBACK_KINDS, FaultKind, Message, Outcome, PolicyReport, Verdict,
};

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

/// Calls of a plugin, by `plugin`, `revision` and `result` (`ok`, `fault`).
const PLUGIN_CALLS: &str = "ace_plugin_calls_total";
/// The duration of these calls, by `plugin` and `revision`.
const PLUGIN_CALL_SECONDS: &str = "ace_plugin_call_duration_seconds";
/// Faults, by `plugin`, `revision` and `kind`.
const PLUGIN_FAULTS: &str = "ace_plugin_faults_total";
/// Host calls of a plugin that were refused because a grant is missing, by `plugin` and `revision`.
const PLUGIN_REFUSED: &str = "ace_plugin_refused_calls_total";
/// 1 while a plugin's circuit breaker is open, by `plugin`.
const PLUGIN_CIRCUIT_BREAKER_OPEN: &str = "ace_plugin_circuit_breaker_open";
/// 1 if a plugin is active, 0 if it should be and is not, by `plugin`.
const PLUGIN_UP: &str = "ace_plugin_up";
/// 1 while an earlier revision of a plugin is active because its current files were rejected, by `plugin`. After a restart the plugin
/// would not be active.
const PLUGIN_REJECTED: &str = "ace_plugin_rejected";
/// Rejected revisions, by `plugin` and `revision`.
const PLUGIN_REJECTIONS: &str = "ace_plugin_rejections_total";
/// Reloads, by `result` (`ok`, `refused`).
const RELOADS: &str = "ace_reloads_total";
/// Tasks of the server that failed and were restarted, by `task`.
const TASK_FAILURES: &str = "ace_task_failures_total";
/// Verdicts, by `policy`, `revision` and `verdict` (`pass`, `deny`, `delay`, `broken`).
const POLICY_VERDICTS: &str = "ace_policy_verdicts_total";
/// Delivery attempts, by `channel`, `revision` and `result`.
const DELIVERY_ATTEMPTS: &str = "ace_delivery_attempts_total";
/// The duration of these attempts, by `channel`.
const DELIVERY_SECONDS: &str = "ace_delivery_duration_seconds";
/// Settled channel types of messages, by `channel_type`, `channel` and `state`.
const SETTLED: &str = "ace_settled_total";

/// Requests with feedback, by `plugin` and `result` (`kept`, `refused`, `malformed`, `unavailable`, `fault`).
const FEEDBACK_REQUESTS: &str = "ace_feedback_requests_total";
/// Events in them, by `plugin` and `kind`; a kind that the host does not know is `other`.
const FEEDBACK_EVENTS: &str = "ace_feedback_events_total";

/// 0 while a relay or an origin is down or a channel is held, by `kind` (`relay`, `origin`, `channel`) and `name`.
const DESTINATION_UP: &str = "ace_destination_up";
/// Outages of a relay or an origin, and holds of a channel, by `kind` and `name`.
const DESTINATION_OUTAGES: &str = "ace_destination_outages_total";
/// Messages that wait for a relay, an origin or a channel, by `kind` and `name`.
const DESTINATION_WAITING: &str = "ace_destination_waiting";

/// Logs an event of a message at level debug, or at info if its `log_level` requests that.
macro_rules! debug_of {
    ($message:expr, $($line:tt)*) => {
        if $message.is_logged_in_full() { tracing::info!($($line)*) } else { tracing::debug!($($line)*) }
    };
}

/// edx-ace's `report(key, value)`: logs a fact about a message with the target `ace::report`.
pub(crate) fn report(message: &Message, key: &str, value: impl Display) {
    // A string field, in which line breaks are escaped.
    debug_of!(message, target: "ace::report", message_uuid = %message.uuid, key, value = value.to_string());
}

/// Like [`report`], with edx-ace's key for a channel type: `email_delivery_succeeded`.
pub(crate) fn report_for(message: &Message, channel_type: &str, key: &str, value: impl Display) {
    debug_of!(
        message,
        target: "ace::report",
        message_uuid = %message.uuid,
        key = %format_args!("{channel_type}_{key}"),
        value = value.to_string()
    );
}

/// The metrics of one revision of a plugin.
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

    /// Records one call: its duration, its fault, and the number of refused host calls.
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

/// Sets whether a plugin is active.
pub(crate) fn plugin_up(plugin: &str, is_up: bool) {
    gauge!(PLUGIN_UP, "plugin" => plugin.to_owned()).set(f64::from(u8::from(is_up)));
}

/// Sets whether an earlier revision of a plugin than that of its files is active.
pub(crate) fn plugin_is_behind(plugin: &str, is_behind: bool) {
    gauge!(PLUGIN_REJECTED, "plugin" => plugin.to_owned()).set(f64::from(u8::from(is_behind)));
}

/// Counts a rejected revision.
pub(crate) fn plugin_rejected(plugin: &str, revision: &str) {
    counter!(PLUGIN_REJECTIONS, "plugin" => plugin.to_owned(), "revision" => revision.to_owned()).increment(1);
}

/// Counts a reload, applied or refused.
pub(crate) fn reloaded(is_applied: bool) {
    counter!(RELOADS, "result" => if is_applied { "ok" } else { "refused" }).increment(1);
}

/// Counts a task of the server that failed and is restarted.
pub fn task_failed(task: &str) {
    counter!(TASK_FAILURES, "task" => task.to_owned()).increment(1);
}

/// Counts a request with feedback.
pub fn feedback_request(plugin: &str, result: &'static str) {
    counter!(FEEDBACK_REQUESTS, "plugin" => plugin.to_owned(), "result" => result).increment(1);
}

/// Counts an event of feedback.
pub fn feedback_event(plugin: &str, kind: &str) {
    let kind = FEEDBACK_KINDS.into_iter().find(|known| *known == kind).unwrap_or("other");
    counter!(FEEDBACK_EVENTS, "plugin" => plugin.to_owned(), "kind" => kind).increment(1);
}

/// Counts and logs the outage of a relay or an origin, or the hold of a channel, once for all messages that wait for it.
pub(crate) fn destination_down(destination: &Destination, reason: &str, next_probe: Timestamp) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    counter!(DESTINATION_OUTAGES, "kind" => kind, "name" => name).increment(1);
    destination_is_up(destination, false);
    if let Destination::Channel(_) = destination {
        return tracing::warn!(
            destination = %destination,
            "{destination} is held: {reason}. Its messages wait without using up attempts; a single message tries it at {next_probe}."
        );
    }
    tracing::warn!(
        destination = %destination,
        "{destination} is down: {reason}. Messages wait for it without using up attempts; a single message tries it at least once a minute."
    );
}

/// Logs the end of an outage.
pub(crate) fn destination_up(destination: &Destination, down: SignedDuration) {
    destination_is_up(destination, true);
    let down = SignedDuration::from_secs(down.as_secs());
    if let Destination::Channel(_) = destination {
        return tracing::warn!(destination = %destination, "{destination} is no longer held after {down:#}; its messages are being sent.");
    }
    tracing::warn!(destination = %destination, "{destination} is reachable again after {down:#}; messages that wait for it are being sent.");
}

fn destination_is_up(destination: &Destination, is_up: bool) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    gauge!(DESTINATION_UP, "kind" => kind, "name" => name).set(f64::from(u8::from(is_up)));
}

/// Sets the number of messages that wait for a relay or an origin that is down, or for a channel that is held.
pub fn destination_waiting(destination: &Destination, waiting: u64) {
    let (kind, name) = (destination.kind(), destination.name().to_owned());
    gauge!(DESTINATION_WAITING, "kind" => kind, "name" => name).set(waiting as f64);
}

/// Counts and reports the verdicts on one message.
pub(crate) fn policies_evaluated(
    message: &Message,
    reports: &[PolicyReport],
    allowed: impl Iterator<Item = impl AsRef<str>>,
) {
    for policy_report in reports {
        let verdict = match &policy_report.verdict {
            Verdict::Broken { .. } => "broken",
            Verdict::Result(result) if !result.deny.is_empty() => "deny",
            Verdict::Result(result) if !result.delay.is_empty() => "delay",
            Verdict::Result(_) => "pass",
        };
        let (policy, revision) = (policy_report.policy.clone(), policy_report.revision.clone());
        counter!(POLICY_VERDICTS, "policy" => policy, "revision" => revision, "verdict" => verdict).increment(1);
    }
    if message.is_logged_in_full() || tracing::enabled!(target: "ace::report", tracing::Level::DEBUG) {
        report(message, MESSAGE_NAME, message.unique_name());
        report(message, LANGUAGE, message.language.as_deref().unwrap_or("None"));
        let allowed: Vec<String> = allowed.map(|channel_type| channel_type.as_ref().to_owned()).collect();
        report(message, POLICY_ALLOWED_CHANNELS, allowed.join(","));
    }
}

/// Counts one delivery attempt.
pub(crate) fn attempted(attempt: &AttemptReport) {
    let (channel, revision) = (attempt.channel.clone(), attempt.revision.clone());
    counter!(DELIVERY_ATTEMPTS, "channel" => channel.clone(), "revision" => revision, "result" => attempt.result.as_str())
        .increment(1);
    histogram!(DELIVERY_SECONDS, "channel" => channel).record(Duration::from_micros(attempt.took_us));
}

/// Counts and logs a settled channel type: one event at level debug, and for a failure a warning at most once a minute ([`digest`]).
/// Neither has data of the context, but the text of a relay or provider may name an address.
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

/// The events of edx-ace's `report`.
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
