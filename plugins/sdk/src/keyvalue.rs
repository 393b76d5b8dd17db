//! Key-value entries and counters in the host, shared by all plugins with a grant for the bucket.
//!
//! The manifest requests a bucket: `keyvalue = ["course-optouts:read"]`.

use std::time::Duration;

use crate::channel::DeliveryError;
use crate::imports::keyvalue;

pub use crate::bindings::openedx::ace::keyvalue::{Counted, KeyvalueError, Place};
pub use crate::imports::keyvalue::{delete, get, give_place_back, increment, set};

/// Adds 1 to a counter once for each token (a message's uuid). Returns the number of the token, which is the same for each repetition.
/// `ttl` is the lifetime of a counter that this call creates. Needs write access to the bucket.
///
/// # Errors
///
/// If the bucket is not granted, a new token exceeds a limit, or the key is not a counter.
pub fn count_once(bucket: &str, key: &str, token: &str, ttl: Option<Duration>) -> Result<Counted, KeyvalueError> {
    keyvalue::count_once(bucket, key, token, 1, ttl.map(ms))
}

/// Takes one of `limit` places (at least 1) within the last `window` for a token (a message's uuid). A token that gets no place uses up
/// none and can try again. Needs write access to the bucket.
///
/// ```no_run
/// # fn example(uuid: &str) -> Result<(), String> {
/// let place = ace_plugin::keyvalue::take_place("caps", "mails/7", uuid, 2, std::time::Duration::from_secs(86_400))?;
/// assert!(place.is_granted || place.next_free.is_some());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the bucket is not granted, a new token exceeds a limit, or the key does not hold places.
pub fn take_place(bucket: &str, key: &str, token: &str, limit: u32, window: Duration) -> Result<Place, KeyvalueError> {
    keyvalue::take_place(bucket, key, token, limit, ms(window))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a key exists. Needs read access to the bucket.
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

/// One line for operators.
impl From<KeyvalueError> for String {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::Denied(text) => format!("keyvalue: {text}"),
            KeyvalueError::Quota(text) => format!("keyvalue: limit exceeded: {text}"),
            KeyvalueError::Unavailable(text) => format!("keyvalue: unavailable: {text}"),
        }
    }
}

/// A missing grant is fatal. A full or unavailable store is recoverable.
impl From<KeyvalueError> for DeliveryError {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::Denied(_) => DeliveryError::Fatal(error.into()),
            KeyvalueError::Quota(_) | KeyvalueError::Unavailable(_) => DeliveryError::recoverable(error),
        }
    }
}
