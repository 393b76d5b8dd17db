//! Interprets Twilio's response (<https://www.twilio.com/docs/api/errors>).

use ace_plugin::http::Response;
use ace_plugin::{Timestamp, time};
use serde::{Deserialize, Serialize};

/// The delay of a retry if Twilio suggests none, which grows no further here: the host's own schedule does.
const DELAY_MS: u64 = 10_000;
const JITTER_MS: u64 = 2_000;

/// The outcome of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Twilio accepted it.
    Accepted { sid: Option<String>, detail: Detail },
    /// The number cannot receive SMS: the application should delete it.
    Dropped(Refusal),
    /// The person sent STOP.
    Suppressed(Refusal),
    /// It will never be accepted.
    Failed(Refusal),
    /// The account is at fault, not the message.
    Account(Refusal),
    /// Try again at this time.
    Later(Refusal, Timestamp),
}

/// Why Twilio refused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Option<u32>,
    /// One line.
    pub reason: String,
}

/// What the timeline says of an accepted message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    pub status: Option<String>,
    pub segments: usize,
}

#[derive(Default, Deserialize)]
struct Message {
    sid: Option<String>,
    status: Option<String>,
}

#[derive(Default, Deserialize)]
struct Error {
    code: Option<u32>,
    message: Option<String>,
}

/// Any 2xx response means that Twilio accepted the message. Otherwise Twilio's code decides, or else the status.
pub fn read(response: &Response, segments: usize, now: Timestamp, random: u64) -> Outcome {
    if (200..=299).contains(&response.status) {
        let message: Message = serde_json::from_slice(&response.body).unwrap_or_default();
        return Outcome::Accepted { sid: message.sid, detail: Detail { status: message.status, segments } };
    }
    let error: Error = serde_json::from_slice(&response.body).unwrap_or_default();
    let code = error.code.map(|code| format!("({code})")).unwrap_or_default();
    let reason = response.described("Twilio", &code, error.message.as_deref());
    let refusal = Refusal { code: error.code, reason };
    let later = || response.retry_after(now).unwrap_or_else(|| time::about(now, DELAY_MS, JITTER_MS, random));
    match (error.code, response.status) {
        // No number of this form, not reachable from this sender, or no mobile number.
        (Some(21211 | 21217 | 21614), _) => Outcome::Dropped(refusal),
        (Some(21610), _) => Outcome::Suppressed(refusal),
        // Wrong credential or account; a sender that is not the account's, or may not send to this country.
        (Some(20003 | 20404 | 21212 | 21408 | 21606), _) | (None, 401 | 403) => Outcome::Account(refusal),
        // Queues that are full, and concurrency: the message was not processed.
        (Some(20429 | 21611 | 30001), _) | (_, 429 | 500..=599) => Outcome::Later(refusal, later()),
        _ => match response.redirected("Twilio", "base-url") {
            Some(reason) => Outcome::Account(Refusal { reason, ..refusal }),
            None => Outcome::Failed(refusal),
        },
    }
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::response;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        read(&response(status, headers, body), 2, NOW, JITTER_MS)
    }

    fn coded(status: u16, code: u32) -> Outcome {
        outcome(
            status,
            &[],
            &format!(r#"{{"code":{code},"message":"no\n good","more_info":"https://x","status":{status}}}"#),
        )
    }

    #[test]
    fn an_accepted_message_has_a_sid() {
        let body = r#"{"sid":"SM1","status":"queued","num_segments":"2","error_code":null}"#;
        let detail = Detail { status: Some("queued".to_owned()), segments: 2 };
        assert_eq!(outcome(201, &[], body), Outcome::Accepted { sid: Some("SM1".to_owned()), detail });
        for body in ["", "<html>", "[]"] {
            let detail = Detail { status: None, segments: 2 };
            assert_eq!(outcome(201, &[], body), Outcome::Accepted { sid: None, detail }, "{body}");
        }
    }

    #[test]
    fn the_code_decides() {
        for code in [21211, 21217, 21614] {
            assert!(matches!(coded(400, code), Outcome::Dropped(_)), "{code}");
        }
        let Outcome::Suppressed(refusal) = coded(400, 21610) else { panic!("STOP was sent") };
        assert_eq!(refusal, Refusal { code: Some(21610), reason: "Twilio answered 400 (21610): no good".to_owned() });
        for (status, code) in [(401, 20003), (404, 20404), (400, 21606), (400, 21212), (400, 21408)] {
            assert!(matches!(coded(status, code), Outcome::Account(_)), "{code}");
        }
        for code in [21602, 21617, 12345] {
            assert!(matches!(coded(400, code), Outcome::Failed(_)), "{code}");
        }
        for (status, code) in [(429, 20429), (400, 21611), (400, 30001), (500, 20500)] {
            assert!(matches!(coded(status, code), Outcome::Later(..)), "{code}");
        }
    }

    #[test]
    fn without_a_code_the_status_decides() {
        assert!(matches!(outcome(401, &[], "nope"), Outcome::Account(_)));
        assert!(matches!(outcome(404, &[], "<html>"), Outcome::Failed(_)));
        let Outcome::Later(refusal, at) = outcome(502, &[], "<html>Bad gateway</html>") else { panic!("a gateway") };
        assert_eq!((refusal.code, at), (None, NOW + 10_000));
        let Outcome::Account(refusal) = outcome(307, &[("Location", "https://b.example/")], "") else {
            panic!("moved")
        };
        assert!(refusal.reason.ends_with("check config key \"base-url\""), "{}", refusal.reason);
    }

    #[test]
    fn the_suggested_time_is_used() {
        let at = |headers: &[(&str, &str)]| match outcome(429, headers, "") {
            Outcome::Later(_, at) => at,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(&[("Retry-After", "7")]), NOW + 7_000);
        assert_eq!(at(&[("Retry-After", "Sun, 01 Mar 2026 12:01:00 GMT")]), NOW + 60_000);
        assert_eq!(at(&[]), NOW + 10_000);
    }
}
