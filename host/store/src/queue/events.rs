//! Events for webhooks and streams.

use std::borrow::Cow;

use jiff::Timestamp;

use super::ids::EventId;

/// A new event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its type, such as `message.sent`.
    pub kind: Cow<'static, str>,
    /// Its content, as JSON text.
    pub body: Vec<u8>,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// When it was stored.
    pub at: Timestamp,
    /// Its type, such as `message.sent`.
    pub kind: String,
    /// Its content, as JSON text.
    pub body: Vec<u8>,
}

/// A part of the stored events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// The latest event that was ever stored.
    pub last: EventId,
    /// Events up to this one may have been deleted because of their age.
    pub pruned: EventId,
}

/// A delivery of an event to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// The event.
    pub event: Event,
    /// How often the delivery has failed.
    pub attempts: u32,
}
