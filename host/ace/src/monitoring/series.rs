//! What `/metrics` shows: every metric with what it means, and of plugins the series of those revisions alone that serve.
//!
//! The exporter forgets a series when nothing was added to it for hours. Of a revision that was replaced, or a plugin that is gone,
//! nothing more comes, so its series are left out from then on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

/// A series that nothing was added to for so long is not shown any more: revisions come and go.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// Upper bounds of the buckets of every duration, in seconds.
const BUCKETS: [f64; 16] =
    [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

const COUNTERS: [(&str, &str); 10] = [
    (super::PLUGIN_CALLS, "Calls into a plugin."),
    (super::PLUGIN_FAULTS, "Calls into a plugin that failed, by kind of fault."),
    (
        super::PLUGIN_REFUSED,
        "Calls from a plugin into the host that were refused because ace.toml does not grant them.",
    ),
    (super::PLUGIN_REJECTIONS, "Revisions of a plugin that were rejected while an earlier one stayed active."),
    (super::RELOADS, "Reloads of plugins, templates and ace.toml."),
    (super::TASK_FAILURES, "Tasks of the server that failed and were started again."),
    (super::POLICY_VERDICTS, "Verdicts of policies on messages."),
    (super::DELIVERY_ATTEMPTS, "Attempts to deliver a message over a channel."),
    (super::SETTLED, "Settled channel types of messages, by final state."),
    (super::DESTINATION_OUTAGES, "How often a relay or an HTTP origin went down."),
];

const GAUGES: [(&str, &str); 5] = [
    (super::PLUGIN_CIRCUIT_BREAKER_OPEN, "1 while a plugin is not called because it failed too often."),
    (super::PLUGIN_UP, "1 if a plugin is active, 0 if it should be and is not."),
    (
        super::PLUGIN_REJECTED,
        "1 while an earlier revision of a plugin stays active because its current files were rejected.",
    ),
    (super::DESTINATION_UP, "0 while a relay or an HTTP origin is down."),
    (super::DESTINATION_WAITING, "Messages that wait for a relay or an HTTP origin that is down."),
];

const HISTOGRAMS: [(&str, &str); 2] = [
    (super::PLUGIN_CALL_SECONDS, "How long a call into a plugin took."),
    (super::DELIVERY_SECONDS, "How long an attempt to deliver a message took."),
];

/// Replaced revisions that are remembered; series of earlier ones are idle before so many have come.
const RETIRED_MAX: usize = 1_000;

/// Which plugins serve, in which revision, and which did.
static PLUGINS: Mutex<Plugins> =
    Mutex::new(Plugins { shown: BTreeMap::new(), retired: VecDeque::new(), gone: BTreeSet::new() });

struct Plugins {
    /// Plugins that serve, or should, with their revision.
    shown: BTreeMap<String, String>,
    /// Revisions that served, the latest last.
    retired: VecDeque<(String, String)>,
    gone: BTreeSet<String>,
}

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let text = self.0.render();
        let plugins = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if plugins.retired.is_empty() && plugins.gone.is_empty() {
            return text;
        }
        text.split_inclusive('\n').filter(|line| !plugins.is_over(line)).collect()
    }

    /// Folds what was recorded since the last time; to be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Why this process keeps no metrics.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InstallError(#[from] metrics_exporter_prometheus::BuildError);

/// Makes this process keep metrics.
///
/// # Errors
/// It keeps metrics already.
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

/// Which plugins serve from now on, or should, and in which revision: series of others are over.
pub(crate) fn plugins_are(now: BTreeMap<String, String>) {
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner).become_these(now);
}

impl Plugins {
    fn become_these(&mut self, now: BTreeMap<String, String>) {
        for (plugin, revision) in std::mem::take(&mut self.shown) {
            match now.get(&plugin) {
                Some(same) if *same == revision => continue,
                Some(_) => {}
                None => drop(self.gone.insert(plugin.clone())),
            }
            self.retired.push_back((plugin, revision));
        }
        self.retired.retain(|(plugin, revision)| now.get(plugin) != Some(revision));
        self.gone.retain(|plugin| !now.contains_key(plugin));
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_front();
        }
        while self.gone.len() > RETIRED_MAX {
            self.gone.pop_first();
        }
        self.shown = now;
    }

    /// Whether a line is of a revision that was replaced, or of a plugin that is gone.
    fn is_over(&self, line: &str) -> bool {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        if line.starts_with('#') {
            return false;
        }
        match (label("plugin").or_else(|| label("policy")).or_else(|| label("channel")), label("revision")) {
            (Some(plugin), Some(revision)) => self.retired.iter().any(|(p, r)| p == plugin && r == revision),
            (_, None) => label("plugin").is_some_and(|plugin| self.gone.contains(plugin)),
            (None, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_says_what_it_means() {
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
    fn series_of_replaced_revisions_go_and_come_back_with_them() {
        let mut plugins = Plugins { shown: BTreeMap::new(), retired: VecDeque::new(), gone: BTreeSet::new() };
        let these = |all: &[(&str, &str)]| all.iter().map(|(p, r)| ((*p).to_owned(), (*r).to_owned())).collect();
        let old = "ace_policy_verdicts_total{policy=\"p\",revision=\"1\",verdict=\"pass\"} 3\n";
        let new = "ace_plugin_calls_total{plugin=\"p\",revision=\"2\",result=\"ok\"} 3\n";
        let other = "ace_delivery_attempts_total{channel=\"q\",revision=\"1\",result=\"sent\"} 3\n";
        let (up, native) =
            ("ace_plugin_up{plugin=\"p\"} 1\n", "ace_policy_verdicts_total{policy=\"n\",revision=\"\"} 1\n");
        let over = |plugins: &Plugins| [old, new, other, up, native].map(|line| plugins.is_over(line));
        plugins.become_these(these(&[("p", "1"), ("q", "1")]));
        assert_eq!(over(&plugins), [false; 5]);
        plugins.become_these(these(&[("p", "2"), ("q", "1")]));
        assert_eq!(over(&plugins), [true, false, false, false, false]);
        plugins.become_these(these(&[("p", "1"), ("q", "1")]));
        assert_eq!(over(&plugins), [false, true, false, false, false]);
        plugins.become_these(these(&[("q", "1")]));
        assert_eq!(over(&plugins), [true, true, false, true, false]);
        assert!(!plugins.is_over("# HELP ace_plugin_up of plugin=\"p\"\n"));
        plugins.become_these(these(&[("p", "2"), ("q", "1")]));
        assert_eq!(over(&plugins), [true, false, false, false, false]);
        for number in 0..RETIRED_MAX * 3 {
            plugins.become_these(these(&[("p", &format!("r{number}")), (&format!("q{number}"), "1")]));
        }
        assert_eq!((plugins.retired.len(), plugins.gone.len()), (RETIRED_MAX, RETIRED_MAX));
    }
}
