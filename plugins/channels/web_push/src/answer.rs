//! Interprets the response of a push service (RFC 8030). Which one it is, is up to the recipient: nothing it answers holds the channel.

use ace_plugin::Timestamp;
use ace_plugin::devices::{self, DELAY_MS, Outcome, QUOTA_DELAY_MS, Refusal};
use ace_plugin::http::Response;

const KEY_HINT: &str =
    "the subscription may have been made with another public key than that of the credential \"vapid\"";

/// The status decides. Push services have no common error codes.
pub fn read(response: &Response, now: Timestamp, random: u64) -> Outcome {
    let status = response.status;
    if (200..=299).contains(&status) {
        return Outcome::Accepted(response.header("location").filter(|id| !id.is_empty()).map(str::to_owned));
    }
    let refusal = Refusal::new(status.to_string(), response.described("the push service", "", None));
    let later = |delay_ms| devices::next_attempt(response, delay_ms, now, random);
    match status {
        404 | 410 => Outcome::Dropped(refusal),
        // The host counts 401 as a service that is down for everybody.
        401 | 408 | 500.. => Outcome::Later(refusal, later(DELAY_MS)),
        429 => Outcome::Later(refusal, later(QUOTA_DELAY_MS)),
        403 => Outcome::Failed(Refusal { reason: format!("{}; {KEY_HINT}", refusal.reason), ..refusal }),
        _ => Outcome::Failed(refusal),
    }
}

#[cfg(test)]
mod tests {
    use ace_plugin::devices::JITTER_MS;
    use ace_plugin::testing::response;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        read(&response(status, headers, body), NOW, JITTER_MS)
    }

    #[test]
    fn an_accepted_message_has_a_location() {
        let location = "https://push.example/m/1";
        assert_eq!(outcome(201, &[("Location", location)], ""), Outcome::Accepted(Some(location.to_owned())));
        assert_eq!(outcome(202, &[], "<html>"), Outcome::Accepted(None));
    }

    #[test]
    fn subscriptions_that_ended_are_dropped() {
        let refusal = Refusal::new("410", "the push service answered 410: push subscription has expired");
        assert_eq!(outcome(410, &[], "push subscription\nhas expired"), Outcome::Dropped(refusal));
        assert!(matches!(outcome(404, &[], ""), Outcome::Dropped(_)));
    }

    #[test]
    fn a_refusal_concerns_only_its_subscription() {
        for status in [302, 307, 400, 402, 405, 413] {
            assert!(matches!(outcome(status, &[], "<html>"), Outcome::Failed(_)), "{status}");
        }
        let Outcome::Failed(refusal) = outcome(403, &[], "no") else { panic!("it is another key's") };
        assert!(refusal.reason.contains("answered 403: no; the subscription may have been made"), "{refusal:?}");
    }

    #[test]
    fn busy_services_are_asked_again_when_they_say() {
        let at = |outcome| match outcome {
            Outcome::Later(_, at) => at - NOW,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(outcome(429, &[("Retry-After", "7")], "")), 7_000);
        assert_eq!(at(outcome(429, &[], "")), 60_000);
        for status in [401, 408, 500, 502, 503] {
            assert_eq!(at(outcome(status, &[], "<html>")), 10_000, "{status}");
        }
    }
}
