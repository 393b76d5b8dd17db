//! Authorization: tokens and scopes.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Server, home};
use crate::support::{Home, message, wait_for};

const TOKENS: &str = "[server]\nlisten = '127.0.0.1:0'\ntokens-file = 'tokens.json'\n";

fn token(home: &Home, name: &str, scope: &str) -> String {
    home.ace(&["token", "create", name, "--scope", scope]).run().ok().stdout.trim().to_owned()
}

#[tokio::test]
async fn each_route_requires_its_scope() {
    let home = home(TOKENS);
    let tokens = ["send", "read", "admin"].map(|scope| (scope, token(&home, scope, scope)));
    let server = Server::start(&home);
    let uuid = uuid::Uuid::nil();
    let one = format!("/v1/messages/{uuid}");
    let routes = [
        (Method::POST, "/v1/messages".to_owned(), "send"),
        (Method::POST, "/v1/batches".to_owned(), "send"),
        (Method::GET, one.clone(), "send read"),
        (Method::GET, format!("/v1/batches/{uuid}"), "send read"),
        (Method::GET, "/v1/messages".to_owned(), "read"),
        (Method::GET, "/v1/batches".to_owned(), "read"),
        (Method::GET, "/v1/plugins".to_owned(), "read"),
        (Method::GET, "/v1/shadow".to_owned(), "read"),
        (Method::GET, "/v1/queue".to_owned(), "read"),
        (Method::GET, "/metrics".to_owned(), "read"),
        (Method::GET, "/v1/events".to_owned(), "read"),
        (Method::GET, "/v1/plugins/none".to_owned(), "read"),
        (Method::GET, "/v1/keyvalue/b/k".to_owned(), "read"),
        (Method::GET, "/v1/keyvalue/b".to_owned(), "read"),
        (Method::PUT, "/v1/keyvalue/b/k".to_owned(), "admin"),
        (Method::DELETE, "/v1/keyvalue/b/k".to_owned(), "admin"),
        (Method::POST, "/v1/keyvalue".to_owned(), "admin"),
        (Method::GET, "/v1/suppressions".to_owned(), "read"),
        (Method::GET, "/v1/suppressions/a@b.example".to_owned(), "read"),
        (Method::PUT, "/v1/suppressions/a@b.example".to_owned(), "admin"),
        (Method::DELETE, "/v1/suppressions/a@b.example".to_owned(), "admin"),
        (Method::POST, "/v1/suppressions".to_owned(), "admin"),
        (Method::POST, format!("{one}/retry"), "admin"),
        (Method::POST, format!("{one}/cancel"), "admin"),
        (Method::POST, format!("{one}/discard"), "admin"),
        (Method::POST, format!("/v1/batches/{uuid}/pause"), "admin"),
        (Method::POST, format!("/v1/batches/{uuid}/resume"), "admin"),
        (Method::POST, format!("/v1/batches/{uuid}/cancel"), "admin"),
        (Method::POST, "/v1/dead-letters/retry".to_owned(), "admin"),
        (Method::POST, "/v1/dead-letters/discard".to_owned(), "admin"),
        (Method::POST, "/v1/reload".to_owned(), "admin"),
        (Method::POST, "/v1/erase?user=7".to_owned(), "admin"),
    ];
    for (method, path, scopes) in routes {
        let without = server.request(method.clone(), &path);
        assert_eq!(server.ask(without).await.0, StatusCode::UNAUTHORIZED, "{method} {path} without a token");
        let wrong = server.request(method.clone(), &path).bearer_auth("ace_nonsense");
        assert_eq!(server.ask(wrong).await.0, StatusCode::UNAUTHORIZED, "{method} {path} with nonsense");
        for (scope, token) in &tokens {
            // One of the bodies never ends.
            let answer = server.request(method.clone(), &path).bearer_auth(token).send().await.expect("answered");
            let status = answer.status();
            let is_let_in = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert_eq!(is_let_in, scopes.split(' ').any(|s| s == *scope), "{method} {path} with {scope}: {status}");
        }
    }
    for open in ["/healthz", "/readyz", "/openapi.json", "/docs/"] {
        assert_eq!(server.get(open).await.0, StatusCode::OK, "{open}");
    }
    let (_, log) = server.stop();
    assert!(tokens.iter().all(|(_, token)| !log.contains(token)), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_created_and_revoked_while_a_server_runs() {
    let home = home(TOKENS);
    let first = token(&home, "first", "send");
    let server = Server::start(&home);
    let lms = token(&home, "lms", "send,read");
    let ask = |token: String| {
        server.request(Method::POST, "/v1/messages").bearer_auth(token).body(message("note", json!({})).to_string())
    };
    wait_for("the new token", || {
        let status =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(server.ask(ask(lms.clone())))).0;
        (status == StatusCode::ACCEPTED).then_some(())
    });
    let listed = home.ace(&["token", "list"]).run().ok().stdout;
    assert!(listed.contains("lms") && listed.contains("send,read") && !listed.contains(&lms), "{listed}");
    home.ace(&["token", "revoke", "frist"]).run().code(2).says("did you mean \"first\"?");
    home.ace(&["token", "revoke", "first"]).run().ok();
    wait_for("the end of a token", || {
        let status =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(server.ask(ask(first.clone()))))
                .0;
        (status == StatusCode::UNAUTHORIZED).then_some(())
    });
}

#[test]
fn without_tokens_only_loopback_addresses_are_allowed() {
    let home = home("[server]\nlisten = '0.0.0.0:0'\n");
    home.ace(&["serve"]).run().code(2).says("anyone who can connect to this address could send mail");
    let home = super::home(TOKENS);
    home.ace(&["serve"]).run().code(2).says("ace token create NAME --scope send");
}

#[tokio::test]
async fn a_wrong_token_is_told_from_a_missing_and_an_expired_one() {
    let home = home(TOKENS);
    let old = token(&home, "lms", "read");
    let over = home.ace(&["token", "create", "old", "--scope", "read", "--expires", "2020-01-01T00:00:00Z"]).run().ok();
    let rotated = home.ace(&["token", "rotate", "lms", "--overlap", "1h"]).run().ok();
    rotated.says("a new secret for lms");
    let server = Server::start(&home);
    for (secret, kind, challenge) in [
        (None, "unauthorized", "Bearer"),
        (Some("ace_nonsense"), "wrong-token", "Bearer error=\"invalid_token\""),
        (Some(over.stdout.trim()), "expired-token", "Bearer error=\"invalid_token\""),
    ] {
        let request = server.request(Method::GET, "/v1/queue");
        let request = secret.iter().fold(request, |request, secret| request.bearer_auth(secret));
        let response = request.send().await.expect("answered");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], challenge);
        let problem: serde_json::Value = response.json().await.expect("JSON");
        assert_eq!(problem["type"], kind, "{problem}");
    }
    for secret in [old.as_str(), rotated.stdout.trim()] {
        let asked = home.ace(&["queue", "--server", &server.url]).env("ACE_SERVER_TOKEN", secret).run();
        asked.ok();
    }
    let ask = |secret| home.ace(&["queue", "--server", &server.url]).env("ACE_SERVER_TOKEN", secret).run().code(2);
    ask("ace_nonsense").says("the token is wrong or was revoked");
    ask(over.stdout.trim()).says("the token has expired");
    home.ace(&["queue", "--server", &server.url]).run().code(2).says("a bearer token is required");
    let used = wait_for("the last use", || {
        let listed = home.ace(&["token", "list", "--json"]).run().ok().lines();
        listed.into_iter().find(|one| one["name"] == "lms" && one["last_used"].is_string())
    });
    assert!(used["old_secret_until"].is_string(), "{used}");
    home.ace(&["token", "rotate", "lms", "--overlap", "soon"]).run().code(2).says("neither a time");
}
