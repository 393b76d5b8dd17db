//! For a channel's own tests: answers of a provider made by hand, and what they come to. For dev-dependencies, with the
//! feature `testing`.

use crate::channel::{DeliveryError, Receipt};
use crate::http::Response;
use crate::{RecoverableError, Timestamp};

/// What `deliver` returns.
pub type Answer = Result<Receipt, DeliveryError>;

/// An answer of a provider.
pub fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Response { status, headers, body: body.as_bytes().to_vec() }
}

/// That it may be tried again.
#[track_caller]
pub fn recoverable(answer: Answer) -> RecoverableError {
    match answer {
        Err(DeliveryError::Recoverable(error)) => error,
        other => panic!("not recoverable: {other:?}"),
    }
}

/// That it may be tried again, and when.
#[track_caller]
pub fn comes_back_at(answer: Answer) -> Timestamp {
    recoverable(answer).next_attempt_time.expect("a time to come back")
}

/// That it is for good, and why.
#[track_caller]
pub fn fatal(answer: Answer) -> String {
    match answer {
        Err(DeliveryError::Fatal(why)) => why,
        other => panic!("not fatal: {other:?}"),
    }
}
