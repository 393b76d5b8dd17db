//! What a channel reports besides the result of `deliver`: the outcome for each address, and a hold of the whole channel. No grant is
//! needed. The functions have an effect only within `deliver`.
//!
//! ```
//! use ace_plugin::channel::{DeliveryError, Receipt};
//! use ace_plugin::delivery::{self, Note};
//! use ace_plugin::http::{self, Request};
//! use ace_plugin::{Message, time};
//!
//! fn push(message: &Message, text: &str) -> Result<Receipt, DeliveryError> {
//!     let recipient = message.recipient();
//!     for token in recipient.iter().flat_map(|recipient| recipient.contacts_of("push-token")) {
//!         let request = Request::post(format!("https://push.example/{token}")).body(text);
//!         let response = http::fetch(&request)?;
//!         delivery::note(&match response.status {
//!             200 => Note::sent("push-token", token),
//!             404 => Note::dropped("push-token", token).code("UNREGISTERED"),
//!             429 => {
//!                 delivery::hold(response.retry_after(time::now()), "too many requests");
//!                 Note::retry("push-token", token)
//!             }
//!             _ => Note::failed("push-token", token),
//!         });
//!     }
//!     Ok(Receipt::default())
//! }
//! ```

use serde::{Deserialize, Serialize};

use crate::imports::delivery;
use crate::{Error, Timestamp};

/// The outcome for one address of the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The kind of address, as in the recipient's contacts; `email` for the e-mail address.
    pub kind: String,
    /// The address.
    pub address: String,
    /// The outcome for it.
    pub outcome: Outcome,
    /// The provider's id of the message to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The provider's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The outcome for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The provider accepted the message for it.
    Sent,
    /// It does not exist any more; the application should delete it.
    Dropped,
    /// It does not get this message over this channel.
    Failed,
    /// It is tried again.
    Retry,
}

impl Note {
    /// A note on an address.
    pub fn new(kind: impl Into<String>, address: impl Into<String>, outcome: Outcome) -> Self {
        Note { kind: kind.into(), address: address.into(), outcome, provider_id: None, code: None }
    }

    /// The provider accepted the message for this address.
    pub fn sent(kind: impl Into<String>, address: impl Into<String>) -> Self {
        Note::new(kind, address, Outcome::Sent)
    }

    /// The address does not exist any more.
    pub fn dropped(kind: impl Into<String>, address: impl Into<String>) -> Self {
        Note::new(kind, address, Outcome::Dropped)
    }

    /// The address does not get this message.
    pub fn failed(kind: impl Into<String>, address: impl Into<String>) -> Self {
        Note::new(kind, address, Outcome::Failed)
    }

    /// The address is to be tried again.
    pub fn retry(kind: impl Into<String>, address: impl Into<String>) -> Self {
        Note::new(kind, address, Outcome::Retry)
    }

    /// Sets the provider's id of the message to this address.
    #[must_use]
    pub fn provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// Sets the provider's error code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

/// Notes the outcome for an address. It replaces an earlier note on the same address. Later attempts do not get addresses that were
/// sent, dropped or failed.
pub fn note(note: &Note) {
    // A note has only string keys, so it can always be serialized.
    if let Ok(json) = serde_json::to_string(note) {
        delivery::note_outcome(&json);
    }
}

/// The notes of earlier attempts of this message.
///
/// # Errors
/// If the host's answer has another form.
pub fn noted() -> Result<Vec<Note>, Error> {
    serde_json::from_str(&delivery::noted_outcomes()).map_err(|e| Error::new("the noted outcomes", e))
}

/// Stops the whole channel until a time, or without one until a message gets through. Return a recoverable error as well: it uses up
/// no attempt of the message.
pub fn hold(until: Option<Timestamp>, reason: &str) {
    delivery::hold_channel(until, reason);
}
