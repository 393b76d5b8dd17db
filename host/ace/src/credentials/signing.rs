//! Signatures over a request. Errors continue "the credential NAME …", and contain no secret.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use http::HeaderName;
use jiff::Timestamp;
use ring::hmac;
use tracing::dispatcher::{Dispatch, with_default};
use url::{Position, Url};

use super::{Problem, Request, applying};
use crate::config::credentials::keys;
use crate::config::{AwsSigv4, Hmac, HmacAlgorithm, KeyDerivation, Secret, SignatureEncoding, SignedPart};

/// Adds the keyed hash of each key as a header, separated by spaces.
pub(super) fn hmac(settings: &Hmac, keys: &[Secret], request: Request<'_>) -> Result<(), Problem> {
    let header =
        settings.header.as_ref().ok_or_else(|| Problem::Request("has no header: it only verifies".to_owned()))?;
    let signatures = keys.iter().map(|key| signature(settings, key, &request)).collect::<Result<Vec<_>, _>>()?;
    applying::header(request.headers, header, &signatures.join(" "))
}

/// The keyed hash as it is written into the header.
fn signature(settings: &Hmac, key: &Secret, request: &Request<'_>) -> Result<String, Problem> {
    let algorithm = match settings.algorithm {
        HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let key = keys::hmac_key(key.expose(), settings.key_encoding)
        .map_err(|problem| Problem::Credential(format!("has a key that {problem}")))?;
    let key = match settings.derive {
        Some(derivation) => derived(&key, derivation, request.url),
        None => key,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, &key));
    for part in &settings.content {
        match part {
            SignedPart::Text(text) => context.update(text.as_bytes()),
            SignedPart::Method => context.update(request.method.as_str().as_bytes()),
            SignedPart::Url => context.update(request.url.as_str().as_bytes()),
            SignedPart::Path => {
                let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
                context.update(format!("{}{query}", request.url.path()).as_bytes());
            }
            SignedPart::Header(name) => {
                let missing = || Problem::Request(format!("signs the header {name}, which is missing"));
                let value = request.headers.get(name).ok_or_else(missing)?;
                context.update(value.as_bytes());
            }
            SignedPart::Body => context.update(request.body),
        }
    }
    let signature = context.sign();
    let signature = match settings.encoding {
        SignatureEncoding::Hex => HEXLOWER.encode(signature.as_ref()),
        SignatureEncoding::Base64 => STANDARD.encode(signature.as_ref()),
    };
    Ok(format!("{}{signature}", settings.prefix))
}

/// The key of a destination: HMAC-SHA256 of its URL or origin.
fn derived(key: &[u8], derivation: KeyDerivation, url: &Url) -> Vec<u8> {
    let destination = match derivation {
        KeyDerivation::Origin => url.origin().ascii_serialization(),
        KeyDerivation::Url => url[..Position::AfterQuery].to_owned(),
    };
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), destination.as_bytes()).as_ref().to_vec()
}

/// The headers that AWS's signature sets, besides Authorization.
const AWS_HEADERS: [&str; 2] = ["x-amz-date", "x-amz-security-token"];

/// Signs as AWS's own clients do. Only the headers that belong to AWS's protocols are signed: others may change on the way.
pub(super) fn aws_sigv4(
    settings: &AwsSigv4,
    (key, session): (&Secret, Option<&Secret>),
    now: Timestamp,
    request: Request<'_>,
) -> Result<(), Problem> {
    if let Some(name) = AWS_HEADERS.iter().find(|name| request.headers.contains_key(**name)) {
        return Err(Problem::Request(format!("sets the header {name}; do not set it too")));
    }
    let (id, session) = (settings.access_key_id.as_str(), session.map(|token| token.expose().to_owned()));
    let identity = aws_credential_types::Credentials::new(id, key.expose(), session, None, "ace").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&settings.region)
        .name(&settings.service)
        .time(SystemTime::try_from(now).map_err(|e| Problem::Request(format!("cannot sign now: {e}")))?)
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| Problem::Credential(e.to_string()))?;
    let is_signed = |name: &HeaderName| {
        matches!(name.as_str(), "content-type" | "content-md5") || name.as_str().starts_with("x-amz-")
    };
    let headers = request.headers.iter().filter(|(name, _)| is_signed(name));
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let url = &request.url[..Position::AfterQuery];
    let unsignable = |_| Problem::Request("cannot sign this request".to_owned());
    let signable = SignableRequest::new(request.method.as_str(), url, headers, SignableBody::Bytes(request.body))
        .map_err(unsignable)?;
    // The crate logs what it signs, which contains the token of a temporary key.
    let signed = with_default(&Dispatch::none(), || sign(signable, &parameters.into())).map_err(unsignable)?;
    let (made, _) = signed.into_parts().0.into_parts();
    for header in made {
        applying::header(request.headers, &HeaderName::from_static(header.name()), header.value())?;
    }
    Ok(())
}
