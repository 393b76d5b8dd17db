//! Facts and counters, kept by the host and shared by every plugin with a grant for the bucket.
//!
//! The manifest requests a bucket: `keyvalue = ["course-optouts:read"]`.

use crate::channel::DeliveryError;

pub use crate::bindings::openedx::ace::keyvalue::KeyvalueError;
pub use crate::imports::keyvalue::{delete, get, increment, set};

/// Whether there is a value under a key. Needs the bucket for reading.
///
/// ```no_run
/// # fn example() -> Result<(), String> {
/// let gone = ace_plugin::keyvalue::contains("retired-users", "7")?;
/// # Ok(())
/// # }
/// ```
pub fn contains(bucket: &str, key: &str) -> Result<bool, KeyvalueError> {
    get(bucket, key).map(|value| value.is_some())
}

/// One line for the operator.
impl From<KeyvalueError> for String {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::Denied(text) => format!("keyvalue: {text}"),
            KeyvalueError::Quota(text) => format!("keyvalue: over its limit: {text}"),
            KeyvalueError::Unavailable(text) => format!("keyvalue: unavailable: {text}"),
        }
    }
}

/// Without the grant it never works; a full or absent store may pass.
impl From<KeyvalueError> for DeliveryError {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::Denied(_) => DeliveryError::Fatal(error.into()),
            KeyvalueError::Quota(_) | KeyvalueError::Unavailable(_) => DeliveryError::recoverable(error),
        }
    }
}
