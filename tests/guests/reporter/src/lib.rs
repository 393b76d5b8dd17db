//! Reads feedback that is signed as `x-signature: HEX(SHA-256(KEY "." SECONDS "." BODY))` with `x-time: SECONDS`. The body says which events
//! it has, and how the plugin fails.

use std::fmt::Write;

use ace_plugin::Settings;
use ace_plugin::feedback::{Answer, Event, Feedback, FeedbackError, Received, Request};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How old a request may be, in milliseconds.
const AGE_MAX: u64 = 300_000;

struct Reporter;

ace_plugin::export_feedback!(Reporter);

impl Feedback for Reporter {
    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        if request.method() == "GET" {
            let challenge = request.query().unwrap_or_default();
            return Ok(Received::default().answer(200, "text/html", challenge));
        }
        let body = request.body();
        verify(request, &body)?;
        let body: Value = serde_json::from_slice(&body).map_err(|e| FeedbackError::Malformed(e.to_string()))?;
        match body["do"].as_str() {
            Some("panic") => panic!("as the request asks"),
            Some("later") => return Err(FeedbackError::Unavailable("the certificate cannot be fetched".to_owned())),
            _ => {}
        }
        let events = body["events"].as_array().into_iter().flatten();
        let mut received = Received::of(events.map(event));
        if let Some(name) = body["header"].as_str() {
            let headers = vec![(name.to_owned(), "7".to_owned())];
            received.answer = Some(Answer { status: 200, headers, body: Vec::new() });
        }
        if body["echo"] == true {
            let echo = format!(
                "{} {} {}",
                request.url().unwrap_or_default(),
                request.path(),
                request.header("Content-Encoding").unwrap_or_default()
            );
            received = received.answer(202, "text/plain", echo);
        }
        Ok(received)
    }
}

fn verify(request: &Request, body: &[u8]) -> Result<(), FeedbackError> {
    let refused = |why: &str| Err(FeedbackError::Refused(why.to_owned()));
    let (key, time) = (Settings.require::<String>("key")?, request.header("X-Time").unwrap_or_default());
    let hash = Sha256::new().chain_update(format!("{key}.{time}.")).chain_update(body).finalize();
    let signature = hash.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    });
    if request.header("x-signature") != Some(signature) {
        return refused("the signature is wrong");
    }
    let signed_at = time.parse::<u64>().unwrap_or_default() * 1_000;
    if request.received_at().abs_diff(signed_at) > AGE_MAX {
        return refused("the request is too old");
    }
    Ok(())
}

fn event(body: &Value) -> Event {
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let mut event = Event::new(text("id").unwrap_or_default(), text("kind").unwrap_or_default());
    (event.message_uuid, event.provider_id, event.message_id) = (text("uuid"), text("provider_id"), text("message_id"));
    event.address = text("email").map(|email| ("email".to_owned(), email));
    event.reason = text("reason");
    (event.is_permanent, event.is_vouched) = (body["permanent"] == true, body["vouched"] != false);
    event
}
