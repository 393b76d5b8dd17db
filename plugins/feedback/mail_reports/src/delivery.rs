//! Delivery reports (RFC 3464): one block of fields for each recipient.

use ace_plugin::feedback::Event;

use crate::mail::{Fields, first_block};
use crate::report::{Report, address, details, text};
use crate::status::Status;

/// Those of reports; the second one is for addresses with letters beyond ASCII (RFC 6533).
pub(crate) const MEDIA_TYPES: [&str; 2] = ["message/delivery-status", "message/global-delivery-status"];
/// Recipients of a report that are read.
const RECIPIENTS_MAX: usize = 1_000;

/// What happened to a recipient.
struct Outcome<'a> {
    kind: &'static str,
    status: Option<Status>,
    /// The server's reply, without its type.
    reply: &'a str,
}

pub(crate) fn events(report: &Report<'_>) -> Vec<Event> {
    let content = report.part.content();
    let (mut reporter, mut recipients) = (None, Vec::new());
    let mut rest = &content[..];
    while !rest.is_empty() && recipients.len() < RECIPIENTS_MAX {
        let (block, next) = first_block(rest);
        let fields = Fields::read(block);
        rest = next;
        // Some servers put everything into one block.
        if let Some(name) = fields.first("reporting-mta") {
            reporter = Some(name.to_owned());
        }
        if ["final-recipient", "original-recipient", "action"].iter().any(|name| fields.first(name).is_some()) {
            recipients.push(fields);
        }
    }
    recipients.iter().map(|recipient| event(report, reporter.as_deref(), recipient)).collect()
}

/// `reporter` is the mail server that wrote the report.
fn event(report: &Report<'_>, reporter: Option<&str>, recipient: &Fields) -> Event {
    let outcome = Outcome::of(recipient);
    // The original one is the address that was written to. The final one may be where it forwards to.
    let names = ["original-recipient", "final-recipient"];
    let address = names.iter().find_map(|name| recipient.first(name).and_then(address));
    let status = outcome.status.map(|status| status.to_string()).unwrap_or_default();
    let about = [outcome.kind, &status, address.as_deref().unwrap_or_default()];
    let mut event = report.event(outcome.kind, report.return_path(None), &about);
    event.is_permanent = outcome.is_permanent();
    let shows_status = outcome.reply.contains(&status);
    let reason = if shows_status { outcome.reply.to_owned() } else { format!("{status} {}", outcome.reply) };
    event.reason = Some(text(reason.trim())).filter(|reason| !reason.is_empty());
    let detail = details([
        ("action", recipient.first("action")),
        ("status", recipient.first("status")),
        ("reporting_mta", reporter),
        ("remote_mta", recipient.first("remote-mta")),
    ]);
    event = event.detail(&detail);
    event.address = address.map(|address| ("email".to_owned(), address));
    event
}

impl<'a> Outcome<'a> {
    fn of(recipient: &'a Fields) -> Self {
        let reply = recipient.first("diagnostic-code").unwrap_or_default();
        let reply = reply.split_once(';').map_or(reply, |(_, reply)| reply).trim();
        let status = Status::of(recipient.first("status"), reply);
        // A comment may follow.
        let action = recipient.first("action").unwrap_or_default().to_ascii_lowercase();
        let kind = match action.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default() {
            // OpenSMTPD writes "error".
            "failed" | "error" => "bounced",
            "delayed" => "deferred",
            "delivered" => "delivered",
            "relayed" => "relayed",
            "expanded" => "expanded",
            "" if status.is_some_and(Status::is_success) => "delivered",
            "" if status.is_some() => "bounced",
            _ => "unknown",
        };
        Outcome { kind, status, reply }
    }

    fn is_permanent(&self) -> bool {
        self.kind == "bounced" && self.status.is_some_and(Status::is_hard)
    }
}
