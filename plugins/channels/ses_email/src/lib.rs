//! Delivers e-mail through Amazon SES, from the same template files and options as `django_email`.
//!
//! The modules below do not call the host.

mod answer;
mod ascii;
mod request;
mod settings;

use std::sync::LazyLock;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::{Message, RecoverableError, Settings, authorized_http, delivery, email, random, time};

use answer::Outcome;
use request::Tags;

/// The plugin's name for its credential.
const CREDENTIAL: &str = "ses";

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct SesEmail;

ace_plugin::export_channel!(SesEmail);

impl Channel for SesEmail {
    fn describe() -> ChannelInfo {
        email::channel_info()
    }

    fn enabled() -> Result<(), String> {
        SETTINGS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn deliver(message: &Message, rendered: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = SETTINGS.as_ref().map_err(|why| DeliveryError::Fatal(why.clone()))?;
        let mail = email::compose(message, &rendered, Some(&settings.default_from))?;
        let (uuid, name) = (message.uuid(), message.unique_name());
        let tags = Tags { uuid: &uuid, name: &name, given: message.option("/tags")?.unwrap_or_default() };
        let request = request::request(settings, &mail, tags).map_err(DeliveryError::Fatal)?;
        let response = authorized_http::fetch(&request, CREDENTIAL)?;
        match answer::read(&response, request::sender(settings, &mail), time::now(), random::u64()) {
            Outcome::Accepted(id) => Ok(Receipt { provider_id: id, detail: None }),
            Outcome::Failed(reason) => Err(DeliveryError::Fatal(reason)),
            Outcome::Account(reason, until) => {
                delivery::hold(until, &reason);
                Err(DeliveryError::recoverable(reason))
            }
            Outcome::Later(message, at) => {
                Err(DeliveryError::Recoverable(RecoverableError { message, next_attempt_time: Some(at) }))
            }
        }
    }
}

/// What botocore sends and understands.
#[cfg(test)]
const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/ses.json");

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::SesEmail);
}
