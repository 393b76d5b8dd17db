//! Posts messages to URLs of the recipient, signed as Standard Webhooks has it. Each URL gets one request, and its outcome is noted, so that
//! a retry reaches only those that have not got the message.
//!
//! The modules below do not call the host.

mod answer;
mod request;

use std::sync::LazyLock;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::devices::{self, Outcome, Refusal};
use ace_plugin::{Message, Settings, SettingsReader, time};

use request::Webhook;

/// The plugin's name for its credential, which signs.
const CREDENTIAL: &str = "webhook";
/// The kind of contact.
const URL: &str = "webhook";
const BODY: &str = "body.json";
const TIMEOUT_MS: u32 = 10_000;

static TIMEOUT: LazyLock<Result<u32, String>> = LazyLock::new(|| {
    let mut reader = SettingsReader::new(&|key| Settings.text(key));
    let timeout_ms = reader.timeout_ms(TIMEOUT_MS);
    reader.finish(timeout_ms)
});

struct WebhookChannel;

ace_plugin::export_channel!(WebhookChannel);

impl Channel for WebhookChannel {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("webhook").file(BODY)
    }

    fn enabled() -> Result<(), String> {
        TIMEOUT.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let timeout_ms = TIMEOUT.clone().map_err(DeliveryError::Fatal)?;
        let id = format!("msg_{}", message.uuid());
        let webhook =
            Webhook { id: &id, body: request::json(rendered.text(BODY)?).map_err(DeliveryError::Fatal)?, timeout_ms };
        let recipient = message.recipient();
        let urls = devices::of(recipient.as_ref(), &[URL]);
        let result = devices::deliver(attempt, urls, devices::DEVICES_MAX, timeout_ms, |_, url| post(&webhook, url));
        result.map_err(|error| match error {
            DeliveryError::Skipped(_) => {
                DeliveryError::Skipped("the recipient has no webhook whose receiver wants messages".to_owned())
            }
            other => other,
        })
    }
}

fn post(webhook: &Webhook<'_>, url: &str) -> Result<Outcome, DeliveryError> {
    if let Err(why) = request::check(url) {
        return Ok(Outcome::Failed(Refusal::new("INVALID_URL", why)));
    }
    let request = webhook.request(url, time::now());
    devices::exchange_with_chosen(&request, CREDENTIAL, "DENIED", |response, now, random| {
        answer::read(response, webhook.id, now, random)
    })
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::WebhookChannel);
}
