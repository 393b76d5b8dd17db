//! New and stored messages, filters, and statistics.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ids::{MessageId, Priority};
use super::meter::Rates;

/// The state of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting, or in flight.
    Queued = 0,
    /// At least one channel delivered it.
    Sent = 1,
    /// It may have been delivered; the result is not known.
    MaybeSent = 2,
    /// It was not delivered, as intended: policies denied it, or there was nothing to send.
    NotSent = 3,
    /// It was not delivered because a channel, a template or the routing failed.
    Failed = 4,
    /// It expired before it was delivered.
    Expired = 5,
    /// Its stored data cannot be read; it was set aside.
    Corrupt = 6,
    /// It was cancelled while it waited.
    Cancelled = 7,
    /// It failed, and was then discarded.
    Discarded = 8,
}

impl State {
    /// All states.
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Sent,
        State::MaybeSent,
        State::NotSent,
        State::Failed,
        State::Expired,
        State::Corrupt,
        State::Cancelled,
        State::Discarded,
    ];

    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Sent => "sent",
            State::MaybeSent => "maybe_sent",
            State::NotSent => "not_sent",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Corrupt => "corrupt",
            State::Cancelled => "cancelled",
            State::Discarded => "discarded",
        }
    }

    /// Whether a message in this state is a dead letter, which can be retried or discarded.
    pub fn is_dead(self) -> bool {
        matches!(self, State::Failed | State::Expired | State::Corrupt)
    }

    pub(super) fn of(number: i64) -> State {
        usize::try_from(number).ok().and_then(|n| State::ALL.get(n)).copied().unwrap_or(State::Corrupt)
    }
}

/// The error for a text that is not the name of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A new message.
#[derive(Debug, Clone)]
pub struct New {
    /// A uuid that the sender chose.
    pub uuid: Uuid,
    /// The digest of its content: a message with the same uuid and digest is the same message.
    pub digest: [u8; 16],
    /// Its priority class.
    pub priority: Priority,
    /// The name of its type, `app_label.name`.
    pub name: String,
    /// The user id of its recipient.
    pub user: Option<String>,
    /// The address of its recipient.
    pub email: Option<String>,
    /// The earliest time to send it.
    pub not_before: Option<Timestamp>,
    /// The W3C trace context of the request.
    pub trace: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
    /// The channel types or channel names that the request limits it to, sorted. `None`: no limit.
    pub limit: Option<Vec<String>>,
    /// Whether to claim it with the same write, because a worker sends it immediately.
    pub claim: bool,
}

/// The digest of a message's content.
pub fn digest(body: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(body);
    std::array::from_fn(|i| hash[i])
}

/// The answer for a submitted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It was stored.
    New(MessageId),
    /// It was accepted before; its current state.
    Same(State),
    /// It was accepted before, and will also be sent over the channel types of this request.
    Extended,
    /// It was accepted before, and channel types cannot be added: it was cancelled or discarded, or it cannot be read.
    Ended(State),
    /// Another message has this uuid.
    Conflict,
}

/// The depth and throughput of the queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Waiting transactional messages.
    pub waiting_transactional: u64,
    /// Waiting single messages that are not transactional.
    pub waiting_ordinary: u64,
    /// Waiting messages of batches.
    pub waiting_batches: u64,
    /// Claimed messages.
    pub in_flight: u64,
    /// Waiting messages that will be sent alone, because several processes ended unexpectedly while they were in flight.
    pub suspects: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages that were set aside because their rows are damaged.
    pub damaged: u64,
    /// When the oldest unsettled message was accepted.
    pub oldest: Option<Timestamp>,
    /// The size of the database, in bytes.
    pub bytes: u64,
    /// Pending webhook deliveries.
    pub webhook_deliveries: u64,
    /// The throughput.
    pub rates: Rates,
}

/// The limits of all requests for a message: a list of channel types or channel names for each; an empty list means no limit.
pub type Limits = Vec<Vec<String>>;

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: MessageId,
    /// The uuid it was submitted with.
    pub uuid: Uuid,
    /// Its state.
    pub state: State,
    /// Whether it is claimed.
    pub is_in_flight: bool,
    /// If it waits: when it is due.
    pub due: Option<Timestamp>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it was settled.
    pub settled: Option<Timestamp>,
    /// The name of its type, `app_label.name`.
    pub name: String,
    /// The user id of its recipient.
    pub user: Option<String>,
    /// The address of its recipient.
    pub email: Option<String>,
    /// Its body, unless it was erased. Not in pages.
    pub body: Option<Vec<u8>>,
    /// The state of its delivery. Not in pages.
    pub progress: Option<Vec<u8>>,
    /// Its report.
    pub report: Option<Vec<u8>>,
    /// The batch it belongs to.
    pub batch: Option<Uuid>,
}

/// Selects messages. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Only dead letters.
    pub is_dead: bool,
    /// Of this type.
    pub name: Option<String>,
    /// To this user id.
    pub user: Option<String>,
    /// To this address.
    pub email: Option<String>,
    /// Accepted at this time or later.
    pub since: Option<Timestamp>,
    /// Accepted before this time.
    pub until: Option<Timestamp>,
}

/// Selects dead letters to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Which ones.
    pub filter: Filter,
    /// Only those before this message, from [`Page::next`].
    pub cursor: Option<MessageId>,
    /// Messages to change, at most; `None`: all.
    pub limit: Option<u64>,
}

/// A page of messages, the latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The messages. A page may be short or empty before the end.
    pub messages: Vec<Stored>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<MessageId>,
}

/// The number of a person's messages that were erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Messages that waited. They are not sent.
    pub waiting: u64,
    /// Messages that were in flight. They may have been sent.
    pub in_flight: u64,
    /// Messages that were settled.
    pub settled: u64,
    /// Messages that could not be erased because their stored data is damaged. They are not sent.
    pub damaged: u64,
}
