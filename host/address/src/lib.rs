//! What the host and its plugins must compute alike: the normal form of an address, the entry of a suppressed one, and the rules for the
//! mailboxes, headers and attachments of a mail. Builds for guests.

#![warn(missing_docs, unreachable_pub)]

pub mod attachment;
pub mod header;
pub mod mailbox;
pub mod person;
pub mod suppression;
