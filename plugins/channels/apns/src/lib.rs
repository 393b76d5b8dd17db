//! Delivers push notifications through Apple's push notification service (APNs). Each device of the recipient is one request, and its
//! outcome is noted, so that a retry reaches only the devices that have not got the notification.
//!
//! The modules below do not call the host.

mod answer;
mod request;
mod settings;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::devices::{self, DEVICES_MAX, Notification, Outcome, Refusal};
use ace_plugin::{Error, Message, Settings, random, time};

use request::Push;

/// The plugin's name for its credential.
const CREDENTIAL: &str = "apns";
/// The kind of contacts that are device tokens of APNs. Those of other services have other kinds.
const TOKEN: &str = "apns-token";

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

/// Whether APNs has accepted a token from this instance: its settings are right.
static ACCEPTED: AtomicBool = AtomicBool::new(false);

struct Apns;

ace_plugin::export_channel!(Apns);

impl Channel for Apns {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("push").file("title.txt").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        SETTINGS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// If it is listed beside another channel of the type, it delivers to recipients with a device of APNs.
    fn overrides_delivery_for_message(message: &Message) -> bool {
        message.recipient().is_some_and(|recipient| recipient.contact(TOKEN).is_some())
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = SETTINGS.as_ref().map_err(|why| DeliveryError::Fatal(why.clone()))?;
        let push = push(settings, message, &Notification::read(message, &rendered)?)?;
        let recipient = message.recipient();
        let devices = devices::of(recipient.as_ref(), &[TOKEN]);
        devices::deliver(attempt, devices, DEVICES_MAX, settings.timeout_ms, |_, token| send(settings, &push, token))
    }
}

/// The notification with everything that is the same for each device.
fn push(settings: &settings::Settings, message: &Message, notification: &Notification) -> Result<Push, Error> {
    let now = time::now();
    Ok(Push {
        payload: request::payload(settings.push_type, notification)?,
        collapse_id: notification.replacement(message)?.as_deref().map(devices::collapse_id),
        expiration: devices::apns_expiration(notification.expires(message, now, settings.ttl_seconds), now),
        is_urgent: notification.is_urgent(message),
    })
}

fn send(settings: &settings::Settings, push: &Push, token: &str) -> Result<Outcome, DeliveryError> {
    if !request::is_token(token) {
        return Ok(Outcome::Dropped(Refusal::new("MALFORMED", "the token is not hexadecimal")));
    }
    let id = request::uuid(&random::bytes(16));
    let outcome = devices::exchange(&push.request(settings, token, &id), CREDENTIAL, answer::read)?;
    if matches!(outcome, Outcome::Accepted(_)) {
        ACCEPTED.store(true, Ordering::Relaxed);
    }
    Ok(if ACCEPTED.load(Ordering::Relaxed) { outcome } else { answer::doubted(outcome) })
}

/// What another client does. See tests/fixtures/README.md.
#[cfg(test)]
const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/apns.json");

#[cfg(test)]
mod recorded;

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::Apns);
}
