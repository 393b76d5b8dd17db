//! Interprets the response of SES
//! (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html#API_SendEmail_Errors>).

use ace_address::person::normal_address;
use ace_plugin::http::Response;
use ace_plugin::{Timestamp, time};
use serde::Deserialize;

/// The delay of a retry if SES suggests none.
const DELAY_MS: u64 = 10_000;
const JITTER_MS: u64 = 2_000;
/// How long the channel waits after the quota of a day is used up. The day is the last 24 hours, so some of it returns soon.
const QUOTA_DELAY_MS: u64 = 15 * 60_000;
/// How long the channel waits after it exceeded the sending rate, which is a number of mails a second.
const RATE_DELAY_MS: u64 = 2_000;
/// How SES describes that quota in an error about the rate. For the rate it says "Maximum sending rate exceeded".
const QUOTA_TEXT: &str = "daily message quota exceeded";

/// The outcome of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// SES accepted it, with this id.
    Accepted(Option<String>),
    /// It will never be accepted.
    Failed(String),
    /// The account or its settings are at fault, not the message. The channel waits, until this time if there is one.
    Account(String, Option<Timestamp>),
    /// Try again at this time.
    Later(String, Timestamp),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Accepted {
    message_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Error {
    #[serde(alias = "Message")]
    message: Option<String>,
    #[serde(alias = "Code", alias = "__type")]
    code: Option<String>,
}

/// Any 2xx response means that SES accepted the mail. Otherwise the name of the error decides, or else the status. `sender` is the mail's.
pub fn read(response: &Response, sender: &str, now: Timestamp, random: u64) -> Outcome {
    if (200..=299).contains(&response.status) {
        let accepted: Accepted = serde_json::from_slice(&response.body).unwrap_or_default();
        return Outcome::Accepted(accepted.message_id);
    }
    let error: Error = serde_json::from_slice(&response.body).unwrap_or_default();
    let name = response.header("x-amzn-errortype").or(error.code.as_deref()).map(error_name).unwrap_or_default();
    let text = error.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let reason = response.described("SES", name, error.message.as_deref());
    let hint = response.retry_after(now);
    match (name.strip_suffix("Exception").unwrap_or(name), response.status) {
        (name, _) if name == "LimitExceeded" || text.contains(QUOTA_TEXT) => {
            Outcome::Account(reason, Some(hint.unwrap_or(now + QUOTA_DELAY_MS)))
        }
        ("TooManyRequests" | "Throttling", _) | (_, 429) => {
            Outcome::Account(reason, Some(hint.unwrap_or(now + RATE_DELAY_MS)))
        }
        ("AccountSuspended" | "SendingPaused" | "MailFromDomainNotVerified" | "NotFound", _) => {
            Outcome::Account(reason, None)
        }
        ("MessageRejected", _) if is_unverified(sender, &text) => Outcome::Account(reason, None),
        ("MessageRejected" | "BadRequest", _) => Outcome::Failed(reason),
        (_, 408 | 500..=599) => {
            let delayed = || time::about(now, DELAY_MS, JITTER_MS, random);
            Outcome::Later(reason, hint.unwrap_or_else(delayed))
        }
        // The credential, its permissions, or the URL.
        (_, 401 | 403 | 404) => Outcome::Account(reason, None),
        _ => match response.redirected("SES", "base-url") {
            Some(reason) => Outcome::Account(reason, None),
            None => Outcome::Failed(reason),
        },
    }
}

/// Whether the text, in lower case, names the sender or its domain among identities that are not verified. In the sandbox SES names
/// recipients too.
fn is_unverified(sender: &str, text: &str) -> bool {
    let address = normal_address(sender);
    let domain = address.rsplit('@').next().unwrap_or_default();
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '<' | '>');
    let mut words = text.split(is_separator).map(|word| word.trim_end_matches('.'));
    text.contains("is not verified") && words.any(|word| word == address || word == domain)
}

/// `NotFoundException` of `com.amazonaws#NotFoundException:http://internal.amazon.com/…`.
fn error_name(text: &str) -> &str {
    let before_colon = text.split(':').next().unwrap_or_default();
    before_colon.rsplit('#').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::response;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        read(&response(status, headers, body), "Campus <no-reply@Campus.example>", NOW, JITTER_MS)
    }

    fn named(status: u16, name: &str) -> Outcome {
        outcome(status, &[("x-amzn-ErrorType", name)], &json!({"message": "no\n good"}).to_string())
    }

    #[test]
    fn an_accepted_mail_has_an_id() {
        assert_eq!(outcome(200, &[], r#"{"MessageId":"0100-a"}"#), Outcome::Accepted(Some("0100-a".to_owned())));
        for body in ["", "<html>", "[]", "{}"] {
            assert_eq!(outcome(200, &[], body), Outcome::Accepted(None), "{body}");
        }
    }

    #[test]
    fn the_name_of_the_error_decides() {
        let reason = |name: &str, status| format!("SES answered {status} {name}: no good");
        for name in ["MessageRejected", "BadRequestException", "OddException"] {
            assert_eq!(named(400, name), Outcome::Failed(reason(name, 400)));
        }
        for (status, name) in [
            (400, "AccountSuspendedException"),
            (400, "SendingPausedException"),
            (400, "MailFromDomainNotVerifiedException"),
            (404, "NotFoundException"),
            (403, "AccessDeniedException"),
        ] {
            assert_eq!(named(status, name), Outcome::Account(reason(name, status), None));
        }
        let name = "LimitExceededException";
        assert_eq!(named(400, name), Outcome::Account(reason(name, 400), Some(NOW + QUOTA_DELAY_MS)));
        for (status, name) in [(429, "TooManyRequestsException"), (400, "ThrottlingException")] {
            assert_eq!(named(status, name), Outcome::Account(reason(name, status), Some(NOW + RATE_DELAY_MS)));
        }
    }

    #[test]
    fn the_quota_of_a_day_is_not_the_rate() {
        for (text, delay) in
            [("Daily message quota exceeded.", QUOTA_DELAY_MS), ("Maximum sending rate exceeded.", RATE_DELAY_MS)]
        {
            for (status, name) in [(400, "ThrottlingException"), (429, "TooManyRequestsException"), (429, "")] {
                let answer = outcome(status, &[("x-amzn-ErrorType", name)], &json!({ "message": text }).to_string());
                assert!(matches!(answer, Outcome::Account(_, Some(at)) if at == NOW + delay), "{text} {name}");
            }
        }
        let hint = [("Retry-After", "7"), ("x-amzn-ErrorType", "ThrottlingException")];
        for body in [r#"{"message": "Daily message quota exceeded"}"#, "{}"] {
            assert!(matches!(outcome(400, &hint, body), Outcome::Account(_, Some(at)) if at == NOW + 7_000), "{body}");
        }
    }

    #[test]
    fn an_unverified_sender_is_a_fault_of_the_account() {
        let rejected = |identities: &str| {
            let check = "The following identities failed the check in region EU-CENTRAL-1";
            let body = json!({"message": format!("Email address is not verified. {check}: {identities}")}).to_string();
            outcome(400, &[("x-amzn-ErrorType", "MessageRejected")], &body)
        };
        for sender in
            ["no-reply@campus.example", "z@b.example, Campus <NO-REPLY@campus.example>", "campus.example, z@b.example"]
        {
            assert!(matches!(rejected(sender), Outcome::Account(_, None)), "{sender}");
        }
        for recipients in ["zoe@learner.example", "Zoe <zoe@campus.example>, ann@learner.example"] {
            assert!(matches!(rejected(recipients), Outcome::Failed(_)), "{recipients}");
        }
        let other = r#"{"message": "no-reply@campus.example has a virus"}"#;
        assert!(matches!(outcome(400, &[("x-amzn-ErrorType", "MessageRejected")], other), Outcome::Failed(_)));
    }

    #[test]
    fn the_name_is_in_a_header_or_in_the_body() {
        let long = "com.amazonaws.ses.v2#NotFoundException:http://internal.amazon.com/coral/com.amazonaws.ses/";
        for body in [json!({"__type": long}), json!({"code": "NotFoundException"}), json!({"Code": long})] {
            assert!(matches!(outcome(400, &[], &body.to_string()), Outcome::Account(_, None)), "{body}");
        }
        assert!(matches!(named(400, long), Outcome::Account(_, None)));
    }

    #[test]
    fn the_name_is_that_of_botocore() {
        let recorded: serde_json::Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
        for case in recorded["errors"].as_array().expect("errors") {
            let header = case["headers"]["x-amzn-ErrorType"].as_str();
            let headers: Vec<(&str, &str)> = header.into_iter().map(|value| ("x-amzn-ErrorType", value)).collect();
            let status = u16::try_from(case["status"].as_u64().expect("a status")).expect("a status");
            let theirs = case["error"]["Code"].as_str().expect("text");
            let expected = format!("SES answered {status} {theirs}: no");
            let (Outcome::Failed(reason) | Outcome::Account(reason, _) | Outcome::Later(reason, _)) =
                outcome(status, &headers, &case["body"].to_string())
            else {
                panic!("{case} is an error")
            };
            assert_eq!(reason, expected);
        }
    }

    #[test]
    fn without_a_name_the_status_decides() {
        let gateway = outcome(502, &[], "<html>Bad gateway</html>");
        assert_eq!(gateway, Outcome::Later("SES answered 502: <html>Bad gateway</html>".to_owned(), NOW + DELAY_MS));
        assert!(matches!(outcome(400, &[], "no JSON"), Outcome::Failed(_)));
        assert!(matches!(outcome(403, &[], ""), Outcome::Account(_, None)));
        let Outcome::Account(moved, None) = outcome(307, &[("Location", "https://b.example/")], "") else {
            panic!("moved")
        };
        assert!(moved.ends_with("check config key \"base-url\""), "{moved}");
    }

    #[test]
    fn the_suggested_time_is_used() {
        let hint = [("Retry-After", "7")];
        assert!(matches!(outcome(429, &hint, ""), Outcome::Account(_, Some(at)) if at == NOW + 7_000));
        assert!(matches!(outcome(503, &hint, ""), Outcome::Later(_, at) if at == NOW + 7_000));
    }
}
