//! Files in the one folder the operator granted. The manifest requests `outbox = true`.

use crate::channel::DeliveryError;

pub use crate::bindings::openedx::ace::outbox::OutboxError;
pub use crate::imports::outbox::write;

/// A full disk may pass; a name that is taken or cannot be, or a missing grant, does not.
impl From<OutboxError> for DeliveryError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Unavailable(text) => DeliveryError::recoverable(format!("outbox: unavailable: {text}")),
            OutboxError::Exists(text) => DeliveryError::Fatal(format!("outbox: there is a file of this name: {text}")),
            OutboxError::Denied(text) | OutboxError::Invalid(text) => DeliveryError::Fatal(format!("outbox: {text}")),
        }
    }
}
