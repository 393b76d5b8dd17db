//! `ses_email` against SES on loopback.

use serde_json::{Value, json};

use super::provider::{Answer, Provider};
use super::{API_SECRET, End, check_answers, home, send_once};
use crate::support::{email, message};

const CONFIG: &str = "default-from-email = 'Campus <no-reply@campus.example>', timeout-seconds = 1";

/// The plugin's credential for this URL. (Its secret is one of those that no output may show.)
pub(super) fn credential(url: &str) -> String {
    format!(
        "credentials = {{ ses = 'aws' }}\n\n[credentials.aws]\nkind = 'aws-sigv4'\nurls = ['{url}/v2/email/']\n\
         access-key-id = 'AKIDEXAMPLE'\nsecret-access-key = {{ file = 'sailthru-secret' }}\nregion = 'eu-central-1'\nservice = 'ses'"
    )
}

fn accepted(id: &str) -> Answer {
    Answer::new(200, json!({ "MessageId": id }).to_string())
}

fn refused(status: u16, name: &str) -> Answer {
    Answer::new(status, json!({"message": "no"}).to_string()).with("x-amzn-ErrorType", name)
}

#[test]
fn every_response_of_ses_has_the_right_outcome() {
    let named = |status, name: &'static str, end| (refused(status, name), end, name);
    let busy = || refused(429, "TooManyRequestsException");
    let daily = || Answer::new(400, json!({"message": "Daily message quota exceeded"}).to_string());
    // The host tries a held channel again after 120 s at most.
    let limit = || refused(400, "LimitExceededException");
    check_answers(
        "ses_email",
        CONFIG,
        vec![
            (accepted("0107-a"), End::Sent(Some("0107-a")), ""),
            (Answer::new(200, "<html>ok</html>"), End::Sent(None), ""),
            named(400, "MessageRejected", End::Failed),
            named(400, "BadRequestException", End::Failed),
            (Answer::new(400, "no JSON"), End::Failed, "SES answered 400: no JSON"),
            (busy(), End::Held(Some((2, 2))), "SES answered 429 TooManyRequestsException: no"),
            (busy().with("Retry-After", "70"), End::Held(Some((70, 70))), "429"),
            (limit(), End::Held(Some((120, 120))), "SES answered 400 LimitExceededException: no"),
            (
                daily().with("x-amzn-ErrorType", "ThrottlingException"),
                End::Held(Some((120, 120))),
                "Daily message quota",
            ),
            named(400, "AccountSuspendedException", End::Held(None)),
            named(400, "SendingPausedException", End::Held(None)),
            named(400, "MailFromDomainNotVerifiedException", End::Held(None)),
            named(404, "NotFoundException", End::Held(None)),
            named(403, "AccessDeniedException", End::Held(None)),
            named(403, "InvalidClientTokenId", End::Held(None)),
            (Answer::new(500, "{}"), End::Down, "SES answered 500"),
            (Answer::new(502, "<html>Bad Gateway</html>"), End::Down, "502: <html>Bad Gateway</html>"),
            (Answer::new(503, "").with("Retry-After", "70"), End::Retry(70, 70), "SES answered 503"),
            (Answer::Silence, End::RetryByTheHost, "http: "),
            (Answer::Cut, End::RetryByTheHost, "http: "),
            (Answer::CutMidway, End::RetryByTheHost, "http: "),
            (
                Answer::new(307, "").with("Location", "https://example.com/"),
                End::Held(None),
                "redirects are not followed",
            ),
        ],
    );
}

#[test]
fn a_mail_is_signed_and_tagged() {
    let provider = Provider::start([accepted("0107-a")]);
    let home = home(&provider, "ses_email", CONFIG, "");
    let uuid = "00000000-0000-4000-8000-000000000007";
    let options = json!({"cc": ["c@campus.example"], "tags": {"course": "a-1"}});
    let context = json!({"unsubscribe_url": "https://campus.example/u?id=7"});
    let done = send_once(&home, &[message("note", json!({"uuid": uuid, "options": options, "context": context}))]).ok();
    assert_eq!(email(&done.lines()[0])["provider_id"], "0107-a");
    let seen = provider.seen();
    assert_eq!((seen.len(), seen[0].line.as_str()), (1, "POST /v2/email/outbound-emails HTTP/1.1"));
    let authorization = seen[0].header("authorization").expect("a signature");
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(authorization.contains("/eu-central-1/ses/aws4_request, SignedHeaders=content-type;host;x-amz-date, "));
    let body = seen[0].json();
    assert_eq!(body["Destination"]["CcAddresses"], json!(["c@campus.example"]));
    assert_eq!(body["Content"]["Simple"]["Subject"]["Data"], "A note");
    assert_eq!(body["EmailTags"][0], json!({"Name": "message-uuid", "Value": uuid}));
    let headers = body["Content"]["Simple"]["Headers"].as_array().expect("headers");
    let names: Vec<&Value> = headers.iter().map(|header| &header["Name"]).collect();
    assert_eq!(names, ["List-Unsubscribe", "List-Unsubscribe-Post"]);
    assert!(!seen[0].body.contains(API_SECRET) && !authorization.contains(API_SECRET));
}

#[test]
fn a_mail_that_may_have_arrived_is_not_repeated_at_most_once() {
    let provider = Provider::start([Answer::Cut, accepted("0107-a")]);
    let home = home(&provider, "ses_email", CONFIG, "[channels.ses_email]\ndelivery = 'at-most-once'\n");
    let done = home.send(&[message("note", json!({}))]);
    assert_eq!(done.email()["state"], "maybe_sent", "{:#}", done.email());
    assert_eq!(provider.seen().len(), 1);
}
