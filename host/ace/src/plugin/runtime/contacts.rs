//! Contacts of a channel's deliveries with relays and HTTP origins. Only the host's imports use this; guests do not see it.

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;
use uuid::Uuid;

use crate::destination::{Cause, Contact, Destinations, Failure};
use crate::mailer::Progress;
use crate::message::{Destination, Unreached};

/// Rejected HTTP log-ins of one call that a later request of the call may still make good.
const LOGINS_MAX: usize = 8;
/// Destinations that are remembered for one instance.
const USED_MAX: usize = 16;

/// The delivery that contacts a destination.
#[derive(Clone)]
pub struct Caller {
    pub destinations: Arc<Destinations>,
    pub message: Uuid,
    pub now: fn() -> Timestamp,
}

/// A destination in the form that the imports have it.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    Relay(&'a str),
    Origin(&'a Url),
}

impl Target<'_> {
    fn destination(self) -> Destination {
        match self {
            Target::Relay(name) => Destination::Relay(name.to_owned()),
            Target::Origin(url) => Destination::Origin(url.origin().ascii_serialization()),
        }
    }

    fn is(self, destination: &Destination) -> bool {
        match (self, destination) {
            (Target::Relay(name), Destination::Relay(other)) => name == other,
            (Target::Origin(_), Destination::Origin(_)) => self.destination() == *destination,
            _ => false,
        }
    }
}

/// The outcome of a contact.
pub enum ContactOutcome {
    /// The recipients were named to it, whatever it answered about them. `is_accepted`: it accepted the message.
    Reached { is_accepted: bool },
    /// It failed before a recipient was named.
    Failed(Cause, String),
    /// It rejected the log-in over HTTP. This counts only if the call ends without a later success.
    LoginRejected(String),
    /// The outcome says nothing about the destination.
    Unknown,
}

/// A mail that is being sent.
struct Mail {
    relay: String,
    contact: Contact,
    progress: Arc<Progress>,
}

/// The contacts of one call, and the destinations that the instance has used.
#[derive(Default)]
pub struct Contacts {
    /// The latest destination that could not be used.
    unreached: Option<Unreached>,
    /// The mail that is being sent to a relay. If it is still set when the call ends, the call was interrupted.
    mail: Option<Mail>,
    /// Rejected log-ins: a guest whose token has expired gets a new one and tries again.
    logins: Vec<(Destination, Contact, String)>,
    /// Destinations that accepted a message in any call of this instance.
    used: Vec<Destination>,
    /// Which of `used` accepted one last in this call.
    last_used: Option<usize>,
    /// Which of `used` was last reported to [`Destinations`].
    last_reported: Option<usize>,
}

/// A contact that has ended.
pub struct EndedContact<'a> {
    pub contact: Contact,
    pub target: Target<'a>,
    pub outcome: ContactOutcome,
}

/// A destination that could not be used, and why.
struct FailedContact {
    destination: Destination,
    cause: Cause,
    reason: String,
}

impl FailedContact {
    /// The destination is at fault, not the message.
    fn down(destination: Destination, reason: String) -> Self {
        FailedContact { destination, cause: Cause::Destination, reason }
    }
}

impl Contacts {
    /// Call before a contact. The error is a text for the guest: the destination is suspended.
    pub fn start(&mut self, caller: &Caller, channel: &str, target: Target<'_>) -> Result<Contact, String> {
        if let Some(at) = self.logins.iter().position(|(destination, ..)| target.is(destination)) {
            return Ok(self.logins.swap_remove(at).1);
        }
        let contact = caller.destinations.contact(&|| target.destination(), channel, caller.message, caller.now);
        contact.map_err(|paused| {
            let text = format!("{} is suspended until {}: {}", paused.destination, paused.until, paused.reason);
            let (destination, reason) = (paused.destination, paused.reason);
            self.unreached = Some(Unreached { destination, reason, is_contacted: false });
            text
        })
    }

    /// Whether there is nothing to do when the call ends.
    pub fn is_idle(&self) -> bool {
        self.unreached.is_none() && self.mail.is_none() && self.logins.is_empty() && self.last_used.is_none()
    }

    /// Notes that a mail is being sent to this relay.
    pub fn start_mail(&mut self, relay: &str, contact: Contact) {
        self.mail = Some(Mail { relay: relay.to_owned(), contact, progress: Arc::default() });
    }

    /// The progress of the mail that is being sent.
    pub fn progress(&self) -> Arc<Progress> {
        self.mail.as_ref().map(|mail| mail.progress.clone()).unwrap_or_default()
    }

    /// Notes that the mail was answered. Returns its contact and relay.
    pub fn end_mail(&mut self) -> Option<(Contact, String)> {
        self.mail.take().map(|mail| (mail.contact, mail.relay))
    }

    /// Handles a mail whose call was interrupted. Returns whether that happened before the mail's content was sent. A relay that
    /// was still being connected to counts as unreachable.
    pub fn interrupt_mail(&mut self, caller: &Caller, channel: &str) -> bool {
        let Some(Mail { relay, contact, progress }) = self.mail.take() else { return false };
        if progress.is_connecting() {
            let reason = "no connection within the time of a call (call-timeout)".to_owned();
            self.fail(caller, channel, contact, FailedContact::down(Destination::Relay(relay), reason));
        }
        !progress.is_handing_over()
    }

    /// Records the outcome of a contact.
    pub fn settle(&mut self, caller: &Caller, channel: &str, ended: EndedContact<'_>) {
        let EndedContact { contact, target, outcome } = ended;
        match outcome {
            ContactOutcome::Reached { is_accepted } => {
                contact.reached(caller.now);
                if is_accepted {
                    self.note_used(target);
                }
                if self.unreached.as_ref().is_some_and(|unreached| target.is(&unreached.destination)) {
                    self.unreached = None;
                }
            }
            ContactOutcome::Failed(cause, reason) => {
                let failed = FailedContact { destination: target.destination(), cause, reason };
                self.fail(caller, channel, contact, failed);
            }
            ContactOutcome::LoginRejected(reason) if self.logins.len() < LOGINS_MAX => {
                self.logins.push((target.destination(), contact, reason));
            }
            ContactOutcome::LoginRejected(_) | ContactOutcome::Unknown => {}
        }
    }

    fn note_used(&mut self, target: Target<'_>) {
        self.last_used = self.used.iter().position(|used| target.is(used));
        if self.last_used.is_none() && self.used.len() < USED_MAX {
            self.last_used = Some(self.used.len());
            self.used.push(target.destination());
        }
    }

    fn fail(&mut self, caller: &Caller, channel: &str, contact: Contact, failed: FailedContact) {
        let FailedContact { destination, cause, reason } = failed;
        let failure = Failure { destination: &destination, channel, cause, reason: &reason, until: None };
        if contact.failed(failure, (caller.now)()) {
            self.unreached = Some(Unreached { destination, reason, is_contacted: true });
        }
    }

    /// Drops rejected log-ins: the channel said what they mean.
    pub fn forget_logins(&mut self) {
        self.logins.clear();
    }

    /// Adds the contacts of exchanges that ran in tasks of their own.
    pub fn extend(&mut self, other: Contacts) {
        self.logins.extend(other.logins);
        self.unreached = other.unreached.or(self.unreached.take());
        if let Some(last_used) = other.last_used.and_then(|at| other.used.into_iter().nth(at)) {
            let Some(at) = self.used.iter().position(|used| *used == last_used) else {
                if self.used.len() < USED_MAX {
                    self.last_used = Some(self.used.len());
                    self.used.push(last_used);
                }
                return;
            };
            self.last_used = Some(at);
        }
    }

    /// Ends the call. Returns the destination that could not be used, if any.
    pub fn end(&mut self, caller: Option<Caller>, channel: &str) -> Option<Unreached> {
        let (last_used, logins) = (self.last_used.take(), std::mem::take(&mut self.logins));
        if let Some(caller) = caller {
            for (destination, contact, reason) in logins {
                self.fail(&caller, channel, contact, FailedContact::down(destination, reason));
            }
            if let (Some(last_used), None) = (last_used, &self.unreached)
                && self.last_reported != Some(last_used)
            {
                self.last_reported = Some(last_used);
                caller.destinations.note_used(channel, self.used[last_used].clone());
            }
        }
        self.unreached.take()
    }
}
