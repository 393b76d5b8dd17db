//! Whom a mail still goes to, and how an attempt changes that: no relay gets a mail for a recipient twice, or again for one
//! that it refused for good.

use super::address::Address;
use super::failure::{FailureDetail, Refusal, Stage};
use super::session::Taken;
use super::{Accepted, MailError};
use crate::message::{MailRecord, RecipientRecord, RecipientState};

/// One attempt to hand a mail over.
pub(super) struct Attempt<'a> {
    pub(super) key: &'a str,
    pub(super) message_id: String,
    pub(super) date: i64,
    /// Who is in its envelope.
    pub(super) recipients: Vec<Address>,
}

impl Attempt<'_> {
    /// Notes that the relay took the mail, for some recipients at least.
    pub(super) fn accepted(self, record: &mut Option<MailRecord>, taken: Taken) -> Accepted {
        if record.is_none() && taken.refused.is_empty() {
            // What most mails come to.
            *record = Some(MailRecord { answer: taken.answer.clone(), ..self.record() });
            return Accepted { answer: taken.answer, message_id: self.message_id, refused: Vec::new() };
        }
        let known = record.get_or_insert_with(|| self.record());
        known.answer.clone_from(&taken.answer);
        for address in &self.recipients {
            let refusal = taken.refused.iter().find(|refusal| refusal.address == address.as_str());
            set(known, address, refusal);
        }
        Accepted { answer: taken.answer, message_id: self.message_id, refused: refusals(known) }
    }

    /// Notes that the relay took the mail for nobody. Where nothing is left to try and somebody has it from an earlier
    /// attempt, that is no failure of the mail any more.
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
        let is_over = self.recipients.iter().all(|address| known.is_settled(address.as_str()));
        if is_over && known.has(RecipientState::Accepted) { answer(known) } else { Err(error) }
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

/// What a mail came to that nobody is left for.
pub(super) fn answer(record: &MailRecord) -> Result<Accepted, MailError> {
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
            // The first of a mail's recipients is asked about first, too.
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
