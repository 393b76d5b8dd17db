//! Delivers e-mail through the Sailthru API: edx-ace's `sailthru_email`. A template at Sailthru combines the rendered files, which are
//! passed as variables.
//!
//! The modules below do not call the host. They are tested natively against the requests of the real edx-ace and its interpretation of
//! responses (tests/fixtures/http_shapes.json).

mod answer;
mod request;
mod settings;

use std::sync::LazyLock;

use ace_plugin::channel::{ActionLink, Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::{Message, Settings, email, http, random, time};

use request::{Send, Vars};

/// The most characters of a message in the log of the debug mode.
const LOGGED_CHARS: usize = 8_000;

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct SailthruEmail;

ace_plugin::export_channel!(SailthruEmail);

impl Channel for SailthruEmail {
    fn describe() -> ChannelInfo {
        email::channel_info()
    }

    fn enabled() -> Result<(), String> {
        settings().map(|_| ())
    }

    /// Sailthru replaces the placeholders by URLs.
    fn action_links(_: &Message) -> Vec<ActionLink> {
        let link =
            |url: &str, text: &str, unsubscribe| ActionLink { url: url.to_owned(), text: text.to_owned(), unsubscribe };
        vec![link("{view_url}", "View on Web", false), link("{optout_confirm_url}", "Unsubscribe from this list", true)]
    }

    fn tracker_image_sources(_: &Message) -> Vec<String> {
        vec!["{beacon_src}".to_owned()]
    }

    fn deliver(message: &Message, rendered: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = settings().map_err(DeliveryError::Fatal)?;
        let address = email::recipient_address(message)?;
        email::refuse_copies_and_attachments(message, "Sailthru")?;
        let reply_to = email::addresses(message, "/reply_to")?;
        let from_address = if reply_to.is_empty() { email::from_address(message)? } else { None };
        let json = Send {
            template: &settings.template_name,
            email: &address,
            vars: Vars {
                from_name: request::stripped(rendered.text("from_name.txt")?),
                subject: request::stripped(rendered.text("subject.txt")?),
                body_html: request::stripped(rendered.text("body.html")?),
                head_html: request::stripped(rendered.text("head.html")?),
                body: request::stripped(rendered.text("body.txt")?),
            },
            options: request::options(&reply_to, from_address.as_deref()),
        }
        .json();
        if settings.is_debug {
            return Ok(debug(&json));
        }
        let response = http::fetch(&request::request(settings, &json))?;
        answer::read(&response, time::now(), random::u64())
    }
}

fn settings() -> Result<&'static settings::Settings, String> {
    SETTINGS.as_ref().map_err(Clone::clone)
}

/// Sends nothing, but counts as delivered, as in edx-ace.
fn debug(json: &str) -> Receipt {
    let cut: String = json.chars().take(LOGGED_CHARS).collect();
    ace_plugin::info!("debug is on, not sent to Sailthru: {cut}");
    Receipt::default().detail(r#"{"note":"config key \"debug\" is true: logged, not sent"}"#)
}
