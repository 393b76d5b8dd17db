//! Delivers text messages through a gateway.

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::{self, Request};
use ace_plugin::{Message, Settings};

struct __TYPE__;

ace_plugin::export_channel!(__TYPE__);

impl Channel for __TYPE__ {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("sms").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        setting("url")?;
        setting("token").map(|_| ())
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let contacts = message.recipient().map(|recipient| recipient.contacts).unwrap_or_default();
        let Some((_, phone)) = contacts.into_iter().find(|(kind, _)| kind == "phone") else {
            return Err(DeliveryError::Skipped("the recipient has no telephone number".to_owned()));
        };
        let body = serde_json::json!({"to": phone, "text": rendered.text("body.txt")?});
        let request = Request::post(setting("url").map_err(DeliveryError::Fatal)?)
            .header("authorization", format!("Bearer {}", setting("token").map_err(DeliveryError::Fatal)?))
            .header("content-type", "application/json")
            .header("idempotency-key", &attempt.idempotency_key)
            .body(body.to_string());
        http::fetch_ok(&request)?;
        Ok(Receipt::default())
    }
}

fn setting(key: &str) -> Result<String, String> {
    Settings.text(key).ok_or_else(|| format!("config key {key:?} is not set"))
}
