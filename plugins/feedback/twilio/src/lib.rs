//! Reads what Twilio reports: the status of messages, and the keywords of replies (STOP, START).
//!
//! The modules below do not call the host.

mod events;
mod form;
mod signature;

use ace_plugin::feedback::{self, Feedback, FeedbackError, Received, Request};
use ace_plugin::signatures::{self, SignatureError};
use ace_plugin::{Error, Settings};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use form::Form;
use signature::{AUTH_TOKEN, Parts, Signed};

/// The answer to a reply: no message in return.
const NO_MESSAGE: &str = "<Response/>";

struct Twilio;

ace_plugin::export_feedback!(Twilio);

impl Feedback for Twilio {
    fn enabled() -> Result<(), String> {
        account()?;
        feedback::public_url().ok_or("set server.public-url: Twilio signs the URL of its requests")?;
        // It is not a signature. The question is whether there is a key.
        signatures::verify(AUTH_TOKEN, "hmac-sha1", b"", b"")?;
        Ok(())
    }

    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        let body = request.body();
        let (form, is_json) = match request.header("content-type") {
            Some(kind) if is_json(&kind) => (Form::default(), true),
            _ => (Form::parse(&body), false),
        };
        verify(request, &form, is_json.then_some(&body))?;
        let reports = if is_json { events::from_json(&body) } else { events::from_form(&form).map(|one| vec![one]) };
        let reports = reports.map_err(FeedbackError::Malformed)?;
        let account = account()?;
        if let Some(other) = reports.iter().find(|report| report.account != account) {
            return Err(FeedbackError::Refused(format!("the request is about another account: {:?}", other.account)));
        }
        let received = Received::of(reports.iter().filter_map(events::Report::event));
        let is_reply = reports.iter().any(events::Report::is_reply);
        Ok(if is_reply { received.answer(200, "text/xml", NO_MESSAGE) } else { received })
    }
}

/// The account whose messages it reads about.
fn account() -> Result<String, Error> {
    let account: String = Settings.require("account-sid")?;
    if !events::is_sid(&account, "AC") {
        let why = format!("{account:?} is not an account SID, which is AC and 32 hexadecimal digits");
        return Err(Error::new("config key \"account-sid\"", why));
    }
    Ok(account)
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Whether Twilio signed the URL with the form, or with the hash of a JSON body.
fn verify(request: &Request, form: &Form, json: Option<&Vec<u8>>) -> Result<(), FeedbackError> {
    let refused = |why: &str| FeedbackError::Refused(why.to_owned());
    let url = request.url().ok_or_else(|| FeedbackError::Unavailable("server.public-url is not set".to_owned()))?;
    let header = request.header("x-twilio-signature").ok_or_else(|| refused("it has no X-Twilio-Signature"))?;
    let found = BASE64_STANDARD.decode(header.trim()).map_err(|_| refused("the signature is not Base64"))?;
    let (query, settings) = (request.query(), request.header("x-twilio-webhooks-signature-settings"));
    let parts = Parts { url: &url, query: query.as_deref(), form, json: json.map(Vec::as_slice) };
    let Signed { credential, algorithm, texts } = parts.signed(settings.as_deref()).map_err(|why| refused(&why))?;
    for text in texts {
        match signatures::verify(credential, algorithm, text.as_bytes(), &found) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error @ SignatureError::Denied(_)) => return Err(FeedbackError::Refused(error.into())),
            Err(error) => return Err(FeedbackError::Unavailable(error.into())),
        }
    }
    Err(refused("the signature is wrong"))
}

/// What the official client signs and accepts. See tests/fixtures/README.md.
#[cfg(test)]
const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/twilio.json");

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(feedback super::Twilio);
}
