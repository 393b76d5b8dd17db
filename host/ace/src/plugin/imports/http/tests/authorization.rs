//! Requests with a credential.

use std::cell::Cell;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::config::Config;
use crate::credentials::{Credentials, Surroundings};
use crate::plugin::imports::http::authorization::Credential;
use ace_store::keyvalue::{self, Keyvalue};

thread_local! {
    static NOW: Cell<Timestamp> = const { Cell::new(Timestamp::constant(1_796_040_000, 0)) };
    static TOKENS: Cell<u32> = const { Cell::new(0) };
}

/// The tokens of this server are `t1`, `t2`, …, and only the last one is good; the path says which that is.
fn answer(path: &str) -> Answer {
    match path {
        "/token" => {
            let number = TOKENS.get() + 1;
            TOKENS.set(number);
            let token = format!(r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":3600}}"#);
            with_length("200 OK\r\nContent-Type: application/json", &token)
        }
        path if path == format!("/good/{}", TOKENS.get()) => with_length("202 Accepted", "taken"),
        _ => with_length("401 Unauthorized", "old"),
    }
}

/// Credentials at this server, with the clock of this test.
fn credential(server: &Server) -> Credential {
    let text = format!(
        "[credentials.c]\nkind = 'oauth2-client-credentials'\nurls = ['{}']\ntoken-url = '{}'\nclient-id = 'ace'\n\
         client-secret = {{ env = 'SECRET' }}\n",
        server.url("/"),
        server.url("/token")
    );
    let config = Config::read(&text, None, [("SECRET".to_owned(), "hunter2".to_owned())]).unwrap();
    let store = Arc::new(Keyvalue::load(&keyvalue::Settings::default(), NOW.get()).unwrap());
    let surroundings = Surroundings { now: || NOW.get(), store };
    let credentials = Arc::new(Credentials::new(&config.credentials, &settings(), surroundings));
    Credential { own_name: "api".to_owned(), name: "c".to_owned(), credentials }
}

fn authorized(server: &Server, path: &str, credential: &Credential) -> Outgoing {
    Outgoing { credential: Some(credential.clone()), ..post(&server.url(path), "hi") }
}

/// The paths of the requests, with their tokens.
fn seen(server: &Server) -> Vec<String> {
    let token = |request: &String| {
        let header = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
        format!("{} {}", request.split(' ').nth(1).unwrap(), header.unwrap_or("-"))
    };
    server.requests().iter().map(token).collect()
}

#[tokio::test]
async fn an_expired_token_is_renewed_and_the_request_sent_once_more() {
    let server = Server::start(None, answer).await;
    let (client, credential) = (client(), credential(&server));
    let response = send(&client, authorized(&server, "/good/1", &credential)).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.rejected_credential), (202, &None));
    NOW.set(NOW.get() + SignedDuration::from_mins(2));
    // The provider takes only a second token.
    let response = send(&client, authorized(&server, "/good/2", &credential)).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.rejected_credential), (202, &None));
    assert_eq!(seen(&server)[1..], ["/good/1 t1", "/good/2 t1", "/token -", "/good/2 t2"]);
    assert_eq!(server.requests()[4].split("\r\n\r\n").nth(1), Some("hi"), "the body is sent once more too");
}

#[tokio::test]
async fn a_new_token_that_is_rejected_as_well_is_reported() {
    let server = Server::start(None, answer).await;
    let (client, credential) = (client(), credential(&server));
    let response = send(&client, authorized(&server, "/good/9", &credential)).await.unwrap();
    assert_eq!(response.status.as_u16(), 401);
    let why = response.rejected_credential.expect("it is rejected");
    assert!(why.contains("\"c\"") && !why.contains("t1"), "{why}");
    assert_eq!(seen(&server), ["/token -", "/good/9 t1"], "a token is renewed at most once a minute");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_effect_is_known() {
    let server = Server::start(None, |_| with_length("503 Busy", "")).await;
    let (client, credential) = (client(), credential(&server));
    let outcome = send(&client, authorized(&server, "/x", &credential)).await;
    assert_eq!(effect(&outcome), Effect::None);
    assert!(matches!(outcome, Err(Failure { kind: FailureKind::Unauthorized(_), status: None })), "{outcome:?}");
    assert!(seen(&server).iter().all(|request| request.starts_with("/token")), "{:?}", seen(&server));
}
