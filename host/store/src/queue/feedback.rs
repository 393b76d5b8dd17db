//! Feedback: what providers report after a delivery.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::events::NewEvent;
use super::{Queue, QueueError, Store, engine};

/// How long feedback waits for its message to be settled.
pub const FEEDBACK_WAIT: Duration = Duration::from_secs(3_600);

/// A new event of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFeedback {
    /// The plugin that read it.
    pub plugin: String,
    /// Its id: an event with the same id of the same plugin is stored once.
    pub id: String,
    /// How to find its message.
    pub lookup: Lookup,
    /// The kind and normal form of the address that it is about ([`crate::person::address_key`]).
    pub address: Option<String>,
    /// Its content, as JSON text.
    pub body: Vec<u8>,
}

/// What leads to a message that was delivered over one of these channels. Without any id it leads to none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The channels.
    pub channels: Vec<String>,
    /// The message's uuid, which is tried first.
    pub uuid: Option<Uuid>,
    /// The provider's id, which is tried next.
    pub provider_id: Option<String>,
    /// The Message-ID, without angle brackets.
    pub message_id: Option<String>,
}

/// A delivery that feedback may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The channel.
    pub channel: String,
    /// The provider's id.
    pub provider_id: Option<String>,
    /// The Message-ID, without angle brackets.
    pub message_id: Option<String>,
}

/// Stored feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The uuid of its message, if there is one.
    pub message: Option<Uuid>,
    /// When it was stored.
    pub at: Timestamp,
    /// Its content, as JSON text.
    pub body: Vec<u8>,
}

/// Makes the event that announces feedback.
pub type FeedbackEvent = fn(&Feedback) -> NewEvent;

/// Feedback.
impl Queue {
    /// Stores feedback with one durable write, and returns how much of it was new. Feedback about a message that is not settled waits
    /// for that, at most [`FEEDBACK_WAIT`].
    ///
    /// # Errors
    /// [`QueueError::FeedbackFull`]; nothing was stored then.
    pub async fn accept_feedback(&self, new: Vec<NewFeedback>, now: Timestamp) -> Result<usize, QueueError> {
        engine!(self, store => store.accept_feedback(new, now).await)
    }

    /// Whether feedback is stored, by its plugin and its id.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn is_feedback_known(&self, ids: Vec<(String, String)>) -> Result<Vec<bool>, QueueError> {
        engine!(self, store => store.is_feedback_known(ids).await)
    }

    /// Takes at most `max` of the feedback that has found its message, has none, or has waited for long enough, and stores its events.
    /// Each is returned once.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn announce_feedback(
        &self,
        event: Option<FeedbackEvent>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Feedback>, QueueError> {
        engine!(self, store => store.announce_feedback(event, max, now).await)
    }

    /// The feedback about a message, the earliest first.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn feedback(&self, message: Uuid, max: usize) -> Result<Vec<Feedback>, QueueError> {
        engine!(self, store => store.feedback(message, max).await)
    }
}
