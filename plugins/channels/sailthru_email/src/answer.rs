//! Interprets Sailthru's response (<https://getstarted.sailthru.com/developers/api-basics/responses/>). The body has the result,
//! regardless of the status.

use ace_plugin::channel::{DeliveryError, Receipt};
use ace_plugin::http::Response;
use ace_plugin::{RecoverableError, Timestamp, time};
use serde::{Deserialize, Serialize};

/// An internal error of Sailthru: retry later.
const INTERNAL_ERROR: i64 = 9;
/// Too many requests this minute.
const RATE_LIMIT: i64 = 43;

/// The delay of a retry if Sailthru suggests none: edx-ace's 10 s, plus or minus 2 s.
const DELAY_MS: u64 = 10_000;
const JITTER_MS: u64 = 2_000;

#[derive(Deserialize)]
struct Answer {
    error: Option<i64>,
    errormsg: Option<String>,
    send_id: Option<String>,
}

/// A response without an error means delivered. The codes 9 and 43 and the statuses 429 and 5xx are recoverable. All others are fatal,
/// including opt-outs (32 to 35, 37).
pub fn read(response: &Response, now: Timestamp, random: u64) -> Result<Receipt, DeliveryError> {
    let status = response.status;
    let answer: Option<Answer> = serde_json::from_slice(&response.body).ok();
    let code = answer.as_ref().and_then(|answer| answer.error);
    let is_temporary = matches!(code, Some(INTERNAL_ERROR | RATE_LIMIT)) || matches!(status, 429 | 500..=599);
    match answer {
        _ if is_temporary => {
            let at = retry_time(response, now).unwrap_or(time::about(now, DELAY_MS, JITTER_MS, random));
            Err(DeliveryError::Recoverable(RecoverableError {
                message: described(response, answer),
                next_attempt_time: Some(at),
            }))
        }
        Some(Answer { error: None, errormsg: None, send_id }) if (200..=299).contains(&status) => {
            Ok(receipt(response, send_id))
        }
        answer => {
            let redirected = response.redirected("Sailthru", "endpoint");
            Err(DeliveryError::Fatal(redirected.unwrap_or_else(|| described(response, answer))))
        }
    }
}

fn receipt(response: &Response, send_id: Option<String>) -> Receipt {
    #[derive(Serialize)]
    struct Detail {
        note: String,
    }
    if send_id.is_some() {
        return Receipt { provider_id: send_id, detail: None };
    }
    let note = format!("Sailthru answered {} without a send_id: {}", response.status, response.excerpt());
    Receipt { provider_id: None, detail: serde_json::to_string(&Detail { note }).ok() }
}

/// Sailthru's code and message, otherwise the start of its response.
fn described(response: &Response, answer: Option<Answer>) -> String {
    match answer {
        Some(Answer { error: Some(code), errormsg, .. }) => {
            let text = errormsg.as_deref().unwrap_or("no text");
            response.described("Sailthru", &format!("with error {code}"), Some(text))
        }
        _ => response.described("Sailthru", "", None),
    }
}

/// The time that Sailthru suggests: Retry-After, or the end of a minute without remaining requests.
fn retry_time(response: &Response, now: Timestamp) -> Option<Timestamp> {
    let remaining = response.header("x-rate-limit-remaining").and_then(|text| text.parse::<i64>().ok());
    let reset = || response.epoch_seconds("x-rate-limit-reset").filter(|_| remaining.is_none_or(|left| left <= 0));
    response.retry_after(now).or_else(reset)
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::{comes_back_at, fatal, recoverable, response};
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
        for case in all["sailthru"]["answers"].as_array().expect("cases") {
            let status = u16::try_from(case["status"].as_u64().expect("a status")).expect("a status");
            let headers: Vec<(&str, &str)> = case["headers"]
                .as_object()
                .expect("headers")
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
                .collect();
            let name = case["case"].as_str().expect("a name");
            let answer = answer(&response(status, &headers, case["body"].as_str().expect("a body")));
            // Exceptions escape in edx-ace for an empty response and for one with the end of the rate limit.
            let (expected, delay_ms) = match (case["outcome"].as_str().expect("an outcome"), name) {
                ("escapes", "empty") => ("delivered", 0),
                ("escapes", "rate_limited") => ("recoverable", 60_000),
                (outcome, _) => (outcome, 10_000),
            };
            match (expected, answer) {
                ("delivered", Ok(_)) => {}
                ("fatal", Err(DeliveryError::Fatal(why))) if name == "not_json" => {
                    assert_eq!(why, "Sailthru answered 200: <html>ok</html>");
                }
                ("fatal", Err(DeliveryError::Fatal(why))) => {
                    let words = case["error"].as_str().and_then(|e| e.split_once("): ")).expect("words").1;
                    assert!(why.ends_with(words) && why.contains(" with error "), "{name}: {why}");
                }
                ("recoverable", Err(DeliveryError::Recoverable(error))) => {
                    assert_eq!(error.next_attempt_time, Some(NOW + delay_ms), "{name}");
                }
                (_, answer) => panic!("{name}: {answer:?}"),
            }
        }
    }

    #[test]
    fn a_send_id_is_the_receipt() {
        let receipt = answer(&response(200, &[], r#"{"send_id":"s-1","email":"a@b.c"}"#)).expect("delivered");
        assert_eq!(receipt, Receipt::default().provider_id("s-1"));
    }

    #[test]
    fn an_empty_response_is_delivered_with_a_note() {
        let receipt = answer(&response(200, &[], "{}")).expect("delivered");
        assert_eq!(receipt.detail.as_deref(), Some(r#"{"note":"Sailthru answered 200 without a send_id: {}"}"#));
    }

    #[test]
    fn an_unknown_response_is_not_a_success() {
        for body in ["", "<html>", "[]", "7", r#"{"error":"x"}"#, r#"{"errormsg":"odd"}"#] {
            assert!(fatal(answer(&response(200, &[], body))).starts_with("Sailthru answered 200"), "{body}");
        }
        assert_eq!(fatal(answer(&response(404, &[], "{}"))), "Sailthru answered 404: {}");
    }

    #[test]
    fn the_end_of_the_rate_limit_is_used() {
        let body = r#"{"error":43,"errormsg":"Too many POST requests"}"#;
        let at = |headers: &[(&str, &str)]| recoverable(answer(&response(429, headers, body))).next_attempt_time;
        let reset = ("X-Rate-Limit-Reset", "1772366460");
        assert_eq!(at(&[reset, ("X-Rate-Limit-Remaining", "0")]), Some(NOW + 60_000));
        assert_eq!(at(&[reset]), Some(NOW + 60_000));
        assert_eq!(at(&[reset, ("X-Rate-Limit-Remaining", "3")]), Some(NOW + 10_000));
        assert_eq!(at(&[("X-Rate-Limit-Reset", "soon")]), Some(NOW + 10_000));
        assert_eq!(at(&[reset, ("Retry-After", "5")]), Some(NOW + 5_000));
    }

    #[test]
    fn server_errors_are_recoverable_whatever_their_body() {
        for (status, body) in [(500, r#"{"error":99,"errormsg":"Other"}"#), (502, "<html>"), (503, ""), (429, "{}")] {
            assert_eq!(
                recoverable(answer(&response(status, &[], body))).next_attempt_time,
                Some(NOW + 10_000),
                "{status}"
            );
        }
        assert_eq!(comes_back_at(read(&response(503, &[], ""), NOW, 0)), NOW + 8_000);
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let why = fatal(answer(&response(301, &[("Location", "https://a.b/")], "")));
        assert!(why.starts_with("Sailthru answered 301, a redirect to https://a.b/: "), "{why}");
    }
}
