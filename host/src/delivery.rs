//! One attempt over one channel, its answer typed by what happens next.

use std::sync::Arc;

use jiff::Timestamp;

use crate::channel::Channel;
use crate::message::{Attempt, DeliveryError, Message, Outcome, Receipt};

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivered {
    Settled(Outcome),
    /// This channel will never do it; another one may.
    Fatal(String),
    Recoverable {
        error: String,
        suggested: Option<Timestamp>,
    },
}

/// Makes one attempt. What may have left is not tried again: it is settled as sent or as maybe sent.
pub async fn deliver(
    channel: &dyn Channel,
    message: &Arc<Message>,
    rendered: &[(String, String)],
    attempt: &Attempt,
) -> Delivered {
    let outcome = match channel.deliver(message, rendered, attempt).await {
        Ok(receipt) => Outcome::Sent { receipt, fault: None },
        Err(DeliveryError::SentWithFault { answer, fault }) => {
            let receipt = Receipt { provider_id: Some(answer), detail: None };
            Outcome::Sent { receipt, fault: Some(fault) }
        }
        Err(DeliveryError::MaybeSent { reason }) => Outcome::MaybeSent { reason },
        Err(DeliveryError::Skipped(reason)) => Outcome::Skipped { reason },
        Err(DeliveryError::Fatal(error)) => return Delivered::Fatal(error),
        Err(DeliveryError::Recoverable { message, next_attempt_time }) => {
            return Delivered::Recoverable { error: message, suggested: next_attempt_time };
        }
    };
    Delivered::Settled(outcome)
}
