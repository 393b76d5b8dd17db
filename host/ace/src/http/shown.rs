//! What is shown of the queue's values, in the form that `/openapi.json` describes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::described::UserIdForm;
use crate::destination::View;
use crate::message::UserId;
use crate::queue::{Batch, Forgotten, Rate, Stats, Stored};

/// How full the queue is, and how fast it moves.
#[derive(Debug, Serialize, ToSchema)]
pub struct Depth {
    /// Messages that wait, by kind of lane.
    waiting_transactional: u64,
    waiting_ordinary: u64,
    waiting_batches: u64,
    /// Messages with a worker.
    under_way: u64,
    /// Those that wait that are tried alone, since several processes ended while they were being sent.
    suspects: u64,
    /// Messages that failed, expired or are corrupt, and are still kept.
    dead: u64,
    /// Messages that were set aside because their rows are damaged.
    damaged: u64,
    /// When the message that has waited longest was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
    /// Bytes of the database, its log included.
    bytes: u64,
    /// Webhook calls that wait.
    calls: u64,
    rates: Speeds,
    /// Relays and HTTP origins that are down or recovering; none where all is well.
    destinations: Vec<DestinationShown>,
}

/// A relay or an HTTP origin that is down or recovering.
#[derive(Debug, Serialize, ToSchema)]
pub struct DestinationShown {
    /// `relay` or `origin`.
    kind: &'static str,
    name: String,
    /// `down`, or `recovering` while more and more messages go out over it again.
    state: &'static str,
    /// Since when it is, or was, down.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    reason: String,
    /// When a message is tried next, where it is down.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt: Option<Timestamp>,
    /// Messages that wait for it, as far as they were claimed once. A batch that is held for it has more.
    waiting: u64,
}

impl DestinationShown {
    pub fn new(view: View, waiting: u64) -> Self {
        let View { destination, is_recovering, since, reason, next_attempt } = view;
        let state = if is_recovering { "recovering" } else { "down" };
        let (kind, name) = (destination.kind(), destination.name().to_owned());
        DestinationShown { kind, name, state, since, reason, next_attempt, waiting }
    }
}

/// Averages over the last minute and the last five, or since the start where that is later.
#[derive(Debug, Serialize, ToSchema)]
pub struct Speeds {
    minute: Speed,
    five_minutes: Speed,
}

/// Messages a second.
#[derive(Debug, Serialize, ToSchema)]
pub struct Speed {
    accepted: f64,
    /// In whatever state.
    settled: f64,
    /// Those of the settled ones that failed, expired or could not be read.
    failed: f64,
}

impl Depth {
    pub fn new(stats: Stats, destinations: Vec<DestinationShown>) -> Self {
        let speed = |rate: Rate| Speed { accepted: rate.accepted, settled: rate.settled, failed: rate.failed };
        Depth {
            waiting_transactional: stats.waiting_transactional,
            waiting_ordinary: stats.waiting_ordinary,
            waiting_batches: stats.waiting_batches,
            under_way: stats.under_way,
            suspects: stats.suspects,
            dead: stats.dead,
            damaged: stats.damaged,
            oldest: stats.oldest,
            bytes: stats.bytes,
            calls: stats.calls,
            rates: Speeds { minute: speed(stats.rates.minute), five_minutes: speed(stats.rates.five_minutes) },
            destinations,
        }
    }
}

/// How far a batch is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchShown {
    uuid: Uuid,
    /// `receiving`, `sending`, `paused`, `cancelled`, `done` or `failed` (its resolver gave up).
    #[schema(value_type = String)]
    state: Value,
    #[schema(value_type = String, format = DateTime)]
    begun: Timestamp,
    /// Messages, and how many of them are in each state.
    messages: u64,
    by_state: BTreeMap<&'static str, u64>,
    /// Where a resolver names the recipients and is not at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolver: Option<ResolverShown>,
}

/// Who names a batch's recipients.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResolverShown {
    plugin: String,
    /// Why the last page did not come; it is asked for again, unless the batch has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Batch> for BatchShown {
    fn from(batch: Batch) -> Self {
        BatchShown {
            uuid: batch.uuid,
            state: serde_json::json!(batch.state),
            begun: batch.begun,
            messages: batch.messages,
            by_state: batch.by_state.into_iter().map(|(state, n)| (state.as_str(), n)).collect(),
            resolver: batch.resolver.map(|r| ResolverShown { plugin: r.plugin, error: r.error }),
        }
    }
}

/// A message without its content.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageShown {
    uuid: Uuid,
    /// `app_label.name`.
    name: String,
    /// `queued`, `sent`, `maybe_sent`, `not_sent`, `failed`, `expired`, `corrupt`, `cancelled` or `discarded`.
    state: &'static str,
    /// It has a worker.
    is_under_way: bool,
    /// When it is due, where it waits.
    #[schema(value_type = Option<String>, format = DateTime)]
    due: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    accepted: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    settled: Option<Timestamp>,
    recipient: Addressee,
    /// The batch it belongs to.
    batch: Option<Uuid>,
}

/// Whom a message is for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Addressee {
    #[schema(value_type = Option<UserIdForm>)]
    lms_user_id: UserId,
    email_address: Option<String>,
}

impl From<&Stored> for MessageShown {
    fn from(stored: &Stored) -> Self {
        MessageShown {
            uuid: stored.uuid,
            name: stored.name.clone(),
            state: stored.state.as_str(),
            is_under_way: stored.is_under_way,
            due: stored.due,
            accepted: stored.accepted,
            settled: stored.settled,
            recipient: Addressee {
                lms_user_id: UserId::of_stored(stored.user.as_deref()),
                email_address: stored.email.clone(),
            },
            batch: stored.batch,
        }
    }
}

/// A message and everything that happened to it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeline {
    #[serde(flatten)]
    pub message: MessageShown,
    /// Policies, channels, templates, attempts and the outcome, as `ace send --json` tells them; null before anything happened.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Value>,
}

/// What was erased of a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct Erased {
    /// Messages that waited: they will not go out.
    waiting: u64,
    /// Messages that were being sent at that moment: they may have gone out, and leave no trace here.
    under_way: u64,
    /// Messages that were settled.
    settled: u64,
    /// Messages that are still there: their rows are damaged, and cannot be erased one by one. They are not sent.
    damaged: u64,
}

impl From<Forgotten> for Erased {
    fn from(forgotten: Forgotten) -> Self {
        Erased {
            waiting: forgotten.waiting,
            under_way: forgotten.under_way,
            settled: forgotten.settled,
            damaged: forgotten.damaged,
        }
    }
}
