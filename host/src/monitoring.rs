//! What happened, for operators: one event a settled channel. Every name of a key is a constant here.

use crate::message::{ChannelReport, Message, Outcome};

/// edx-ace's `<type>_delivery_succeeded`, after the channel type.
pub const DELIVERY_SUCCEEDED: &str = "delivery_succeeded";
/// edx-ace's `<type>_delivery_expired`, after the channel type.
pub const DELIVERY_EXPIRED: &str = "delivery_expired";
/// edx-ace's `template_error`.
pub const TEMPLATE_ERROR: &str = "template_error";
/// edx-ace's `<type>_error`, after the channel type.
pub const ERROR: &str = "error";

/// One INFO line for a settled channel type (WARN where the recipient got nothing because something failed). It carries
/// nothing of the context; a relay's or provider's own words may name an address.
pub fn settled(message: &Message, report: &ChannelReport) {
    let (channel_type, channel) = (report.channel_type.as_str(), report.channel.as_deref());
    let (state, attempts) = (report.outcome.state(), report.attempts);
    macro_rules! event {
        ($level:ident, $key:expr, $text:expr) => {
            tracing::$level!(
                message_uuid = %message.uuid,
                message_name = %format_args!("{}.{}", message.app_label, message.name),
                channel_type, channel, state, attempts, key = $key,
                "{}", $text
            )
        };
    }
    match &report.outcome {
        Outcome::Sent { fault: None, .. } => event!(info, DELIVERY_SUCCEEDED, "The message was delivered."),
        Outcome::Sent { fault: Some(fault), .. } => {
            event!(warn, DELIVERY_SUCCEEDED, format!("The message was delivered; then {fault}"))
        }
        Outcome::MaybeSent { reason } => event!(warn, ERROR, format!("The message may have been delivered: {reason}")),
        Outcome::Failed { error } => event!(warn, ERROR, format!("The message was not delivered: {error}")),
        Outcome::Expired { error } => {
            event!(
                warn,
                DELIVERY_EXPIRED,
                format!("The message expired{}", error.as_ref().map(|e| format!(": {e}")).unwrap_or_default())
            )
        }
        Outcome::TemplateError { message: error, absent: false } => event!(warn, TEMPLATE_ERROR, error),
        other => event!(debug, other.state(), "Nothing was delivered."),
    }
}
