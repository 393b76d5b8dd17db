//! Interprets the answer of a receiver, as Standard Webhooks says.

use ace_plugin::Timestamp;
use ace_plugin::devices::{self, Outcome, Refusal};
use ace_plugin::http::Response;

/// 2xx is success, 410 an end for good; a redirect is never followed. Any other status may pass: the receiver is being set up or repaired.
pub fn read(response: &Response, id: &str, now: Timestamp, random: u64) -> Outcome {
    let refusal = |reason: String| Refusal::new(response.status.to_string(), reason);
    let described = || refusal(response.described("the receiver", "", None));
    match response.status {
        200..=299 => Outcome::Accepted(Some(id.to_owned())),
        410 => Outcome::Dropped(described()),
        300..=399 => {
            let to = response.header("location").unwrap_or("nowhere");
            let why =
                format!("the receiver answered {}, a redirect to {to}: redirects are not followed", response.status);
            Outcome::Failed(refusal(ace_plugin::email::one_line(&why)))
        }
        _ => Outcome::Later(described(), devices::next_attempt(response, devices::DELAY_MS, now, random)),
    }
}

#[cfg(test)]
mod tests {
    use ace_plugin::testing::response;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)]) -> Outcome {
        read(&response(status, headers, "<html>\nno"), "msg_1", NOW, devices::JITTER_MS)
    }

    #[test]
    fn the_status_decides() {
        for status in [200, 202, 204] {
            assert_eq!(outcome(status, &[]), Outcome::Accepted(Some("msg_1".to_owned())));
        }
        assert!(matches!(outcome(410, &[]), Outcome::Dropped(refusal) if refusal.code == "410"));
        for status in [301, 302, 307, 308] {
            let Outcome::Failed(refusal) = outcome(status, &[("Location", "https://b.example/")]) else {
                panic!("{status}")
            };
            assert!(refusal.reason.contains("https://b.example/"), "{}", refusal.reason);
        }
        for status in [400, 401, 404, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(outcome(status, &[]), Outcome::Later(..)), "{status}");
        }
    }

    #[test]
    fn the_receiver_names_the_time_of_the_next_attempt() {
        let at = |headers: &[(&str, &str)]| match outcome(503, headers) {
            Outcome::Later(refusal, at) => (refusal.reason, at),
            other => panic!("{other:?}"),
        };
        let reason = "the receiver answered 503: <html> no";
        assert_eq!(at(&[("Retry-After", "70")]), (reason.to_owned(), NOW + 70_000));
        assert_eq!(at(&[]), (reason.to_owned(), NOW + 10_000));
    }
}
