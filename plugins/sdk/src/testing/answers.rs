//! For tests of channels: responses of a provider, and assertions on results. For dev-dependencies, with the feature `testing`.

use crate::channel::{DeliveryError, Receipt};
use crate::http::Response;
use crate::{RecoverableError, Timestamp};

/// The result of `deliver`.
pub type Answer = Result<Receipt, DeliveryError>;

/// A response of a provider.
pub fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Response { status, headers, body: body.as_bytes().to_vec() }
}

/// Asserts that the result is recoverable.
#[track_caller]
pub fn recoverable(answer: Answer) -> RecoverableError {
    match answer {
        Err(DeliveryError::Recoverable(error)) => error,
        other => panic!("not recoverable: {other:?}"),
    }
}

/// Asserts that the result is recoverable with a suggested time, and returns it.
#[track_caller]
pub fn comes_back_at(answer: Answer) -> Timestamp {
    recoverable(answer).next_attempt_time.expect("a suggested time")
}

/// Asserts that the result is fatal, and returns the reason.
#[track_caller]
pub fn fatal(answer: Answer) -> String {
    match answer {
        Err(DeliveryError::Fatal(why)) => why,
        other => panic!("not fatal: {other:?}"),
    }
}
