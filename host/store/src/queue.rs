//! The durable queue: an accepted message is stored until it is settled, and then for a retention period.
//!
//! [`Queue`] is the interface. Behind it is one of the engines in [`Store`]; currently there is one, `sqlite`. The queue does not know the
//! content of messages: bodies, progress and reports are bytes. The suite in `conformance` specifies what every engine must do.
//!
//! Delivery is at least once. Claims are stored; after a crash, in-flight messages are requeued and marked *in doubt*. Within a process
//! a claim is a lease: if a worker dies, its messages are requeued when the lease ends. Settlements are fenced by claim number; one for
//! a lease that has ended is ignored.
//!
//! All times are passed in.

mod batches;
mod claims;
mod error;
mod events;
mod feedback;
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
pub(crate) use claims::LEASE;
pub use claims::{Claim, Claimed, ClaimedBatch, Done, Settled, Settlement};
pub use error::{OpenError, QueueError};
pub use events::{Event, Events, NewEvent, WebhookDelivery};
pub use feedback::{Delivery, FEEDBACK_WAIT, Feedback, FeedbackEvent, Lookup, NewFeedback};
pub use health::{Failing, Health};
pub use ids::{ClaimNo, EventId, MessageId, Priority};
pub use message::{Accepted, Erased, Filter, Limits, New, Page, Selection, State, Stats, Stored, UnknownState, digest};
pub use meter::{Rate, Rates};
pub use settings::Settings;
use sqlite::Sqlite;
use wakeups::Wakeups;

/// The queue. Only one process at a time can open it.
///
/// # Errors
/// All functions can fail with [`QueueError::Unavailable`], [`QueueError::NoRoom`] or [`QueueError::Damaged`]; nothing was changed then.
/// Further errors are listed at each function.
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
use engine;

impl Queue {
    /// Opens or creates the queue. Messages that were in flight when the last process ended are requeued, in doubt. Blocks.
    ///
    /// # Errors
    /// The database is in use, it is not a queue of this or an earlier version, or it cannot be read or written.
    pub fn open(settings: &Settings, now: Timestamp) -> Result<Self, OpenError> {
        let wakeups = Arc::new(Wakeups::default());
        let store = Store::Sqlite(Sqlite::open(settings, wakeups.clone(), now)?);
        Ok(Queue { store, wakeups })
    }

    /// Accepts messages with one durable write. Returns an answer for each, in order.
    ///
    /// # Errors
    /// [`QueueError::Full`], and [`QueueError::State`] for a cancelled batch; no message was accepted then.
    pub async fn accept(&self, new: Vec<New>, now: Timestamp) -> Result<Vec<Accepted>, QueueError> {
        self.start_accept(new, now).await?.await
    }

    /// As [`Queue::accept`], in two steps: completes when the position in the order of all writes is fixed, and returns a future that
    /// completes when the messages are stored. They are accepted even if that future is dropped.
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

    /// Claims due messages: transactional ones first, then a few of each other priority class in turn. A claim is a lease of 15 minutes.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn claim(&self, claim: Claim, now: Timestamp) -> Result<ClaimedBatch, QueueError> {
        engine!(self, store => store.claim(claim, now).await)
    }

    /// Claims a due suspect: a message that was in flight when several processes ended unexpectedly. It must be sent alone: nothing else
    /// may be claimed or in flight until it is settled.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn claim_suspect(&self, now: Timestamp) -> Result<Option<Claimed>, QueueError> {
        engine!(self, store => store.claim_suspect(now).await)
    }

    /// Settles messages with one durable write. Messages that were erased meanwhile are skipped.
    ///
    /// # Errors
    /// [`QueueError::State`] for a [`Settlement::Record`] whose claim has ended.
    pub async fn settle(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.settle(settled, now).await)
    }

    /// As [`Queue::settle`], but committed with the next transaction or a few milliseconds later.
    ///
    /// # Errors
    /// As [`Queue::settle`].
    pub async fn settle_deferred(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.settle_deferred(settled, now).await)
    }

    /// Completes when more messages may be claimable. Must be called before claiming, so that no change is missed.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.wakeups.changed()
    }

    /// Changes when more transactional messages may be claimable. Must be marked unchanged before claiming.
    pub fn urgent(&self) -> watch::Receiver<()> {
        self.wakeups.urgent()
    }

    /// One message.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn message(&self, uuid: Uuid) -> Result<Option<Stored>, QueueError> {
        engine!(self, store => store.message(uuid).await)
    }

    /// A page of at most `max` messages before `cursor`, the latest first, without bodies and progress.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn messages(&self, filter: Filter, cursor: Option<MessageId>, max: usize) -> Result<Page, QueueError> {
        engine!(self, store => store.messages(filter, cursor, max).await)
    }

    /// The depth and throughput of the queue.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn stats(&self) -> Result<Stats, QueueError> {
        engine!(self, store => store.stats().await)
    }

    /// Retries a dead letter, with the progress that it was settled with ([`Settlement::Done`]).
    ///
    /// # Errors
    /// [`QueueError::Unknown`], and [`QueueError::State`] if it is not a dead letter or its body was erased.
    pub async fn retry(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.retry(uuid, now).await)
    }

    /// Cancels a waiting message.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], and [`QueueError::State`] if it is in flight or settled.
    pub async fn cancel(&self, uuid: Uuid, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.cancel(uuid, now).await)
    }

    /// Discards a dead letter, and erases its body and progress.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], and [`QueueError::State`] if it is not a dead letter.
    pub async fn discard(&self, uuid: Uuid) -> Result<(), QueueError> {
        engine!(self, store => store.discard(uuid).await)
    }

    /// Retries the dead letters of a selection that can be retried, the latest first. Returns their number.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn retry_all(&self, selection: Selection, now: Timestamp) -> Result<u64, QueueError> {
        engine!(self, store => store.retry_all(selection, now).await)
    }

    /// Discards the dead letters of a selection, the latest first. Returns their number.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn discard_all(&self, selection: Selection) -> Result<u64, QueueError> {
        engine!(self, store => store.discard_all(selection).await)
    }

    /// Erases all messages to a user id or an address, and everything stored about them.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn erase(&self, user: Option<String>, email: Option<String>) -> Result<Erased, QueueError> {
        engine!(self, store => store.erase(user, email).await)
    }

    /// The number of messages that wait for each relay and origin that is or was down.
    pub fn blocked(&self) -> BTreeMap<String, u64> {
        engine!(self, store => store.blocked())
    }

    /// Makes at most `max` of the messages that wait for a destination due. Returns their number. Transactional messages come first;
    /// with `in_turn`, those that have not been tried for longest.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn unblock(&self, destination: String, max: usize, in_turn: bool) -> Result<usize, QueueError> {
        engine!(self, store => store.unblock(destination, max, in_turn).await)
    }

    /// Holds a batch: its messages are not claimed until [`Queue::release`], except those that [`Queue::unblock`] made due.
    pub fn hold(&self, batch: Priority) {
        engine!(self, store => store.hold(batch));
    }

    /// Ends the hold on batches.
    pub fn release(&self, batches: &[Priority]) {
        engine!(self, store => store.release(batches));
    }
}

/// Batches.
impl Queue {
    /// Creates a batch, or returns the existing one with this uuid and content.
    ///
    /// # Errors
    /// [`QueueError::State`] if a different batch has this uuid.
    pub async fn create_batch(&self, batch: NewBatch, now: Timestamp) -> Result<Batch, QueueError> {
        engine!(self, store => store.create_batch(batch, now).await)
    }

    /// As [`Queue::create_batch`], for a batch whose recipients come from a resolver.
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

    /// Records that all recipients were added.
    ///
    /// # Errors
    /// [`QueueError::Unknown`].
    pub async fn complete_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.complete_batch(uuid).await)
    }

    /// Pauses a batch: its messages are not sent, except those in flight.
    ///
    /// # Errors
    /// [`QueueError::Unknown`].
    pub async fn pause_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.pause_batch(uuid).await)
    }

    /// Resumes a batch that was paused, or whose resolver failed.
    ///
    /// # Errors
    /// [`QueueError::Unknown`].
    pub async fn resume_batch(&self, uuid: Uuid) -> Result<Batch, QueueError> {
        engine!(self, store => store.resume_batch(uuid).await)
    }

    /// Cancels a batch and its waiting messages. Messages in flight finish their current attempt.
    ///
    /// # Errors
    /// [`QueueError::Unknown`].
    pub async fn cancel_batch(&self, uuid: Uuid, now: Timestamp) -> Result<Batch, QueueError> {
        engine!(self, store => store.cancel_batch(uuid, now).await)
    }

    /// One batch.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn batch(&self, uuid: Uuid) -> Result<Option<Batch>, QueueError> {
        engine!(self, store => store.batch(uuid).await)
    }

    /// The latest batches, the latest first.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn batches(&self, max: usize) -> Result<Vec<Batch>, QueueError> {
        engine!(self, store => store.batches(max).await)
    }

    /// Due pages of recipients, those that have waited longest first, and when the next one after them is due.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn due_pages(&self, max: usize, now: Timestamp) -> Result<(Vec<DuePage>, Option<Timestamp>), QueueError> {
        engine!(self, store => store.due_pages(max, now).await)
    }

    /// Completes when more pages of recipients may be due.
    pub async fn pages_changed(&self) {
        self.wakeups.pages_changed().await;
    }

    /// Records that the messages of a page were accepted. `next`: the cursor of the next page, if there is one.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn page_accepted(&self, batch: Priority, next: Option<String>, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.page_accepted(batch, next, now).await)
    }

    /// Records that a page failed. `again`: when to retry; `None` fails the batch until it is resumed.
    ///
    /// # Errors
    /// See [`Queue`].
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
    /// Sets the webhooks that every event is delivered to from now on. Pending deliveries to others are dropped.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn set_webhooks(&self, webhooks: Vec<String>) -> Result<(), QueueError> {
        engine!(self, store => store.set_webhooks(webhooks).await)
    }

    /// Stores an event that does not concern a message.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn emit(&self, event: NewEvent, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.emit(event, now).await)
    }

    /// The events after an id, the earliest first, to resume a stream.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn events(&self, after: EventId, max: usize) -> Result<Events, QueueError> {
        engine!(self, store => store.events(after, max).await)
    }

    /// Due deliveries to a webhook, the oldest event first.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn webhook_deliveries(
        &self,
        webhook: String,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<WebhookDelivery>, QueueError> {
        engine!(self, store => store.webhook_deliveries(webhook, max, now).await)
    }

    /// When the next delivery to a webhook is due.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn next_webhook_delivery(&self, webhook: String) -> Result<Option<Timestamp>, QueueError> {
        engine!(self, store => store.next_webhook_delivery(webhook).await)
    }

    /// Ends a delivery that the webhook accepted or that is discarded.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn end_webhook_delivery(&self, webhook: String, event: EventId) -> Result<(), QueueError> {
        engine!(self, store => store.end_webhook_delivery(webhook, event).await)
    }

    /// Records that a delivery failed, and when to retry.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn retry_webhook_delivery(
        &self,
        webhook: String,
        event: EventId,
        due: Timestamp,
    ) -> Result<(), QueueError> {
        engine!(self, store => store.retry_webhook_delivery(webhook, event, due).await)
    }
}

/// Maintenance and health.
impl Queue {
    /// Runs the maintenance that is due: retention, clean-up, vacuum. After failed writes, checks whether they work again. Must be called
    /// every few seconds.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn maintain(&self, now: Timestamp) -> Result<(), QueueError> {
        engine!(self, store => store.maintain(now).await)
    }

    /// Records an orderly shutdown, so that messages in flight are not suspected to have caused it.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn note_shutdown(&self) -> Result<(), QueueError> {
        engine!(self, store => store.note_shutdown().await)
    }

    /// Stores a value under a key, for the host itself.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn put_meta(&self, key: &'static str, value: String) -> Result<(), QueueError> {
        engine!(self, store => store.put_meta(key, value).await)
    }

    /// A value that [`Queue::put_meta`] stored.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn get_meta(&self, key: &'static str) -> Result<Option<String>, QueueError> {
        engine!(self, store => store.get_meta(key).await)
    }

    /// The health of the store, from the operations so far.
    pub fn health(&self) -> Health {
        engine!(self, store => store.health())
    }

    /// Checks that the store can be read.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn ping(&self) -> Result<(), QueueError> {
        engine!(self, store => store.ping().await)
    }

    /// Completes when the writer thread has answered, after the writes that were waiting for it. Writes nothing itself.
    ///
    /// # Errors
    /// See [`Queue`].
    pub async fn ping_writer(&self) -> Result<(), QueueError> {
        engine!(self, store => store.ping_writer().await)
    }

    /// Completes when the writer thread has ended, which happens only after a bug. Nothing can be written after that.
    pub async fn writer_ended(&self) {
        engine!(self, store => store.writer_ended().await);
    }

    /// For [`crate::faults`].
    pub(crate) async fn end_writer(&self) {
        engine!(self, store => store.end_writer().await);
    }

    /// For [`crate::faults`].
    pub(crate) async fn block_writer(&self, until: std::sync::mpsc::Receiver<()>) {
        engine!(self, store => store.block_writer(until).await);
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
