//! Batches whose recipients a plugin names.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::batches::until;
use super::{Server, home};
use crate::support::{Home, assert_text};

fn with_audience() -> Home {
    let home =
        home("[plugins.audience]\ngrants = { keyvalue = ['audience:read'] }\n[delivery]\nretry-delay = '100ms'\n");
    home.guest("audience", "audience");
    home
}

fn batch(uuid: u128, arguments: Value) -> Value {
    let kind = json!({"app_label": "app", "name": "note", "uuid": Uuid::from_u128(9)});
    let resolver = json!({"plugin": "audience", "arguments": arguments});
    json!({"uuid": Uuid::from_u128(uuid), "message_type": kind, "resolver": resolver})
}

/// Sets how a page of the resolver fails; with "", it does not.
async fn set_failure(server: &Server, page: u32, how: &str) {
    let method = if how.is_empty() { Method::DELETE } else { Method::PUT };
    let request = server.request(method, &format!("/v1/keyvalue/audience/{page}")).body(how.to_owned());
    let (status, told) = server.ask(request).await;
    assert!(status.is_success(), "{told}");
}

#[tokio::test]
async fn a_plugin_names_the_recipients_page_by_page() {
    let server = Server::start(&with_audience());
    let asked = batch(1, json!({"count": 1_234, "page": 100}));
    let (status, started) = server.post("/v1/batches", &asked).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{started}");
    assert_eq!(started["resolver"], json!({"plugin": "audience"}));
    let done = until(&server, 1, "done").await;
    assert_eq!((&done["by_state"], done.get("resolver")), (&json!({"sent": 1_234}), None));
    let (_, sent) = server.get("/v1/messages?email=u1233@example.com").await;
    assert_eq!(sent["messages"][0]["batch"], started["uuid"], "{sent}");
    // The same request is the same batch; with other arguments it is a conflict.
    assert_eq!(server.post("/v1/batches", &asked).await.1["state"], "done");
    let other = batch(1, json!({"count": 1_235, "page": 100}));
    assert_eq!(server.post("/v1/batches", &other).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_page_that_fails_is_fetched_again() {
    let server = Server::start(&with_audience());
    for (page, how) in [(0, "recoverable"), (1, "trap")] {
        set_failure(&server, page, how).await;
    }
    server.post("/v1/batches", &batch(1, json!({"count": 30, "page": 10}))).await;
    let waiting = until_error(&server, 1, "the register is away").await;
    assert_eq!((&waiting["state"], &waiting["messages"]), (&json!("receiving"), &json!(0)));
    set_failure(&server, 0, "").await;
    let waiting = until_error(&server, 1, "trap").await;
    assert_eq!((&waiting["state"], &waiting["messages"]), (&json!("receiving"), &json!(10)));
    set_failure(&server, 1, "").await;
    assert_eq!(until(&server, 1, "done").await["by_state"], json!({"sent": 30}));
}

#[tokio::test]
async fn a_permanent_failure_of_a_resolver_fails_the_batch_until_it_is_resumed() {
    let server = Server::start(&with_audience());
    for (uuid, how, why) in
        [(1, "fatal", "there is no such register"), (2, "same", "returned the cursor of this page again")]
    {
        set_failure(&server, 2, how).await;
        server.post("/v1/batches", &batch(uuid, json!({"count": 25, "page": 10}))).await;
        let failed = until(&server, uuid, "failed").await;
        assert_text(&failed["resolver"]["error"], why);
        assert_eq!(failed["messages"], 20, "{failed}");
        set_failure(&server, 2, "").await;
        let path = format!("/v1/batches/{}/resume", Uuid::from_u128(uuid));
        assert_eq!(server.post(&path, "").await.1["state"], "receiving");
        assert_eq!(until(&server, uuid, "done").await["by_state"], json!({"sent": 25}));
    }
    // A cancelled batch fetches no more pages.
    set_failure(&server, 1, "recoverable").await;
    server.post("/v1/batches", &batch(3, json!({"count": 25, "page": 10}))).await;
    until_error(&server, 3, "the register is away").await;
    let path = format!("/v1/batches/{}/cancel", Uuid::from_u128(3));
    let (_, cancelled) = server.post(&path, "").await;
    assert_eq!((&cancelled["state"], cancelled.get("resolver")), (&json!("cancelled"), None), "{cancelled}");
}

#[tokio::test]
async fn resolving_a_batch_continues_after_a_kill() {
    let home = with_audience();
    let server = Server::start(&home);
    set_failure(&server, 3, "recoverable").await;
    server.post("/v1/batches", &batch(1, json!({"count": 100, "page": 10}))).await;
    until_error(&server, 1, "the register is away").await;
    server.kill();
    let server = Server::start(&home);
    set_failure(&server, 3, "").await;
    let done = until(&server, 1, "done").await;
    let settled = ["sent", "maybe_sent"].map(|state| done["by_state"][state].as_u64().unwrap_or_default());
    assert_eq!((settled.iter().sum::<u64>(), &done["messages"]), (100, &json!(100)), "{done}");
}

#[tokio::test]
async fn invalid_requests_are_reported() {
    let server = Server::start(&with_audience());
    let mut wrong = batch(1, json!({}));
    wrong["resolver"]["plugin"] = json!("audiense");
    let (status, problem) = server.post("/v1/batches", &wrong).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_text(
        &problem["detail"],
        "line 1: resolver.plugin: there is no resolver \"audiense\"; did you mean \"audience\"?",
    );
    wrong["resolver"]["plugin"] = json!("django_email");
    let (_, problem) = server.post("/v1/batches", &wrong).await;
    assert_text(&problem["detail"], "there is no resolver \"django_email\"");
    let lines = format!("{}\n{{\"recipient\": {{\"lms_user_id\": 1}}}}\n", batch(1, json!({})));
    let (_, problem) = server.post("/v1/batches", lines).await;
    assert_text(&problem["detail"], "line 2: a resolver names the recipients, so no line may follow");
    server.post("/v1/batches", &batch(1, json!({"count": "many"}))).await;
    assert_text(&until(&server, 1, "failed").await["resolver"]["error"], "arguments: ");
}

#[tokio::test]
async fn the_command_line_names_a_resolver() {
    let home = with_audience();
    let server = Server::start(&home);
    let kind = json!({"app_label": "app", "name": "note"});
    home.file("kind.json", kind.to_string());
    let send = |arguments: &str| {
        let words = [
            "batch",
            "--type",
            "kind.json",
            "--resolver",
            "audience",
            "--wait",
            "--server",
            &server.url,
            "--arguments",
        ];
        home.ace(&[&words[..], &[arguments]].concat()).run()
    };
    let done = send("{\"count\": 12, \"page\": 5}").ok();
    assert!(done.stdout.contains(" is done, 12 messages: 12 sent\n"), "{done:?}");
    let failed = send("{}");
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains(" is failed, "), "{failed:?}");
}

async fn until_error(server: &Server, uuid: u128, why: &str) -> Value {
    let path = format!("/v1/batches/{}", Uuid::from_u128(uuid));
    for _ in 0..600 {
        let (_, batch) = server.get(&path).await;
        if batch["resolver"]["error"].as_str().is_some_and(|error| error.contains(why)) {
            return batch;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never {why:?}: {}", server.get(&path).await.1);
}
