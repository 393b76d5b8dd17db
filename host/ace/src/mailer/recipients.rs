//! The remaining recipients of a mail, and how an attempt changes them. No relay gets a mail twice for a recipient that it accepted or
//! permanently refused.

use super::failure::{FailureDetail, Refusal, Stage};
use super::session::Acceptance;
use super::{Accepted, MailError};
use crate::message::{MailRecord, RecipientRecord, RecipientState};
use ace_address::mailbox::Address;

/// One attempt to send a mail.
pub(super) struct Attempt<'a> {
    pub(super) key: &'a str,
    pub(super) message_id: String,
    pub(super) date: i64,
    /// The recipients of its envelope.
    pub(super) recipients: Vec<Address>,
}

impl Attempt<'_> {
    /// Records that the relay accepted the mail for at least one recipient.
    pub(super) fn accepted(self, record: &mut Option<MailRecord>, acceptance: Acceptance) -> Accepted {
        if record.is_none() && acceptance.refused.is_empty() {
            // The usual case.
            *record = Some(MailRecord { answer: acceptance.answer.clone(), ..self.record() });
            return Accepted { answer: acceptance.answer, message_id: self.message_id, refused: Vec::new() };
        }
        let known = record.get_or_insert_with(|| self.record());
        known.answer.clone_from(&acceptance.answer);
        for address in &self.recipients {
            let refusal = acceptance.refused.iter().find(|refusal| refusal.address == address.as_str());
            set(known, address, refusal);
        }
        Accepted { answer: acceptance.answer, message_id: self.message_id, refused: refusals(known) }
    }

    /// Records that the relay accepted the mail for no recipient. This is not a failure if no recipient remains and an earlier
    /// attempt was accepted for at least one.
    pub(super) fn failed(self, record: &mut Option<MailRecord>, error: MailError) -> Result<Accepted, MailError> {
        let refused = match &error {
            MailError::Temporary { detail, .. } => detail.refused.clone(),
            MailError::Permanent { detail, .. } if !detail.refused.is_empty() => detail.refused.clone(),
            MailError::Permanent { message, .. } => {
                let refusal = |address: &Address| Refusal {
                    address: address.as_str().to_owned(),
                    answer: message.clone(),
                    is_permanent: true,
                };
                self.recipients.iter().map(refusal).collect()
            }
            MailError::Invalid(_) => Vec::new(),
        };
        let is_mixed = refused.iter().any(|r| r.is_permanent) && refused.iter().any(|r| !r.is_permanent);
        if record.is_none() && !is_mixed {
            return Err(error);
        }
        let known = record.get_or_insert_with(|| self.record());
        for address in &self.recipients {
            if let Some(refusal) = refused.iter().find(|refusal| refusal.address == address.as_str()) {
                set(known, address, Some(refusal));
            }
        }
        let is_final = self.recipients.iter().all(|address| known.is_settled(address.as_str()));
        if is_final && known.has(RecipientState::Accepted) { result(known) } else { Err(error) }
    }

    fn record(&self) -> MailRecord {
        MailRecord {
            key: self.key.to_owned(),
            message_id: self.message_id.clone(),
            date: self.date,
            answer: String::new(),
            recipients: Vec::new(),
        }
    }
}

/// The result of a mail without remaining recipients.
pub(super) fn result(record: &MailRecord) -> Result<Accepted, MailError> {
    if record.recipients.is_empty() || record.has(RecipientState::Accepted) {
        return Ok(Accepted {
            answer: record.answer.clone(),
            message_id: record.message_id.clone(),
            refused: refusals(record),
        });
    }
    let detail = FailureDetail { stage: Some(Stage::Recipient), refused: refusals(record), ..FailureDetail::default() };
    Err(MailError::Permanent { message: record.list(RecipientState::Refused), detail })
}

fn set(record: &mut MailRecord, address: &Address, refusal: Option<&Refusal>) {
    let (state, answer) = match refusal {
        None => (RecipientState::Accepted, String::new()),
        Some(refusal) if refusal.is_permanent => (RecipientState::Refused, refusal.answer.clone()),
        Some(refusal) => (RecipientState::Deferred, refusal.answer.clone()),
    };
    match record.recipients.iter_mut().find(|known| known.address == address.as_str()) {
        Some(known) => (known.state, known.answer) = (state, answer),
        None => {
            // The server replies first about the first recipient, which is the main one.
            let main = record.main().is_none();
            record.recipients.push(RecipientRecord { address: address.as_str().to_owned(), main, state, answer });
        }
    }
}

fn refusals(record: &MailRecord) -> Vec<Refusal> {
    let others = record.recipients.iter().filter(|recipient| recipient.state != RecipientState::Accepted);
    let refusal = |recipient: &RecipientRecord| Refusal {
        address: recipient.address.clone(),
        answer: recipient.answer.clone(),
        is_permanent: recipient.state == RecipientState::Refused,
    };
    others.map(refusal).collect()
}
