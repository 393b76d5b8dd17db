//! One attempt over one channel, its answer typed by what happens next.

use std::sync::Arc;

use jiff::Timestamp;

use crate::channel::Channel;
use crate::message::{Attempt, AttemptResult, DeliveryError, Message, Notes, Outcome, Receipt};

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Delivered {
    Settled(Outcome),
    /// This channel will never do it; another one may.
    Fatal(String),
    Recoverable {
        error: String,
        suggested: Option<Timestamp>,
    },
    /// No attempt was made: the channel is left alone for now.
    Unavailable(String),
}

impl Delivered {
    /// As it stands in the history of attempts: what it came to, and the words for it.
    pub(crate) fn told(&self) -> (AttemptResult, String) {
        match self {
            Delivered::Settled(Outcome::Sent { receipt, .. }) => {
                (AttemptResult::Sent, receipt.provider_id.clone().unwrap_or_default())
            }
            Delivered::Settled(Outcome::Skipped { reason }) => (AttemptResult::Skipped, reason.clone()),
            Delivered::Settled(Outcome::MaybeSent { reason }) => (AttemptResult::MaybeSent, reason.clone()),
            Delivered::Settled(other) => (AttemptResult::Fatal, other.state().to_owned()),
            Delivered::Fatal(error) => (AttemptResult::Fatal, error.clone()),
            Delivered::Recoverable { error, .. } => (AttemptResult::Recoverable, error.clone()),
            Delivered::Unavailable(error) => (AttemptResult::Recoverable, error.clone()),
        }
    }
}

/// Makes one attempt. What may have left is not tried again: it is settled as sent or as maybe sent.
pub(crate) async fn deliver(
    channel: &dyn Channel,
    message: &Arc<Message>,
    rendered: &[(String, String)],
    attempt: &Attempt,
    notes: &Notes,
) -> Delivered {
    let outcome = match channel.deliver(message, rendered, attempt, notes).await {
        Ok(receipt) => Outcome::Sent { receipt, fault: None },
        Err(DeliveryError::SentWithFault { answer, fault }) => {
            let receipt = Receipt { provider_id: Some(answer), detail: None };
            Outcome::Sent { receipt, fault: Some(fault) }
        }
        Err(DeliveryError::MaybeSent { reason }) => Outcome::MaybeSent { reason },
        Err(DeliveryError::Skipped(reason)) => Outcome::Skipped { reason },
        Err(DeliveryError::Unavailable(error)) => return Delivered::Unavailable(error),
        Err(DeliveryError::Fatal(error)) => return Delivered::Fatal(error),
        Err(DeliveryError::Recoverable { message, next_attempt_time }) => {
            return Delivered::Recoverable { error: message, suggested: next_attempt_time };
        }
    };
    Delivered::Settled(outcome)
}
