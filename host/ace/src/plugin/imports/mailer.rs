//! `mailer`: mail over the operator's relays.

use data_encoding::HEXLOWER;
use jiff::Timestamp;

use crate::destination::Cause;
use crate::mailer::{self, MailError as Failure, Stage};
use crate::plugin::Services;
use crate::plugin::runtime::bindings::common::RecoverableError;
use crate::plugin::runtime::bindings::mailer::{Accepted, Email, Host, MailError};
use crate::plugin::runtime::contacts::{ContactOutcome, EndedContact, Target};
use crate::plugin::runtime::notes::not_stored;
use crate::plugin::runtime::state::State;
use crate::plugin::runtime::world::Interception;

impl Host for State {
    async fn send(&mut self, email: Email, idempotency_key: String) -> wasmtime::Result<Result<Accepted, MailError>> {
        self.count_host_call()?;
        if let Err(why) = self.grants.mailer() {
            return Ok(Err(MailError::Denied(self.refuse("mailer", why))));
        }
        if self.call.dry {
            return Ok(Err(MailError::Denied(self.refuse("mailer", "nothing is sent in a dry call".to_owned()))));
        }
        let Some(message_id) = self.message_id(&idempotency_key) else {
            return Ok(Err(MailError::Denied(self.refuse("mailer", "only `deliver` can send mail".to_owned()))));
        };
        Ok(self.outside(async |state| state.hand_over(email, &message_id).await).await)
    }
}

impl State {
    /// Derived from what the host knows, so that a guest cannot use the id of another message. Several mails of one delivery
    /// differ by their keys.
    fn message_id(&self, idempotency_key: &str) -> Option<String> {
        use sha2::{Digest, Sha256};
        let own = self.call.delivery_key.as_ref()?;
        if idempotency_key == own {
            return Some(own.clone());
        }
        Some(format!("{own}.{}", HEXLOWER.encode(&Sha256::digest(idempotency_key)[..6])))
    }

    async fn hand_over(&mut self, email: Email, message_id: &str) -> Result<Accepted, MailError> {
        // An earlier attempt sent this mail and has its answer.
        if let Some(answer) = self.call.handover.mail(message_id).and_then(mailer::final_result) {
            return self.mail_answer(answer);
        }
        if let Some(notes) = self.call.notes.unstored() {
            notes.store().await.map_err(|why| temporary(not_stored(&why), None))?;
        }
        let (services, settings) = (self.services.clone(), self.settings.clone());
        let relay = services.mailer.relay_name(email.relay.as_deref());
        if let Some((relay, caller)) = relay.and_then(|relay| Some((relay, self.caller()?))) {
            match self.contacts.start(&caller, &settings.name, Target::Relay(relay)) {
                Ok(contact) => self.contacts.start_mail(relay, contact),
                Err(why) => return Err(temporary(why, None)),
            }
        }
        let answer = self.send_mail(&services, email, message_id).await;
        if let (Some((contact, relay)), Some(caller)) = (self.contacts.end_mail(), self.caller()) {
            let outcome = contact_outcome(&answer, &relay);
            let ended = EndedContact { contact, target: Target::Relay(&relay), outcome };
            self.contacts.settle(&caller, &settings.name, ended);
        }
        self.mail_answer(answer)
    }

    /// The answer in the form that the guest gets.
    fn mail_answer(&mut self, answer: Result<mailer::Accepted, Failure>) -> Result<Accepted, MailError> {
        match answer {
            Ok(accepted) => {
                self.call.handover.accepted = Some(format!("{} {}", accepted.message_id, accepted.answer));
                let refused = accepted.refused.into_iter().map(|refusal| (refusal.address, refusal.answer)).collect();
                Ok(Accepted { answer: accepted.answer, message_id: accepted.message_id, refused })
            }
            Err(Failure::Invalid(text)) => Err(MailError::Invalid(text)),
            Err(Failure::Permanent { message, .. }) => Err(MailError::Permanent(message)),
            Err(Failure::Temporary { message, next_attempt_time, .. }) => Err(temporary(message, next_attempt_time)),
        }
    }

    async fn send_mail(
        &mut self,
        services: &Services,
        email: Email,
        message_id: &str,
    ) -> Result<mailer::Accepted, Failure> {
        self.call.handover.pending = Some("mail was handed to the relay".to_owned());
        let message = self.call.message.as_ref().map(|message| message.uuid);
        let email = mailer::Email { message, ..mailer::Email::from(email) };
        // If the call is dropped meanwhile, the caller of the delivery still has the earlier record.
        let mut record = self.call.handover.take_mail(message_id);
        let progress = self.contacts.progress();
        // Boxed because the future is large.
        let answer = match services.world.mail(&email, message_id) {
            Interception::Answered(answer) => answer,
            interception => {
                let answer = Box::pin(services.mailer.send_watched(email, message_id, &mut record, progress)).await;
                if let Interception::Recorded(request) = interception {
                    services.world.mail_answered(request, &answer);
                }
                answer
            }
        };
        self.call.handover.keep_mail(record);
        if !matches!(answer, Err(Failure::Temporary { maybe_sent: true, .. })) {
            self.call.handover.pending = None;
        }
        answer
    }
}

fn temporary(message: String, next_attempt_time: Option<Timestamp>) -> MailError {
    let next_attempt_time = next_attempt_time.map(|t| t.as_millisecond().max(0) as u64);
    MailError::Temporary(RecoverableError { message, next_attempt_time })
}

/// What an answer says about the relay. A failure after a recipient was named is not the relay's; the answer to MAIL may be about
/// the sender or the size of this mail.
fn contact_outcome(answer: &Result<mailer::Accepted, Failure>, relay: &str) -> ContactOutcome {
    let (message, detail) = match answer {
        Ok(_) => return ContactOutcome::Reached { is_accepted: true },
        Err(Failure::Invalid(_)) => return ContactOutcome::Unknown,
        Err(Failure::Temporary { message, detail, .. } | Failure::Permanent { message, detail }) => (message, detail),
    };
    let prefix = format!("relay {relay}: ");
    let reason = || message.strip_prefix(&prefix).unwrap_or(message).to_owned();
    match detail.stage {
        None => ContactOutcome::Unknown,
        Some(stage) if stage.has_named_recipients() => ContactOutcome::Reached { is_accepted: false },
        Some(Stage::Sender) => ContactOutcome::Failed(Cause::Unclear, reason()),
        Some(_) => ContactOutcome::Failed(Cause::Destination, reason()),
    }
}

impl From<Email> for mailer::Email {
    fn from(email: Email) -> Self {
        mailer::Email {
            sender: email.sender,
            recipients: email.recipients,
            cc: email.cc,
            bcc: email.bcc,
            reply_to: email.reply_to,
            subject: email.subject,
            text: email.text,
            html: email.html,
            headers: email.headers,
            attachments: email
                .attachments
                .into_iter()
                .map(|a| mailer::Attachment {
                    file_name: a.file_name,
                    content_type: a.content_type,
                    content: a.content,
                    content_id: a.content_id,
                })
                .collect(),
            relay: email.relay,
            return_path: email.return_path,
            message: None,
        }
    }
}
