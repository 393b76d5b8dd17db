//! The state of a delivery's mails for each recipient. Later attempts use it to send nothing twice.

use serde::{Deserialize, Serialize};

/// One mail of a delivery that a relay accepted for at least one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRecord {
    /// Identifies the mail in its delivery: the left part of its Message-ID.
    pub key: String,
    /// The Message-ID, with angle brackets.
    pub message_id: String,
    /// The Date of every attempt, in Unix seconds.
    pub date: i64,
    /// The relay's latest reply that accepted it, in one line; empty if there is none yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// The recipients of the envelope, in its order. Empty if the relay accepted all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<RecipientRecord>,
}

/// One recipient of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// The address.
    pub address: String,
    /// Whether it is the main recipient. The others get copies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub main: bool,
    /// Whether the relay accepted the mail for it.
    pub state: RecipientState,
    /// The relay's reply if it did not accept, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// Whether a relay accepted a mail for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// The relay accepted the mail for it.
    Accepted,
    /// A 4xx reply: retry.
    Deferred,
    /// A 5xx reply: do not retry.
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

    /// Whether the relay accepted the mail for its main recipient.
    pub fn is_main_accepted(&self) -> bool {
        self.recipients.is_empty() || self.main().is_some_and(|main| main.state == RecipientState::Accepted)
    }

    /// The main recipient, if the relay replied about it.
    pub fn main(&self) -> Option<&RecipientRecord> {
        self.recipients.iter().find(|recipient| recipient.main)
    }

    /// Whether the relay accepted the mail for some recipients and deferred others.
    pub fn is_unfinished(&self) -> bool {
        self.has(RecipientState::Accepted) && self.has(RecipientState::Deferred)
    }

    /// Whether any recipient is in this state.
    pub fn has(&self, state: RecipientState) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == state)
    }

    /// The recipients in this state with their replies, in one line.
    pub fn list(&self, state: RecipientState) -> String {
        let matching = self.recipients.iter().filter(|recipient| recipient.state == state);
        let texts = matching.map(|recipient| {
            if recipient.answer.is_empty() {
                recipient.address.clone()
            } else {
                format!("{}: {}", recipient.address, recipient.answer)
            }
        });
        texts.collect::<Vec<_>>().join("; ")
    }
}
