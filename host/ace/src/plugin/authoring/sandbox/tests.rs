use serde_json::{Value, json};

use super::exchange::HttpAnswer;
use super::*;
use crate::plugin::http::Outgoing;

fn object(value: Value) -> Object {
    value.as_object().expect("an object").clone()
}

fn post(url: &str, body: &str) -> Outgoing {
    let url = url.parse().expect("a URL");
    Outgoing {
        method: reqwest::Method::POST,
        url,
        headers: Default::default(),
        body: Some(body.to_owned().into()),
        credential: None,
        is_named_host: true,
        span: tracing::Span::none(),
    }
}

/// One exchange of a sandbox, with this world behind it.
async fn http(
    sandbox: &Sandbox,
    outgoing: &Outgoing,
    world: impl Future<Output = Result<Response, Failure>>,
) -> Result<Response, Failure> {
    match sandbox.http(outgoing) {
        Interception::PassThrough => panic!("a sandbox watches"),
        Interception::Answered(answer) => answer,
        Interception::Recorded(request) => {
            let answer = world.await;
            sandbox.http_answered(request, &answer);
            answer
        }
    }
}

#[test]
fn what_is_left_out_is_not_compared_and_the_rest_is() {
    let actual = object(json!({"method": "GET", "headers": {"a": "1", "b": "2"}, "list": [{"x": 1, "y": 2}]}));
    for (wanted, fits) in [
        (json!({}), true),
        (json!({"method": "GET"}), true),
        (json!({"headers": {"a": "1"}, "list": [{"y": 2}]}), true),
        (json!({"headers": {"a": "2"}}), false),
        (json!({"list": []}), false),
        (json!({"url": "x"}), false),
    ] {
        assert_eq!(matches(&object(wanted.clone()), &actual), fits, "{wanted}");
    }
}

#[tokio::test]
async fn what_the_world_answered_is_answered_again_and_without_secrets() {
    let world = async {
        let headers = [(reqwest::header::DATE, "today".parse().expect("a header"))].into_iter().collect();
        Ok(Response {
            status: reqwest::StatusCode::CREATED,
            headers,
            body: b"{\"id\":\"k3y-17\"}".into(),
            rejected_credential: None,
        })
    };
    let observing = Sandbox::observing(vec!["k3y".to_owned()]);
    let outgoing = post("https://a.example/v1/k3y", "{\"a\":1}");
    assert!(http(&observing, &outgoing, world).await.is_ok());
    let recorded = observing.recording().exchanges;
    assert_eq!(
        serde_json::to_value(&recorded).expect("JSON"),
        json!([{"http": {
            "request": {"method": "POST", "url": "https://a.example/v1/[secret]", "body": {"a": 1}},
            "answer": {"status": 201, "body": {"id": "[secret]-17"}},
        }}])
    );

    let replaying = Sandbox::replaying(recorded, vec!["other".to_owned()]);
    let outgoing = post("https://a.example/v1/other", "{\"a\":1}");
    let answer = http(&replaying, &outgoing, async { panic!("nothing leaves") }).await.expect("it is written down");
    assert_eq!((answer.status.as_u16(), answer.body), (201, b"{\"id\":\"[secret]-17\"}".to_vec()));
    assert!(replaying.unused().is_empty());

    let again = http(&replaying, &outgoing, async { panic!("nothing leaves") }).await;
    assert!(again.is_err());
    assert!(
        replaying.recording().unexpected[0].contains("the case has no answer to"),
        "{:?}",
        replaying.recording().unexpected
    );
}

#[tokio::test]
async fn a_failure_is_written_down_and_answered_again() {
    let observing = Sandbox::observing(Vec::new());
    let timed_out = || async { Err(Failure { status: None, kind: FailureKind::TimedOut }) };
    let _ = http(&observing, &post("https://a.example/", ""), timed_out()).await;
    let recorded = observing.recording().exchanges;
    let Exchange::Http { answer: HttpAnswer { error, .. }, .. } = &recorded[0] else { panic!("{recorded:?}") };
    assert_eq!(*error, Some(exchange::HttpFailure::TimedOut));
    let replaying = Sandbox::replaying(recorded, Vec::new());
    let outgoing = post("https://a.example/", "");
    let answer = http(&replaying, &outgoing, async { panic!("nothing leaves") }).await;
    assert_eq!(answer.expect_err("it timed out").kind, FailureKind::TimedOut);
}

#[test]
fn a_seed_makes_the_same_numbers() {
    assert_eq!(random_bytes(7), random_bytes(7));
    assert_ne!(random_bytes(7), random_bytes(8));
}
