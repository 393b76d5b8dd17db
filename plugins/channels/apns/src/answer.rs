//! Interprets the response of APNs
//! (<https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns>).

use std::time::{Duration, UNIX_EPOCH};

use ace_plugin::Timestamp;
use ace_plugin::devices::{self, DELAY_MS, Outcome, QUOTA_DELAY_MS, Refusal};
use ace_plugin::http::Response;
use serde::Deserialize;

/// The reasons for a token that is not one of this environment or app, and what may be wrong if APNs has accepted no token yet.
const HINTS: [(&str, &str); 2] = [
    (
        "BadDeviceToken",
        "APNs has accepted no token since the start: for those of a development build, set config key \"base-url\" to \
         \"api.sandbox.push.apple.com\", otherwise to \"api.push.apple.com\"",
    ),
    (
        "DeviceTokenNotForTopic",
        "APNs has accepted no token since the start: check that config key \"topic\" is the bundle id of the app",
    ),
];
/// The latest time that is written, in the year 9999.
const TIMESTAMP_MAX: Timestamp = 253_402_300_799_000;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    reason: Option<String>,
    /// Since when the token is invalid.
    timestamp: Option<Timestamp>,
}

/// 200 means that APNs accepted the notification. Otherwise the reason in the body decides, or else the status.
pub fn read(response: &Response, now: Timestamp, random: u64) -> Outcome {
    if (200..=299).contains(&response.status) {
        return Outcome::Accepted(response.header("apns-id").map(str::to_owned));
    }
    let answer: Answer = serde_json::from_slice(&response.body).unwrap_or_default();
    let text = answer.reason.as_ref().map(|_| answer.timestamp.map(invalid_since).unwrap_or_default());
    let reason = answer.reason.unwrap_or_default();
    let described = response.redirected("APNs", "base-url");
    let described = described.unwrap_or_else(|| response.described("APNs", &reason, text.as_deref()));
    let code = if reason.is_empty() { response.status.to_string() } else { reason.clone() };
    let refusal = Refusal::new(code, described);
    let later = |delay_ms| devices::next_attempt(response, delay_ms, now, random);
    match (response.status, reason.as_str()) {
        (_, "BadDeviceToken" | "DeviceTokenNotForTopic" | "MissingDeviceToken" | "Unregistered" | "ExpiredToken")
        | (410, _) => Outcome::Dropped(refusal),
        (_, "BadTopic" | "MissingTopic" | "TopicDisallowed") => Outcome::Held(refusal, None),
        // The host has not made another token, and keeps the one it has.
        (_, "TooManyProviderTokenUpdates") => Outcome::Held(refusal, response.retry_after(now)),
        // A new token was refused as well, or one is about to be made.
        (_, "IdleTimeout" | "ExpiredProviderToken") | (408 | 500.., _) => Outcome::Later(refusal, later(DELAY_MS)),
        // The device gets too many.
        (429, _) => Outcome::Later(refusal, later(QUOTA_DELAY_MS)),
        // The key, a redirect, or a server that is not APNs.
        (..=399 | 401 | 403, _) => Outcome::Held(refusal, None),
        (404, "") => Outcome::Held(refusal, None),
        _ => Outcome::Failed(refusal),
    }
}

fn invalid_since(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.min(TIMESTAMP_MAX));
    format!("invalid since {}", humantime::format_rfc3339_seconds(at))
}

/// The outcome while APNs has accepted no token: a wrong setting may be why it refuses this one, and the application keeps it.
pub fn doubted(outcome: Outcome) -> Outcome {
    let Outcome::Dropped(Refusal { code, reason }) = outcome else { return outcome };
    match HINTS.iter().find(|(doubtful, _)| *doubtful == code) {
        Some((_, hint)) => Outcome::Failed(Refusal::new(code, format!("{reason}; {hint}"))),
        None => Outcome::Dropped(Refusal { code, reason }),
    }
}

#[cfg(test)]
mod tests {
    use ace_plugin::devices::JITTER_MS;
    use ace_plugin::testing::response;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        read(&response(status, headers, body), NOW, JITTER_MS)
    }

    fn refused(status: u16, reason: &str) -> Outcome {
        outcome(status, &[], &json!({"reason": reason, "timestamp": 1_772_366_300_000_u64}).to_string())
    }

    #[test]
    fn an_accepted_notification_has_an_id() {
        assert_eq!(outcome(200, &[("apns-id", "a-1")], ""), Outcome::Accepted(Some("a-1".to_owned())));
        assert_eq!(outcome(200, &[], "<html>"), Outcome::Accepted(None));
    }

    #[test]
    fn dead_tokens_are_dropped() {
        let reason = "APNs answered 410 Unregistered: invalid since 2026-03-01T11:58:20Z";
        let refusal = Refusal::new("Unregistered", reason);
        assert_eq!(refused(410, "Unregistered"), Outcome::Dropped(refusal));
        for (status, reason) in [
            (400, "BadDeviceToken"),
            (400, "DeviceTokenNotForTopic"),
            (400, "MissingDeviceToken"),
            (410, "ExpiredToken"),
            (410, "SomethingNew"),
        ] {
            assert!(matches!(refused(status, reason), Outcome::Dropped(_)), "{reason}");
        }
        assert!(matches!(outcome(410, &[], "<html>gone"), Outcome::Dropped(refusal) if refusal.code == "410"));
    }

    #[test]
    fn a_token_is_kept_while_a_setting_may_be_wrong() {
        for (reason, key) in [("BadDeviceToken", "base-url"), ("DeviceTokenNotForTopic", "topic")] {
            let Outcome::Failed(refusal) = doubted(refused(400, reason)) else { panic!("{reason}") };
            assert!(refusal.code == reason && refusal.reason.contains(&format!("config key {key:?}")), "{refusal:?}");
        }
        for outcome in [refused(410, "Unregistered"), refused(400, "BadTopic"), outcome(200, &[], "")] {
            assert_eq!(doubted(outcome.clone()), outcome);
        }
        let far = outcome(410, &[], &json!({"reason": "Unregistered", "timestamp": u64::MAX}).to_string());
        assert!(matches!(far, Outcome::Dropped(refusal) if refusal.reason.ends_with("since 9999-12-31T23:59:59Z")));
    }

    #[test]
    fn faults_of_the_notification_are_final() {
        for (status, reason) in [
            (400, "BadCollapseId"),
            (400, "BadExpirationDate"),
            (400, "BadMessageId"),
            (400, "BadPriority"),
            (400, "DuplicateHeaders"),
            (400, "InvalidPushType"),
            (400, "PayloadEmpty"),
            (400, "SomethingNew"),
            (404, "BadPath"),
            (405, "MethodNotAllowed"),
            (413, "PayloadTooLarge"),
        ] {
            assert!(matches!(refused(status, reason), Outcome::Failed(_)), "{reason}");
        }
    }

    #[test]
    fn faults_of_the_account_hold_the_channel() {
        for (status, reason) in [
            (400, "BadTopic"),
            (400, "MissingTopic"),
            (400, "TopicDisallowed"),
            (403, "BadCertificate"),
            (403, "BadCertificateEnvironment"),
            (403, "Forbidden"),
            (403, "InvalidProviderToken"),
            (403, "MissingProviderToken"),
            (429, "TooManyProviderTokenUpdates"),
        ] {
            assert!(matches!(refused(status, reason), Outcome::Held(_, None)), "{reason}");
        }
        for status in [302, 401, 403, 404] {
            assert!(matches!(outcome(status, &[], "<html>"), Outcome::Held(..)), "{status}");
        }
        let held = outcome(429, &[("Retry-After", "60")], r#"{"reason":"TooManyProviderTokenUpdates"}"#);
        assert!(matches!(held, Outcome::Held(_, Some(at)) if at == NOW + 60_000), "{held:?}");
    }

    #[test]
    fn the_code_is_the_reason_that_another_client_reads() {
        let recorded: serde_json::Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
        for case in recorded["errors"].as_array().expect("errors") {
            let (status, reason) = (case["status"].as_u64().expect("a number"), case["reason"].as_str().expect("text"));
            let outcome = refused(u16::try_from(status).expect("a status"), reason);
            let (Outcome::Dropped(refusal)
            | Outcome::Failed(refusal)
            | Outcome::Held(refusal, _)
            | Outcome::Later(refusal, _)) = outcome
            else {
                panic!("{reason} is a refusal")
            };
            assert_eq!(json!([status.to_string(), refusal.code]), case["result"]);
        }
    }

    #[test]
    fn busy_servers_are_asked_again_when_they_say() {
        let at = |outcome| match outcome {
            Outcome::Later(_, at) => at - NOW,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(refused(429, "TooManyRequests")), 60_000);
        assert_eq!(at(outcome(429, &[("Retry-After", "7")], r#"{"reason":"TooManyRequests"}"#)), 7_000);
        for (status, reason) in [
            (400, "IdleTimeout"),
            (403, "ExpiredProviderToken"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
            (503, "Shutdown"),
        ] {
            assert_eq!(at(refused(status, reason)), 10_000, "{reason}");
        }
        assert_eq!(at(outcome(502, &[], "<html>Bad gateway</html>")), 10_000);
    }
}
