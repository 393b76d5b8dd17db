//! The trait of channels, and its values.

use crate::bindings::channel::exports::openedx::ace::channel as wit;
use crate::{Error, Json, Message, RecoverableError};

pub use wit::{ActionLink, Attempt, ChannelInfo, DeliveryError, Receipt, TemplateFile};

/// A channel: it delivers rendered messages to a provider.
///
/// ```
/// use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
/// use ace_plugin::{Message, http};
///
/// struct Sms;
///
/// impl Channel for Sms {
///     fn describe() -> ChannelInfo {
///         ChannelInfo::new("sms").file("body.txt")
///     }
///
///     fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
///         let recipient = message.recipient();
///         let Some(phone) = recipient.as_ref().and_then(|recipient| recipient.contact("phone")) else {
///             return Err(DeliveryError::Skipped("the recipient has no phone".to_owned()));
///         };
///         let request = http::Request::post(format!("https://sms.example.com/{phone}"))
///             .header("Idempotency-Key", &attempt.idempotency_key)
///             .body(rendered.text("body.txt")?);
///         http::fetch_ok(&request)?;
///         Ok(Receipt::default())
///     }
/// }
///
/// ace_plugin::export_channel!(Sms);
/// ```
pub trait Channel {
    /// The channel type and the template files that the channel requests. Called once per load.
    fn describe() -> ChannelInfo;

    /// Checks the settings, once per load, before any message. An error rejects the plugin and is shown to the operator: name the
    /// setting and how to fix it.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// Whether this channel claims the message although another one of its type would be chosen.
    fn overrides_delivery_for_message(_message: &Message) -> bool {
        false
    }

    /// Links for the templates. Called once per message, before rendering.
    fn action_links(_message: &Message) -> Vec<ActionLink> {
        Vec::new()
    }

    /// URLs of tracking images for the templates. Called once per message, before rendering.
    fn tracker_image_sources(_message: &Message) -> Vec<String> {
        Vec::new()
    }

    /// Delivers the rendered message to the provider, once. Do not retry here: the host retries recoverable errors.
    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError>;
}

/// The rendered template files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(Vec<(String, String)>);

impl Rendered {
    /// Files by name, in the order of [`Channel::describe`].
    pub fn new(files: Vec<(String, String)>) -> Self {
        Rendered(files)
    }

    /// The text of a required file of [`Channel::describe`].
    ///
    /// # Errors
    /// If the file is missing.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::new(name, "the host did not render this file"))
    }

    /// The text of an optional file. `None` if it has no template.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(file, _)| file == name).map(|(_, text)| text.as_str())
    }
}

impl ChannelInfo {
    /// A description of a channel type without template files.
    pub fn new(channel_type: impl Into<String>) -> Self {
        ChannelInfo { channel_type: channel_type.into(), template_files: Vec::new() }
    }

    /// Adds a required template file.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>) -> Self {
        self.template_files.push(TemplateFile { name: name.into(), required: true });
        self
    }

    /// Adds an optional template file.
    #[must_use]
    pub fn optional_file(mut self, name: impl Into<String>) -> Self {
        self.template_files.push(TemplateFile { name: name.into(), required: false });
        self
    }
}

impl Receipt {
    /// Sets the provider's id of the message.
    #[must_use]
    pub fn provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// Sets further details, as JSON.
    #[must_use]
    pub fn detail(mut self, json: impl Into<Json>) -> Self {
        self.detail = Some(json.into());
        self
    }
}

impl DeliveryError {
    /// A temporary failure: the host retries on its own schedule.
    pub fn recoverable(message: impl Into<String>) -> Self {
        DeliveryError::Recoverable(RecoverableError { message: message.into(), next_attempt_time: None })
    }
}

/// An invalid option or setting is fatal.
impl From<Error> for DeliveryError {
    fn from(error: Error) -> Self {
        DeliveryError::Fatal(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_files_are_found_by_name() {
        let rendered = Rendered::new(vec![("subject.txt".to_owned(), "Hi".to_owned())]);
        assert_eq!(rendered.text("subject.txt"), Ok("Hi"));
        assert_eq!(rendered.get("body.txt"), None);
        let missing = DeliveryError::from(rendered.text("body.txt").expect_err("it is missing"));
        assert_eq!(missing, DeliveryError::Fatal("body.txt: the host did not render this file".to_owned()));
    }
}
