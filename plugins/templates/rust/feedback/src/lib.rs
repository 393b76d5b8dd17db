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
        Ok(Received::of([event(&request.json()?)?]))
    }
}

/// One event. It is not vouched for, so it is shown but suppresses nobody: call `vouched()` once a signature was verified.
fn event(body: &Value) -> Result<Event, FeedbackError> {
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let id = text("id").ok_or_else(|| FeedbackError::Malformed("the body: it has no text \"id\"".to_owned()))?;
    let kind = match body["type"].as_str().unwrap_or_default() {
        "bounce" => "bounced",
        "complaint" => "complained",
        other => other,
    };
    let mut event = Event::new(id, if kind.is_empty() { "unknown" } else { kind });
    (event.message_id, event.reason) = (text("message"), text("code"));
    event.address = text("email").map(|email| ("email".to_owned(), email));
    event.is_permanent = body["code"].as_str().is_some_and(|code| code.starts_with('5'));
    Ok(event)
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(feedback super::__TYPE__);
}
