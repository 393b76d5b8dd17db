//! Channel types on standby: a type that was skipped or failed gives way to the next one of `[routing] fallback`.

use super::{InFlight, Pending, Snapshot};
use crate::channel::Limit;
use crate::config::chains_before;
use crate::message::{ChannelType, Outcome, Report};

/// What the types before a type in one chain have come to.
enum Chain {
    /// One of them carried the message, or may still do so.
    Ahead,
    /// These types have failed, and none of the others carries the message.
    GivesWay(Vec<ChannelType>),
    /// The message is not meant for any of them, or policies denied them.
    NotInPlay,
}

/// The types for which a type of a new message waits: those before it in the chains, as far as the message can use them.
pub(super) fn types_before(snapshot: &Snapshot, limit: &Limit, channel_type: &str) -> Vec<ChannelType> {
    let mut before: Vec<ChannelType> = Vec::new();
    for other in chains_before(&snapshot.routing.fallback, channel_type).flatten() {
        let is_usable = !snapshot.channels.of_type(other).is_empty() && limit.allows_type(other, &snapshot.channels);
        if is_usable && !before.contains(other) {
            before.push(other.clone());
        }
    }
    before
}

impl InFlight {
    /// Starts the types on standby whose turn it is, or settles them if the message has expired. Returns whether there were any, so
    /// that others may follow.
    pub(super) fn release_fallbacks(&mut self) -> bool {
        let now = (self.snapshot.now)();
        let mut is_changed = false;
        for i in 0..self.progress.pending.len() {
            let Outcome::Standby { after } = &self.progress.report.channels[i].outcome else { continue };
            let Some(failed) = self.failed_before(i, after) else { continue };
            is_changed = true;
            self.progress.report.channels[i].fallback_for = failed;
            if self.is_expired(now) {
                self.set_outcome(i, Outcome::Expired { error: None });
                continue;
            }
            self.progress.report.channels[i].outcome = Outcome::Retry { at: now, error: String::new() };
            self.progress.pending[i] = Pending::Evaluate(now);
        }
        is_changed
    }

    /// The types that gave way to a type on standby. `None`: it is not its turn.
    fn failed_before(&self, i: usize, after: &[ChannelType]) -> Option<Vec<ChannelType>> {
        let (report, routing) = (&self.progress.report, &self.snapshot.routing);
        let channel_type = &report.channels[i].channel_type;
        let mut chains: Vec<Chain> =
            chains_before(&routing.fallback, channel_type).map(|before| Chain::of(report, before)).collect();
        if chains.is_empty() {
            // The configuration has changed since the message was accepted.
            chains.push(Chain::of(report, after.iter()));
        }
        let mut is_ahead = false;
        for chain in chains {
            match chain {
                Chain::GivesWay(failed) => return Some(failed),
                Chain::Ahead => is_ahead = true,
                Chain::NotInPlay => {}
            }
        }
        (!is_ahead).then(Vec::new)
    }
}

impl Chain {
    fn of<'a>(report: &Report, before: impl Iterator<Item = &'a ChannelType>) -> Chain {
        let mut failed = Vec::new();
        for channel_type in before {
            // A type that the message is not meant for is removed from the report.
            let Some(channel) = report.channels.iter().find(|channel| channel.channel_type == *channel_type) else {
                continue;
            };
            match &channel.outcome {
                Outcome::Standby { .. } => return Chain::Ahead,
                Outcome::Denied { .. } => {}
                outcome if outcome.is_passed_over() => {}
                outcome if outcome.gives_way() => failed.push(channel_type.clone()),
                _ => return Chain::Ahead,
            }
        }
        if failed.is_empty() { Chain::NotInPlay } else { Chain::GivesWay(failed) }
    }
}
