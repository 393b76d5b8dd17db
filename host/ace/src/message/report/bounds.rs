//! Limits the size of reports: they are stored with every message, and most of their texts come from plugins and providers.

use serde_json::Value;

use super::{ChannelReport, Fault, HISTORY_MAX, Outcome, PolicyReport, Report, Verdict};
use crate::message::text;

/// The most bytes of all texts of a report together, without the rendered files of `explain` and without the records of addresses,
/// which have limits of their own ([`ADDRESSES_BYTES_MAX`](crate::message::ADDRESSES_BYTES_MAX)).
pub const REPORT_BYTES_MAX: usize = 256 << 10;
/// The most lines of each list of a report. The latest are kept.
pub const LINES_MAX: usize = 50;
/// The most bytes of one text. Texts of plugins and providers are shorter; a template's error may quote more.
const TEXT_BYTES_MAX: usize = 4_000;
/// The limits of texts and lists if the whole report would be too long.
const SHORT_BYTES: usize = 100;
const SHORT_LINES: usize = 5;

impl Report {
    /// Applies the limits: [`LINES_MAX`] of each list, and [`REPORT_BYTES_MAX`] of all texts. If the texts are longer, backtraces and
    /// details of receipts are dropped first, then all texts and lists are shortened. Decisions are always kept.
    pub fn bound(&mut self) {
        let texts = self.shorten(LINES_MAX, TEXT_BYTES_MAX);
        if texts + self.detail_bytes() <= REPORT_BYTES_MAX {
            return;
        }
        for fault in self.policies.iter_mut().filter_map(|policy| match &mut policy.verdict {
            Verdict::Broken { fault, .. } => Some(fault),
            Verdict::Result(_) => None,
        }) {
            fault.backtrace = None;
        }
        for channel in &mut self.channels {
            if let Outcome::Sent { receipt, fault } = &mut channel.outcome {
                receipt.detail = None;
                fault.iter_mut().for_each(|fault| fault.backtrace = None);
            }
        }
        if texts + self.detail_bytes() > REPORT_BYTES_MAX {
            self.shorten(SHORT_LINES, SHORT_BYTES);
        }
    }

    /// Shortens texts and lists, and returns the remaining bytes.
    fn shorten(&mut self, lines: usize, bytes: usize) -> usize {
        for policy in &mut self.policies {
            keep_latest(&mut policy.refused, lines);
        }
        for channel in &mut self.channels {
            keep_latest(&mut channel.refused, lines);
            keep_latest(&mut channel.passed_over, lines);
            keep_latest(&mut channel.templates, lines);
            keep_latest(&mut channel.history, lines.min(HISTORY_MAX));
            if let Outcome::Denied { reasons } | Outcome::Delayed { reasons, .. } = &mut channel.outcome {
                // The first policy that decided has the first reason.
                reasons.truncate(lines.max(LINES_MAX));
            }
        }
        let mut left = 0;
        self.each_text(&mut |text| {
            if text.len() > bytes {
                *text = text::lines(text, bytes);
            }
            left += text.len();
        });
        left
    }

    /// The bytes of backtraces and details of receipts.
    fn detail_bytes(&self) -> usize {
        let backtraces = self.policies.iter().map(|policy| match &policy.verdict {
            Verdict::Broken { fault, .. } => backtrace_bytes(fault),
            Verdict::Result(_) => 0,
        });
        let sent = self.channels.iter().map(|channel| match &channel.outcome {
            Outcome::Sent { receipt, fault } => {
                let detail = receipt.detail.as_ref().map_or(0, value_bytes);
                detail + fault.as_ref().map_or(0, backtrace_bytes)
            }
            _ => 0,
        });
        backtraces.sum::<usize>() + sent.sum::<usize>()
    }

    /// Visits all texts of plugins and providers, except backtraces and details of receipts.
    fn each_text(&mut self, visit: &mut impl FnMut(&mut String)) {
        self.policies.iter_mut().for_each(|policy| policy.each_text(visit));
        self.channels.iter_mut().for_each(|channel| channel.each_text(visit));
    }
}

fn backtrace_bytes(fault: &Fault) -> usize {
    fault.backtrace.as_ref().map_or(0, String::len)
}

/// The bytes of a value's texts, plus an estimate for numbers and punctuation.
fn value_bytes(value: &Value) -> usize {
    const PUNCTUATION: usize = 8;
    PUNCTUATION
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value_bytes).sum(),
            Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + value_bytes(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn keep_latest<T>(list: &mut Vec<T>, max: usize) {
    if list.len() > max {
        list.drain(..list.len() - max);
    }
}

impl PolicyReport {
    fn each_text(&mut self, visit: &mut impl FnMut(&mut String)) {
        match &mut self.verdict {
            Verdict::Result(result) => {
                result.deny.iter_mut().filter_map(|deny| deny.reason.as_mut()).for_each(&mut *visit);
                result.delay.iter_mut().filter_map(|delay| delay.reason.as_mut()).for_each(&mut *visit);
            }
            Verdict::Broken { fault, .. } => visit(&mut fault.message),
        }
        self.refused.iter_mut().for_each(visit);
    }
}

impl ChannelReport {
    fn each_text(&mut self, visit: &mut impl FnMut(&mut String)) {
        let lists = [&mut self.refused, &mut self.passed_over, &mut self.templates];
        lists.into_iter().for_each(|list| list.iter_mut().for_each(&mut *visit));
        self.language_note.iter_mut().for_each(&mut *visit);
        self.history.iter_mut().for_each(|attempt| visit(&mut attempt.answer));
        match &mut self.outcome {
            Outcome::Sent { receipt, fault } => {
                receipt.provider_id.iter_mut().for_each(&mut *visit);
                fault.iter_mut().for_each(|fault| visit(&mut fault.message));
            }
            Outcome::Denied { reasons } | Outcome::Delayed { reasons, .. } => {
                reasons.iter_mut().filter_map(|one| one.reason.as_mut()).for_each(&mut *visit);
            }
            Outcome::MaybeSent { reason: text }
            | Outcome::Retry { error: text, .. }
            | Outcome::Failed { error: text }
            | Outcome::Skipped { reason: text }
            | Outcome::Unsupported { reason: text }
            | Outcome::TemplateError { message: text, .. } => visit(text),
            Outcome::Expired { error } => error.iter_mut().for_each(visit),
            Outcome::Excluded | Outcome::Standby { .. } | Outcome::Ready => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::message::{AttemptReport, AttemptResult, Denial, FaultKind, OnError, PolicyResult, Reason, Receipt};

    fn fault(bytes: usize) -> Fault {
        let (message, backtrace) = ("m".repeat(1_000), Some("b".repeat(bytes)));
        Fault { plugin: "p".to_owned(), kind: FaultKind::Trap, message, backtrace }
    }

    fn report(policies: usize, outcome: Outcome) -> Report {
        let verdict = |at: usize| match at % 2 {
            0 => Verdict::Broken { fault: fault(8_000), on_error: OnError::Allow },
            _ => {
                let denial = || Denial { channel_type: "*".to_owned(), reason: Some("r".repeat(1_000)) };
                Verdict::Result(PolicyResult { deny: (0..256).map(|_| denial()).collect(), delay: Vec::new() })
            }
        };
        let policy = |at| PolicyReport {
            policy: format!("p{at}"),
            revision: "0123456789ab".to_owned(),
            verdict: verdict(at),
            took_us: 1,
            shadow: None,
            refused: vec!["x".repeat(1_000); 16],
        };
        let mut channel = ChannelReport::new("email".to_owned(), outcome);
        channel.refused = (0..2_000).map(|n| format!("{n}")).collect();
        channel.passed_over = vec!["y".repeat(1_000); 500];
        channel.history = (0..50)
            .map(|number| AttemptReport {
                at: Timestamp::UNIX_EPOCH,
                channel: "c".to_owned(),
                revision: String::new(),
                number,
                took_us: 1,
                result: AttemptResult::Recoverable,
                answer: "日".repeat(2_000),
            })
            .collect();
        Report {
            uuid: Uuid::nil(),
            name: "app.note".to_owned(),
            interruptions: Vec::new(),
            policies: (0..policies).map(policy).collect(),
            channels: vec![channel],
        }
    }

    #[test]
    fn a_report_never_exceeds_its_limit() {
        let receipt = Receipt { provider_id: Some("i".repeat(9_000)), detail: Some(json!({"d": "d".repeat(16_000)})) };
        for policies in [0, 4, 40] {
            for outcome in [
                Outcome::Sent { receipt: receipt.clone(), fault: Some(fault(8_000)) },
                Outcome::TemplateError { message: "t".repeat(1 << 20), absent: false },
                Outcome::Denied {
                    reasons: vec![Reason { policy: "p".to_owned(), reason: Some("z".repeat(1_000)) }; 9_000],
                },
            ] {
                let mut report = report(policies, outcome.clone());
                report.bound();
                let bytes = serde_json::to_string(&report).expect("JSON").len();
                // Names, numbers and punctuation are not included in the limit.
                assert!(
                    bytes < 2 * REPORT_BYTES_MAX + policies * 256 * 140,
                    "{policies} policies, {outcome:?}: {bytes}"
                );
                assert_eq!(report.channels[0].outcome.state(), outcome.state());
                assert_eq!(report.policies.len(), policies);
                assert_eq!(report.channels[0].refused.last().map(String::as_str), Some("1999"), "the latest are kept");
            }
        }
    }

    #[test]
    fn a_short_report_is_not_changed() {
        let mut report = report(1, Outcome::Failed { error: "gone".to_owned() });
        report.channels[0].refused.truncate(LINES_MAX);
        report.channels[0].passed_over.truncate(LINES_MAX);
        report.channels[0].history.truncate(2);
        report.channels[0].history.iter_mut().for_each(|attempt| attempt.answer.truncate(900));
        let before = report.clone();
        report.bound();
        assert_eq!(report, before);
    }
}
