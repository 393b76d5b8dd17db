use serde_json::{Value, json};

use super::*;
use crate::channel::ChannelInfo;
use crate::delivery::{self, Note};
use crate::http::{self, Request};
use crate::recipient_resolver::Resolved;
use crate::{Message, Recipient, Settings, authorized_http, email, keyvalue, random, signatures, time};

const MANIFEST: &str = "
[requests]
keyvalue = ['facts:read-write']
http = ['https://api.example/v1/']
mailer = true
secrets = ['token']
credentials = ['api']
[defaults]
types = ['push']
";

/// Does what its message requests.
struct Probe;

impl Policy for Probe {
    fn enabled() -> Result<(), String> {
        types().map(|_| ())
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        let user = message.recipient().and_then(|r| r.user_id).unwrap_or_default();
        let result = match message.context::<String>("/do")?.as_deref() {
            Some("count") => PolicyResult::pass()
                .deny("push", keyvalue::increment("facts", &user, 1, None, Some(&message.uuid()))?.to_string()),
            Some("stray") => keyvalue::contains("others", &user).map(|_| PolicyResult::pass())?,
            Some("panic") => panic!("as the message asks"),
            Some("delay") => PolicyResult::pass().delay("push", time::now() + 60_000, "a minute"),
            Some("zone") => {
                PolicyResult::pass().deny("push", time::offset_ms("Europe/Paris", time::now())?.to_string())
            }
            Some("sign") => {
                let fetched = authorized_http::fetch(&Request::get("https://api.example/v1/x"), "api");
                let denied = authorized_http::fetch(&Request::get("https://api.example/v1/x"), "other");
                let verified = signatures::verify("api", "hmac-sha256", b"data", b"forged")?;
                let fetched = fetched.map_or_else(String::from, |response| response.status.to_string());
                PolicyResult::pass()
                    .deny(fetched, denied.map_or_else(String::from, |_| String::new()))
                    .deny("push", verified.to_string())
            }
            Some("random") => PolicyResult::pass().deny("push", random::u64().to_string()),
            _ => types()?
                .iter()
                .fold(PolicyResult::pass(), |all, of| all.deny(of, Settings.text("token").unwrap_or_default())),
        };
        Ok(result)
    }
}

fn types() -> Result<Vec<String>, String> {
    // Cached, as in a plugin: each case runs in a separate process.
    static TYPES: std::sync::LazyLock<Result<Vec<String>, String>> =
        std::sync::LazyLock::new(|| Ok(Settings.require("types")?));
    TYPES.clone()
}

fn asking(what: &str) -> Value {
    json!({"app_label": "app", "name": "note", "recipient": {"lms_user_id": 7, "email_address": "a@b.example"}, "context": {"do": what}})
}

fn table(cases: &Value) -> Table {
    Table::of_cases("probe", MANIFEST, cases.as_array().expect("a list").clone())
}

#[test]
fn a_policy_asks_the_world_of_its_case() {
    let cases = json!([
        {"message": asking(""), "expect": {"deny": [{"channel_type": "push", "reason": "[secret]"}]}},
        {"message": asking(""), "config": {"types": ["a", "b"]}, "expect": {"deny": [{"channel_type": "a"}, {"channel_type": "b"}]}},
        {"message": asking(""), "config": {"types": 1},
         "expect": {"refused": "it says it cannot work: config key \"types\": invalid type: integer `1`, expected a sequence at line 1 column 1"}},
        {"message": asking("count"), "facts": {"facts": {"7": 41}}, "expect": {"deny": [{"channel_type": "push", "reason": "42"}]},
         "facts_after": {"facts": {"7": 42, "8": null}}},
        {"message": asking("stray"), "expect": {"fault": {"kind": "error",
         "message": "keyvalue: not granted: the manifest does not say `keyvalue = [\"others:read\"]` under [requests]"}}},
        {"message": asking("panic"), "expect": {"fault": {"kind": "trap", "message": "the runtime's own words"}}},
        {"message": asking("panic"), "expect": {"fault": {"kind": "time"}}},
        {"message": asking("delay"), "now": "2026-01-01T00:00:00Z",
         "expect": {"delay": [{"channel_type": "push", "not_before": "2026-01-01T00:01:00Z"}]}},
        {"message": asking("zone"), "now": "2026-07-01T00:00:00Z", "expect": {"deny": [{"channel_type": "push", "reason": "7200000"}]}},
        {"message": asking("sign"), "host": [{"http": {"request": {"credential": "api"}, "answer": {"error": "rejected"}}}],
         "expect": {"deny": [
            {"channel_type": "the credential is rejected: the case says so",
             "reason": "http: not granted: the manifest does not say `credentials = [\"other\"]` under [requests]"},
            {"channel_type": "push", "reason": "false"}
         ]}},
        {"message": asking("random"), "seed": 7, "expect": {"deny": [{"channel_type": "push", "reason": "8507457494164816599"}]}}
    ]);
    table(&cases).policy::<Probe>(concat!(module_path!(), "::a_policy_asks_the_world_of_its_case"));
}

#[test]
#[should_panic(
    expected = "1 of 2 cases of probe failed\nFAILED  the second (case 1)\n    expected \"pass\"\n    answered {\"deny\":"
)]
fn a_case_that_answers_otherwise_fails_with_both_answers() {
    let cases = json!([
        {"message": asking(""), "expect": {"deny": [{"channel_type": "push"}]}},
        {"name": "the second", "message": asking(""), "expect": "pass"}
    ]);
    let test = concat!(module_path!(), "::a_case_that_answers_otherwise_fails_with_both_answers");
    table(&cases).policy::<Probe>(test);
}

/// Sends a mail and notifies a service.
struct Courier;

impl Channel for Courier {
    fn describe() -> ChannelInfo {
        email::channel_info()
    }

    fn deliver(message: &Message, rendered: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        let accepted = email::send(message, &rendered, attempt, &email::Defaults::default())?;
        let request = Request::post("https://api.example/v1/told").bearer(&Settings.require::<String>("token")?);
        http::fetch_ok(&request.json(&json!({"subject": rendered.text("subject.txt")?}))?)?;
        Ok(email::receipt(accepted, None))
    }
}

#[test]
fn a_channel_is_answered_by_its_case() {
    let mail = json!({"mail": {
        "request": {"recipients": ["a@b.example"], "subject": "Hello", "sender": "Zoe <>"},
        "answer": {"accepted": "250 Ok"}}});
    let told = |answer: Value| {
        json!({"http": {
        "request": {"method": "POST", "url": "https://api.example/v1/told",
            "headers": {"authorization": "Bearer [secret]", "content-type": "application/json"},
            "body": {"subject": "Hello"}},
        "answer": answer}})
    };
    let case = |host: Value, expect: Value| json!({"message": asking(""), "rendered": {"subject.txt": "Hello", "from_name.txt": "Zoe"}, "host": host, "expect": expect});
    let id = "<00000000-0000-4000-8000-000000000001.probe@test.invalid>";
    let cases = json!([
        case(json!([mail, told(json!({"status": 204}))]), json!({"sent": {"provider_id": id, "detail": {"answer": "250 Ok"}}})),
        case(json!([mail, told(json!({"error": "timed-out"}))]), json!({"recoverable": {"message": "http: no answer in time"}})),
        case(json!([mail, told(json!({"status": 404}))]), json!({"fatal": "https://api.example/v1/told answered 404"})),
        case(json!([{"mail": {"request": {}, "answer": {"temporary": "451 later"}}}]), json!({"recoverable": {"message": "451 later"}})),
        {"message": {"app_label": "app", "name": "note"}, "expect": {"skipped": "the recipient has no e-mail address"}}
    ]);
    table(&cases).channel::<Courier>(concat!(module_path!(), "::a_channel_is_answered_by_its_case"));
}

#[test]
#[should_panic(expected = "the last 1 requests of")]
fn an_exchange_that_nobody_asks_for_fails_the_case() {
    let cases = json!([{"message": {"app_label": "app", "name": "note"}, "expect": {"skipped": "the recipient has no e-mail address"},
        "host": [{"mail": {"request": {}, "answer": {"accepted": "250 Ok"}}}]}]);
    table(&cases).channel::<Courier>(concat!(module_path!(), "::an_exchange_that_nobody_asks_for_fails_the_case"));
}

#[test]
#[should_panic(expected = "1 of 3 cases of probe failed")]
fn headers_that_the_case_does_not_list_are_compared_on_demand() {
    let mail = json!({"mail": {"request": {}, "answer": {"accepted": "250 Ok"}}});
    let case = |request: Value| {
        let told = json!({"http": {"request": request, "answer": {"status": 204}}});
        json!({"message": asking(""), "host": [mail, told], "expect": {"sent": {}}})
    };
    let cases = json!([
        case(json!({})),
        case(json!({"headers": {"authorization": "Bearer [secret]", "content-type": "application/json"}})),
        case(json!({"headers": {"authorization": "Bearer [secret]"}})),
    ]);
    let test = concat!(module_path!(), "::headers_that_the_case_does_not_list_are_compared_on_demand");
    table(&cases).exact_headers().channel::<Courier>(test);
}

/// Notes an outcome for each token, and holds itself before the second attempt.
struct Pusher;

impl Channel for Pusher {
    fn describe() -> ChannelInfo {
        delivery::hold(None, "not within a delivery");
        ChannelInfo::new("push")
    }

    fn deliver(message: &Message, _: Rendered, attempt: &Attempt) -> Result<Receipt, DeliveryError> {
        if attempt.number == 2 {
            delivery::hold(Some(time::now() + 60_000), "too many");
            return Err(DeliveryError::recoverable("later"));
        }
        let recipient = message.recipient();
        for token in recipient.iter().flat_map(|recipient| recipient.contacts_of("push-token")) {
            delivery::note(&Note::retry("push-token", token));
            delivery::note(&Note::dropped("push-token", token).code("gone"));
        }
        Ok(Receipt::default().provider_id(delivery::noted()?.len().to_string()))
    }
}

#[test]
fn a_channel_notes_outcomes_and_holds_itself() {
    let mut message = asking("");
    message["recipient"]["contacts"] = json!({"push-token": ["a", "b"]});
    let noted = |outcome: &str| json!([{"kind": "push-token", "address": "a", "outcome": outcome}]);
    let dropped = |token: &str| json!({"kind": "push-token", "address": token, "outcome": "dropped", "code": "gone"});
    let cases = json!([
        {"message": message, "expect": {"sent": {"provider_id": "0"}, "outcomes": [dropped("a"), dropped("b")]}},
        {"message": message, "noted": noted("sent"), "expect": {"sent": {"provider_id": "1"}, "outcomes": [dropped("b")]}},
        {"message": message, "noted": noted("retry"), "expect": {"sent": {"provider_id": "1"}, "outcomes": [dropped("a"), dropped("b")]}},
        {"message": message, "attempt": 2, "now": "2026-01-01T00:00:00Z",
         "expect": {"recoverable": {"message": "later"}, "hold": {"until": "2026-01-01T00:01:00Z", "reason": "too many"}}}
    ]);
    table(&cases).channel::<Pusher>(concat!(module_path!(), "::a_channel_notes_outcomes_and_holds_itself"));
}

struct Everyone;

impl RecipientResolver for Everyone {
    fn resolve(_: &str, arguments: &str, cursor: Option<&str>, limit: u32) -> Result<Page, ResolveError> {
        let ids: Vec<i64> = serde_json::from_str(arguments)
            .map(|a: Value| serde_json::from_value(a["ids"].clone()).unwrap_or_default())
            .unwrap_or_default();
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().expect("its own cursor"));
        let to = ids.len().min(from + limit as usize);
        let one = |id: &i64| Resolved {
            key: Some(id.to_string()),
            recipient: Recipient { user_id: None, lms_user_id: Some(*id), email_address: None, contacts: Vec::new() },
            language: None,
            user_context: Some("{\"a\":1}".to_owned()),
        };
        Ok(Page { items: ids[from..to].iter().map(one).collect(), next: (to < ids.len()).then(|| to.to_string()) })
    }
}

#[test]
fn a_resolver_turns_pages() {
    let page = |ids: &[i64], next: Option<&str>| {
        let items = ids.iter().map(|id| json!({"key": id.to_string(), "recipient": {"lms_user_id": id, "email_address": null}, "user_context": {"a": 1}}));
        let mut page = json!({"items": items.collect::<Vec<_>>()});
        if let Some(next) = next {
            page["next"] = next.into();
        }
        json!({"page": page})
    };
    let cases = json!([
        {"resolve": {"arguments": {"ids": [1, 2, 3]}, "limit": 2}, "expect": page(&[1, 2], Some("2"))},
        {"resolve": {"arguments": {"ids": [1, 2, 3]}, "limit": 2, "cursor": "2"}, "expect": page(&[3], None)},
        {"resolve": {"arguments": {"ids": [1]}, "cursor": "x"}, "expect": {"fault": {"kind": "trap"}}}
    ]);
    table(&cases).resolver::<Everyone>(concat!(module_path!(), "::a_resolver_turns_pages"));
}

#[test]
#[should_panic(expected = "it ended without an answer")]
fn a_case_that_ends_its_process_fails() {
    struct Exit;
    impl Policy for Exit {
        fn check(_: &Message) -> Result<PolicyResult, String> {
            std::process::exit(0)
        }
    }
    let cases = json!([{"message": asking(""), "expect": "pass"}]);
    table(&cases).policy::<Exit>(concat!(module_path!(), "::a_case_that_ends_its_process_fails"));
}
