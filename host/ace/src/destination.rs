//! Tracks which relays, HTTP origins and channels can be used. If a relay or origin cannot be reached, rejects the log-in, or fails
//! before a recipient is named, that is a problem of the relay or origin, not a failure of every message that needs it. A channel can
//! ask for the same: its messages wait while it is held.
//!
//! The host's imports (`plugin::imports`) call [`Destinations::contact`] before they contact one, and report the outcome to the
//! [`Contact`]; guests are not involved. The pipeline calls [`Destinations::paused`] before an attempt, and makes each attempt as a
//! contact with its channel. The state machine of one destination is [`health`].
//!
//! A channel is paused while one of its destinations is down, and every destination that has accepted a message of the channel in
//! this process is down too: a plugin with two relays continues with the other one. Its messages that need the first relay fail at
//! the attempt, which the host denies without a contact.
//!
//! While all destinations are healthy, no lock is taken.

pub(crate) mod health;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::config::Delivery;
use crate::message::Destination;
use crate::{monitoring, retry};
pub(crate) use health::Cause;
use health::{Change, Failed, Health, Loss, Permit, Trouble};

/// The most destinations that are tracked: a guest may name many origins.
const TRACKED_MAX: usize = 1_024;
/// The most destinations that are remembered for one channel.
const USED_MAX: usize = 16;
/// The most notices that a slow subscriber may lag behind.
const NOTICES_MAX: usize = 256;
/// The longest reason, in characters. It quotes the server.
const REASON_CHARS_MAX: usize = 400;

/// Why a message cannot be sent over a channel now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    pub destination: Destination,
    pub reason: String,
    /// When to try again.
    pub until: Timestamp,
}

/// How many of the messages that wait for a destination may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The number of messages to send.
    pub messages: u32,
    /// Whether they probe if the destination is up again.
    pub is_probe: bool,
    /// Whether they are sent in order.
    pub is_in_order: bool,
}

/// A destination went down or is up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The relay, origin or channel.
    pub destination: Destination,
    /// Whether it can be used now.
    pub is_up: bool,
    /// Why it is, or was, down.
    pub reason: String,
    /// When that happened.
    pub since: Timestamp,
}

/// A destination that is not healthy, as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The relay, origin or channel.
    pub destination: Destination,
    /// It is recovering: a growing number of messages use it. Otherwise it is down.
    pub is_recovering: bool,
    /// When it went down.
    pub since: Timestamp,
    /// Why it went down.
    pub reason: String,
    /// If it is down, when the next message is tried.
    pub next_attempt: Option<Timestamp>,
}

/// The health of all relays, origins and channels. Each engine has one.
pub struct Destinations {
    /// The number of tracked destinations, so that no lock is taken while there are none.
    tracked: AtomicUsize,
    state: Mutex<State>,
    changed: Notify,
    notices: broadcast::Sender<Notice>,
    jitter: fn() -> f64,
}

struct State {
    /// Destinations that are not healthy, or that have suspect messages.
    health: HashMap<Destination, Health>,
    channels: BTreeMap<String, Used>,
    schedule: Delivery,
}

/// The destinations of a channel.
#[derive(Default)]
struct Used {
    /// Those that have accepted messages.
    took: BTreeSet<Destination>,
    /// Those that were down.
    down: BTreeSet<Destination>,
}

impl Destinations {
    /// All destinations are healthy at first. The pauses between probes follow `retry-delay` and `max-retry-delay`, up to
    /// [`health::PROBE_PAUSE_MAX`]. `jitter` returns a number in 0..1 for each.
    pub fn new(schedule: &Delivery, jitter: fn() -> f64) -> Arc<Self> {
        Arc::new(Destinations {
            tracked: AtomicUsize::new(0),
            state: Mutex::new(State { health: HashMap::new(), channels: BTreeMap::new(), schedule: schedule.clone() }),
            changed: Notify::new(),
            notices: broadcast::Sender::new(NOTICES_MAX),
            jitter,
        })
    }

    /// Sets the delays for later pauses.
    pub fn set_schedule(&self, schedule: &Delivery) {
        self.lock().schedule = schedule.clone();
    }

    /// Call before a contact for a message of a channel. The error: the destination is paused.
    pub fn contact(
        self: &Arc<Self>,
        destination: &dyn Fn() -> Destination,
        channel: &str,
        message: Uuid,
        now: impl Fn() -> Timestamp,
    ) -> Result<Contact, Paused> {
        let contact = |permit| Contact { destinations: self.clone(), message, permit };
        if !self.is_tracking() {
            return Ok(contact(None));
        }
        let (destination, now) = (destination(), now());
        let mut state = self.lock();
        let Some(health) = state.health.get_mut(&destination) else { return Ok(contact(None)) };
        match health.admit(message, now) {
            Ok(permit) => Ok(contact(Some(Held { destination, permit, started: now }))),
            Err(until) => {
                let reason = health.reason().to_owned();
                state.note_down(channel, &destination);
                Err(Paused { destination, reason, until })
            }
        }
    }

    /// Whether a message must wait before it is sent over a channel. `waits_for`: the destination that its previous attempt needed.
    pub fn paused(
        &self,
        channel: &str,
        waits_for: Option<&Destination>,
        message: Uuid,
        now: Timestamp,
    ) -> Option<Paused> {
        if !self.is_tracking() {
            return None;
        }
        let mut state = self.lock();
        if let Some(held) = state.check(&Destination::Channel(channel.to_owned()), message, now) {
            return Some(held);
        }
        if let Some(destination) = waits_for {
            return state.check(destination, message, now);
        }
        let used = state.channels.get(channel)?;
        let (down, took) = (used.down.clone(), used.took.clone());
        let mut least: Option<Paused> = None;
        for destination in down {
            let paused = state.check(&destination, message, now)?;
            least = match least {
                Some(least) if least.until <= paused.until => Some(least),
                _ => Some(paused),
            };
        }
        let is_elsewhere = took.iter().any(|destination| state.check(destination, message, now).is_none());
        least.filter(|_| !is_elsewhere)
    }

    /// Records that a destination accepted messages of this channel. Takes a lock, so call it only when the destination changes.
    pub fn note_used(&self, channel: &str, destination: Destination) {
        let mut state = self.lock();
        let took = &mut state.channels.entry(channel.to_owned()).or_default().took;
        if took.len() < USED_MAX {
            took.insert(destination);
        }
    }

    /// Records that a message that waited for a destination was delivered without it.
    pub fn bypassed(&self, destination: &Destination, now: Timestamp) {
        if let Some(health) = self.lock().health.get_mut(destination) {
            let change = health.bypassed(now);
            self.notify(destination, health, change, now);
        }
    }

    /// Records a destination that messages have waited for since before this process started.
    pub fn was_down(&self, destination: Destination, now: Timestamp) {
        let mut state = self.lock();
        let reason = "it was down when the server stopped".to_owned();
        state.health.entry(destination).or_insert_with(|| Health::down_before(reason, now));
        self.tracked.store(state.health.len(), Ordering::Release);
    }

    /// How many of the messages that wait for a destination may be sent now, at most `at_most`.
    pub fn wanted(&self, destination: &Destination, at_most: u32, now: Timestamp) -> Wanted {
        match self.lock().health.get_mut(destination) {
            None => Wanted { messages: at_most, is_probe: false, is_in_order: true },
            Some(health) => {
                let messages = health.wanted(at_most, now);
                let trouble = health.trouble();
                let is_probe = trouble.as_ref().is_some_and(|trouble| !trouble.is_recovering);
                Wanted { messages, is_probe, is_in_order: trouble.is_none() }
            }
        }
    }

    /// The destinations that are not healthy, by name.
    pub fn troubles(&self, now: Timestamp) -> Vec<View> {
        let mut state = self.lock();
        state.prune(now);
        self.tracked.store(state.health.len(), Ordering::Release);
        let views = state.health.iter().filter_map(|(destination, health)| view(destination, health.trouble()?).into());
        let mut views: Vec<View> = views.collect();
        views.sort_by(|a, b| a.destination.cmp(&b.destination));
        views
    }

    /// Completes when more of the waiting messages may be sent. Call it before [`Destinations::wanted`].
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Subscribes to destinations that go down or are up again.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn is_tracking(&self) -> bool {
        self.tracked.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, failure: Failure<'_>, held: Option<Held>, message: Uuid, now: Timestamp) -> bool {
        let Failure { destination, channel, cause, reason, until } = failure;
        let mut state = self.lock();
        if !state.health.contains_key(destination) && state.health.len() >= TRACKED_MAX {
            state.prune(now);
            if state.health.len() >= TRACKED_MAX {
                return false;
            }
        }
        let (schedule, jitter) = (state.schedule.clone(), (self.jitter)());
        let pause = |failures| retry::pause(failures, &schedule, jitter);
        let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect();
        let health = state.health.entry(destination.clone()).or_default();
        let permit = held.map_or(Permit::Free, |held| held.permit);
        let failed = health.failed(permit, message, Loss { cause, reason, until }, now, pause);
        let is_destination = match failed {
            Failed::Message => false,
            Failed::Destination(change) => {
                self.notify(destination, health, change, now);
                state.note_down(channel, destination);
                true
            }
        };
        self.tracked.store(state.health.len(), Ordering::Release);
        is_destination
    }

    fn reached(&self, held: Held, now: Timestamp) {
        let mut state = self.lock();
        if let Some(health) = state.health.get_mut(&held.destination) {
            let change = health.reached(held.permit, held.started, now);
            self.notify(&held.destination, health, change, now);
        }
        state.prune(now);
        self.tracked.store(state.health.len(), Ordering::Release);
    }

    fn dropped(&self, held: &Held) {
        if let Some(health) = self.lock().health.get_mut(&held.destination) {
            health.dropped(held.permit, held.started);
        }
    }

    fn notify(&self, destination: &Destination, health: &Health, change: Change, now: Timestamp) {
        let trouble = health.trouble();
        let reason = health.reason().to_owned();
        let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
        match change {
            Change::None => return,
            Change::Down => {
                let next_probe = trouble.as_ref().map_or(now, |trouble| trouble.next_probe);
                monitoring::destination_down(destination, &reason, next_probe);
            }
            Change::Up(down) => monitoring::destination_up(destination, down),
        }
        self.changed.notify_waiters();
        // There may be no subscribers.
        let notice = Notice { destination: destination.clone(), is_up: change != Change::Down, reason, since };
        let _ = self.notices.send(notice);
    }
}

impl State {
    fn check(&mut self, destination: &Destination, message: Uuid, now: Timestamp) -> Option<Paused> {
        let health = self.health.get_mut(destination)?;
        let until = health.check(message, now).err()?;
        Some(Paused { destination: destination.clone(), reason: health.reason().to_owned(), until })
    }

    /// Remembers that a relay or origin of a channel was down.
    fn note_down(&mut self, channel: &str, destination: &Destination) {
        if matches!(destination, Destination::Channel(_)) {
            return;
        }
        let down = &mut self.channels.entry(channel.to_owned()).or_default().down;
        if down.len() < USED_MAX {
            down.insert(destination.clone());
        }
    }

    /// Drops destinations that are healthy again.
    fn prune(&mut self, now: Timestamp) {
        let State { health, channels, .. } = self;
        health.retain(|_, health| !health.is_healthy(now));
        for used in channels.values_mut() {
            used.down.retain(|destination| health.contains_key(destination));
        }
    }
}

fn view(destination: &Destination, trouble: Trouble) -> View {
    View {
        destination: destination.clone(),
        is_recovering: trouble.is_recovering,
        since: trouble.since,
        reason: trouble.reason,
        next_attempt: (!trouble.is_recovering).then_some(trouble.next_probe),
    }
}

/// A contact that failed before a recipient was named.
pub struct Failure<'a> {
    pub destination: &'a Destination,
    pub channel: &'a str,
    pub cause: Cause,
    /// One line for the operator.
    pub reason: &'a str,
    /// When the destination may be used again, if that is known.
    pub until: Option<Timestamp>,
}

#[derive(Debug)]
struct Held {
    destination: Destination,
    permit: Permit,
    started: Timestamp,
}

/// One contact with a destination. If it is dropped without an outcome, it says nothing about the destination.
pub struct Contact {
    destinations: Arc<Destinations>,
    message: Uuid,
    /// `None`: the destination was not tracked when the contact started.
    permit: Option<Held>,
}

impl Contact {
    /// Records that the recipients were named to the destination, whatever it answered about them.
    pub fn reached(mut self, now: impl Fn() -> Timestamp) {
        if let Some(held) = self.permit.take() {
            self.destinations.reached(held, now());
        }
    }

    /// Records a failure before a recipient was named. Returns false if the failure is the message's own: it failed before, and others
    /// succeeded since then.
    pub fn failed(mut self, failure: Failure<'_>, now: Timestamp) -> bool {
        let held = self.permit.take();
        self.destinations.clone().failed(failure, held, self.message, now)
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        if let Some(held) = self.permit.take() {
            self.destinations.dropped(&held);
        }
    }
}

#[cfg(test)]
mod tests;
