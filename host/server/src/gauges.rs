//! The metrics of the queue. Those of messages, plugins and channels are in [`ace::internals::monitoring`].

use ace_store::queue::Stats;
use metrics::{describe_gauge, gauge};

/// Queued messages, by `priority` (`transactional`, `ordinary`, `batches`).
const QUEUE_WAITING: &str = "ace_queue_waiting";
/// Messages that are being sent.
const QUEUE_IN_FLIGHT: &str = "ace_queue_in_flight";
/// Messages that failed or expired and can be retried.
const QUEUE_DEAD: &str = "ace_queue_dead_letters";
/// Queued messages that will be sent one at a time.
const QUEUE_SUSPECTS: &str = "ace_queue_suspects";
/// Messages that were set aside because their rows are damaged.
const QUEUE_DAMAGED: &str = "ace_queue_damaged";
/// When the oldest queued message was accepted, in seconds since 1970; 0 if the queue is empty.
const QUEUE_OLDEST: &str = "ace_queue_oldest_timestamp_seconds";
/// Size of the queue's database in bytes.
const QUEUE_BYTES: &str = "ace_queue_bytes";
/// Pending webhook deliveries.
const WEBHOOK_DELIVERIES: &str = "ace_webhook_deliveries_waiting";

/// The gauges and their help texts.
const GAUGES: [(&str, &str); 8] = [
    (QUEUE_WAITING, "Queued messages."),
    (QUEUE_IN_FLIGHT, "Messages that are being sent."),
    (QUEUE_DEAD, "Messages that failed or expired and can be retried."),
    (QUEUE_SUSPECTS, "Queued messages that will be sent one at a time, because the process ended while sending them."),
    (QUEUE_DAMAGED, "Messages that were set aside because their rows are damaged."),
    (QUEUE_OLDEST, "When the oldest queued message was accepted, in seconds since 1970; 0 if the queue is empty."),
    (QUEUE_BYTES, "Size of the queue's database in bytes."),
    (WEBHOOK_DELIVERIES, "Pending webhook deliveries."),
];

/// Registers the help texts of the gauges with the process's recorder.
pub(crate) fn describe() {
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
}

/// Sets the gauges.
pub(crate) fn queue(stats: &Stats) {
    let priorities = [
        ("transactional", stats.waiting_transactional),
        ("ordinary", stats.waiting_ordinary),
        ("batches", stats.waiting_batches),
    ];
    for (priority, waiting) in priorities {
        gauge!(QUEUE_WAITING, "priority" => priority).set(waiting as f64);
    }
    gauge!(QUEUE_IN_FLIGHT).set(stats.in_flight as f64);
    gauge!(QUEUE_DEAD).set(stats.dead as f64);
    gauge!(QUEUE_SUSPECTS).set(stats.suspects as f64);
    gauge!(QUEUE_DAMAGED).set(stats.damaged as f64);
    gauge!(QUEUE_OLDEST).set(stats.oldest.map_or(0, |oldest| oldest.as_second()) as f64);
    gauge!(QUEUE_BYTES).set(stats.bytes as f64);
    gauge!(WEBHOOK_DELIVERIES).set(stats.webhook_deliveries as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_help_text() {
        let names = include_str!("gauges.rs").lines().filter_map(|line| line.strip_prefix("const ")?.split('"').nth(1));
        let names: Vec<&str> = names.filter(|name| name.starts_with("ace_")).collect();
        assert_eq!(names, GAUGES.map(|(name, _)| name));
    }
}
