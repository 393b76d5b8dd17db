//! Reports that came back to a signed return path: the address names the message, and only who got the mail knows it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use ace::internals::tasks;
use ace::message::{ContactAddress, FeedbackEvent};
use ace::suppression::EMAIL;
use ace_store::person::normal_address;
use uuid::Uuid;

use super::Intake;

impl Intake {
    /// Replaces return paths by the messages that they name. Nothing vouches for an event whose return path is not signed, or that is
    /// about another address than the message's: a recipient could otherwise report the addresses of other people.
    pub(super) async fn verify_return_paths(&self, events: &mut [FeedbackEvent]) -> Result<(), String> {
        let paths: HashSet<String> = events.iter().filter_map(|event| event.return_path.clone()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let ace = self.ace.clone();
        let message_of = move |path: String| {
            let message = ace.returned_message(&path);
            (path, message)
        };
        let verify = move || paths.into_iter().map(message_of).collect::<HashMap<_, _>>();
        let messages = tasks::blocking(verify).await.map_err(|panicked| panicked.to_string())?;
        let mut recipients = HashMap::new();
        for event in events {
            let Some(path) = event.return_path.take() else { continue };
            event.message_uuid = messages.get(&path).copied().flatten();
            event.is_vouched = match event.message_uuid {
                Some(message) if event.is_vouched => {
                    let recipient = match recipients.entry(message) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(unknown) => unknown.insert(self.recipient(message).await?),
                    };
                    recipient.as_deref().is_some_and(|recipient| is_about(event, recipient))
                }
                _ => false,
            };
        }
        Ok(())
    }

    /// The address that a message was sent to.
    async fn recipient(&self, message: Uuid) -> Result<Option<String>, String> {
        let stored = self.queue.message(message).await.map_err(|error| error.to_string())?;
        Ok(stored.and_then(|stored| stored.email))
    }
}

/// Whether an event is about the recipient of a message. One without an address, as in complaints that hide it, gets the recipient's.
fn is_about(event: &mut FeedbackEvent, recipient: &str) -> bool {
    let of_recipient = || ContactAddress { kind: EMAIL.to_owned(), address: recipient.to_owned() };
    let reported = event.address.get_or_insert_with(of_recipient);
    reported.kind == EMAIL && normal_address(&reported.address) == normal_address(recipient)
}
