//! Delivers push notifications to browsers by Web Push. Each subscription of the recipient is one request, encrypted for it, and its
//! outcome is noted, so that a retry reaches only those that have not got the notification.
//!
//! The modules below do not call the host.

mod answer;
mod encryption;
mod request;
mod settings;
mod subscription;

use std::sync::LazyLock;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::devices::{self, Notification, Outcome};
use ace_plugin::{Message, Settings, random, time};
use p256::SecretKey;

use encryption::{Fresh, PRIVATE_KEY_BYTES, SALT_BYTES};
use request::Push;

/// The plugin's name for its credential.
const CREDENTIAL: &str = "vapid";
/// The kind of contacts that are subscriptions, in JSON.
const SUBSCRIPTION: &str = "web-push";
/// Subscriptions in one call. Encryption for each takes milliseconds of the guest's own time.
const SUBSCRIPTIONS_MAX: usize = 10;

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct WebPush;

ace_plugin::export_channel!(WebPush);

impl Channel for WebPush {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("web_push").file("title.txt").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        SETTINGS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = SETTINGS.as_ref().map_err(|why| DeliveryError::Fatal(why.clone()))?;
        let notification = Notification::read(message, &rendered)?;
        let (replacement, now) = (notification.replacement(message)?, time::now());
        let push = Push {
            text: request::text(&notification, replacement.as_deref()),
            ttl_seconds: notification.expires(message, now, settings.ttl_seconds).saturating_sub(now) / 1000,
            is_urgent: notification.is_urgent(message),
            topic: replacement.as_deref().map(request::topic),
            timeout_ms: settings.timeout_ms,
        };
        let recipient = message.recipient();
        let subscriptions = devices::of(recipient.as_ref(), &[SUBSCRIPTION]);
        devices::deliver(attempt, subscriptions, SUBSCRIPTIONS_MAX, settings.timeout_ms, |_, contact| {
            send(&push, contact)
        })
    }
}

fn send(push: &Push, contact: &str) -> Result<Outcome, DeliveryError> {
    let subscription = match subscription::read(contact) {
        Ok(subscription) => subscription,
        Err(refusal) => return Ok(Outcome::Dropped(refusal)),
    };
    let Some(body) = subscription.keys.encrypt(push.text.as_bytes(), &fresh()?) else {
        let why = format!("the notification has {} bytes, and push services take at most 3993", push.text.len());
        return Err(DeliveryError::Fatal(why));
    };
    let request = push.request(&subscription.endpoint, body);
    devices::exchange_with_chosen(&request, CREDENTIAL, "NOT_SENT", answer::read)
}

/// A key pair and a salt for one request.
fn fresh() -> Result<Fresh, DeliveryError> {
    // About one of 2^32 random numbers is not a valid key.
    let private = (0..4).find_map(|_| SecretKey::from_slice(&random::bytes(PRIVATE_KEY_BYTES as u64)).ok());
    let salt = random::bytes(SALT_BYTES as u64).try_into().ok();
    let fresh = private.zip(salt).map(|(private, salt)| Fresh { private, salt });
    fresh.ok_or_else(|| DeliveryError::recoverable("the host gave no random bytes"))
}

/// What another client does. See tests/fixtures/README.md.
#[cfg(test)]
const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/web_push.json");

#[cfg(test)]
mod recorded;

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::WebPush);
}
