//! Messages as they come in, as they are kept, and how many there are.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ids::{MessageId, Priority};
use super::meter::Rates;

/// Where a message stands, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting, or in flight.
    Queued = 0,
    /// At least one channel delivered it.
    Sent = 1,
    /// It may have been delivered, and nothing more is known.
    MaybeSent = 2,
    /// Nobody received it, as intended: policies denied it, or there was nothing to send.
    NotSent = 3,
    /// Nobody received it although someone should have: a channel, a template or the routing failed.
    Failed = 4,
    /// It expired before it could be delivered.
    Expired = 5,
    /// Its stored data cannot be read any more; it was set aside.
    Corrupt = 6,
    /// Someone cancelled it while it waited.
    Cancelled = 7,
    /// It had failed, and someone discarded it.
    Discarded = 8,
}

impl State {
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

    /// A dead letter can be tried again or discarded.
    pub fn is_dead(self) -> bool {
        matches!(self, State::Failed | State::Expired | State::Corrupt)
    }

    pub(super) fn of(number: i64) -> State {
        usize::try_from(number).ok().and_then(|n| State::ALL.get(n)).copied().unwrap_or(State::Corrupt)
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state {0:?}")]
pub struct UnknownState(pub String);

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A message to be accepted.
#[derive(Debug, Clone)]
pub struct New {
    pub uuid: Uuid,
    /// Of the message's content: a message with the same uuid and digest is the same message.
    pub digest: [u8; 16],
    pub priority: Priority,
    /// `app_label.name`.
    pub name: String,
    pub user: Option<String>,
    pub email: Option<String>,
    /// Not before that moment. `None`: at once.
    pub not_before: Option<Timestamp>,
    /// The W3C trace context of the request.
    pub trace: Option<String>,
    pub body: Vec<u8>,
    /// The channel types or channel names that its request limited it to, sorted. `None`: no limit.
    pub limit: Option<Vec<String>>,
    /// A worker starts on it as soon as it is accepted: it is claimed with the same write.
    pub claim: bool,
}

/// The digest of a message's content.
pub fn digest(body: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(body);
    std::array::from_fn(|i| hash[i])
}

/// What became of a message that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is stored.
    New(MessageId),
    /// It was accepted before; this is its state now.
    Same(State),
    /// It was accepted before, and is now sent over the channel types of this request too.
    Extended,
    /// It was accepted before, and nothing can be added to it: it was cancelled or discarded, or it cannot be read any more.
    Ended(State),
    /// Another message has this uuid.
    Conflict,
}

/// How full the queue is, and how fast it moves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Waiting messages by priority class.
    pub waiting_transactional: u64,
    pub waiting_ordinary: u64,
    pub waiting_batches: u64,
    /// Messages that a worker has claimed.
    pub in_flight: u64,
    /// Waiting messages that are sent alone, since several processes ended unexpectedly while they were in flight.
    pub suspects: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages that were set aside because their rows are damaged.
    pub damaged: u64,
    /// When the oldest message that is not settled was accepted.
    pub oldest: Option<Timestamp>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Webhook deliveries that wait.
    pub webhook_deliveries: u64,
    pub rates: Rates,
}

/// Channel types or channel names, as the requests for one message named them, one list for each request; an empty list is no limit.
pub type Limits = Vec<Vec<String>>;

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: MessageId,
    pub uuid: Uuid,
    pub state: State,
    /// A worker has claimed it.
    pub is_in_flight: bool,
    /// When it is due, if it waits.
    pub due: Option<Timestamp>,
    pub accepted: Timestamp,
    pub settled: Option<Timestamp>,
    /// `app_label.name`.
    pub name: String,
    pub user: Option<String>,
    pub email: Option<String>,
    /// `None` once it was erased; pages leave it and `progress` out.
    pub body: Option<Vec<u8>>,
    pub progress: Option<Vec<u8>>,
    pub report: Option<Vec<u8>>,
    /// The batch it belongs to.
    pub batch: Option<Uuid>,
}

/// Which messages. Every condition must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: Option<State>,
    /// Failed, expired or corrupt.
    pub is_dead: bool,
    pub name: Option<String>,
    pub user: Option<String>,
    pub email: Option<String>,
    /// Accepted at that moment or later.
    pub since: Option<Timestamp>,
    /// Accepted before that moment.
    pub until: Option<Timestamp>,
}

/// Which dead letters to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub filter: Filter,
    /// Where to continue, from [`Page::next`]; `None`: at the latest message.
    pub cursor: Option<MessageId>,
    /// Messages to change, at most; `None`: all that are found.
    pub limit: Option<u64>,
}

/// Some messages, the latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub messages: Vec<Stored>,
    /// Where to continue; `None` at the end. A page may be short, or empty, before the end.
    pub next: Option<MessageId>,
}

/// How many of a person's messages were erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Messages that waited: they are not sent.
    pub waiting: u64,
    /// Messages that were in flight: they may have been sent, and leave no trace here.
    pub in_flight: u64,
    /// Messages that were settled.
    pub settled: u64,
    /// Messages that remain, since their stored data is damaged and cannot be erased. They are not sent.
    pub damaged: u64,
}
