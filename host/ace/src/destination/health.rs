//! The health of one destination: healthy, down with probes, or recovering. A pure state machine: time is passed in.
//!
//! A failure that cannot be the message's ([`Cause::Destination`]) marks the destination as down at once. If the message may have
//! caused it ([`Cause::Unclear`]: the answer to MAIL, HTTP 5xx), another message is tried at once; if that one succeeds, the failure
//! was the first message's own.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// The longest time between two probes.
pub(crate) const PROBE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest time for which a channel can be held before a message tries it again.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// When to check again while a probe is in flight, or while all permits of a ramp are in use.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
const CHECK_AGAIN_RAMP: Duration = Duration::from_millis(200);
/// A destination has recovered when this many messages at the same time are allowed …
const RAMP_FULL: u32 = 32;
/// … or after this time without a failure.
const RAMP_TIME_MAX: Duration = Duration::from_secs(10);
/// The most messages that are remembered because a failure may have been their own …
const SUSPECTS_MAX: usize = 64;
/// … and for how long.
const SUSPECT_TIME_MAX: Duration = Duration::from_secs(3_600);

/// What a failure says about the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing of a message was sent yet: the destination or the connection to it failed.
    Destination,
    /// Part of the message was sent, so the message may be the cause.
    Unclear,
}

/// Permission to contact a destination. It ends with [`Health::reached`], [`Health::failed`] or [`Health::dropped`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    Free,
    Probe,
    Ramp,
}

/// A change of a destination's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It went down.
    Down,
    /// It is up again, after it was down for this long.
    Up(SignedDuration),
}

/// Whether a failure was the destination's or the message's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The destination's, as far as is known.
    Destination(Change),
    /// The message's: others succeed.
    Message,
}

/// The problem of a destination that is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub is_recovering: bool,
    pub since: Timestamp,
    pub reason: String,
    pub next_probe: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    outage: Option<Outage>,
    /// Messages that failed for an unclear cause, and when.
    suspects: VecDeque<(Uuid, Timestamp)>,
    /// The latest start of a successful contact, of those that started while the destination was tracked.
    reached: Option<Timestamp>,
}

#[derive(Debug)]
struct Outage {
    since: Timestamp,
    reason: String,
    /// Failed contacts in a row.
    failures: u32,
    next_probe: Timestamp,
    /// The longest time until the next probe, when that was set.
    pause_max: Duration,
    is_probing: bool,
    /// The only message that has failed so far, if the cause is unclear.
    witness: Option<Uuid>,
    /// [`Change::Down`] was returned.
    is_announced: bool,
    ramp: Option<Ramp>,
}

#[derive(Debug)]
struct Ramp {
    since: Timestamp,
    /// Messages at the same time; one more after each success.
    allowed: u32,
    busy: u32,
}

/// Why a contact failed.
pub(crate) struct Loss {
    pub(crate) cause: Cause,
    pub(crate) reason: String,
    /// When it may be used again, if that is known.
    pub(crate) until: Option<Timestamp>,
}

impl Health {
    /// A destination that was down before this process started. A probe is due.
    pub(crate) fn down_before(reason: String, now: Timestamp) -> Self {
        let outage = Outage { is_announced: true, ..Outage::new(reason, None, now, now) };
        Health { outage: Some(outage), ..Health::default() }
    }

    /// Whether it is healthy and has no suspect messages.
    pub(crate) fn is_healthy(&mut self, now: Timestamp) -> bool {
        self.end_ramp(now);
        self.suspects.retain(|(_, at)| now.duration_since(*at).abs() < signed(SUSPECT_TIME_MAX));
        self.outage.is_none() && self.suspects.is_empty()
    }

    /// Whether a message may contact it now; if not, when to try again.
    pub(crate) fn check(&mut self, message: Uuid, now: Timestamp) -> Result<Permit, Timestamp> {
        self.end_ramp(now);
        let Some(outage) = &self.outage else { return Ok(Permit::Free) };
        match &outage.ramp {
            Some(ramp) if ramp.busy < ramp.allowed => Ok(Permit::Ramp),
            Some(_) => Err(later(now, CHECK_AGAIN_RAMP)),
            None if outage.is_probing => Err(later(now, CHECK_AGAIN)),
            None if outage.is_probe_due(now) || outage.witness.is_some_and(|witness| witness != message) => {
                Ok(Permit::Probe)
            }
            None => Err(outage.next_probe),
        }
    }

    /// The same as [`Health::check`], but also takes the permit.
    pub(crate) fn admit(&mut self, message: Uuid, now: Timestamp) -> Result<Permit, Timestamp> {
        let permit = self.check(message, now)?;
        if let Some(outage) = &mut self.outage {
            match (&mut outage.ramp, permit) {
                (Some(ramp), Permit::Ramp) => ramp.busy += 1,
                (None, Permit::Probe) => outage.is_probing = true,
                _ => {}
            }
        }
        Ok(permit)
    }

    /// Records a success of a contact that started at `started`.
    pub(crate) fn reached(&mut self, permit: Permit, started: Timestamp, now: Timestamp) -> Change {
        self.reached = self.reached.max(Some(started));
        let Some(outage) = &mut self.outage else { return Change::None };
        let announced = outage.is_announced.then(|| now.duration_since(outage.since).max(SignedDuration::ZERO));
        match (permit, &mut outage.ramp) {
            (Permit::Ramp, Some(ramp)) => {
                (ramp.busy, ramp.allowed) = (ramp.busy.saturating_sub(1), ramp.allowed + 1);
                if ramp.allowed > RAMP_FULL {
                    self.outage = None;
                }
                Change::None
            }
            // Only one message had failed.
            (Permit::Probe, None) if announced.is_none() => {
                self.outage = None;
                Change::None
            }
            (Permit::Probe, None) => {
                outage.start_ramp(now);
                announced.map_or(Change::None, Change::Up)
            }
            _ => Change::None,
        }
    }

    /// Records that a message that waited for this destination was delivered elsewhere. Other messages may then be tried too.
    pub(crate) fn bypassed(&mut self, now: Timestamp) -> Change {
        match &mut self.outage {
            Some(outage) if outage.ramp.is_none() && !outage.is_probing => {
                let down = now.duration_since(outage.since).max(SignedDuration::ZERO);
                let was_announced = outage.is_announced;
                outage.start_ramp(now);
                if was_announced { Change::Up(down) } else { Change::None }
            }
            _ => Change::None,
        }
    }

    /// Records a failure before a recipient was named. `pause` returns the pause after a number of consecutive failures.
    pub(crate) fn failed(
        &mut self,
        permit: Permit,
        message: Uuid,
        Loss { cause, reason, until }: Loss,
        now: Timestamp,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Failed {
        if cause == Cause::Unclear {
            if self.is_cleared_since(message) {
                self.dropped(permit, now);
                return Failed::Message;
            }
            self.suspect(message, now);
        }
        let witness = (cause == Cause::Unclear).then_some(message);
        let pause_until = until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        let after =
            |failures| pause_until.map_or_else(|| pause(failures).min(PROBE_PAUSE_MAX), |left| left.min(HOLD_MAX));
        let outage = match &mut self.outage {
            None => {
                let mut outage = Outage::new(reason, witness, now, now);
                outage.pause(after(1), now);
                self.outage.insert(outage)
            }
            Some(outage) => {
                if permit != Permit::Free {
                    outage.failures += 1;
                    (outage.is_probing, outage.ramp, outage.reason) = (false, None, reason);
                    outage.pause(after(outage.failures), now);
                } else if let Some(left) = pause_until.filter(|left| later(now, *left) > outage.next_probe) {
                    outage.pause(left.min(HOLD_MAX), now);
                }
                if outage.witness != witness {
                    outage.witness = None;
                }
                outage
            }
        };
        let is_known = outage.witness.is_none() || outage.failures > 1;
        if is_known && outage.ramp.is_none() && !std::mem::replace(&mut outage.is_announced, is_known) {
            Failed::Destination(Change::Down)
        } else {
            Failed::Destination(Change::None)
        }
    }

    /// Ends a contact that says nothing about the destination: it was interrupted, or the mail could not be built.
    pub(crate) fn dropped(&mut self, permit: Permit, now: Timestamp) {
        let Some(outage) = &mut self.outage else { return };
        match (permit, &mut outage.ramp) {
            (Permit::Ramp, Some(ramp)) => ramp.busy = ramp.busy.saturating_sub(1),
            (Permit::Probe, None) => {
                outage.is_probing = false;
                outage.next_probe = outage.next_probe.max(later(now, CHECK_AGAIN));
            }
            _ => {}
        }
    }

    /// How many of the waiting messages may be sent now, at most `at_most`.
    pub(crate) fn wanted(&mut self, at_most: u32, now: Timestamp) -> u32 {
        self.end_ramp(now);
        let wanted = match &self.outage {
            None => at_most,
            Some(Outage { ramp: Some(ramp), .. }) => ramp.allowed.saturating_sub(ramp.busy),
            Some(outage) if outage.is_probing => 0,
            Some(outage) => u32::from(outage.is_probe_due(now) || outage.witness.is_some()),
        };
        wanted.min(at_most)
    }

    /// Why it is not healthy; empty if it is.
    pub(crate) fn reason(&self) -> &str {
        self.outage.as_ref().map_or("", |outage| &outage.reason)
    }

    /// Its problem, for listings; excludes a failure that may have been a message's own.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let outage = self.outage.as_ref().filter(|outage| outage.is_announced || outage.ramp.is_some())?;
        Some(Trouble {
            is_recovering: outage.ramp.is_some(),
            since: outage.since,
            reason: outage.reason.clone(),
            next_probe: outage.next_probe,
        })
    }

    /// Whether other messages succeeded after this message had failed.
    fn is_cleared_since(&self, message: Uuid) -> bool {
        let suspected = self.suspects.iter().find(|(suspect, _)| *suspect == message);
        suspected.is_some_and(|(_, at)| self.reached.is_some_and(|reached| reached > *at))
    }

    fn suspect(&mut self, message: Uuid, now: Timestamp) {
        match self.suspects.iter_mut().find(|(suspect, _)| *suspect == message) {
            Some((_, at)) => *at = now,
            None => {
                if self.suspects.len() == SUSPECTS_MAX {
                    self.suspects.pop_front();
                }
                self.suspects.push_back((message, now));
            }
        }
    }

    fn end_ramp(&mut self, now: Timestamp) {
        let since = self.outage.as_ref().and_then(|outage| Some(outage.ramp.as_ref()?.since));
        // A clock that was set back must not prolong it.
        if since.is_some_and(|since| now.duration_since(since).abs() >= signed(RAMP_TIME_MAX)) {
            self.outage = None;
        }
    }
}

impl Outage {
    fn new(reason: String, witness: Option<Uuid>, now: Timestamp, next_probe: Timestamp) -> Self {
        Outage {
            since: now,
            reason,
            failures: 1,
            next_probe,
            pause_max: PROBE_PAUSE_MAX,
            is_probing: false,
            witness,
            is_announced: false,
            ramp: None,
        }
    }

    fn start_ramp(&mut self, now: Timestamp) {
        (self.is_probing, self.is_announced, self.witness) = (false, false, None);
        self.ramp = Some(Ramp { since: now, allowed: 2, busy: 0 });
    }

    fn pause(&mut self, pause: Duration, now: Timestamp) {
        (self.next_probe, self.pause_max) = (later(now, pause), pause.max(PROBE_PAUSE_MAX));
    }

    fn is_probe_due(&self, now: Timestamp) -> bool {
        // A probe that is further away than any pause was scheduled before the clock was set back.
        self.next_probe <= now || self.next_probe > later(now, self.pause_max)
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
