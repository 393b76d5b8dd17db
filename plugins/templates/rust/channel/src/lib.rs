//! Delivers text messages through a gateway.

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::Request;
use ace_plugin::{Message, Settings, authorized_http};
use serde::Serialize;

struct __TYPE__;

ace_plugin::export_channel!(__TYPE__);

impl Channel for __TYPE__ {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("sms").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        Settings.require::<String>("url")?;
        Ok(())
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let recipient = message.recipient();
        let Some(to) = recipient.as_ref().and_then(|recipient| recipient.contact("phone")) else {
            return Err(DeliveryError::Skipped("the recipient has no telephone number".to_owned()));
        };
        let request = Request::post(Settings.require::<String>("url")?)
            .header("idempotency-key", &attempt.idempotency_key)
            .json(&Text { to, text: rendered.text("body.txt")? })?;
        // The host adds the credential, so the token never enters the plugin.
        authorized_http::fetch_ok(&request, "gateway")?;
        Ok(Receipt::default())
    }
}

/// What the gateway takes.
#[derive(Serialize)]
struct Text<'a> {
    to: &'a str,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::__TYPE__);
}
