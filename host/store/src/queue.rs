//! The durable queue: an accepted message is kept until it is settled, and for a while after that.
//!
//! [`Queue`] is the front that everything else uses. Behind it is one of the engines in [`Store`]; today that is `sqlite`. What a
//! message *is* stays outside: bodies, progress and reports are bytes here. The suite in `conformance` says what every engine must do.
//!
//! Delivery is at least once. Claims are stored; after a crash, in-flight messages wait again, marked *in doubt*. Within a process a
//! claim is a lease: when a worker dies its messages wait again once the lease ends. Settlements are fenced by claim number; one for
//! a lease that has ended is ignored.
//!
//! All times are passed in.

mod batches;
mod claims;
mod error;
mod events;
mod health;
mod ids;
mod message;
mod meter;
mod settings;
mod sqlite;
mod wakeups;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

pub use batches::{Batch, BatchState, DuePage, NewBatch, Resolver, ResolverStatus};
pub use claims::{Claim, Claimed, ClaimedBatch, LEASE, Settled, Settlement};
pub use error::{OpenError, QueueError};
pub use events::{Event, Events, NewEvent, WebhookDelivery};
pub use health::{Failing, Health};
pub use ids::{ClaimNo, EventId, MessageId, Priority};
pub use message::{Accepted, Erased, Filter, Limits, New, Page, Selection, State, Stats, Stored, UnknownState, digest};
pub use meter::{Rate, Rates};
pub use settings::Settings;
use sqlite::Sqlite;
use wakeups::Wakeups;

/// The queue. One process at a time has it open.
///
/// # Errors
/// Unless a function says otherwise it fails with [`QueueError::Unavailable`], [`QueueError::NoRoom`] or [`QueueError::Damaged`],
/// and nothing was changed then.
pub struct Queue {
    store: Store,
    wakeups: Arc<Wakeups>,
}

/// The engines.
enum Store {
    Sqlite(Sqlite),
}

/// Calls the engine.
macro_rules! engine {
    ($queue:expr, $store:ident => $call:expr) => {
        match &$queue.store {
            Store::Sqlite($store) => $call,
        }
    };
}

impl Queue {
    /// Opens the queue, or creates it. Messages that were in flight when the last process ended wait again, in doubt. Blocks.
    ///
    /// # Errors
    /// The database is open elsewhere, it is not a queue of this version or an earlier one, or it cannot be read or written.
    pub fn open(settings: &Settings, now: Timestamp) -> Result<Self, OpenError> {
        let wakeups = Arc::new(Wakeups::default());
        let store = Store::Sqlite(Sqlite::open(settings, wakeups.clone(), now)?);
        Ok(Queue { store, wakeups })
    }

    /// Accepts all of them with one durable write; an answer for each, in order.
    ///
    /// # Errors
    /// Also [`QueueError::Full`], and [`QueueError::State`] for a batch that was cancelled: none was accepted then.
    pub async fn accept(&self, new: Vec<New>, now: Timestamp) -> Result<Vec<Accepted>, QueueError> {
        self.start_accept(new, now).await?.await
    }

    /// As [`Queue::accept`], in two steps: completes when the messages have their place in the order of all writes, and returns a
    /// future that completes when they are stored. They are accepted whether that is awaited or not.
    ///
    /// # Errors
    /// As [`Queue::accept`].
    pub async fn start_accept(
        &self,
        new: Vec<New>,
        now: Timestamp,
    ) -> Result<impl Future<Output = Result<Vec<Accepted>, QueueError>>, QueueError> {
        engine!(self, store => store.start_accept(new, now).await)
    }

    /// Claims messages that are due: the transactional ones first, then a few of each other class in turn. Each belongs to the caller
    /// for [`LEASE`].
    pub async fn claim(&self, claim: Claim, now: Timestamp) -> Result<ClaimedBatch, QueueError> {
        engine!(self, store => store.claim(claim, now).await)
    }

    /// Claims one suspect that is due: a message that was in flight when several processes ended. It must be sent alone, with nothing
    /// else claimed or in flight until it is settled.
    pub async fn claim_suspect(&self, now: Timestamp) -> Result<Option<Claimed>, QueueError> {
        engine!(self, store => store.claim_suspect(now).await)
    }

    /// Settles messages, all with one durable write. One that was erased meanwhile is skipped.
    ///
    /// # Errors
    /// Also [`QueueError::State`] for a [`Settlement::Record`] whose claim has ended.
    pub async fn settle(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.settle(settled, now).await)
    }

    /// As [`Queue::settle`], committed with the next transaction, at most a few milliseconds later.
    ///
    /// # Errors
    /// As [`Queue::settle`].
    pub async fn settle_deferred(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.settle_deferred(settled, now).await)
    }

    /// Completes when something may be claimable that was not before. Call it before claiming; it borrows nothing.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.wakeups.changed()
    }

    /// Changes when a transactional message may be claimable that was not before. Mark it unchanged before claiming.
    pub fn urgent(&self) -> watch::Receiver<()> {
        self.wakeups.urgent()
    }

    /// One message.
    pub async fn message(&self, uuid: Uuid) -> Result<Option<Stored>, QueueError> {
        engine!(self, store => store.message(uuid).await)
    }

    /// A page of messages before `cursor`, at most `max`, the latest first. Bodies and progress are left out.
    pub async fn messages(&self, filter: Filter, cursor: Option<MessageId>, max: usize) -> Result<Page, QueueError> {
        engine!(self, store => store.messages(filter, cursor, max).await)
    }

    /// How full the queue is, and how fast it moves.
    pub async fn stats(&self) -> Result<Stats, QueueError> {
        engine!(self, store => store.stats().await)
    }

    /// Retries a dead letter from the start, with what it was settled with (`kept`).
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`], and [`QueueError::State`] if it is no dead letter or its body was erased.
    pub async fn retry(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.retry(uuid, now).await)
    }

    /// Cancels a message that waits.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`], and [`QueueError::State`] if it is in flight or settled.
    pub async fn cancel(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.cancel(uuid, now).await)
    }

    /// Discards a dead letter; what another attempt would have needed is erased.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`], and [`QueueError::State`] if it is no dead letter.
    pub async fn discard(&self, uuid: Uuid) -> Result<(), QueueError> {
        engine!(self, store => store.discard(uuid).await)
    }

    /// Retries the dead letters of a selection that can be retried, the latest first. Returns how many were.
    pub async fn retry_all(&self, selection: Selection, now: Timestamp) -> Result<u64, QueueError> {
        engine!(self, store => store.retry_all(selection, now).await)
    }

    /// Discards the dead letters of a selection, the latest first. Returns how many were.
    pub async fn discard_all(&self, selection: Selection) -> Result<u64, QueueError> {
        engine!(self, store => store.discard_all(selection).await)
    }

    /// Erases everything about the messages to a user id, or to an address.
    pub async fn erase(&self, user: Option<String>, email: Option<String>) -> Result<Erased, QueueError> {
        engine!(self, store => store.erase(user, email).await)
    }

    /// How many messages wait for each relay and origin that is, or was, down.
    pub fn blocked(&self) -> BTreeMap<String, u64> {
        engine!(self, store => store.blocked())
    }

    /// Makes at most `max` of the messages due that wait for a destination; how many that were. Transactional messages go first;
    /// `in_turn`: the one that has not been tried for longest.
    pub async fn unblock(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        engine!(self, store => store.unblock(destination, max, in_turn).await)
    }

    /// Claims no message of a batch until [`Queue::release`], except those that [`Queue::unblock`] made due.
    pub fn hold(&self, batch: Priority) {
        engine!(self, store => store.hold(batch));
    }

    /// Claims messages of these batches again.
    pub fn release(&self, batches: &[Priority]) {
        engine!(self, store => store.release(batches));
    }
}

/// Batches.
impl Queue {
    /// Creates a batch, or finds it again.
    ///
    /// # Errors
    /// Also [`QueueError::State`] if another batch has this uuid.
    pub async fn create_batch(&self, batch: NewBatch, now: Timestamp) -> Result<Batch, QueueError> {
        engine!(self, store => store.create_batch(batch, now).await)
    }

    /// As [`Queue::create_batch`], for a batch whose recipients a resolver names.
    ///
    /// # Errors
    /// As [`Queue::create_batch`].
    pub async fn create_resolved_batch(
        &self,
        batch: NewBatch,
        resolver: Resolver,
        now: Timestamp,
    ) -> Result<Batch, QueueError> {
        engine!(self, store => store.create_resolved_batch(batch, resolver, now).await)
    }

    /// Notes that all recipients were added.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`].
    pub async fn complete_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.complete_batch(uuid).await)
    }

    /// Pauses a batch: nothing more of it is sent, except what is in flight.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`].
    pub async fn pause_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.pause_batch(uuid).await)
    }

    /// Resumes a batch that was paused, or whose resolver failed.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`].
    pub async fn resume_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.resume_batch(uuid).await)
    }

    /// Cancels the messages of a batch that wait. Those in flight end as they do, and are not tried again.
    ///
    /// # Errors
    /// Also [`QueueError::Unknown`].
    pub async fn cancel_batch(&self, uuid: Uuid, now: Timestamp) -> Result<Batch, QueueError> {
        engine!(self, store => store.cancel_batch(uuid, now).await)
    }

    /// One batch.
    pub async fn batch(&self, uuid: Uuid) -> Result<Option<Batch>, QueueError> {
        engine!(self, store => store.batch(uuid).await)
    }

    /// The latest batches, the latest first.
    pub async fn batches(&self, max: usize) -> Result<Vec<Batch>, QueueError> {
        engine!(self, store => store.batches(max).await)
    }

    /// Pages of recipients that are due, the batch that has waited longest first, and when the next page after them is due.
    pub async fn due_pages(&self, max: usize, now: Timestamp) -> Result<(Vec<DuePage>, Option<Timestamp>), QueueError> {
        engine!(self, store => store.due_pages(max, now).await)
    }

    /// Completes when a page of recipients may be due that was not before.
    pub async fn pages_changed(&self) {
        self.wakeups.pages_changed().await;
    }

    /// Notes that the messages of a page were accepted. `next`: where the next page starts; none after the last one.
    pub async fn page_accepted(&self, batch: Priority, next: Option<String>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.page_accepted(batch, next, now).await)
    }

    /// Notes that a page failed. `again`: when to ask for it again; `None` fails the batch, until it is resumed.
    pub async fn page_failed(
        &self,
        batch: Priority,
        error: String,
        again: Option<Timestamp>,
    ) -> Result<(), QueueError> {
        engine!(self, store => store.page_failed(batch, error, again).await)
    }
}

/// Events and webhooks.
impl Queue {
    /// Sets the webhooks to which every event is delivered from now on. Deliveries to others are dropped.
    pub async fn set_webhooks(&self, webhooks: Vec<String>) -> Result<(), QueueError> {
        engine!(self, store => store.set_webhooks(webhooks).await)
    }

    /// Stores an event that is about no message.
    pub async fn emit(&self, event: NewEvent, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.emit(event, now).await)
    }

    /// Events after that one, the earliest first: for a stream that was interrupted.
    pub async fn events(&self, after: EventId, max: usize) -> Result<Events, QueueError> {
        engine!(self, store => store.events(after, max).await)
    }

    /// Deliveries to a webhook that are due, the oldest event first.
    pub async fn webhook_deliveries(
        &self,
        webhook: String,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<WebhookDelivery>, QueueError> {
        engine!(self, store => store.webhook_deliveries(webhook, max, now).await)
    }

    /// When the next delivery to a webhook is due.
    pub async fn next_webhook_delivery(&self, webhook: String) -> Result<Option<Timestamp>, QueueError> {
        engine!(self, store => store.next_webhook_delivery(webhook).await)
    }

    /// Ends a delivery: the webhook accepted the event, or it is discarded.
    pub async fn end_webhook_delivery(&self, webhook: String, event: EventId) -> Result<(), QueueError> {
        engine!(self, store => store.end_webhook_delivery(webhook, event).await)
    }

    /// Notes that a delivery failed, and when to try again.
    pub async fn retry_webhook_delivery(
        &self,
        webhook: String,
        event: EventId,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        engine!(self, store => store.retry_webhook_delivery(webhook, event, due).await)
    }
}

/// Care of the store itself.
impl Queue {
    /// Does all maintenance that is due: retention, clean-up, vacuum. After failed writes, checks whether they work again. Must be
    /// called every few seconds.
    pub async fn maintain(&self, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.maintain(now).await)
    }

    /// Notes an orderly shutdown: messages in flight are not its cause.
    pub async fn note_shutdown(&self) -> Result<(), QueueError> {
        engine!(self, store => store.note_shutdown().await)
    }

    /// Keeps a value of the host's own.
    pub async fn put_meta(&self, key: &'static str, value: String) -> Result<(), QueueError> {
        engine!(self, store => store.put_meta(key, value).await)
    }

    /// A value that was kept.
    pub async fn get_meta(&self, key: &'static str) -> Result<Option<String>, QueueError> {
        engine!(self, store => store.get_meta(key).await)
    }

    /// Whether the store works, as far as it has been used.
    pub fn health(&self) -> Health {
        engine!(self, store => store.health())
    }

    /// Whether the store can be read.
    pub async fn ping(&self) -> Result<(), QueueError> {
        engine!(self, store => store.ping().await)
    }

    /// Completes when the writer has ended, which happens only after a bug: nothing can be written any more.
    pub async fn writer_ended(&self) {
        engine!(self, store => store.writer_ended().await);
    }

    /// Ends the writer as a bug would, for tests of what comes of it.
    #[doc(hidden)]
    pub async fn break_writer(&self) {
        engine!(self, store => store.break_writer().await);
    }

    /// Makes every lease that much older, for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn age_leases(&self, by: std::time::Duration) {
        engine!(self, store => store.age_leases(by).await);
    }

    /// Makes the next transaction fail at its end, for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub fn fail_next_write(&self) {
        engine!(self, store => store.fail_next_write());
    }
}
