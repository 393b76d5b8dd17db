//! The trait of recipient resolvers, and their pages.

use crate::bindings::recipient_resolver::exports::openedx::ace::recipient_resolver as wit;
use crate::{Error, RecoverableError};

pub use wit::{Page, ResolveError, Resolved};

/// A resolver: it determines the recipients of a bulk send, page by page.
pub trait RecipientResolver {
    /// Checks the settings, once per load. An error rejects the plugin and is shown to the operator.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// Returns the page after `cursor` (`None` for the first page) with at most `limit` items. The order must be stable, because
    /// after a crash the host requests the last page again. `message_type` is edx-ace's JSON form of a message type, `arguments` a
    /// JSON object.
    fn resolve(message_type: &str, arguments: &str, cursor: Option<&str>, limit: u32) -> Result<Page, ResolveError>;
}

impl ResolveError {
    /// A temporary failure: the host requests the page again, on its own schedule.
    pub fn recoverable(message: impl Into<String>) -> Self {
        ResolveError::Recoverable(RecoverableError { message: message.into(), next_attempt_time: None })
    }
}

impl From<Error> for ResolveError {
    fn from(error: Error) -> Self {
        ResolveError::Fatal(error.into())
    }
}
