//! Interprets FCM's response (<https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode>).

use ace_plugin::Timestamp;
use ace_plugin::devices::{self, DELAY_MS, Outcome, QUOTA_DELAY_MS, Refusal};
use ace_plugin::http::Response;
use serde::Deserialize;

/// The type of the detail with FCM's own code.
const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    name: Option<String>,
    error: Error,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Error {
    status: Option<String>,
    message: Option<String>,
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    #[serde(rename = "@type")]
    kind: String,
    error_code: Option<String>,
    field_violations: Vec<Violation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Violation {
    field: String,
}

/// Any 2xx response means that FCM accepted the message. Otherwise FCM's own code decides, or else the status in the body, or else the
/// HTTP status.
pub fn read(response: &Response, now: Timestamp, random: u64) -> Outcome {
    let answer: Answer = serde_json::from_slice(&response.body).unwrap_or_default();
    if (200..=299).contains(&response.status) {
        return Outcome::Accepted(answer.name);
    }
    let code = code(response.status, &answer.error);
    let reason = response.described("FCM", &code, answer.error.message.as_deref());
    let refusal = Refusal { code, reason };
    let later = |delay_ms| devices::next_attempt(response, delay_ms, now, random);
    match refusal.code.as_str() {
        "UNREGISTERED" | "SENDER_ID_MISMATCH" => Outcome::Dropped(refusal),
        "INVALID_ARGUMENT" if names_the_target(&answer.error) => Outcome::Dropped(refusal),
        "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR" | "UNAUTHENTICATED" | "PERMISSION_DENIED" => {
            Outcome::Held(refusal, None)
        }
        "QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED" => Outcome::Later(refusal, later(QUOTA_DELAY_MS)),
        "INTERNAL" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" => Outcome::Later(refusal, later(DELAY_MS)),
        _ if response.status >= 500 => Outcome::Later(refusal, later(DELAY_MS)),
        // A redirect, or an unknown project.
        _ if response.status < 400 || response.status == 404 => Outcome::Held(refusal, None),
        _ => Outcome::Failed(refusal),
    }
}

fn code(status: u16, error: &Error) -> String {
    let own =
        error.details.iter().filter(|detail| detail.kind == FCM_ERROR).find_map(|detail| detail.error_code.clone());
    let by_status = || match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        _ => "UNKNOWN",
    };
    own.or_else(|| error.status.clone()).unwrap_or_else(|| by_status().to_owned())
}

fn names_the_target(error: &Error) -> bool {
    let mut fields = error.details.iter().flat_map(|detail| &detail.field_violations);
    fields.any(|violation| matches!(violation.field.as_str(), "message.token" | "message.fid"))
}

#[cfg(test)]
mod tests {
    use ace_plugin::devices::JITTER_MS;
    use ace_plugin::testing::response;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = 1_772_366_400_000;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        read(&response(status, headers, body), NOW, JITTER_MS)
    }

    fn error(code: u16, status: &str, details: Value) -> Outcome {
        let body = json!({"error": {"code": code, "message": "no\n good", "status": status, "details": details}});
        outcome(code, &[], &body.to_string())
    }

    fn fcm(code: u16, status: &str, own: &str) -> Outcome {
        error(code, status, json!([{"@type": FCM_ERROR, "errorCode": own}]))
    }

    #[test]
    fn an_accepted_message_has_a_name() {
        let name = "projects/p/messages/0:15";
        assert_eq!(outcome(200, &[], &json!({ "name": name }).to_string()), Outcome::Accepted(Some(name.to_owned())));
        assert_eq!(outcome(200, &[], "<html>"), Outcome::Accepted(None));
    }

    #[test]
    fn dead_targets_are_dropped() {
        let Outcome::Dropped(refusal) = fcm(404, "NOT_FOUND", "UNREGISTERED") else { panic!("it is dead") };
        let reason = "FCM answered 404 UNREGISTERED: no good".to_owned();
        assert_eq!(refusal, Refusal { code: "UNREGISTERED".to_owned(), reason });
        assert!(matches!(fcm(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), Outcome::Dropped(_)));
        let violation = |field: &str| {
            let kind = "type.googleapis.com/google.rpc.BadRequest";
            let details = json!([
                {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
                {"@type": kind, "fieldViolations": [{"field": field, "description": "d"}]},
            ]);
            error(400, "INVALID_ARGUMENT", details)
        };
        assert!(matches!(violation("message.token"), Outcome::Dropped(_)));
        assert!(matches!(violation("message.android.ttl"), Outcome::Failed(_)));
        assert!(matches!(fcm(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), Outcome::Failed(_)));
    }

    #[test]
    fn faults_of_the_project_are_not_the_message_s() {
        for (code, status, own) in [
            (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
            (401, "UNAUTHENTICATED", "APNS_AUTH_ERROR"),
            (401, "UNAUTHENTICATED", "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED", "PERMISSION_DENIED"),
        ] {
            assert!(matches!(fcm(code, status, own), Outcome::Held(..)), "{own}");
        }
        assert!(matches!(outcome(404, &[], "<html>no such project"), Outcome::Held(..)));
        assert!(matches!(outcome(302, &[], ""), Outcome::Held(..)));
        assert!(matches!(error(403, "PERMISSION_DENIED", json!([])), Outcome::Held(..)));
    }

    /// The client's own exceptions for the same answers.
    #[test]
    fn answers_mean_what_they_mean_to_the_official_client() {
        let recorded: Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
        for case in recorded["errors"].as_array().expect("errors") {
            let status = case["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status");
            let name = case["name"].as_str().expect("text");
            let outcome =
                case["code"].as_str().map_or_else(|| error(status, name, json!([])), |own| fcm(status, name, own));
            let is_expected = match case["error"].as_str().expect("text") {
                "UnregisteredError" | "SenderIdMismatchError" => matches!(outcome, Outcome::Dropped(_)),
                "ThirdPartyAuthError" | "PermissionDeniedError" | "NotFoundError" => {
                    matches!(outcome, Outcome::Held(..))
                }
                "InvalidArgumentError" => matches!(outcome, Outcome::Failed(_)),
                "QuotaExceededError" => matches!(outcome, Outcome::Later(..)),
                other => panic!("an exception without an outcome: {other}"),
            };
            assert!(is_expected, "{case}: {outcome:?}");
        }
    }

    #[test]
    fn busy_servers_are_asked_again_when_they_say() {
        let at = |status, headers: &[(&str, &str)], body: &str| match outcome(status, headers, body) {
            Outcome::Later(_, at) => at,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(503, &[("Retry-After", "7")], ""), NOW + 7_000);
        assert_eq!(at(503, &[], ""), NOW + 10_000);
        assert_eq!(at(502, &[], "<html>Bad gateway</html>"), NOW + 10_000);
        assert_eq!(at(429, &[], "{}"), NOW + 60_000);
        assert!(
            matches!(fcm(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), Outcome::Later(_, at) if at == NOW + 60_000)
        );
    }
}
