//! Settles messages, and notifies the requests and listeners that wait for the outcome.

use std::collections::BTreeSet;
use std::sync::Arc;

use ace::InFlight;
use ace::internals::pipeline::Progress;
use ace::message::{AddressRecord, ChannelReport, Outcome, RecordAddresses, Recording, Report};
use ace_store::queue::{Delivery, Done, Queue, QueueError, Settled, Settlement, State};
use jiff::Timestamp;

use super::{ClaimId, STORE_PAUSE, Worker};
use crate::events::{self, Notification};

impl Worker {
    /// Settles a message that has its outcome, and emits its event.
    pub(super) async fn complete(&self, claim_id: ClaimId, flight: InFlight) {
        let (message, another_try) = (flight.message.clone(), flight.retained_progress());
        let report = flight.into_report();
        let notify = || events::of_message(&message, &report, self.events, self.now());
        let kept = self.events.are_kept.then(notify);
        let event = kept.as_ref().map(|notification| notification.to_event());
        let dropped = events::of_dropped_contacts(&message, &report, self.now());
        let contacts = dropped.iter().filter(|_| self.events.are_kept).map(Notification::to_event).collect();
        let state = state(&report);
        let written = serde_json::to_vec(&report).expect("a report has only string keys and finite numbers");
        let is_awaited = self.waiting().contains_key(&message.uuid);
        let another_try = another_try.filter(|_| state.is_dead()).map(|progress| serialize(&progress));
        let deliveries = deliveries(&report, &(self.current)().feedback_channels);
        let settlement =
            Settlement::Done(Done { state, report: written, event, contacts, kept: another_try, deliveries });
        if self.settle(claim_id, settlement, is_awaited).await {
            if self.notifications.receiver_count() > 0 {
                for notification in dropped.into_iter().chain([kept.unwrap_or_else(notify)]) {
                    // An error only means that nobody is listening any more.
                    let _ = self.notifications.send(Arc::new(notification));
                }
            }
            let report = Arc::new(report);
            for waiting in self.waiting().remove(&message.uuid).unwrap_or_default() {
                let _ = waiting.send(report.clone());
            }
        }
    }

    /// Stores what a channel notes during an attempt for which this progress was recorded.
    pub(super) fn recorder(&self, claim_id: ClaimId, progress: Vec<u8>) -> Arc<dyn RecordAddresses> {
        let (queue, now) = (self.queue.clone(), (self.current)().now);
        Arc::new(Recorder { queue, claim_id, progress, now })
    }

    /// Stores a settlement, retrying as long as necessary, because an outcome must not be lost. Returns false if the worker was stopped
    /// first, or no longer has the claim: the message is then in doubt. If `is_awaited`, it is committed at once.
    pub(super) async fn settle(&self, (id, claim): ClaimId, settlement: Settlement, is_awaited: bool) -> bool {
        loop {
            let settled = vec![Settled { id, claim, settlement: settlement.clone() }];
            let settled = if is_awaited {
                self.queue.settle(settled, self.now()).await
            } else {
                self.queue.settle_deferred(settled, self.now()).await
            };
            match settled {
                Ok(()) => return true,
                // Another worker has claimed it, or it was erased.
                Err(QueueError::State(why)) => {
                    tracing::warn!("Gave up processing a message: {why}");
                    return false;
                }
                // The queue has logged it, once.
                Err(error) => tracing::debug!("A settlement could not be written; retrying: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }
}

/// Stores what a channel notes during an attempt that was recorded.
struct Recorder {
    queue: Arc<Queue>,
    claim_id: ClaimId,
    /// The progress that was recorded before the attempt.
    progress: Vec<u8>,
    now: fn() -> Timestamp,
}

impl RecordAddresses for Recorder {
    fn record<'a>(&'a self, records: &'a [AddressRecord]) -> Recording<'a> {
        Box::pin(async move {
            let progress = Progress::with_addresses(&self.progress, records).map_err(|error| error.to_string())?;
            let (id, claim) = self.claim_id;
            let settled = vec![Settled { id, claim, settlement: Settlement::Record { progress } }];
            self.queue.settle(settled, (self.now)()).await.map_err(|error| error.to_string())
        })
    }
}

/// The deliveries that feedback may refer to: those over channels that a feedback plugin may report about.
fn deliveries(report: &Report, channels: &BTreeSet<String>) -> Vec<Delivery> {
    if channels.is_empty() {
        return Vec::new();
    }
    let delivery = |one: &ChannelReport| {
        let channel = one.channel.as_ref().filter(|channel| channels.contains(*channel))?.clone();
        let provider_id = match &one.outcome {
            Outcome::Sent { receipt, .. } => receipt.provider_id.clone(),
            Outcome::MaybeSent { .. } => None,
            _ => return None,
        };
        let bare = |id: &String| Some(id.strip_prefix('<')?.strip_suffix('>')?.to_owned());
        let message_id = provider_id.as_ref().and_then(bare);
        Some(Delivery { channel, provider_id, message_id })
    };
    report.channels.iter().filter_map(delivery).collect()
}

/// Progress in the form that the queue stores.
pub(super) fn serialize(progress: &Progress) -> Vec<u8> {
    serde_json::to_vec(progress).expect("progress has only string keys and finite numbers")
}

/// The state of the message as a whole.
pub(crate) fn state(report: &Report) -> State {
    let any = |is: fn(&Outcome) -> bool| report.channels.iter().any(|c| is(&c.outcome));
    if any(|o| matches!(o, Outcome::Sent { .. })) {
        State::Sent
    } else if any(|o| matches!(o, Outcome::MaybeSent { .. })) {
        State::MaybeSent
    } else if !report.is_failure() {
        State::NotSent
    } else if any(|o| matches!(o, Outcome::Expired { .. })) && !any(|o| matches!(o, Outcome::Failed { .. })) {
        State::Expired
    } else {
        State::Failed
    }
}
