//! Files in the folder that the operator granted. The manifest requests `outbox = true`.

use crate::channel::DeliveryError;

pub use crate::bindings::openedx::ace::outbox::OutboxError;
pub use crate::imports::outbox::write;

/// A full disk is recoverable. An existing or invalid name and a missing grant are fatal.
impl From<OutboxError> for DeliveryError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Unavailable(text) => DeliveryError::recoverable(format!("outbox: unavailable: {text}")),
            OutboxError::Exists(text) => DeliveryError::Fatal(format!("outbox: a file of this name exists: {text}")),
            OutboxError::Denied(text) | OutboxError::Invalid(text) => DeliveryError::Fatal(format!("outbox: {text}")),
        }
    }
}
