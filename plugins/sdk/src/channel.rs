//! What a channel implements, and what it says and is told.

use crate::bindings::channel::exports::openedx::ace::channel as wit;
use crate::{Error, Json, Message, RecoverableError};

pub use wit::{ActionLink, Attempt, ChannelInfo, DeliveryError, Receipt, TemplateFile};

/// A channel: it hands rendered messages to whoever carries them on.
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
    /// The channel type and the template files it needs. Asked once a load.
    fn describe() -> ChannelInfo;

    /// Asked once a load, before any message: are my settings usable? An error refuses the plugin; it is what the operator
    /// reads, so name the setting and how to mend it.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// This channel claims this message although another one of its type would be chosen.
    fn overrides_delivery_for_message(_message: &Message) -> bool {
        false
    }

    /// Links for the templates; asked once a message, before it is rendered.
    fn action_links(_message: &Message) -> Vec<ActionLink> {
        Vec::new()
    }

    /// Addresses of tracking images for the templates; asked once a message, before it is rendered.
    fn tracker_image_sources(_message: &Message) -> Vec<String> {
        Vec::new()
    }

    /// Hand the rendered message to the provider, once. No retrying inside: the host repeats a recoverable error.
    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError>;
}

/// The rendered template files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(Vec<(String, String)>);

impl Rendered {
    /// Files by name, in the order [`Channel::describe`] lists them.
    pub fn new(files: Vec<(String, String)>) -> Self {
        Rendered(files)
    }

    /// The text of a file that [`Channel::describe`] calls required. One that is missing all the same is an error.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::new(name, "the host did not render this file"))
    }

    /// The text of a file that is not required. `None`: no template stands for it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(file, _)| file == name).map(|(_, text)| text.as_str())
    }
}

impl ChannelInfo {
    /// A channel of this type without template files.
    pub fn new(channel_type: impl Into<String>) -> Self {
        ChannelInfo { channel_type: channel_type.into(), template_files: Vec::new() }
    }

    /// This description, and a template file without which a message cannot be delivered.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>) -> Self {
        self.template_files.push(TemplateFile { name: name.into(), required: true });
        self
    }

    /// This description, and a template file that may be missing.
    #[must_use]
    pub fn optional_file(mut self, name: impl Into<String>) -> Self {
        self.template_files.push(TemplateFile { name: name.into(), required: false });
        self
    }
}

impl Receipt {
    /// This receipt with the provider's id.
    #[must_use]
    pub fn provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// This receipt with JSON text for the timeline.
    #[must_use]
    pub fn detail(mut self, json: impl Into<Json>) -> Self {
        self.detail = Some(json.into());
        self
    }
}

impl DeliveryError {
    /// A failure that may pass, to be tried again by the host's own schedule.
    pub fn recoverable(message: impl Into<String>) -> Self {
        DeliveryError::Recoverable(RecoverableError { message: message.into(), next_attempt_time: None })
    }
}

/// An option or setting that cannot be read stays so: fatal.
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
        let missing = DeliveryError::from(rendered.text("body.txt").expect_err("it is not there"));
        assert_eq!(missing, DeliveryError::Fatal("body.txt: the host did not render this file".to_owned()));
    }
}
