//! What a provider's answer says of the credential that the request was sent with.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::config::CredentialKind;

/// The header in which AWS writes the code of an error.
const AWS_ERROR_HEADER: &str = "x-amzn-errortype";
/// The error codes of AWS that concern the key itself.
const AWS_KEY_ERRORS: [&str; 6] = [
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignature",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
];
/// How much of an answer is searched for them.
const AWS_ERROR_BYTES_MAX: usize = 4096;

/// What an answer says of the credential that the request was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Judgement {
    /// It says nothing against it.
    Fine,
    /// Its token was not accepted, and another one can be had: a copy of the request can be authorized and sent once more.
    Stale,
    /// It is refused, and another token would be too.
    Rejected(String),
}

/// How providers say that they refuse a credential.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusals {
    /// Status 401.
    Unauthorized,
    /// Status 403, with a reason in the body.
    Apns,
    /// Status 400 or 403, with a code.
    Aws,
    /// They do not: who answers is the recipient, and the plugin judges it.
    None,
}

/// Why a credential was refused.
pub(super) struct Reason {
    pub(super) text: String,
    /// Another token may do.
    pub(super) is_about_token: bool,
}

#[derive(Deserialize)]
struct ApnsAnswer {
    reason: String,
}

impl Refusals {
    pub(super) fn of(kind: &CredentialKind) -> Self {
        match kind {
            CredentialKind::Apns(_) => Refusals::Apns,
            CredentialKind::AwsSigv4(_) => Refusals::Aws,
            CredentialKind::Vapid { .. } | CredentialKind::Hmac(_) | CredentialKind::ClientCertificate { .. } => {
                Refusals::None
            }
            _ => Refusals::Unauthorized,
        }
    }

    /// Why an answer refuses the credential, if it does.
    pub(super) fn find(self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Reason> {
        let reason = |code: &str, is_about_token| {
            Some(Reason { text: format!("{} {code}", status.as_u16()).trim_end().to_owned(), is_about_token })
        };
        match (self, status) {
            (Refusals::Unauthorized, StatusCode::UNAUTHORIZED) => reason("", true),
            (Refusals::Apns, StatusCode::FORBIDDEN) => {
                let answer: ApnsAnswer = serde_json::from_slice(body).ok()?;
                match answer.reason.as_str() {
                    code @ "ExpiredProviderToken" => reason(code, true),
                    code @ ("InvalidProviderToken" | "MissingProviderToken") => reason(code, false),
                    _ => None,
                }
            }
            (Refusals::Aws, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) => {
                let header = headers.get(AWS_ERROR_HEADER).and_then(|value| value.to_str().ok());
                reason(aws_key_error(header, body)?, false)
            }
            _ => None,
        }
    }
}

/// The error code in an answer of AWS, if it concerns the key: in a header, or in a body of JSON or XML.
fn aws_key_error(header: Option<&str>, body: &[u8]) -> Option<&'static str> {
    let body = String::from_utf8_lossy(&body[..body.len().min(AWS_ERROR_BYTES_MAX)]).into_owned();
    let texts = [header.unwrap_or_default(), &body];
    AWS_KEY_ERRORS.into_iter().find(|code| texts.iter().any(|text| text.contains(code)))
}
