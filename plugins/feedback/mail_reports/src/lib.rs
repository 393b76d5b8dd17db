//! Reads mail that comes back: delivery reports (RFC 3464) and complaints (RFC 5965). A mail server or a script posts each raw mail to
//! `/v1/feedback/mail_reports/SECRET`, as `ace feedback import` does.
//!
//! Anybody can send such mail, so only the host can vouch for it: the events name the signed return path that the report came back to.
//! The modules below do not call the host.

mod complaint;
mod delivery;
mod mail;
mod report;
mod status;

use ace_plugin::Settings;
use ace_plugin::feedback::{Feedback, FeedbackError, Received, Request};

/// The secret at the end of the path.
const SECRET: &str = "path-secret";
/// The shortest secret.
const SECRET_BYTES_MIN: usize = 16;

struct MailReports;

ace_plugin::export_feedback!(MailReports);

impl Feedback for MailReports {
    fn enabled() -> Result<(), String> {
        let secret: String = Settings.require(SECRET)?;
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if secret.len() < SECRET_BYTES_MIN || !secret.bytes().all(is_unreserved) {
            return Err(format!(
                "secret \"{SECRET}\" must have at least {SECRET_BYTES_MIN} letters and digits; create one with `openssl rand -hex 32`"
            ));
        }
        Ok(())
    }

    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        if !request.has_path_secret(&Settings.require::<String>(SECRET)?) {
            return Err(FeedbackError::Refused("the path does not end with the secret".to_owned()));
        }
        if request.method() != "POST" {
            return Err(FeedbackError::Malformed("a mail must be sent with POST".to_owned()));
        }
        let events = report::events(&request.body(), request.received_at());
        let answer = match events.as_deref() {
            None => "This mail is not a report.\n".to_owned(),
            Some([_]) => "1 event\n".to_owned(),
            Some(events) => format!("{} events\n", events.len()),
        };
        Ok(Received::of(events.unwrap_or_default()).answer(200, "text/plain; charset=utf-8", answer))
    }
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(feedback super::MailReports);
}
