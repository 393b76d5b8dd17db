//! What providers report after a delivery: the request that brings it, and the events in it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The kinds of events that the host knows. Others are kept, and have no effect.
pub const FEEDBACK_KINDS: [&str; 10] = [
    "delivered",
    "deferred",
    "bounced",
    "complained",
    "unsubscribed",
    "resubscribed",
    "opened",
    "clicked",
    "failed",
    "address-dead",
];

/// A request from outside that is meant for a plugin.
#[derive(Clone, PartialEq, Eq)]
pub struct Incoming {
    /// `GET` or `POST`.
    pub method: String,
    /// `server.public-url` and the path; `None` without that setting.
    pub url: Option<String>,
    /// The path below the plugin's own. It may contain a secret.
    pub path: String,
    /// The query. It may contain a secret.
    pub query: Option<String>,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
    /// When it came.
    pub received_at: Timestamp,
}

/// Shows nothing that may be a secret.
impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("method", &self.method)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Something that happened to a message or an address after the delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedbackEvent {
    /// Identifies it among those of its plugin.
    pub id: String,
    /// One of [`FEEDBACK_KINDS`], or another word.
    pub kind: String,
    /// When it happened, as the provider says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The message's uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_uuid: Option<Uuid>,
    /// The address to which it came back. If that is a signed return path, it names the message and vouches for the event; nobody has
    /// verified it yet. A stored event has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_path: Option<String>,
    /// The `provider_id` of the message's receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The mail's Message-ID, without angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The address that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<ContactAddress>,
    /// Whether it is for good.
    #[serde(rename = "permanent")]
    pub is_permanent: bool,
    /// Whether it is proven to be about mail of ours.
    #[serde(rename = "vouched")]
    pub is_vouched: bool,
    /// One line for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Further details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// An address and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactAddress {
    /// `email`, `phone`, `push-token`.
    pub kind: String,
    /// The address, as the provider wrote it.
    pub address: String,
}

/// What to answer to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackAnswer {
    /// 200 to 599.
    pub status: u16,
    /// Valid names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<u8>,
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// The events in the provider's order.
    pub events: Vec<FeedbackEvent>,
    /// `None`: 204.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<FeedbackAnswer>,
}

/// Why a request came to nothing, by what the provider is answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the variants describe their fields")]
pub enum FeedbackError {
    /// It is not the provider's.
    #[error("{0}")]
    Refused(String),
    /// It is the provider's, and cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// A temporary failure.
    #[error("{0}")]
    Unavailable(String),
}
