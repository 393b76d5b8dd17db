//! What a recipient resolver implements, and its pages.

use crate::bindings::recipient_resolver::exports::openedx::ace::recipient_resolver as wit;
use crate::{Error, RecoverableError};

pub use wit::{Page, ResolveError, Resolved};

/// A resolver: it turns "everyone who …" into recipients, page by page.
pub trait RecipientResolver {
    /// Asked once a load: are my settings usable? An error refuses the plugin; it is what the operator reads.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// The page after `cursor` (`None`: the first), at most `limit` items, in a stable order: after a crash the host asks for
    /// the last page again. `message_type` is edx-ace's JSON form of a message type, `arguments` a JSON object.
    fn resolve(message_type: &str, arguments: &str, cursor: Option<&str>, limit: u32) -> Result<Page, ResolveError>;
}

impl ResolveError {
    /// A failure that may pass: the same page is asked for again by the host's own schedule.
    pub fn recoverable(message: impl Into<String>) -> Self {
        ResolveError::Recoverable(RecoverableError { message: message.into(), next_attempt_time: None })
    }
}

impl From<Error> for ResolveError {
    fn from(error: Error) -> Self {
        ResolveError::Fatal(error.into())
    }
}
