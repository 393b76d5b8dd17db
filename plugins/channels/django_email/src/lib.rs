//! Delivers e-mail through the host's relays: edx-ace's `django_email`, plus display names, copies, attachments, one-click unsubscribe,
//! and an outcome for recipients without an address. See [`ace_plugin::email`], which other channels use as a fallback.

use std::sync::LazyLock;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::email::{self, Defaults};
use ace_plugin::{Message, Settings};

static DEFAULTS: LazyLock<Defaults> =
    LazyLock::new(|| Defaults { from: Settings.text("default-from-email"), relay: Settings.text("relay") });

struct DjangoEmail;

ace_plugin::export_channel!(DjangoEmail);

impl Channel for DjangoEmail {
    fn describe() -> ChannelInfo {
        email::channel_info()
    }

    fn enabled() -> Result<(), String> {
        for (key, value) in [("default-from-email", &DEFAULTS.from), ("relay", &DEFAULTS.relay)] {
            if value.as_deref().is_some_and(|text| text.trim().is_empty()) {
                return Err(format!("config key {key:?}: it is empty; omit it for the host's default"));
            }
        }
        match DEFAULTS.from.as_deref().map(email::address) {
            Some(Err(why)) => Err(format!("config key \"default-from-email\": {why}")),
            _ => Ok(()),
        }
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let accepted = email::send(message, &rendered, attempt, &DEFAULTS)?;
        Ok(email::receipt(accepted, None))
    }
}
