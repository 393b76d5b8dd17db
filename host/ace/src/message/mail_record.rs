//! What became of a delivery's mails so far, for each recipient: what a later attempt must know to repeat nothing.

use serde::{Deserialize, Serialize};

/// One mail of a delivery that a relay accepted, for some of its recipients at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRecord {
    /// Which of the delivery's mails it is: the left part of its Message-ID.
    pub key: String,
    /// With its angle brackets.
    pub message_id: String,
    /// The Date of every attempt, in Unix seconds.
    pub date: i64,
    /// The relay's latest answer that accepted it, in one line; empty while there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// Every recipient of the envelope, in its order. Empty: the relay accepted all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientRecord>,
}

/// One recipient of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// The address.
    pub address: String,
    /// The first of the mail's recipients, whom it is for; the others get copies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub main: bool,
    /// What the relay said of it.
    pub state: RecipientState,
    /// The relay's answer where it did not accept, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// Whether a relay took a mail for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// The relay accepted the mail for it.
    Accepted,
    /// 4xx: to be tried again.
    Deferred,
    /// 5xx: not to be tried again.
    Refused,
}

impl MailRecord {
    /// Whether this recipient needs no further attempt.
    pub fn is_settled(&self, address: &str) -> bool {
        let known = self.recipients.iter().find(|recipient| recipient.address == address);
        match known {
            Some(recipient) => recipient.state != RecipientState::Deferred,
            None => self.recipients.is_empty(),
        }
    }

    /// Whether the relay accepted the mail for whom it is for.
    pub fn is_main_accepted(&self) -> bool {
        self.recipients.is_empty() || self.main().is_some_and(|main| main.state == RecipientState::Accepted)
    }

    /// Whom the mail is for, as far as it was asked about.
    pub fn main(&self) -> Option<&RecipientRecord> {
        self.recipients.iter().find(|recipient| recipient.main)
    }

    /// Whether the relay accepted the mail for some recipients, and others are to be tried again.
    pub fn is_unfinished(&self) -> bool {
        self.has(RecipientState::Accepted) && self.has(RecipientState::Deferred)
    }

    /// Whether some recipient is in this state.
    pub fn has(&self, state: RecipientState) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == state)
    }

    /// The recipients in this state with their answers, in one line.
    pub fn list(&self, state: RecipientState) -> String {
        let chosen = self.recipients.iter().filter(|recipient| recipient.state == state);
        let texts = chosen.map(|recipient| {
            if recipient.answer.is_empty() {
                recipient.address.clone()
            } else {
                format!("{}: {}", recipient.address, recipient.answer)
            }
        });
        texts.collect::<Vec<_>>().join("; ")
    }
}
