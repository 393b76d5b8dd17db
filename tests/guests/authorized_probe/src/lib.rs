//! Makes the request in `context.fetch` of a message, with the credential `context.fetch.credential`, or verifies the signature in
//! `context.verify`, and returns the result: as a policy in the reason of a denial, as a channel (if `context.deliver` is true) in its
//! receipt.

use ace_plugin::authorized_http::{self, AuthorizedError};
use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::Request;
use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::signatures::{self, SignatureError};
use ace_plugin::{Message, debug};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

struct AuthorizedProbe;

ace_plugin::export_policy!(AuthorizedProbe);
ace_plugin::export_channel!(AuthorizedProbe);

impl Policy for AuthorizedProbe {
    fn check(message: &Message) -> Result<PolicyResult, String> {
        if message.context_is_true("/deliver") {
            return Ok(PolicyResult::pass());
        }
        let found = match message.context::<String>("/verify/algorithm")? {
            Some(algorithm) => verify(message, &algorithm)?,
            None => fetch(message)?.unwrap_or_else(|error| match error {
                AuthorizedError::Rejected(why) => format!("rejected: {why}"),
                AuthorizedError::Unavailable(error) => format!("unavailable: {}", error.message),
                AuthorizedError::Http(error) => String::from(error),
            }),
        };
        Ok(PolicyResult::pass().deny("probe", found))
    }
}

impl Channel for AuthorizedProbe {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("probe")
    }

    fn deliver(message: &Message, _: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let found = fetch(message).map_err(DeliveryError::Fatal)??;
        if found.starts_with('2') {
            Ok(Receipt::default().provider_id(found))
        } else {
            Err(DeliveryError::recoverable(found))
        }
    }
}

fn fetch(message: &Message) -> Result<Result<String, AuthorizedError>, String> {
    let text = |key: &str| message.context::<String>(&format!("/fetch/{key}"));
    let request = Request {
        method: text("method")?.unwrap_or_else(|| "POST".to_owned()),
        url: text("url")?.unwrap_or_default(),
        headers: message.context("/fetch/headers")?.unwrap_or_default(),
        body: text("body")?.map(String::into_bytes),
        timeout_ms: None,
    };
    let response = authorized_http::fetch(&request, &text("credential")?.unwrap_or_default());
    debug!("{response:?}");
    Ok(response.map(|response| format!("{} {}", response.status, String::from_utf8_lossy(&response.body))))
}

fn verify(message: &Message, algorithm: &str) -> Result<String, String> {
    let text = |key: &str| Ok::<_, String>(message.context::<String>(&format!("/verify/{key}"))?.unwrap_or_default());
    let decoded = |key: &str| BASE64_STANDARD.decode(text(key)?).map_err(|e| format!("{key}: {e}"));
    let (data, signature) = (text("data")?, decoded("signature")?);
    let verified = match text("credential")?.as_str() {
        "" => signatures::verify_with(&decoded("key")?, algorithm, data.as_bytes(), &signature),
        credential => signatures::verify(credential, algorithm, data.as_bytes(), &signature),
    };
    Ok(match verified {
        Ok(true) => "valid".to_owned(),
        Ok(false) => "not valid".to_owned(),
        Err(SignatureError::Denied(why)) => format!("denied: {why}"),
        Err(SignatureError::Invalid(why)) => format!("invalid: {why}"),
    })
}
