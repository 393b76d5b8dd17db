//! What a channel's deliveries meet on their way out. The host's imports write it, and no guest sees it.

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;
use uuid::Uuid;

use crate::destination::{Cause, Contact, Destinations, Failure};
use crate::mailer::Progress;
use crate::message::{Destination, Unreached};

/// Refused log-ins of one call that may still be followed by a better one.
const LOGINS_MAX: usize = 8;
/// Destinations that are remembered of one instance.
const KNOWN_MAX: usize = 16;

/// On whose behalf a destination is contacted: a channel's delivery of one message.
#[derive(Clone)]
pub struct Caller {
    pub destinations: Arc<Destinations>,
    pub message: Uuid,
    pub now: fn() -> Timestamp,
}

/// A destination as the imports have it.
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
            (Target::Relay(name), Destination::Relay(known)) => name == known,
            (Target::Origin(_), Destination::Origin(_)) => self.destination() == *destination,
            _ => false,
        }
    }
}

/// What came of a contact.
pub enum Came {
    /// It came to the recipients, whatever was said of them. `is_taken`: and took something.
    Reached { is_taken: bool },
    /// It failed before a recipient was named.
    Failed(Cause, String),
    /// The log-in was refused, over HTTP: final only where the call ends without a better answer.
    LoginRefused(String),
    /// Nothing is known of the destination.
    Unknown,
}

/// A mail on its way.
struct Mail {
    relay: String,
    contact: Contact,
    progress: Arc<Progress>,
}

/// The contacts of one call, and what the instance knows of those before.
#[derive(Default)]
pub struct Contacts {
    /// The destination that was met last and could not be used.
    unreached: Option<Unreached>,
    /// A mail that is on its way to a relay. One that is still here when the call has ended was cut off.
    mail: Option<Mail>,
    /// A guest whose token had expired gets another one and comes again.
    logins: Vec<(Destination, Contact, String)>,
    /// Destinations that took something, in this call or one before; which one did last in this call; which one was told.
    known: Vec<Destination>,
    took: Option<usize>,
    told: Option<usize>,
}

/// A contact that has ended.
pub struct Met<'a> {
    pub contact: Contact,
    pub target: Target<'a>,
    pub came: Came,
}

/// What could not be used, and why.
struct Lost {
    destination: Destination,
    cause: Cause,
    reason: String,
}

impl Contacts {
    /// Before a contact. The error: it is left alone for now, in words for the guest.
    pub fn begin(&mut self, caller: &Caller, channel: &str, target: Target<'_>) -> Result<Contact, String> {
        if let Some(at) = self.logins.iter().position(|(known, ..)| target.is(known)) {
            return Ok(self.logins.swap_remove(at).1);
        }
        let begun = caller.destinations.begin(&|| target.destination(), channel, caller.message, caller.now);
        begun.map_err(|paused| {
            let text = format!("{} is suspended until {}: {}", paused.destination, paused.until, paused.reason);
            let (destination, reason) = (paused.destination, paused.reason);
            self.unreached = Some(Unreached { destination, reason, is_contacted: false });
            text
        })
    }

    /// Whether nothing is to be done at the end of a call.
    pub fn is_idle(&self) -> bool {
        self.unreached.is_none() && self.mail.is_none() && self.logins.is_empty() && self.took.is_none()
    }

    /// A mail goes to this relay.
    pub fn open(&mut self, relay: &str, contact: Contact) {
        self.mail = Some(Mail { relay: relay.to_owned(), contact, progress: Arc::default() });
    }

    /// How far that mail has come.
    pub fn progress(&self) -> Arc<Progress> {
        self.mail.as_ref().map(|mail| mail.progress.clone()).unwrap_or_default()
    }

    /// It was answered: its contact and relay.
    pub fn close(&mut self) -> Option<(Contact, String)> {
        self.mail.take().map(|mail| (mail.contact, mail.relay))
    }

    /// The call was cut off while a mail was on its way: whether that was before the mail itself was sent. A relay that had not
    /// come to ask for it by then cannot be reached.
    pub fn cut_off(&mut self, caller: &Caller, channel: &str) -> bool {
        let Some(Mail { relay, contact, progress }) = self.mail.take() else { return false };
        if progress.is_connecting() {
            let reason = "no connection within the time of a call (call-timeout)".to_owned();
            let destination = Destination::Relay(relay);
            self.failed(caller, channel, contact, Lost { destination, cause: Cause::Destination, reason });
        }
        !progress.is_handing_over()
    }

    /// What came of a contact.
    pub fn settle(&mut self, caller: &Caller, channel: &str, met: Met<'_>) {
        let Met { contact, target, came } = met;
        match came {
            Came::Reached { is_taken } => {
                contact.reached(caller.now);
                if is_taken {
                    self.note_taken(target);
                }
                if self.unreached.as_ref().is_some_and(|unreached| target.is(&unreached.destination)) {
                    self.unreached = None;
                }
            }
            Came::Failed(cause, reason) => {
                self.failed(caller, channel, contact, Lost { destination: target.destination(), cause, reason })
            }
            Came::LoginRefused(reason) if self.logins.len() < LOGINS_MAX => {
                self.logins.push((target.destination(), contact, reason));
            }
            Came::LoginRefused(_) | Came::Unknown => {}
        }
    }

    fn note_taken(&mut self, target: Target<'_>) {
        self.took = self.known.iter().position(|known| target.is(known));
        if self.took.is_none() && self.known.len() < KNOWN_MAX {
            self.took = Some(self.known.len());
            self.known.push(target.destination());
        }
    }

    fn failed(&mut self, caller: &Caller, channel: &str, contact: Contact, lost: Lost) {
        let Lost { destination, cause, reason } = lost;
        let failure = Failure { destination: &destination, channel, cause, reason: &reason };
        if contact.failed(failure, (caller.now)()) {
            self.unreached = Some(Unreached { destination, reason, is_contacted: true });
        }
    }

    /// Takes in what exchanges apart from the call met.
    pub fn extend(&mut self, other: Contacts) {
        self.logins.extend(other.logins);
        self.unreached = other.unreached.or(self.unreached.take());
        if let Some(took) = other.took.and_then(|at| other.known.into_iter().nth(at)) {
            let Some(at) = self.known.iter().position(|known| *known == took) else {
                if self.known.len() < KNOWN_MAX {
                    self.took = Some(self.known.len());
                    self.known.push(took);
                }
                return;
            };
            self.took = Some(at);
        }
    }

    /// The call has ended: what it could not use.
    pub fn end(&mut self, caller: Option<Caller>, channel: &str) -> Option<Unreached> {
        let (took, logins) = (self.took.take(), std::mem::take(&mut self.logins));
        if let Some(caller) = caller {
            for (destination, contact, reason) in logins {
                self.failed(&caller, channel, contact, Lost { destination, cause: Cause::Destination, reason });
            }
            if let (Some(took), None) = (took, &self.unreached)
                && self.told != Some(took)
            {
                self.told = Some(took);
                caller.destinations.took(channel, self.known[took].clone());
            }
        }
        self.unreached.take()
    }
}
