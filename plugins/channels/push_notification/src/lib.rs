//! Delivers push notifications through Firebase Cloud Messaging: edx-ace's `push_notification`. Each device of the recipient is one
//! request, and its outcome is noted, so that a retry reaches only the devices that have not got the notification.
//!
//! The modules below do not call the host.

mod answer;
mod request;
mod settings;

use std::sync::LazyLock;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::devices::{self, DEVICES_MAX};
use ace_plugin::{Message, Settings, time};

use request::{Notification, Target};

/// The plugin's name for its credential.
const CREDENTIAL: &str = "fcm";
/// The kinds of contacts that are devices: registration tokens, and Firebase installation ids.
const TOKEN: &str = "push-token";
const FID: &str = "firebase-installation-id";

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct PushNotification;

ace_plugin::export_channel!(PushNotification);

impl Channel for PushNotification {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("push").file("title.txt").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        SETTINGS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = SETTINGS.as_ref().map_err(|why| DeliveryError::Fatal(why.clone()))?;
        let (shared, now) = (devices::Notification::read(message, &rendered)?, time::now());
        let expires = message.expiration_time().map(|_| shared.expires(message, now, devices::TTL_SECONDS_MAX));
        let devices::Notification { title, body, extra } = shared;
        let mut notification = Notification::new(&title, &body, extra);
        if let Some(key) = devices::replacement(message)? {
            notification = notification.replacing(&key);
        }
        if let Some(at) = expires {
            notification = notification.expiring(at, now);
        }
        let recipient = message.recipient();
        let devices = devices::of(recipient.as_ref(), &[TOKEN, FID]);
        devices::deliver(attempt, devices, DEVICES_MAX, settings.timeout_ms, |kind, address| {
            let target = if kind == FID { Target::Fid(address) } else { Target::Token(address) };
            devices::exchange(&notification.request(settings, target), CREDENTIAL, answer::read)
        })
    }
}

/// What edx-ace and the official client do. See tests/fixtures/README.md.
#[cfg(test)]
const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/fcm.json");

#[cfg(test)]
mod tests;
