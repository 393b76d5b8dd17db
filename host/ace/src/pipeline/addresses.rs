//! What channels note of the message's addresses, and channels that are held.

use std::sync::Arc;

use super::steps::AttemptMade;
use super::{InFlight, Pending, Progress};
use crate::config::Guarantee;
use crate::destination::{Cause, Contact, Failure, Paused};
use crate::message::{
    AddressOutcome, AddressRecord, DeliveryError, Destination, Earlier, MailRecord, Message, Outcome, Receipt,
    Unreached, add_record,
};

impl InFlight {
    /// What an attempt over a channel is given of earlier ones.
    pub(super) fn earlier(
        &self,
        i: usize,
        channel: &str,
        mails: Vec<MailRecord>,
        guarantee: Option<Guarantee>,
    ) -> Earlier {
        let records = self.progress.report.channels[i].addresses.iter();
        let addresses = records.filter(|record| record.channel == channel || record.is_closed_for(channel)).cloned();
        let recorder = self.recorder.clone().filter(|_| guarantee == Some(Guarantee::AtMostOnce));
        Earlier { mails, addresses: addresses.collect(), recorder }
    }

    /// The message without the addresses to which the channel must not send again.
    pub(super) fn remaining_message(&self, i: usize, channel: &str) -> Arc<Message> {
        let remaining = self.message.remaining(&self.progress.report.channels[i].addresses, channel);
        remaining.map_or_else(|| self.message.clone(), Arc::new)
    }

    /// Starts an attempt over a channel. The error: the channel is held.
    pub(super) fn contact_channel(&self, name: &str) -> Result<Contact, Paused> {
        let destination = || Destination::Channel(name.to_owned());
        self.snapshot.destinations.contact(&destination, name, self.message.uuid, self.snapshot.now)
    }

    /// Ends an attempt over a channel. If the channel asked for a hold and the message is to be retried, it waits for the channel.
    pub(super) fn end_contact(&self, contact: Contact, channel: &str, made: &AttemptMade) -> Option<Unreached> {
        let Some(hold) = made.call.take_hold() else {
            if matches!(made.answer, Ok(_) | Err(DeliveryError::SentWithFault { .. } | DeliveryError::Fatal(_))) {
                contact.reached(self.snapshot.now);
            }
            return None;
        };
        let destination = Destination::Channel(channel.to_owned());
        let (cause, reason, until) = (Cause::Destination, hold.reason.as_str(), hold.until);
        contact.failed(Failure { destination: &destination, channel, cause, reason, until }, (self.snapshot.now)());
        let is_retried = matches!(made.answer, Err(DeliveryError::Recoverable { .. }));
        is_retried.then_some(Unreached { destination, reason: hold.reason, is_contacted: true })
    }
}

impl Progress {
    /// Stored progress with what the channel has noted since, in the attempt for which it was stored.
    ///
    /// # Errors
    /// If it is not the JSON of a progress.
    pub fn with_addresses(stored: &[u8], records: &[AddressRecord]) -> Result<Vec<u8>, serde_json::Error> {
        let mut progress: Progress = serde_json::from_slice(stored)?;
        let Progress { pending, report, .. } = &mut progress;
        let is_recorded = |pending: &Pending| matches!(pending, Pending::Deliver(delivery) if delivery.is_recorded);
        for (_, channel) in pending.iter().zip(&mut report.channels).filter(|(pending, _)| is_recorded(pending)) {
            records.iter().cloned().for_each(|record| add_record(&mut channel.addresses, record));
        }
        serde_json::to_vec(&progress)
    }

    /// Whether the progress is of a message that was settled and is retried, with addresses that must not be tried again.
    pub(super) fn has_addresses(&self) -> bool {
        self.report.channels.iter().any(|channel| !channel.addresses.is_empty())
    }

    /// Keeps the dropped addresses of a settled message for another try. They were reported when it was settled.
    pub(super) fn keep_dropped(&mut self, settled: &Progress) {
        for channel in &mut self.report.channels {
            let before = settled.report.channels.iter().find(|other| other.channel_type == channel.channel_type);
            let records = before.into_iter().flat_map(|before| &before.addresses);
            let dropped = records.filter(|record| record.outcome == AddressOutcome::Dropped);
            channel.addresses = dropped.map(|record| AddressRecord { reported: true, ..record.clone() }).collect();
        }
    }
}

/// The result of an attempt that noted these addresses: if one is to be tried again, the delivery is not complete.
pub(super) fn judge(noted: &[AddressRecord], answer: Result<Receipt, DeliveryError>) -> Result<Receipt, DeliveryError> {
    let codes: Vec<String> = noted
        .iter()
        .filter(|record| record.outcome == AddressOutcome::Retry)
        .map(|record| record.code.clone().unwrap_or_else(|| "no code".to_owned()))
        .collect();
    if answer.is_err() || codes.is_empty() {
        return answer;
    }
    let message = format!("{} of {} addresses are tried again: {}", codes.len(), noted.len(), codes.join(", "));
    Err(DeliveryError::Recoverable { message, next_attempt_time: None })
}

/// Whether an address has got the message.
pub(super) fn is_sent(records: &[AddressRecord]) -> bool {
    records.iter().any(|record| record.outcome == AddressOutcome::Sent)
}

/// The final outcome of a delivery: it is sent if an address has got the message.
pub(super) fn settle(records: &[AddressRecord], outcome: Outcome) -> Outcome {
    match (records.iter().find(|record| record.outcome == AddressOutcome::Sent), outcome) {
        (_, outcome @ (Outcome::Sent { .. } | Outcome::MaybeSent { .. })) | (None, outcome) => outcome,
        (Some(record), _) => {
            Outcome::Sent { receipt: Receipt { provider_id: record.provider_id.clone(), detail: None }, fault: None }
        }
    }
}
