//! The trait of plugins that read what providers report after a delivery, and their events.
//!
//! ```
//! use ace_plugin::Settings;
//! use ace_plugin::feedback::{Event, Feedback, FeedbackError, Received, Request};
//!
//! struct Provider;
//!
//! impl Feedback for Provider {
//!     fn receive(request: &Request) -> Result<Received, FeedbackError> {
//!         // A provider without signatures: a secret in the path is the only proof, so nothing is vouched for.
//!         let secret: String = Settings.require("path-secret")?;
//!         if request.path() != format!("/{secret}") {
//!             return Err(FeedbackError::Refused("the path is not the one that was set up".to_owned()));
//!         }
//!         let event: serde_json::Value = request.json()?;
//!         let (Some(id), Some(address)) = (event["id"].as_str(), event["recipient"].as_str()) else {
//!             return Err(FeedbackError::Malformed("the body: it has no id or no recipient".to_owned()));
//!         };
//!         Ok(Received::of([Event::new(id, "bounced").about("email", address).permanent()]))
//!     }
//! }
//!
//! ace_plugin::export_feedback!(Provider);
//! ```

use serde::de::DeserializeOwned;

use crate::bindings::feedback::exports::openedx::ace::feedback as wit;
use crate::imports::incoming;
use crate::{Error, Timestamp};

pub use wit::{Answer, Event, FeedbackError, Received};

/// A plugin that reads what a provider reports. The host serves `/v1/feedback/NAME` and every path below it, without a token.
pub trait Feedback {
    /// Checks the settings, once per load. An error rejects this export of the plugin and is shown to the operator. A plugin that needs
    /// the public URL checks [`public_url`] here.
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    /// Verifies a request and reads it. The same request may come again, to another instance, at the same time.
    ///
    /// # Errors
    /// It is not the provider's, it cannot be read, or it cannot be verified now.
    fn receive(request: &Request) -> Result<Received, FeedbackError>;
}

/// The operator's `server.public-url`, without a slash at its end.
pub fn public_url() -> Option<String> {
    incoming::public_url()
}

/// One request, read-only. Every getter calls the host, so keep values that are used more than once.
///
/// It is valid during the call. Nobody has vouched for anything in it.
#[derive(Debug)]
pub struct Request(incoming::Request);

impl Request {
    pub(crate) fn new(handle: incoming::Request) -> Self {
        Request(handle)
    }

    /// `GET` or `POST`.
    pub fn method(&self) -> String {
        self.0.method()
    }

    /// The public URL without the query. `None` if the operator has not set `server.public-url`.
    pub fn url(&self) -> Option<String> {
        self.0.url()
    }

    /// The path after `/v1/feedback/NAME`, as it came.
    pub fn path(&self) -> String {
        self.0.path()
    }

    /// Whether the path is this secret, for senders that sign nothing. Its duration does not reveal how much of it is the same.
    pub fn has_path_secret(&self, secret: &str) -> bool {
        let path = self.path();
        let given = path.strip_prefix('/').unwrap_or_default();
        let differs = given.bytes().zip(secret.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        !secret.is_empty() && given.len() == secret.len() && differs == 0
    }

    /// The query, as it came.
    pub fn query(&self) -> Option<String> {
        self.0.query()
    }

    /// The first value of a header; its name in any case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.0.header(name).into_iter().next()
    }

    /// All headers in the order they came, with names in lower case.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.0.headers()
    }

    /// The body, as it came.
    pub fn body(&self) -> Vec<u8> {
        self.0.body()
    }

    /// The body as a typed value.
    ///
    /// # Errors
    /// [`FeedbackError::Malformed`] if it is not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, FeedbackError> {
        serde_json::from_slice(&self.body()).map_err(|e| FeedbackError::Malformed(format!("the body: {e}")))
    }

    /// When the request came.
    pub fn received_at(&self) -> Timestamp {
        self.0.received_at()
    }
}

impl Received {
    /// Events, and the host's own answer.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Self {
        Received { events: events.into_iter().collect(), answer: None }
    }

    /// With this answer to the provider.
    #[must_use]
    pub fn answer(self, status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Received { answer: Some(Answer { status, headers, body: body.into() }), ..self }
    }
}

impl Event {
    /// An event that nobody vouches for. `kind` is `delivered`, `deferred`, `bounced`, `complained`, `unsubscribed`, `resubscribed`,
    /// `opened`, `clicked`, `failed`, `address-dead`, or another word.
    pub fn new(id: impl Into<String>, kind: impl Into<String>) -> Self {
        Event {
            id: id.into(),
            kind: kind.into(),
            at: None,
            message_uuid: None,
            provider_id: None,
            message_id: None,
            address: None,
            is_permanent: false,
            is_vouched: false,
            reason: None,
            detail: None,
        }
    }

    /// When it happened.
    #[must_use]
    pub fn at(self, at: Timestamp) -> Self {
        Event { at: Some(at), ..self }
    }

    /// It is about the message with this uuid.
    #[must_use]
    pub fn of_message(self, uuid: impl Into<String>) -> Self {
        Event { message_uuid: Some(uuid.into()), ..self }
    }

    /// It came back to this address. If that is a signed return path (`{token}` in a relay's `return-path`), the host finds the message by
    /// it and vouches for the event, unless the event is about another address than the message's.
    #[must_use]
    pub fn returned_to(self, address: impl Into<String>) -> Self {
        Event { message_uuid: Some(address.into()), is_vouched: true, ..self }
    }

    /// It is about the message that the provider gave this id.
    #[must_use]
    pub fn of_provider_id(self, id: impl Into<String>) -> Self {
        Event { provider_id: Some(id.into()), ..self }
    }

    /// It is about the mail with this Message-ID.
    #[must_use]
    pub fn of_mail(self, message_id: impl Into<String>) -> Self {
        Event { message_id: Some(message_id.into()), ..self }
    }

    /// It is about this address: its kind (`email`, `phone`, `push-token`) and the address.
    #[must_use]
    pub fn about(self, kind: impl Into<String>, address: impl Into<String>) -> Self {
        Event { address: Some((kind.into(), address.into())), ..self }
    }

    /// It is for good.
    #[must_use]
    pub fn permanent(self) -> Self {
        Event { is_permanent: true, ..self }
    }

    /// A signature proves that it is about mail of ours.
    #[must_use]
    pub fn vouched(self) -> Self {
        Event { is_vouched: true, ..self }
    }

    /// The provider's code and text.
    #[must_use]
    pub fn reason(self, reason: impl Into<String>) -> Self {
        Event { reason: Some(reason.into()), ..self }
    }

    /// More for the timeline.
    #[must_use]
    pub fn detail(self, detail: &serde_json::Value) -> Self {
        Event { detail: Some(detail.to_string()), ..self }
    }
}

/// A wrong setting: the provider tries again after the operator has fixed it.
impl From<Error> for FeedbackError {
    fn from(error: Error) -> Self {
        FeedbackError::Unavailable(error.into())
    }
}
