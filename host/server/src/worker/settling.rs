//! Settles messages, and notifies the requests and listeners that wait for the outcome.

use std::sync::Arc;

use ace::InFlight;
use ace::internals::pipeline::Progress;
use ace::message::{Outcome, Report};
use ace_store::queue::{QueueError, Settled, Settlement, State};

use super::{ClaimId, STORE_PAUSE, Worker};
use crate::events;

impl Worker {
    /// Settles a message that has its outcome, and emits its event.
    pub(super) async fn complete(&self, claim_id: ClaimId, flight: InFlight) {
        let (message, another_try) = (flight.message.clone(), flight.retained_progress());
        let report = flight.into_report();
        let notify = || events::of_message(&message, &report, self.events, self.now());
        let kept = self.events.are_kept.then(notify);
        let event = kept.as_ref().map(|notification| notification.to_event());
        let state = state(&report);
        let written = serde_json::to_vec(&report).expect("a report has only string keys and finite numbers");
        let is_awaited = self.waiting().contains_key(&message.uuid);
        let another_try = another_try.filter(|_| state.is_dead()).map(|progress| serialize(&progress));
        let settlement = Settlement::Done { state, report: written, event, kept: another_try };
        if self.settle(claim_id, settlement, is_awaited).await {
            if self.notifications.receiver_count() > 0 {
                // An error only means that nobody is listening any more.
                let _ = self.notifications.send(Arc::new(kept.unwrap_or_else(notify)));
            }
            let report = Arc::new(report);
            for waiting in self.waiting().remove(&message.uuid).unwrap_or_default() {
                let _ = waiting.send(report.clone());
            }
        }
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
