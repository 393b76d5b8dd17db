//! Settings of feedback: what providers report after a delivery.

use std::collections::BTreeSet;

use super::Config;
use super::reader::TableDecoder;
use super::values::{self, KIB, MIB};
use crate::suppression::Reason;

/// What a provider can report of an address.
const REPORTED: [Reason; 3] = [Reason::HardBounce, Reason::Complaint, Reason::Unsubscribe];

/// How `ace serve` takes feedback, and what it does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The reports after which an address gets no more mail, if they are vouched for. All.
    pub suppress: Vec<Reason>,
    /// The longest body of a request. 1 MiB.
    pub max_body_bytes: usize,
    /// Requests at the same time; further ones are answered with 503. 64.
    pub max_requests: usize,
    /// Requests per second for one plugin; further ones are answered with 429. 500.
    pub requests_per_second: u32,
    /// Stored events; further ones are answered with 503. 10,000,000.
    pub max_events: u64,
}

impl Default for Feedback {
    fn default() -> Self {
        Feedback {
            suppress: REPORTED.to_vec(),
            max_body_bytes: MIB,
            max_requests: 64,
            requests_per_second: 500,
            max_events: 10_000_000,
        }
    }
}

impl Config {
    /// The channels that a plugin may report feedback about.
    pub(crate) fn feedback_channels(&self) -> BTreeSet<String> {
        let enabled = self.plugins.values().filter(|plugin| plugin.enabled);
        enabled.flat_map(|plugin| &plugin.grants.feedback).cloned().collect()
    }
}

pub(super) fn feedback(s: &mut TableDecoder<'_>) -> Feedback {
    let default = Feedback::default();
    let reported = REPORTED.map(|reason| (reason.as_str(), reason));
    Feedback {
        suppress: s.list("suppress", values::one_of(&reported)).unwrap_or(default.suppress),
        max_body_bytes: s.get("max-body", values::size(KIB..=64 * MIB)).unwrap_or(default.max_body_bytes),
        max_requests: s.get("max-requests", values::integer(1..=10_000)).unwrap_or(default.max_requests),
        requests_per_second: s
            .get("requests-per-second", values::integer(1..=1_000_000))
            .unwrap_or(default.requests_per_second),
        max_events: s.get("max-events", values::integer(0..=1_000_000_000)).unwrap_or(default.max_events),
    }
}
