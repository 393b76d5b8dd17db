//! Messages over HTTP: submission, queries, cancellation, retries.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, configure, home, note, settled};
use crate::servers::Smtpd;
use crate::support::{assert_text, channel, message};

#[tokio::test]
async fn a_message_is_accepted_and_sent_and_has_a_timeline() {
    let smtp = Smtpd::start(&[]);
    let home = home(&smtp.relay());
    let server = Server::start(&home);
    let (status, taken) =
        server.post("/v1/messages", message("note", json!({"context": {"text": "secret-link"}}))).await;
    assert_eq!((status, &taken["state"], &taken["repeated"]), (StatusCode::ACCEPTED, &json!("queued"), &json!(false)));
    let told = settled(&server, &taken["uuid"], "sent").await;
    let email = channel(&json!({"report": told["report"]}), "email").clone();
    assert_eq!(
        (&email["state"], &email["channel"], &email["rule"]),
        (&json!("sent"), &json!("django_email"), &json!("first_of_type"))
    );
    assert_eq!(email["templates"].as_array().map(Vec::len), Some(5));
    let attempt = &email["history"][0];
    assert_eq!((&attempt["number"], &attempt["result"]), (&json!(1), &json!("sent")));
    assert_text(&attempt["answer"], &format!("{}.django_email", taken["uuid"].as_str().expect("text")));
    assert_eq!(attempt["revision"].as_str().map(str::len), Some(12));
    assert!(told["accepted"].is_string() && told["settled"].is_string());
    assert_eq!(told["recipient"]["lms_user_id"], 7);
    assert!(!told.to_string().contains("secret-link"), "the context is not kept: {told}");
    smtp.mail();
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(taken["uuid"].as_str().expect("text")), "settled messages are logged at debug: {log}");
}

/// edx-ace's `lms_user_id` has no fixed type: a number is returned as a number, a string as a string.
#[tokio::test]
async fn a_user_id_keeps_its_type() {
    let home = home("");
    let server = Server::start(&home);
    let ids = [json!(7), json!("7"), json!("usr-7"), json!("007"), json!(0), Value::Null];
    for (number, id) in (1..).zip(&ids) {
        let recipient = json!({"lms_user_id": id, "email_address": "a@b.example"});
        let sent = server.send(&note(number, json!({"recipient": recipient}))).await;
        let (_, told) = server.get(&format!("/v1/messages/{}", sent["uuid"].as_str().expect("text"))).await;
        assert_eq!(&told["recipient"]["lms_user_id"], id);
    }
    let (_, listed) = server.get("/v1/messages?email=a@b.example").await;
    let listed = listed["messages"].as_array().expect("messages");
    let found: Vec<&Value> = listed.iter().map(|one| &one["recipient"]["lms_user_id"]).collect();
    assert_eq!(found, ids.iter().rev().collect::<Vec<_>>(), "the latest first");
    let (_, seven) = server.get("/v1/messages?user=7").await;
    assert_eq!(seven["messages"].as_array().map(Vec::len), Some(2), "{seven}");
}

#[tokio::test]
async fn the_same_message_again_is_the_same_and_other_content_is_a_conflict() {
    let home = home("");
    let server = Server::start(&home);
    let first = server.send(&note(1, json!({}))).await;
    assert_eq!((&first["state"], &first["repeated"]), (&json!("sent"), &json!(false)));
    let (status, again) = server.post("/v1/messages?wait=5", note(1, json!({}))).await;
    assert_eq!((status, &again["repeated"], &again["state"]), (StatusCode::OK, &json!(true), &json!("sent")));
    let (status, problem) = server.post("/v1/messages", note(1, json!({"language": "fr"}))).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("conflict")));

    let keyed = |fields| {
        let body = message("note", fields).to_string();
        server.request(Method::POST, "/v1/messages").header("Idempotency-Key", "order-7").body(body)
    };
    let (_, one) = server.ask(keyed(json!({}))).await;
    let (_, two) = server.ask(keyed(json!({}))).await;
    assert_eq!((&one["uuid"], &two["repeated"]), (&two["uuid"], &json!(true)));
    assert_eq!(server.ask(keyed(json!({"language": "fr"}))).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn every_wrong_field_is_reported() {
    let home = home("");
    let server = Server::start(&home);
    let request = server.request(Method::POST, "/v1/messages").body("{\"app_label\": 7, \"nam\": \"x\"}");
    let response = request.send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.expect("JSON");
    let paths: Vec<_> = problem["errors"].as_array().expect("errors").iter().map(|e| e["path"].clone()).collect();
    assert_eq!(paths, ["/app_label", "/name", "/recipient", "/nam"]);
    for (path, status) in [
        ("/v1/messages?limit_to=emial", StatusCode::BAD_REQUEST),
        ("/v1/messages?wiat=1", StatusCode::BAD_REQUEST),
        ("/v1/message", StatusCode::NOT_FOUND),
        ("/v1/queue", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (is, problem) = server.post(path, message("note", json!({}))).await;
        assert_eq!(is, status, "{path}: {problem}");
        assert_eq!(problem["status"], status.as_u16(), "{path}: {problem}");
    }
    let later = message("note", json!({"options": {"not_before": "soon"}}));
    let (status, problem) = server.post("/v1/messages", later).await;
    assert_eq!(
        (status, &problem["errors"][0]["path"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/options/not_before"))
    );
    assert_eq!(server.get("/v1/messages/not-a-uuid").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(server.get("/v1/messages?state=snet").await.1["type"], "bad-request");
}

#[tokio::test]
async fn a_dry_run_reports_everything_and_sends_nothing() {
    let home = home("");
    let server = Server::start(&home);
    let (status, told) = server.post("/v1/messages?dry_run", note(1, json!({}))).await;
    assert_eq!(status, StatusCode::OK);
    let email = channel(&told, "email");
    assert_eq!((&email["state"], &email["rendered"][1]["text"]), (&json!("ready"), &json!("A note")));
    assert_eq!(server.get(&format!("/v1/messages/{}", Uuid::from_u128(1))).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn not_before_schedules_a_message_and_cancel_cancels_it() {
    let home = home("");
    let server = Server::start(&home);
    let later = note(1, json!({"options": {"not_before": "2199-01-01T00:00:00Z"}}));
    server.post("/v1/messages", later).await;
    let (_, message) = server.get(&format!("/v1/messages/{}", Uuid::from_u128(1))).await;
    assert_eq!((&message["state"], &message["due"]), (&json!("queued"), &json!("2199-01-01T00:00:00Z")));
    let cancel = format!("/v1/messages/{}/cancel", Uuid::from_u128(1));
    assert_eq!(server.post(&cancel, "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.post(&cancel, "").await.0, StatusCode::CONFLICT);
    let soon = jiff::Timestamp::now().checked_add(Duration::from_millis(1_500)).expect("in range");
    let started = std::time::Instant::now();
    server.send(&note(2, json!({"options": {"not_before": soon.to_string()}}))).await;
    assert!(started.elapsed() >= Duration::from_secs(1), "it waited: {:?}", started.elapsed());
}

#[tokio::test]
async fn dead_letters_are_listed_retried_and_discarded() {
    let home = home(
        "[relays.main]\nkind = 'smtp'\nhost = '127.0.0.1'\nport = 1\ntls = 'none'\n[delivery]\nretry-delay = '50ms'\nexpiration-delay = '100ms'\nmax-age = '200ms'\n",
    );
    let server = Server::start(&home);
    for number in 1..=3 {
        let taken = server.send(&note(number, json!({}))).await;
        assert_eq!(taken["state"], "expired", "{taken}");
    }
    let (_, dead) = server.get("/v1/messages?state=dead").await;
    assert_eq!(dead["messages"].as_array().map(Vec::len), Some(3));
    let retry = format!("/v1/messages/{}/retry", Uuid::from_u128(1));
    assert_eq!(server.post(&retry, "").await.0, StatusCode::ACCEPTED);
    settled(&server, &json!(Uuid::from_u128(1)), "expired").await;
    assert_eq!(server.post("/v1/dead-letters/discard", "").await.1["changed"], 3);
    let (_, dead) = server.get("/v1/messages?state=dead").await;
    assert_eq!(dead["messages"], json!([]));
    assert_eq!(server.get(&format!("/v1/messages/{}", Uuid::from_u128(2))).await.1["state"], "discarded");
    configure(&home, "");
    assert_eq!(server.post(&retry, "").await.0, StatusCode::CONFLICT, "given up is given up");
}

#[tokio::test]
async fn entries_reach_policies_and_people_are_erased() {
    let home = home("");
    home.plugin("bulk_email_optout");
    configure(&home, "[plugins.bulk_email_optout]\ngrants = { keyvalue = ['course-optouts:read'] }\n");
    let server = Server::start(&home);
    let course = json!({"context": {"course_ids": ["c1"]}});
    assert_eq!(server.send(&note(1, course.clone())).await["state"], "sent");
    let put = server.request(Method::PUT, "/v1/keyvalue/course-optouts/7%2Fc1").body("2026");
    assert_eq!(server.ask(put).await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.get("/v1/keyvalue/course-optouts/7%2Fc1").await, (StatusCode::OK, json!(2026)));
    let denied = server.send(&note(2, course)).await;
    assert_eq!(denied["state"], "not_sent", "{denied}");
    assert_eq!(denied["report"]["channels"][0]["reasons"][0]["policy"], "bulk_email_optout");
    let lines =
        "{\"bucket\": \"course-optouts\", \"key\": \"7/c1\"}\n{\"bucket\": \"b\", \"key\": \"k\", \"value\": [1]}\n";
    assert_eq!(server.post("/v1/keyvalue", lines).await.1, json!({"applied": 2}));
    assert_eq!(server.get("/v1/keyvalue/course-optouts/7%2Fc1").await.0, StatusCode::NOT_FOUND);
    let (status, problem) =
        server.post("/v1/keyvalue", "{\"bucket\": \"b\", \"key\": \"k\", \"value\": 1}\nnonsense\n").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_text(&problem["detail"], "line 2");
    assert_eq!(
        server.ask(server.request(Method::PUT, "/v1/keyvalue/no%20bucket/k")).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );

    let (_, found) = server.get("/v1/messages?user=7").await;
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(2));
    let old = server.post("/v1/forget?email=ZOE@learner.example", "").await;
    assert_eq!(
        old.1,
        json!({"waiting": 0, "in_flight": 0, "settled": 2, "damaged": 0}),
        "a client follows it: {old:?}"
    );
    let (_, erased) = server.post("/v1/erase?email=ZOE@learner.example", "").await;
    assert_eq!(erased, json!({"waiting": 0, "in_flight": 0, "settled": 0, "damaged": 0}), "all of it is erased");
    assert_eq!(server.get("/v1/messages?user=7").await.1["messages"], json!([]));
    assert_eq!(server.post("/v1/erase", "").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_command_line_uses_a_running_server() {
    let home = home("");
    let server = Server::start(&home);
    let url = server.url.clone();
    let ask = |arguments: &[&str], input: &str| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--server", &url]).collect();
        home.ace(&all).input(input).run()
    };
    let lines = format!("{}\n{}\n{{\"name\": 1}}\n", note(1, json!({})), note(2, json!({})));
    let done = ask(&["send", "--json", "-"], &lines).code(1);
    let told = done.lines();
    assert_eq!((channel(&told[0], "email")["state"].as_str(), told[2]["failed"].as_bool()), (Some("sent"), Some(true)));
    assert_text(&told[2]["refused"][0]["path"], "/app_label");

    let done = ask(&["messages", "--user", "7"], "").ok();
    assert_eq!(done.stdout.matches(" sent").count(), 2, "{}", done.stdout);
    let timeline = ask(&["messages", "--json", &Uuid::from_u128(1).to_string()], "").ok().lines();
    assert_eq!(timeline[0]["state"], "sent");
    ask(&["kv", "set", "b", "a/b", "x y"], "").ok();
    assert_eq!(ask(&["kv", "get", "b", "a/b"], "").ok().stdout, "x y\n");
    ask(&["kv", "delete", "b", "a/b"], "").ok();
    ask(&["kv", "get", "b", "a/b"], "").code(2).says("there is no such value");
    let stats = ask(&["queue", "--json"], "").ok().lines();
    assert_eq!(stats[0]["queue"]["waiting_ordinary"], 0);
    let rates = &stats[0]["queue"]["rates"];
    for span in ["minute", "five_minutes"] {
        let rate = |key: &str| rates[span][key].as_f64().expect("a number");
        assert!(rate("accepted") > 0.0 && rate("settled") == rate("accepted") && rate("failed") == 0.0, "{rates}");
    }
    let shown = ask(&["queue"], "").ok().stdout;
    assert!(shown.contains("accepted per second") && shown.contains("in the last five minutes"), "{shown}");
    let erased = ask(&["erase", "--user", "7"], "").ok().stdout;
    assert_eq!(erased, "0 waiting, 0 in flight, 2 settled\n");
    assert_eq!(ask(&["forget", "--user", "7"], "").ok().stdout, "0 waiting, 0 in flight, 0 settled\n");
    let plugins = ask(&["plugins", "--json"], "").ok().lines();
    assert_eq!((&plugins[0]["name"], &plugins[0]["state"]["state"]), (&json!("django_email"), &json!("active")));
    server.stop();
    home.ace(&["queue", "--server", &url]).run().code(2).says("is `ace serve` running there?");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let home = home("");
    let server = Server::start(&home);
    let (status, described) = server.get("/openapi.json").await;
    assert_eq!((status, &described["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    let paths = described["paths"].as_object().expect("paths");
    for path in
        ["/v1/messages", "/v1/batches/{uuid}", "/v1/keyvalue/{bucket}/{key}", "/v1/reload", "/metrics", "/v1/events"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    let page = server.request(Method::GET, "/docs/").send().await.expect("answered");
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.expect("text").to_lowercase().contains("swagger"));
    assert_eq!(server.get("/healthz").await, (StatusCode::OK, json!("ok")));
    assert_eq!(server.get("/readyz").await.1["ready"], true);
}
