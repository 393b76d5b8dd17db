//! Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.

use ace_plugin::Settings;
use ace_plugin::feedback::{Event, Feedback, FeedbackError, Received, Request};
use serde_json::Value;

struct __TYPE__;

ace_plugin::export_feedback!(__TYPE__);

impl Feedback for __TYPE__ {
    fn enabled() -> Result<(), String> {
        Settings.require::<String>("path-secret")?;
        Ok(())
    }

    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        if !request.has_path_secret(&Settings.text("path-secret").unwrap_or_default()) {
            return Err(FeedbackError::Refused("the path does not end with the secret".to_owned()));
        }
        Ok(Received::of([event(&request.body())?]))
    }
}

/// One event. It is not vouched for, so it is shown but suppresses nobody: call `vouched()` once a signature was verified.
fn event(body: &[u8]) -> Result<Event, FeedbackError> {
    // One event is short; a long body would only use up the time of the call.
    if body.len() > 16_384 {
        return Err(malformed("it is longer than 16,384 bytes"));
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| malformed("it is not JSON"))?;
    // The host accepts ids and addresses of this length. Anything else is treated as missing.
    let text = |key: &str| body[key].as_str().filter(|text| (1..=1_024).contains(&text.len())).map(str::to_owned);
    let id = text("id").ok_or_else(|| malformed("it has no text \"id\" of 1 to 1,024 bytes"))?;
    let kind = match body["type"].as_str() {
        Some("bounce") => "bounced",
        Some("complaint") => "complained",
        _ => "unknown",
    };
    let mut event = Event::new(id, kind);
    (event.message_id, event.reason) = (text("message"), text("code"));
    event.address = text("email").map(|email| ("email".to_owned(), email));
    event.is_permanent = event.reason.as_ref().is_some_and(|code| code.starts_with('5'));
    Ok(event)
}

fn malformed(why: &str) -> FeedbackError {
    FeedbackError::Malformed(format!("the body: {why}"))
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(feedback super::__TYPE__);
}
