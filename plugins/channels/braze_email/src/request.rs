//! The request to Braze: `POST /messages/send`
//! (<https://www.braze.com/docs/api/endpoints/messaging/send_messages/post_send_messages/>), in the form of edx-ace.

use ace_plugin::email::{self, Header};
use ace_plugin::http::Request;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::settings::{Campaign, Settings};

/// One mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub user_id: String,
    pub is_transactional: bool,
    pub overrides_capping: bool,
    pub campaign: Option<Campaign>,
    pub from: String,
    pub reply_to: Vec<String>,
    pub headers: Vec<Header>,
    pub subject: String,
    pub html: String,
    pub text: String,
}

#[derive(Serialize)]
struct Body<'a> {
    external_user_ids: [&'a str; 1],
    /// Transactional mails are also sent to users who opted out of mails.
    recipient_subscription_state: &'a str,
    campaign_id: Option<&'a str>,
    override_frequency_capping: bool,
    messages: Messages<'a>,
}

#[derive(Serialize)]
struct Messages<'a> {
    email: Email<'a>,
}

#[derive(Serialize)]
struct Email<'a> {
    app_id: &'a str,
    subject: &'a str,
    from: &'a str,
    reply_to: ReplyTo<'a>,
    body: &'a str,
    plaintext_body: &'a str,
    message_variation_id: Option<&'a str>,
    /// False, because it breaks the styles that ACE has already inlined.
    should_inline_css: bool,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: Headers<'a>,
}

/// Braze accepts one address. edx-ace passes the value of the option, which is a list for relays. Here a list of one becomes its
/// address; a longer list is passed unchanged.
#[derive(Serialize)]
#[serde(untagged)]
enum ReplyTo<'a> {
    None,
    One(&'a str),
    Many(&'a [String]),
}

struct Headers<'a>(&'a [Header]);

impl Headers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Mail {
    /// The request that sends it.
    pub fn request(&self, settings: &Settings) -> Request {
        let mut request = Request::post(&settings.url)
            .header("Authorization", format!("Bearer {}", settings.api_key))
            .header("Content-Type", "application/json")
            .body(self.body(&settings.app_id));
        request.timeout_ms = Some(settings.timeout_ms);
        request
    }

    fn body(&self, app_id: &str) -> Vec<u8> {
        let body = Body {
            external_user_ids: [&self.user_id],
            recipient_subscription_state: if self.is_transactional { "all" } else { "subscribed" },
            campaign_id: self.campaign.as_ref().map(|campaign| campaign.id.as_str()),
            override_frequency_capping: self.overrides_capping,
            messages: Messages {
                email: Email {
                    app_id,
                    subject: &self.subject,
                    from: &self.from,
                    reply_to: match self.reply_to.as_slice() {
                        [] => ReplyTo::None,
                        [one] => ReplyTo::One(one),
                        many => ReplyTo::Many(many),
                    },
                    body: &self.html,
                    plaintext_body: &self.text,
                    message_variation_id: self.campaign.as_ref().and_then(|campaign| campaign.variation.as_deref()),
                    should_inline_css: false,
                    headers: Headers(&self.headers),
                },
            },
        };
        serde_json::to_vec(&body).expect("texts, booleans and maps with text keys are JSON")
    }
}

/// The sender. Unlike a relay, Braze has no default.
pub fn from(own: Option<&str>, default: Option<&str>, from_name: &str) -> Result<String, String> {
    if own.is_none() && default.is_none() {
        return Err(
            "no sender: set config key \"from-email\" or \"default-from-email\", or options /from_address".to_owned()
        );
    }
    Ok(email::sender(own, default, from_name)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
