//! Outgoing HTTP with a credential that the host adds, and that the plugin never sees. The manifest requests the URLs and the credential:
//! `http = ["https://api.example.com/v1/"]` and `credentials = ["api"]`.

use crate::channel::DeliveryError;
use crate::http::{self, Request, Response};

pub use crate::bindings::openedx::ace::authorized_http::AuthorizedError;
pub use crate::imports::authorized_http::fetch;

/// One request whose response must be a success, as [`http::fetch_ok`], with a credential.
///
/// # Errors
/// 408, 425, 429, 5xx, and what is wrong with the credential, are recoverable. All other statuses are fatal.
pub fn fetch_ok(request: &Request, credential: &str) -> Result<Response, DeliveryError> {
    http::success(request, fetch(request, credential)?)
}

/// One line for operators.
impl From<AuthorizedError> for String {
    fn from(error: AuthorizedError) -> Self {
        match error {
            AuthorizedError::Http(error) => error.into(),
            AuthorizedError::Rejected(text) => format!("the credential is rejected: {text}"),
            AuthorizedError::Unavailable(error) => format!("no token: {}", error.message),
        }
    }
}

/// An error of HTTP as [`http`](crate::http) has it. A rejected credential is recoverable, because the message is not at fault: the host
/// holds the channel until an operator has acted. A token that cannot be obtained is recoverable.
impl From<AuthorizedError> for DeliveryError {
    fn from(error: AuthorizedError) -> Self {
        match error {
            AuthorizedError::Http(error) => error.into(),
            AuthorizedError::Rejected(_) => DeliveryError::recoverable(error),
            AuthorizedError::Unavailable(error) => DeliveryError::Recoverable(error),
        }
    }
}
