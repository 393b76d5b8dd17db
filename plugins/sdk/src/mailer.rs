//! The host's mail relays. The manifest requests `mailer = true`; only a channel's `deliver` can send.
//!
//! The default [`Email`] is an empty one from the default sender, through the default relay:
//!
//! ```
//! use ace_plugin::mailer::Email;
//!
//! let email = Email {
//!     recipients: vec!["jane@example.com".to_owned()],
//!     subject: "Hello".to_owned(),
//!     text: "Good morning.".to_owned(),
//!     ..Email::default()
//! };
//! assert_eq!(email.sender, None);
//! ```

use crate::channel::DeliveryError;

pub use crate::bindings::openedx::ace::mailer::{Accepted, Attachment, Email, MailError};
pub use crate::imports::mailer::send;

/// A temporary failure of the relay is recoverable, at the time that it suggested. All other errors are fatal.
impl From<MailError> for DeliveryError {
    fn from(error: MailError) -> Self {
        match error {
            MailError::Temporary(error) => DeliveryError::Recoverable(error),
            MailError::Denied(text) | MailError::Invalid(text) | MailError::Permanent(text) => {
                DeliveryError::Fatal(format!("mailer: {text}"))
            }
        }
    }
}
