//! Complaints and other reports of recipients to their provider (RFC 5965).

use ace_plugin::feedback::Event;

use crate::mail::{Fields, first_block};
use crate::report::{Report, address, details, text};

/// That of reports.
pub(crate) const MEDIA_TYPE: &str = "message/feedback-report";
/// The longest kind of an event.
const KIND_BYTES_MAX: usize = 64;

pub(crate) fn event(report: &Report<'_>) -> Event {
    let content = report.part.content();
    let fields = Fields::read(first_block(content.trim_ascii_start()).0);
    let kind = kind(fields.first("feedback-type").unwrap_or_default());
    let return_path = report.return_path(fields.first("original-mail-from"));
    // Providers hide the address, or a part of it. A signed return path names the recipient.
    let recipient = fields.first("original-rcpt-to").filter(|_| return_path.is_none()).and_then(address);
    let recipient = recipient.filter(|address| !address.to_ascii_lowercase().contains("redact"));
    let mut event = report.event(&kind, return_path, &[&kind, recipient.as_deref().unwrap_or_default()]);
    event.reason = fields.first("user-agent").map(|reporter| text(&format!("reported by {reporter}")));
    let detail = details([
        ("feedback_type", fields.first("feedback-type")),
        ("source_ip", fields.first("source-ip")),
        ("reported_domain", fields.first("reported-domain")),
        ("incidents", fields.first("incidents")),
    ]);
    event = event.detail(&detail);
    event.address = recipient.map(|address| ("email".to_owned(), address));
    event
}

/// The kind of an event. Reports of another type than complaints are shown under its name.
fn kind(feedback_type: &str) -> String {
    let name = feedback_type.split([' ', ';', '(']).next().unwrap_or_default().to_ascii_lowercase();
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name.as_str() {
        "abuse" | "fraud" => "complained".to_owned(),
        // It must not be taken for a kind with a meaning for the host.
        "not-spam" | "virus" | "other" | "auth-failure" => name,
        _ if !name.is_empty() && name.len() + 8 <= KIND_BYTES_MAX && name.bytes().all(is_name) => {
            format!("reported-{name}")
        }
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn only_complaints_are_complaints() {
        let table = [
            ("abuse", "complained"),
            ("Fraud", "complained"),
            ("abuse (spam)", "complained"),
            ("not-spam", "not-spam"),
            ("auth-failure", "auth-failure"),
            ("unsubscribed", "reported-unsubscribed"),
            ("a b", "reported-a"),
            ("é", "unknown"),
            ("", "unknown"),
        ];
        for (feedback_type, expected) in table {
            assert_eq!(kind(feedback_type), expected);
        }
        assert_eq!(kind(&"x".repeat(60)), "unknown");
    }
}
