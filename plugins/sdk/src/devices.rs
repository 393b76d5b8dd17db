//! For channels that send one request to each device of the recipient: the notification, and the outcomes of all devices.
//!
//! ```
//! use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
//! use ace_plugin::devices::{self, Outcome, Refusal};
//! use ace_plugin::http::Request;
//! use ace_plugin::Message;
//!
//! struct Pager;
//!
//! impl Channel for Pager {
//!     fn describe() -> ChannelInfo {
//!         ChannelInfo::new("pager").file("body.txt")
//!     }
//!
//!     fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
//!         let (recipient, body) = (message.recipient(), rendered.text("body.txt")?);
//!         let pagers = devices::of(recipient.as_ref(), &["pager"]);
//!         devices::deliver(attempt, pagers, devices::DEVICES_MAX, 10_000, |_, number| {
//!             let request = Request::post(format!("https://pager.example/{number}")).body(body);
//!             devices::exchange(&request, "pager", |response, now, random| match response.status {
//!                 200..=299 => Outcome::Accepted(None),
//!                 410 => Outcome::Dropped(Refusal::new("GONE", response.described("the pager service", "", None))),
//!                 _ => {
//!                     let at = devices::next_attempt(response, devices::DELAY_MS, now, random);
//!                     Outcome::Later(Refusal::new("BUSY", response.described("the pager service", "", None)), at)
//!                 }
//!             })
//!         })
//!     }
//! }
//!
//! ace_plugin::export_channel!(Pager);
//! ```

mod notification;

use std::collections::BTreeSet;

use crate::authorized_http::{self, AuthorizedError};
use crate::channel::{Attempt, DeliveryError, Receipt};
use crate::delivery::{self, Note};
use crate::http::{HttpError, Request, Response};
use crate::{Recipient, RecoverableError, Timestamp, random, time};

pub use notification::{Notification, TTL_SECONDS_MAX, apns_expiration, collapse_id, replacement, time_to_live};

/// The delay of a retry if the provider suggests none.
pub const DELAY_MS: u64 = 10_000;
/// The same, if too much was sent.
pub const QUOTA_DELAY_MS: u64 = 60_000;
/// How far these delays are spread, so that retries do not coincide.
pub const JITTER_MS: u64 = 2_000;
/// Devices in one call of most channels. A call has a time limit.
pub const DEVICES_MAX: usize = 100;

/// The code of a device that was not tried yet, because a call has limits.
const MORE: &str = "MORE";

/// The outcome for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider accepted the notification, with this id.
    Accepted(Option<String>),
    /// The device does not exist any more.
    Dropped(Refusal),
    /// The device will never get this notification.
    Failed(Refusal),
    /// The fault is the same for every message: the channel is held, until a time if the provider named one.
    Held(Refusal, Option<Timestamp>),
    /// The device is tried again at this time.
    Later(Refusal, Timestamp),
}

/// Why the provider refused a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The provider's error code.
    pub code: String,
    /// One line for operators.
    pub reason: String,
}

impl Refusal {
    /// A refusal with this code and reason; [`Response::described`] makes a reason of a response.
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Refusal { code: code.into(), reason: reason.into() }
    }
}

/// The time of the next attempt: that of a Retry-After, or else after a delay with jitter.
pub fn next_attempt(response: &Response, delay_ms: u64, now: Timestamp, random: u64) -> Timestamp {
    response.retry_after(now).unwrap_or_else(|| time::about(now, delay_ms, JITTER_MS, random))
}

/// The recipient's contacts of these kinds, as kind and address.
pub fn of<'a>(recipient: Option<&'a Recipient>, kinds: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let contacts = recipient.into_iter().flat_map(|recipient| &recipient.contacts);
    contacts.map(|(kind, address)| (kind.as_str(), address.as_str())).filter(|(kind, _)| kinds.contains(kind))
}

/// Sends one request with a credential. `read` interprets the response, given the time and a random number.
///
/// # Errors
/// Nothing was sent. Recoverable: the credential has no token, for this or any other device. Fatal: the URL is invalid or not granted.
pub fn exchange(
    request: &Request,
    credential: &str,
    read: impl FnOnce(&Response, Timestamp, u64) -> Outcome,
) -> Result<Outcome, DeliveryError> {
    match authorized_http::fetch(request, credential) {
        Ok(response) => Ok(read(&response, time::now(), random::u64())),
        // It was sent and answered.
        Err(AuthorizedError::Http(error @ HttpError::TooLarge(_))) => {
            Ok(Outcome::Failed(Refusal::new("TOO_LARGE", error)))
        }
        // The device may have got the notification, and is tried again.
        Err(AuthorizedError::Http(error)) => match DeliveryError::from(error) {
            DeliveryError::Recoverable(error) => {
                Ok(Outcome::Later(Refusal::new("NO_ANSWER", error.message), after_delay()))
            }
            other => Err(other),
        },
        Err(error) => Err(error.into()),
    }
}

/// As [`exchange`], to an address that the recipient chose, such as a URL. If it is invalid or not granted, others may be fine: it fails
/// alone, with this code.
///
/// # Errors
/// Recoverable: nothing was sent, because the credential has no token.
pub fn exchange_with_chosen(
    request: &Request,
    credential: &str,
    code: &str,
    read: impl FnOnce(&Response, Timestamp, u64) -> Outcome,
) -> Result<Outcome, DeliveryError> {
    exchange(request, credential, read).or_else(|error| match error {
        DeliveryError::Fatal(why) => Ok(Outcome::Failed(Refusal::new(code, why))),
        other => Err(other),
    })
}

fn after_delay() -> Timestamp {
    time::about(time::now(), DELAY_MS, JITTER_MS, random::u64())
}

/// Sends to the devices, notes the outcome for each, and returns the result for all. The devices are pairs of kind and address. A call
/// has limits: after `max` devices, or once they have taken as long as one request may take, `timeout_ms`, the others are left to the next
/// attempt. Those that were not tried yet come first. `send` is not called again after an error or [`Outcome::Held`].
///
/// # Errors
/// Recoverable if a device is to be tried again, skipped if there is none, fatal if all failed; and errors of `send`.
pub fn deliver<'a>(
    attempt: &Attempt,
    devices: impl IntoIterator<Item = (&'a str, &'a str)>,
    max: usize,
    timeout_ms: u32,
    mut send: impl FnMut(&'a str, &'a str) -> Result<Outcome, DeliveryError>,
) -> Result<Receipt, DeliveryError> {
    let order = Order::new(devices, &delivery::noted()?, attempt.number);
    let (start, mut sums) = (time::now(), Sums::default());
    for (sent, (kind, address)) in order.devices.iter().copied().enumerate() {
        if sent == max {
            sums.postpone(&order, sent, format!("more than {max} devices"));
            break;
        }
        if time::now().saturating_sub(start) >= timeout_ms.into() {
            sums.postpone(&order, sent, "the devices before took too long to answer".to_owned());
            break;
        }
        let outcome = send(kind, address).inspect_err(|error| {
            // The other devices have no outcome either.
            if matches!(error, DeliveryError::Recoverable(_)) {
                delivery::note(&Note::retry(kind, address));
            }
        })?;
        let is_held = matches!(outcome, Outcome::Held(..));
        sums.add(kind, address, outcome);
        if is_held {
            break;
        }
    }
    sums.result()
}

/// The order in which devices are tried.
#[derive(Debug, PartialEq)]
struct Order<'a> {
    devices: Vec<(&'a str, &'a str)>,
    /// How many of them no earlier attempt has tried.
    untried: usize,
}

impl<'a> Order<'a> {
    /// Those that were tried come last, and another one of them first each time, so that none keeps the message from the others.
    fn new(devices: impl IntoIterator<Item = (&'a str, &'a str)>, noted: &[Note], attempt: u32) -> Self {
        let is_tried = |note: &&Note| note.outcome == delivery::Outcome::Retry && note.code.as_deref() != Some(MORE);
        let tried: BTreeSet<(&str, &str)> =
            noted.iter().filter(is_tried).map(|note| (note.kind.as_str(), note.address.as_str())).collect();
        let (mut devices, mut last): (Vec<_>, Vec<_>) = devices.into_iter().partition(|device| !tried.contains(device));
        let first = (attempt as usize).checked_rem(last.len()).unwrap_or_default();
        last.rotate_left(first);
        let untried = devices.len();
        devices.append(&mut last);
        Order { devices, untried }
    }
}

/// The outcomes for all devices.
#[derive(Default)]
struct Sums {
    sent: usize,
    id: Option<String>,
    dropped: usize,
    /// Why the last one was dropped.
    gone: String,
    failed: Option<String>,
    /// Why some are tried again, and when the first of them is.
    later: Option<(String, Timestamp)>,
}

impl Sums {
    fn add(&mut self, kind: &str, address: &str, outcome: Outcome) {
        match outcome {
            Outcome::Accepted(id) => {
                delivery::note(&id.iter().fold(Note::sent(kind, address), |note, id| note.provider_id(id)));
                self.sent += 1;
                self.id = self.id.take().or(id);
            }
            Outcome::Dropped(refusal) => {
                delivery::note(&Note::dropped(kind, address).code(refusal.code));
                self.dropped += 1;
                self.gone = refusal.reason;
            }
            Outcome::Failed(refusal) => {
                delivery::note(&Note::failed(kind, address).code(refusal.code));
                self.failed = Some(refusal.reason);
            }
            Outcome::Held(refusal, until) => {
                delivery::note(&Note::retry(kind, address).code(refusal.code));
                delivery::hold(until, &refusal.reason);
                self.later(refusal.reason, until.unwrap_or_else(time::now));
            }
            Outcome::Later(refusal, at) => {
                delivery::note(&Note::retry(kind, address).code(refusal.code));
                self.later(refusal.reason, at);
            }
        }
    }

    /// Leaves the devices after the first `sent` to the next attempt: at once if one of them was not tried yet. Otherwise it waits, so
    /// that it does not come before the time that a provider named.
    fn postpone(&mut self, order: &Order<'_>, sent: usize, reason: String) {
        if sent < order.untried {
            let (kind, address) = order.devices[sent];
            delivery::note(&Note::retry(kind, address).code(MORE));
            self.later(reason, time::now());
        } else {
            self.later(reason, after_delay());
        }
    }

    fn later(&mut self, reason: String, at: Timestamp) {
        let first = self.later.as_ref().map_or(at, |(_, earlier)| at.min(*earlier));
        self.later = Some((reason, first));
    }

    fn result(self) -> Result<Receipt, DeliveryError> {
        let Sums { sent, id, dropped, gone, failed, later } = self;
        match (later, sent, failed) {
            (Some((message, at)), _, _) => {
                Err(DeliveryError::Recoverable(RecoverableError { message, next_attempt_time: Some(at) }))
            }
            (None, 1.., _) => Ok(Receipt { provider_id: id, detail: None }),
            (None, 0, Some(why)) => Err(DeliveryError::Fatal(why)),
            (None, 0, None) if dropped > 0 => {
                let why = format!("no device of the recipient exists any more ({dropped} dropped): {gone}");
                Err(DeliveryError::Skipped(why))
            }
            (None, 0, None) => Err(DeliveryError::Skipped("the recipient has no device".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, body: Vec::new() }
    }

    #[test]
    fn the_provider_names_the_time_of_the_next_attempt() {
        let at = |headers: &[(&str, &str)]| next_attempt(&response(429, headers), QUOTA_DELAY_MS, 1_000, JITTER_MS);
        assert_eq!((at(&[("Retry-After", "7")]), at(&[])), (8_000, 61_000));
    }

    #[test]
    fn devices_that_were_not_tried_come_first() {
        let noted = [
            Note::retry("k", "a").code("503"),
            Note::retry("k", "b").code("NO_ANSWER"),
            Note::retry("k", "c").code(MORE),
            Note::retry("other", "d"),
        ];
        let order = |attempt| Order::new(["a", "b", "c", "d"].map(|address| ("k", address)), &noted, attempt);
        let expected = |devices: [&'static str; 4]| Order { devices: devices.map(|one| ("k", one)).into(), untried: 2 };
        assert_eq!(order(2), expected(["c", "d", "a", "b"]));
        assert_eq!(order(3), expected(["c", "d", "b", "a"]));
        assert_eq!(Order::new([("k", "a")], &[], 1), Order { devices: vec![("k", "a")], untried: 1 });
    }

    #[test]
    fn the_first_retry_decides_when_the_message_is_tried_again() {
        let mut sums = Sums { sent: 1, dropped: 1, ..Sums::default() };
        sums.later("busy".to_owned(), 9);
        sums.later("busier".to_owned(), 12);
        let error = RecoverableError { message: "busier".to_owned(), next_attempt_time: Some(9) };
        assert_eq!(sums.result(), Err(DeliveryError::Recoverable(error)));
    }

    #[test]
    fn one_device_that_got_it_is_enough() {
        let sums =
            Sums { sent: 1, id: Some("1".to_owned()), dropped: 1, failed: Some("no".to_owned()), ..Sums::default() };
        assert_eq!(sums.result(), Ok(Receipt { provider_id: Some("1".to_owned()), detail: None }));
        let sums = Sums { dropped: 1, failed: Some("no".to_owned()), ..Sums::default() };
        assert_eq!(sums.result(), Err(DeliveryError::Fatal("no".to_owned())));
    }
}
