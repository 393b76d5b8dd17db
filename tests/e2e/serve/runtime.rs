//! Plugins as an operator of a running server sees them: reloads, circuit breakers, shadow mode, metrics.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Server, configure, home, note};
use crate::crafted;
use crate::support::assert_text;

#[tokio::test]
async fn a_reload_returns_what_changed() {
    let home = home("");
    let server = Server::start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    home.plugin("stub_policy");
    home.file("plugins/stub_policy.toml", "[defaults]\ndeny = ['email']\n");
    let (status, told) = server.post("/v1/reload", "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    // The watcher may have been faster; either way the next message is denied.
    let denied = server.send(&note(2, json!({}))).await;
    assert_eq!(denied["state"], "not_sent", "{denied}");
    let (_, plugin) = server.get("/v1/plugins/stub_policy").await;
    assert_eq!(denied["report"]["policies"][0]["revision"], plugin["revision"]);
    assert_eq!(server.get("/v1/plugins/stub").await.0, StatusCode::NOT_FOUND);

    let output = home.ace(&["reload", "--server", &server.url]).run().ok().stdout;
    assert_eq!(output, "nothing changed\n");
    configure(&home, "[plugins.stub_polcy]\n");
    let problem = server.post("/v1/reload", "").await;
    assert_eq!(problem.0, StatusCode::CONFLICT);
    assert_text(&problem.1["detail"], "did you mean \"stub_policy\"?");
}

/// Each of these files once ended the server within a tenth of a second.
#[tokio::test]
async fn a_crafted_file_beside_a_running_server_breaks_only_itself() {
    let home = home("");
    configure(&home, "[compiler]\nmemory = '256MiB'\ncpu-time = '2s'\n");
    let server = Server::start(&home);
    let files =
        [("nested_types", crafted::nested_types(1_200)), ("wide_components", crafted::multiplied_components(4, 60))];
    for (name, bytes) in &files {
        let file = home.file("new", bytes);
        std::fs::rename(file, home.path(&format!("plugins/{name}.wasm"))).expect("in place");
        // The watcher may be faster than this request. A file that was written a moment ago is not listed yet.
        let mut told = json!(null);
        for _ in 0..600 {
            server.post("/v1/reload", "").await;
            told = server.get(&format!("/v1/plugins/{name}")).await.1;
            if told["state"]["state"] == "broken" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(told["state"]["state"], "broken", "{name}: {told}");
    }
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    server.stop();
}

#[tokio::test]
async fn an_open_circuit_breaker_is_in_the_list_and_in_the_metrics() {
    let home = home("");
    home.guest("hostile", "hostile");
    configure(&home, "[plugins.hostile]\non-error = 'allow'\n[limits]\ncircuit-faults = 2\ncircuit-pause = '1s'\n");
    let server = Server::start(&home);
    let harm = |harm: &str| json!({"context": {"in": "check", "do": harm}});
    for number in 1..=2 {
        server.send(&note(number, harm("trap"))).await;
    }
    let (_, plugin) = server.get("/v1/plugins/hostile").await;
    assert_eq!(plugin["circuit_breaker"], json!({"faults": 2, "open": true}));
    let listed = home.ace(&["plugins", "hostile", "--server", &server.url]).run().ok().stdout;
    assert!(listed.contains("circuit breaker open after 2 faults"), "{listed}");
    let metrics = server.get("/metrics").await.1;
    let revision = plugin["revision"].as_str().expect("a revision");
    let fault = format!("ace_plugin_faults_total{{plugin=\"hostile\",revision=\"{revision}\",kind=\"trap\"}} 2");
    for line in [fault.as_str(), "ace_plugin_circuit_breaker_open{plugin=\"hostile\"} 1"] {
        assert_text(&metrics, line);
    }
    // After the pause one call tests the plugin, and closes it.
    for number in 3..100 {
        server.send(&note(number, harm(""))).await;
        if server.get("/v1/plugins/hostile").await.1["circuit_breaker"]["open"] == json!(false) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_text(&server.get("/metrics").await.1, "ace_plugin_circuit_breaker_open{plugin=\"hostile\"} 0");
    let (_, log) = server.stop();
    assert!(log.contains("its circuit breaker is closed"), "{log}");
}

#[tokio::test]
async fn a_policy_in_shadow_mode_is_compared_on_live_traffic() {
    let home = home("");
    home.plugin("stub_policy");
    configure(&home, "[plugins.stub_policy]\nmode = 'shadow'\nconfig = { deny = ['email'] }\n");
    let server = Server::start(&home);
    for number in 1..=3 {
        assert_eq!(server.send(&note(number, json!({}))).await["state"], "sent");
    }
    let (_, compared) = server.get("/v1/shadow").await;
    let comparison = &compared[0]["comparison"];
    assert_eq!((&comparison["agrees"], &comparison["differs"]), (&json!(0), &json!(3)));
    assert_eq!(comparison["differences"][0]["result"]["deny"][0]["channel_type"], "email");
    // A reload that does not change it keeps the counts.
    server.post("/v1/reload", "").await;
    server.send(&note(4, json!({}))).await;
    let shown = home.ace(&["plugins", "--shadow", "--server", &server.url]).run().ok().stdout;
    let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..6], ["stub_policy", "0", "4", "0", "all", "policies"], "{shown}");
    configure(&home, "[plugins.stub_policy]\nmode = 'shadow'\n");
    server.post("/v1/reload", "").await;
    server.send(&note(5, json!({}))).await;
    let (_, compared) = server.get("/v1/shadow").await;
    assert_eq!(compared[0]["comparison"]["agrees"], 1, "{compared}");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let home = home("");
    let server = Server::start(&home);
    server.send(&note(1, json!({}))).await;
    let metrics = server.get("/metrics").await.1;
    for line in [
        "ace_settled_total{channel_type=\"email\",channel=\"django_email\",state=\"sent\"} 1",
        "ace_plugin_up{plugin=\"django_email\"} 1",
        "ace_queue_waiting{priority=\"transactional\"} 0",
        "ace_delivery_duration_seconds_count{channel=\"django_email\"} 1",
    ] {
        assert_text(&metrics, line);
    }
    assert!(!metrics.as_str().expect("text").contains("zoe@"), "nothing of a message is a label");
    let response = server.request(Method::GET, "/metrics").send().await.expect("answered");
    assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/plain"));
}

/// A policy that ace.toml does not name, and whose file is damaged while no server runs.
#[tokio::test]
async fn a_policy_that_was_enforced_before_a_restart_does_not_fail_open_after_it() {
    let home = home("");
    home.plugin("stub_policy");
    home.file("plugins/stub_policy.toml", "[defaults]\ndeny = ['push']\n");
    let server = Server::start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    server.stop();
    home.file("plugins/stub_policy.wasm", "damaged");
    let server = Server::start(&home);
    let (_, taken) = server.post("/v1/messages?wait=1", note(2, json!({}))).await;
    assert_eq!(taken["state"], "queued", "{taken}");
    assert_text(
        &taken_report(&server, 2).await["policies"][0]["broken"]["fault"]["message"],
        "it is not a WebAssembly component",
    );
    std::fs::remove_file(home.path("plugins/stub_policy.wasm")).expect("removed");
    server.post("/v1/reload", "").await;
    super::settled(&server, &json!(uuid::Uuid::from_u128(2)), "sent").await;
}

async fn taken_report(server: &Server, number: u128) -> serde_json::Value {
    server.get(&format!("/v1/messages/{}", uuid::Uuid::from_u128(number))).await.1["report"].take()
}
