//! One message as people read it: a line for each step, in the order of time. Times are UTC.

use ace::message::{AttemptReport, AttemptResult, ChannelReport, ChannelType, Outcome, PolicyReport, Report, Verdict};
use jiff::Timestamp;
use serde_json::Value;

use super::tables::{text, time};

/// The width of the times.
const TIME_WIDTH: usize = 19;

/// A step, and its time if it is known.
type Step = (Option<Timestamp>, String);

/// The lines of a message's timeline. `message` is what `GET /v1/messages/{uuid}` returns.
pub fn lines(message: &Value) -> Vec<String> {
    let mut lines = vec![head(message)];
    if let Some(batch) = message["batch"].as_str() {
        lines.push(format!("of the batch {batch}"));
    }
    lines.push(String::new());
    let at = |key: &str| message[key].as_str().and_then(|at| at.parse().ok());
    let mut steps = vec![(at("accepted"), "accepted".to_owned())];
    match serde_json::from_value::<Report>(message["report"].clone()) {
        Ok(report) => steps.extend(of_report(&report)),
        // A message whose row is damaged has only an error.
        Err(_) => steps.extend(message["report"]["error"].as_str().map(|error| (None, error.to_owned()))),
    }
    steps.push(state(message, at("settled")));
    steps.extend(message["feedback"].as_array().into_iter().flatten().map(feedback));
    lines.extend(steps.into_iter().map(|(at, step)| {
        let at = at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
        format!("{at:<TIME_WIDTH$}  {step}")
    }));
    lines
}

/// `app.note 0000… to zoe@learner.example (user 7)`.
fn head(message: &Value) -> String {
    let (email, user) = (&message["recipient"]["email_address"], &message["recipient"]["lms_user_id"]);
    let to = match (email.as_str(), user.is_null()) {
        (Some(email), true) => format!(" to {email}"),
        (Some(email), false) => format!(" to {email} (user {})", text(user)),
        (None, false) => format!(" to user {}", text(user)),
        (None, true) => String::new(),
    };
    format!("{} {}{to}", text(&message["name"]), text(&message["uuid"]))
}

/// The state that it is in, and since when.
fn state(message: &Value, settled: Option<Timestamp>) -> Step {
    let state = text(&message["state"]).replace('_', " ");
    match (settled, message["due"].as_str()) {
        (Some(_), _) => (settled, state),
        (None, Some(_)) => (None, format!("queued, due {}", time(&message["due"]))),
        (None, None) if message["in_flight"] == true => (None, "being sent now".to_owned()),
        (None, None) => (None, state),
    }
}

fn of_report(report: &Report) -> Vec<Step> {
    let decided = report.policies.iter().flat_map(policy);
    let passed: Vec<&str> = report.policies.iter().filter(|one| passes(one)).map(|one| one.policy.as_str()).collect();
    let passed = (!passed.is_empty()).then(|| format!("passed by {}", passed.join(", ")));
    let mut steps: Vec<Step> = decided.chain(passed).map(|step| (None, step)).collect();
    let interrupted = report.interruptions.iter().map(|at| {
        let step = "the server ended unexpectedly while it was sending this message; it may arrive twice";
        (Some(*at), step.to_owned())
    });
    let mut attempts: Vec<Step> = report.channels.iter().flat_map(attempts).chain(interrupted).collect();
    attempts.sort_by_key(|(at, _)| *at);
    steps.extend(attempts);
    steps.extend(report.channels.iter().filter_map(|channel| outcome(channel, report)).map(|step| (None, step)));
    steps
}

/// Whether there is nothing to say of a policy.
fn passes(report: &PolicyReport) -> bool {
    matches!(&report.verdict, Verdict::Result(result) if result.deny.is_empty() && result.delay.is_empty())
}

/// What a policy decided.
fn policy(report: &PolicyReport) -> Vec<String> {
    let name = &report.policy;
    let (who, denied, delayed) = if report.shadow.is_some() {
        (format!("{name} (shadow mode, no effect)"), "would deny", "would delay")
    } else {
        (name.clone(), "denied", "delayed")
    };
    let because = |reason: &Option<String>| reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match &report.verdict {
        Verdict::Broken { fault, on_error } => {
            let on_error = format!("{on_error:?}").to_lowercase();
            vec![format!("{who} failed (on-error = {on_error}): {}", fault.message)]
        }
        Verdict::Result(result) => {
            let denials = result.deny.iter();
            let denials =
                denials.map(|one| format!("{who} {denied} {}{}", named(&one.channel_type), because(&one.reason)));
            let delays = result.delay.iter().map(|one| {
                let until = format!("{} until {}", named(&one.channel_type), one.not_before);
                format!("{who} {delayed} {until}{}", because(&one.reason))
            });
            denials.chain(delays).collect()
        }
        other => vec![format!("{who}: {other:?}")],
    }
}

fn named(channel_type: &str) -> &str {
    if channel_type == "*" { "every type" } else { channel_type }
}

/// The attempts of a channel type.
fn attempts(channel: &ChannelReport) -> Vec<Step> {
    let channel_type = &channel.channel_type;
    let kept = channel.history.iter().map(|one| (Some(one.at), attempt(channel_type, one)));
    let earlier = usize::try_from(channel.attempts).unwrap_or(0).saturating_sub(channel.history.len());
    let earlier = (earlier > 0).then(|| (None, format!("{channel_type}: {earlier} earlier attempts are not kept")));
    earlier.into_iter().chain(kept).collect()
}

fn attempt(channel_type: &ChannelType, attempt: &AttemptReport) -> String {
    let result = match attempt.result {
        AttemptResult::Sent => "sent",
        AttemptResult::MaybeSent => "may have been sent",
        AttemptResult::Skipped => "skipped",
        AttemptResult::Recoverable => "temporary failure",
        AttemptResult::Unreachable => "not reachable",
        AttemptResult::Fatal => "permanent failure",
        other => other.as_str(),
    };
    let answer = if attempt.answer.is_empty() { String::new() } else { format!(": {}", attempt.answer) };
    format!("{channel_type} attempt {} over {}: {result}{answer}", attempt.number, attempt.channel)
}

/// The outcome of a channel type, unless the steps before it say the same.
fn outcome(channel: &ChannelReport, report: &Report) -> Option<String> {
    let is_decided = |policy: &PolicyReport| matches!(&policy.verdict, Verdict::Result(result) if policy.shadow.is_none() && !result.deny.is_empty());
    let is_failure = report.is_failure();
    let is_told = match &channel.outcome {
        Outcome::Sent { fault, .. } => fault.is_none() && channel.recipients.is_empty() && channel.addresses.is_empty(),
        Outcome::Denied { .. } => report.policies.iter().any(is_decided),
        Outcome::Ready => true,
        other => other.is_passed_over() && !is_failure,
    };
    if is_told {
        return None;
    }
    let state = format!("{} {}", channel.channel_type, channel.outcome.state().replace('_', " "));
    Some(match channel.detail() {
        detail if detail.is_empty() => state,
        detail => format!("{state}: {detail}"),
    })
}

/// What a provider reported.
fn feedback(event: &Value) -> Step {
    let at = event["received_at"].as_str().and_then(|at| at.parse().ok());
    let permanent = match event["permanent"].as_bool() {
        Some(true) => " permanently",
        Some(false) => " temporarily",
        None => "",
    };
    let address = event["address"]["address"].as_str().map(|address| format!(", {address}")).unwrap_or_default();
    let reason = event["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    (at, format!("{} reported: {}{permanent}{address}{reason}", text(&event["plugin"]), text(&event["kind"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message() -> Value {
        json!({
            "uuid": "00000000-0000-0000-0000-000000000001", "name": "app.note", "state": "sent", "in_flight": false,
            "due": null, "accepted": "2026-11-30T07:40:00.1Z", "settled": "2026-11-30T07:41:02.5Z", "batch": null,
            "recipient": {"lms_user_id": 7, "email_address": "zoe@learner.example"},
            "report": {
                "uuid": "00000000-0000-0000-0000-000000000001", "name": "app.note",
                "policies": [
                    {"policy": "optout", "result": {}, "took_us": 1},
                    {"policy": "weekly_cap", "took_us": 1,
                     "result": {"deny": [{"channel_type": "push", "reason": "3 of 3 this week, free again Monday 09:00"}]}},
                    {"policy": "quiet", "took_us": 1, "shadow": "differs", "result": {"deny": [{"channel_type": "*"}]}},
                    {"policy": "faulty", "took_us": 1,
                     "broken": {"fault": {"plugin": "faulty", "kind": "trap", "message": "it trapped"}, "on_error": "allow"}},
                ],
                "channels": [
                    {"channel_type": "email", "channel": "django_email", "attempts": 2, "state": "sent", "history": [
                        {"at": "2026-11-30T07:40:01Z", "channel": "django_email", "number": 1, "took_us": 1,
                         "result": "recoverable", "answer": "451 try later"},
                        {"at": "2026-11-30T07:41:02Z", "channel": "django_email", "number": 2, "took_us": 1,
                         "result": "sent", "answer": "250 OK"}]},
                    {"channel_type": "push", "attempts": 0, "state": "denied",
                     "reasons": [{"policy": "weekly_cap", "reason": "3 of 3 this week, free again Monday 09:00"}]},
                    {"channel_type": "sms", "attempts": 0, "state": "unsupported", "reason": "no channel"},
                ]},
            "feedback": [{"plugin": "ses", "kind": "bounced", "permanent": true, "reason": "5.1.1 unknown user",
                "address": {"kind": "email", "address": "zoe@learner.example"}, "received_at": "2026-11-30T07:42:00Z"}],
        })
    }

    #[test]
    fn a_timeline_has_a_line_for_each_step() {
        let expected = "\
app.note 00000000-0000-0000-0000-000000000001 to zoe@learner.example (user 7)

2026-11-30 07:40:00  accepted
                     weekly_cap denied push: 3 of 3 this week, free again Monday 09:00
                     quiet (shadow mode, no effect) would deny every type
                     faulty failed (on-error = allow): it trapped
                     passed by optout
2026-11-30 07:40:01  email attempt 1 over django_email: temporary failure: 451 try later
2026-11-30 07:41:02  email attempt 2 over django_email: sent: 250 OK
2026-11-30 07:41:02  sent
2026-11-30 07:42:00  ses reported: bounced permanently, zoe@learner.example: 5.1.1 unknown user";
        assert_eq!(lines(&message()).join("\n"), expected);
    }

    #[test]
    fn a_message_that_waits_or_is_damaged_has_a_timeline_too() {
        let mut waiting = message();
        waiting["state"] = json!("queued");
        waiting["settled"] = json!(null);
        waiting["due"] = json!("2026-11-30T08:00:00Z");
        waiting["report"] = json!(null);
        waiting["feedback"] = json!(null);
        assert_eq!(lines(&waiting).last().map(|line| line.trim()), Some("queued, due 2026-11-30 08:00:00"));
        waiting["due"] = json!(null);
        waiting["in_flight"] = json!(true);
        assert_eq!(lines(&waiting).last().map(|line| line.trim()), Some("being sent now"));
        let mut damaged = message();
        damaged["state"] = json!("corrupt");
        damaged["report"] = json!({"error": "the column body is no blob"});
        let lines = lines(&damaged);
        assert!(lines.iter().any(|line| line.trim() == "the column body is no blob"), "{lines:?}");
    }
}
