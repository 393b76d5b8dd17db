//! The exported function `receive` of `feedback`.

use std::pin::pin;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use wasmtime::component::Resource;

use super::super::bindings::feedback;
use super::super::instance::{CallResult, Purpose, Runtime};
use crate::message::{
    ContactAddress, Fault, FaultKind, FeedbackAnswer, FeedbackError, FeedbackEvent, Incoming, Received,
};

/// Events of one request.
const EVENTS_MAX: usize = 10_000;
/// Bytes of an event's id, and of ids and addresses in it.
const ID_BYTES_MAX: usize = 1_024;
/// Bytes of the name of a kind.
const KIND_BYTES_MAX: usize = 64;
/// Headers of an answer.
const HEADERS_MAX: usize = 32;
/// Bytes of a header's value.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an answer's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Headers that frame the answer or belong to the connection, or that set state in a browser for this server.
const HOST_HEADERS: [HeaderName; 10] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TRAILER,
    header::TE,
    header::DATE,
    header::SET_COOKIE,
    header::CONTENT_SECURITY_POLICY,
    header::X_CONTENT_TYPE_OPTIONS,
];

impl Runtime {
    /// Verifies and reads a request of a provider.
    pub async fn receive(&self, request: &Arc<Incoming>) -> CallResult<Result<Received, FeedbackError>> {
        let purpose = Purpose { request: Some(request), ..Purpose::default() };
        let called: CallResult<Result<feedback::Received, feedback::FeedbackError>> =
            call!(self, purpose, feedback.call_receive, handle);
        let clean = |why: String| self.settings.clean(&why);
        self.counted(called.and_then(|answer| match answer {
            Ok(received) => self.received(received).map(Ok),
            Err(feedback::FeedbackError::Refused(why)) => Ok(Err(FeedbackError::Refused(clean(why)))),
            Err(feedback::FeedbackError::Malformed(why)) => Ok(Err(FeedbackError::Malformed(clean(why)))),
            Err(feedback::FeedbackError::Unavailable(why)) => Ok(Err(FeedbackError::Unavailable(clean(why)))),
        }))
    }

    fn received(&self, received: feedback::Received) -> Result<Received, Fault> {
        self.at_most(EVENTS_MAX, received.events.len(), "events")?;
        let events = received.events.into_iter().map(|event| self.event(event)).collect::<Result<_, _>>()?;
        let answer = received.answer.map(|answer| self.answer(answer)).transpose()?;
        Ok(Received { events, answer })
    }

    fn event(&self, event: feedback::Event) -> Result<FeedbackEvent, Fault> {
        let fits = |text: Option<&String>, what: &str| self.at_most(ID_BYTES_MAX, text.map_or(0, String::len), what);
        fits(Some(&event.id), "bytes in an event's id")?;
        self.at_most(KIND_BYTES_MAX, event.kind.len(), "bytes in an event's kind")?;
        if event.id.is_empty() || event.kind.is_empty() {
            return Err(self.fault(FaultKind::Answer, "it returned an event without an id or a kind"));
        }
        fits(event.message_uuid.as_ref(), "bytes in the name of a message")?;
        fits(event.provider_id.as_ref(), "bytes in a provider's id")?;
        fits(event.message_id.as_ref(), "bytes in a Message-ID")?;
        fits(event.address.as_ref().map(|(kind, _)| kind), "bytes in the kind of an address")?;
        fits(event.address.as_ref().map(|(_, address)| address), "bytes in an address")?;
        let bare = |id: String| id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
        // A provider returns what it was given. Text that is neither leads to no message.
        let (message_uuid, return_path) = match event.message_uuid {
            Some(text) if text.contains('@') => (None, Some(text)),
            text => (text.and_then(|text| text.parse().ok()), None),
        };
        Ok(FeedbackEvent {
            id: event.id,
            kind: self.settings.clean(&event.kind),
            at: event.at.map(|at| self.time(at)).transpose()?,
            message_uuid,
            return_path,
            // In the form of a receipt's.
            provider_id: self.reason(event.provider_id),
            message_id: self.reason(event.message_id).map(bare),
            address: event.address.map(|(kind, address)| ContactAddress {
                kind: self.settings.clean(&kind),
                address: self.settings.clean(&address),
            }),
            is_permanent: event.is_permanent,
            is_vouched: event.is_vouched,
            reason: self.reason(event.reason),
            detail: event.detail.map(|json| self.detail(&json, "event")).transpose()?,
        })
    }

    fn answer(&self, answer: feedback::Answer) -> Result<FeedbackAnswer, Fault> {
        let invalid = |what: String| Err(self.fault(FaultKind::Answer, what));
        if !(200..600).contains(&answer.status) {
            return invalid(format!("it answers with the status {}, which is not one of 200 to 599", answer.status));
        }
        self.at_most(BODY_BYTES_MAX, answer.body.len(), "bytes in its answer")?;
        self.at_most(HEADERS_MAX, answer.headers.len(), "headers of its answer")?;
        for (name, value) in &answer.headers {
            self.at_most(HEADER_BYTES_MAX, name.len().max(value.len()), "bytes in one header of its answer")?;
            let is_valid = HeaderName::try_from(name.as_str()).is_ok_and(|name| !HOST_HEADERS.contains(&name))
                && HeaderValue::from_str(value).is_ok();
            if !is_valid {
                return invalid(format!("it answers with the header {name:?}, which is not valid or is the host's"));
            }
        }
        Ok(FeedbackAnswer { status: answer.status, headers: answer.headers, body: answer.body })
    }
}
