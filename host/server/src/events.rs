//! Events about settled messages (edx-ace's ACE_MESSAGE_SENT, and the failure event that its users request) and about the server itself.
//!
//! - [`webhooks`]: signed deliveries, stored in the queue until they are accepted

pub(crate) mod webhooks;

use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use ace::config::event_kinds::{
    CONTACT_DROPPED, DOWN, FAILED, FEEDBACK, NOT_SENT, PLUGIN_ACTIVE, PLUGIN_BROKEN, PLUGIN_REJECTED, PLUGIN_REMOVED,
    RELOAD_REFUSED, SENT, UP,
};
use ace::internals::destination::Notice;
use ace::message::{AddressRecord, Message, Outcome, Report};
use ace_store::queue::{Feedback, NewEvent};

/// What events contain, and whether they are stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventOptions {
    /// Include context and options, which may contain what only the recipient should see.
    pub context: bool,
    /// Store events in the queue.
    pub are_kept: bool,
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    pub(crate) kind: &'static str,
    /// JSON in the form of Standard Webhooks: `type`, `timestamp`, `data`.
    pub(crate) body: Vec<u8>,
}

impl Notification {
    /// The event in the form that the queue stores.
    pub(crate) fn to_event(&self) -> NewEvent {
        NewEvent { kind: self.kind.into(), body: self.body.clone() }
    }
}

/// The event about a settled message. The keys of `data` are those of edx-ace's signal where it has them.
pub(crate) fn of_message(message: &Message, report: &Report, options: EventOptions, now: Timestamp) -> Notification {
    let is_sent = report.channels.iter().any(|c| matches!(c.outcome, Outcome::Sent { .. } | Outcome::MaybeSent { .. }));
    let kind = match (is_sent, report.is_failure()) {
        (true, _) => SENT,
        (false, true) => FAILED,
        (false, false) => NOT_SENT,
    };
    let recipient = message
        .recipient
        .as_ref()
        .map(|recipient| json!({"user_id": recipient.lms_user_id, "email": recipient.email_address}));
    let channels: Vec<_> = report
        .channels
        .iter()
        .filter(|c| !matches!(c.outcome, Outcome::Unsupported { .. } | Outcome::Excluded | Outcome::Standby { .. }))
        .map(|c| {
            json!({"channel_type": c.channel_type, "channel": c.channel, "state": c.outcome.state(), "attempts": c.attempts})
        })
        .collect();
    let mut data = json!({
        "name": message.name,
        "app_label": message.app_label,
        "uuid": message.uuid,
        "send_uuid": message.send_uuid,
        "recipient": recipient,
        "message_language": message.language,
        "channels": channels,
    });
    if options.context {
        data["options"] = message.options.clone().into();
    }
    let mut body = json!({"type": kind, "timestamp": now, "data": data}).to_string();
    if options.context
        && let Some(open) = body.strip_suffix("}}")
    {
        // Inserted as text, because numbers in a `Value` may lose digits.
        body = format!("{open},\"context\":{}}}}}", message.context.as_json());
    }
    Notification { kind, body: body.into_bytes() }
}

/// What a plugin reported, as it was stored.
pub(crate) fn feedback_data(feedback: &Feedback) -> Value {
    serde_json::from_slice(&feedback.body).unwrap_or_else(|_| json!({}))
}

/// The event about feedback; its uuid is that of the message, if there is one.
pub(crate) fn of_feedback(feedback: &Feedback) -> Notification {
    let mut data = feedback_data(feedback);
    data["uuid"] = json!(feedback.message);
    with_data(FEEDBACK, data, feedback.at)
}

/// The events about addresses of the message that the application should delete.
pub(crate) fn of_dropped_contacts(message: &Message, report: &Report, now: Timestamp) -> Vec<Notification> {
    let notification = |dropped: &AddressRecord| {
        let data = json!({
            "uuid": message.uuid,
            "user_id": message.recipient.as_ref().map(|recipient| &recipient.lms_user_id),
            "channel": dropped.channel,
            "kind": dropped.kind,
            "address": dropped.address,
            "code": dropped.code,
        });
        with_data(CONTACT_DROPPED, data, now)
    };
    report.dropped_addresses().map(notification).collect()
}

/// The event about a relay, an origin or a channel that went down or recovered.
pub(crate) fn of_destination(notice: &Notice, now: Timestamp) -> Notification {
    let kind = if notice.is_up { UP } else { DOWN };
    let Notice { destination, reason, since, .. } = notice;
    let data = json!({"kind": destination.kind(), "name": destination.name(), "since": since, "reason": reason});
    with_data(kind, data, now)
}

/// An event with this data.
pub(crate) fn with_data(kind: &'static str, data: Value, now: Timestamp) -> Notification {
    let body = json!({"type": kind, "timestamp": now, "data": data}).to_string().into_bytes();
    Notification { kind, body }
}
