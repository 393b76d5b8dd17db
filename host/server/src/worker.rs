//! The worker: claims messages from the queue as slots become free, sends each as far as possible, and settles it.
//!
//! A slot is the right to have one message in flight. Some slots are reserved for transactional messages, so that a bulk send that
//! uses all others delays none of them. A message that is accepted while a slot is free is claimed at once, without waiting in the
//! queue.

mod alone;
mod blocked;
mod reading;
mod settling;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ace::internals::monitoring::trace::{self, TraceContext};
use ace::internals::pipeline::{Progress, Snapshot};
use ace::internals::tasks;
use ace::message::{Destination, Message, Prepared, Report};
use ace_store::queue::{
    Claim, ClaimNo, Claimed, ClaimedBatch, Limits, MessageId, Priority, Queue, Settled, Settlement,
};
use alone::Alone;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::events::{self, Notification};
use settling::serialize;
pub(crate) use settling::state;

/// One in this many slots is reserved for transactional messages.
const RESERVED_PART: usize = 4;
/// Messages that are claimed ahead, before a slot is free for them.
const AHEAD: usize = 32;
/// Settlements that are written at once.
const SETTLING_MAX: usize = 1_024;
/// How many events a slow listener can lag behind.
const NOTIFICATIONS_MAX: usize = 1_024;
/// The longest time between two claims.
const POLL_MAX: Duration = Duration::from_secs(1);
/// How long to wait after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// A message's id, and the number of its claim.
type ClaimId = (MessageId, ClaimNo);

/// What the messages of a batch share: in stored form, and parsed.
type Ready = (Arc<[u8]>, Arc<Prepared>);

/// The right to have one message in flight.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    bulk_permit: Option<OwnedSemaphorePermit>,
}

/// The progress of a message.
pub(crate) enum Stage {
    New,
    InProgress(Progress),
    /// It was settled, and further channel types were requested. With its progress, if that was kept.
    Settled(Report, Option<Progress>),
}

/// A message that has a slot.
pub(crate) struct Job {
    pub(crate) id: MessageId,
    /// The claim that returned it.
    pub(crate) claim: ClaimNo,
    pub(crate) message: Arc<Message>,
    pub(crate) stage: Stage,
    /// The channels that its requests allow; `None` for all.
    pub(crate) limits: Option<Limits>,
    /// When a process or worker was found to have ended while the message was in flight.
    pub(crate) interrupted: Vec<Timestamp>,
    /// The trace context of its request, as stored.
    pub(crate) trace: Option<String>,
    pub(crate) priority: Priority,
    /// The start of its age.
    pub(crate) since: Timestamp,
}

/// A pending outcome. Dropping it ends the wait.
pub struct Awaited<'a> {
    worker: &'a Worker,
    uuid: Uuid,
    receiver: oneshot::Receiver<Arc<Report>>,
}

impl Awaited<'_> {
    /// Waits for the report of the message, at most that long.
    pub async fn settled_within(&mut self, time: Duration) -> Option<Arc<Report>> {
        tokio::time::timeout(time, &mut self.receiver).await.ok()?.ok()
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        let mut waiting = self.worker.waiting();
        if let Some(senders) = waiting.get_mut(&self.uuid) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.uuid);
            }
        }
    }
}

/// Sends messages.
pub struct Worker {
    queue: Arc<Queue>,
    current: Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    events: events::EventOptions,
    /// The number of slots.
    slots: u32,
    /// A permit for each slot.
    any: Arc<Semaphore>,
    /// A permit for each slot that is not reserved.
    bulk: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    /// Held batches, and the relay or origin that each waits for.
    held: Mutex<HashMap<Priority, Destination>>,
    /// Parsed batches, by their priority class.
    batches: Mutex<HashMap<Priority, Ready>>,
    panics: alone::Panics,
    waiting_for: Mutex<HashMap<Uuid, Vec<oneshot::Sender<Arc<Report>>>>>,
    notifications: broadcast::Sender<Arc<Notification>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Worker {
    /// `slots` is the number of messages in flight at once. Nothing is claimed before [`Worker::run`].
    pub fn new(
        queue: Arc<Queue>,
        current: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static,
        slots: usize,
        events: events::EventOptions,
    ) -> Arc<Self> {
        let reserved = (slots / RESERVED_PART).max(1).min(slots - 1);
        Arc::new(Worker {
            queue,
            current: Box::new(current),
            events,
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            any: Arc::new(Semaphore::new(slots)),
            bulk: Arc::new(Semaphore::new((slots - reserved).max(1))),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            held: Mutex::default(),
            batches: Mutex::default(),
            panics: alone::Panics::default(),
            waiting_for: Mutex::default(),
            notifications: broadcast::Sender::new(NOTIFICATIONS_MAX),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// A slot, if one is free now.
    pub(crate) fn slot(&self, is_transactional: bool) -> Option<Slot> {
        if self.stop.is_cancelled() {
            return None;
        }
        let bulk = if is_transactional { None } else { Some(self.bulk.clone().try_acquire_owned().ok()?) };
        Some(Slot { _permit: self.any.clone().try_acquire_owned().ok()?, bulk_permit: bulk })
    }

    /// Sends a message that was claimed for this slot.
    pub(crate) fn start(self: &Arc<Self>, slot: Slot, job: Job) {
        let worker = self.clone();
        let (claim_id, uuid) = ((job.id, job.claim), job.message.uuid);
        self.tasks.spawn(async move {
            if let Err(panicked) = tasks::caught(worker.send(slot, job)).await {
                worker.interrupted(claim_id, uuid, panicked).await;
            }
        });
    }

    /// Like [`Worker::start`], for a message as the queue returned it.
    fn start_claimed(self: &Arc<Self>, slot: Slot, claimed: Claimed) {
        let worker = self.clone();
        self.tasks.spawn(async move { worker.send_claimed(slot, claimed).await });
    }

    /// Sends a claimed message. A panic affects that message alone.
    async fn send_claimed(&self, slot: Slot, claimed: Claimed) {
        let (claim_id, uuid, is_culprit) = ((claimed.id, claimed.claim), claimed.uuid, claimed.is_culprit);
        let work = async {
            match self.job(&claimed) {
                Ok(job) if is_culprit => self.abandon(job, claimed.interruptions).await,
                Ok(job) => self.send(slot, job).await,
                Err(reason) => self.set_aside(claim_id, uuid, &reason).await,
            }
        };
        match tasks::caught(work).await {
            Ok(()) => {}
            // Abandoning it panicked, too.
            Err(panicked) if is_culprit => self.set_aside(claim_id, uuid, &panicked.to_string()).await,
            Err(panicked) => self.interrupted(claim_id, uuid, panicked).await,
        }
    }

    /// The outcome of a message, as soon as this process settles it. Must be called before the message is accepted.
    pub fn outcome(&self, uuid: Uuid) -> Awaited<'_> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().entry(uuid).or_default().push(sender);
        Awaited { worker: self, uuid, receiver }
    }

    /// Subscribes to events.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Notification>> {
        self.notifications.subscribe()
    }

    /// Emits an event about the server to listeners, and stores it if events are stored.
    pub(crate) async fn emit(&self, notification: Notification) {
        if self.events.are_kept
            && let Err(error) = self.queue.emit(notification.to_event(), self.now()).await
        {
            tracing::error!("An event of the kind {} could not be stored: {error}", notification.kind);
        }
        self.notify(notification);
    }

    /// Emits an event to listeners, without storing it.
    pub(crate) fn notify(&self, notification: Notification) {
        // An error only means that nobody is listening.
        let _ = self.notifications.send(Arc::new(notification));
    }

    /// Claims and sends until [`Worker::drain`].
    pub async fn run(self: Arc<Self>) {
        // Claimed messages that wait for a slot: one claim returns many.
        let mut ready: VecDeque<Claimed> = VecDeque::new();
        let mut urgent = self.queue.urgent();
        // No transactional message is due before this time.
        let mut none_urgent_until = Instant::now();
        let mut alone = Alone::default();
        while let Some(mut slots) = self.free_slots().await {
            self.start_ready(&mut ready, &mut slots);
            if alone.is_due() {
                // Nothing else is claimed before it is sent, and it is sent once all claimed messages have ended.
                drop(slots);
                if ready.is_empty() {
                    alone.sent(self.send_alone().await)
                } else {
                    self.free_for_bulk().await
                }
                continue;
            }
            if slots.is_empty() {
                continue;
            }
            let bulk = slots.iter().filter(|slot| slot.bulk_permit.is_some()).count();
            let (is_urgent, left) = (urgent.has_changed(), none_urgent_until.saturating_duration_since(Instant::now()));
            if bulk == 0 && !left.is_zero() && matches!(is_urgent, Ok(false)) {
                drop(slots);
                tokio::select! {
                    _ = urgent.changed() => urgent.mark_changed(),
                    _ = self.bulk.acquire() => {}
                    () = tokio::time::sleep(left) => {}
                    () = self.stop.cancelled() => {}
                }
                continue;
            }
            let changed = self.queue.changed();
            urgent.mark_unchanged();
            let ahead = if ready.is_empty() && bulk > 0 { AHEAD } else { 0 };
            match self.queue.claim(Claim { max: slots.len() + ahead, bulk_max: bulk + ahead }, self.now()).await {
                Ok(ClaimedBatch { messages, next, next_transactional, next_suspect }) => {
                    none_urgent_until = Instant::now() + self.time_until(next_transactional);
                    let until = |at: Timestamp| Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
                    alone.schedule(next_suspect.map(until));
                    let is_empty = messages.is_empty();
                    ready.extend(messages);
                    self.start_ready(&mut ready, &mut slots);
                    let is_full_of_bulk = slots.iter().all(|slot| slot.bulk_permit.is_none());
                    drop(slots);
                    if is_empty && !is_full_of_bulk {
                        self.rest(changed, self.time_until(next).min(alone.left())).await;
                    }
                }
                Err(error) => {
                    // The queue has logged it, once.
                    tracing::debug!("Messages could not be claimed; retrying in {STORE_PAUSE:?}: {error}");
                    drop(slots);
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
        self.release_ready(ready).await;
    }

    /// Waits for a slot, and takes the other free ones too; `None` once the worker stops.
    async fn free_slots(&self) -> Option<Vec<Slot>> {
        let first = tokio::select! {
            any = self.any.clone().acquire_owned() => any.ok()?,
            () = self.stop.cancelled() => return None,
        };
        let mut slots = vec![Slot { _permit: first, bulk_permit: self.bulk.clone().try_acquire_owned().ok() }];
        while let Ok(any) = self.any.clone().try_acquire_owned() {
            slots.push(Slot { _permit: any, bulk_permit: self.bulk.clone().try_acquire_owned().ok() });
        }
        Some(slots)
    }

    /// Starts messages that are ready, as far as slots are free.
    fn start_ready(self: &Arc<Self>, ready: &mut VecDeque<Claimed>, slots: &mut Vec<Slot>) {
        let mut left = VecDeque::new();
        for claimed in ready.drain(..) {
            // A transactional message prefers a reserved slot.
            let is_transactional = claimed.priority.is_transactional();
            let fitting = slots.iter().position(|slot| slot.bulk_permit.is_none() == is_transactional);
            let at = fitting.or(if is_transactional && !slots.is_empty() { Some(0) } else { None });
            match at.map(|at| slots.swap_remove(at)) {
                None => left.push_back(claimed),
                Some(slot) => self.start_claimed(slot, claimed),
            }
        }
        *ready = left;
    }

    /// Waits until there may be new work.
    async fn rest(&self, changed: impl Future<Output = ()>, at_most: Duration) {
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// The time until `next`, at most [`POLL_MAX`].
    fn time_until(&self, next: Option<Timestamp>) -> Duration {
        let left = next.map(|next| Duration::try_from(next.duration_since(self.now())).unwrap_or_default());
        left.unwrap_or(POLL_MAX).min(POLL_MAX)
    }

    /// Releases messages that were claimed ahead but not started.
    async fn release_ready(&self, ready: VecDeque<Claimed>) {
        let back = ready.into_iter().map(|claimed| Settled {
            id: claimed.id,
            claim: claimed.claim,
            settlement: Settlement::Release,
        });
        if let Err(error) = self.queue.settle(back.collect(), self.now()).await {
            tracing::warn!("Messages that were claimed but not started will be released at the next start: {error}");
        }
    }

    /// Sends a message as far as possible now, in its span.
    async fn send(&self, slot: Slot, job: Job) {
        let message = job.message.clone();
        let trace = job.trace.as_deref().and_then(TraceContext::parse);
        // Boxed, because a future is moved into each future that wraps it.
        trace::in_message(&message, trace, Box::pin(self.deliver(slot, job))).await;
    }

    async fn deliver(&self, slot: Slot, job: Job) {
        let Job { id, claim, message, stage, limits, interrupted, priority, since, .. } = job;
        let claim_id = (id, claim);
        let is_reopened = matches!(stage, Stage::Settled(..));
        let mut flight = self.flight(message, stage, limits, &interrupted);
        if !is_reopened {
            flight.set_accepted(since);
        }
        // Do all steps that are due. Later ones wait in the queue.
        while flight.due().is_some_and(|due| due <= self.now()) {
            flight.advance().await;
            if flight.must_be_recorded() {
                let progress = serialize(flight.progress());
                if !self.settle(claim_id, Settlement::Record { progress: progress.clone() }, true).await {
                    // Without the record the attempt must not be made. The claim, if any, expires.
                    return;
                }
                flight.set_recorder(self.recorder(claim_id, progress));
            }
        }
        // The next message may start while this one is being written.
        let permit = self.settling.clone().acquire_owned().await;
        drop(slot);
        match flight.due() {
            Some(_) if flight.waits_for().is_some() => self.block(claim_id, priority, &flight).await,
            Some(due) => {
                let progress = serialize(flight.progress());
                self.settle(claim_id, Settlement::Defer { due, progress }, false).await;
            }
            None => self.complete(claim_id, flight).await,
        }
        drop(permit);
    }

    /// Stops claiming and waits for messages in flight, at most that long. Returns whether all of them were finished.
    pub async fn drain(&self, at_most: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(at_most, self.tasks.wait()).await.is_ok()
    }

    fn now(&self) -> Timestamp {
        ((self.current)().now)()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<oneshot::Sender<Arc<Report>>>>> {
        self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
