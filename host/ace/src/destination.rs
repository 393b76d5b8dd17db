//! Which relays and HTTP origins can be used now. What cannot be reached, refuses the login, or fails before a recipient is
//! named is one fact about that relay or origin, not a failure of each message that meets it.
//!
//! The host's imports (`plugin::imports`) ask [`Destinations::contact`] before they contact one, and tell the [`Contact`] what
//! came of it: a guest has no say. The pipeline asks [`Destinations::paused`] before it makes an attempt.
//! The state machine of one destination is [`health`].
//!
//! A channel is paused while it has met a destination that is down, and every destination that took a message of it in this
//! process is down too: a plugin with two relays goes on over the other one. Its messages that need the first are told apart
//! by their attempt, which the host refuses without a contact.
//!
//! While every destination is in order nobody takes a lock here.

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

/// Destinations that are watched at once: a guest may name many origins. A further one is not.
const WATCHED_MAX: usize = 1_024;
/// Destinations that are remembered of one channel.
const USED_MAX: usize = 16;
/// Notices that a slow listener may be behind.
const NOTICES_MAX: usize = 256;
/// Characters of a reason: a server's words.
const REASON_CHARS_MAX: usize = 400;

/// Why a message does not go over a channel now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    pub destination: Destination,
    pub reason: String,
    /// When to ask again.
    pub until: Timestamp,
}

/// What the messages that wait for a destination may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// So many are to be tried.
    pub messages: u32,
    /// To see whether it is up again.
    pub is_probe: bool,
    /// Whether they are taken in their order rather than as they come.
    pub is_in_order: bool,
}

/// A destination went down, or came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The relay or origin.
    pub destination: Destination,
    /// Whether it can be used now.
    pub is_up: bool,
    /// Why it is, or was, down.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A destination that is not in order, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The relay or origin.
    pub destination: Destination,
    /// More and more messages go out over it again; otherwise it is down.
    pub is_recovering: bool,
    /// When it went down.
    pub since: Timestamp,
    /// Why, as it was told.
    pub reason: String,
    /// When a message is tried next, where it is down.
    pub next_attempt: Option<Timestamp>,
}

/// The health of every relay and origin that messages were handed to. One for each engine.
pub struct Destinations {
    /// How many are watched, so that nobody takes the lock where none is.
    watched: AtomicUsize,
    state: Mutex<State>,
    changed: Notify,
    notices: broadcast::Sender<Notice>,
    jitter: fn() -> f64,
}

struct State {
    /// Those that are not in order, or have messages to remember.
    health: HashMap<Destination, Health>,
    channels: BTreeMap<String, Used>,
    schedule: Delivery,
}

/// What a channel was seen to use.
#[derive(Default)]
struct Used {
    /// These took messages.
    took: BTreeSet<Destination>,
    /// These were down.
    down: BTreeSet<Destination>,
}

impl Destinations {
    /// All of them are in order. The pauses between probes follow `retry-delay` and `max-retry-delay`, up to
    /// [`health::PROBE_PAUSE_MAX`]. `jitter` gives a number in 0..1 for each.
    pub fn new(schedule: &Delivery, jitter: fn() -> f64) -> Arc<Self> {
        Arc::new(Destinations {
            watched: AtomicUsize::new(0),
            state: Mutex::new(State { health: HashMap::new(), channels: BTreeMap::new(), schedule: schedule.clone() }),
            changed: Notify::new(),
            notices: broadcast::Sender::new(NOTICES_MAX),
            jitter,
        })
    }

    /// Takes new settings for the pauses that follow.
    pub fn set_schedule(&self, schedule: &Delivery) {
        self.lock().schedule = schedule.clone();
    }

    /// Before a contact. The error: it is left alone for now. `channel` and `message`: on whose behalf.
    pub fn contact(
        self: &Arc<Self>,
        destination: &dyn Fn() -> Destination,
        channel: &str,
        message: Uuid,
        now: impl Fn() -> Timestamp,
    ) -> Result<Contact, Paused> {
        let contact = |permit| Contact { destinations: self.clone(), message, permit };
        if !self.is_watching() {
            return Ok(contact(None));
        }
        let (destination, now) = (destination(), now());
        let mut state = self.lock();
        let Some(health) = state.health.get_mut(&destination) else { return Ok(contact(None)) };
        match health.admit(message, now) {
            Ok(permit) => Ok(contact(Some(Held { destination, permit, begun: now }))),
            Err(until) => {
                let reason = health.reason().to_owned();
                state.note_down(channel, &destination);
                Err(Paused { destination, reason, until })
            }
        }
    }

    /// Whether a message has to wait before it goes over a channel. `waits_for`: what it met when it was tried before.
    pub fn paused(
        &self,
        channel: &str,
        waits_for: Option<&Destination>,
        message: Uuid,
        now: Timestamp,
    ) -> Option<Paused> {
        if !self.is_watching() {
            return None;
        }
        let mut state = self.lock();
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

    /// A destination took messages of this channel. Whoever tells this of each message takes the lock each time: to be told
    /// where it changes.
    pub fn note_used(&self, channel: &str, destination: Destination) {
        let mut state = self.lock();
        let took = &mut state.channels.entry(channel.to_owned()).or_default().took;
        if took.len() < USED_MAX {
            took.insert(destination);
        }
    }

    /// A message that had waited for a destination was handed over without it.
    pub fn bypassed(&self, destination: &Destination, now: Timestamp) {
        if let Some(health) = self.lock().health.get_mut(destination) {
            let change = health.bypassed(now);
            self.tell(destination, health, change, now);
        }
    }

    /// Messages have waited for it since before this process began.
    pub fn was_down(&self, destination: Destination, now: Timestamp) {
        let mut state = self.lock();
        let reason = "it was down when the server stopped".to_owned();
        state.health.entry(destination).or_insert_with(|| Health::down_before(reason, now));
        self.watched.store(state.health.len(), Ordering::Release);
    }

    /// How many of the messages that wait for a destination are to be tried now, at most so many.
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

    /// Those that are not in order, by name.
    pub fn troubles(&self, now: Timestamp) -> Vec<View> {
        let mut state = self.lock();
        state.prune(now);
        self.watched.store(state.health.len(), Ordering::Release);
        let views = state.health.iter().filter_map(|(destination, health)| view(destination, health.trouble()?).into());
        let mut views: Vec<View> = views.collect();
        views.sort_by(|a, b| a.destination.cmp(&b.destination));
        views
    }

    /// Completes when messages that wait may be wanted that were not before. Ask for it before looking.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// What goes down and comes back from now on.
    pub fn listen(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn is_watching(&self) -> bool {
        self.watched.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, failure: Failure<'_>, held: Option<Held>, message: Uuid, now: Timestamp) -> bool {
        let Failure { destination, channel, cause, reason } = failure;
        let mut state = self.lock();
        if !state.health.contains_key(destination) && state.health.len() >= WATCHED_MAX {
            state.prune(now);
            if state.health.len() >= WATCHED_MAX {
                return false;
            }
        }
        let (schedule, jitter) = (state.schedule.clone(), (self.jitter)());
        let pause = |failures| retry::pause(failures, &schedule, jitter);
        let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect();
        let health = state.health.entry(destination.clone()).or_default();
        let permit = held.map_or(Permit::Free, |held| held.permit);
        let failed = health.failed(permit, message, Loss { cause, reason }, now, pause);
        let is_destination = match failed {
            Failed::Message => false,
            Failed::Destination(change) => {
                self.tell(destination, health, change, now);
                state.note_down(channel, destination);
                true
            }
        };
        self.watched.store(state.health.len(), Ordering::Release);
        is_destination
    }

    fn reached(&self, held: Held, now: Timestamp) {
        let mut state = self.lock();
        if let Some(health) = state.health.get_mut(&held.destination) {
            let change = health.reached(held.permit, held.begun, now);
            self.tell(&held.destination, health, change, now);
        }
        state.prune(now);
        self.watched.store(state.health.len(), Ordering::Release);
    }

    fn left(&self, held: &Held) {
        if let Some(health) = self.lock().health.get_mut(&held.destination) {
            health.left(held.permit, held.begun);
        }
    }

    fn tell(&self, destination: &Destination, health: &Health, change: Change, now: Timestamp) {
        let trouble = health.trouble();
        let reason = health.reason().to_owned();
        let since = trouble.map_or(now, |trouble| trouble.since);
        match change {
            Change::None => return,
            Change::Down => monitoring::destination_down(destination, &reason),
            Change::Up(down) => monitoring::destination_up(destination, down),
        }
        self.changed.notify_waiters();
        // Nobody may be listening.
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

    fn note_down(&mut self, channel: &str, destination: &Destination) {
        let down = &mut self.channels.entry(channel.to_owned()).or_default().down;
        if down.len() < USED_MAX {
            down.insert(destination.clone());
        }
    }

    /// Forgets those that are in order again.
    fn prune(&mut self, now: Timestamp) {
        let State { health, channels, .. } = self;
        health.retain(|_, health| !health.is_in_order(now));
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

/// A failure before a recipient was named.
pub struct Failure<'a> {
    pub destination: &'a Destination,
    pub channel: &'a str,
    pub cause: Cause,
    /// One line for the operator.
    pub reason: &'a str,
}

#[derive(Debug)]
struct Held {
    destination: Destination,
    permit: Permit,
    begun: Timestamp,
}

/// One contact with a destination. One that is dropped before its end told nothing.
pub struct Contact {
    destinations: Arc<Destinations>,
    message: Uuid,
    /// `None`: nothing was known of the destination when it began.
    permit: Option<Held>,
}

impl Contact {
    /// The destination is in order: it came to the recipients, whatever it said of them.
    pub fn reached(mut self, now: impl Fn() -> Timestamp) {
        if let Some(held) = self.permit.take() {
            self.destinations.reached(held, now());
        }
    }

    /// It failed before a recipient was named. False: this message failed there before, others got through meanwhile, and so
    /// the failure is its own.
    pub fn failed(mut self, failure: Failure<'_>, now: Timestamp) -> bool {
        let held = self.permit.take();
        self.destinations.clone().failed(failure, held, self.message, now)
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        if let Some(held) = self.permit.take() {
            self.destinations.left(&held);
        }
    }
}

#[cfg(test)]
mod tests;
