//! The answers of plugins that read feedback, in the form of a case.

use serde_json::{Value, json};

use super::moment;
use crate::feedback::{Event, FeedbackError, Received};
use crate::testing::case::written;

pub(super) fn received(answer: Result<Received, FeedbackError>, _: Option<u32>) -> Result<Value, String> {
    let received = match answer {
        Ok(received) => received,
        Err(FeedbackError::Refused(why)) => return Ok(json!({"request_refused": why})),
        Err(FeedbackError::Malformed(why)) => return Ok(json!({"malformed": why})),
        Err(FeedbackError::Unavailable(why)) => return Ok(json!({"unavailable": why})),
    };
    let events = received.events.into_iter().map(event).collect::<Result<Vec<_>, String>>()?;
    let mut fields = json!({"events": events});
    if let Some(answer) = received.answer {
        fields["answer"] = json!({"status": answer.status, "headers": answer.headers, "body": written(&answer.body)});
    }
    Ok(json!({"received": fields}))
}

fn event(event: Event) -> Result<Value, String> {
    let mut fields = json!({
        "id": event.id,
        "kind": event.kind,
        "permanent": event.is_permanent,
        "vouched": event.is_vouched,
    });
    if let Some(at) = event.at {
        fields["at"] = moment(at)?.into();
    }
    if let Some((kind, address)) = event.address {
        fields["address"] = json!({"kind": kind, "address": address});
    }
    if let Some(detail) = event.detail {
        let read = serde_json::from_str(&detail);
        fields["detail"] = read.map_err(|e| format!("the event's detail is not JSON: {e}"))?;
    }
    let bare = |id: String| id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
    let name = |text: &String| if text.contains('@') { "return_path" } else { "message_uuid" };
    let texts = [
        (event.message_uuid.as_ref().map_or("", name), event.message_uuid),
        ("provider_id", event.provider_id),
        ("message_id", event.message_id.map(bare)),
        ("reason", event.reason),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            fields[key] = text.into();
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::feedback::{self, Feedback, Request};
    use crate::testing::Table;

    /// Shows in its event what it was handed.
    struct Reader;

    impl Feedback for Reader {
        fn enabled() -> Result<(), String> {
            feedback::public_url().map(|_| ()).ok_or_else(|| "there is no public URL".to_owned())
        }

        fn receive(request: &Request) -> Result<Received, FeedbackError> {
            if request.header("X-Token") != Settings.text("token") {
                return Err(FeedbackError::Refused(format!("{} has the wrong token", request.method())));
            }
            let detail: Value = request.json()?;
            let event = Event::new(request.url().unwrap_or_default(), "opened").at(request.received_at());
            let event = event.about("email", request.query().unwrap_or_default()).of_mail("<7@b.example>").vouched();
            Ok(Received::of([event.detail(&detail)]).answer(202, "text/plain", request.path()))
        }
    }

    #[test]
    fn feedback_is_read_from_the_request_of_a_case() {
        let url = "https://a.example";
        let headers = json!({"x-token": "test-token"});
        let cases = json!([
            {"public_url": url, "request": {"path": "/t", "query": "z@b.example", "headers": headers, "body": {"n": 7}},
             "expect": {"received": {
                "events": [{
                    "id": "https://a.example/v1/feedback/probe/t", "kind": "opened", "at": "2026-01-01T12:00:00Z",
                    "address": {"kind": "email", "address": "z@b.example"}, "message_id": "7@b.example",
                    "permanent": false, "vouched": true, "detail": {"n": 7}
                }],
                "answer": {"status": 202, "headers": [["content-type", "text/plain"]], "body": "/t"}
             }}},
            {"public_url": url, "request": {"method": "GET"}, "expect": {"request_refused": "GET has the wrong token"}},
            {"public_url": url, "request": {"headers": headers, "body": "no JSON"},
             "expect": {"malformed": "the body: expected ident at line 1 column 2"}},
            {"request": {}, "expect": {"refused": "it says it cannot work: there is no public URL"}},
            {"ask": "policy", "message": {"app_label": "app", "name": "note"}, "expect": "pass"}
        ]);
        let manifest = "[requests]\nsecrets = ['token']\n";
        let table = Table::of_cases("probe", manifest, cases.as_array().expect("a list").clone());
        table.feedback::<Reader>(concat!(module_path!(), "::feedback_is_read_from_the_request_of_a_case"));
    }
}
