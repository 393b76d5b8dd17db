//! Posts messages into a Slack channel by its incoming webhook.

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::{self, Request, Response};
use ace_plugin::{Message, RecoverableError, Settings, Timestamp, time};

const TIMEOUT_MS: u32 = 10_000;
/// Characters of Slack's longest error code, and some more.
const CODE_CHARS_MAX: usize = 60;

struct SlackWebhook;

ace_plugin::export_channel!(SlackWebhook);

impl Channel for SlackWebhook {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("slack").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        webhook_url().map(|_| ())
    }

    fn deliver(message: &Message, rendered: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let text = mention(message)? + &escaped(rendered.text("body.txt")?);
        let mut request = Request::post(webhook_url().map_err(DeliveryError::Fatal)?)
            .header("content-type", "application/json")
            .body(serde_json::json!({ "text": text }).to_string());
        request.timeout_ms = Some(TIMEOUT_MS);
        outcome(&http::fetch(&request)?, time::now())
    }
}

/// Whoever knows it can post: a secret, which no text of ours holds.
fn webhook_url() -> Result<String, String> {
    match Settings.text("webhook-url") {
        Some(url) if url.starts_with("https://") => Ok(url),
        Some(_) => Err("secret \"webhook-url\": it is no https URL".to_owned()),
        None => Err("secret \"webhook-url\" is not set".to_owned()),
    }
}

/// The recipient, where they have a Slack member id among their contacts.
fn mention(message: &Message) -> Result<String, DeliveryError> {
    let contacts = message.recipient().map(|recipient| recipient.contacts).unwrap_or_default();
    let Some((_, id)) = contacts.into_iter().find(|(kind, _)| kind == "slack") else { return Ok(String::new()) };
    if is_member_id(&id) {
        Ok(format!("<@{id}> "))
    } else {
        Err(DeliveryError::Fatal("the contact \"slack\" is no member id such as U012AB3CD".to_owned()))
    }
}

fn is_member_id(id: &str) -> bool {
    id.len() > 1
        && id.starts_with(['U', 'W'])
        && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Slack's three control characters: without this a name such as `<!channel>` would call everybody.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn outcome(answer: &Response, now: Timestamp) -> Result<Receipt, DeliveryError> {
    let said = match code(&answer.body) {
        Some(code) => format!("Slack answered {}: {code}", answer.status),
        None => format!("Slack answered {}", answer.status),
    };
    match answer.status {
        200..=299 => Ok(Receipt::default()),
        429 | 500..=599 => {
            let next_attempt_time = answer.seconds_from("retry-after", now);
            Err(DeliveryError::Recoverable(RecoverableError { message: said, next_attempt_time }))
        }
        _ => Err(DeliveryError::Fatal(said)),
    }
}

/// Slack's error codes are words in lower case (`no_service`); any other body is not Slack's.
fn code(body: &[u8]) -> Option<&str> {
    let is_code = (1..=CODE_CHARS_MAX).contains(&body.len()) && body.iter().all(|b| matches!(b, b'a'..=b'z' | b'_'));
    std::str::from_utf8(body).ok().filter(|_| is_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_called_by_a_text() {
        assert_eq!(escaped("<!channel> & <@U1>"), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
        for (id, is_one) in [("U012AB3CD", true), ("W0", true), ("U", false), ("here", false), ("U1> <!channel", false)]
        {
            assert_eq!(is_member_id(id), is_one, "{id}");
        }
    }
}
