//! Sends what the queue holds: claims messages as places come free, takes each as far as it goes, and gives back what came of it.
//!
//! A place is the right to have one message under way. Some places are for transactional messages alone, so that a bulk send
//! that has taken all others delays none of them. A message that is accepted while a place is free goes straight to it, with no
//! way through the queue's waiting rows.

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

use crate::events::{self, Told};
pub(crate) use settling::state;
use settling::write_down;

/// Of the places, one in so many is for transactional messages alone.
const RESERVED_PART: usize = 4;
/// Messages that are claimed before there is a place for them.
const AHEAD: usize = 32;
/// Settlements on their way to the disk at once.
const SETTLING_MAX: usize = 1_024;
/// Events that a slow listener may be behind.
const TOLD_MAX: usize = 1_024;
/// The longest the queue is not looked at.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long to wait after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// A message's number, and the claim it was handed out by.
type Lent = (MessageId, ClaimNo);

/// What the messages of a batch share, as it was stored and made ready.
type Ready = (Arc<[u8]>, Arc<Prepared>);

/// The right to have one message under way.
pub(crate) struct Place {
    _any: OwnedSemaphorePermit,
    _bulk: Option<OwnedSemaphorePermit>,
}

/// How far a message is.
pub(crate) enum Stands {
    AtTheBeginning,
    Under(Progress),
    /// It was settled, and is asked for further channel types. With what another try needs to know, where there is such.
    Settled(Report, Option<Progress>),
}

/// A message with a place.
pub(crate) struct Job {
    pub(crate) id: MessageId,
    /// The claim it was handed out by.
    pub(crate) claim: ClaimNo,
    pub(crate) message: Arc<Message>,
    pub(crate) stands: Stands,
    /// What its requests limited it to; `None`: nothing.
    pub(crate) limits: Option<Limits>,
    /// When it was noticed that a process had ended, or a worker had died, with it under way.
    pub(crate) interrupted: Vec<Timestamp>,
    /// The trace context it came with, as it was stored.
    pub(crate) trace: Option<String>,
    pub(crate) priority: Priority,
    /// What its age counts from.
    pub(crate) since: Timestamp,
}

/// An outcome that is waited for, for as long as this lives.
pub struct Awaited<'a> {
    worker: &'a Worker,
    uuid: Uuid,
    receiver: oneshot::Receiver<Arc<Report>>,
}

impl Awaited<'_> {
    /// The report of the message, where it is settled within that time.
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

/// Everything that sends.
pub struct Worker {
    queue: Arc<Queue>,
    current: Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    /// What events show.
    events: events::Shown,
    any: Arc<Semaphore>,
    /// All there are of them.
    places: u32,
    bulk: Arc<Semaphore>,
    settling: Arc<Semaphore>,
    /// Lanes of batches that wait for a relay or an origin that is down.
    held: Mutex<HashMap<Priority, Destination>>,
    /// By the batch's priority class.
    batches: Mutex<HashMap<Priority, Ready>>,
    panics: alone::Panics,
    waiting_for: Mutex<HashMap<Uuid, Vec<oneshot::Sender<Arc<Report>>>>>,
    told: broadcast::Sender<Arc<Told>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Worker {
    /// `places`: messages under way at once. Nothing is claimed before [`Worker::run`].
    pub fn new(
        queue: Arc<Queue>,
        current: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static,
        places: usize,
        events: events::Shown,
    ) -> Arc<Self> {
        let reserved = (places / RESERVED_PART).max(1).min(places - 1);
        Arc::new(Worker {
            queue,
            current: Box::new(current),
            events,
            any: Arc::new(Semaphore::new(places)),
            places: u32::try_from(places).unwrap_or(u32::MAX),
            bulk: Arc::new(Semaphore::new((places - reserved).max(1))),
            settling: Arc::new(Semaphore::new(SETTLING_MAX)),
            held: Mutex::default(),
            batches: Mutex::default(),
            panics: alone::Panics::default(),
            waiting_for: Mutex::default(),
            told: broadcast::Sender::new(TOLD_MAX),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// A place, if one is free now.
    pub(crate) fn place(&self, is_transactional: bool) -> Option<Place> {
        if self.stop.is_cancelled() {
            return None;
        }
        let bulk = match is_transactional {
            true => None,
            false => Some(self.bulk.clone().try_acquire_owned().ok()?),
        };
        Some(Place { _any: self.any.clone().try_acquire_owned().ok()?, _bulk: bulk })
    }

    /// Sends a message that was claimed for this place.
    pub(crate) fn begin(self: &Arc<Self>, place: Place, job: Job) {
        let worker = self.clone();
        let (lent, uuid) = ((job.id, job.claim), job.message.uuid);
        self.tasks.spawn(async move {
            if let Err(panicked) = tasks::caught(worker.send(place, job)).await {
                worker.interrupted(lent, uuid, panicked).await;
            }
        });
    }

    /// As [`Worker::begin`], for what the queue handed out.
    fn begin_claimed(self: &Arc<Self>, place: Place, claimed: Claimed) {
        let worker = self.clone();
        self.tasks.spawn(async move { worker.send_claimed(place, claimed).await });
    }

    /// A panic on the way is that message's alone.
    async fn send_claimed(&self, place: Place, claimed: Claimed) {
        let (lent, uuid, is_culprit) = ((claimed.id, claimed.claim), claimed.uuid, claimed.is_culprit);
        let work = async {
            match self.job(&claimed) {
                Ok(job) if is_culprit => self.give_up(job, claimed.interruptions).await,
                Ok(job) => self.send(place, job).await,
                Err(reason) => self.set_aside(lent, uuid, &reason).await,
            }
        };
        match tasks::caught(work).await {
            Ok(()) => {}
            // It cannot even be given up.
            Err(panicked) if is_culprit => self.set_aside(lent, uuid, &panicked.to_string()).await,
            Err(panicked) => self.interrupted(lent, uuid, panicked).await,
        }
    }

    /// What becomes of a message, as soon as it is settled by this process. To be asked for before it is accepted.
    pub fn outcome(&self, uuid: Uuid) -> Awaited<'_> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().entry(uuid).or_default().push(sender);
        Awaited { worker: self, uuid, receiver }
    }

    /// Every event from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.told.subscribe()
    }

    /// Tells whoever listens of something that is about no message, and keeps it where events are kept.
    pub(crate) async fn tell(&self, told: Told) {
        if self.events.are_kept
            && let Err(error) = self.queue.emit(told.to_event(), self.now()).await
        {
            tracing::error!("An event of the kind {} could not be stored: {error}", told.kind);
        }
        // Nobody may be listening.
        let _ = self.told.send(Arc::new(told));
    }

    /// Claims and sends until [`Worker::drain`].
    pub async fn run(self: Arc<Self>) {
        // Claimed, and waiting for a place: one claim for many messages.
        let mut ready: VecDeque<Claimed> = VecDeque::new();
        let mut urgent = self.queue.urgent();
        // Nothing transactional is due before that.
        let mut quiet_until = Instant::now();
        let mut alone = Alone::default();
        while let Some(mut places) = self.free_places().await {
            self.begin_ready(&mut ready, &mut places);
            if alone.is_due() {
                // Nothing more is claimed before it, and what is claimed ends before it begins.
                drop(places);
                match ready.is_empty() {
                    true => alone.ended(self.send_alone().await),
                    false => self.free_for_bulk().await,
                }
                continue;
            }
            if places.is_empty() {
                continue;
            }
            let bulk = places.iter().filter(|place| place._bulk.is_some()).count();
            let (is_urgent, left) = (urgent.has_changed(), quiet_until.saturating_duration_since(Instant::now()));
            if bulk == 0 && !left.is_zero() && matches!(is_urgent, Ok(false)) {
                drop(places);
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
            match self.queue.claim(Claim { max: places.len() + ahead, bulk_max: bulk + ahead }, self.now()).await {
                Ok(ClaimedBatch { messages, next, next_transactional, next_suspect }) => {
                    quiet_until = Instant::now() + self.left(next_transactional);
                    let until = |at: Timestamp| Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
                    alone.wanted(next_suspect.map(until));
                    let is_nothing = messages.is_empty();
                    ready.extend(messages);
                    self.begin_ready(&mut ready, &mut places);
                    let is_full_of_bulk = places.iter().all(|place| place._bulk.is_none());
                    drop(places);
                    if is_nothing && !is_full_of_bulk {
                        self.rest(changed, self.left(next).min(alone.left())).await;
                    }
                }
                Err(error) => {
                    // The queue tells the operator, once.
                    tracing::debug!("Claiming messages failed; retrying soon: {error}");
                    drop(places);
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
        self.give_back(ready).await;
    }

    /// Waits for a place, and takes the others that are free too; `None` once there is nothing more to begin.
    async fn free_places(&self) -> Option<Vec<Place>> {
        let first = tokio::select! {
            any = self.any.clone().acquire_owned() => any.ok()?,
            () = self.stop.cancelled() => return None,
        };
        let mut places = vec![Place { _any: first, _bulk: self.bulk.clone().try_acquire_owned().ok() }];
        while let Ok(any) = self.any.clone().try_acquire_owned() {
            places.push(Place { _any: any, _bulk: self.bulk.clone().try_acquire_owned().ok() });
        }
        Some(places)
    }

    /// Begins what is ready, as far as there are places for it.
    fn begin_ready(self: &Arc<Self>, ready: &mut VecDeque<Claimed>, places: &mut Vec<Place>) {
        let mut left = VecDeque::new();
        for claimed in ready.drain(..) {
            // A transactional message leaves a place that anything may have to others, where it can.
            let is_transactional = claimed.priority.is_transactional();
            let fitting = places.iter().position(|place| place._bulk.is_none() == is_transactional);
            let at = fitting.or(if is_transactional && !places.is_empty() { Some(0) } else { None });
            match at.map(|at| places.swap_remove(at)) {
                None => left.push_back(claimed),
                Some(place) => self.begin_claimed(place, claimed),
            }
        }
        *ready = left;
    }

    /// Until something can be begun that could not before.
    async fn rest(&self, changed: impl Future<Output = ()>, at_most: Duration) {
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// The time until then, at most as long as the queue may be left alone.
    fn left(&self, next: Option<Timestamp>) -> Duration {
        let left = next.map(|next| Duration::try_from(next.duration_since(self.now())).unwrap_or_default());
        left.unwrap_or(LOOK_MAX).min(LOOK_MAX)
    }

    /// What was claimed ahead and not begun waits as before.
    async fn give_back(&self, ready: VecDeque<Claimed>) {
        let back = ready.into_iter().map(|claimed| Settled {
            id: claimed.id,
            claim: claimed.claim,
            settlement: Settlement::Release,
        });
        if let Err(error) = self.queue.settle(back.collect(), self.now()).await {
            tracing::warn!("Messages that were claimed but not started will be released at the next start: {error}");
        }
    }

    /// Takes a message as far as it goes now, in its span.
    async fn send(&self, place: Place, job: Job) {
        let message = job.message.clone();
        let trace = job.trace.as_deref().and_then(TraceContext::parse);
        // Kept where it is: a future is copied into each one that wraps it.
        trace::in_message(&message, trace, Box::pin(self.go_on(place, job))).await;
    }

    async fn go_on(&self, place: Place, job: Job) {
        let Job { id, claim, message, stands, limits, interrupted, priority, since, .. } = job;
        let lent = (id, claim);
        let is_reopened = matches!(stands, Stands::Settled(..));
        let mut flight = self.flight(message, stands, limits, &interrupted);
        if !is_reopened {
            flight.was_accepted(since);
        }
        // What is due at once is gone on with; anything else waits in the queue.
        while flight.due().is_some_and(|due| due <= self.now()) {
            flight.advance().await;
            if flight.is_to_be_recorded() {
                let progress = write_down(flight.progress());
                if !self.settle(lent, Settlement::Record { progress }, true).await {
                    // Without the record the attempt must not be made. Where there is a claim it ends with its lease.
                    return;
                }
            }
        }
        // The next message may begin while this one is written down.
        let permit = self.settling.clone().acquire_owned().await;
        drop(place);
        match flight.due() {
            Some(_) if flight.waits_for().is_some() => self.block(lent, priority, &flight).await,
            Some(due) => {
                let progress = write_down(flight.progress());
                self.settle(lent, Settlement::Defer { due, progress }, false).await;
            }
            None => self.done(lent, flight).await,
        }
        drop(permit);
    }

    /// Claims nothing more and waits for what is under way, at most so long; whether all of it ended.
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
