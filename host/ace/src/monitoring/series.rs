//! The metrics in `/metrics`, with their descriptions. Series of plugins are limited to active revisions.
//!
//! The exporter drops a series that was not updated for hours. The series of a replaced revision or a removed plugin are omitted
//! immediately, because they are not updated any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

/// A series that was not updated for this time is dropped.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// The upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 16] =
    [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

const COUNTERS: [(&str, &str); 12] = [
    (super::PLUGIN_CALLS, "Calls into a plugin."),
    (super::PLUGIN_FAULTS, "Calls into a plugin that failed, by kind of fault."),
    (
        super::PLUGIN_REFUSED,
        "Calls from a plugin into the host that were refused because ace.toml does not grant them.",
    ),
    (super::PLUGIN_REJECTIONS, "Revisions of a plugin that were rejected while an earlier one stayed active."),
    (super::RELOADS, "Reloads of plugins, templates and ace.toml."),
    (super::TASK_FAILURES, "Tasks of the server that failed and were restarted."),
    (super::POLICY_VERDICTS, "Verdicts of policies on messages."),
    (super::DELIVERY_ATTEMPTS, "Attempts to deliver a message over a channel."),
    (super::SETTLED, "Settled channel types of messages, by final state."),
    (super::FEEDBACK_REQUESTS, "Requests of providers with feedback."),
    (super::FEEDBACK_EVENTS, "Events in the feedback of providers, including repeated ones."),
    (super::DESTINATION_OUTAGES, "How often a relay or an HTTP origin went down, or a channel was held."),
];

const GAUGES: [(&str, &str); 5] = [
    (super::PLUGIN_CIRCUIT_BREAKER_OPEN, "1 while a plugin is not called because it failed too often."),
    (super::PLUGIN_UP, "1 if a plugin is active, 0 if it should be and is not."),
    (
        super::PLUGIN_REJECTED,
        "1 while an earlier revision of a plugin stays active because its current files were rejected.",
    ),
    (super::DESTINATION_UP, "0 while a relay or an HTTP origin is down, or a channel is held."),
    (
        super::DESTINATION_WAITING,
        "Messages that wait for a relay or an HTTP origin that is down, or for a channel that is held.",
    ),
];

const HISTOGRAMS: [(&str, &str); 2] = [
    (super::PLUGIN_CALL_SECONDS, "How long a call into a plugin took."),
    (super::DELIVERY_SECONDS, "How long an attempt to deliver a message took."),
];

/// The most replaced revisions to track. The series of earlier ones are dropped as idle before.
const RETIRED_MAX: usize = 1_000;

/// The active plugins and revisions, and earlier ones.
static PLUGINS: Mutex<Plugins> =
    Mutex::new(Plugins { active: BTreeMap::new(), retired: VecDeque::new(), removed: BTreeSet::new() });

struct Plugins {
    /// Plugins that are active, or should be, with their revision.
    active: BTreeMap<String, String>,
    /// Revisions that were active, the latest last.
    retired: VecDeque<(String, String)>,
    /// Plugins that were removed.
    removed: BTreeSet<String>,
}

/// The content of `/metrics`.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let text = self.0.render();
        let plugins = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if plugins.retired.is_empty() && plugins.removed.is_empty() {
            return text;
        }
        text.split_inclusive('\n').filter(|line| !plugins.is_obsolete(line)).collect()
    }

    /// Aggregates recorded values. Call it every few seconds.
    pub fn run_maintenance(&self) {
        self.0.run_upkeep();
    }
}

/// Why metrics cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InstallError(#[from] metrics_exporter_prometheus::BuildError);

/// Installs the metrics recorder of this process.
///
/// # Errors
/// If the process has one already.
pub fn install() -> Result<Exposition, InstallError> {
    let builder = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM, Some(IDLE))
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?;
    let exposition = Exposition(builder.install_recorder()?);
    COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
    HISTOGRAMS.iter().for_each(|(name, help)| describe_histogram!(*name, *help));
    Ok(exposition)
}

/// Sets the plugins that are active or should be, with their revisions. Series of others are omitted.
pub(crate) fn set_active_plugins(now: BTreeMap<String, String>) {
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner).set_active(now);
}

impl Plugins {
    fn set_active(&mut self, now: BTreeMap<String, String>) {
        for (plugin, revision) in std::mem::take(&mut self.active) {
            match now.get(&plugin) {
                Some(same) if *same == revision => continue,
                Some(_) => {}
                None => drop(self.removed.insert(plugin.clone())),
            }
            self.retired.push_back((plugin, revision));
        }
        self.retired.retain(|(plugin, revision)| now.get(plugin) != Some(revision));
        self.removed.retain(|plugin| !now.contains_key(plugin));
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_front();
        }
        while self.removed.len() > RETIRED_MAX {
            self.removed.pop_first();
        }
        self.active = now;
    }

    /// Whether a line belongs to a replaced revision or a removed plugin.
    fn is_obsolete(&self, line: &str) -> bool {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        if line.starts_with('#') {
            return false;
        }
        match (label("plugin").or_else(|| label("policy")).or_else(|| label("channel")), label("revision")) {
            (Some(plugin), Some(revision)) => self.retired.iter().any(|(p, r)| p == plugin && r == revision),
            (_, None) => label("plugin").is_some_and(|plugin| self.removed.contains(plugin)),
            (None, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_description() {
        let source = include_str!("../monitoring.rs");
        let names = source.lines().filter_map(|line| line.strip_prefix("const ")?.split('"').nth(1));
        let mut names: Vec<&str> = names.filter(|name| name.starts_with("ace_")).collect();
        let all = COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS);
        let mut described: Vec<&str> = all.map(|(name, _)| *name).collect();
        names.sort_unstable();
        described.sort_unstable();
        assert_eq!(described, names);
    }

    #[test]
    fn series_of_replaced_revisions_are_omitted_until_they_return() {
        let mut plugins = Plugins { active: BTreeMap::new(), retired: VecDeque::new(), removed: BTreeSet::new() };
        let these = |all: &[(&str, &str)]| all.iter().map(|(p, r)| ((*p).to_owned(), (*r).to_owned())).collect();
        let old = "ace_policy_verdicts_total{policy=\"p\",revision=\"1\",verdict=\"pass\"} 3\n";
        let new = "ace_plugin_calls_total{plugin=\"p\",revision=\"2\",result=\"ok\"} 3\n";
        let other = "ace_delivery_attempts_total{channel=\"q\",revision=\"1\",result=\"sent\"} 3\n";
        let (up, native) =
            ("ace_plugin_up{plugin=\"p\"} 1\n", "ace_policy_verdicts_total{policy=\"n\",revision=\"\"} 1\n");
        let obsolete = |plugins: &Plugins| [old, new, other, up, native].map(|line| plugins.is_obsolete(line));
        plugins.set_active(these(&[("p", "1"), ("q", "1")]));
        assert_eq!(obsolete(&plugins), [false; 5]);
        plugins.set_active(these(&[("p", "2"), ("q", "1")]));
        assert_eq!(obsolete(&plugins), [true, false, false, false, false]);
        plugins.set_active(these(&[("p", "1"), ("q", "1")]));
        assert_eq!(obsolete(&plugins), [false, true, false, false, false]);
        plugins.set_active(these(&[("q", "1")]));
        assert_eq!(obsolete(&plugins), [true, true, false, true, false]);
        assert!(!plugins.is_obsolete("# HELP ace_plugin_up of plugin=\"p\"\n"));
        plugins.set_active(these(&[("p", "2"), ("q", "1")]));
        assert_eq!(obsolete(&plugins), [true, false, false, false, false]);
        for number in 0..RETIRED_MAX * 3 {
            plugins.set_active(these(&[("p", &format!("r{number}")), (&format!("q{number}"), "1")]));
        }
        assert_eq!((plugins.retired.len(), plugins.removed.len()), (RETIRED_MAX, RETIRED_MAX));
    }
}
