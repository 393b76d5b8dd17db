//! The final outcome of one channel type.

use super::mails::Mails;
use super::{InFlight, addresses};
use crate::message::Outcome;
use crate::monitoring;

impl InFlight {
    /// Settles a delivery. Mails that were accepted, and addresses that got the message, take precedence over `outcome`.
    pub(super) fn settle(&mut self, i: usize, mut mails: Mails, outcome: Outcome) {
        let outcome = addresses::settle(&self.progress.report.channels[i].addresses, outcome);
        if matches!(outcome, Outcome::Sent { .. }) && self.progress.retained_mails.is_empty() {
            return self.set_outcome(i, outcome);
        }
        let key = self.delivery_key(i);
        let outcome = mails.settle(&key, outcome);
        let (is_sent, channel_type) =
            (matches!(outcome, Outcome::Sent { .. }), &self.progress.report.channels[i].channel_type);
        if is_sent || !mails.is_empty() {
            self.progress.retained_mails.retain(|mails| mails.channel_type != *channel_type);
        }
        if !is_sent {
            self.progress.retained_mails.extend(mails.retained(channel_type, &key));
        }
        self.set_outcome(i, outcome);
    }

    /// The mails of a channel type from before the message was retried.
    pub(super) fn retained_mails(&self, i: usize) -> Mails {
        let channel_type = &self.progress.report.channels[i].channel_type;
        let retained = self.progress.retained_mails.iter().find(|mails| mails.channel_type == *channel_type);
        retained.map(|mails| mails.for_delivery(&self.delivery_key(i))).unwrap_or_default()
    }

    /// The idempotency key of the message over the channel in its report.
    pub(super) fn delivery_key(&self, i: usize) -> String {
        self.message.idempotency_key(self.progress.report.channels[i].channel.as_deref().unwrap_or_default())
    }

    pub(super) fn set_outcome(&mut self, i: usize, outcome: Outcome) {
        let report = &mut self.progress.report.channels[i];
        report.outcome = outcome;
        if report.outcome.is_settled() && !report.outcome.is_absent() && !self.dry {
            monitoring::settled(&self.message, report);
        }
    }
}
