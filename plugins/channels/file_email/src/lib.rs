//! Writes e-mail as HTML files into the operator's outbox folder: edx-ace's `file_email`, for development.
//!
//! Files are never overwritten. The message's uuid makes their names unique.

mod name;
mod page;

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::outbox::{self, OutboxError};
use ace_plugin::{Error, Message, time};

use page::Mail;

struct FileEmail;

ace_plugin::export_channel!(FileEmail);

impl Channel for FileEmail {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("email")
            .file("from_name.txt")
            .file("subject.txt")
            .file("body.html")
            .file("head.html")
            .file("body.txt")
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let recipient = message.recipient();
        let mail = Mail {
            to: recipient.as_ref().and_then(|r| r.email_address.as_deref()),
            from_name: rendered.text("from_name.txt")?,
            subject: rendered.text("subject.txt")?,
            head: rendered.text("head.html")?,
            body_html: rendered.text("body.html")?,
            body: rendered.text("body.txt")?,
        };
        let own_name = own_name(message)?;
        let repeats_harmlessly = own_name.is_none() || attempt.number > 1;
        let user_id = recipient.as_ref().and_then(|r| r.user_id.as_deref());
        let name = own_name.unwrap_or_else(|| name::of(user_id, time::now(), &message.uuid()));
        match outbox::write(&name, mail.page().as_bytes()) {
            Ok(()) => ace_plugin::info!("wrote {name}"),
            Err(OutboxError::Exists(_)) if repeats_harmlessly => ace_plugin::info!("{name} was written before"),
            Err(error) => return Err(error.into()),
        }
        Ok(Receipt::default().provider_id(name))
    }
}

/// The file name in the message. It may be that of another message, unless an earlier attempt wrote the file. Names that the channel
/// generates are unique.
fn own_name(message: &Message) -> Result<Option<String>, Error> {
    if !message.option_is_true("/output_file_path") {
        return Ok(None);
    }
    let given: Option<String> = message.option("/output_file_path")?;
    given.map(|path| name::relative(&path).map_err(|why| Error::new("options /output_file_path", why))).transpose()
}
