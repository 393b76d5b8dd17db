//! Outcomes in one line of text, for people.

use super::{ChannelReport, Outcome, Reason, Report};
use crate::message::{AddressOutcome, RecipientState};

impl ChannelReport {
    /// The details of the outcome, on one line; empty if there is nothing to add to the state.
    pub fn detail(&self) -> String {
        let outcome = match &self.outcome {
            Outcome::Sent { receipt, fault } => {
                let fault = fault.as_ref().map(|fault| format!("; then {fault}")).unwrap_or_default();
                let id = receipt.provider_id.as_deref().unwrap_or_default();
                format!("{id}{}{fault}", self.not_accepted())
            }
            Outcome::Denied { reasons } => by(reasons),
            Outcome::Delayed { not_before, reasons } => format!("not before {not_before}: {}", by(reasons)),
            Outcome::Retry { at, error } => format!("next attempt at {at}: {error}"),
            Outcome::Failed { error } => error.clone(),
            Outcome::MaybeSent { reason } | Outcome::Skipped { reason } | Outcome::Unsupported { reason } => {
                reason.clone()
            }
            Outcome::TemplateError { message, .. } => message.clone(),
            Outcome::Expired { error } => error.clone().unwrap_or_default(),
            Outcome::Standby { after } => format!("used only if the message is not sent by {}", after.join(" or ")),
            Outcome::Excluded | Outcome::Ready => String::new(),
        };
        let not_sent = self.addresses.iter().filter(|record| record.outcome != AddressOutcome::Sent);
        not_sent.fold(outcome, |text, record| format!("{text}; {record}"))
    }

    /// The recipients for whom a relay did not accept a mail that it accepted for others.
    fn not_accepted(&self) -> String {
        let others = self.recipients.iter().filter(|recipient| recipient.state != RecipientState::Accepted);
        others.map(|other| format!("; not accepted for {}: {}", other.address, other.answer)).collect()
    }
}

impl Report {
    /// Why the message was not sent, or not yet, in one line; `None` if it was sent. Of a message that was sent over one type, only
    /// what went wrong with the others counts.
    pub fn reason(&self) -> Option<String> {
        let is_sent = self.channels.iter().any(|c| matches!(c.outcome, Outcome::Sent { .. }));
        let counts = |outcome: &Outcome| match outcome {
            Outcome::Sent { fault, .. } => fault.is_some(),
            Outcome::Denied { .. } | Outcome::Skipped { .. } => !is_sent,
            Outcome::Ready => false,
            other => !other.is_passed_over(),
        };
        let mut found: Vec<&ChannelReport> = self.channels.iter().filter(|c| counts(&c.outcome)).collect();
        if found.is_empty() && !is_sent {
            found = self.channels.iter().filter(|c| !matches!(c.outcome, Outcome::Ready)).collect();
        }
        let lines: Vec<String> = found.into_iter().map(|c| c.sentence()).collect();
        Some(lines.join("; ")).filter(|text| !text.is_empty())
    }
}

impl ChannelReport {
    /// `email denied: weekly_cap: 3 of 3 this week`.
    fn sentence(&self) -> String {
        let state = format!("{} {}", self.channel_type, self.outcome.state().replace('_', " "));
        match self.detail() {
            detail if detail.is_empty() => state,
            detail => format!("{state}: {detail}"),
        }
    }
}

fn by(reasons: &[Reason]) -> String {
    let each = reasons.iter().map(|r| match &r.reason {
        Some(reason) => format!("{}: {reason}", r.policy),
        None => r.policy.clone(),
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn report(channels: Vec<(&str, Outcome)>) -> Report {
        let channels =
            channels.into_iter().map(|(kind, outcome)| ChannelReport::new(kind.to_owned(), outcome)).collect();
        Report { uuid: Uuid::nil(), name: "app.note".to_owned(), interruptions: vec![], policies: vec![], channels }
    }

    fn denied(reason: Option<&str>) -> Outcome {
        let reason = Reason { policy: "weekly_cap".to_owned(), reason: reason.map(str::to_owned) };
        Outcome::Denied { reasons: vec![reason] }
    }

    fn unsupported() -> Outcome {
        Outcome::Unsupported { reason: "no channel".to_owned() }
    }

    #[test]
    fn the_reason_of_a_message_is_what_kept_it_from_being_sent() {
        let sent = || Outcome::Sent { receipt: Default::default(), fault: None };
        let failed = || Outcome::Failed { error: "550 no such user".to_owned() };
        let reason = |channels| report(channels).reason();
        assert_eq!(
            reason(vec![("email", denied(Some("3 of 3 this week"))), ("push", unsupported())]).as_deref(),
            Some("email denied: weekly_cap: 3 of 3 this week")
        );
        assert_eq!(reason(vec![("email", denied(None))]).as_deref(), Some("email denied: weekly_cap"));
        assert_eq!(reason(vec![("email", sent()), ("push", denied(None)), ("sms", unsupported())]), None);
        assert_eq!(
            reason(vec![("email", sent()), ("push", failed())]).as_deref(),
            Some("push failed: 550 no such user")
        );
        assert_eq!(reason(vec![("push", unsupported())]).as_deref(), Some("push unsupported: no channel"));
        assert_eq!(reason(vec![("email", Outcome::Expired { error: None })]).as_deref(), Some("email expired"));
        assert_eq!(reason(vec![]), None);
    }
}
