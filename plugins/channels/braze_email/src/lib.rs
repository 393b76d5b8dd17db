//! Delivers e-mail through Braze: edx-ace's `braze_email`. Braze identifies recipients by their user id and has their addresses.
//! Recipients without an id get the mail through the host's relays.
//!
//! The modules below do not call the host. They are tested natively against the requests of the real edx-ace and its interpretation of
//! responses (tests/fixtures/http_shapes.json).

mod answer;
mod request;
mod settings;

use std::sync::LazyLock;

use ace_plugin::channel::{ActionLink, Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::email::{self, Defaults, RenderedEmail};
use ace_plugin::{Error, Message, Recipient, Settings, http, random, time};

use request::Mail;

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct BrazeEmail;

ace_plugin::export_channel!(BrazeEmail);

impl Channel for BrazeEmail {
    fn describe() -> ChannelInfo {
        email::channel_info()
    }

    fn enabled() -> Result<(), String> {
        settings().map(|_| ())
    }

    /// Claims messages with a campaign, including transactional ones, because the campaign counts them.
    fn overrides_delivery_for_message(message: &Message) -> bool {
        settings().is_ok_and(|settings| settings.campaigns.contains_key(&message.name()))
    }

    /// Braze replaces the placeholder by the URL.
    fn action_links(_: &Message) -> Vec<ActionLink> {
        vec![ActionLink {
            url: "{{${set_user_to_unsubscribed_url}}}".to_owned(),
            text: "Unsubscribe from this list".to_owned(),
            unsubscribe: true,
        }]
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = settings().map_err(DeliveryError::Fatal)?;
        match message.recipient().and_then(user_id) {
            Some(user_id) => by_braze(settings, message, &rendered, user_id),
            None => by_mail(settings, message, &rendered, attempt),
        }
    }
}

fn settings() -> Result<&'static settings::Settings, String> {
    SETTINGS.as_ref().map_err(Clone::clone)
}

/// The recipient's id at Braze. Applications use 0 or nothing for people without an account.
fn user_id(recipient: Recipient) -> Option<String> {
    recipient.user_id.filter(|id| !id.trim().is_empty() && recipient.lms_user_id != Some(0))
}

fn by_braze(
    settings: &settings::Settings,
    message: &Message,
    rendered: &Rendered,
    user_id: String,
) -> Result<Receipt, DeliveryError> {
    let request = mail(settings, message, rendered, user_id)?.request(settings);
    answer::read(&http::fetch(&request)?, time::now(), random::u64())
}

fn mail(
    settings: &settings::Settings,
    message: &Message,
    rendered: &Rendered,
    user_id: String,
) -> Result<Mail, DeliveryError> {
    email::refuse_copies_and_attachments(message, "Braze")?;
    let is_transactional = message.is_transactional();
    let rendered = RenderedEmail::of(rendered)?;
    Ok(Mail {
        user_id,
        is_transactional,
        overrides_capping: match message.option_json("/override_frequency_capping") {
            Some(_) => message.option_is_true("/override_frequency_capping"),
            None => is_transactional,
        },
        campaign: settings.campaigns.get(&message.name()).cloned(),
        from: from(settings, message, &rendered.from_name)?,
        reply_to: email::addresses(message, "/reply_to")?,
        headers: email::corrected_headers(message.headers()),
        subject: rendered.subject,
        html: rendered.html,
        text: rendered.text.to_owned(),
    })
}

/// The sender: the one configured for Braze, which only accepts registered senders, otherwise that of the message, otherwise the default.
fn from(settings: &settings::Settings, message: &Message, from_name: &str) -> Result<String, DeliveryError> {
    let own = match &settings.from {
        Some(from) => Some(from.clone()),
        None => email::from_address(message)?,
    };
    request::from(own.as_deref(), settings.default_from.as_deref(), from_name).map_err(DeliveryError::Fatal)
}

const NO_USER_ID: &str = "the recipient has no user id, which Braze requires";

fn by_mail(
    settings: &settings::Settings,
    message: &Message,
    rendered: &Rendered,
    attempt: &Attempt,
) -> Result<Receipt, DeliveryError> {
    let defaults = Defaults { from: settings.default_from.clone(), relay: None };
    match email::send(message, rendered, attempt, &defaults) {
        Ok(accepted) => {
            let note = format!("sent by a relay, not by Braze: {NO_USER_ID}");
            Ok(email::receipt(accepted, Some(&note)))
        }
        Err(DeliveryError::Skipped(_)) => {
            Err(DeliveryError::Skipped(format!("{NO_USER_ID}, and no e-mail address for the fallback")))
        }
        Err(DeliveryError::Fatal(why)) => {
            Err(Error::new(format_args!("{NO_USER_ID}, and the fallback mail failed"), why).into())
        }
        Err(temporary) => Err(temporary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_empty_ids_are_none() {
        let with = |text: Option<&str>, number| {
            user_id(Recipient {
                user_id: text.map(str::to_owned),
                lms_user_id: number,
                email_address: None,
                contacts: Vec::new(),
            })
        };
        assert_eq!(with(Some("123"), Some(123)).as_deref(), Some("123"));
        assert_eq!(with(Some("abc-7"), None).as_deref(), Some("abc-7"));
        assert_eq!(with(Some("0"), Some(0)), None);
        assert_eq!(with(Some(""), None), None);
        assert_eq!(with(None, None), None);
    }
}
