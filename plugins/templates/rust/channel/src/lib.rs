//! Delivers text messages through a gateway.

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::{self, Request};
use ace_plugin::{Error, Message, Settings};
use serde::Serialize;

struct __TYPE__;

ace_plugin::export_channel!(__TYPE__);

impl Channel for __TYPE__ {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("sms").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        Ok(gateway().map(|_| ())?)
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let recipient = message.recipient();
        let Some(to) = recipient.as_ref().and_then(|recipient| recipient.contact("phone")) else {
            return Err(DeliveryError::Skipped("the recipient has no telephone number".to_owned()));
        };
        let (url, token) = gateway()?;
        let request = Request::post(url)
            .bearer(&token)
            .header("idempotency-key", &attempt.idempotency_key)
            .json(&Text { to, text: rendered.text("body.txt")? })?;
        http::fetch_ok(&request)?;
        Ok(Receipt::default())
    }
}

/// What the gateway takes.
#[derive(Serialize)]
struct Text<'a> {
    to: &'a str,
    text: &'a str,
}

/// Where it is, and the token it knows us by.
fn gateway() -> Result<(String, String), Error> {
    Ok((Settings.require("url")?, Settings.require("token")?))
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::__TYPE__);
}
