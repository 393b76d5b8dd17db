//! A delivery whose mail a relay accepted for some recipients and not, or not yet, for others. The relay's answers decide what
//! such a delivery comes to, whatever the channel makes of them.

use serde::{Deserialize, Serialize};

use crate::message::{ChannelType, DeliveryError, MailRecord, Outcome, Receipt, RecipientRecord, RecipientState};

/// What is known of a delivery's mails. In the store it grows only by fields that have a default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Mails {
    #[serde(default)]
    records: Vec<MailRecord>,
    /// The channel's answer when it held the delivery for done, and some recipients were left.
    #[serde(default)]
    receipt: Option<Receipt>,
}

/// What a delivery that failed had mailed to some recipients all the same: should someone have the message tried again, they do
/// not get it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mailed {
    pub(super) channel_type: ChannelType,
    /// The key of the delivery.
    key: String,
    records: Vec<MailRecord>,
}

impl Mailed {
    #[cfg(test)]
    pub(super) fn of(channel_type: &str, key: &str, records: Vec<MailRecord>) -> Self {
        Mailed { channel_type: channel_type.to_owned(), key: key.to_owned(), records }
    }

    /// What the delivery of this key must know.
    pub(super) fn mails(&self, key: &str) -> Mails {
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

    /// Takes over what an attempt mailed, and says what it came to: an attempt that leaves recipients to try again is tried
    /// again, and one that the relay refused whom the mail is for has failed.
    pub(super) fn judge(
        &mut self,
        key: &str,
        records: Vec<MailRecord>,
        answer: Result<Receipt, DeliveryError>,
    ) -> Result<Receipt, DeliveryError> {
        self.records = records;
        // What most are: every recipient was accepted at once.
        if self.records.iter().all(|mail| mail.recipients.is_empty()) {
            return answer;
        }
        let unfinished: Vec<&MailRecord> = self.records.iter().filter(|mail| mail.is_unfinished()).collect();
        let is_open = !unfinished.is_empty();
        let left: Vec<String> = unfinished.iter().map(|mail| mail.list(RecipientState::Deferred)).collect();
        let refused =
            self.mail(key).filter(|mail| mail.main().is_some_and(|main| main.state == RecipientState::Refused));
        let later = || Err(DeliveryError::Recoverable { message: left.join("; "), next_attempt_time: None });
        match answer {
            Err(
                DeliveryError::Unavailable(_) | DeliveryError::MaybeSent { .. } | DeliveryError::Recoverable { .. },
            ) => answer,
            Ok(receipt) if is_open => {
                self.receipt = Some(receipt);
                later()
            }
            Err(DeliveryError::SentWithFault { answer, .. }) if is_open => {
                self.receipt = Some(Receipt { provider_id: Some(answer), detail: None });
                later()
            }
            _ if is_open => later(),
            Ok(_) | Err(DeliveryError::SentWithFault { .. }) if let Some(mail) = refused => {
                Err(DeliveryError::Fatal(mail.list(RecipientState::Refused)))
            }
            other => other,
        }
    }

    /// Whether the mail was accepted for whom it is for, so that no other channel may carry the message as well.
    pub(super) fn is_main_accepted(&self, key: &str) -> bool {
        match self.mail(key) {
            Some(mail) => mail.is_main_accepted(),
            None => self.receipt.is_some(),
        }
    }

    /// What the delivery has come to in the end: a mail that was accepted for whom it is for is sent, although others did not
    /// get it.
    pub(super) fn settle(&mut self, key: &str, outcome: Outcome) -> Outcome {
        if matches!(outcome, Outcome::Sent { .. }) || !self.is_main_accepted(key) {
            return outcome;
        }
        let receipt = self.receipt.take().or_else(|| self.mail(key).map(receipt)).unwrap_or_default();
        Outcome::Sent { receipt, fault: None }
    }

    /// Every recipient of the mails that were not accepted for all of theirs at once.
    pub(super) fn recipients(&self) -> Vec<RecipientRecord> {
        self.records.iter().flat_map(|mail| &mail.recipients).cloned().collect()
    }

    /// What is to be kept of a delivery that failed; `None` where nobody has a mail of it.
    pub(super) fn kept(self, channel_type: &ChannelType, key: &str) -> Option<Mailed> {
        let is_for_all = |mail: &MailRecord| mail.recipients.is_empty();
        let accepted = |mut mail: MailRecord| {
            let is_whole = is_for_all(&mail);
            mail.recipients.retain(|recipient| recipient.state == RecipientState::Accepted);
            (is_whole || !is_for_all(&mail)).then_some(mail)
        };
        let records: Vec<MailRecord> = self.records.into_iter().filter_map(accepted).collect();
        let mailed = Mailed { channel_type: channel_type.clone(), key: key.to_owned(), records };
        (!mailed.records.is_empty()).then_some(mailed)
    }

    /// For another channel: who has the mail does not get it again.
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

    /// The mail to the message's recipient: the one under the delivery's own key, or the only one.
    fn mail(&self, key: &str) -> Option<&MailRecord> {
        let only = self.records.first().filter(|_| self.records.len() == 1);
        self.records.iter().find(|mail| mail.key == key).or(only)
    }
}

fn receipt(mail: &MailRecord) -> Receipt {
    let detail = serde_json::json!({ "answer": mail.answer });
    Receipt { provider_id: Some(mail.message_id.clone()), detail: Some(detail) }
}
