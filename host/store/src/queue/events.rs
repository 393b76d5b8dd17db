//! Events for webhooks and streams.

use std::borrow::Cow;

use jiff::Timestamp;

use super::ids::EventId;

/// An event to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What happened, as `message.sent`.
    pub kind: Cow<'static, str>,
    /// JSON.
    pub body: Vec<u8>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub at: Timestamp,
    /// What happened, as `message.sent`.
    pub kind: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// Some of the events that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub events: Vec<Event>,
    /// The latest event that was ever kept.
    pub last: EventId,
    /// Some events up to this one were deleted because of their age.
    pub pruned: EventId,
}

/// An event to be delivered to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    pub event: Event,
    /// Failed attempts so far.
    pub attempts: u32,
}
