//! The JSON of responses, as `/openapi.json` describes it.

use std::collections::BTreeMap;

use ace::internals::destination::View;
use ace::internals::pipeline::Progress;
use ace::message::text::{TEXT_BYTES_MAX, one_line};
use ace::message::{Report, UserId};
use ace_store::queue::{Batch, Erased, Rate, State, Stats, Stored};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::described::UserIdForm;

/// Depth, age, size and throughput of the queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueStatus {
    /// Queued transactional messages.
    waiting_transactional: u64,
    /// Queued messages of ordinary priority.
    waiting_ordinary: u64,
    /// Queued messages of batches.
    waiting_batches: u64,
    /// Messages that are being sent.
    in_flight: u64,
    /// Queued messages that will be sent one at a time, because the process ended several times while sending them.
    suspects: u64,
    /// Messages that failed, expired or are corrupt, and have not been erased.
    dead_letters: u64,
    /// Messages that were set aside because their rows are damaged.
    damaged: u64,
    /// When the oldest queued message was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
    /// Size of the database in bytes, including its write-ahead log.
    bytes: u64,
    /// Pending webhook deliveries.
    webhook_deliveries: u64,
    rates: Throughput,
    /// Relays and HTTP origins that are down, channels that are held, and those that are recovering.
    destinations: Vec<DestinationStatus>,
}

/// A relay, an HTTP origin or a channel that is down, held or recovering.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DestinationStatus {
    /// `relay`, `origin` or `channel`.
    kind: &'static str,
    name: String,
    /// `down`, or `recovering` while sending is ramped up again.
    state: &'static str,
    /// When it went down.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    reason: String,
    /// When the next message is sent to it as a probe; null unless it is down.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt: Option<Timestamp>,
    /// Messages that wait for it. Those of a paused batch are counted only if they were claimed before.
    waiting: u64,
}

impl DestinationStatus {
    pub(super) fn new(view: View, waiting: u64) -> Self {
        let View { destination, is_recovering, since, reason, next_attempt } = view;
        let state = if is_recovering { "recovering" } else { "down" };
        let (kind, name) = (destination.kind(), destination.name().to_owned());
        DestinationStatus { kind, name, state, since, reason, next_attempt, waiting }
    }
}

/// Averages over the last minute and the last five minutes, or since the start if that is more recent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Throughput {
    minute: MessagesPerSecond,
    five_minutes: MessagesPerSecond,
}

/// Messages per second.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessagesPerSecond {
    accepted: f64,
    /// Settled in any state.
    settled: f64,
    /// Settled as failed, expired or corrupt.
    failed: f64,
}

impl QueueStatus {
    pub(super) fn new(stats: Stats, destinations: Vec<DestinationStatus>) -> Self {
        let per_second =
            |rate: Rate| MessagesPerSecond { accepted: rate.accepted, settled: rate.settled, failed: rate.failed };
        QueueStatus {
            waiting_transactional: stats.waiting_transactional,
            waiting_ordinary: stats.waiting_ordinary,
            waiting_batches: stats.waiting_batches,
            in_flight: stats.in_flight,
            suspects: stats.suspects,
            dead_letters: stats.dead,
            damaged: stats.damaged,
            oldest: stats.oldest,
            bytes: stats.bytes,
            webhook_deliveries: stats.webhook_deliveries,
            rates: Throughput {
                minute: per_second(stats.rates.minute),
                five_minutes: per_second(stats.rates.five_minutes),
            },
            destinations,
        }
    }
}

/// The progress of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchStatus {
    uuid: Uuid,
    /// `receiving`, `sending`, `paused`, `cancelled`, `done` or `failed` (its resolver failed permanently).
    #[schema(value_type = String)]
    state: Value,
    #[schema(value_type = String, format = DateTime)]
    created: Timestamp,
    /// Messages in the batch so far.
    messages: u64,
    /// How many messages are in each state.
    by_state: BTreeMap<&'static str, u64>,
    /// The resolver, until it has named all recipients.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolver: Option<BatchResolver>,
}

/// The plugin that names a batch's recipients.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResolver {
    plugin: String,
    /// Why the last page could not be fetched. It is retried unless the batch has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Batch> for BatchStatus {
    fn from(batch: Batch) -> Self {
        BatchStatus {
            uuid: batch.uuid,
            state: serde_json::json!(batch.state),
            created: batch.created,
            messages: batch.messages,
            by_state: batch.by_state.into_iter().map(|(state, n)| (state.as_str(), n)).collect(),
            resolver: batch.resolver.map(|r| BatchResolver { plugin: r.plugin, error: r.error }),
        }
    }
}

/// A message without its content.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageSummary {
    uuid: Uuid,
    /// `app_label.name`.
    name: String,
    /// `queued`, `sent`, `maybe_sent`, `not_sent`, `failed`, `expired`, `corrupt`, `cancelled` or `discarded`.
    state: &'static str,
    /// Whether it is being sent now.
    in_flight: bool,
    /// When it is due; null unless the message is queued.
    #[schema(value_type = Option<String>, format = DateTime)]
    due: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    accepted: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    settled: Option<Timestamp>,
    /// Why it was not sent, or not yet, in one line.
    reason: Option<String>,
    recipient: MessageRecipient,
    /// The batch it belongs to.
    batch: Option<Uuid>,
}

/// The recipient of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageRecipient {
    #[schema(value_type = Option<UserIdForm>)]
    lms_user_id: UserId,
    email_address: Option<String>,
}

impl From<&Stored> for MessageSummary {
    fn from(stored: &Stored) -> Self {
        MessageSummary {
            uuid: stored.uuid,
            name: stored.name.clone(),
            state: stored.state.as_str(),
            in_flight: stored.is_in_flight,
            due: stored.due,
            accepted: stored.accepted,
            settled: stored.settled,
            reason: reason(stored),
            recipient: MessageRecipient {
                lms_user_id: UserId::of_stored(stored.user.as_deref()),
                email_address: stored.email.clone(),
            },
            batch: stored.batch,
        }
    }
}

/// Why a message was not sent, or not yet.
fn reason(stored: &Stored) -> Option<String> {
    /// The report of a message whose row is damaged.
    #[derive(Deserialize)]
    struct Damage {
        error: String,
    }
    if stored.state == State::Sent {
        return None;
    }
    let reason = match (&stored.report, &stored.progress) {
        (Some(report), _) => match serde_json::from_slice::<Report>(report) {
            Ok(report) => report.reason(),
            Err(_) => serde_json::from_slice(report).ok().map(|Damage { error }| error),
        },
        (None, Some(progress)) => Progress::report_of(progress).ok()?.reason(),
        (None, None) => None,
    };
    reason.map(|reason| one_line(&reason, TEXT_BYTES_MAX))
}

/// A message and its full history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageDetails {
    #[serde(flatten)]
    pub message: MessageSummary,
    /// Policies, channels, templates, attempts and the outcome, in the form of `ace send --json`; null before the first step.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Value>,
    /// What providers reported afterwards, the earliest first; the first 200 events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub feedback: Vec<Value>,
}

/// How many of a person's messages were erased.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErasedCounts {
    /// Queued messages; they will not be sent.
    waiting: u64,
    /// Messages that were in flight: they may still arrive, but no record of them is kept.
    in_flight: u64,
    /// Settled messages.
    settled: u64,
    /// Messages that could not be erased because their rows are damaged. They will not be sent.
    damaged: u64,
}

impl From<Erased> for ErasedCounts {
    fn from(erased: Erased) -> Self {
        ErasedCounts {
            waiting: erased.waiting,
            in_flight: erased.in_flight,
            settled: erased.settled,
            damaged: erased.damaged,
        }
    }
}
