//! Deliveries whose mails a relay accepted for some recipients and refused or deferred for others. The relay's replies decide the
//! outcome of such a delivery, whatever the channel returns.

use serde::{Deserialize, Serialize};

use crate::message::{ChannelType, DeliveryError, MailRecord, Outcome, Receipt, RecipientRecord, RecipientState};

/// The state of a delivery's mails. It is stored: new fields must have a default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Mails {
    #[serde(default)]
    records: Vec<MailRecord>,
    /// The channel's receipt, if it considered the delivery complete while some recipients were deferred.
    #[serde(default)]
    receipt: Option<Receipt>,
}

/// The mails of a failed delivery that some recipients have got. They do not get them again if the message is retried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RetainedMails {
    pub(super) channel_type: ChannelType,
    /// The key of the delivery.
    key: String,
    records: Vec<MailRecord>,
}

impl RetainedMails {
    #[cfg(test)]
    pub(super) fn of(channel_type: &str, key: &str, records: Vec<MailRecord>) -> Self {
        RetainedMails { channel_type: channel_type.to_owned(), key: key.to_owned(), records }
    }

    /// The mails for a delivery with this key.
    pub(super) fn for_delivery(&self, key: &str) -> Mails {
        let records = self.records.iter().map(|record| {
            let tail = record.key.strip_prefix(&self.key);
            let key = tail.map_or_else(|| record.key.clone(), |tail| format!("{key}{tail}"));
            MailRecord { key, ..record.clone() }
        });
        Mails { records: records.collect(), receipt: None }
    }
}

impl Mails {
    #[cfg(test)]
    pub(super) fn of(records: Vec<MailRecord>, receipt: Option<Receipt>) -> Self {
        Mails { records, receipt }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.receipt.is_none()
    }

    pub(super) fn records(&self) -> Vec<MailRecord> {
        self.records.clone()
    }

    /// Records the mails of an attempt and judges its result: an attempt with deferred recipients is retried, and one whose main
    /// recipient was refused has failed.
    pub(super) fn judge(
        &mut self,
        key: &str,
        records: Vec<MailRecord>,
        answer: Result<Receipt, DeliveryError>,
    ) -> Result<Receipt, DeliveryError> {
        self.records = records;
        // The usual case: every recipient was accepted.
        if self.records.iter().all(|mail| mail.recipients.is_empty()) {
            return answer;
        }
        let unfinished: Vec<&MailRecord> = self.records.iter().filter(|mail| mail.is_unfinished()).collect();
        let has_deferred = !unfinished.is_empty();
        let deferred: Vec<String> = unfinished.iter().map(|mail| mail.list(RecipientState::Deferred)).collect();
        let refused =
            self.mail(key).filter(|mail| mail.main().is_some_and(|main| main.state == RecipientState::Refused));
        let retry = || Err(DeliveryError::Recoverable { message: deferred.join("; "), next_attempt_time: None });
        match answer {
            Err(
                DeliveryError::Unavailable(_) | DeliveryError::MaybeSent { .. } | DeliveryError::Recoverable { .. },
            ) => answer,
            Ok(receipt) if has_deferred => {
                self.receipt = Some(receipt);
                retry()
            }
            Err(DeliveryError::SentWithFault { answer, .. }) if has_deferred => {
                self.receipt = Some(Receipt { provider_id: Some(answer), detail: None });
                retry()
            }
            _ if has_deferred => retry(),
            Ok(_) | Err(DeliveryError::SentWithFault { .. }) if let Some(mail) = refused => {
                Err(DeliveryError::Fatal(mail.list(RecipientState::Refused)))
            }
            other => other,
        }
    }

    /// Whether the mail was accepted for its main recipient, so that no other channel may send the message.
    pub(super) fn is_main_accepted(&self, key: &str) -> bool {
        match self.mail(key) {
            Some(mail) => mail.is_main_accepted(),
            None => self.receipt.is_some(),
        }
    }

    /// The final outcome of the delivery: a mail that was accepted for its main recipient is sent, even if copies were refused.
    pub(super) fn settle(&mut self, key: &str, outcome: Outcome) -> Outcome {
        if matches!(outcome, Outcome::Sent { .. }) || !self.is_main_accepted(key) {
            return outcome;
        }
        let receipt = self.receipt.take().or_else(|| self.mail(key).map(receipt)).unwrap_or_default();
        Outcome::Sent { receipt, fault: None }
    }

    /// The recipients of mails that were not accepted for all recipients at once.
    pub(super) fn recipients(&self) -> Vec<RecipientRecord> {
        self.records.iter().flat_map(|mail| &mail.recipients).cloned().collect()
    }

    /// The mails to retain of a failed delivery; `None` if no recipient got one.
    pub(super) fn retained(self, channel_type: &ChannelType, key: &str) -> Option<RetainedMails> {
        let is_for_all = |mail: &MailRecord| mail.recipients.is_empty();
        let accepted = |mut mail: MailRecord| {
            let is_whole = is_for_all(&mail);
            mail.recipients.retain(|recipient| recipient.state == RecipientState::Accepted);
            (is_whole || !is_for_all(&mail)).then_some(mail)
        };
        let records: Vec<MailRecord> = self.records.into_iter().filter_map(accepted).collect();
        let retained = RetainedMails { channel_type: channel_type.clone(), key: key.to_owned(), records };
        (!retained.records.is_empty()).then_some(retained)
    }

    /// Keeps the recipients that have the mail for a delivery over another channel.
    pub(super) fn move_to(&mut self, key: &str, other: &str) {
        let mail = self.records.iter().position(|mail| mail.key == key).map(|found| self.records.swap_remove(found));
        *self = Mails::default();
        let Some(mut mail) = mail else { return };
        mail.recipients.retain(|recipient| recipient.state == RecipientState::Accepted);
        if !mail.recipients.is_empty() {
            other.clone_into(&mut mail.key);
            self.records.push(mail);
        }
    }

    /// The mail to the message's recipient: the one with the key of the delivery, or the only one.
    fn mail(&self, key: &str) -> Option<&MailRecord> {
        let only = self.records.first().filter(|_| self.records.len() == 1);
        self.records.iter().find(|mail| mail.key == key).or(only)
    }
}

fn receipt(mail: &MailRecord) -> Receipt {
    let detail = serde_json::json!({ "answer": mail.answer });
    Receipt { provider_id: Some(mail.message_id.clone()), detail: Some(detail) }
}
