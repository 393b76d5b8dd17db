//! Interprets Braze's response (<https://www.braze.com/docs/api/errors/>).

use ace_plugin::channel::{DeliveryError, Receipt};
use ace_plugin::http::Response;
use ace_plugin::{RecoverableError, Timestamp, time};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The delay of a retry if Braze suggests none: edx-ace's 30 s, plus or minus 2 s.
const DELAY_MS: u64 = 30_000;
const JITTER_MS: u64 = 2_000;

#[derive(Default, Deserialize)]
struct Answer {
    dispatch_id: Option<String>,
    message: Option<String>,
    /// Minor errors: Braze has accepted the message.
    errors: Option<IgnoredAny>,
}

/// Any 2xx response means that Braze accepted the message. 429 and 5xx are recoverable, all others are fatal.
pub fn read(response: &Response, now: Timestamp, random: u64) -> Result<Receipt, DeliveryError> {
    let answer: Answer = serde_json::from_slice(&response.body).unwrap_or_default();
    let described = || response.described("Braze", "", answer.message.as_deref());
    match response.status {
        200..=299 => Ok(receipt(response, answer)),
        429 | 500..=599 => Err(DeliveryError::Recoverable(RecoverableError {
            message: described(),
            next_attempt_time: Some(retry_time(response, now).unwrap_or(time::about(now, DELAY_MS, JITTER_MS, random))),
        })),
        _ => Err(DeliveryError::Fatal(response.redirected("Braze", "rest-endpoint").unwrap_or_else(described))),
    }
}

fn receipt(response: &Response, answer: Answer) -> Receipt {
    let note = match (&answer.dispatch_id, answer.errors) {
        (Some(_), None) => return Receipt { provider_id: answer.dispatch_id, detail: None },
        (Some(_), Some(_)) => "with errors",
        (None, _) => "without a dispatch_id",
    };
    let note = format!("Braze answered {} {note}: {}", response.status, response.excerpt());
    Receipt { provider_id: answer.dispatch_id, detail: serde_json::to_string(&Note { note }).ok() }
}

#[derive(serde::Serialize)]
struct Note {
    note: String,
}

/// The time that Braze suggests, in Retry-After or two headers of Braze
/// (<https://braze.com/docs/api/messaging_api/rate_limits>).
fn retry_time(response: &Response, now: Timestamp) -> Option<Timestamp> {
    let own = || response.seconds_from("x-ratelimit-retry-after", now);
    response.retry_after(now).or_else(own).or_else(|| response.epoch_seconds("x-ratelimit-reset"))
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::{comes_back_at, fatal, response};
    use serde_json::Value;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    /// The random number in the middle of the jitter.
    fn answer(response: &Response) -> Result<Receipt, DeliveryError> {
        read(response, NOW, JITTER_MS)
    }

    #[test]
    fn responses_are_interpreted_as_in_edx_ace() {
        let all: Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/http_shapes.json")).expect("JSON");
        for case in all["braze"]["answers"].as_array().expect("cases") {
            let status = u16::try_from(case["status"].as_u64().expect("a status")).expect("a status");
            let answer = answer(&response(status, &[], case["body"].as_str().expect("a body")));
            // If an exception escapes in edx-ace, the status decides here.
            let expected = match (case["outcome"].as_str().expect("an outcome"), status) {
                ("escapes", 200..=299) => "delivered",
                ("escapes", 400..=499) => "fatal",
                ("escapes", _) => "recoverable",
                (outcome, _) => outcome,
            };
            let words = case["error"].as_str().and_then(|e| e.split_once("): ")).map_or("", |(_, words)| words);
            let words = if words == "Unknown error" { "Braze answered 400: {}" } else { words };
            match (expected, answer) {
                ("delivered", Ok(_)) => {}
                ("fatal", Err(DeliveryError::Fatal(why))) => assert!(why.ends_with(words), "{case}: {why}"),
                ("recoverable", Err(DeliveryError::Recoverable(error))) => {
                    assert!(error.message.ends_with(words), "{case}: {}", error.message);
                    assert_eq!(error.next_attempt_time, Some(NOW + 30_000), "{case}");
                }
                (_, answer) => panic!("{case}: {answer:?}"),
            }
        }
    }

    #[test]
    fn a_dispatch_id_is_the_receipt() {
        let receipt = answer(&response(201, &[], r#"{"dispatch_id":"d-1","message":"success"}"#)).expect("delivered");
        assert_eq!(receipt, Receipt::default().provider_id("d-1"));
        let body = r#"{"dispatch_id":"d-1","message":"success","errors":["bad alias"]}"#;
        let receipt = answer(&response(201, &[], body)).expect("delivered");
        assert!(receipt.detail.expect("a detail").contains("with errors: {\\\"dispatch_id\\\""));
    }

    #[test]
    fn a_success_with_an_invalid_body_is_a_success() {
        for body in ["", "<html>", "{}", "[]", r#"{"dispatch_id":7}"#] {
            let receipt = answer(&response(200, &[], body)).expect("delivered");
            assert_eq!(receipt.provider_id, None);
            assert!(receipt.detail.expect("a detail").contains("Braze answered 200 without a dispatch_id"), "{body}");
        }
    }

    #[test]
    fn the_suggested_time_is_used() {
        let at = |headers: &[(&str, &str)]| comes_back_at(answer(&response(429, headers, "{}")));
        assert_eq!(at(&[("retry-after", "7")]), NOW + 7_000);
        assert_eq!(at(&[("Retry-After", "Sun, 01 Mar 2026 12:01:00 GMT")]), NOW + 60_000);
        assert_eq!(at(&[("X-RateLimit-Retry-After", "9")]), NOW + 9_000);
        assert_eq!(at(&[("X-RateLimit-Reset", "1772366460")]), NOW + 60_000);
        assert_eq!(at(&[("X-RateLimit-Reset", "1772366460"), ("Retry-After", "7")]), NOW + 7_000);
        assert_eq!(at(&[("Retry-After", "later")]), NOW + 30_000);
        assert_eq!(comes_back_at(answer(&response(503, &[("retry-after", "7")], ""))), NOW + 7_000);
    }

    #[test]
    fn the_default_delay_is_half_a_minute_with_jitter() {
        for (random, expected) in [(0, 28_000), (4_000, 32_000), (u64::MAX, 28_000 + u64::MAX % 4_001)] {
            assert_eq!(comes_back_at(read(&response(429, &[], ""), NOW, random)), NOW + expected);
        }
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let why = fatal(answer(&response(302, &[("Location", "https://a.b/")], "")));
        assert!(why.starts_with("Braze answered 302, a redirect to https://a.b/: "), "{why}");
        assert!(matches!(answer(&response(304, &[], "")), Err(DeliveryError::Fatal(_))));
    }

    #[test]
    fn a_failure_without_a_message_is_its_status() {
        assert_eq!(answer(&response(404, &[], "")), Err(DeliveryError::Fatal("Braze answered 404".to_owned())));
        let html = answer(&response(400, &[], "<html>\n Bad\n Request"));
        assert_eq!(html, Err(DeliveryError::Fatal("Braze answered 400: <html> Bad Request".to_owned())));
    }
}
