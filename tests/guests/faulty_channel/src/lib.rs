//! A channel of the type `email` that fails as `context.channel_fault` of a message says, before or after it has sent a
//! mail.

use ace_plugin::Message;
use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::mailer::{self, Email};

struct FaultyChannel;

ace_plugin::export_channel!(FaultyChannel);

impl Channel for FaultyChannel {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("email").file("subject.txt").file("body.txt")
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let fault: String = message.context("/channel_fault")?.unwrap_or_default();
        if fault == "before" && attempt.number == 1 {
            panic!("before the mail is sent");
        }
        let address = message.recipient().and_then(|r| r.email_address).unwrap_or_default();
        let email = Email {
            recipients: vec![address],
            subject: rendered.text("subject.txt")?.trim().to_owned(),
            text: rendered.text("body.txt")?.to_owned(),
            ..Email::default()
        };
        let accepted = mailer::send(&email, &attempt.idempotency_key)?;
        if fault == "after" {
            panic!("after the mail was sent");
        }
        Ok(Receipt::default().provider_id(accepted.message_id))
    }
}
