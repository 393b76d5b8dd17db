//! The outcome for the addresses of a message, as channels note it, and channels that are held.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EMAIL, Message, Recipient, Report};

/// The most contacts of a recipient, and the most addresses that are noted for one channel type of a message.
pub const ADDRESSES_MAX: usize = 256;
/// The most bytes of all of them together, with their kinds.
pub const ADDRESSES_BYTES_MAX: usize = 64 << 10;
/// The most bytes of all provider ids and codes that are noted for them.
pub const DETAILS_BYTES_MAX: usize = 64 << 10;
/// Bytes of a kind of address.
pub const KIND_BYTES_MAX: usize = 64;
/// Bytes of an address.
pub const ADDRESS_BYTES_MAX: usize = 4 * 1024;

/// Checks that the outcome for each contact can be noted. An outcome that is forgotten would be a second delivery.
///
/// # Errors
/// There are too many, or they are too long.
pub fn check_contacts(contacts: &[(String, String)]) -> Result<(), String> {
    let at_most = |max: usize, found: usize, what: &str| {
        if found > max { Err(format!("must have at most {max} {what}, not {found}")) } else { Ok(()) }
    };
    let longest = |of: fn(&(String, String)) -> usize| contacts.iter().map(of).max().unwrap_or_default();
    at_most(ADDRESSES_MAX, contacts.len(), "addresses")?;
    at_most(KIND_BYTES_MAX, longest(|(kind, _)| kind.len()), "bytes in a kind")?;
    at_most(ADDRESS_BYTES_MAX, longest(|(_, address)| address.len()), "bytes in an address")?;
    let all = contacts.iter().map(|(kind, address)| kind.len() + address.len()).sum();
    at_most(ADDRESSES_BYTES_MAX, all, "bytes in all kinds and addresses")
}

/// The outcome for one address of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRecord {
    /// The channel that noted it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// The kind of address, as in the recipient's contacts; `email` for the e-mail address.
    pub kind: String,
    /// The address.
    pub address: String,
    /// The outcome for it.
    pub outcome: AddressOutcome,
    /// The provider's id of the message to this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The provider's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The event `contact.dropped` was emitted when the message was settled before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
}

/// The outcome for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AddressOutcome {
    /// The provider accepted the message for it.
    Sent,
    /// It does not exist any more; the application should delete it.
    Dropped,
    /// It does not get this message over this channel.
    Failed,
    /// It is tried again.
    Retry,
}

impl AddressOutcome {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressOutcome::Sent => "sent",
            AddressOutcome::Dropped => "dropped",
            AddressOutcome::Failed => "failed",
            AddressOutcome::Retry => "retry",
        }
    }
}

impl AddressRecord {
    /// Whether this channel must not send to the address again. Another channel may try an address that failed.
    pub fn is_closed_for(&self, channel: &str) -> bool {
        match self.outcome {
            AddressOutcome::Sent | AddressOutcome::Dropped => true,
            AddressOutcome::Failed => self.channel == channel,
            AddressOutcome::Retry => false,
        }
    }

    /// The bytes of the address and its kind.
    pub fn address_bytes(&self) -> usize {
        self.kind.len() + self.address.len()
    }

    /// The bytes of what the provider answered.
    pub fn detail_bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        optional(&self.provider_id) + optional(&self.code)
    }

    /// Whether it is about this address.
    pub fn is_about(&self, kind: &str, address: &str) -> bool {
        self.kind == kind && self.address == address
    }
}

/// In one line, for people.
impl fmt::Display for AddressRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.address, self.outcome.as_str())?;
        self.code.iter().try_for_each(|code| write!(f, " ({code})"))
    }
}

/// Adds a record, which replaces an earlier one on the same address.
pub fn add_record(records: &mut Vec<AddressRecord>, record: AddressRecord) {
    match records.iter_mut().find(|known| known.is_about(&record.kind, &record.address)) {
        Some(known) => *known = record,
        None => records.push(record),
    }
}

impl Recipient {
    /// The recipient without the addresses to which a channel must not send again; `None` if every address may be used.
    pub fn remaining(&self, records: &[AddressRecord], channel: &str) -> Option<Recipient> {
        let closed: Vec<&AddressRecord> = records.iter().filter(|record| record.is_closed_for(channel)).collect();
        if closed.is_empty() {
            return None;
        }
        let is_open = |kind: &str, address: &str| !closed.iter().any(|record| record.is_about(kind, address));
        let mut remaining = self.clone();
        remaining.contacts.retain(|(kind, address)| is_open(kind, address));
        remaining.email_address.take_if(|address| !is_open(EMAIL, address));
        Some(remaining)
    }
}

impl Message {
    /// The message without the addresses to which a channel must not send again; `None` if every address may be used.
    pub fn remaining(&self, records: &[AddressRecord], channel: &str) -> Option<Message> {
        let recipient = self.recipient.as_ref()?.remaining(records, channel)?;
        Some(Message { recipient: Some(recipient), ..self.clone() })
    }
}

impl Report {
    /// The addresses that the application should delete and that were not reported to it yet.
    pub fn dropped_addresses(&self) -> impl Iterator<Item = &AddressRecord> {
        let records = self.channels.iter().flat_map(|channel| &channel.addresses);
        records.filter(|record| record.outcome == AddressOutcome::Dropped && !record.reported)
    }

    /// Notes that the dropped addresses were reported to the application.
    pub fn mark_reported(&mut self) {
        let records = self.channels.iter_mut().flat_map(|channel| &mut channel.addresses);
        records.for_each(|record| record.reported |= record.outcome == AddressOutcome::Dropped);
    }
}

/// Stores what a channel noted, before the next request of its call is sent. Used for channels that deliver at most once.
pub trait RecordAddresses: Send + Sync {
    /// Completes once the records are on the disk. An error: they could not be stored, or the message is no longer this worker's; the
    /// request must not be sent.
    fn record<'a>(&'a self, records: &'a [AddressRecord]) -> Recording<'a>;
}

/// Records that are being stored.
pub type Recording<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// A channel's wish that all of its messages wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// When a message may try the channel again. `None`: from time to time, with growing pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The reason in one line.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, address: &str, outcome: AddressOutcome) -> AddressRecord {
        let (kind, address) = (kind.to_owned(), address.to_owned());
        AddressRecord {
            channel: "fcm".to_owned(),
            kind,
            address,
            outcome,
            provider_id: None,
            code: None,
            reported: false,
        }
    }

    #[test]
    fn a_later_record_replaces_an_earlier_one_on_the_same_address() {
        let mut records = vec![record("push-token", "a", AddressOutcome::Retry)];
        add_record(&mut records, record("phone", "a", AddressOutcome::Failed));
        add_record(&mut records, record("push-token", "a", AddressOutcome::Sent));
        let outcomes: Vec<AddressOutcome> = records.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [AddressOutcome::Sent, AddressOutcome::Failed]);
    }

    #[test]
    fn a_recipient_keeps_the_addresses_that_are_open_for_a_channel() {
        let contact = |kind: &str, address: &str| (kind.to_owned(), address.to_owned());
        let contacts = ["a", "b", "c", "d", "e"].map(|token| contact("push-token", token));
        let recipient = Recipient { contacts: contacts.to_vec(), ..Recipient::new(1, "zoe@example.com") };
        let records = [
            record("push-token", "a", AddressOutcome::Sent),
            record("push-token", "b", AddressOutcome::Dropped),
            record("push-token", "c", AddressOutcome::Failed),
            record("push-token", "d", AddressOutcome::Retry),
            record("email", "zoe@example.com", AddressOutcome::Sent),
        ];
        let remaining = |channel| {
            let left = recipient.remaining(&records, channel).expect("some are closed");
            assert_eq!(left.email_address, None);
            left.contacts.into_iter().map(|(_, token)| token).collect::<String>()
        };
        assert_eq!(remaining("fcm"), "de");
        assert_eq!(remaining("other"), "cde", "another channel may reach an address that failed");
        assert_eq!(recipient.remaining(&records[3..4], "fcm"), None, "nothing is copied if all are open");
    }
}
