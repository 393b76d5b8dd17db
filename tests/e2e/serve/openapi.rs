//! The API and its description: Schemathesis (PyPI) reads /openapi.json and sends valid and invalid requests.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{Server, home, note};
use crate::support::{repository, wait_for};

/// Cases of each operation in each phase.
const EXAMPLES: &str = "20";
const SEED: &str = "20261128";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method,ignored_auth";
/// The timeout; an idle machine needs a quarter of it.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test]
async fn every_response_matches_the_description() {
    let home = home("[server]\nlisten = '127.0.0.1:0'\ntokens-file = 'tokens.json'\n");
    let created = home.ace(&["token", "create", "tester", "--scope", "send,read,admin"]).run().ok();
    let bearer = format!("Bearer {}", created.stdout.trim());
    let server = Server::start(&home);
    // schemathesis_hooks.py needs a message that failed, one that is queued, one that was sent, and batches.
    let failing = json!({"name": "no-templates"});
    let later = json!({"options": {"not_before": "2199-01-01T00:00:00Z"}});
    for (number, fields) in [(1, failing), (2, later), (3, json!({}))] {
        let post = server.request(reqwest::Method::POST, "/v1/messages").header("Authorization", &bearer);
        assert!(server.ask(post.body(note(number, fields).to_string())).await.0.is_success());
    }
    for number in [1, 4] {
        let head = json!({"uuid": Uuid::from_u128(number), "message_type": {"app_label": "app", "name": "note"}});
        let post = server.request(reqwest::Method::POST, "/v1/batches").header("Authorization", &bearer);
        assert!(server.ask(post.body(head.to_string())).await.0.is_success());
    }

    let said = home.file("schemathesis.txt", "");
    let output = std::fs::File::create(&said).expect("created");
    let mut command = Command::new(repository("target/venv").join("bin/schemathesis"));
    command
        .current_dir(home.path(""))
        .env("PYTHONPATH", repository("tests/e2e"))
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("run")
        .arg(format!("{}/openapi.json", server.url))
        .args(["--header", &format!("Authorization: {bearer}"), "--checks", CHECKS])
        // This stream never ends.
        .args(["--exclude-path", "/v1/events"])
        .args(["--phases", "coverage,fuzzing,stateful", "--max-examples", EXAMPLES, "--seed", SEED])
        .args(["--request-timeout", "20", "--continue-on-failure", "--no-shrink", "--no-color", "--warnings", "off"])
        .stdout(output.try_clone().expect("cloned"))
        .stderr(output);
    let mut child = command.spawn().expect("schemathesis runs");
    let started = Instant::now();
    let status = wait_for("the end of schemathesis", || {
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
        child.try_wait().expect("asked")
    });
    let said = home.read("schemathesis.txt");
    assert!(status.success(), "after {:?}\n{said}", started.elapsed());
    assert!(!said.contains("errors"), "{said}");
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
