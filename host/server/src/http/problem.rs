//! Errors of requests, as RFC 9457 problem details.

use ace::message::{FieldError, FieldErrors};
use ace_store::queue::QueueError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::intake::IntakeError;
use crate::tokens::TokenFault;

/// Seconds after which a client may retry if the store is unavailable.
const RETRY_AFTER_S: u64 = 5;

/// RFC 9457, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// The kind of problem: `invalid-message`, `conflict`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong, and how to fix it.
    pub detail: String,
    /// Each invalid field, if the problem is an invalid document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<InvalidField>,
}

/// One invalid field.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvalidField {
    /// RFC 6901 pointer; empty for the whole document.
    pub path: String,
    pub message: String,
}

impl From<FieldError> for InvalidField {
    fn from(error: FieldError) -> Self {
        InvalidField { path: error.path, message: error.message }
    }
}

/// Why a request fails.
#[derive(Debug)]
pub(super) enum ApiError {
    /// Fields of a document are invalid.
    Invalid(FieldErrors),
    /// A part of the request is invalid: its name, and why.
    BadRequest(String),
    Unauthorized(TokenFault),
    /// A plugin did not accept the sender of feedback.
    NotVouchedFor,
    /// The token lacks this scope.
    Forbidden(&'static str),
    /// The request is forbidden, whatever token it has: the kind of the problem, and why.
    Refused(&'static str, String),
    NotFound(&'static str),
    NoMethod,
    Conflict(String),
    TooLarge(usize),
    /// The body has a type that the route does not accept.
    MediaType(String),
    /// The body has a content coding.
    ContentCoding(String),
    /// The body has a transfer coding other than `chunked`.
    TransferCoding(String),
    TooSlow,
    TooMany,
    /// A temporary failure: the client can retry.
    Unavailable(String),
    /// The store or the disk is full (RFC 4918, 11.5).
    Full(String),
    Internal(String),
}

impl ApiError {
    /// All connections are in use.
    pub(super) fn no_slot() -> Self {
        ApiError::Unavailable("all connections (server.connections) are in use; retry later".to_owned())
    }

    /// The server is stopping while a body still arrives.
    pub(super) fn stopping() -> Self {
        ApiError::Unavailable("the server is stopping; send the same request again later".to_owned())
    }

    fn status(&self) -> StatusCode {
        match self {
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized(_) | ApiError::NotVouchedFor => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) | ApiError::Refused(..) => StatusCode::FORBIDDEN,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::MediaType(_) | ApiError::ContentCoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::TransferCoding(_) => StatusCode::NOT_IMPLEMENTED,
            ApiError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ApiError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn problem(self) -> Problem {
        let status = self.status();
        let (kind, detail, errors) = match self {
            ApiError::Invalid(errors) => {
                let detail = errors.to_string();
                ("invalid-message", detail, errors.0.into_iter().map(InvalidField::from).collect())
            }
            ApiError::BadRequest(why) => ("bad-request", why, Vec::new()),
            ApiError::Unauthorized(fault) => {
                let (kind, why) = of_token(fault);
                (kind, why.to_owned(), Vec::new())
            }
            ApiError::NotVouchedFor => {
                ("feedback-refused", "the plugin did not accept the sender of the request".to_owned(), Vec::new())
            }
            ApiError::Forbidden(scope) => ("forbidden", format!("the token lacks the scope `{scope}`"), Vec::new()),
            ApiError::NotFound(what) => ("not-found", format!("there is no such {what}"), Vec::new()),
            ApiError::NoMethod => {
                ("no-such-method", "the route does not support this method; see /openapi.json".to_owned(), Vec::new())
            }
            ApiError::Conflict(why) => ("conflict", why, Vec::new()),
            ApiError::TooLarge(max) => ("too-large", format!("the body is longer than {max} bytes"), Vec::new()),
            ApiError::Refused(kind, why) => (kind, why, Vec::new()),
            ApiError::MediaType(why) => ("unsupported-media-type", why, Vec::new()),
            ApiError::ContentCoding(coding) => {
                let why = format!("Content-Encoding: {coding:?} is not supported; send the body unencoded");
                ("unsupported-content-coding", why, Vec::new())
            }
            ApiError::TransferCoding(coding) => {
                let why = format!("Transfer-Encoding: {coding:?} is not supported; use chunked");
                ("unsupported-transfer-coding", why, Vec::new())
            }
            ApiError::TooSlow => ("too-slow", "the request did not arrive in time".to_owned(), Vec::new()),
            ApiError::TooMany => {
                ("too-many-requests", "more requests than server.requests-per-second allows".to_owned(), Vec::new())
            }
            ApiError::Unavailable(why) => ("unavailable", why, Vec::new()),
            ApiError::Full(why) => ("full", why, Vec::new()),
            ApiError::Internal(why) => ("internal", why, Vec::new()),
        };
        let title = status.canonical_reason().unwrap_or_default().to_owned();
        Problem { kind: kind.to_owned(), title, status: status.as_u16(), detail, errors }
    }
}

/// The kind of the problem of a token, and what to do.
fn of_token(fault: TokenFault) -> (&'static str, &'static str) {
    match fault {
        TokenFault::Missing => ("unauthorized", "a bearer token is required; `ace token create` creates one"),
        TokenFault::Unknown => {
            ("wrong-token", "the token is wrong or was revoked; `ace token list` names those that are valid")
        }
        TokenFault::Expired => ("expired-token", "the token has expired; `ace token rotate` replaces it"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, is_coding) = (self.status(), matches!(self, ApiError::ContentCoding(_)));
        // RFC 6750, 3.1: a request without a token gets no error code.
        let challenge = match self {
            ApiError::Unauthorized(TokenFault::Missing) => Some("Bearer"),
            ApiError::Unauthorized(_) => Some("Bearer error=\"invalid_token\""),
            _ => None,
        };
        let problem = self.problem();
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        headers.extend(challenge.map(|challenge| (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))));
        match status {
            // RFC 9110, 15.5.16: name what is accepted.
            StatusCode::UNSUPPORTED_MEDIA_TYPE if is_coding => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            _ => {}
        }
        response
    }
}

impl From<FieldErrors> for ApiError {
    fn from(errors: FieldErrors) -> Self {
        ApiError::Invalid(errors)
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Fields(errors) => errors.into(),
            IntakeError::Queue(error) => error.into(),
            unknown @ IntakeError::Limit(_) => ApiError::BadRequest(unknown.to_string()),
            IntakeError::Panicked(panicked) => ApiError::Internal(panicked.to_string()),
            conflict @ IntakeError::Conflict(_) => ApiError::Conflict(conflict.to_string()),
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unknown(what) => ApiError::NotFound(what),
            QueueError::State(why) => ApiError::Conflict(why),
            no_room @ QueueError::NoRoom(_) => ApiError::Full(no_room.to_string()),
            damaged @ QueueError::Damaged(_) => ApiError::Internal(damaged.to_string()),
            full_or_broken => ApiError::Unavailable(full_or_broken.to_string()),
        }
    }
}
