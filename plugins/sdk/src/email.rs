//! Common functions of channels of the type `email`: the template files, the parts of a mail, and sending through the host's relays as
//! edx-ace's `django_email` does, plus display names, copies, attachments and one-click unsubscribe.

mod attachments;
mod headers;
mod sender;
mod text;

pub use headers::{Header, corrected as corrected_headers};
pub use sender::{address, display_name, sender};
pub use text::{one_line, page};

use serde::Serialize;

use crate::channel::{Attempt, ChannelInfo, DeliveryError, Receipt, Rendered};
use crate::mailer::{self, Accepted, Attachment, Email};
use crate::{Error, Message};

/// The defaults of a mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The sender: `Name <address>` or an address. `None` for the relay's default.
    pub from: Option<String>,
    /// The name of a configured relay. `None` for the default one.
    pub relay: Option<String>,
}

/// The channel type `email` with edx-ace's five files, all required.
pub fn channel_info() -> ChannelInfo {
    ChannelInfo::new("email")
        .file("from_name.txt")
        .file("subject.txt")
        .file("body.html")
        .file("head.html")
        .file("body.txt")
}

/// The parts of a mail from the five files of [`channel_info`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEmail<'a> {
    /// The display name of the sender: one line, may be empty.
    pub from_name: String,
    /// The subject: one line.
    pub subject: String,
    /// The HTML page, head and body.
    pub html: String,
    /// The plain text.
    pub text: &'a str,
}

impl<'a> RenderedEmail<'a> {
    /// Reads the files of [`channel_info`].
    ///
    /// # Errors
    /// If a file is missing. The error names it.
    ///
    /// ```
    /// use ace_plugin::channel::Rendered;
    /// use ace_plugin::email::RenderedEmail;
    ///
    /// let files = ["from_name.txt", "subject.txt", "body.html", "head.html", "body.txt"];
    /// let rendered = Rendered::new(files.map(|name| (name.to_owned(), format!("{name}\n"))).to_vec());
    /// let email = RenderedEmail::of(&rendered)?;
    /// assert_eq!(email.subject, "subject.txt");
    /// # Ok::<(), ace_plugin::Error>(())
    /// ```
    pub fn of(rendered: &'a Rendered) -> Result<Self, Error> {
        Ok(RenderedEmail {
            from_name: one_line(rendered.text("from_name.txt")?),
            subject: one_line(rendered.text("subject.txt")?),
            html: page(rendered.text("head.html")?, rendered.text("body.html")?),
            text: rendered.text("body.txt")?,
        })
    }
}

/// The recipient's address.
///
/// # Errors
/// Skipped if there is none. (edx-ace counts the message as delivered.)
pub fn recipient_address(message: &Message) -> Result<String, DeliveryError> {
    let address = message.recipient().and_then(|r| r.email_address).unwrap_or_default();
    match address.trim() {
        "" => Err(DeliveryError::Skipped("the recipient has no e-mail address".to_owned())),
        _ => Ok(address),
    }
}

/// The sender in the message (`options.from_address`).
///
/// # Errors
/// If the option is empty. As in edx-ace, an empty option does not fall back to the default.
pub fn from_address(message: &Message) -> Result<Option<String>, Error> {
    let Some(json) = message.option_json("/from_address") else { return Ok(None) };
    match serde_json::from_str::<String>(&json) {
        Ok(text) if !text.trim().is_empty() => Ok(Some(text)),
        _ => Err(Error::new("options /from_address", "it has no address; omit the option for the default sender")),
    }
}

/// An option with an address or a list of addresses (`/reply_to`), without empty ones.
///
/// # Errors
/// If the option has another type.
pub fn addresses(message: &Message, pointer: &str) -> Result<Vec<String>, Error> {
    let json = message.option_json(pointer).unwrap_or_default();
    text::one_or_many(&json).map_err(|e| Error::new(format_args!("options {pointer}"), e))
}

/// For a channel that supports neither copies nor attachments. `provider` is its name.
///
/// # Errors
/// If the message has copies or attachments, so that it is not sent without them.
pub fn refuse_copies_and_attachments(message: &Message, provider: &str) -> Result<(), Error> {
    let found = ["/cc", "/bcc", "/attachments"].into_iter().find(|pointer| message.option_is_true(pointer));
    let why = || format!("{provider} does not support it; send the message over a channel that uses the host's relays");
    found.map_or(Ok(()), |pointer| Err(Error::new(format_args!("options {pointer}"), why())))
}

/// Sends the message through the host's relays. Needs the grant `mailer`.
///
/// # Errors
/// If the recipient has no address, an option is invalid, or the relay does not accept the mail.
pub fn send(
    message: &Message,
    rendered: &Rendered,
    attempt: &Attempt,
    defaults: &Defaults,
) -> Result<Accepted, DeliveryError> {
    let mut email = compose(message, rendered, defaults.from.as_deref())?;
    email.relay = message.option("/relay")?.or_else(|| defaults.relay.clone());
    Ok(mailer::send(&email, &attempt.idempotency_key)?)
}

/// The mail of a message: sender, recipients, subject, text, HTML, headers and attachments. For channels that send it by themselves;
/// [`send`] sends it through the host's relays. `default_from` is the sender if the message names none.
///
/// The display name is that of `options.from_address`, otherwise the rendered `from_name`. Both headers of RFC 8058 are added if the
/// context has an `unsubscribe_url`. Addresses, headers and media types are not checked yet.
///
/// # Errors
/// Skipped if the recipient has no address. Fatal if an option is invalid.
pub fn compose(message: &Message, rendered: &Rendered, default_from: Option<&str>) -> Result<Email, DeliveryError> {
    let address = recipient_address(message)?;
    let rendered = RenderedEmail::of(rendered)?;
    let sender = sender(from_address(message)?.as_deref(), default_from, &rendered.from_name);
    Ok(Email {
        sender: sender.map_err(DeliveryError::Fatal)?,
        recipients: vec![address],
        cc: addresses(message, "/cc")?,
        bcc: addresses(message, "/bcc")?,
        reply_to: addresses(message, "/reply_to")?,
        subject: rendered.subject,
        text: rendered.text.to_owned(),
        html: Some(rendered.html),
        headers: headers_of(message),
        attachments: attachments_of(message)?,
        relay: None,
        return_path: None,
    })
}

fn headers_of(message: &Message) -> Vec<Header> {
    let given = headers::corrected(message.headers());
    if headers::has_unsubscribe(&given) {
        return given;
    }
    // The context is for templates, so a value of another type is not an error.
    match message.context::<String>("/unsubscribe_url") {
        Ok(Some(url)) if !message.is_transactional() && !message.context_is_true("/omit_unsubscribe_link") => {
            headers::with_one_click_unsubscribe(given, &url).unwrap_or_else(|(given, why)| {
                crate::warn!("context /unsubscribe_url cannot be used for List-Unsubscribe: {why}");
                given
            })
        }
        _ => given,
    }
}

fn attachments_of(message: &Message) -> Result<Vec<Attachment>, DeliveryError> {
    let given: Vec<attachments::Given> = message.option("/attachments")?.unwrap_or_default();
    given.into_iter().map(|one| one.decoded().map_err(DeliveryError::Fatal)).collect()
}

/// The receipt of an accepted mail: its Message-ID, the relay's reply, refused recipients, and the channel's note if there is one.
pub fn receipt(accepted: Accepted, note: Option<&str>) -> Receipt {
    #[derive(Serialize)]
    struct Refusal {
        recipient: String,
        answer: String,
    }
    #[derive(Serialize)]
    struct Detail<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a str>,
        answer: String,
        refused: Vec<Refusal>,
    }
    let refused = accepted.refused.into_iter().map(|(recipient, answer)| Refusal { recipient, answer }).collect();
    let detail = serde_json::to_string(&Detail { note, answer: accepted.answer, refused });
    Receipt { provider_id: Some(accepted.message_id), detail: detail.ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Accepted {
        Accepted {
            answer: "250 queued as \"7\"".to_owned(),
            message_id: "u.email@example.com".to_owned(),
            refused: vec![("b@example.com".to_owned(), "550 no".to_owned())],
        }
    }

    #[test]
    fn the_receipt_has_the_relays_reply_and_the_refused_recipients() {
        let receipt = receipt(accepted(), None);
        assert_eq!(receipt.provider_id.as_deref(), Some("u.email@example.com"));
        let detail = r#"{"answer":"250 queued as \"7\"","refused":[{"recipient":"b@example.com","answer":"550 no"}]}"#;
        assert_eq!(receipt.detail.as_deref(), Some(detail));
    }

    #[test]
    fn a_note_of_the_channel_comes_first() {
        let detail = receipt(accepted(), Some("by mail")).detail.expect("a detail");
        assert!(detail.starts_with(r#"{"note":"by mail","answer":"#), "{detail}");
    }
}
