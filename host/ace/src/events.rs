//! What the outside is told of a settled message: edx-ace's ACE_MESSAGE_SENT, and the signal of failure its users ask for; and what
//! an operator should know of the server itself.
//!
//! - [`webhooks`]: signed calls, kept in the queue until they are taken

pub mod webhooks;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::destination::Notice;
use crate::message::{Message, Outcome, Report};

/// At least one channel delivered the message.
pub const SENT: &str = "message.sent";
/// Nobody got it although someone should have.
pub const FAILED: &str = "message.failed";
/// Nobody got it, as policies or the lack of an address would have it.
pub const NOT_SENT: &str = "message.not_sent";
/// A relay or an HTTP origin went down: messages wait for it.
pub const DOWN: &str = "destination.down";
/// It can be used again.
pub const UP: &str = "destination.up";
/// A plugin serves, in a new revision or for the first time.
pub const PLUGIN_ACTIVE: &str = "plugin.active";
/// Files of a plugin were refused, and an earlier revision goes on.
pub const PLUGIN_REJECTED: &str = "plugin.rejected";
/// A plugin should serve and cannot.
pub const PLUGIN_BROKEN: &str = "plugin.broken";
/// A plugin does not serve any more, as the operator wants it.
pub const PLUGIN_REMOVED: &str = "plugin.removed";
/// A reload changed nothing because something is wrong, with ace.toml or a name in it.
pub const RELOAD_REFUSED: &str = "reload.refused";
/// Every kind of event.
pub const KINDS: [&str; 10] =
    [SENT, FAILED, NOT_SENT, DOWN, UP, PLUGIN_ACTIVE, PLUGIN_REJECTED, PLUGIN_BROKEN, PLUGIN_REMOVED, RELOAD_REFUSED];

/// What events show, and whether they are kept for those who call back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Context and options too: they may hold what only the recipient should see.
    pub context: bool,
    pub are_kept: bool,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Told {
    pub kind: &'static str,
    /// Of the message; nil where it is about none.
    pub uuid: Uuid,
    /// JSON in the form of Standard Webhooks: `type`, `timestamp`, `data`.
    pub body: Vec<u8>,
}

/// What is told of a message that is settled. The keys of `data` are those of edx-ace's signal where it has them.
pub fn tell(message: &Message, report: &Report, shown: Shown, now: Timestamp) -> Told {
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
        .filter(|c| !matches!(c.outcome, Outcome::Unsupported { .. } | Outcome::Excluded))
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
    if shown.context {
        data["options"] = message.options.clone().into();
    }
    let mut body = json!({"type": kind, "timestamp": now, "data": data}).to_string();
    if shown.context
        && let Some(open) = body.strip_suffix("}}")
    {
        // Not as a value: its numbers keep their digits.
        body = format!("{open},\"context\":{}}}}}", message.context.as_json());
    }
    Told { kind, uuid: message.uuid, body: body.into_bytes() }
}

/// What is told of a relay or an origin that went down, or came back.
pub fn tell_of_destination(notice: &Notice, now: Timestamp) -> Told {
    let kind = if notice.is_up { UP } else { DOWN };
    let Notice { destination, reason, since, .. } = notice;
    let data = json!({"kind": destination.kind(), "name": destination.name(), "since": since, "reason": reason});
    of_server(kind, data, now)
}

/// What is told of the server itself.
pub fn of_server(kind: &'static str, data: Value, now: Timestamp) -> Told {
    let body = json!({"type": kind, "timestamp": now, "data": data}).to_string().into_bytes();
    Told { kind, uuid: Uuid::nil(), body }
}
